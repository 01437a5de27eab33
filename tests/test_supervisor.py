"""Two workers under a supervisor, real processes with real nodes: told as one hub, started again, ended together."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudhub import supervisor, worker
from cloudhub.settings import CloudConfig
from tests.harness.mosquitto import free_port
from tests.harness.site import READY_WITHIN_S, ROOT, STOP_WITHIN_S, Process, Site

pytestmark = pytest.mark.timeout(120)  # sixteen nodes join one after another, on two busy cores

NODES = 16  # all of them with one of two workers: once in 33,000 runs
CLOUD = "cloudcore"


class Workers(Site):
    """A cloud of two workers; its ports are kept over restarts."""

    def start_workers(self) -> Process:
        config = self.directory / "cloud.yaml"
        self.ports.setdefault("metrics", free_port())
        config.write_text(f"workers: 2\nmetrics: 127.0.0.1:{self.ports['metrics']}\n")
        cloud = self.start_cloud(flags=("--config", str(config)))
        self.until(lambda: all(each["serving"] for each in self.workers()), "all workers serve", cloud)
        return cloud

    def workers(self) -> list[dict[str, Any]]:
        return list(self.ask(CLOUD, "cloud").get("workers", [{"serving": False}]))

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {each["node"]: each for each in self.ask(CLOUD, "cloud").get("nodes", ())}

    def all_in_sync(self) -> bool:
        nodes = self.nodes()
        return len(nodes) == NODES and all(each["connected"] and each["synced"] for each in nodes.values())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """With a swarm of nodes that dial until they are in."""
    with Workers(tmp_path_factory.mktemp("workers")) as made:
        made.start_workers()
        joining = ("--cloud", f"127.0.0.1:{made.ports['join']}", "--token", made.token())
        home = ("--data-dir", str(made.directory / "swarm"))
        swarm = made.start("swarm", "edgecore", "swarm", "--nodes", str(NODES), *home, *joining)
        made.until(made.all_in_sync, "the nodes are in sync", swarm)
        yield made


@pytest.fixture
def cloud(site: Workers) -> Process:
    """Its supervisor, with all nodes in sync."""
    cloud = site.processes["cloud"]
    if not cloud.is_running():
        cloud = site.start_workers()
    site.until(site.all_in_sync, "the nodes are in sync", cloud)
    return cloud


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_status_is_that_of_all_workers(site: Workers, cloud: Process) -> None:
    workers = site.workers()
    assert sum(each["nodes"] for each in workers) == NODES
    assert all(each["nodes"] for each in workers), "the kernel spreads connections"
    assert {each["worker"] for each in site.nodes().values()} == {1, 2}
    lines: list[str] = []

    def all_are_told() -> bool:
        lines[:] = site.run(CLOUD, "status", "--data-dir", str(site.directory / "cloud")).stdout.splitlines()
        return f"nodes      {NODES} connected, {NODES} in sync" in lines

    site.until(
        all_are_told, "it is told that all are in sync, which a Node that became ready is not for a moment", cloud
    )
    counts = "; ".join(f"{each['worker']}: {each['nodes']} nodes" for each in workers)
    assert f"workers    {counts}" in lines
    assert len([line for line in lines if line.startswith("  hollow-")]) == NODES


def test_figures_are_each_workers_with_its_number(site: Workers, cloud: Process) -> None:
    figures = site.metrics(CLOUD, "cloud")
    connected = [figures[f'hub_nodes_connected{{worker="{number}"}}'] for number in (1, 2)]
    assert connected == [each["nodes"] for each in site.workers()]
    assert [figures[f'hub_worker_up{{worker="{number}"}}'] for number in (1, 2)] == [1, 1]
    url = f"http://127.0.0.1:{site.ports['metrics']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    names = [line.split(" ")[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names)), "each name in one place, as the format demands"
    assert "hub_nodes_connected" in names


def test_resync_compares_a_node_whichever_worker_it_comes_back_to(site: Workers, cloud: Process) -> None:
    for number in (1, 2):
        node = next(name for name, each in site.nodes().items() if each["worker"] == number)
        told = site.run(CLOUD, "resync", node, "--data-dir", str(site.directory / "cloud")).stdout
        assert told == f"what {node} holds is compared now\n"
        surveyed = f"session opened node={node} "
        site.until(
            lambda surveyed=surveyed: any(  # type: ignore[misc]
                surveyed in line and "verdict=survey" in line for line in cloud.log.read_text().splitlines()
            ),
            "it is asked for what it holds",
            cloud,
        )
    answer = site.run(CLOUD, "resync", "nobody", "--data-dir", str(site.directory / "cloud"), check=False)
    assert (answer.returncode, 'no node "nobody" has been here lately' in answer.stderr) == (1, True)


def test_a_worker_that_is_killed_is_started_again_and_the_other_one_goes_on(site: Workers, cloud: Process) -> None:
    before = site.workers()
    stayed = {name for name, each in site.nodes().items() if each["worker"] == 2}
    os.kill(before[0]["pid"], signal.SIGKILL)
    site.until(lambda: site.workers()[0]["starts"] == before[0]["starts"] + 1, "it is started again", cloud)
    site.until(lambda: site.workers()[0]["serving"], "it serves again", cloud)
    site.until(site.all_in_sync, "all nodes are back", cloud)
    after = site.workers()
    assert after[1]["pid"] == before[1]["pid"]
    log = cloud.log.read_text()
    assert not [name for name in stayed if f"session ended node={name} " in log.partition("worker ended")[2]]
    assert log.count(" cloudhub.supervisor serving ") == 1
    assert "worker ended, starting it again worker=1 ended=SIGKILL" in log
    assert " worker serves again worker=1" in log


def test_nobody_else_gets_the_port_by_mistake(site: Workers, cloud: Process, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        answer = site.run(
            *(CLOUD, "run", "--workers", workers, "--kubeconfig", str(site.kubeconfig)),
            *("--data-dir", str(tmp_path / workers), "--join-listen", "127.0.0.1:0"),
            *("--listen", f"127.0.0.1:{site.ports['link']}"),
            check=False,
        )
        assert answer.returncode == 1
        last = answer.stderr.splitlines()[-1]
        assert f"the link: port {site.ports['link']} is taken" in last
        assert last.endswith("choose another with --listen")


def test_each_worker_has_its_own_directory_in_that_of_all(site: Workers, cloud: Process) -> None:
    for number in (1, 2):
        own = worker.data_dir(site.directory / "cloud", number)
        told = site.run(CLOUD, "status", "--data-dir", str(own)).stdout
        assert f"link       127.0.0.1:{site.ports['link']}" in told


def test_a_hangup_makes_all_workers_look_at_their_certificates(site: Workers, cloud: Process) -> None:
    def made() -> int:
        return cloud.log.read_text().count("server certificate made")

    before = made()
    os.kill(cloud.pid, signal.SIGHUP)
    site.until(lambda: made() == before + len(site.workers()), "each has another one", cloud)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_supervisor(number: signal.Signals, site: Workers, cloud: Process) -> None:
    pids = [each["pid"] for each in site.workers()]
    assert all(map(is_alive, pids))
    os.kill(cloud.pid, number)
    code = cloud.wait()
    by = time.monotonic() + STOP_WITHIN_S
    while any(map(is_alive, pids)):
        assert time.monotonic() < by, "a worker lives on"
        time.sleep(0.02)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)


STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"link": "none"}', flush=True)
sys.stdin.read()
time.sleep(60)
"""
RAVING = """
import os, pathlib, sys
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
print("no JSON", flush=True)
sys.stdin.read()
"""


async def test_a_worker_that_does_not_stop_is_killed_when_its_supervisor_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_S", 0.3)
    settings = CloudConfig(workers=2)
    supervising = supervisor.Supervisor(settings, tmp_path, [sys.executable, "-c", STUBBORN])
    running = asyncio.create_task(supervising.run(), name="supervisor")
    async with asyncio.timeout(READY_WITHIN_S):
        while not supervising._have_all_served():
            await asyncio.sleep(0.02)
    pids = [child.pid for child in supervising._children]
    assert all(map(is_alive, pids))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(map(is_alive, pids))


async def test_a_worker_that_nobody_understands_is_no_process_that_is_left_behind(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    command = [sys.executable, "-c", RAVING, str(noted)]
    async with asyncio.timeout(READY_WITHIN_S):
        with pytest.raises(ExceptionGroup):
            await supervisor.Supervisor(CloudConfig(workers=1), tmp_path, command).run()
    assert not is_alive(int(noted.read_text()))


def test_workers_that_cannot_begin_end_the_command(site: Workers, tmp_path: Path) -> None:
    with subprocess.Popen(
        [
            *(sys.executable, "-m", CLOUD, "run", "--workers", "2", "--kubeconfig", str(tmp_path / "none")),
            *("--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--join-listen", "127.0.0.1:0"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=site.environment,
        cwd=ROOT,
    ) as process:
        _, told = process.communicate(timeout=READY_WITHIN_S)
    assert process.returncode == 1
    assert f"cloudcore: error: {tmp_path / 'none'}: there is no such kubeconfig" in told
    assert "ended before it served: exit code 1; its log says why" in told
