"""
The way up against an apiserver on its bad days: storms of 429, 500 and 409, refusals, a right that is missing; and with
nothing to say. Over real sockets, with the writer and its reflectors as in cloudcore.
"""

import asyncio
import logging
import random
from pathlib import Path

import pytest

from apimachinery.errors import ApiError, Conflict, Forbidden, InternalError, TooManyRequests
from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import EventType, KubeEvent, new_event
from apimachinery.objects import canonical
from apimachinery.resources import DEVICES, EVENTS, NODES, PODS
from apiserver.messages import Request
from cloudhub.tally import RefusedWrite
from link.frames import RefusedReport, ReportEntry
from tests.harness.tinyapi import TinyApi
from tests.test_statuswriter import EDGE, LAMP, LAMP_STATUS, furnish, lamp, reported, running, settle, until

STORM_S = 5.0
MIN_INTERVAL_S = 0.02  # of the writer that `running` makes
DEVICES_IN_STORM = 6


def device(number: int) -> ObjectKey:
    return ObjectKey(DEVICES, "default", f"lamp-{number}")


async def test_the_last_value_arrives_after_a_storm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Five seconds in which nine of ten requests get 429, 500 or 409."""
    caplog.set_level(logging.ERROR)
    rng = random.Random(3)
    api = TinyApi()
    await furnish(api)
    for number in range(DEVICES_IN_STORM):
        await api.put(DEVICES, {**lamp(), "metadata": {"name": device(number).name}}, "default")
    async with running(tmp_path, api) as hub:
        await settle(hub)

        def storm(request: Request) -> ApiError | None:
            if "/lamp-" not in request.path and request.method != "POST":
                return None  # a list or a watch
            if rng.random() < 0.1:
                return None
            return rng.choice([TooManyRequests("slow down"), InternalError("etcd"), Conflict("somebody else")])

        api.answer = storm
        loop = asyncio.get_running_loop()
        last = {}
        until_s, count = loop.time() + STORM_S, 0
        while loop.time() < until_s:
            count += 1
            for number in range(DEVICES_IN_STORM):
                last[number] = str(count % 100)
                hub.report(reported("level", last[number], device(number)))
            await asyncio.sleep(0.01)
        retries = hub.writer.counters()["retries"]
        api.answer = lambda request: None
        # What was handed back comes again after a moment in which nothing is open.
        await until(
            lambda: not hub.open and all(hub.twins(device(each)) == {"level": value} for each, value in last.items()),
            20.0,
        )
        for number, value in last.items():
            key = device(number)
            assert hub.twins(key) == hub.twins(ObjectKey(LAMP_STATUS.resource, "default", key.name)) == {"level": value}
        assert not hub.refused, "a storm refuses nothing for good"
        counters = hub.writer.counters()
        assert counters["reports_refused"] == 0
        assert counters["reports_taken"] == hub.count - counters["reports_handed_back"]
        assert counters["conflicts"] > 5
        # Turns of one object are an interval apart, whatever the errors; only a first conflict is read again at once.
        assert 20 < retries < 2 * DEVICES_IN_STORM * STORM_S / MIN_INTERVAL_S
        assert not caplog.records


async def test_nothing_is_asked_while_the_same_is_reported(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await hub.taken(reported("level", "1"), ReportEntry(LAMP, "state", b'{"state":"online"}'))
        await settle(hub)
        before, asked = hub.writer.counters(), len(hub.api.requests)
        for _ in range(100):
            await hub.taken(reported("level", "1"), ReportEntry(LAMP, "state", b'{"state":"online"}'))
        after = hub.writer.counters()
        assert len(hub.api.requests) == asked
        assert after["requests"] == before["requests"]
        assert after["writes"] == before["writes"]
        assert after["writes_skipped"] >= before["writes_skipped"] + 50
        assert after["reports_taken"] == before["reports_taken"] + 200


async def test_what_was_refused_is_counted_and_told_of(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await settle(hub)
        hub.api.answer = lambda request: Forbidden("no right") if request.method in ("PATCH", "POST") else None
        await hub.taken(reported("level", "8"))
        await hub.taken(reported("ghost", "8"))
        assert hub.writer.counters()["reports_refused"] == 2
        assert hub.writer.refusals() == (
            RefusedWrite(EDGE, LAMP, "property/level", "no right"),
            RefusedWrite(EDGE, LAMP, "property/ghost", "the Device does not list this property"),
        )


# ---- Events


def event(about: ObjectKey, unique: str = "0a") -> KubeEvent:
    return new_event(about, "u", EventType.WARNING, "Broke", "it did", at="2030-01-31T12:00:00Z", unique=unique)


def entry(made: KubeEvent) -> ReportEntry:
    return ReportEntry(made.key, "event", canonical(made.to_json(Node("somebody else"))))


NODE = ObjectKey(NODES, "", "edge-1")


@pytest.mark.parametrize("about", [NODE, LAMP, ObjectKey(PODS, "default", "web")], ids=["node", "device", "pod"])
async def test_an_event_about_what_is_the_nodes_own_is_written(tmp_path: Path, about: ObjectKey) -> None:
    api = TinyApi()
    await furnish(api)
    await api.put(PODS, {"metadata": {"name": "web"}, "spec": {"nodeName": "edge-1"}}, "default")
    async with running(tmp_path, api, PODS) as hub:
        assert await hub.taken(entry(event(about))) == ()
        body = api.objects[event(about).key]
        assert body["involvedObject"]["name"] == about.name
        assert body["source"] == {"component": "edgecore", "host": "edge-1"}, "the hub knows who said it"
        asked = len(api.objects)
        assert await hub.taken(entry(event(about))) == (), "said twice, written once"
        assert len(api.objects) == asked


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        (NODE._replace(name="edge-2"), "a node may report of no other node"),
        (ObjectKey(DEVICES, "default", "ghost"), "there is no such device on node edge-1"),
        (ObjectKey(PODS, "default", "elsewhere"), "there is no such pod on node edge-1"),
        (ObjectKey(PODS, "default", "ghost"), "there is no such pod on node edge-1"),
    ],
)
async def test_an_event_about_anything_else_is_refused(tmp_path: Path, about: ObjectKey, reason: str) -> None:
    api = TinyApi()
    await furnish(api)
    await api.put(PODS, {"metadata": {"name": "elsewhere"}, "spec": {"nodeName": "edge-2"}}, "default")
    async with running(tmp_path, api, PODS) as hub:
        refused = await hub.taken(entry(event(about)))
        assert refused == (RefusedReport(event(about).key, "event", reason),)
        assert api.asked("POST", "/events") == []


async def test_a_storm_of_events_and_errors_writes_each_once(tmp_path: Path) -> None:
    rng = random.Random(5)
    async with running(tmp_path) as hub:
        hub.api.answer = lambda request: InternalError("etcd") if rng.random() < 0.3 else None
        for number in range(30):
            hub.report(entry(event(LAMP, f"e{number}")))
        await until(lambda: not hub.open)
        hub.api.answer = lambda request: None
        assert len([key for key in hub.api.objects if key.resource == EVENTS]) == 30


async def test_an_event_in_a_namespace_that_is_gone_is_parked(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await settle(hub)
        hub.api.answer = lambda request: Forbidden("being terminated") if request.path.endswith("/events") else None
        refused = await hub.taken(entry(event(LAMP)), reported("level", "1"))
        assert refused == (RefusedReport(event(LAMP).key, "event", "being terminated"),)
        assert hub.twins() == {"level": "1"}
