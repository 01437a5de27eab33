"""
The way up, end to end: real cloudcore and edgecore, a real MQTT client, and an apiserver that remembers every request.

What is counted is what an apiserver sees. Leases are left out, they are renewed by design, and so are watches.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import ApiError, Forbidden, Invalid, NotFound
from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICE_MODELS, DEVICE_STATUSES, DEVICES, NODES
from tests.conftest import KUBECTLS, find_tool
from tests.harness.site import Site
from tests.harness.tinyapi import Logged, TinyApi, kubeconfig, tiny_api
from tests.test_end_to_end import NODE, Mapper, a_mapper

REPEAT_S = 10.0
THERMO = ObjectKey(DEVICES, "default", "thermo-1")
THERMO_STATUS = ObjectKey(DEVICE_STATUSES, "default", "thermo-1")
MODEL: dict[str, Any] = {
    "metadata": {"name": "thermo"},
    "spec": {"properties": [{"name": "temperature", "type": "INT"}, {"name": "setpoint", "type": "INT"}]},
}
DEVICE: dict[str, Any] = {
    "metadata": {"name": "thermo-1"},
    "spec": {
        "nodeName": NODE,
        "deviceModelRef": {"name": "thermo"},
        "properties": [{"name": "temperature"}, {"name": "setpoint"}],
    },
}


class TinySite(Site):
    """A site whose apiserver is a TinyApi in this process, on a thread of its own."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.api = TinyApi()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()

    def start_api(self) -> Any:
        """Serve until close_api()."""
        self.kubeconfig.parent.mkdir()
        serving = threading.Event()

        async def serve() -> None:
            async with tiny_api(self.api) as api:
                self.kubeconfig.write_text(kubeconfig(api.url))
                serving.set()
                await self._stop.wait()

        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(serve(),), name="tinyapi")
        self._thread.start()
        assert serving.wait(10)

    def close_api(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def refuse(self, error: ApiError | None, is_meant: Callable[[Logged], bool] = lambda _: True) -> None:
        """Answer this to what is meant; None for nothing any more."""
        self.api.answer = lambda _: error if is_meant(self.api.requests[-1]) else None

    def asked_since(self, mark: int) -> list[str]:
        """Requests after the first `mark` that are no renewals of Leases and no watches."""
        return [
            f"{entry.method} {entry.path}"
            for entry in self.api.requests[mark:]
            if entry.method != "WATCH" and "/leases" not in entry.path
        ]

    def settle(self) -> int:
        """Wait until nothing was asked for a second; how much was asked so far."""
        mark, since = len(self.api.requests), time.monotonic()
        by = since + 30
        while time.monotonic() - since < 1.0:
            assert time.monotonic() < by, self.api.requests[-5:]
            if self.asked_since(mark):
                mark, since = len(self.api.requests), time.monotonic()
            time.sleep(0.02)
        return len(self.api.requests)

    def hub_kubeconfig(self) -> Path:
        return self.kubeconfig  # this small API knows no accounts

    def reported(self, key: ObjectKey, name: str = "temperature") -> str:
        return str(self._twin(key, name).get("value", ""))

    def observed(self, key: ObjectKey, name: str) -> str:
        """When that was, in milliseconds since 1970."""
        return str(self._twin(key, name)["metadata"]["timestamp"])

    def _twin(self, key: ObjectKey, name: str) -> dict[str, Any]:
        twins = ((self.api.objects.get(key) or {}).get("status") or {}).get("twins") or []
        return next((twin["reported"] for twin in twins if twin["propertyName"] == name), {})

    def pushed(self) -> str:
        """What the hub has sent this node and what the node has acknowledged."""
        (node,) = (self.status("cloudcore", "cloud") or {})["nodes"]
        return str(node["outbox"])


@contextmanager
def running(directory: Path) -> Iterator[tuple[TinySite, Mapper]]:
    site = TinySite(directory)
    try:
        with site:
            site.start_cloud()
            site.join(NODE)
            site.do(site.api.put(DEVICE_MODELS, MODEL, "default"))
            site.do(site.api.put(DEVICES, DEVICE, "default"))
            site.start_edge(NODE)
            with a_mapper(site.ports[f"{NODE}-mqtt"]) as mapper:
                yield site, mapper
    finally:
        site.close_api()


@pytest.mark.timeout(120)
def test_the_same_value_goes_up_as_often_as_the_report_cycle_asks(tmp_path: Path) -> None:
    cycle_s, cycles = 1.0, 5
    with running(tmp_path) as (site, mapper):
        properties = [{"name": "temperature", "reportCycle": int(1000 * cycle_s)}, {"name": "setpoint"}]
        site.do(site.api.put(DEVICES, DEVICE | {"spec": DEVICE["spec"] | {"properties": properties}}, "default"))
        config = mapper.hear("$hw/events/device/default/thermo-1/config")
        while "1000" not in json.dumps(config):
            config = mapper.hear("$hw/events/device/default/thermo-1/config")
        mapper.report("temperature", "21")
        mapper.report("setpoint", "1")
        site.until(lambda: site.reported(THERMO_STATUS, "setpoint") == "1", "the first reports")
        before = site.settle()
        first, other = (site.observed(THERMO, name) for name in ("temperature", "setpoint"))
        began = time.monotonic()
        while time.monotonic() < began + cycles * cycle_s:
            mapper.report("temperature", "21")
            mapper.report("setpoint", "1")
            time.sleep(0.02)
        lasted = time.monotonic() - began  # longer by what the last of them waited for
        site.settle()
        asked = site.asked_since(before)
        to_device = [entry for entry in asked if "/devices/" in entry]
        to_status = [entry for entry in asked if "/devicestatuses/" in entry]
        assert len(to_device) == len(to_status) == len(asked) / 2, asked
        assert 3 <= len(to_device) <= lasted // cycle_s + 1
        assert first < site.observed(THERMO, "temperature") == site.observed(THERMO_STATUS, "temperature")
        assert site.observed(THERMO, "setpoint") == other, "nobody asked for this one"


@pytest.mark.timeout(120)
def test_the_same_value_again_and_again_asks_nothing_and_an_echo_pushes_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as (site, mapper):
        mapper.report("temperature", "21")
        site.until(lambda: site.reported(THERMO) == site.reported(THERMO_STATUS) == "21", "the first report")

        # The same for ten seconds: not one request, and nothing waits.
        mark = site.settle()
        until, repeats = time.monotonic() + REPEAT_S, 0
        while time.monotonic() < until:
            mapper.report("temperature", "21")
            repeats += 1
            time.sleep(0.02)
        assert repeats > 50
        assert site.asked_since(mark) == []
        assert site.edge_status(NODE)["reportsWaiting"] == 0

        # Other values: the statuses change, and no push comes of it.
        before = site.pushed()
        versions = set()
        for value in range(30, 40):
            mapper.report("temperature", str(value))
            site.until(lambda: site.reported(THERMO) == str(value), "a report")  # noqa: B023 - called at once
            versions.add(site.api.objects[THERMO]["metadata"]["resourceVersion"])
        site.settle()
        assert len(versions) == 10
        assert site.reported(THERMO_STATUS) == "39"
        assert site.pushed() == before


def is_write_of_status(entry: Logged) -> bool:
    return entry.method in ("PATCH", "POST") and "devicestatuses" in entry.path


def is_about_the_device(entry: Logged) -> bool:
    """As if it were gone, and the watch had not said so."""
    return entry.method != "WATCH" and ("thermo-1" in entry.path or "devicestatuses" in entry.path)


@pytest.mark.parametrize(
    ("error", "is_meant"),
    [
        (Forbidden("no right"), is_write_of_status),
        (Invalid("temperature: too cold"), is_write_of_status),
        (NotFound('devices "thermo-1" not found'), is_about_the_device),
    ],
    ids=["403", "422", "404"],
)
@pytest.mark.timeout(120)
def test_what_the_cloud_refuses_is_told_at_both_ends_also_after_a_restart(
    tmp_path: Path, error: ApiError, is_meant: Callable[[Logged], bool]
) -> None:
    with running(tmp_path) as (site, mapper):
        site.settle()
        retried = site.metrics("cloudcore", "cloud")["hub_status_retries_total"]  # while its Node was made, for example
        site.refuse(error, is_meant)
        mapper.report("temperature", "21")
        site.until(lambda: site.ask("edgecore", NODE).get("reportsRefused"), "a refusal")
        assert site.ask("edgecore", NODE)["reportsWaiting"] == 0

        # At the hub: in the status, and by its reason in the metrics.
        told = site.run("cloudcore", "status", "--data-dir", str(tmp_path / "cloud")).stdout
        assert f"refused    {THERMO} property/temperature of {NODE}: {error}" in told
        figures = site.metrics("cloudcore", "cloud")
        by_reason = {name: value for name, value in figures.items() if name.startswith("hub_reports_refused_total")}
        assert by_reason.pop(f'hub_reports_refused_total{{reason="{error.reason}"}}') == 1
        assert set(by_reason.values()) == {0}
        assert figures["hub_status_retries_total"] == retried, "it is not tried again"

        assert site.processes[NODE].stop() == 0
        site.start_edge(NODE)
        (refused,) = site.ask("edgecore", NODE)["lastRefused"]
        assert (refused["key"], refused["field"], refused["reason"]) == (
            str(THERMO),
            "property/temperature",
            str(error),
        )
        told = site.run("edgecore", "status", "--data-dir", str(tmp_path / NODE)).stdout
        assert f"refused  {THERMO} property/temperature, " in told
        assert str(error) in told
        assert site.metrics("edgecore", NODE)["edge_reports_refused_total"] == 1
        site.refuse(None)
        with a_mapper(site.ports[f"{NODE}-mqtt"]) as again:
            again.report("temperature", "22")
            site.until(lambda: site.reported(THERMO_STATUS) == "22", "the next value")


@pytest.mark.timeout(120)
def test_a_store_that_was_damaged_is_told_of_as_an_event(tmp_path: Path) -> None:
    kubectl = next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name)))
    with Site(tmp_path) as site:
        site.start_cloud()
        site.apply_crds(kubectl)
        site.join(NODE)
        assert site.start_edge(NODE).stop() == 0  # after a kill the log would have the page that is damaged here
        path = tmp_path / NODE / "edge.db"
        with path.open("r+b") as file:
            file.write(b"no database")
        site.start_edge(NODE)

        def events() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(site.kubectl(kubectl, "get", "events", "-o", "json").stdout)[
                "items"
            ]
            return found

        site.until(lambda: events() and not site.ask("edgecore", NODE)["eventsWaiting"], "an Event")
        figures = site.metrics("edgecore", NODE)
        assert (figures["edge_events_waiting"], figures["edge_events_dropped_total"]) == (0, 0)
        (event,) = events()
        assert (event["reason"], event["type"], event["count"]) == ("StoreRebuilt", "Warning", 1)
        assert event["involvedObject"]["kind"] == NODES.kind
        assert event["source"] == {"component": "edgecore", "host": NODE}
        columns = site.kubectl(kubectl, "get", "events", "--no-headers").stdout.split()
        assert columns[1:4] == ["Warning", "StoreRebuilt", f"node/{NODE}"]
        assert "StoreRebuilt" in site.kubectl(kubectl, "describe", "node", NODE).stdout
        # Once: neither a restart of the node nor of the hub says it again.
        assert site.processes[NODE].stop() == 0
        site.start_edge(NODE)
        assert len(events()) == 1
