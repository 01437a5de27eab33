"""Unmodified clients at the embedded apiserver: a test for each cell of docs/conformance.md."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.matrix import EMBEDDED, Cell
from tests.conformance.runs import Runs, chosen, parameters, seed
from tests.harness.site import Site

pytestmark = pytest.mark.timeout(180)  # the first test starts the site and every client


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Runs]:
    cells = chosen(request, (EMBEDDED,))
    with Site(tmp_path_factory.mktemp("site")) as site:

        def reach() -> Path:
            seed(site, EMBEDDED)
            site.processes["api"].stop()  # what came before its start it has forgotten, which a client is to be told
            site.start_api()
            return site.kubeconfig

        made = Runs(site, cells, {EMBEDDED: reach})
        try:
            yield made
        finally:
            made.end()


@pytest.mark.parametrize("cell", parameters(EMBEDDED))
def test_client(runs: Runs, cell: Cell) -> None:
    runs.judge(cell)
