"""
HOST:PORT as people write it, on a command line and in a configuration file, read in one way and refused in one way.

Invariants
    Endpoint.parse(str(endpoint)) == endpoint
    an IPv6 address is written in brackets, so that the last colon is always the port's
"""

import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from typing import Self

# RFC 1123, section 2.1: labels of letters, digits and hyphens; the underscore is what containers get named with.
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PORT_MAX = 65535
_NAME_MAX = 253  # RFC 1035, section 2.3.4, without the root's dot


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where a socket listens or connects to; `str()` gives back HOST:PORT."""

    host: str
    """A name or an address, IPv6 without its brackets; "" is every address of the machine, for listening."""
    port: int
    """0 to 65535; 0 asks the system for a free one, for listening."""

    @classmethod
    def parse(cls, text: str, default_port: int | None = None, usual_port: int = 10000) -> Self:
        """
        Read HOST:PORT, [IPV6]:PORT or, for every address, :PORT; with a default port also HOST alone.

        usual_port: of an example, for whoever wrote none.
        Raises ValueError with a sentence for the person who wrote it.
        """
        host, bracketed, port_text = _split(text, default_port, usual_port)
        if not port_text.isascii() or not port_text.isdigit():
            raise ValueError(f'"{text}" is not HOST:PORT: "{port_text}" is not a port number')
        if len(port_text) > len(str(_PORT_MAX)) or int(port_text) > _PORT_MAX:
            raise ValueError(f'"{text}" is not HOST:PORT: a port is 0 to {_PORT_MAX}')
        if bracketed:
            _check_ipv6(host, text)
        elif host:
            _check_host(host, text)
        return cls(host, int(port_text))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def origin_of(address: str) -> str:
    """Whom an address stands for: an IPv6 host has a whole /64 to choose from, an IPv4 one only itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def why_not_listening(host: str, port: int, exc: OSError) -> str:
    """
    Why a server cannot listen there, as a clause for the person who chose the address.

    asyncio's own text repeats the address and says what the system call was, not what to change.
    """
    where = Endpoint(host or "*", port)
    if isinstance(exc, socket.gaierror):
        return f'cannot listen on {where}: the name "{host}" cannot be resolved'
    match exc.errno:
        case errno.EADDRINUSE:
            return f"port {port} is taken: another process listens on {where}"
        case errno.EADDRNOTAVAIL:
            return f"cannot listen on {where}: this machine has no such address"
        case errno.EACCES:
            return f"cannot listen on {where}: permission denied, ports below 1024 need root"
        case number:
            reason = os.strerror(number) if number else exc.strerror or str(exc)
            return f"cannot listen on {where}: {reason.lower()}"


def _split(text: str, default_port: int | None, usual_port: int) -> tuple[str, bool, str]:
    """The host, whether it stood in brackets, and the port as text."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed:
            raise ValueError(f'"{text}" is not HOST:PORT: "]" is missing')
        if not rest and default_port is not None:
            return host, True, str(default_port)
        if not rest.startswith(":"):
            raise ValueError(f'"{text}" has no port: write {_example(text, usual_port)}')
        return host, True, rest[1:]
    host, colon, port_text = text.rpartition(":")
    if not colon:
        if default_port is None or not text:
            raise ValueError(f'"{text}" has no port: write {_example(text, usual_port)}')
        return text, False, str(default_port)
    if ":" in host:
        raise ValueError(f'"{text}" is not HOST:PORT: an IPv6 address stands in brackets, such as [::1]:{usual_port}')
    return host, False, port_text


def _example(text: str, usual_port: int) -> str:
    return f"127.0.0.1:{text}, for example" if text.isdecimal() else f"{text or '127.0.0.1'}:{usual_port}, for example"


def _check_ipv6(host: str, text: str) -> None:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise ValueError(f'"{text}" is not HOST:PORT: "{host}" is not an IPv6 address') from None


def _check_host(host: str, text: str) -> None:
    if len(host) > _NAME_MAX or not all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split(".")):
        raise ValueError(f'"{text}" is not HOST:PORT: "{host}" is neither a host name nor an address')
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f'"{text}" is not HOST:PORT: "{host}" is not an IPv4 address') from None
