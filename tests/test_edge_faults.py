"""
An edge node in trouble, as real processes: a disk that is full, a database that is damaged, a clock that is wrong, a
resolver that hangs; and what it says of itself meanwhile.

One cloud serves the whole file; each test has a node of its own.
"""

import contextlib
import os
import shutil
import signal
import sqlite3
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES, PODS
from cloudhub.apiclient import ApiClient
from tests.conftest import KUBECTLS, find_tool
from tests.harness.mosquitto import Mosquitto
from tests.harness.small_disk import SmallDisk
from tests.test_faults import (
    PROPERTIES,
    SLOW_DNS,
    Line,
    figure,
    knows,
    local,
    make_device,
    make_model,
    pod,
    publisher,
    ready,
    reported,
)

NEEDLE = "needle-0123456789-needle"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    kubectl = next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name)))
    with Line(tmp_path_factory.mktemp("edges")) as line:
        line.start_hub()
        line.apply_crds(kubectl)
        line.do(make_model)
        yield line


@pytest.fixture
def line(shared: Line) -> Iterator[Line]:
    """The site with its cloud up; what else a test starts ends with the test, and nothing was healed meanwhile."""
    if not shared.processes["cloud"].is_running():
        shared.start_hub()
    yield shared
    for name, process in list(shared.processes.items()):
        if name not in ("api", "cloud"):
            if process.is_running():
                process.kill()
            del shared.processes[name]
    if shared.processes["cloud"].is_running():
        shared.assert_nothing_was_healed("cloud")


def a_node(line: Line, node: str, text: str = NEEDLE) -> None:
    """A node with a device and a pod with this text, in sync."""
    line.enrol(node, line.ports["cloud-link"])
    make_device(line, node, node)
    line.do(lambda client: client.create(PODS, "default", pod(node, node, text)))
    line.start_edge(node)
    line.soon(lambda: knows(line, node, 1), "the node knows its device")


def answered(client: Any, event: str, code: int | None) -> None:
    """Wait for the answer to this report: an error of this code, or None for a result."""
    while (answer := client.heard.get(timeout=20)).get("event_id") != event or answer.get("code") != code:
        pass


# ---- the disk


@pytest.mark.parametrize("broker", ["embedded", "mosquitto"])
@pytest.mark.timeout(90)
def test_a_report_that_could_not_be_committed_survives_kill_9_of_edgecore(line: Line, broker: str) -> None:
    """A full disk holds the moment between publish and commit open, for as long as it takes to kill."""
    node = f"window-{broker}"
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(SmallDisk())
        mosquitto = stack.enter_context(Mosquitto(persistent=True)) if broker == "mosquitto" else None
        url = "embedded" if mosquitto is None else f"mqtt://127.0.0.1:{mosquitto.port}"
        line.enrol(node, line.ports["cloud-link"])
        shutil.move(line.directory / node, disk.path / node)
        (line.directory / node).symlink_to(disk.path / node)
        make_device(line, node, node)
        process = line.start_edge(node, mqtt=url)
        line.soon(lambda: knows(line, node, 1), "the node knows its device")
        port = line.ports[f"{node}-mqtt"] if mosquitto is None else mosquitto.port
        device = stack.enter_context(publisher(port, node, again=True))
        device.report({"p0": 1})
        answered(device, "p0.1", None)
        line.soon(lambda: reported(line, node) == {"p0": 1}, "the first report")

        disk.fill(process.pid)
        device.report({"p1": 2})
        answered(device, "p1.2", 500)
        if mosquitto is None:
            assert len(device.acked) == 1, "what is not committed is not acknowledged"
        assert process.is_running(), "a full disk is no reason to end"
        process.kill()
        disk.free()
        line.start_edge(node, mqtt=url, wait=False)
        line.soon(lambda: reported(line, node) == {"p0": 1, "p1": 2}, "the report that was not committed")
        line.soon(lambda: len(device.acked) == 2, "it is acknowledged in the end")
        line.equal(node)


@pytest.mark.timeout(60)
def test_edgecore_that_finds_its_disk_full_says_so_and_starts_once_there_is_room(line: Line) -> None:
    node = "full-at-start"
    with SmallDisk() as disk:
        a_node(line, node)
        assert line.processes[node].stop() == 0
        shutil.move(line.directory / node, disk.path / node)
        (line.directory / node).symlink_to(disk.path / node)
        disk.fill()
        try:
            process = line.start_edge(node, wait=False)
            assert process.wait() == 1
        finally:
            disk.free()
        told = process.log.read_text().splitlines()[-1]
        assert "the file system is full" in told or not disk.is_mounted, told
        line.start_edge(node)
        line.equal(node)


# ---- damage


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lose_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"no database")


def lose_the_objects(path: Path) -> None:
    """The first page of their table, by what SQLite itself says of where it is."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'objects'").fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)


@pytest.mark.parametrize("damage", [cut_in_half, lose_the_header, lose_the_objects])
@pytest.mark.timeout(90)
def test_a_database_damaged_while_down_is_set_aside_and_rebuilt_from_the_cloud(line: Line, damage: Any) -> None:
    node = f"damaged-{damage.__name__.replace('_', '-')}"
    a_node(line, node)
    line.kill_hub()
    with publisher(line.ports[f"{node}-mqtt"], node) as device:
        device.report({"p3": 33})
        answered(device, "p3.33", None)
    # In good order, so that all of it is in the file that is damaged and not in the log beside it.
    assert line.processes[node].stop() == 0
    path = line.directory / node / "edge.db"
    damage(path)
    process = line.start_edge(node, wait=False)
    line.soon(lambda: line.edge(node).get("api"), "edgecore serves")
    log = process.log.read_text()
    assert "the database was damaged; it was set aside and begun anew" in log
    assert path.with_name("edge.db.corrupt-1").exists()
    with pytest.raises(urllib.error.HTTPError, match="503"):
        local(line, node, "/api/v1/pods")  # empty is not unknown
    waiting = line.edge(node)["reportsWaiting"]

    line.start_hub()
    line.soon(lambda: line.is_quiet(node), "in sync")
    found, _ = local(line, node, f"/api/v1/namespaces/default/pods/{node}")
    assert found["metadata"]["annotations"]["text"] == NEEDLE
    if damage is lose_the_objects:
        assert waiting >= 1, "reports are in pages of their own"
        line.soon(lambda: reported(line, node) == {"p3": 33}, "the report that was not sent")
    with publisher(line.ports[f"{node}-mqtt"], node) as device:
        device.report({"p4": 44})
        line.soon(lambda: reported(line, node).get("p4") == 44, "the next report")
    line.equal(node)


@pytest.mark.timeout(90)
def test_a_row_damaged_while_edgecore_runs_is_never_served_and_costs_a_restart(line: Line) -> None:
    node = "rotten"
    a_node(line, node, "x" * 9000 + NEEDLE)  # on pages of its own, which a start does not read
    assert line.processes[node].stop() == 0
    line.start_edge(node)  # with nothing in the log
    line.kill_hub()
    with publisher(line.ports[f"{node}-mqtt"], node) as device:
        device.report({"p5": 55})
        answered(device, "p5.55", None)
    process, path = line.processes[node], line.directory / node / "edge.db"
    data = path.read_bytes()
    assert data.count(NEEDLE.encode()) == 1
    with path.open("r+b") as file:
        file.seek(data.index(NEEDLE.encode()))
        file.write(NEEDLE.replace("0", "9").encode())
    with pytest.raises(urllib.error.HTTPError, match=r"50[03]"):
        local(line, node, f"/api/v1/namespaces/default/pods/{node}")
    assert process.wait() == 1
    assert "is damaged; start again, and it is set aside and built anew" in process.log.read_text().splitlines()[-1]

    line.start_hub()
    line.start_edge(node)
    assert path.with_name("edge.db.corrupt-1").exists()
    line.soon(lambda: reported(line, node) == {"p5": 55}, "the report that was not sent")
    line.equal(node)


# ---- what it says of itself


@pytest.mark.timeout(60)
def test_how_stale_a_node_is_is_told_in_the_header_the_status_and_a_metric(line: Line) -> None:
    node = "stale"
    line.enrol(node, line.ports["cloud-link"])
    make_device(line, node, node)
    line.kill_hub()
    line.start_edge(node, wait=False)
    line.soon(lambda: line.edge(node), "edgecore serves")
    assert "edge_stale_seconds" not in line.metrics("edgecore", node), "never in sync is no number"
    assert "never was in sync" in line.run("edgecore", "status", "--data-dir", str(line.directory / node)).stdout

    line.start_hub()
    line.soon(lambda: line.is_quiet(node) and knows(line, node, 1), "in sync")
    figures = line.metrics("edgecore", node)
    assert (figures["edge_in_sync"], figures["edge_connected"], figures["edge_stale_seconds"]) == (1, 1, 0)
    assert local(line, node, "/api/v1/pods")[1] == "0"

    line.kill_hub()
    line.soon(lambda: line.metrics("edgecore", node)["edge_stale_seconds"] >= 2, "it grows")
    with publisher(line.ports[f"{node}-mqtt"], node) as device:
        device.report({"p0": 1})
        answered(device, "p0.1", None)
    figures = line.metrics("edgecore", node)
    assert (figures["edge_in_sync"], figures["edge_connected"], figures["edge_devices"]) == (0, 0, 1)
    assert figures["edge_reports_waiting"] >= 1
    header = int(local(line, node, "/api/v1/pods")[1])
    told = line.run("edgecore", "status", "--data-dir", str(line.directory / node)).stdout
    status = int(told.partition("objects, as of ")[2].partition(" s ago")[0])
    metric = line.metrics("edgecore", node)["edge_stale_seconds"]
    assert 2 <= header <= status <= metric + 1 < header + 10


# ---- reports


@pytest.mark.timeout(60)
def test_the_first_value_of_each_property_arrives(line: Line) -> None:
    """KubeEdge loses it: the first report of a property only teaches its edge the property."""
    node = "firsts"
    line.enrol(node, line.ports["cloud-link"])
    line.start_edge(node)
    make_device(line, node, node)
    line.soon(lambda: knows(line, node, 1), "the node knows its device")
    wanted = {name: number for number, name in enumerate(PROPERTIES)}
    with publisher(line.ports[f"{node}-mqtt"], node) as device:
        for name, value in wanted.items():
            device.report({name: value})
            answered(device, f"{name}.{value}", None)
    line.soon(lambda: reported(line, node) == wanted, "each first value")

    async def of_device(client: ApiClient) -> dict[str, int]:
        body = await client.get(ObjectKey(DEVICES, "default", node))
        twins = (body.get("status") or {}).get("twins") or ()
        return {each["propertyName"]: int(each["reported"]["value"]) for each in twins if each.get("reported")}

    line.soon(lambda: line.do(of_device) == wanted, "in the Device's own status, too")


@pytest.mark.timeout(60)
def test_a_report_that_the_hub_had_and_the_apiserver_had_not_survives_kill_9_of_the_hub(line: Line) -> None:
    node = "in-between"
    line.enrol(node, line.ports["cloud-link"])
    make_device(line, node, node)
    line.start_edge(node)
    line.soon(lambda: knows(line, node, 1), "the node knows its device")
    with publisher(line.ports[f"{node}-mqtt"], node) as device:
        device.report({"p0": 1})
        line.soon(lambda: reported(line, node) == {"p0": 1}, "the first report")
        line.soon(lambda: line.edge(node)["reportsWaiting"] == 0, "it is settled")
        asked = line.metrics("cloudcore", "cloud")["hub_status_requests_total"]
        os.kill(line.processes["api"].pid, signal.SIGSTOP)
        try:
            device.report({"p0": 2})
            answered(device, "p0.2", None)
            line.soon(lambda: line.metrics("cloudcore", "cloud")["hub_status_requests_total"] > asked, "it is written")
            assert line.edge(node)["reportsWaiting"] == 1, "not settled before the apiserver has it"
            line.kill_hub()
        finally:
            os.kill(line.processes["api"].pid, signal.SIGCONT)
    # Whatever came of the request that was under way, it comes again.
    line.start_hub()
    line.soon(lambda: reported(line, node) == {"p0": 2}, "the report")
    line.soon(lambda: line.edge(node)["reportsWaiting"] == 0, "it is settled")


# ---- clocks and names


CLOCK = """
import time
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {shift}
time.time_ns = lambda: _time_ns() + {shift} * 10**9
"""
MONTH_S = 30 * 24 * 3600


@pytest.mark.timeout(90)
def test_a_node_whose_clock_is_a_month_off_and_then_set_back_works_like_any_other(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = "wrong-clock"
    line.enrol(node, line.ports["cloud-link"])
    make_device(line, node, node)
    monkeypatch.setitem(line.environment, "PYTHONPATH", str(tmp_path))
    value = 0
    for shift in (MONTH_S, -MONTH_S):
        (tmp_path / "sitecustomize.py").write_text(CLOCK.format(shift=shift))
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        line.start_edge(node)
        line.soon(lambda: knows(line, node, 1) and line.is_quiet(node), "in sync")
        line.soon(lambda: ready(line, node) == "True", "the node is ready")
        with publisher(line.ports[f"{node}-mqtt"], node) as device:
            for _ in range(10):
                value += 1
                device.report({"p0": value})
            line.soon(lambda: reported(line, node).get("p0") == value, "the last value")  # noqa: B023
        name = f"{node}-{'behind' if shift < 0 else 'ahead'}"
        line.do(lambda client: client.create(PODS, "default", pod(name, node, "x")))  # noqa: B023
        path = f"/api/v1/pods?fieldSelector=metadata.name={name}"
        line.soon(lambda: local(line, node, path)[0]["items"], "the pod is there")  # noqa: B023
        assert local(line, node, "/api/v1/pods")[1] == "0"
        line.equal(node)


@pytest.mark.timeout(60)
def test_a_broker_whose_name_hangs_in_dns_does_not_hold_up_a_stop(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = "lost-broker"
    line.enrol(node, line.ports["cloud-link"])
    (tmp_path / "sitecustomize.py").write_text(SLOW_DNS)
    monkeypatch.setitem(line.environment, "PYTHONPATH", str(tmp_path))
    process = line.start_edge(node, mqtt="mqtt://broker.invalid:1883")
    line.soon(lambda: line.edge(node)["mqttProblem"], "it says that the broker does not answer")
    line.soon(lambda: line.is_quiet(node), "all else goes on")
    assert line.edge(node)["mqttProblem"], "it does so while the name still hangs"
    start = time.monotonic()
    assert process.stop() == 0
    figure("stop while the broker's name hangs in DNS", f"{time.monotonic() - start:.2f} s")
