"""
What the processes take when nothing happens: memory, processor time, bytes on the link.

edgecore is started from a fresh environment with nothing but `fairlead[edge]` in it, as on a node: the development
environment's own hooks would count as 2 MB of it.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import procfs
from benchmarks.figures import Figure
from benchmarks.line import Line, name_of

SETTLE_S = 3.0
AT_REST_WITHIN_S = 60.0
IDLE_S = 20.0
WINDOWS = 3  # each has one heartbeat in it
MANY = 100
WITHOUT_API = "edgecore, 1 device, mosquitto broker, no local API"
EDITS = 20


def measure(runs: int, quick: bool, edgecore: Path | None) -> Iterator[list[Figure]]:
    """Memory, then the idle costs."""
    taken: dict[str, list[procfs.Memory]] = {}
    for _ in range(runs):
        with Line("embedded", 1, edgecore=edgecore) as line:
            for devices in (1, MANY):
                if devices > line.devices:
                    line.add_devices(range(line.devices, devices))
                    line.devices = devices
                for broker in ("embedded", "mosquitto"):
                    line.stop_edge()
                    line.start_edge(broker)
                    _let_all_report(line)
                    time.sleep(SETTLE_S)
                    assert line.edge is not None, "started above"
                    taken.setdefault(_edge(devices, broker), []).append(procfs.memory(line.edge.pid))
                if devices == 1:
                    line.stop_edge()
                    line.start_edge("mosquitto", local_api=False)
                    time.sleep(SETTLE_S)
                    assert line.edge is not None, "started above"
                    taken.setdefault(WITHOUT_API, []).append(procfs.memory(line.edge.pid))
                    for program, name in (("cloud", "cloudcore, 1 node"), ("api", "apiserver")):
                        taken.setdefault(name, []).append(procfs.memory(line.site.processes[program].pid))
                    for driver in ("simulated", "host"):
                        mapper = line.site.start(
                            f"mapper-{driver}",
                            *("mappers.runtime", "run", driver, "--mqtt", f"mqtt://127.0.0.1:{line.mqtt_port}"),
                            *("--device", f"default/{name_of(0)}"),
                        )
                        time.sleep(SETTLE_S)
                        taken.setdefault(f"mapper {driver}", []).append(procfs.memory(mapper.pid))
                        mapper.stop()
    yield [figure for name, memories in taken.items() for figure in _memory(name, memories)] + [
        *_alone(
            f"embedded broker on top, {MANY} devices", taken[_edge(MANY, "embedded")], taken[_edge(MANY, "mosquitto")]
        ),
        *_alone("local API on top, idle", taken[_edge(1, "mosquitto")], taken[WITHOUT_API]),
    ]
    yield _idle(1 if quick else min(runs, WINDOWS), edgecore)


def _edge(devices: int, broker: str) -> str:
    return f"edgecore, {devices} device{'s' if devices > 1 else ''}, {broker} broker"


def _memory(name: str, memories: list[procfs.Memory]) -> list[Figure]:
    resident: float | None = None
    anonymous: float | None = None
    if name == _edge(MANY, "mosquitto"):
        resident, anonymous = 52.0, 30.0
    promised = resident is not None
    return [
        Figure(f"{name}: resident", "MB", [each.resident for each in memories], resident, is_promise=promised),
        Figure(f"{name}: anonymous", "MB", [each.anonymous for each in memories], anonymous, is_promise=promised),
    ]


def _alone(name: str, with_it: list[procfs.Memory], without: list[procfs.Memory]) -> list[Figure]:
    more = [a.resident - b.resident for a, b in zip(with_it, without, strict=True)]
    return [Figure(f"{name}: resident", "MB", more, 8.0, is_promise="broker" in name)]


def _let_all_report(line: Line) -> None:
    """Each device reports once, so that all that a device takes is taken."""
    with line.client() as (client, _):
        for number in range(line.devices):
            twin = f'{{"temperature":{{"actual":{{"value":"{number}"}},"metadata":{{"type":"int"}}}}}}'
            topic = f"$hw/events/device/default/{name_of(number)}/twin/update"
            client.publish(topic, f'{{"event_id":"","timestamp":1,"twin":{twin}}}', 1).wait_for_publish(10)
    line.site.until(lambda: line.site.edge_status("edge-1").get("reportsWaiting") == 0, "the reports are up")


def _let_come_to_rest(line: Line) -> None:
    """Wait until the hub has written no status for a while: of devices that are new there is much to write."""
    by, written, since = time.monotonic() + AT_REST_WITHIN_S, -1.0, 0.0
    while time.monotonic() - since < SETTLE_S:
        time.sleep(0.2)
        now = line.site.metrics("cloudcore", "cloud")["hub_status_requests_total"]
        if now != written:
            assert time.monotonic() < by, "cloudcore does not cease to write statuses"
            written, since = now, time.monotonic()


def _idle(windows: int, edgecore: Path | None) -> list[Figure]:
    """One line, several windows: what is done once a minute must not be missed."""
    edge, cloud, link = [], [], []
    with Line("mosquitto", MANY, edgecore=edgecore, counted=True) as line:
        _let_all_report(line)
        _let_come_to_rest(line)
        assert line.edge is not None, "started with the line"
        pids = (line.edge.pid, line.site.processes["cloud"].pid)
        for _ in range(windows):
            began, carried = time.monotonic(), line.link.carried
            before = [procfs.cpu_s(pid) for pid in pids]
            time.sleep(IDLE_S)
            lasted_s = time.monotonic() - began
            used = [(procfs.cpu_s(pid) - was) / lasted_s * 100 for pid, was in zip(pids, before, strict=True)]
            edge.append(used[0])
            cloud.append(used[1])
            link.append((line.link.carried - carried) / lasted_s)
        carried = line.link.carried
        with line.patcher() as patch:
            for number in range(EDITS):
                patch(number, 7)
        time.sleep(1)
        edit = (line.link.carried - carried) / EDITS
    return [
        Figure(f"edgecore idle, {MANY} devices: processor", "% of a core", edge, 0.3, is_promise=True),
        Figure(f"cloudcore idle, 1 node, {MANY} devices: processor", "% of a core", cloud),
        Figure("link idle, both ways", "B/s", link, 5.0, "of the TCP stream, TLS included", is_promise=True),
        Figure("link, one edit of a device, both ways together", "B", [edit], note="push and ack, TLS included"),
    ]
