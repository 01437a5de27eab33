"""The line over QUIC with real processes: what is chosen, what it carries, and what becomes of it under SIGKILL."""

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudhub.apiclient import ApiClient
from tests.conftest import KUBECTLS, find_tool
from tests.harness.mosquitto import free_port
from tests.harness.site import Site
from tests.test_end_to_end import MODEL, NODE, Editor, expected, held

pytestmark = pytest.mark.timeout(120)

EDITS = 120
OTHER = "edge-2"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A hub with QUIC and two nodes: one that wants nothing else, and one that takes what there is."""
    with Site(tmp_path_factory.mktemp("quic")) as site:
        site.ports["quic"] = free_port()
        start_cloud(site)
        kubectl = next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name)))
        site.apply_crds(kubectl)
        site.kubectl(kubectl, "apply", "-f", "-", stdin=MODEL)
        for node in (NODE, OTHER):
            site.join(node)
        yield site


def start_cloud(site: Site, *, has_quic: bool = True) -> None:
    # An idle edge hears that its hub was killed when it speaks next; over TCP the kernel would have told it. The hub is
    # to be back before the edge gives it up for its silence, two and a half heartbeats later.
    (site.directory / "cloudcore.yaml").write_text("link: {heartbeatSeconds: 4}\n")
    flags = ("--quic-listen", f"127.0.0.1:{site.ports['quic']}") if has_quic else ()
    site.start_cloud(flags=("--config", str(site.directory / "cloudcore.yaml"), *flags))


def start_edge(site: Site, node: str, *, wait: bool = True) -> None:
    """One of them takes nothing but QUIC."""
    wanted = "quic" if node == NODE else "auto"
    site.start_edge(node, wait=wait, flags=("--transport", wanted, "--quic-port", str(site.ports["quic"])))


def carried_by(site: Site, node: str) -> str:
    found = next((each for each in site.ask("cloudcore", "cloud").get("nodes", []) if each["node"] == node), None)
    return str(found["transport"]) if found is not None else ""


def has_imported(site: Site, node: str) -> bool:
    """Whether the process has the QUIC library: its compiled part is mapped."""
    maps = Path(f"/proc/{site.processes[node].pid}/maps").read_text()
    return "/aioquic/" in maps


def test_both_take_quic_where_the_hub_has_it_and_say_so(site: Site) -> None:
    for node in (NODE, OTHER):
        start_edge(site, node)
        assert carried_by(site, node) == "quic"
        assert site.edge_status(node)["transport"] == "quic"
        assert has_imported(site, node)
    figures = site.metrics("cloudcore", "cloud")
    assert figures['hub_nodes_connected_by{transport="quic"}'] == 2
    assert figures['hub_nodes_connected_by{transport="websocket"}'] == 0
    told = site.run("cloudcore", "status", "--data-dir", str(site.directory / "cloud")).stdout
    assert f"quic       127.0.0.1:{site.ports['quic']}" in told
    assert "over quic" in told


def test_a_hub_that_starts_has_quic_before_it_has_tcp(site: Site) -> None:
    """An edge that came between would take the websocket. Both ports are taken, and the first asked for is told."""
    told = site.run(
        *("cloudcore", "run", "--kubeconfig", str(site.kubeconfig), "--data-dir", str(site.directory / "late")),
        *("--listen", f"127.0.0.1:{site.ports['link']}", "--join-listen", f"127.0.0.1:{site.ports['join']}"),
        *("--quic-listen", f"127.0.0.1:{site.ports['quic']}"),
        check=False,
    )
    assert told.returncode
    assert f"the link over QUIC: port {site.ports['quic']} is taken" in told.stderr


def test_killed_on_either_side_everything_is_equal_afterwards(site: Site) -> None:
    async def edit_and_kill() -> None:
        async with ApiClient.from_kubeconfig(site.kubeconfig) as client:
            editor = Editor(client, random.Random(3))
            for number in range(EDITS):
                await editor.edit(number)
                if number == EDITS // 3:
                    site.processes[NODE].kill()
                    start_edge(site, NODE, wait=False)
                if number == 2 * EDITS // 3:
                    site.processes["cloud"].kill()
                    await asyncio.to_thread(start_cloud, site)

    asyncio.run(edit_and_kill())

    def is_quiet() -> bool:
        found = [each for each in site.ask("cloudcore", "cloud").get("nodes", []) if each["node"] == NODE]
        return bool(
            site.ask("edgecore", NODE).get("inSync") and any(each["synced"] and not each["dirty"] for each in found)
        )

    site.until(is_quiet, "the link is up and quiet")
    site.until(lambda: carried_by(site, OTHER) == "quic", "the other one is back, too")
    assert carried_by(site, NODE) == "quic"
    assert "it has restarted" in site.processes[NODE].tail(), "nobody waited until nothing was heard"
    figures = site.metrics("cloudcore", "cloud")
    assert figures["hub_divergences_total"] == figures["hub_healed_total"] == 0
    assert site.processes[NODE].stop() == 0

    async def compare() -> None:
        async with ApiClient.from_kubeconfig(site.kubeconfig) as client:
            wanted = await expected(client)
        found = await held(site.directory / NODE / "edge.db")
        # Status writes go on, of the node whose end is just seen.
        assert {str(key) for key in found} == {str(key) for key in wanted}
        assert len(wanted) > 8

    asyncio.run(compare())


def test_where_the_hub_has_no_quic_the_websocket_serves_and_that_is_remembered(site: Site) -> None:
    assert site.processes["cloud"].stop() == 0
    start_cloud(site, has_quic=False)
    site.until(lambda: carried_by(site, OTHER) == "websocket", "the websocket serves")
    assert site.processes[OTHER].stop() == 0
    log = site.directory / f"{OTHER}.log"
    tried = log.read_text().count("no link over QUIC")
    start_edge(site, OTHER)
    assert carried_by(site, OTHER) == "websocket"
    assert not has_imported(site, OTHER), "what is not used costs no memory"
    assert json.loads((site.directory / OTHER / "link-quic.json").read_bytes())["quicNotBefore"] > 0
    assert log.read_text().count("no link over QUIC") == tried, "it was not tried again"
    start_edge(site, NODE, wait=False)
    site.until(lambda: site.ask("edgecore", NODE).get("problem"), "the other one says why it is not connected")
    assert site.processes[NODE].is_running()
