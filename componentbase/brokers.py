"""
Where an MQTT broker is, and how to show it who we are: for edgecore and for mappers alike.

    mqtt://[USER@]HOST[:PORT]     plain, 1883
    mqtts://[USER@]HOST[:PORT]    TLS, 8883; the certificate is verified, and that it is HOST's, whatever is set

Passwords come from a file or from systemd (LoadCredential=mqtt-password:…), for a command line is everybody's to read.
Files are read anew for each connection, so that a changed password or certificate counts without a restart.

Invariants
    no password is in what str() or repr() give, nor in the text of an error
    what cannot be used is a CommandError that names the file; what the network refuses an OSError
"""

import asyncio
import dataclasses
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from componentbase import tcp
from componentbase.endpoints import Endpoint
from componentbase.errors import CommandError

PORT = 1883  # IANA: mqtt
TLS_PORT = 8883  # IANA: secure-mqtt
CREDENTIAL = "mqtt-password"
"""The name under which systemd hands out the password."""
MAX_PASSWORD_BYTES = 65_535  # what a CONNECT can hold
_FORM = "write the broker as mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS"


class BrokerAccessError(CommandError):
    """A file with a password, key or certificate cannot be used; the text names it."""


@dataclasses.dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker, and who we are there."""

    endpoint: Endpoint
    tls: bool = False
    username: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    """As it stood in the URL; a file goes before it."""
    password_file: Path | None = None
    authority: Path | None = None
    """The CA to trust, in PEM form; None for those that the system trusts."""
    certificate: Path | None = None
    """Ours, where the broker asks for one."""
    key: Path | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """
        Read mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT].

        Raises ValueError with a sentence that never has the password.
        """
        scheme, separator, rest = url.partition("://")
        if not separator:
            raise ValueError(_FORM)
        if scheme not in ("mqtt", "mqtts"):
            raise ValueError(f'"{scheme}://" is not understood: {_FORM}')
        userinfo, at, place = rest.rpartition("@")
        username, colon, password = userinfo.partition(":")
        if at and not username:
            raise ValueError(f"the user's name before @ is missing: {scheme}://USER@HOST:PORT")
        place = place.removesuffix("/")
        tls = scheme == "mqtts"
        endpoint = Endpoint.parse(place, TLS_PORT if tls else PORT) if place else Endpoint("", 0)
        if not endpoint.host or not endpoint.port:
            raise ValueError(f'"{place}" does not say which broker: {_FORM}')
        return cls(endpoint, tls, unquote(username) if at else None, unquote(password) if colon else None)

    def __str__(self) -> str:
        user = f"{quote(self.username, safe='')}@" if self.username else ""
        return f"mqtt{'s' if self.tls else ''}://{user}{self.endpoint}"

    def check(self) -> None:
        """Raise BrokerAccessError for what a person should mend before anything is tried."""
        if not self.tls and (self.authority or self.certificate):
            raise BrokerAccessError(f"certificates are given, but {self} speaks no TLS: write mqtts://")
        if self.certificate is None and self.key is not None:
            raise BrokerAccessError("a key is given without its certificate")
        if self.password_file is not None and not self.username:
            raise BrokerAccessError("a password is given without a user: write USER@ before the broker's host")
        self.secret()
        self.context()

    def secret(self) -> str | None:
        """The password. Raises BrokerAccessError."""
        if not self.username:
            return None
        if self.password_file is not None:
            return _first_line(self.password_file)
        if self.password is None and (directory := os.environ.get("CREDENTIALS_DIRECTORY")):
            path = Path(directory, CREDENTIAL)
            return _first_line(path) if path.exists() else None
        return self.password

    def context(self) -> ssl.SSLContext | None:
        """What a TLS connection is made with; None for a plain one. Raises BrokerAccessError."""
        if not self.tls:
            return None
        for path in filter(None, (self.authority, self.certificate, self.key)):
            try:
                path.open("rb").close()
            except OSError as exc:  # ssl's own errors do not say which file
                raise BrokerAccessError(f"{path}: cannot be read: {exc.strerror}") from exc
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.authority is None:
                context.load_default_certs()  # 2.5 MB, so only where nothing else is trusted
            else:
                context.load_verify_locations(cafile=self.authority)
            if self.certificate is not None:
                # A password would be asked for on the terminal of a process that has none.
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            names = ", ".join(str(each) for each in (self.authority, self.certificate, self.key) if each)
            raise BrokerAccessError(f"not certificates and a key that belong together, in PEM form: {names}") from exc
        return context


async def dial(address: BrokerAddress) -> socket.socket:
    """
    A connected, non-blocking socket, after the TLS handshake where there is one.

    Raises OSError for what the network or the broker refuses, and BrokerAccessError.
    """
    context = address.context()
    sock = await tcp.connect(address.endpoint.host, address.endpoint.port)
    if context is None:
        return sock
    try:
        secure = context.wrap_socket(sock, server_hostname=address.endpoint.host, do_handshake_on_connect=False)
    except BaseException:
        sock.close()
        raise
    try:
        await _shake_hands(secure)
    except (ssl.SSLError, ConnectionError) as exc:
        secure.close()
        raise ConnectionError(_reason(exc)) from exc
    except BaseException:
        secure.close()
        raise
    return secure


async def _shake_hands(sock: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await _ready(sock, loop.add_reader, loop.remove_reader)
        except ssl.SSLWantWriteError:
            await _ready(sock, loop.add_writer, loop.remove_writer)
        else:
            return


async def _ready(sock: ssl.SSLSocket, watch: Callable[..., object], unwatch: Callable[..., object]) -> None:
    ready = asyncio.Event()
    watch(sock, ready.set)
    try:
        await ready.wait()
    finally:
        unwatch(sock)


def _reason(error: ssl.SSLError | ConnectionError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not to be trusted: {error.verify_message}"
    if isinstance(error, ConnectionError | ssl.SSLEOFError) or error.reason == "WRONG_VERSION_NUMBER":
        return "the broker does not speak TLS on this port: is it the right one?"
    return f"TLS failed: {error.reason or error}"


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PASSWORD_BYTES + 2)
    except OSError as exc:
        raise BrokerAccessError(f"{path}: the password cannot be read: {exc.strerror}") from exc
    line = content.partition(b"\n")[0].removesuffix(b"\r")
    if not line or len(line) > MAX_PASSWORD_BYTES:
        raise BrokerAccessError(f"{path}: its first line must be the password, and is empty or too long")
    try:
        return line.decode()
    except UnicodeDecodeError as exc:
        raise BrokerAccessError(f"{path}: the password is not UTF-8 text") from exc


def _no_password() -> str:
    raise ValueError("the key is encrypted")
