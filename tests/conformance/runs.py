"""The clients' processes at the places of one site: started together where a place is reached, their findings read."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conformance import seeds
from tests.conformance.matrix import CLIENTS, KUBECTLS, Cell
from tests.conftest import find_tool, need_tool
from tests.harness.site import ROOT, Site

FOUND_S = 50.0  # until a client has come to a check; what is before it takes its part of this


@dataclass
class Running:
    """One client's process."""

    process: subprocess.Popen[bytes]
    found: Path
    """Its lines."""
    said: Path
    """What it wrote besides."""

    def problem(self, feature: str) -> str:
        """What it has to say of a feature: waits until it does."""
        by = time.monotonic() + FOUND_S
        while True:
            has_ended = self.process.poll() is not None  # looked at before its lines, which then are all
            for line in self.found.read_text().splitlines():
                value = json.loads(line)
                if value["feature"] == feature:
                    return str(value["problem"])
            if has_ended or time.monotonic() > by:
                return f"the client ended or hangs before this check:\n{self.said.read_text()[-3000:]}"
            time.sleep(0.02)


class Runs:
    """The clients at a site's places."""

    def __init__(self, site: Site, cells: Iterable[Cell], reach: Mapping[str, Callable[[], Path]]) -> None:
        """cells: those that are asked for. reach: what makes each place, and gives its kubeconfig."""
        self._site = site
        self._reach = reach
        self._wanted: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for cell in cells:
            self._wanted[cell.place][cell.client].append(cell.feature)
        self._running: dict[tuple[str, str], Running] = {}
        self._reached: set[str] = set()

    def judge(self, cell: Cell) -> None:
        """Fail with what the client says of it."""
        if cell.place not in self._reached:
            self._reached.add(cell.place)
            for running in self._running.values():
                running.process.wait(FOUND_S)
            kubeconfig = self._reach[cell.place]()
            for client, features in self._wanted[cell.place].items():
                self._running[cell.place, client] = self._start(cell.place, client, features, kubeconfig)
        problem = self._running[cell.place, cell.client].problem(cell.feature)
        if problem:
            pytest.fail(problem, pytrace=False)

    def end(self) -> None:
        for running in self._running.values():
            running.process.kill()
            running.process.wait()

    def _start(self, place: str, client: str, features: list[str], kubeconfig: Path) -> Running:
        directory = self._site.directory / f"{place}-{client}"
        directory.mkdir()
        found, said = directory / "found", directory / "said"
        environment = self._site.environment | {
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(directory),  # the official client keeps discovery in a file there
        }
        if client in KUBECTLS:
            environment["CONFORMANCE_KUBECTL"] = str(find_tool(client) or need_tool("kubectl"))
        with found.open("wb") as out, said.open("wb") as error:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.conformance.clients.run"),
                    *(client, place, namespace_of(place, client), *features),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                env=environment,
                cwd=directory,
            )
        return Running(process, found, said)


def namespace_of(place: str, client: str) -> str:
    return f"{place}-{client}".replace("_", "-")


def seed(site: Site, *places: str) -> None:
    """What the clients find."""
    kubectl = need_tool("kubectl-current")
    objects = [each for place in places for client in CLIENTS for each in seeds.namespace(namespace_of(place, client))]
    for part in ([seeds.DEFINITION, seeds.RIGHTS], objects):
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": part})
        site.kubectl(kubectl, "create", "--validate=false", "-f", "-", stdin=text)


def kubeconfig_for(site: Site, server: str) -> Path:
    """For a server that asks nobody who he is."""
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "edge", "cluster": {"server": server}}],
        "users": [{"name": "anybody", "user": {}}],
        "contexts": [{"name": "edge", "context": {"cluster": "edge", "user": "anybody"}}],
        "current-context": "edge",
    }
    path = site.directory / "edge.kubeconfig"
    path.write_text(yaml.safe_dump(value))
    return path


def fetch(server: str, path: str) -> Any:
    """A document, asked for again while it is being fetched from the cloud."""
    by = time.monotonic() + FOUND_S
    while True:
        try:
            with urllib.request.urlopen(f"{server}{path}", timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code != 503 or time.monotonic() > by:
                    raise
            time.sleep(0.05)


__all__ = ["Runs", "fetch", "kubeconfig_for", "namespace_of", "seed"]
