"""What a hub tells of itself before it is one: the page is there, and says what is waited for."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from apimachinery.errors import NotFound
from apimachinery.watchcache import WatchCache
from apiserver.http import Request
from cloudhub.announcer import Announcer
from cloudhub.apiclient import ApiClient
from cloudhub.doorkeeper import Doorkeeper
from cloudhub.fences import Fences
from cloudhub.session import Session
from cloudhub.statuspage import StatusPage
from cloudhub.statuswriter import StatusWriter
from link.peer import Role
from link.websocket import listen
from tests.harness.sides import Side


@pytest.fixture
async def page() -> AsyncIterator[StatusPage]:
    async with ApiClient(httpx2.AsyncClient(base_url="https://192.0.2.1:6443")) as client:
        cache, announcer = WatchCache(), Announcer(client)

        async def confirm(*_: object) -> None: ...

        writer: StatusWriter[Session] = StatusWriter(
            client, cache, lambda *_: None, Fences("here"), confirm, announce=announcer.say
        )

        async def ban(*_: object) -> None: ...

        yield StatusPage(client, cache, announcer, writer, Doorkeeper(cache, ban, announcer.say))


async def asked(page: StatusPage, method: str, target: str) -> bytes:
    answer = await page.answer(Request(method, target, {}, b""))
    assert answer.status == 200
    assert isinstance(answer.body, bytes)
    return answer.body


async def test_the_facts_are_there_before_the_hub_is(page: StatusPage) -> None:
    page.problem = "waiting for the apiserver"
    facts = json.loads(await asked(page, "GET", "/statusz"))
    assert (facts["link"], facts["nodes"], facts["objects"]) == ("", [], 0)
    assert facts["problem"] == "waiting for the apiserver"
    assert facts["apiserver"] == "https://192.0.2.1:6443"


async def test_figures_are_there_before_the_hub_is(page: StatusPage) -> None:
    lines = (await asked(page, "GET", "/metrics")).decode().splitlines()
    assert "hub_objects 0" in lines
    assert not [line for line in lines if line.startswith("hub_nodes_connected")]


async def test_handshakes_that_came_to_nothing_are_figures_from_the_start(page: StatusPage) -> None:
    listener = await listen("127.0.0.1", 0, None, Side(Role.HUB).opened, max_connections=0)
    page.listeners = [listener]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        assert await reader.read() == b""
        writer.close()
        lines = (await asked(page, "GET", "/metrics")).decode().splitlines()
    finally:
        await listener.close()
    found = dict(line.rsplit(" ", 1) for line in lines if line.startswith("hub_handshakes_refused_total"))
    assert found.pop('hub_handshakes_refused_total{transport="websocket",reason="no-room"}') == "1"
    assert len(found) == 4
    assert set(found.values()) == {"0"}


async def test_who_scrapes_gets_figures_and_nothing_else(page: StatusPage) -> None:
    assert (await page.scraped(Request("GET", "/metrics", {}, b""))).status == 200
    for method, target in (("GET", "/statusz"), ("POST", "/resync?node=a"), ("POST", "/metrics")):
        with pytest.raises(NotFound):
            await page.scraped(Request(method, target, {}, b""))


async def test_a_node_that_nobody_knows_cannot_be_compared(page: StatusPage) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(NotFound, match='no node "edge-1" has been here lately'):
            await page.answer(Request("POST", "/resync?node=edge-1", {}, b""))
