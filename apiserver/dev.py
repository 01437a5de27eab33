"""
The embedded apiserver as a process: `apiserver run`.

It is for trying out, for demos and for tests: one process, one token that may do everything, no
controllers. In production the hub talks to a real cluster, through the same API.

Everything it needs is made on the first start and kept in its data directory: a CA, a token, the
database. The serving certificate is made anew at each start, so it is never old and always fits the
address.
"""

import argparse
import base64
import contextlib
import hmac
import json
import logging
import secrets
import socket
import ssl
import sys
from asyncio import get_running_loop
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from apimachinery.errors import ApiError, Unauthorized
from apimachinery.keys import ObjectKey
from apimachinery.resources import NAMESPACES, NODE_LEASE_NAMESPACE
from apiserver import plans
from apiserver.admission import Admission
from apiserver.collector import collect
from apiserver.discovery import PUBLIC, About
from apiserver.handlers import Api
from apiserver.http import Handler, ListenError, Request, Response, serve
from apiserver.plans import Plan, View
from apiserver.requests import ApiRequest, Verb
from apiserver.storage import Durability, Storage, StorageError
from apiserver.writes import PlannedWrites, facts
from componentbase import cli, pki
from componentbase.cli import CommandError
from componentbase.endpoints import Endpoint
from componentbase.files import lock_dir, open_private_dir, write_atomic

logger = logging.getLogger(__name__)

FIRST_NAMESPACES = ("default", "kube-system", NODE_LEASE_NAMESPACE, "fairlead-system")
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
        help="what an answered write survives; crash writes faster, and suits tests and demos",
    )
    cli.add_log_flags(run)
    args = parser.parse_args(argv)
    cli.configure_logs(args)
    return cli.run(_run(args), prog="apiserver")


async def _run(args: argparse.Namespace) -> None:
    loop = get_running_loop()
    directory = await loop.run_in_executor(None, open_private_dir, args.data_dir)
    with lock_dir(directory):
        try:
            url = f"sqlite:///{directory / 'apiserver.db'}"
            async with Storage.open(url, durability=Durability(args.durability)) as storage:
                await _serve(storage, directory, args.listen, args.name)
        except (StorageError, ApiError) as exc:
            raise CommandError(str(exc)) from exc
        except ListenError as exc:
            raise CommandError(f"{exc}; choose another with --listen") from exc


async def _serve(storage: Storage, directory: Path, listen: Endpoint, names: Sequence[str]) -> None:
    await _make_namespaces(storage)
    identity = Identity.in_directory(directory, _names(listen, names))
    api = Api(storage, PlannedWrites(storage), about=About("fairlead", own_version()))
    async with serve(
        authenticated(api, identity.token), host=listen.host, port=listen.port, ssl_context=identity.context
    ) as server:
        host = "127.0.0.1" if listen.host in ("", "0.0.0.0") else "::1" if listen.host == "::" else listen.host  # noqa: S104
        endpoint = f"https://{Endpoint(host, server.port)}"
        kubeconfig = directory / "kubeconfig"
        write_atomic(kubeconfig, identity.kubeconfig(endpoint))
        logger.warning("this apiserver is for trying out, demos and tests; use a real cluster in production")
        logger.info(
            "serving", extra={"endpoint": endpoint, "kubeconfig": str(kubeconfig), "revision": storage.revision}
        )
        await collect(storage)  # which goes on until the process is told to stop


class Identity:
    """Who the server is and who may use it: its CA, its certificate, the token."""

    def __init__(self, ca: pki.KeyPair, token: str, context: ssl.SSLContext) -> None:
        self.token = token
        self.context = context
        self._ca = ca

    @classmethod
    def in_directory(cls, directory: Path, names: Sequence[str]) -> "Identity":
        """What the data directory holds; the CA and the token are made where they are missing."""
        keys = open_private_dir(directory / "pki")
        ca_cert, ca_key, token_file = keys / "ca.crt", keys / "ca.key", keys / "token"
        if not ca_key.exists() or not ca_cert.exists():
            made = pki.create_ca("fairlead-apiserver", CA_DAYS)
            write_atomic(ca_cert, made.cert_pem)
            write_atomic(ca_key, made.key_pem)
        if not token_file.exists():
            write_atomic(token_file, secrets.token_urlsafe(TOKEN_BYTES).encode())
        ca = pki.KeyPair(ca_cert.read_bytes(), ca_key.read_bytes())
        server = pki.issue_server_cert(ca, names, CERTIFICATE_DAYS)
        write_atomic(keys / "server.crt", server.cert_pem)
        write_atomic(keys / "server.key", server.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(keys / "server.crt", keys / "server.key")
        return cls(ca, token_file.read_text().strip(), context)

    def kubeconfig(self, endpoint: str) -> bytes:
        """A kubeconfig for this server. JSON is YAML, and needs no library to be written right."""
        authority = base64.b64encode(self._ca.cert_pem).decode()
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


def authenticated(handler: Handler, token: str) -> Handler:
    """A handler that asks for the token first, but for what anybody may see."""
    expected = token.encode()

    async def check(request: Request) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), expected)
        if not known and request.path.strip("/").partition("/")[0] not in PUBLIC:
            raise Unauthorized("Unauthorized")
        return await handler(request)

    return check


async def _make_namespaces(storage: Storage) -> None:
    """The namespaces that are there from the start. One that is there already is left alone."""
    admission = Admission()
    for name in FIRST_NAMESPACES:

        def make(view: View, name: str = name) -> Plan:
            if view.get(ObjectKey(NAMESPACES, "", name)) is not None:
                return Plan(200, ())
            asked = ApiRequest(verb=Verb.CREATE, resource=NAMESPACES)
            return plans.create(view, asked, {"metadata": {"name": name}}, facts(), admission)

        await storage.commit(make)


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
