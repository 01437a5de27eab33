"""
Unmodified clients at the edge's API: with the cloud, without it, and after a restart without it.

A test for each cell of docs/conformance.md. One site: the places are reached in their order, and what was begun at
one is over before the next.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import contract
from tests.conformance.contract import Kind
from tests.conformance.matrix import OFFLINE, ONLINE, RESTARTED, Cell
from tests.conformance.runs import AtEdge, Runs, chosen, parameters, seed
from tests.conformance.seeds import NODE
from tests.harness.site import Site

pytestmark = pytest.mark.timeout(180)  # the first test at a place brings the site there, and waits for every client

FLAGS = ("--api-tls",)
PLACES = (ONLINE, OFFLINE, RESTARTED)
KINDS = (
    contract.WIDGET,
    contract.CONFIG_MAP,
    contract.SECRET,
    contract.SERVICE_ACCOUNT,
    contract.EVENT,
    contract.LEASE,
    Kind("v1", "Namespace", "namespaces"),
)
"""What somebody at the node has read before the cloud goes, and so is held."""
DOCUMENTS = ("/api", "/apis", "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/openapi/v3/apis/example.com/v1")


class Edge:
    """A site with its node, brought from place to place."""

    def __init__(self, site: Site) -> None:
        self._site = site
        seed(site, ONLINE, OFFLINE)
        site.start_cloud()
        site.join(NODE)
        site.start_edge(NODE, flags=FLAGS)
        site.processes[NODE].stop()  # what came before its start it has forgotten, which a client is to be told
        site.start_edge(NODE, flags=FLAGS)
        self._way = AtEdge(site)

    def online(self) -> Path:
        return self._way.kubeconfig

    def offline(self) -> Path:
        for kind in KINDS:
            prefix = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.api_version}"
            self._way.fetch(f"{prefix}/{kind.plural}")
        for document in DOCUMENTS:
            self._way.fetch(document)
        self._site.processes["cloud"].kill()
        self._site.until(lambda: not self._site.ask("edgecore", NODE).get("connected"), "the link is lost")
        return self.online()

    def restarted(self) -> Path:
        self._site.processes[NODE].kill()
        process = self._site.start_edge(NODE, wait=False, flags=FLAGS)
        self._site.until(lambda: self._site.ask("edgecore", NODE).get("api"), "edgecore serves", process)
        return self.online()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Runs]:
    cells = chosen(request, PLACES)
    with Site(tmp_path_factory.mktemp("site")) as site:
        edge = Edge(site)
        made = Runs(site, cells, {ONLINE: edge.online, OFFLINE: edge.offline, RESTARTED: edge.restarted})
        try:
            yield made
        finally:
            made.end()


@pytest.mark.parametrize("cell", parameters(*PLACES))
def test_client(runs: Runs, cell: Cell) -> None:
    runs.judge(cell)
