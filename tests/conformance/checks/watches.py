"""Watches, and what is made of them. What changes is the status of the node's own Pods, which can change anywhere."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

from tests.conformance.checks.bench import Bench, refusal
from tests.conformance.contract import POD, Event


async def _say(bench: Bench, pod: str, message: str) -> None:
    """A change that a node may make at any time."""
    await bench.client.patch(POD, pod, {"status": {"message": f"{message} {bench.place}"}}, status=True)


@contextlib.asynccontextmanager
async def _watching(bench: Bench, version: str = "", **options: Any) -> AsyncGenerator[AsyncGenerator[Event, None]]:
    async with contextlib.aclosing(
        cast("AsyncGenerator[Event, None]", bench.client.watch(POD, version, **options))
    ) as events:
        yield events


async def _until(bench: Bench, events: AsyncGenerator[Event, None], message: str) -> tuple[Event, list[Event]]:
    """The event in which the pod says so, and those before."""
    before: list[Event] = []
    async for event in events:
        if event.object.get("status", {}).get("message") == f"{message} {bench.place}":
            return event, before
        before.append(event)
    raise AssertionError(f"the watch ended before {message!r}: {before}")


async def watch(bench: Bench) -> None:
    expected = {"p0", "p1", "p2"}
    async with _watching(bench) as events:
        seen: set[str] = set()
        async for event in events:
            assert event.type == "ADDED"
            seen.add(event.name)
            if expected <= seen:
                break
        await _say(bench, "p0", "watch 1")
        event, before = await _until(bench, events, "watch 1")
        assert (event.type, event.name, before) == ("MODIFIED", "p0", [])
        await _say(bench, "p1", "watch 2")
        event, before = await _until(bench, events, "watch 2")
        assert (event.type, event.name, before) == ("MODIFIED", "p1", [])


async def watch_from_list(bench: Bench) -> None:
    listed = await bench.client.listing(POD)
    await _say(bench, "p0", "from list 1")
    async with _watching(bench, listed.version) as events:
        event, before = await _until(bench, events, "from list 1")
        assert (event.type, before) == ("MODIFIED", []), "nothing of the state comes again"
        await _say(bench, "p0", "from list 2")
        event, before = await _until(bench, events, "from list 2")
        assert before == []


async def resume(bench: Bench) -> None:
    listed = await bench.client.listing(POD)
    for number in range(3):
        await _say(bench, "p1", f"resume {number}")
    async with _watching(bench, listed.version) as events:
        first, _ = await _until(bench, events, "resume 0")
    async with _watching(bench, first.version) as events:
        second, before = await _until(bench, events, "resume 1")
        assert before == [], "no event comes again"
        last, before = await _until(bench, events, "resume 2")
        assert before == [], "none is missing"
    assert int(first.version) < int(second.version) < int(last.version)


async def bookmarks(bench: Bench) -> None:
    listed = await bench.client.listing(POD)
    async with _watching(bench, listed.version, timeout_s=1, bookmarks=True) as events:
        found = [event async for event in events]
    assert [event.type for event in found] == ["BOOKMARK"]
    assert int(found[0].version) >= int(listed.version)
    await _say(bench, "p0", "after the bookmark")
    async with _watching(bench, found[0].version) as events:
        _, before = await _until(bench, events, "after the bookmark")
        assert before == []


async def send_initial_events(bench: Bench) -> None:
    async with _watching(bench, timeout_s=1, bookmarks=True, initial=True) as events:
        found = [event async for event in events]
    state = [event.name for event in found if event.type == "ADDED"]
    assert {"p0", "p1", "p2"} <= set(state)
    mark = found[len(state)]
    assert mark.type == "BOOKMARK"
    assert mark.object["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def watch_ends(bench: Bench) -> None:
    listed = await bench.client.listing(POD)
    began = time.monotonic()
    async with _watching(bench, listed.version, timeout_s=1) as events:
        assert [event async for event in events] == []
    assert time.monotonic() - began >= 0.9


async def gone(bench: Bench) -> None:
    async with refusal("Expired", "too old resource version"), _watching(bench, "1", timeout_s=5) as events:
        async for event in events:
            raise AssertionError(f"version 1 is known: {event}")


async def informer(bench: Bench) -> None:
    informed = await bench.client.informed(POD)
    try:
        await _eventually(lambda: {"p0", "p1", "p2"} <= informed.names())
        await _say(bench, "p0", "informer 1")
        await _eventually(lambda: ("MODIFIED", "p0") in informed.seen())
        await _say(bench, "p1", "informer 2")
        await _eventually(lambda: ("MODIFIED", "p1") in informed.seen())
        assert sum(event == ("ADDED", "p0") for event in informed.seen()) == 1
        assert not [event for event in informed.seen() if event[0] == "ERROR"]
    finally:
        informed.stop()


async def _eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


async def wait(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.client.wait(POD, "p1", "Ready"), name="waiting")
    conditions = [{"type": "Ready", "status": "True"}]
    await bench.client.patch(POD, "p1", {"status": {"conditions": conditions}}, status=True)
    async with asyncio.timeout(15):
        await waiting
