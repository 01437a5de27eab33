"""
The conversation of joining, as the edge has it with the join endpoint of one hub.

The first contact cannot verify the hub in the usual way, since the edge has no CA yet. It takes the CA's
certificate from a connection it does not trust, compares its SHA-256 with the one in the token, and only then
dials again, verifying, to show the token. So the token is never shown to anybody but the hub it came from.

Whatever goes wrong becomes a sentence for the person who typed the command, who is at a machine in a cabinet and
has nobody to ask.

Invariants
    a token goes over a connection verified against the pinned CA only, and to nobody with a node's certificate
    no answer is read beyond ANSWER_BYTES, and none waited for longer than the time given

Blocking on purpose: it is a command, and http.client and ssl are all it takes.
"""

import hashlib
import http.client
import json
import re
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from componentbase.certificates import ders
from componentbase.endpoints import Endpoint
from componentbase.errors import CommandError
from componentbase.proxies import Proxy, ProxyError, connect_blocking, proxy_for
from componentbase.tls import TlsMin, client_context
from componentbase.words import rfc3339

DEFAULT_PORT = 10002
ANSWER_BYTES = 64 << 10  # two certificates and a few words; a real answer has 2 KiB
CLOCK_SKEW_S = 60  # less than this between two clocks explains no refused certificate
BUSY_S = 5.0  # where a hub does not say when to come back
_ACCEPTED = 202
_LATER = (429, 503)  # Too Many Requests, Service Unavailable
SUBJECT = "system:node:"

_TOKEN = re.compile(r"fl1\.[a-z2-7]{8}\.[A-Za-z0-9_-]{43}\.(?P<pin>[0-9a-f]{64})")
_TOKEN_LENGTH = 121

# X509_V_ERR_* of OpenSSL's x509_vfy.h, as SSLCertVerificationError.verify_code has them.
_NOT_YET_VALID, _EXPIRED, _HOSTNAME_MISMATCH, _IP_MISMATCH = 9, 10, 62, 64


class JoinError(CommandError):
    """
    Joining failed and changed nothing; the text says why and what to do.

        JoinError
        ├── BadToken        take the token as it was printed
        ├── AlreadyJoined   choose another directory, or replace what is there
        ├── NotReachable    check address, network, and that cloudcore runs
        │   └── Unanswered  a request went out and nothing came back: what became of it is not known
        ├── NotTrusted      it is not the hub the token came from
        │   └── NotInTime   or a clock is wrong
        └── Refused         the hub said no
            ├── Unsigned    it has asked for a certificate, and there is none: the same key may be asked for again
            └── Busy        it said: later
                └── Pending it was asked, and waits for somebody who decides
    """


class BadToken(JoinError):
    pass


class AlreadyJoined(JoinError):
    pass


class NotReachable(JoinError):
    pass


class NotTrusted(JoinError):
    pass


class NotInTime(NotTrusted):
    pass


class Unanswered(NotReachable):
    pass


class Refused(JoinError):
    """status: of HTTP, as the hub answered it."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Unsigned(Refused):
    pass


class Busy(Refused):
    """wait_s: after how long the hub is to be asked again, by its own word."""

    def __init__(self, text: str, status: int, wait_s: float) -> None:
        super().__init__(text, status)
        self.wait_s = wait_s


def pin_of(token: str) -> str:
    """The fingerprint of the CA in a token. Raises BadToken for what is none."""
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


class Pending(Busy):
    pass


class Answer(NamedTuple):
    """What the hub gave, its form checked."""

    certificate: str
    ca: str
    link_port: int
    link_path: str
    serving: str = ""
    """The certificate of the node's own API; "" where the hub does not sign such."""

    @classmethod
    def parse(cls, body: bytes) -> "Answer":
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


class Checked(NamedTuple):
    """What the hub said of a node and a token that would do."""

    expires: datetime
    """When the token does."""
    link_port: int
    notice: str = ""
    """What it says besides of how joining will go."""

    @classmethod
    def parse(cls, body: bytes) -> "Checked":
        """Raises ValueError."""
        try:
            value: Any = json.loads(body)
            expires, port = datetime.fromisoformat(value["expires"]), value["link"]["port"]
            notice = value.get("notice", "")
        except (RecursionError, KeyError, TypeError) as exc:
            raise ValueError("a part is missing") from exc
        if expires.tzinfo is None or type(port) is not int or not 0 < port < 1 << 16:
            raise ValueError("the time or the port is none")
        if not isinstance(notice, str) or not notice.isprintable():
            raise ValueError("the notice is none")
        return cls(expires, port, notice)


class Hub:
    """The join endpoint of one hub, asked over a new connection each time."""

    def __init__(
        self, cloud: Endpoint, timeout_s: float, *, named: str = "--cloud", tls_min: TlsMin = TlsMin.TLS_1_3
    ) -> None:
        """named: where the person who reads our errors has written the address."""
        self._cloud = cloud
        self._named = named
        self._tls_min = tls_min
        self._timeout_s = timeout_s
        self._ahead_s = 0.0

    @property
    def ahead_s(self) -> float:
        """By how much the hub's clock is ahead of ours, by its own word: for texts only. 0 before it has spoken."""
        return self._ahead_s

    def fetch_ca(self, pin: str) -> str:
        """The CA's certificate in PEM, as the hub shows it and only if it is the one the token is pinned to."""
        context = client_context(self._tls_min)
        # Nothing to verify with yet, and nothing secret is sent: the answer is what gets verified, against the pin.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        status, _, body = self._ask(context, "GET", "/v1/ca")
        if status != 200:
            raise self.nonsense()
        # Two while one takes the other's place; either vouches for this hub.
        found = {hashlib.sha256(der).hexdigest(): der for der in self._cas(body)}
        if pin not in found:
            raise NotTrusted(
                f"the certificate authority at {self._cloud} is not the one this token was made for: either "
                f"{self._named} names another installation than the one that printed the token, or somebody stands "
                "between. The token was not sent"
            )
        return ssl.DER_cert_to_PEM_cert(found[pin])

    def shown_cas(self, ca_pem: str) -> bytes:
        """The certificates of the CAs that the hub trusts, PEM, from a hub that these CAs vouch for."""
        status, _, body = self._ask(self.trusting(ca_pem), "GET", "/v1/ca")
        if status != 200:
            raise self.nonsense()
        self._cas(body)
        return body

    def _cas(self, body: bytes) -> list[bytes]:
        try:
            found = ders(body)
        except ValueError as exc:
            raise self.nonsense() from exc
        if not found:
            raise self.nonsense()
        return found

    def verify(self, ca_pem: str) -> None:
        """Whether the hub's own certificate is to be trusted, so that a token may be sent."""
        connection = _Connection(self, self._cloud, self.trusting(ca_pem))
        try:
            self._connect(connection)
        finally:
            connection.close()

    def join(self, ca_pem: str, request: Mapping[str, object]) -> Answer:
        """The answer to a join request, which is shown to nobody but the holder of a certificate of this CA."""
        try:
            return Answer.parse(self._post(self.trusting(ca_pem), "/v1/join", request))
        except ValueError as exc:
            raise self.nonsense() from exc

    def renew(self, context: ssl.SSLContext, request: Mapping[str, object]) -> Answer:
        """The same for a node that shows what it has; context: of trusting(), with its certificate and key."""
        try:
            return Answer.parse(self._post(context, "/v1/renew", request))
        except ValueError as exc:
            raise self.nonsense() from exc

    def confirm(self, context: ssl.SSLContext) -> None:
        """Show the hub that the certificate that renew() gave is here."""
        self._post(context, "/v1/renewed", {})

    def check(self, ca_pem: str, request: Mapping[str, object]) -> Checked:
        """What would become of a join request with this node and token, which are not used by it."""
        try:
            return Checked.parse(self._post(self.trusting(ca_pem), "/v1/check", request))
        except ValueError as exc:
            raise self.nonsense() from exc

    def _post(self, context: ssl.SSLContext, path: str, request: Mapping[str, object]) -> bytes:
        status, retry_after, body = self._ask(context, "POST", path, json.dumps(request).encode())
        if status == 200:
            return body
        try:
            message = json.loads(body)["message"]
        except (ValueError, RecursionError, KeyError, TypeError) as exc:
            if status not in _LATER:  # a server that has too much to do may leave it at the status
                raise self.nonsense() from exc
            message = ""
        if not isinstance(message, str) or not message.isprintable() or not message:
            message = f"it answered {status}"
        text = f"{self._cloud} refused: {message}"
        if status == _ACCEPTED:
            raise Pending(message, status, float(retry_after) if retry_after.isdecimal() else BUSY_S)
        if status in _LATER:
            raise Busy(text, status, float(retry_after) if retry_after.isdecimal() else BUSY_S)
        if _names_request(body):
            raise Unsigned(text, status)
        raise Refused(text, status)

    def trusting(self, ca_pem: str) -> ssl.SSLContext:
        """Verifies a hub by these CAs and its name."""
        context = client_context(self._tls_min)
        context.load_verify_locations(cadata=ca_pem)
        return context

    def nonsense(self) -> NotReachable:
        """The error for answers that the join endpoint does not give."""
        return NotReachable(
            f"{self._cloud} does not answer as cloudcore's join endpoint does: "
            f"check that {self._named} names it (its port is {DEFAULT_PORT} by default)"
        )

    def proxy(self, port: int | None = None) -> Proxy | None:
        """What the hub is reached through, at its join port or another one. Raises NotReachable: it is none."""
        try:
            return proxy_for(self._cloud.host, port or self._cloud.port)
        except ValueError as exc:
            raise NotReachable(str(exc)) from exc

    def connected(self, port: int | None = None) -> socket.socket:
        """TCP to the hub, as proxy() has it. Raises OSError, of which ProxyError is one, and NotReachable."""
        host, port = self._cloud.host, port or self._cloud.port
        if (proxy := self.proxy(port)) is not None:
            return connect_blocking(proxy, host, port, self._timeout_s)
        return socket.create_connection((host, port), self._timeout_s)

    def _connect(self, connection: "_Connection") -> None:
        try:
            connection.connect()
        except OSError as exc:
            raise self.explained(exc) from exc
        self._check_server(connection.sock)

    def _ask(
        self, context: ssl.SSLContext, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, str, bytes]:
        """Status, Retry-After and body of one request. Raises JoinError."""
        connection = _Connection(self, self._cloud, context)
        headers = {"connection": "close"}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            self._connect(connection)
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read(ANSWER_BYTES + 1)
            self._note_clock(response.headers.get("date"))
        except (OSError, http.client.HTTPException) as exc:
            explained = self.explained(exc)
            # Only what says nothing of the hub's side: whoever asks for a certificate or talks nonsense is no hub.
            if type(explained) is NotReachable and isinstance(exc, TimeoutError | ConnectionError | ssl.SSLEOFError):
                raise Unanswered(str(explained)) from exc
            raise explained from exc
        finally:
            connection.close()
        if len(answer) > ANSWER_BYTES:
            raise self.nonsense()
        return response.status, response.headers.get("retry-after", ""), answer

    def _check_server(self, connection: object) -> None:
        """A node's certificate is of the same CA and may name any address; the token is for the hub."""
        certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
        # ((("commonName", NAME),), ...), as the ssl module has it; nothing where it was not verified
        if f"'{SUBJECT}" in repr((certificate or {}).get("subject", ())):
            raise NotTrusted(f"{self._cloud} is a node and not cloudcore: check {self._named}")

    def _note_clock(self, date: str | None) -> None:
        try:
            theirs = parsedate_to_datetime(date or "")
        except ValueError:
            return
        if theirs.tzinfo is not None:
            self._ahead_s = (theirs - datetime.now(UTC)).total_seconds()

    def explained(self, exc: OSError | http.client.HTTPException) -> JoinError:
        """What a failed request means to the person who typed --cloud."""
        cloud = self._cloud
        match exc:
            case ProxyError():
                return NotReachable(f"cannot reach {cloud}: {exc.strerror}")
            case ssl.SSLCertVerificationError():
                return self._explained_certificate(exc)
            case ssl.SSLError() if "UNKNOWN_CA" in (exc.reason or ""):
                return NotTrusted(
                    f"{cloud} does not know the CA of this node's certificate, which was replaced: join again, with a "
                    "token from `cloudcore token create --replace`"
                )
            case ssl.SSLError() if "CERTIFICATE_REQUIRED" in (exc.reason or ""):
                return NotReachable(
                    f"{cloud} asks for a client certificate, so it is the link: "
                    f"{self._named} wants the join port ({DEFAULT_PORT} by default)"
                )
            case ssl.SSLError() if exc.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
                return NotReachable(
                    f"{cloud} does not speak TLS: {self._named} wants the join port ({DEFAULT_PORT} by default)"
                )
            case ssl.SSLError():
                return NotReachable(f"TLS with {cloud} failed: {exc.reason or exc.strerror}")
            case socket.gaierror():
                return NotReachable(
                    f'the name "{cloud.host}" cannot be resolved ({exc.strerror}): check {self._named} and DNS'
                )
            case TimeoutError():
                return NotReachable(
                    f"{cloud} did not answer within {self._timeout_s:g} s: check address, port and firewall"
                )
            case ConnectionRefusedError():
                return NotReachable(
                    f"nothing listens at {cloud}: check {self._named}, and that cloudcore runs with this --join-listen"
                )
            case ConnectionError():  # http.client.RemoteDisconnected is one too
                return NotReachable(f"{cloud} closed the connection without an answer: is it cloudcore's join port?")
            case http.client.HTTPException():
                return self.nonsense()
            case _:
                return NotReachable(f"cannot reach {cloud}: {exc.strerror or exc}")

    def _explained_certificate(self, exc: ssl.SSLCertVerificationError) -> NotTrusted:
        cloud, clock = self._cloud, f"this machine's clock says {rfc3339(datetime.now(UTC))}"
        if abs(self._ahead_s) > CLOCK_SKEW_S:
            theirs = datetime.now(UTC) + timedelta(seconds=self._ahead_s)
            clock += f", cloudcore's {rfc3339(theirs)}"
        if exc.verify_code == _NOT_YET_VALID:
            return NotInTime(f"the certificate of {cloud} is not valid yet: {clock}; set the clock that is wrong")
        if exc.verify_code == _EXPIRED:
            return NotInTime(
                f"the certificate of {cloud} has expired: {clock}; set the clock that is wrong, "
                "or restart cloudcore, which then takes a new certificate"
            )
        if exc.verify_code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
            return NotTrusted(
                f'cloudcore does not know that it is reached as "{cloud.host}": '
                f"start it with --advertise {cloud.host}, or give {self._named} another of its names"
            )
        return NotTrusted(f"the certificate of {cloud} is not to be trusted: {exc.verify_message}")


class _Connection(http.client.HTTPConnection):
    """HTTPS on a connection that the hub's object makes."""

    def __init__(self, hub: Hub, cloud: Endpoint, context: ssl.SSLContext) -> None:
        super().__init__(cloud.host, cloud.port)
        self._hub = hub
        self._context = context

    def connect(self) -> None:
        plain = self._hub.connected()
        try:
            self.sock = self._context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def _names_request(body: bytes) -> bool:
    """Whether a Status is about a signing request in the cluster, which was made by then."""
    try:
        return bool(json.loads(body)["details"]["kind"] == "CertificateSigningRequest")
    except (ValueError, RecursionError, KeyError, TypeError):
        return False
