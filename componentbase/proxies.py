"""
HTTP proxies as the environment names them: HTTPS_PROXY and NO_PROXY, in their usual meaning, and TCP through one.

Small or capital letters, the small ones first. NO_PROXY is a list of names, each with all that ends in it, addresses
and ranges of addresses (10.0.0.0/8), each with a port or for all, an IPv6 address with brackets or without; * is
everything. A range is compared with addresses only: no name is looked up for it. This machine itself is never reached
through a proxy.
"""

import asyncio
import base64
import ipaddress
import os
import socket
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from componentbase import tcp
from componentbase.endpoints import Endpoint

HEAD_BYTES = 16 << 10  # of an answer; a page that a proxy adds is not read
_PORTS = {"http": 80}
_END = b"\r\n\r\n"


class ProxyError(OSError):
    """The proxy does not let us through, in words for whoever set it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.strerror = reason


class Proxy(NamedTuple):
    """Where it is, and what it wants to hear."""

    endpoint: Endpoint
    credentials: str = ""
    """USER:PASSWORD."""

    @property
    def headers(self) -> dict[str, str]:
        """Of a CONNECT."""
        if not self.credentials:
            return {}
        return {"Proxy-Authorization": f"Basic {base64.b64encode(self.credentials.encode()).decode()}"}

    def __repr__(self) -> str:
        return f"Proxy({self.endpoint})"


def proxy_for(host: str, port: int, environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """The one for TLS to HOST:PORT; None for none. Raises ValueError, whose text names the variable and no password."""
    name, url = next(
        ((name, environment[name]) for name in ("https_proxy", "HTTPS_PROXY") if environment.get(name)), ("", "")
    )
    if (
        not url
        or _is_here(host)
        or _is_excepted(host, port, environment.get("no_proxy") or environment.get("NO_PROXY") or "")
    ):
        return None
    parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in _PORTS:
        raise ValueError(f"{name}: a proxy is http://[USER:PASSWORD@]HOST:PORT, not {parts.scheme}://")
    try:
        own = parts.port or _PORTS[parts.scheme]
    except ValueError as exc:
        raise ValueError(f"{name}: the port of the proxy is not a number from 1 to 65535") from exc
    if not parts.hostname:
        raise ValueError(f"{name}: the proxy has no host: http://[USER:PASSWORD@]HOST:PORT")
    words = (urllib.parse.unquote(word) for word in (parts.username or "", parts.password or ""))
    return Proxy(Endpoint(parts.hostname, own), ":".join(words) if parts.username else "")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None for a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_here(host: str) -> bool:
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _is_excepted(host: str, port: int, listed: str) -> bool:
    return any(_is_meant(host.lower(), port, word) for word in listed.lower().replace(",", " ").split())


def _is_meant(host: str, port: int, word: str) -> bool:
    """Whether an entry of NO_PROXY is about this; one that is none of what there is is about nothing."""
    address = _address(host)
    if word == "*":
        return True
    if "/" in word:
        try:
            return address is not None and address in ipaddress.ip_network(word, strict=False)
        except ValueError:
            return False
    name, colon, named_port = word.rpartition(":")
    if not colon or _address(word) is not None or word.endswith("]"):
        name = word
    elif named_port != str(port):
        return False
    name = name.removeprefix("[").removesuffix("]")
    if address is not None:
        return _address(name) == address
    name = name.removeprefix("*.").removeprefix(".")
    return host == name or host.endswith(f".{name}")


async def connect(proxy: Proxy, host: str, port: int) -> socket.socket:
    """As tcp.connect(), through the proxy. Raises OSError: ProxyError where the proxy says no."""
    where = proxy.endpoint
    try:
        sock = await tcp.connect(where.host, where.port)
    except OSError as exc:
        raise ProxyError(f"the proxy {where}: {tcp.why(exc)}") from exc
    try:
        await _ask(sock, proxy, str(Endpoint(host, port)))
    except BaseException:
        sock.close()
        raise
    return sock


def connect_blocking(proxy: Proxy, host: str, port: int, timeout_s: float) -> socket.socket:
    """The same where no event loop runs; timeout_s is also the socket's from then on."""

    async def within() -> socket.socket:
        async with asyncio.timeout(timeout_s):
            return await connect(proxy, host, port)

    try:
        sock = asyncio.run(within())
    except TimeoutError as exc:
        raise ProxyError(f"the proxy {proxy.endpoint} has made no way within {timeout_s:g} s") from exc
    sock.settimeout(timeout_s)
    return sock


async def _ask(sock: socket.socket, proxy: Proxy, target: str) -> None:
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    lines += [f"{name}: {value}" for name, value in proxy.headers.items()]
    await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode())
    head = b""
    while _END not in head:
        # By the byte: what comes after the head is the other side's, and not ours to read.
        data = await loop.sock_recv(sock, 1)
        head += data
        if not data or len(head) > HEAD_BYTES:
            raise ProxyError(f"the proxy {proxy.endpoint} did not answer as one: is it an HTTP proxy?")
    status, _, reason = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")[2].partition(" ")
    if not head.startswith(b"HTTP/1.") or not status.isdigit():
        raise ProxyError(f"the proxy {proxy.endpoint} did not answer as one: is it an HTTP proxy?")
    if status == "407":
        given = "takes another user and password" if proxy.credentials else "wants a user and a password"
        raise ProxyError(f"the proxy {proxy.endpoint} {given}: HTTPS_PROXY=http://USER:PASSWORD@{proxy.endpoint}")
    if not status.startswith("2"):
        raise ProxyError(f"the proxy {proxy.endpoint} refuses {target}: HTTP {status} {reason[:80]}".rstrip())
