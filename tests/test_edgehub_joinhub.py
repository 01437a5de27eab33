"""The conversation of joining, against real endpoints; how it goes wrong as a whole is tests/test_edgehub_join.py."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from apimachinery.errors import TooManyRequests, Unavailable
from apiserver.http import Request, Response, json_response, serve
from componentbase import pki
from componentbase.endpoints import Endpoint
from edgehub.joinhub import Busy, Hub, NotReachable, NotTrusted, Refused, Unanswered, pin_of
from tests.harness.joining import LINK_PORT, JoinableHub, joinable_hub


@pytest.fixture
async def hub() -> AsyncIterator[JoinableHub]:
    async with joinable_hub() as hub:
        yield hub


def blocking(function: Callable[..., Any], *arguments: object) -> Any:
    return asyncio.to_thread(function, *arguments)


@contextlib.asynccontextmanager
async def answering(hub: JoinableHub, answer: Callable[[], Response]) -> AsyncIterator[Hub]:
    """An endpoint with the hub's certificate that answers every POST in its own way."""

    async def handler(request: Request) -> Response:
        return answer()

    context = hub.authority.server(["127.0.0.1"]).join_context
    async with serve(handler, host="127.0.0.1", port=0, ssl_context=context) as server:
        yield Hub(Endpoint("127.0.0.1", server.port), 5.0)


async def test_a_check_says_until_when_the_token_counts_and_where_the_link_is(hub: JoinableHub) -> None:
    token = await hub.token(is_single_use=True)
    asked = Hub(hub.endpoint, 5.0)
    ca = await blocking(asked.fetch_ca, pin_of(token))
    await blocking(asked.verify, ca)
    assert abs(asked.ahead_s) < 5
    for _ in range(2):
        found = await blocking(asked.check, ca, {"node": "edge-1", "token": token})
        assert found.link_port == LINK_PORT
        assert found.expires > hub.now
    with pytest.raises(Refused) as caught:
        await blocking(asked.check, ca, {"node": "edge-1", "token": "fl1.wrong"})
    assert caught.value.status == 401


async def test_whoever_is_not_of_the_ca_is_not_verified(hub: JoinableHub) -> None:
    async with joinable_hub() as other:
        with pytest.raises(NotTrusted):
            await blocking(Hub(other.endpoint, 5.0).verify, hub.authority.certificate_pem.decode())


async def test_a_hub_that_is_busy_says_when_to_come_back(hub: JoinableHub) -> None:
    ca = hub.authority.certificate_pem.decode()

    def refuse(error: Exception) -> Callable[[], Response]:
        def answer() -> Response:
            raise error

        return answer

    for error, status, wait_s in (
        (TooManyRequests("not now", retry_after_s=7), 429, 7.0),
        (Unavailable("not now", retry_after_s=2), 503, 2.0),
        (TooManyRequests("not now"), 429, 5.0),
    ):
        async with answering(hub, refuse(error)) as asked:
            with pytest.raises(Busy, match="refused: not now") as caught:
                await blocking(asked.join, ca, {})
            assert (caught.value.status, caught.value.wait_s) == (status, wait_s)
    async with answering(hub, lambda: Response(503, [("retry-after", "1")])) as asked:
        with pytest.raises(Busy, match="it answered 503") as caught:
            await blocking(asked.join, ca, {})
        assert caught.value.wait_s == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"expires": "soon", "link": {"port": 1}},
        {"expires": "2026-11-23T12:00:00", "link": {"port": 1}},
        {"expires": "2026-11-23T12:00:00+00:00", "link": {"port": 0}},
        {"expires": 5, "link": {"port": 1}},
    ],
)
async def test_nonsense_is_no_answer_to_a_check(hub: JoinableHub, answer: object) -> None:
    async with answering(hub, lambda: json_response(200, answer)) as asked:
        with pytest.raises(NotReachable, match="does not answer as cloudcore's join endpoint does"):
            await blocking(asked.check, hub.authority.certificate_pem.decode(), {})


async def test_a_request_whose_answer_is_lost_is_told_from_one_that_was_never_sent(
    hub: JoinableHub, free_port: int
) -> None:
    ca = hub.authority.certificate_pem.decode()
    with pytest.raises(NotReachable) as never:
        await blocking(Hub(Endpoint("127.0.0.1", free_port), 5.0).join, ca, {})
    assert not isinstance(never.value, Unanswered)
    context = hub.authority.server(["127.0.0.1"]).join_context
    listener = socket.create_server(("127.0.0.1", 0))

    def hear_and_hang_up() -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as peer:
            peer.recv(65536)

    thread = threading.Thread(target=hear_and_hang_up)
    thread.start()
    with pytest.raises(Unanswered, match="closed the connection without an answer"):
        await blocking(Hub(Endpoint("127.0.0.1", listener.getsockname()[1]), 5.0).join, ca, {})
    await blocking(thread.join, 5.0)
    listener.close()


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("403 Forbidden", r"the proxy 127\.0\.0\.1:\d+ refuses hub\.invalid:10002: HTTP 403 Forbidden"),
        ("407 Proxy Authentication Required", r"the proxy 127\.0\.0\.1:\d+ takes another user and password"),
    ],
)
async def test_a_hub_behind_a_proxy_is_asked_through_it(
    status: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://us:pw@127.0.0.1:{port}")
        with pytest.raises(NotReachable, match=told):
            await blocking(
                Hub(Endpoint("hub.invalid", 10002), 5.0).shown_cas, pki.create_ca("test", 1).cert_pem.decode()
            )
    assert heard[0].startswith(b"CONNECT hub.invalid:10002 HTTP/1.")
    assert b"Proxy-Authorization: Basic dXM6cHc=" in heard[0]
