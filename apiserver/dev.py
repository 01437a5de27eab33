"""
The embedded apiserver as a process: `apiserver run`.

It is for trying out, for demos and for tests: one process, and of the controllers only those that clean up and those
that sign client certificates. The kubeconfig it writes may do everything; others come in with a token file, client
certificates or ServiceAccount tokens, and may do what roles allow them. In production the hub talks to a real cluster,
through the same API.

Everything it needs is made on the first start and kept in its data directory: a CA, one for clients, a token, the key
that signs tokens and, unless another is named, the database. The serving certificate is made anew at each
start, so it is never old and always fits the address.
"""

import argparse
import asyncio
import base64
import contextlib
import gc
import json
import logging
import secrets
import socket
import ssl
import sys
from asyncio import get_running_loop
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from apimachinery.errors import ApiError
from apimachinery.keys import ObjectKey
from apimachinery.resources import NAMESPACES, NODE_LEASE_NAMESPACE
from apiserver import bootstrap, escalation, namespaces, plans, signer, users
from apiserver.access import guarding
from apiserver.admission import Admission
from apiserver.authentication import Authentication
from apiserver.authorizer import Authorizer
from apiserver.collector import collect
from apiserver.database import Durability, StorageError
from apiserver.discovery import About
from apiserver.handlers import Api
from apiserver.http import ListenError, Request, Response, serve
from apiserver.plans import Plan, View
from apiserver.requests import ApiRequest, Verb
from apiserver.reviews import Reviews
from apiserver.serviceaccounts import ISSUER, ServiceAccounts
from apiserver.storage import Storage
from apiserver.tokens import InvalidToken, Signer
from apiserver.users import ADMIN, TokenFileError, User
from apiserver.writes import PlannedWrites, facts
from componentbase import cli, pki
from componentbase.allocator import give_back_holes, use_large_blocks_again
from componentbase.cli import CommandError
from componentbase.endpoints import Endpoint
from componentbase.files import lock_dir, open_private_dir, write_atomic
from componentbase.tls import read_little_at_a_time

logger = logging.getLogger(__name__)

SWITCH_S = 0.0005
"""How long the loop keeps the interpreter from the database's thread, which asks for it ten times in each commit."""
QUIET_S = 5.0
"""Giving back takes some 10 ms, and new pages cost a large object a third of its time: not while they come."""
FIRST_NAMESPACES = ("default", "kube-system", NODE_LEASE_NAMESPACE)
CA_DAYS = 3650
CERTIFICATE_DAYS = 365  # a process that runs for a year is restarted for other reasons
TOKEN_BYTES = 32

_EXAMPLE = """
apiserver run --data-dir ./apiserver --listen 127.0.0.1:6443
kubectl --kubeconfig ./apiserver/kubeconfig get namespaces
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    parser = cli.new_parser("apiserver", __doc__.strip().partition("\n\n")[0], _EXAMPLE)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = cli.add_command(
        commands, "run", "Serve a small Kubernetes-style API for trying out, not for production", _EXAMPLE
    )
    run.add_argument("--data-dir", type=Path, required=True, help="keeps all state; kubeconfig is written here")
    run.add_argument(
        "--listen", type=cli.endpoint, default=Endpoint("127.0.0.1", 6443), metavar="HOST:PORT",
        help="127.0.0.1:6443 by default; port 0 takes a free one",
    )  # fmt: skip
    run.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a further name or address for the certificate"
    )
    run.add_argument(
        "--durability",
        choices=[level.value for level in Durability],
        default=Durability.POWER_CUT.value,
        help="what an answered write survives; crash writes faster, and suits tests and demos (not for PostgreSQL)",
    )
    run.add_argument(
        "--database-url", metavar="URL",
        help="keep the objects in PostgreSQL, for example postgresql+psycopg://USER@HOST/DATABASE with PGPASSWORD set; "
        "a file in the data directory by default",
    )  # fmt: skip
    run.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help='further users: lines of token,user,uid,"group,group", as for kube-apiserver\'s --token-auth-file',
    )  # fmt: skip
    run.add_argument(
        "--client-ca-file", type=Path, metavar="FILE",
        help="accept client certificates signed by these CAs, too, beside its own: CN is the user, each O a group",
    )  # fmt: skip
    cli.add_log_flags(run)
    args = parser.parse_args(argv)
    cli.configure_logs(args)
    use_large_blocks_again()
    sys.setswitchinterval(SWITCH_S)
    read_little_at_a_time()
    return cli.run(_run(args), prog="apiserver")


async def _run(args: argparse.Namespace) -> None:
    loop = get_running_loop()
    directory = await loop.run_in_executor(None, open_private_dir, args.data_dir)
    with lock_dir(directory):
        try:
            url = args.database_url or f"sqlite:///{directory / 'apiserver.db'}"
            async with Storage.open(url, durability=Durability(args.durability)) as storage:
                await _serve(storage, directory, args)
        except (StorageError, ApiError) as exc:
            raise CommandError(str(exc)) from exc
        except ListenError as exc:
            raise CommandError(f"{exc}; choose another with --listen") from exc


async def _serve(storage: Storage, directory: Path, args: argparse.Namespace) -> None:
    listen: Endpoint = args.listen
    await _make_first_objects(storage)
    identity = Identity.in_directory(directory, _names(listen, args.name))
    client_cas = identity.client_ca.cert_pem
    if args.client_ca_file is not None:
        client_cas += accept_clients(identity.context, args.client_ca_file)
    tokens = read_token_file(args.token_file) if args.token_file is not None else {}
    accounts = ServiceAccounts(storage.view, identity.signer)
    authentication = Authentication({**tokens, identity.token: ADMIN}, accounts, ISSUER)
    authorizer = Authorizer(storage)
    writes = PlannedWrites(
        storage,
        asked=Reviews(authorizer, authentication, accounts.issue),
        guard=lambda make, user: escalation.guarded(make, user, authorizer),
    )
    api = Api(storage, writes, about=About("fairlead", own_version()))

    async def handler(request: Request) -> Response:
        return accounts.document(request.path) or await api(request)

    await namespaces.furnish(storage, identity.ca_pem)
    await signer.publish(storage, client_cas)
    async with serve(
        guarding(handler, authentication, authorizer), host=listen.host, port=listen.port, ssl_context=identity.context
    ) as server:
        host = "127.0.0.1" if listen.host in ("", "0.0.0.0") else "::1" if listen.host == "::" else listen.host  # noqa: S104
        endpoint = f"https://{Endpoint(host, server.port)}"
        kubeconfig = directory / "kubeconfig"
        write_atomic(kubeconfig, identity.kubeconfig(endpoint))
        logger.warning("this apiserver is for trying out, demos and tests; use a real cluster in production")
        logger.info(
            "serving", extra={"endpoint": endpoint, "kubeconfig": str(kubeconfig), "revision": storage.revision}
        )
        # What was imported stays; left in, every full collection would walk it, and hold everybody up for 36 ms.
        gc.freeze()
        async with asyncio.TaskGroup() as group:  # which goes on until the process is told to stop
            group.create_task(collect(storage), name="apiserver[collector]")
            group.create_task(signer.sign(storage, identity.client_ca), name="apiserver[signer]")
            group.create_task(namespaces.follow(storage, identity.ca_pem), name="apiserver[namespaces]")
            group.create_task(tidy(storage), name="apiserver[tidy]")


async def tidy(storage: Storage, quiet_s: float = QUIET_S) -> None:
    """Give back what large objects took, once none has come for so long; until cancelled."""
    before = given_back = storage.large_writes
    while True:
        await asyncio.sleep(quiet_s)
        now = storage.large_writes
        if now == before != given_back:
            give_back_holes()
            given_back = now
        before = now


def read_token_file(path: Path) -> Mapping[str, User]:
    """Users by token. Raises CommandError."""
    try:
        return users.parse_token_file(path.read_text())
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandError(f"--token-file {path}: {getattr(exc, 'strerror', None) or 'it is not UTF-8'}") from exc
    except TokenFileError as exc:
        raise CommandError(f"--token-file {path}: {exc}") from exc


def accept_clients(context: ssl.SSLContext, path: Path) -> bytes:
    """
    Have clients that show a certificate of these CAs, too, verified; the CAs, PEM. Raises CommandError.
    """
    try:
        context.load_verify_locations(path)
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise CommandError(f"--client-ca-file {path}: there is no such file") from exc
    except (ssl.SSLError, OSError) as exc:
        raise CommandError(f"--client-ca-file {path}: no CA certificate can be read from it in PEM form") from exc


class Identity:
    """Who the server is and who may use it: its CAs, its certificate, the token, the key that signs tokens."""

    def __init__(
        self, ca: pki.KeyPair, client_ca: pki.KeyPair, token: str, context: ssl.SSLContext, signer: Signer
    ) -> None:
        self.token = token
        self.context = context
        self.signer = signer
        self.ca_pem = ca.cert_pem
        self.client_ca = client_ca
        """Signs the certificates that CertificateSigningRequests ask for."""

    @classmethod
    def in_directory(cls, directory: Path, names: Sequence[str]) -> "Identity":
        """What the data directory holds; the CA, the token and the signing key are made where they are missing."""
        keys = open_private_dir(directory / "pki")
        ca, client_ca = _ca(keys, "ca", "fairlead-apiserver"), _ca(keys, "client-ca", "fairlead-apiserver-clients")
        token_file = keys / "token"
        if not token_file.exists():
            write_atomic(token_file, secrets.token_urlsafe(TOKEN_BYTES).encode())
        signing_key = keys / "service-account.key"
        if not signing_key.exists():
            write_atomic(signing_key, pki.create_signing_key())
        server = pki.issue_server_cert(ca, names, CERTIFICATE_DAYS)
        write_atomic(keys / "server.crt", server.cert_pem)
        write_atomic(keys / "server.key", server.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(keys / "server.crt", keys / "server.key")
        context.load_verify_locations(cadata=client_ca.cert_pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL  # who has none shows a token
        try:
            signer = Signer(signing_key.read_bytes(), ISSUER)
        except InvalidToken as exc:
            raise CommandError(f"{signing_key}: {exc}; remove it to have another one made") from exc
        return cls(ca, client_ca, token_file.read_text().strip(), context, signer)

    def kubeconfig(self, endpoint: str) -> bytes:
        """A kubeconfig for this server. JSON is YAML, and needs no library to be written right."""
        authority = base64.b64encode(self.ca_pem).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "fairlead", "cluster": {"server": endpoint, "certificate-authority-data": authority}}
            ],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "fairlead", "context": {"cluster": "fairlead", "user": "admin"}}],
            "current-context": "fairlead",
        }
        return (json.dumps(config, indent=2) + "\n").encode()


def _ca(keys: Path, name: str, common_name: str) -> pki.KeyPair:
    """The CA of that name in a directory, made where it is missing."""
    certificate, key = keys / f"{name}.crt", keys / f"{name}.key"
    if not key.exists() or not certificate.exists():
        made = pki.create_ca(common_name, CA_DAYS)
        write_atomic(certificate, made.cert_pem)
        write_atomic(key, made.key_pem)
    return pki.KeyPair(certificate.read_bytes(), key.read_bytes())


async def _make_first_objects(storage: Storage) -> None:
    """The namespaces and roles that are there from the start. One that is there already is left alone."""
    admission = Admission()
    for name in FIRST_NAMESPACES:

        def make(view: View, name: str = name) -> Plan:
            if view.get(ObjectKey(NAMESPACES, "", name)) is not None:
                return Plan(200, ())
            asked = ApiRequest(verb=Verb.CREATE, resource=NAMESPACES)
            return plans.create(view, asked, {"metadata": {"name": name}}, facts(), admission)

        await storage.commit(make)
    await storage.commit(lambda view: bootstrap.plan(view, facts, admission))


def _names(listen: Endpoint, more: Sequence[str]) -> list[str]:
    """All names under which the server may be reached, as far as it can know."""
    names = ["localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", *more]
    with contextlib.suppress(OSError):
        names.append(socket.gethostname())
    if listen.host not in ("", "0.0.0.0", "::"):  # noqa: S104
        names.append(listen.host)
    return list(dict.fromkeys(names))


def own_version() -> str:
    """The installed distribution's version, "0" when run from a source tree that is not installed."""
    try:
        return version("fairlead")
    except PackageNotFoundError:
        return "0"


if __name__ == "__main__":
    sys.exit(main())
