"""The HTTP server on real sockets: requests, streams, limits, rubbish, and how it stops."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apimachinery.errors import Conflict
from apiserver import http
from apiserver.http import AddressInUse, Request, Response, Server, json_response, serve
from componentbase import pki

DEADLINE_S = 10.0
LINE_BYTES = 24_000_000


async def echo(request: Request) -> Response:
    """What came in, as JSON; a few paths misbehave on purpose."""
    match request.path:
        case "/conflict":
            raise Conflict("read again")
        case "/bug":
            raise RuntimeError("a bug")
        case "/big":
            return Response(200, [], b"x" * 3_000_000)
        case "/stream":
            return Response(200, [], ticks())
        case "/line":
            return Response(200, [], one_line())
    return json_response(
        200,
        {
            "method": request.method,
            "target": request.target,
            "size": len(request.body),
            "headers": dict(request.headers),
            "peer": request.peer,
            "cn": request.peer_certificate_cn,
        },
    )


async def ticks() -> AsyncIterator[bytes]:
    number = 0
    while True:
        yield b"tick %d\n" % number
        number += 1
        await asyncio.sleep(0.01)


async def one_line() -> AsyncIterator[bytes]:
    yield b"x" * LINE_BYTES
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def closing(writer: asyncio.StreamWriter) -> AsyncIterator[asyncio.StreamWriter]:
    """Close the connection, and see it closed."""
    try:
        yield writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(server: Server, data: bytes) -> bytes:
    """Send bytes as they are, return what comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with closing(writer), asyncio.timeout(DEADLINE_S):
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            return await reader.read()
        return b""


def body_of(answer: bytes) -> dict[str, object]:
    value: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return value


async def poll(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_request_reaches_the_handler_whole() -> None:
    async with serve(echo, host="127.0.0.1", port=0) as server:
        answer = await exchange(
            server,
            b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Two: 1\r\nx-two: 2\r\n"
            b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",
        )
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\ndate: " in answer
    body = body_of(answer)
    assert (body["method"], body["target"], body["size"]) == ("POST", "/a?b=c", 5)
    assert body["headers"] == {"host": "x", "x-two": "1, 2", "content-length": "5", "connection": "close"}
    assert str(body["peer"]).startswith("127.0.0.1:")
    assert body["cn"] is None


async def test_one_connection_serves_many_requests_also_pipelined() -> None:
    async with serve(echo, host="127.0.0.1", port=0) as server:
        last = b"GET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await exchange(server, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n" + last)
    assert [answer.count(b'"target":"/%s"' % name) for name in (b"a", b"b", b"c")] == [1, 1, 1]


async def test_errors_of_a_handler_are_answered_and_the_connection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(echo, host="127.0.0.1", port=0) as server:
        answer = await exchange(
            server,
            b"GET /conflict HTTP/1.1\r\nHost: x\r\n\r\nGET /bug HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /fine HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
    assert answer.count(b"HTTP/1.1 409 Conflict") == 1
    assert answer.count(b"HTTP/1.1 500 Internal Server Error") == 1
    assert b"a bug" not in answer
    assert b'"target":"/fine"' in answer
    assert "handler failed" in caplog.text


async def test_head_gets_the_length_and_no_body() -> None:
    async with serve(echo, host="127.0.0.1", port=0) as server:
        answer = await exchange(server, b"HEAD /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"content-length: 3000000" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_head_request_that_is_refused_is_told_so_without_a_body() -> None:
    """Found by the fuzzing of whole connections: it was cut off without a word, as over a bug."""
    async with serve(echo, host="127.0.0.1", port=0, max_body=1000) as server:
        answer = await exchange(server, b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_large_body_arrives_whole() -> None:
    async with serve(echo, host="127.0.0.1", port=0) as server:
        answer = await exchange(server, b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert len(answer.partition(b"\r\n\r\n")[2]) == 3_000_000


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 1001\r\n", b"Content-Length: 99999999999999999\r\n", b"Transfer-Encoding: chunked\r\n"],
)
async def test_a_body_over_the_limit_is_refused_with_413(head: bytes) -> None:
    async with serve(echo, host="127.0.0.1", port=0, max_body=1000) as server:
        chunk = b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"
        answer = await exchange(server, b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + chunk)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert body_of(answer)["reason"] == "RequestEntityTooLarge"


async def test_a_body_at_the_limit_is_taken() -> None:
    async with serve(echo, host="127.0.0.1", port=0, max_body=1000) as server:
        data = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
        assert body_of(await exchange(server, data))["size"] == 1000


async def test_a_client_that_waits_for_leave_gets_it() -> None:
    async with serve(echo, host="127.0.0.1", port=0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with closing(writer), asyncio.timeout(DEADLINE_S):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(b"ok")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (3 * http.MAX_HEAD_BYTES) + b"\r\n\r\n", b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 40 + b"\r\n\r\n", b"400"),
    ],
)
async def test_rubbish_is_answered_with_what_is_wrong(data: bytes, status: bytes) -> None:
    async with serve(echo, host="127.0.0.1", port=0) as server:
        assert (await exchange(server, data)).startswith(b"HTTP/1.1 " + status)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.sampled_from(
                [
                    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n",
                    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
                    b"3\r\nabc\r\n",
                    b"0\r\n\r\n",
                    b"\r\n",
                ]
            ),
        ),
        max_size=6,
    ).map(b"".join)
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_bytes_kill_the_server(data: bytes) -> None:
    async def attack() -> None:
        async with serve(echo, host="127.0.0.1", port=0) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            async with closing(writer), asyncio.timeout(DEADLINE_S):
                writer.write(data)
                writer.write_eof()
                with contextlib.suppress(ConnectionError):
                    await reader.read()
            fine = await exchange(server, b"GET /fine HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert fine.startswith(b"HTTP/1.1 200 ")

    asyncio.run(attack())


async def test_a_stream_ends_properly_when_the_server_stops() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serve(echo, host="127.0.0.1", port=0) as server, asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            await stack.enter_async_context(closing(writer))
            writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"tick 2\n")
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.read()).endswith(b"0\r\n\r\n")


async def test_of_a_stream_that_stops_amid_a_large_piece_all_of_it_arrives() -> None:
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks, contextlib.AsyncExitStack() as stack:
        async with serve(echo, host="127.0.0.1", port=0) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            await stack.enter_async_context(closing(writer))
            writer.write(b"GET /line HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"xxx")  # the rest is more than sockets hold, and waits in the server
            rest = tasks.create_task(reader.read(), name="rest")
        got = await rest
    assert got.count(b"x") == LINE_BYTES - 3
    assert got.endswith(b"x\r\n0\r\n\r\n")


async def test_a_stream_is_closed_when_its_reader_leaves() -> None:
    closed = asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    async def handler(_: Request) -> Response:
        return Response(200, [], stream())

    async with serve(handler, host="127.0.0.1", port=0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with closing(writer), asyncio.timeout(DEADLINE_S):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"x\r\n")
        async with asyncio.timeout(DEADLINE_S):
            await closed.wait()
        await poll(lambda: server.connections == 0)


async def test_a_reader_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SLOW_READER_S", 0.1)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async def handler(_: Request) -> Response:
        return Response(200, [], endless())

    async with serve(handler, host="127.0.0.1", port=0) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        async with closing(writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await poll(lambda: server.connections == 1)
            await poll(lambda: server.connections == 0)


async def test_a_request_that_does_not_get_on_is_answered_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_S", 0.1)
    async with serve(echo, host="127.0.0.1", port=0) as server:
        assert (await exchange(server, b"GET / HTTP/1.1\r\nHo")).startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with serve(echo, host="127.0.0.1", port=0, idle_s=0.1) as server:
        assert await exchange(server, b"") == b""


async def test_a_running_handler_finishes_when_the_server_stops() -> None:
    began = asyncio.Event()
    finished = False

    async def slow(_: Request) -> Response:
        nonlocal finished
        began.set()
        await asyncio.sleep(0.05)
        finished = True
        return Response(200, [], b"done")

    async with contextlib.AsyncExitStack() as stack:
        async with serve(slow, host="127.0.0.1", port=0) as server, asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            await stack.enter_async_context(closing(writer))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await began.wait()
        assert finished
        assert (await reader.read()).endswith(b"done")


async def test_a_handler_goes_on_when_its_peer_leaves() -> None:
    finished = asyncio.Event()
    began = asyncio.Event()

    async def slow(_: Request) -> Response:
        began.set()
        await asyncio.sleep(0.05)
        finished.set()
        return Response(200)

    async with serve(slow, host="127.0.0.1", port=0) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with closing(writer), asyncio.timeout(DEADLINE_S):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await began.wait()
            writer.transport.abort()
            await finished.wait()


async def test_too_many_connections_are_told_so() -> None:
    async with serve(echo, host="127.0.0.1", port=0, max_connections=1) as server:
        _, first = await asyncio.open_connection("127.0.0.1", server.port)
        async with closing(first):
            await poll(lambda: server.connections == 1)
            answer = await exchange(server, b"")
            assert answer.startswith(b"HTTP/1.1 503 ")


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with serve(echo, host="127.0.0.1", port=0):
            raise KeyError("mine")


async def test_a_socket_file_serves_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with serve(echo, unix_path=path) as server:
        assert server.endpoint == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(AddressInUse):
            async with serve(echo, unix_path=path):
                pass
        reader, writer = await asyncio.open_unix_connection(str(path))
        async with closing(writer):
            writer.write(b"GET /statusz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert body_of(await reader.read())["peer"] == "unix"
    assert not path.exists()


def contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext, ssl.SSLContext]:
    """A server's context, a client's without and a client's with a certificate for node-7."""
    ca = pki.create_ca("test", 1)
    (directory / "ca.crt").write_bytes(ca.cert_pem)
    pair = pki.issue_server_cert(ca, ["127.0.0.1"], 1)
    key, csr = pki.make_key_and_csr("system:node:node-7", "system:nodes")
    client_cert = pki.sign_client_csr(ca, csr, "system:node:node-7", "system:nodes", 1)
    for name, data in (
        ("server.crt", pair.cert_pem),
        ("server.key", pair.key_pem),
        ("client.crt", client_cert),
        ("client.key", key),
    ):
        (directory / name).write_bytes(data)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "server.crt", directory / "server.key")
    server.load_verify_locations(directory / "ca.crt")
    server.verify_mode = ssl.CERT_OPTIONAL
    plain = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    known = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    known.load_cert_chain(directory / "client.crt", directory / "client.key")
    return server, plain, known


async def test_the_verified_name_of_a_client_certificate_is_in_the_request(tmp_path: Path) -> None:
    server_context, plain, known = contexts(tmp_path)
    async with serve(echo, host="127.0.0.1", port=0, ssl_context=server_context) as server:
        assert server.endpoint == f"https://127.0.0.1:{server.port}"
        for context, expected in ((plain, None), (known, "system:node:node-7")):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
            head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n"
            async with closing(writer), asyncio.timeout(DEADLINE_S):
                writer.write(head + b"x" * 200_000)
                body = body_of(await reader.read())
            assert (body["cn"], body["size"]) == (expected, 200_000)


@pytest.mark.parametrize(
    "headers",
    [b"X: " + b"y" * http.MAX_HEAD_BYTES, b"\r\n".join([b"X: y"] * (http.MAX_HEADERS + 1))],
    ids=["too long", "too many"],
)
async def test_a_head_that_comes_as_a_whole_is_bounded_as_well(headers: bytes) -> None:
    async with serve(echo, host="127.0.0.1", port=0) as server:
        answer = await exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 431 "), answer[:80]


async def test_connections_of_one_address_are_bounded() -> None:
    async with serve(echo, host="127.0.0.1", port=0, max_each=1) as server:
        _, kept = await asyncio.open_connection("127.0.0.1", server.port)
        while not server.connections:  # the server's turn
            await asyncio.sleep(0.005)
        reader, one_more = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        one_more.close()
        kept.close()
