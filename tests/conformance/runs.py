"""The clients' processes at the places of one site: started together where a place is reached, their findings read."""

import json
import ssl
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conformance import matrix, seeds
from tests.conformance.matrix import CLIENTS, EMBEDDED, KUBECTLS, OFFLINE, ONLINE, RESTARTED, Cell
from tests.conftest import find_tool, need_tool
from tests.harness import forkserver
from tests.harness.site import ROOT, Site

FOUND_S = 50.0  # until a client has come to a check; what is before it takes its part of this


@dataclass
class Running:
    """One client's process."""

    process: forkserver.Running
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
        for place in (OFFLINE, RESTARTED):
            for client in self._wanted[place]:  # offline is served what was asked for before
                self._wanted[ONLINE][client] = [cell.feature for cell in matrix.cells(ONLINE) if cell.client == client]
        self._running: dict[tuple[str, str], Running] = {}
        self._reached: set[str] = set()

    def judge(self, cell: Cell) -> None:
        """Fail with what the client says of it."""
        places = list(self._reach)
        for place in places[: places.index(cell.place) + 1]:
            if place not in self._reached:
                self._go(place)
        problem = self._running[cell.place, cell.client].problem(cell.feature)
        if problem:
            pytest.fail(problem, pytrace=False)

    def _go(self, place: str) -> None:
        """Everybody is done with the place before."""
        self._reached.add(place)
        for running in self._running.values():
            running.process.wait(FOUND_S)
        kubeconfig = self._reach[place]()
        for client, features in self._wanted[place].items():
            self._running[place, client] = self._start(place, client, features, kubeconfig)

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
            process = forkserver.start(
                "tests.conformance.clients.run",
                [client, place, namespace_of(place, client), *features],
                out=out,
                error=error,
                environment=environment,
                directory=directory,
            )
        return Running(process, found, said)


def parameters(*places: str) -> list[Any]:
    """A test's parameters: the cells, of which some are known to fail."""
    return [
        pytest.param(cell, id=cell.id, marks=[pytest.mark.xfail(reason=gap)] if gap else [])
        for cell in matrix.cells(*places)
        for gap in [matrix.GAPS.get((cell.place, cell.feature))]
    ]


def chosen(request: pytest.FixtureRequest, places: Iterable[str]) -> list[Cell]:
    """The cells at these places that this session runs."""
    found = [
        item.callspec.params.get("cell")
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    ]
    return [cell for cell in found if isinstance(cell, Cell) and cell.place in places]


def namespace_of(place: str, client: str) -> str:
    """The places at the edge share them."""
    return f"{'cloud' if place == EMBEDDED else 'edge'}-{client}".replace("_", "-")


def seed(site: Site, *places: str) -> None:
    """What the clients find at places that share an API."""
    objects = [each for client in CLIENTS for each in seeds.namespace(namespace_of(places[0], client), places)]
    create(site, [seeds.DEFINITION])
    create(site, [*seeds.operator(), *objects])


def create(site: Site, objects: Sequence[Mapping[str, Any]]) -> None:
    """In the cluster, by its admin."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    site.kubectl(need_tool("kubectl-current"), "create", "--validate=false", "-f", "-", stdin=text)


class AtEdge:
    """A pod's way to its node's API: with the token of its ServiceAccount."""

    def __init__(self, site: Site) -> None:
        self.server = f"https://127.0.0.1:{site.ports[f'{seeds.NODE}-api']}"
        self.kubeconfig = site.directory / "edge.kubeconfig"
        ca = str(site.directory / seeds.NODE / "pki" / "ca.crt")
        self._tls = ssl.create_default_context(cafile=ca)
        made = site.kubectl(need_tool("kubectl-current"), "create", "token", seeds.OPERATOR, "--duration=24h")
        self._token = made.stdout.strip()
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "edge", "cluster": {"server": self.server, "certificate-authority": ca}}],
            "users": [{"name": seeds.OPERATOR, "user": {"token": self._token}}],
            "contexts": [{"name": "edge", "context": {"cluster": "edge", "user": seeds.OPERATOR}}],
            "current-context": "edge",
        }
        self.kubeconfig.write_text(yaml.safe_dump(value))

    def fetch(self, path: str) -> Any:
        """A document, asked for again while it is being fetched from the cloud."""
        by = time.monotonic() + FOUND_S
        while True:
            try:
                return self.ask("GET", path)
            except urllib.error.HTTPError as exc:
                with exc:
                    if exc.code != 503 or time.monotonic() > by:
                        raise
                time.sleep(0.05)

    def ask(self, method: str, path: str, patch: Any = None) -> Any:
        """One request; a patch is a merge patch. Raises HTTPError."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/merge-patch+json"}
        body = None if patch is None else json.dumps(patch).encode()
        asked = urllib.request.Request(f"{self.server}{path}", body, headers, method=method)
        with urllib.request.urlopen(asked, timeout=10, context=self._tls) as answer:
            return json.load(answer)
