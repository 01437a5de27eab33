"""
A flood that pods do not feel: real apiserver, hub, brokers and edges; mappers that report and read, or do not.

The bounds here are those that a machine keeps which is busy with much else, and still an order of magnitude under what
a queue that pods and devices share would cost (26 s, before there were classes). `make bench ARGS='--only flood'`
measures against the real ones, and so does the soak, which wants a quiet machine.
"""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import JSON, canonical, revision_of
from apimachinery.resources import DEVICE_MODELS, DEVICES
from benchmarks.figures import percentile
from benchmarks.flood import flooded
from componentbase.brokers import BrokerAddress
from componentbase.endpoints import Endpoint
from devicetwin.broker.config import BrokerConfig
from devicetwin.broker.server import listen
from devicetwin.broker.users import UserFile
from devicetwin.bus import Bus
from devicetwin.feed import StoreFeed
from devicetwin.service import TwinService
from devicetwin.wire import subscriptions
from link.frames import Batch, Cursor, Delta
from metamanager.store import Store
from tests.harness import slow_disk
from tests.harness.commanded import Commanded
from tests.harness.flood import FLOODED, OTHER, Change, Flood
from tests.harness.flooder import name_of
from tests.harness.mosquitto import Mosquitto, free_port
from tests.harness.site import ROOT

SECOND_MS = 1000.0
BUSY_S = 1.5  # 20 to 30 ms where nothing else runs; half a second and more beside five to ten other processes
DEVICES_THERE = 40  # where no apiserver has to make them
SLOW_DEVICES = 4  # each is a commit before it begins
SITE_DEVICES = 16  # three wishes of each are more than the full broker's queue takes
WITHIN_S = 20.0
SLOW = "slow"
SYNC_S = 0.2
RARE = 1.5  # changes a second: the one before is committed, after a device's and its own, before the next comes
FULL = ("max_queued_messages 20", "max_inflight_messages 1")
"""Of mosquitto: a session's queue that is full at once, and a reader that has one message at a time."""


# ---- the edge by itself


def put(resource: Resource, name: str, spec: JSON) -> Delta:
    metadata = {"name": name, "namespace": "default", "uid": name}
    body = canonical({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec})
    return Delta(ObjectKey(resource, "default", name), ObjectVersion(name, revision_of(body)), body)


def thermometers() -> Batch:
    properties: list[JSON] = [{"name": f"p{number}", "type": "INT", "accessMode": "ReadOnly"} for number in range(2)]
    deltas = [put(DEVICE_MODELS, "thermo", {"protocol": "custom", "properties": properties})]
    spec: dict[str, JSON] = {
        "deviceModelRef": {"name": "thermo"},
        "nodeName": "n",
        "protocol": {"protocolName": "custom"},
    }
    spec |= {"properties": [{"name": "p0"}, {"name": "p1"}]}
    deltas += [put(DEVICES, name_of("thermo", number), spec) for number in range(DEVICES_THERE)]
    return Batch(Cursor("e", 1), tuple(deltas), True)


@pytest.mark.parametrize("kind", ["mosquitto", "embedded"])
async def test_reports_without_end_hold_the_loop_for_milliseconds_at_a_time(kind: str, tmp_path: Path) -> None:
    """Counted in the loop's own processor time, which does not depend on what else the machine does."""
    store = await Store.open(tmp_path / "edge.db")
    await store.apply([thermometers()])
    filters = tuple(topic for topic, quality in subscriptions("n") if quality)
    server = await listen(
        BrokerConfig(port=0, durable_client_id="edge", durable_filters=filters),
        UserFile(tmp_path / "users.json", anonymous=True),
        None,
    )
    mosquitto = Mosquitto()
    await asyncio.to_thread(mosquitto.start)
    port = server.port if kind == "embedded" else mosquitto.port
    address = BrokerAddress(Endpoint("127.0.0.1", port))
    bus = Bus(address, "edge", subscriptions("n"), server.dial_inside if kind == "embedded" else None)
    service = TwinService("n", store, StoreFeed(store), bus, yields=lambda: False)
    loop, turns, last = asyncio.get_running_loop(), list[float](), time.thread_time()

    def turned() -> None:
        nonlocal last
        now = time.thread_time()
        turns.append(now - last)
        last = now
        loop.call_soon(turned)

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(service.run(), name="twins"), tasks.create_task(server.run(), name="broker")]
        async with asyncio.timeout(20):
            while not service.status().bus.connected:
                await asyncio.sleep(0.02)
        flooder = Commanded(None, "tests.harness.flooder", str(port), str(DEVICES_THERE))
        try:
            await asyncio.to_thread(flooder.ask, "flood 10000")
            await asyncio.sleep(0.5)
            turned()
            turns.clear()
            await asyncio.sleep(2.0)
            sent = (await asyncio.to_thread(flooder.ask, "stats"))["sent"]
        finally:
            flooder.kill()
            for task in running:
                task.cancel()
    await store.close()
    mosquitto.close()
    held = sum(each for each in turns if each > 0.01)
    longest = max(turns) * 1000
    print(f"figure: {kind}: {sent} reports, longest turn {longest:.1f} ms, {held / sum(turns):.2f} of it long")
    assert sent > 200
    # Three quarters of it were, of up to 83 ms each, when a batch was one turn.
    assert held < 0.25 * sum(turns)


# ---- the whole line


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flood]:
    """Behind a mosquitto that is full as soon as somebody hesitates."""
    directory = tmp_path_factory.mktemp("flood")
    with Flood(directory, "mosquitto", devices=SITE_DEVICES, lines=FULL) as flood:
        yield flood


def of(changes: Sequence[Change], node: str) -> list[float]:
    found = sorted(each.held for each in changes if each.node == node)
    print(f"figure: {node}: p50 {percentile(found, 50):.0f} ms, p90 {percentile(found, 90):.0f} ms, of {len(found)}")
    return found


@pytest.mark.timeout(120)
def test_a_mapper_that_hangs_behind_a_full_broker_changes_nothing_for_pods(site: Flood) -> None:
    """Whoever waited for it would wait for as long as it hangs. What the broker dropped meanwhile it has to ask for."""
    os.kill(site.flooder.pid, signal.SIGSTOP)
    try:
        for first in (1_000, 2_000, 3_000):
            site.wish(first)
        hung = of(site.changes(1.0, within_s=WITHIN_S), FLOODED)
    finally:
        os.kill(site.flooder.pid, signal.SIGCONT)
    assert statistics.median(hung) < SECOND_MS
    site.until_heard(3_000)


@pytest.mark.timeout(120)
@pytest.mark.skipif(bool(slow_disk.why_not()), reason=slow_disk.why_not())
def test_a_slow_disk_costs_a_pod_two_commits_however_much_devices_report(site: Flood, tmp_path: Path) -> None:
    """
    A commit is one sync, seldom three (a checkpoint). A pod's change waits for the one under way, then for its own.

    In the order of their coming it would wait for what was asked for before it, too: reports that are settled, and
    the next batch.
    """
    site.join(SLOW)
    ports = {name: free_port() for name in ("api", "mqtt")}
    site.ports[f"{SLOW}-api"] = ports["api"]
    arguments = ["--data-dir", str(site.directory / SLOW), "--api", f"127.0.0.1:{ports['api']}"]
    arguments += ["--mqtt", "embedded", "--mqtt-listen", f"127.0.0.1:{ports['mqtt']}"]
    with (tmp_path / "slow.log").open("wb") as log:
        edge = subprocess.Popen(
            [sys.executable, "-m", "edgecore", "run", *arguments],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env={**site.environment, **slow_disk.slow_disk(tmp_path, SYNC_S)},
        )
    try:
        site.until(lambda: site.ask("edgecore", SLOW).get("inSync"), "the slow node is in sync")
        site.make_pods(SLOW)
        site.make_devices(SLOW, "slow", SLOW_DEVICES)
        site.watch_pods(SLOW, site.local(SLOW))
        idle = of(site.changes(2.0, (SLOW,), per_s=RARE), SLOW)
        flooder = Commanded(
            None, "tests.harness.flooder", str(ports["mqtt"]), str(SLOW_DEVICES), "--prefix", "slow", "--client", "s"
        )
        try:
            flooder.ask("flood 10000")
            time.sleep(0.5)
            busy = of(site.changes(4.0, (SLOW,), per_s=RARE), SLOW)
            assert flooder.ask("stats")["acked"] > 0
        finally:
            flooder.kill()
    finally:
        edge.kill()
        edge.wait()
    assert statistics.median(idle) > SYNC_S * SECOND_MS, "a disk that slow is felt"
    assert statistics.median(busy) < statistics.median(idle) + 1.6 * SYNC_S * SECOND_MS


@pytest.mark.timeout(120)
def test_devices_that_flood_their_node_do_not_delay_its_pods(site: Flood) -> None:
    began = time.perf_counter()
    site.begin(10_000, 1_000, bulk=True)
    site.changes(0.3)
    busy = site.changes(2.5)
    renewals = site.longest_renewals_s(began)
    site.until(lambda: site.bulks, "a large body arrives beside all this")
    told = site.end()
    print(f"figure: {told['sent']} reports, {told['wished']} wishes, {site.bulks} large bodies, renewals {renewals}")
    assert told["sent"] > 10_000
    assert told["wished"] > 1_000
    for node in (FLOODED, OTHER):
        assert statistics.median(of(busy, node)) < BUSY_S * SECOND_MS
    assert not site.unready
    assert max(renewals.values()) < 4.0, "graceSeconds"


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("transport", ["websocket", "quic"])
@pytest.mark.parametrize("broker", ["mosquitto", "embedded"])
def test_a_flood_of_minutes_keeps_every_bound(broker: str, transport: str, tmp_path: Path) -> None:
    with Flood(tmp_path, broker, transport=transport) as flood:
        figures = flooded(flood, broker, 300.0, 50.0)
    missed = [f"{each.name}: {each.value:.1f} {each.unit}" for each in figures if each.is_met is False]
    assert not missed
