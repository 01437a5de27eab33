"""Hollow nodes against a real cloudcore: in sync, changes taken, a hub killed and found again, and who cannot join."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KUBECTLS, find_tool
from tests.harness.site import ROOT, Site

NODES = 12
MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: shared, namespace: default}}
data: {{value: "{value}"}}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: pod-{number}, namespace: default}}
spec:
  nodeName: hollow-{number}
  containers: [{{name: c, image: x}}]
  volumes: [{{name: v, configMap: {{name: shared}}}}]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("swarm")) as made:
        made.start_cloud()
        yield made


def swarm(site: Site, *flags: str) -> list[str]:
    home = str(site.directory / "swarm")
    return [sys.executable, "-m", "edgecore", "swarm", "--nodes", str(NODES), "--data-dir", home, *flags]


def test_a_swarm_is_in_sync_takes_changes_and_finds_a_hub_that_was_killed(site: Site) -> None:
    kubectl = next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name)))
    pods = "---".join(POD.format(number=number) for number in range(NODES))
    site.kubectl(kubectl, "create", "-f", "-", stdin=f"{MAP.format(value=0)}---{pods}")
    joining = ("--cloud", f"127.0.0.1:{site.ports['join']}", "--token", site.token())
    process = subprocess.Popen(swarm(site, *joining), stdout=subprocess.PIPE, text=True, env=site.environment, cwd=ROOT)
    assert process.stdout is not None

    def says(words: str) -> str:
        assert process.stdout is not None
        for line in process.stdout:
            if words in line:
                return line
        raise AssertionError(f"it ended without {words!r}")

    try:
        assert says("have joined") == f"{NODES} of {NODES} have joined\n"
        says(f"{NODES} connected, {NODES} in sync")
        site.kubectl(kubectl, "apply", "-f", "-", stdin=MAP.format(value=1))
        site.until(lambda: site.metrics("cloudcore", "cloud")["hub_patches_total"] >= NODES, "all were told the change")
        site.processes["cloud"].kill()
        says("0 connected")
        site.kubectl(kubectl, "apply", "-f", "-", stdin=MAP.format(value=2))
        site.start_cloud()
        says(f"{NODES} connected, {NODES} in sync")
        nodes = site.ask("cloudcore", "cloud")["nodes"]
        assert sum(each["synced"] for each in nodes if each["node"].startswith("hollow-")) == NODES, nodes
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert f"{NODES} nodes, in sync: all after" in said
    assert " 0 refused" in said


def test_nodes_that_have_not_joined_need_a_token(site: Site, tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "edgecore", "swarm", "--nodes", "2", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        env=site.environment,
        cwd=ROOT,
        check=False,
    )
    assert answer.returncode == 1
    assert "2 of the nodes have not joined yet: give --cloud and --token" in answer.stderr
