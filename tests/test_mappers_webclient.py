"""Requests over one connection, to a real server in a process of its own."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from mappers.webclient import Answer, Origin, Request, WebClient, WebError, target_of
from tests.harness.server import Server

MAX_BYTES = 10_000


@pytest.fixture(scope="module")
def device() -> Iterator[Server]:
    with Server("tests.harness.http_device", "0") as one:
        yield one


@pytest.fixture
async def client(device: Server) -> AsyncIterator[WebClient]:
    one = WebClient(Origin("http", "127.0.0.1", device.port), None, MAX_BYTES)
    yield one
    await one.close()


async def get(client: WebClient, target: str) -> Answer:
    async with asyncio.timeout(10):
        return await client.ask(Request("GET", target))


async def asked(client: WebClient) -> tuple[list[str], int]:
    """What the device was asked so far, and over how many connections."""
    said = json.loads((await get(client, "/requests")).body)
    return said["asked"], said["connections"]


# --- addresses


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://lamp/x?y", Origin("http", "lamp", 80)),
        ("https://lamp", Origin("https", "lamp", 443)),
        ("http://LAMP:8080/", Origin("http", "lamp", 8080)),
        ("http://[::1]:81", Origin("http", "::1", 81)),
    ],
)
def test_an_origin_is_read(url: str, origin: Origin) -> None:
    assert Origin.of(url) == origin
    assert Origin.of(str(origin)) == origin


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("lamp", "must be http://HOST"),
        ("ftp://lamp", "must be http://HOST"),
        ("http://", "must be http://HOST"),
        ("http://u:p@lamp", "there are settings for them"),
        ("http://lamp:x", "port from 1 to 65535"),
        ("http://lamp:99999", "port from 1 to 65535"),
        ("http://[::1", "must be http://HOST"),
    ],
)
def test_an_origin_that_is_none_is_refused_without_repeating_it(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        Origin.of(url)
    assert "u:p" not in str(refused.value)


def test_a_target_is_the_path_and_query_with_what_may_not_stand_there_escaped() -> None:
    assert target_of("http://lamp") == "/"
    assert target_of("http://lamp/a b?c=ü#d") == "/a%20b?c=%C3%BC"
    assert target_of("http://lamp/a%20b") == "/a%20b"
    assert target_of("http://lamp/a\r\nHost: x") == "/aHost:%20x"


# --- answers


async def test_answers_come_over_one_connection(client: WebClient) -> None:
    _, before = await asked(client)
    for _ in range(5):
        answer = await get(client, "/state")
        assert (answer.status, json.loads(answer.body)["level"]) == (200, 7)
    _, after = await asked(client)
    assert after <= before + 1


async def test_an_answer_of_an_old_kind_ends_with_its_connection(client: WebClient) -> None:
    for _ in range(2):
        assert json.loads((await get(client, "/ill/old")).body)["level"] == 7


async def test_a_connection_that_the_device_did_not_keep_is_made_anew(client: WebClient) -> None:
    for _ in range(5):
        assert (await get(client, "/ill/hang-up-later")).status == 200


async def test_a_restarted_device_is_asked_again_by_itself() -> None:
    with Server("tests.harness.http_device", "0") as device:
        client = WebClient(Origin("http", "127.0.0.1", device.port), None, MAX_BYTES)
        assert (await get(client, "/state")).status == 200
        device.kill()
        with pytest.raises(OSError, match=r"."):
            await get(client, "/state")
        device.start()
        assert (await get(client, "/state")).status == 200
        await client.close()


async def test_what_may_have_been_carried_out_is_not_sent_twice() -> None:
    """A server that takes a request and hangs up: asked again is only what may be."""
    taken: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            taken.append(line.split()[0])
            while (await reader.readline()).strip():
                pass
            if len(taken) != 1:
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = WebClient(Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1]), None, MAX_BYTES)
        await client.ask(Request("GET", "/"))
        with pytest.raises(ConnectionError, match="closed the connection without an answer"):
            await client.ask(Request("PUT", "/", is_repeatable=False))
        assert taken == [b"GET", b"PUT"]
        with pytest.raises(ConnectionError):
            await client.ask(Request("GET", "/"))
        assert taken == [b"GET", b"PUT", b"GET"], "a connection that was new is no reason to try again"
        await client.close()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("big", "its answer has 1000000000 bytes, and maxBytes is 10000"),
        ("endless", "longer than maxBytes, which is 10000"),
        ("long-head", "does not speak HTTP/1.1 properly"),
        ("no-http", "does not speak HTTP/1.1 properly"),
        ("short", "does not speak HTTP/1.1 properly"),
        ("moved-away", "redirects to http://127.0.0.2:9/state, and other hosts are not followed"),
        ("moved-in-a-circle", "redirects more than 3 times"),
    ],
)
async def test_what_cannot_be_used_is_told_and_the_next_request_is_fine(
    client: WebClient, how: str, words: str
) -> None:
    with pytest.raises(WebError, match=words):
        await get(client, f"/ill/{how}")
    assert (await get(client, "/state")).status == 200


async def test_no_answer_is_an_error_of_the_connection(client: WebClient) -> None:
    with pytest.raises(ConnectionError, match="without an answer"):
        await get(client, "/ill/closed")


async def test_redirects_are_followed_on_the_device_for_what_only_asks(client: WebClient) -> None:
    assert json.loads((await get(client, "/ill/moved")).body)["level"] == 7
    with pytest.raises(WebError, match=r"redirects a PUT, which is not followed: write to http://.*/set"):
        await client.ask(Request("PUT", "/ill/move", body=b'{"level": 9}', is_repeatable=False))
    assert json.loads((await get(client, "/state")).body)["level"] == 7


@pytest.mark.parametrize("how", ["silent", "drip"])
async def test_a_device_that_does_not_come_to_an_end_can_be_given_up(client: WebClient, how: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.ask(Request("GET", f"/ill/{how}"))
    assert time.monotonic() - began < 5
    assert (await get(client, "/state")).status == 200, "and the late answer is not taken for that of the next"


async def test_nobody_at_home_is_an_error_of_the_connection() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        client = WebClient(Origin("http", "127.0.0.1", bound.getsockname()[1]), None, MAX_BYTES)
        with pytest.raises(ConnectionRefusedError):
            await get(client, "/state")
