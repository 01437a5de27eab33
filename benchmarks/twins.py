"""
What twins cost: reports from MQTT to the durable commit, the answer to a single one, memory for many.

Reports come as fast as edgecore takes them, so many of them outstanding that its batches fill; what counts is its
processor time for each, for the core that it has to itself on a node is shared here with everything that measures it.
Every report is a change, so each is written to disk, answered and documented. The client is a bare socket: paho
would be measured otherwise.

No answer comes before its commit, so the same disk is asked beside it what a commit of one row takes, as often: the
99th percentile of that is the disk's and the machine's, not ours.
"""

import contextlib
import json
import os
import socket
import sqlite3
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import procfs
from benchmarks.figures import Figure, Times
from benchmarks.line import WITHIN_S, Line, name_of
from componentbase import tcp

DEVICES = 100
REPORTS = 20_000
OUTSTANDING = 512
PACED = 1000
PACED_PER_S = 100
MANY, PROPERTIES = 1000, 20
NAMES = [f"p{number:02}" for number in range(PROPERTIES)]

MODEL = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: twenty, namespace: default}
spec: {protocol: custom, properties: [PROPERTIES]}
"""
DEVICE = """
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: NAME, namespace: default}
spec: {deviceModelRef: {name: twenty}, nodeName: edge-1, protocol: {protocolName: custom}, properties: [PROPERTIES]}
"""


def measure(runs: int, quick: bool, edgecore: Path | None) -> Iterator[list[Figure]]:
    """With both brokers; memory with each, too."""
    for broker in ("mosquitto", "embedded"):
        cost: dict[int, list[float]] = {1: [], 8: []}
        rate: dict[int, list[float]] = {1: [], 8: []}
        answers = Times(f"report -> result at {PACED_PER_S}/s ({broker} broker)")
        commits = Times(f"a bare commit of one row to the same disk at {PACED_PER_S}/s")
        more: list[float] = []
        for _ in range(runs):
            with Line(broker, 1, edgecore=edgecore) as line:
                assert line.edge is not None, "started with the line"
                idle = procfs.memory(line.edge.pid).resident
                _add(line, quick)
                for values in cost:
                    with Reporter(line.mqtt_port) as reporter:
                        spent, lasted = _flood(line, reporter, values, REPORTS // (10 if quick else 1))
                    cost[values].append(spent)
                    rate[values].append(lasted)
                commits.begin_run()
                for milliseconds in _commits(line.site.directory, PACED // (5 if quick else 1)):
                    commits.add(milliseconds)
                answers.begin_run()
                with Reporter(line.mqtt_port) as reporter:
                    for milliseconds in _paced(reporter, PACED // (5 if quick else 1)):
                        answers.add(milliseconds)
                with Reporter(line.mqtt_port) as reporter:
                    _all(reporter, DEVICES if quick else MANY)
                more.append(procfs.memory(line.edge.pid).resident - idle)
        figures = []
        for values, used in cost.items():
            what = f"report of {values} value{'s' if values > 1 else ''} ({broker} broker)"
            figures += [
                Figure(f"{what}: processor", "us", used, note="edgecore's, all threads"),
                Figure(f"{what}: values per second of one core", "1/s", [values * 1e6 / each for each in used]),
                Figure(f"{what}: reports per second here", "1/s", rate[values], note="client and broker beside it"),
            ]
        paced = answers.figures()
        paced[-1].target = 10.0
        count = DEVICES if quick else MANY
        memory = Figure(f"{count} devices of {PROPERTIES} properties over idle ({broker} broker)", "MB", more, 40.0)
        yield [*figures, *paced, *commits.figures(), memory]


def _add(line: Line, quick: bool) -> None:
    """Devices with many properties, one kubectl for all."""
    model = ", ".join(f"{{name: {name}, type: INT, accessMode: ReadOnly}}" for name in NAMES)
    line.site.kubectl(line.kubectl, "apply", "-f", "-", stdin=MODEL.replace("PROPERTIES", model))
    properties = ", ".join(f"{{name: {name}, reportCycle: 10000}}" for name in NAMES)
    count = DEVICES if quick else MANY
    text = DEVICE.replace("PROPERTIES", properties)
    devices = "---".join(text.replace("NAME", _name(number)) for number in range(count))
    line.site.kubectl(line.kubectl, "create", "-f", "-", stdin=devices)
    by = time.monotonic() + 6 * WITHIN_S
    while line.site.ask("edgecore", "edge-1").get("devices") != count + line.devices:
        assert time.monotonic() < by, f"not within {6 * WITHIN_S:g} s: {count} devices"
        time.sleep(0.2)


def _name(number: int) -> str:
    return f"wide-{name_of(number)}"


def _flood(line: Line, reporter: "Reporter", values: int, reports: int) -> tuple[float, float]:
    """Processor time per report in microseconds, and reports per second."""
    assert line.edge is not None, "it runs"
    before, began = procfs.cpu_s(line.edge.pid), time.perf_counter()
    while reporter.answered < reports:
        while reporter.sent < reports and reporter.sent - reporter.answered < OUTSTANDING:
            reporter.report(reporter.sent % DEVICES, values)
        reporter.wait()
    lasted = time.perf_counter() - began
    return (procfs.cpu_s(line.edge.pid) - before) / reports * 1e6, reports / lasted


def _paced(reporter: "Reporter", reports: int) -> Iterator[float]:
    """Milliseconds from the report to its result, one report every so often whatever becomes of the others."""
    began = time.perf_counter()
    at: list[float] = []
    while reporter.answered < reports:
        due = began + reporter.sent / PACED_PER_S
        if reporter.sent < reports and time.perf_counter() >= due:
            at.append(time.perf_counter())
            reporter.report(reporter.sent % DEVICES, 1)
            continue
        answered = reporter.answered
        reporter.wait(max(0.0, due - time.perf_counter()) if reporter.sent < reports else WITHIN_S)
        now = time.perf_counter()
        for number in range(answered, reporter.answered):  # in their order, for there is one task that answers
            yield (now - at[number]) * 1000


def _commits(directory: Path, count: int) -> Iterator[float]:
    """Milliseconds for each of so many commits of one small row, as durable as the store's, one every so often."""
    with contextlib.closing(sqlite3.connect(directory / "bare.db", isolation_level=None)) as database:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t (k PRIMARY KEY, v)"):
            database.execute(statement)
        for number in range(count):
            began = time.perf_counter()
            database.execute("REPLACE INTO t VALUES (?, ?)", (number % DEVICES, "x" * 100))
            took = time.perf_counter() - began
            yield took * 1000
            time.sleep(max(0.0, 1 / PACED_PER_S - took))
    (directory / "bare.db").unlink()


def _all(reporter: "Reporter", devices: int) -> None:
    """Every property of every device once."""
    while reporter.answered < devices:
        while reporter.sent < devices and reporter.sent - reporter.answered < 64:
            reporter.report(reporter.sent, PROPERTIES)
        reporter.wait()


class Reporter:
    """A mapper that does nothing but report, on a bare socket."""

    def __init__(self, port: int) -> None:
        self.sent = 0
        self.answered = 0
        self._buffer = bytearray()
        self._first = time.time_ns() // 1_000_000 % 1_000_000_000
        self._socket = socket.create_connection(("127.0.0.1", port), WITHIN_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client_id = f"reporter-{os.getpid()}"
        self._send(0x10, b"\0\4MQTT\4\2\0\0" + _text(client_id))
        self._send(0x82, b"\0\1" + _text("$hw/events/device/+/+/twin/update/result") + b"\0")
        taken = 0  # CONNACK and SUBACK
        while taken < 2:
            self._buffer += self._socket.recv(4096)
            taken += self._packets()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        self._send(0xE0, b"")
        self._socket.close()

    def report(self, device: int, values: int) -> None:
        """One report; each value is one that was never there."""
        twin = {
            NAMES[(self.sent + place) % PROPERTIES]: {
                "actual": {"value": str(self._first + self.sent)},
                "metadata": {"type": "int"},
            }
            for place in range(values)
        }
        payload = json.dumps({"event_id": str(self.sent), "timestamp": 1, "twin": twin}).encode()
        number = struct.pack("!H", self.sent % 65535 + 1)
        self.sent += 1
        self._send(0x32, _text(f"$hw/events/device/default/{_name(device)}/twin/update") + number + payload)

    def wait(self, within_s: float = WITHIN_S) -> None:
        """Until something came; counts the results in it."""
        self._socket.settimeout(max(within_s, 0.0001))
        try:
            data = self._socket.recv(1 << 18)
        except TimeoutError:
            assert within_s < WITHIN_S, f"{self.sent - self.answered} reports without an answer"
            return
        finally:
            self._socket.settimeout(WITHIN_S)
        assert data, "the broker closed the connection"
        # As the mapper SDK does: mosquitto holds its next packet back until the last one is acknowledged.
        tcp.acknowledge_now(self._socket)
        self._buffer += data
        self._packets()

    def _packets(self) -> int:
        """Take whole packets out of the buffer; how many there were."""
        count = place = 0
        while True:
            length, shift, at = 0, 0, place + 1
            while at < len(self._buffer):
                length |= (self._buffer[at] & 127) << shift
                shift += 7
                at += 1
                if self._buffer[at - 1] < 128:
                    break
            else:
                break
            if at + length > len(self._buffer):
                break
            if self._buffer[place] >> 4 == 3:
                assert b'"code"' not in self._buffer[at : at + length], bytes(self._buffer[at : at + length])
                self.answered += 1
            place = at + length
            count += 1
        del self._buffer[:place]
        return count

    def _send(self, head: int, body: bytes) -> None:
        length, size = len(body), bytearray()
        while True:
            length, low = divmod(length, 128)
            size.append(low | (128 if length else 0))
            if not length:
                break
        self._socket.sendall(bytes([head]) + size + body)


def _text(text: str) -> bytes:
    return struct.pack("!H", len(text.encode())) + text.encode()
