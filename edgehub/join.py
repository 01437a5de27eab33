"""
The edge's side of joining: from a token to an identity on disk, or to one clear sentence and nothing on disk.

The first contact cannot verify the hub in the usual way, since the edge has no CA yet. It takes the CA's
certificate from a connection it does not trust, compares its SHA-256 with the one in the token, and only then
dials again, verifying, to show the token. So the token is never shown to anybody but the hub it came from, and
the private key is made here and never leaves.

Invariants
    the token goes over a connection verified against the pinned CA only
    either DIR holds pki/ and the configuration, complete, or it is as it was before (but for the lock file)
    the configuration is written last: where it is, the rest is

Blocking on purpose: it is a command, and http.client and ssl are all it takes.
"""

import contextlib
import hashlib
import http.client
import json
import re
import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

from apimachinery.keys import Node
from componentbase.endpoints import Endpoint
from componentbase.errors import CommandError
from componentbase.files import lock_dir, open_private_dir, write_atomic

CONFIGURATION = "edgecore.yaml"
PKI = "pki"
CA_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.crt", "edge.crt", "edge.key"
SERVING_FILE, SERVING_KEY_FILE = "api.crt", "api.key"
STORE = "edge.db"
DEFAULT_PORT = 10002

ANSWER_BYTES = 64 << 10  # two certificates and a few words; a real answer has 2 KiB
CLOCK_SKEW_S = 60  # less than this between two clocks explains no refused certificate

_TOKEN = re.compile(r"fl1\.[a-z2-7]{8}\.[A-Za-z0-9_-]{43}\.(?P<pin>[0-9a-f]{64})")
_TOKEN_LENGTH = 121
_MAX_NAME = 52  # what a certificate's common name has room for after `system:node:`
_SUBJECT = "system:node:"
_ORGANIZATION = "system:nodes"

# X509_V_ERR_* of OpenSSL's x509_vfy.h, as SSLCertVerificationError.verify_code has them.
_NOT_YET_VALID, _EXPIRED, _HOSTNAME_MISMATCH, _IP_MISMATCH = 9, 10, 62, 64


class JoinError(CommandError):
    """
    Joining failed and changed nothing; the text says why and what to do.

        JoinError
        ├── BadToken        take the token as it was printed
        ├── AlreadyJoined   choose another directory, or replace what is there
        ├── NotReachable    check address, network, and that cloudcore runs
        ├── NotTrusted      it is not the hub the token came from, or a clock is wrong
        └── Refused         the hub said no
    """


class BadToken(JoinError):
    pass


class AlreadyJoined(JoinError):
    pass


class NotReachable(JoinError):
    pass


class NotTrusted(JoinError):
    pass


class Refused(JoinError):
    pass


class Joined(NamedTuple):
    """What a node is after joining; what its configuration is made from."""

    node: Node
    link: Endpoint
    """Where the link is: the host that was joined through, the port the hub named."""
    link_path: str
    data_dir: Path


def join(
    cloud: Endpoint,
    token: str,
    node: Node,
    data_dir: Path,
    configuration: Callable[[Joined], str],
    *,
    replace: bool = False,
    timeout_s: float = 10.0,
) -> Joined:
    """
    Make this directory the home of `node`: DIR/pki with key, certificate and CA, and DIR/edgecore.yaml.

    configuration: gives the text of DIR/edgecore.yaml. replace: take the place of what joined here before.
    timeout_s: for each answer. Raises JoinError and componentbase.files.FilesError; then nothing has changed.
    """
    pin = _pin_of(token)
    _check_name(node)
    with _home(data_dir, node, replace=replace) as home:
        # Here and not at the top: importing it costs a running edgecore 9 MB, and it never joins.
        from componentbase import pki

        hub = _Hub(cloud, timeout_s)
        ca_pem = hub.fetch_ca(pin)
        key_pem, csr_pem = pki.make_key_and_csr(_SUBJECT + node, _ORGANIZATION)
        serving_key_pem, serving_csr_pem = pki.make_key_and_csr(_SUBJECT + node, _ORGANIZATION)
        serving = {"csr": serving_csr_pem.decode(), "addresses": _addresses(cloud)}
        request = {"node": node, "csr": csr_pem.decode(), "token": token, "serving": serving}
        answer = hub.post(ca_pem, request)
        joined = Joined(node, Endpoint(cloud.host, answer.link_port), answer.link_path, home)
        _install(home, key_pem, serving_key_pem, answer, configuration(joined), hub)
    return joined


def _addresses(cloud: Endpoint) -> list[str]:
    """This machine's address towards the hub, under which others may reach its API; none where that cannot be told."""
    from edgehub.nodeinfo import outgoing_address

    found = outgoing_address(cloud.host, cloud.port)
    return [found] if found else []


def _pin_of(token: str) -> str:
    found = _TOKEN.fullmatch(token)
    if found is None:
        what = (
            "it was cut or mistyped" if token.startswith("fl1.") else "it is something else" if token else "it is empty"
        )
        raise BadToken(
            f"this is not a join token ({what}): it reads fl1.ID.SECRET.PIN and has {_TOKEN_LENGTH} characters, "
            "as `cloudcore token create` prints it"
        )
    return found["pin"]


def _check_name(node: str) -> None:
    """Only what the certificate request needs; the hub judges names and says what it finds."""
    if not 0 < len(node) <= _MAX_NAME:
        raise JoinError(f"a node name has 1 to {_MAX_NAME} characters; this one has {len(node)}")


# ---- the directory


@contextlib.contextmanager
def _home(data_dir: Path, node: Node, *, replace: bool) -> Iterator[Path]:
    """The directory, ours alone while the block lasts, and gone again when the block fails and it was new."""
    is_new = not data_dir.exists()
    try:
        home = open_private_dir(data_dir)
        with lock_dir(home):
            _check_vacant(home, node, replace=replace)
            yield home
    except BaseException:
        if is_new:
            shutil.rmtree(data_dir, ignore_errors=True)
        raise


def _check_vacant(home: Path, node: Node, *, replace: bool) -> None:
    taken = [name for name in (CONFIGURATION, PKI) if (home / name).exists()]
    if not taken:
        return
    if not replace:
        raise AlreadyJoined(
            f"{home} has joined already (it holds {' and '.join(taken)}): start it with "
            f"`edgecore run --data-dir {home}`, or choose another directory, or give --force to join anew"
        )
    former = _former_node(home)
    if (home / STORE).exists() and former not in (None, node):
        # Its unsent reports would go out under the other name.
        raise AlreadyJoined(f"{home} holds the data of node {former}: choose another directory for node {node}")


def _former_node(home: Path) -> str | None:
    """Whose certificate is there; None when that cannot be told."""
    from componentbase import pki

    try:
        return pki.common_name((home / PKI / CERTIFICATE_FILE).read_bytes()).removeprefix(_SUBJECT)
    except (OSError, pki.BadCertificate):
        return None


def _install(
    home: Path, key_pem: bytes, serving_key_pem: bytes, answer: "_Answer", configuration: str, hub: "_Hub"
) -> None:
    """Put the new identity in place: written aside, checked, moved in whole, the old one back where that fails."""
    staged = Path(tempfile.mkdtemp(prefix=".joining.", dir=home))  # of mode 0700
    target, former = home / PKI, staged / "former"
    try:
        folder = staged / PKI
        folder.mkdir(mode=0o700)
        write_atomic(folder / KEY_FILE, key_pem)
        write_atomic(folder / CERTIFICATE_FILE, answer.certificate.encode(), 0o644)
        write_atomic(folder / CA_FILE, answer.ca.encode(), 0o644)
        if answer.serving:  # a hub of an earlier release signs none
            write_atomic(folder / SERVING_KEY_FILE, serving_key_pem)
            write_atomic(folder / SERVING_FILE, answer.serving.encode(), 0o644)
        _check_identity(folder, hub)
        if target.exists():
            target.rename(former)
        folder.rename(target)
        try:
            write_atomic(home / CONFIGURATION, configuration.encode())  # flushes the directory, so the moves too
        except BaseException:
            target.rename(folder)
            if former.exists():
                former.rename(target)
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _check_identity(folder: Path, hub: "_Hub") -> None:
    """What was signed must be a certificate for our key, and the CA one that TLS can use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
        context.load_verify_locations(folder / CA_FILE)
    except (ssl.SSLError, ValueError) as exc:
        raise hub.nonsense() from exc


# ---- the conversation


class _Answer(NamedTuple):
    """What the hub gave, its form checked."""

    certificate: str
    ca: str
    link_port: int
    link_path: str
    serving: str = ""
    """The certificate of the node's own API; "" where the hub does not sign such."""

    @classmethod
    def parse(cls, body: bytes) -> "_Answer":
        """Raises ValueError."""
        try:
            value: Any = json.loads(body)
            link = value["link"]
            found = cls(value["certificate"], value["ca"], link["port"], link["path"], value.get("serving", ""))
        except (RecursionError, KeyError, TypeError) as exc:
            raise ValueError("a part is missing") from exc
        texts = (found.certificate, found.ca, found.link_path, found.serving)
        if not all(isinstance(text, str) and text.isascii() for text in texts) or not found.link_path.startswith("/"):
            raise ValueError("a text is none")
        if type(found.link_port) is not int or not 0 < found.link_port < 1 << 16:
            raise ValueError("the port is none")
        return found


class _Hub:
    """The join endpoint of one hub, asked over a new connection each time."""

    def __init__(self, cloud: Endpoint, timeout_s: float) -> None:
        self._cloud = cloud
        self._timeout_s = timeout_s
        self._ahead_s = 0.0
        """By how much the hub's clock is ahead of ours, by its own unverified word: for texts only."""

    def fetch_ca(self, pin: str) -> str:
        """The CA's certificate in PEM, as the hub shows it and only if it is the one the token is pinned to."""
        context = _client_context()
        # Nothing to verify with yet, and nothing secret is sent: the answer is what gets verified, against the pin.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        status, body = self._ask(context, "GET", "/v1/ca")
        if status != 200:
            raise self.nonsense()
        try:
            der = ssl.PEM_cert_to_DER_cert(body.decode("ascii"))
        except ValueError as exc:
            raise self.nonsense() from exc
        if hashlib.sha256(der).hexdigest() != pin:
            raise NotTrusted(
                f"the certificate authority at {self._cloud} is not the one this token was made for: either --cloud "
                "names another installation than the one that printed the token, or somebody stands between. "
                "The token was not sent"
            )
        return ssl.DER_cert_to_PEM_cert(der)

    def post(self, ca_pem: str, request: Mapping[str, object]) -> _Answer:
        """The answer to a join request, which is shown to nobody but the holder of a certificate of this CA."""
        context = _client_context()
        context.load_verify_locations(cadata=ca_pem)
        status, body = self._ask(context, "POST", "/v1/join", json.dumps(request).encode())
        try:
            if status == 200:
                return _Answer.parse(body)
            message = json.loads(body)["message"]
        except (ValueError, RecursionError, KeyError, TypeError) as exc:
            raise self.nonsense() from exc
        if not isinstance(message, str) or not message.isprintable():
            message = f"it answered {status}"
        raise Refused(f"{self._cloud} refused: {message}")

    def nonsense(self) -> NotReachable:
        """The error for answers that the join endpoint does not give."""
        return NotReachable(
            f"{self._cloud} does not answer as cloudcore's join endpoint does: "
            f"check that --cloud names it (its port is {DEFAULT_PORT} by default)"
        )

    def _ask(self, context: ssl.SSLContext, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of one request. Raises JoinError."""
        cloud = self._cloud
        connection = http.client.HTTPSConnection(cloud.host, cloud.port, context=context, timeout=self._timeout_s)
        headers = {"connection": "close"}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            connection.connect()
            self._check_server(connection.sock)
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read(ANSWER_BYTES + 1)
            self._note_clock(response.headers.get("date"))
        except (OSError, http.client.HTTPException) as exc:
            raise self._explained(exc) from exc
        finally:
            connection.close()
        if len(answer) > ANSWER_BYTES:
            raise self.nonsense()
        return response.status, answer

    def _check_server(self, connection: object) -> None:
        """A node's certificate is of the same CA and may name any address; the token is for the hub."""
        certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
        # ((("commonName", NAME),), ...), as the ssl module has it; nothing where it was not verified
        if f"'{_SUBJECT}" in repr((certificate or {}).get("subject", ())):
            raise NotTrusted(f"{self._cloud} is a node and not cloudcore: check --cloud")

    def _note_clock(self, date: str | None) -> None:
        try:
            theirs = parsedate_to_datetime(date or "")
        except ValueError:
            return
        if theirs.tzinfo is not None:
            self._ahead_s = (theirs - datetime.now(UTC)).total_seconds()

    def _explained(self, exc: OSError | http.client.HTTPException) -> JoinError:
        """What a failed request means to the person who typed --cloud."""
        cloud = self._cloud
        match exc:
            case ssl.SSLCertVerificationError():
                return self._explained_certificate(exc)
            case ssl.SSLError() if "CERTIFICATE_REQUIRED" in (exc.reason or ""):
                return NotReachable(
                    f"{cloud} asks for a client certificate, so it is the link: "
                    f"--cloud wants the join port ({DEFAULT_PORT} by default)"
                )
            case ssl.SSLError() if exc.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
                return NotReachable(
                    f"{cloud} does not speak TLS: --cloud wants the join port ({DEFAULT_PORT} by default)"
                )
            case ssl.SSLError():
                return NotReachable(f"TLS with {cloud} failed: {exc.reason or exc.strerror}")
            case socket.gaierror():
                return NotReachable(
                    f'the name "{cloud.host}" cannot be resolved ({exc.strerror}): check --cloud and DNS'
                )
            case TimeoutError():
                return NotReachable(
                    f"{cloud} did not answer within {self._timeout_s:g} s: check address, port and firewall"
                )
            case ConnectionRefusedError():
                return NotReachable(
                    f"nothing listens at {cloud}: check --cloud, and that cloudcore runs with this --join-listen"
                )
            case ConnectionError():  # http.client.RemoteDisconnected is one too
                return NotReachable(f"{cloud} closed the connection without an answer: is it cloudcore's join port?")
            case http.client.HTTPException():
                return self.nonsense()
            case _:
                return NotReachable(f"cannot reach {cloud}: {exc.strerror or exc}")

    def _explained_certificate(self, exc: ssl.SSLCertVerificationError) -> NotTrusted:
        cloud, clock = self._cloud, f"this machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        if abs(self._ahead_s) > CLOCK_SKEW_S:
            theirs = datetime.now(UTC) + timedelta(seconds=self._ahead_s)
            clock += f", cloudcore's {theirs:%Y-%m-%d %H:%M}"
        if exc.verify_code == _NOT_YET_VALID:
            return NotTrusted(f"the certificate of {cloud} is not valid yet: {clock}; set the clock that is wrong")
        if exc.verify_code == _EXPIRED:
            return NotTrusted(
                f"the certificate of {cloud} has expired: {clock}; set the clock that is wrong, "
                "or restart cloudcore, which then takes a new certificate"
            )
        if exc.verify_code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
            return NotTrusted(
                f'cloudcore does not know that it is reached as "{cloud.host}": '
                f"start it with --advertise {cloud.host}, or give --cloud another of its names"
            )
        return NotTrusted(f"the certificate of {cloud} is not to be trusted: {exc.verify_message}")


def _client_context() -> ssl.SSLContext:
    """Verifies chain and host name, trusts nobody yet, and speaks what cloudcore does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
