"""
How long an edit takes to the device, and a reading to the cluster.

Down: from `kubectl patch`, and from a PATCH on a kept-alive connection, to the delta message at an MQTT client.
Up: from the publication of a report to the event at a client that watches DeviceStatus.

One edit at a time, the next when the last has arrived: this is the delay, not the throughput.
"""

import subprocess
import time
from collections.abc import Iterator

from benchmarks.figures import Figure, Times
from benchmarks.line import Line, Sightings, delta_in, desired_in, name_of, reported_in, wish

DEVICES = 40
PATCHES = 150
KUBECTL_EDITS = 40
MIN_INTERVAL_S = 0.5  # cloudcore writes a device's status no more often, see `cloudcore config`


def measure(runs: int, quick: bool) -> Iterator[list[Figure]]:
    """The figures of each broker."""
    for broker in ("embedded", "mosquitto"):
        with_broker = f"({broker} broker)"
        times = {
            "kubectl": Times(f"kubectl started -> MQTT message {with_broker}", "kubectl itself included"),
            "kubectl-commit": Times(f"kubectl's edit seen by a watch -> MQTT message {with_broker}"),
            "patch": Times(f"PATCH sent -> MQTT message {with_broker}", "kept-alive HTTPS"),
            "answer": Times(f"PATCH sent -> answered {with_broker}", "the apiserver's own part"),
            "commit": Times(f"edit seen by a watch -> MQTT message {with_broker}"),
            "first": Times(f"first report published -> seen in DeviceStatus {with_broker}"),
            "steady": Times(f"report published -> seen in DeviceStatus {with_broker}", "0.7 s after the last one"),
            "hasty": Times(
                f"report right after another -> seen in DeviceStatus {with_broker}", "at most one write per 0.5 s"
            ),
        }
        for _ in range(runs):
            for each in times.values():
                each.begin_run()
            with Line(broker, DEVICES) as line:
                time.sleep(2 * MIN_INTERVAL_S)  # until what the devices' creation caused is written
                _up(line, times, quick)
                _down(line, times, quick)
        yield [figure for each in times.values() for figure in each.figures()]


def _down(line: Line, times: dict[str, Times], quick: bool) -> None:
    with (
        line.watch("devices", desired_in) as committed,
        line.client(told=delta_in) as (_, heard),
        line.patcher() as patch,
    ):
        for number in range(PATCHES // (5 if quick else 1)):
            device, value = number % DEVICES, 100 + number
            began = patch(device, value)
            answered = time.perf_counter()
            _note(committed, heard, began, (name_of(device), str(value)), times, ("patch", "commit"))
            times["answer"].add((answered - began) * 1000)
        for number in range(KUBECTL_EDITS // (5 if quick else 1)):
            device, value = number % DEVICES, 1000 + number
            began = time.perf_counter()
            arguments = ["patch", "device", name_of(device), "--type", "merge", "-p", wish(value)]
            with subprocess.Popen(
                [str(line.kubectl), "--kubeconfig", str(line.site.kubeconfig), *arguments],
                stdout=subprocess.DEVNULL,
                env=line.site.environment,
            ):
                what = (name_of(device), str(value))
                _note(committed, heard, began, what, times, ("kubectl", "kubectl-commit"))


def _note(
    committed: Sightings,
    heard: Sightings,
    began: float,
    what: tuple[str, str],
    times: dict[str, Times],
    names: tuple[str, str],
) -> None:
    arrived, seen = heard.wait(*what), committed.wait(*what)
    times[names[0]].add((arrived - began) * 1000)
    times[names[1]].add((arrived - seen) * 1000)


def _up(line: Line, times: dict[str, Times], quick: bool) -> None:
    last: dict[int, float] = {}
    with line.watch("devicestatuses", reported_in) as seen, line.client() as (client, _):

        def report(device: int, value: int) -> float:
            twin = f'{{"temperature":{{"actual":{{"value":"{value}"}},"metadata":{{"type":"int"}}}}}}'
            began = last[device] = time.perf_counter()
            client.publish(
                f"$hw/events/device/default/{name_of(device)}/twin/update",
                f'{{"event_id":"","timestamp":1,"twin":{twin}}}',
                1,
            )
            return began

        def timed(name: str, device: int, value: int) -> None:
            began = report(device, value)
            times[name].add((seen.wait(name_of(device), str(value)) - began) * 1000)

        for device in range(DEVICES):
            timed("first", device, 10)
        for number in range(PATCHES // (5 if quick else 1)):
            device = number % DEVICES
            # Its last report must be older than the interval between two writes of one status.
            time.sleep(max(0.0, last[device] + MIN_INTERVAL_S + 0.2 - time.perf_counter()))
            timed("steady", device, 100 + number)
        time.sleep(MIN_INTERVAL_S + 0.2)
        for device in range(5 if quick else DEVICES):
            report(device, 1000)
            seen.wait(name_of(device), "1000")
            timed("hasty", device, 1001)
