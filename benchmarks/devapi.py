"""
The embedded apiserver by itself: small objects created, patched and listed over one kept-alive connection.

With the durability that it is started with by default, and with the lighter one that survives a crash of the process
but not of the machine.
"""

import http.client
import json
import os
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks import procfs
from benchmarks.figures import Figure, Measured, Times
from tests.harness.mosquitto import free_port
from tests.harness.site import Process

CREATED = {"power-cut": 1000, "crash": 10_000}
PATCHED = 1000
PLACE = "/api/v1/namespaces/default/configmaps"
WITHIN_S = 30.0
LIST_S = 1.0


def measure(runs: int, quick: bool) -> Iterator[list[Measured]]:
    """By durability."""
    for durability, most in CREATED.items():
        count = most // 100 if quick else most
        created: list[float] = []
        listed: list[float] = []
        resident: list[float] = []
        patches = Times(f"patch of a small object, durability {durability}")
        for _ in range(runs):
            with tempfile.TemporaryDirectory(prefix="bench-") as directory:
                server, client = _start(Path(directory), durability)
                try:
                    patches.begin_run()
                    began = time.perf_counter()
                    for number in range(count):
                        client.ask("POST", PLACE, {"metadata": {"name": f"c{number}"}, "data": {"x": "y"}})
                    created.append(count / (time.perf_counter() - began))
                    for number in range(PATCHED // (100 if quick else 1)):
                        began = time.perf_counter()
                        client.ask("PATCH", f"{PLACE}/c1", {"data": {"x": str(number)}})
                        patches.add((time.perf_counter() - began) * 1000)
                    began = time.perf_counter()
                    assert len(client.ask("GET", PLACE)["items"]) >= count
                    listed.append(time.perf_counter() - began)
                    resident.append(procfs.memory(server.pid).resident)
                finally:
                    server.kill()
        yield [
            Figure(f"objects created one after another, durability {durability}", "1/s", created),
            *patches.figures(),
            Figure(f"a list of {count:,} small objects, decoded", "s", listed, LIST_S),
            Figure(f"apiserver with {count:,} small objects: resident", "MB", resident),
        ]


class _Client:
    """One kept-alive connection with the administrator's token."""

    def __init__(self, kubeconfig: dict[str, Any], port: int) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # loopback, and it is not what is measured
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=WITHIN_S)
        self._token = kubeconfig["users"][0]["user"]["token"]

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        assert answer.status in (200, 201), told
        return told


def _start(directory: Path, durability: str) -> tuple[Process, _Client]:
    port = free_port()
    arguments = ("apiserver.dev", "run", "--data-dir", str(directory), "--listen", f"127.0.0.1:{port}")
    server = Process("api", (*arguments, "--durability", durability), directory / "api.log", os.environ)
    by = time.monotonic() + WITHIN_S
    while True:
        try:
            client = _Client(yaml.safe_load((directory / "kubeconfig").read_text()), port)
            client.ask("GET", PLACE)
            return server, client
        except (OSError, AssertionError):
            if time.monotonic() > by or not server.is_running():
                server.kill()
                raise
            time.sleep(0.02)
