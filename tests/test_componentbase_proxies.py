"""HTTP proxies as the environment names them, and TCP through one."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from componentbase.endpoints import Endpoint
from componentbase.proxies import Proxy, ProxyError, connect, proxy_for
from link.errors import LinkClosed
from link.peer import Role
from link.websocket import dial, listen
from tests.harness.sides import Side

AT = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"HTTPS_PROXY": AT}, Proxy(Endpoint("proxy.example", 3128))),
        ({"https_proxy": AT, "HTTPS_PROXY": "http://other:1"}, Proxy(Endpoint("proxy.example", 3128))),
        ({"HTTPS_PROXY": "proxy.example:3128"}, Proxy(Endpoint("proxy.example", 3128))),
        ({"HTTPS_PROXY": "http://proxy.example"}, Proxy(Endpoint("proxy.example", 80))),
        ({"HTTPS_PROXY": "http://[fd00::1]:8080/"}, Proxy(Endpoint("fd00::1", 8080))),
        ({"HTTPS_PROXY": "http://us%40er:p%3Aw@proxy.example:1"}, Proxy(Endpoint("proxy.example", 1), "us@er:p:w")),
        ({"HTTP_PROXY": AT}, None),
        ({"HTTPS_PROXY": ""}, None),
        *(
            ({"HTTPS_PROXY": AT, name: listed}, None)
            for name in ("NO_PROXY", "no_proxy")
            for listed in ("*", "hub.example", "example", ".example", "*.example", "a.b, hub.example", "HUB.example")
        ),
        (
            {"HTTPS_PROXY": AT, "NO_PROXY": "ub.example,hub.example.org,10.0.0.1"},
            Proxy(Endpoint("proxy.example", 3128)),
        ),
    ],
)
def test_the_variables_mean_what_they_always_mean(environment: dict[str, str], found: Proxy | None) -> None:
    assert proxy_for("hub.example", 10000, environment) == found


@pytest.mark.parametrize(
    ("listed", "host", "is_direct"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "hub.example", False),
        ("10.0.0.0/33,10.0.0.0/x,/,a/b", "10.0.0.1", False),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "10.0.0.1", False),
        ("hub.example:10000", "hub.example", True),
        ("hub.example:10002", "hub.example", False),
        ("hub.example:", "hub.example", False),
        (".example:10000", "hub.example", True),
        ("10.0.0.1:10000", "10.0.0.1", True),
        ("10.0.0.1:1", "10.0.0.1", False),
        ("[fd00::1]", "fd00::1", True),
        ("[fd00::1]:10000", "fd00::1", True),
        ("[fd00::1]:1", "fd00::1", False),
        ("fd00:0:0::1", "fd00::1", True),
        ("fd00::2", "fd00::1", False),
        ("0.0.1", "10.0.0.1", False),
    ],
)
def test_addresses_ranges_and_ports_of_no_proxy_mean_what_others_take_them_for(
    listed: str, host: str, is_direct: bool
) -> None:
    assert (proxy_for(host, 10000, {"HTTPS_PROXY": AT, "NO_PROXY": f"other, {listed}"}) is None) == is_direct


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_this_machine_is_not_reached_through_a_proxy(host: str) -> None:
    assert proxy_for(host, 10000, {"HTTPS_PROXY": AT}) is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("socks5://u:secret@p:1", "HTTPS_PROXY: a proxy is http://"),
        ("http://u:secret@p:99999", "the port"),
        ("http://u:secret@:1", "no host"),
    ],
)
def test_what_is_no_proxy_is_said_without_its_password(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        proxy_for("hub.example", 10000, {"HTTPS_PROXY": url})
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(Proxy(Endpoint("p", 1), "u:secret"))


@asynccontextmanager
async def proxying(answer: bytes) -> AsyncIterator[tuple[Proxy, list[bytes]]]:
    """One that answers each request so; where that is 200 it passes on what follows."""
    heard: list[bytes] = []
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        heard.append(head := await reader.readuntil(b"\r\n\r\n"))
        if b" 200 " in answer:
            host, _, port = head.split()[1].decode().rpartition(":")
            inner_reader, inner = await asyncio.open_connection(host, int(port))
            writer.write(answer)
            await asyncio.gather(copied(inner_reader, writer), copied(reader, inner))
            return
        writer.write(answer)
        writer.close()

    async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Proxy(Endpoint("127.0.0.1", server.sockets[0].getsockname()[1]), "us er:pw"), heard
    finally:
        server.close()
        # Who dialled has an answer or has hung up; what either end still has to close is closed here.
        await asyncio.gather(*filter(None, serving))


async def test_the_link_goes_through_a_proxy_and_says_who_it_is() -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    listener = await listen("127.0.0.1", 0, None, hub.opened)
    try:
        async with proxying(b"HTTP/1.1 200 OK\r\nvia: x\r\n\r\n") as (proxy, heard), asyncio.timeout(10):
            connection = await dial("127.0.0.1", listener.port, None, edge.opened, proxy=proxy)
            await edge.frames.get()
            (head,) = heard
            assert head.startswith(f"CONNECT 127.0.0.1:{listener.port} HTTP/1.1\r\n".encode())
            assert b"Proxy-Authorization: Basic " + base64.b64encode(b"us er:pw") in head
            connection.close()
            await connection.lost
    finally:
        await listener.close()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "takes another user and password"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", r"refuses hub\.example:1: HTTP 403 Forbidden"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "is it an HTTP proxy"),
        (b"", "is it an HTTP proxy"),
        (b"HTTP/1.1 200 " + b"x" * 20_000, "is it an HTTP proxy"),
    ],
    ids=["407", "403", "ssh", "nothing", "endless"],
)
async def test_what_a_proxy_refuses_is_told_with_what_to_do(answer: bytes, told: str) -> None:
    async with proxying(answer.replace(b" 200 ", b" 2000 ")) as (proxy, _):
        with pytest.raises(ProxyError, match=told):
            await connect(proxy, "hub.example", 1)
        with pytest.raises(LinkClosed, match=told):
            await dial("hub.example", 1, None, Side(Role.EDGE).opened, proxy=proxy)


async def test_a_proxy_that_is_not_there_is_told_apart_from_the_hub(unused_tcp_port: int) -> None:
    with pytest.raises(ProxyError, match=r"the proxy 127\.0\.0\.1:.*: Connection refused"):
        await connect(Proxy(Endpoint("127.0.0.1", unused_tcp_port)), "hub.example", 1)
