"""
An operator written with kopf lives on a node: while the cloud is cut off, over a restart of itself and of the node
meanwhile, and when the cloud is back. It misses nothing and is told nothing twice.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import seeds
from tests.conformance.contract import POD, WIDGET
from tests.conformance.runs import AtEdge, create
from tests.conformance.seeds import NODE
from tests.conftest import need_tool
from tests.harness.site import ROOT, STOP_WITHIN_S, Site

SHOP = "shop"
FLAGS = ("--api-tls",)
CUT_S = 3.0


class Operator:
    """`kopf run`, and what its handlers were told in all its lives."""

    def __init__(self, site: Site, way: AtEdge) -> None:
        self._site = site
        self._log = site.directory / "operator.jsonl"
        self.said = site.directory / "operator.log"
        self._environment = site.environment | {
            "KUBECONFIG": str(way.kubeconfig),
            "OPERATOR_LOG": str(self._log),
            "PYTHONPATH": str(ROOT),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        lives = self.told("started")
        script = Path(__file__).parent / "clients" / "kopfoperator.py"
        with self.said.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kopf", "run", "--standalone", "-n", SHOP, str(script)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self._environment,
                cwd=self._site.directory,
            )
        self._site.until(lambda: len(self.told("started")) > len(lives), "the operator has started")

    def stop(self) -> None:
        """SIGTERM, as when its pod is replaced."""
        assert self._process is not None, "it was started"
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_WITHIN_S * 2)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def told(self, *what: str) -> list[list[Any]]:
        """The lines of these kinds, in order."""
        text = self._log.read_text() if self._log.exists() else ""
        return [line for line in map(json.loads, text.splitlines()) if line[0] in what]


class Scene:
    """The site, the operator, and what people do in the cloud and on the node."""

    def __init__(self, site: Site) -> None:
        self.site = site
        create(site, [seeds.DEFINITION])
        create(site, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}}, *seeds.operator()])
        spec = {"nodeName": NODE, "containers": [{"name": "main", "image": "main:1"}]}
        create(site, [POD.body("desk", metadata={"namespace": SHOP}, spec=spec)])
        site.start_cloud()
        site.join(NODE)
        site.start_edge(NODE, flags=FLAGS)
        self.way = AtEdge(site)
        self.operator = Operator(site, self.way)
        self._asked = 0

    def kubectl(self, *arguments: str) -> str:
        return self.site.kubectl(need_tool("kubectl-current"), "-n", SHOP, *arguments).stdout

    def make(self, *names: str) -> None:
        create(self.site, [WIDGET.body(name, metadata={"namespace": SHOP}, spec={"size": 1}) for name in names])

    def resize(self, name: str, size: int) -> None:
        self.kubectl("patch", "widget", name, "--type=merge", "-p", json.dumps({"spec": {"size": size}}))

    def ask(self) -> None:
        """Somebody on the node asks; the operator answers, by the node's API alone."""
        self._asked += 1
        path = POD.path(SHOP, "desk")
        self.way.ask("PATCH", f"{path}/status", {"status": {"message": f"ask {self._asked}"}})
        self.site.until(
            lambda: self.way.ask("GET", path)["status"].get("reason") == f"answer {self._asked}", "the operator answers"
        )

    @property
    def questions(self) -> list[list[Any]]:
        return [["asked", "desk", f"ask {number + 1}"] for number in range(self._asked)]

    def cut(self) -> None:
        self.site.processes["cloud"].kill()
        self.site.until(lambda: not self.site.ask("edgecore", NODE).get("connected"), "the link is lost")

    def restart_node(self) -> None:
        self.site.processes[NODE].kill()
        process = self.site.start_edge(NODE, wait=False, flags=FLAGS)
        self.site.until(lambda: self.site.ask("edgecore", NODE).get("api"), "edgecore serves", process)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Site(tmp_path) as site:
        made = Scene(site)
        try:
            yield made
        finally:
            made.operator.kill()
            print(made.operator.said.read_text()[-6000:] if made.operator.said.exists() else "")


@pytest.mark.timeout(180)
def test_an_operator_lives_through_a_cut(scene: Scene) -> None:
    live_through_a_cut(scene, CUT_S)


@pytest.mark.soak
def test_an_operator_lives_through_a_minute_without_the_cloud(scene: Scene) -> None:
    live_through_a_cut(scene, 60.0)


def live_through_a_cut(scene: Scene, cut_s: float) -> None:
    site, operator = scene.site, scene.operator
    scene.make("a", "b")
    operator.start()
    site.until(lambda: len(operator.told("created")) == 2, "the operator has the widgets")
    scene.resize("a", 2)
    site.until(lambda: operator.told("updated"), "the operator sees the change")
    wait_for(scene, "a", "of size 2")
    wait_for(scene, "b", "of size 1")
    scene.ask()

    scene.cut()
    scene.resize("a", 3)
    scene.make("c")
    scene.kubectl("delete", "widget", "b", "--wait=false")
    began = time.monotonic()
    while time.monotonic() - began < cut_s:
        scene.ask()
        time.sleep(0.05)
    operator.stop()
    operator.start()
    site.until(lambda: len(operator.told("resumed")) == 2, "the operator takes up what there is")
    scene.ask()
    scene.restart_node()
    scene.ask()
    before = sorted(operator.told("created", "updated", "deleted"))
    assert before == [["created", "a", 1], ["created", "b", 1], ["updated", "a", 1, 2]], (
        "nothing is told again, and of the cloud's changes nothing can be known yet"
    )

    site.start_cloud()
    site.until(lambda: len(operator.told("created", "updated", "deleted")) == 6, "the operator catches up")
    wait_for(scene, "a", "of size 3")
    wait_for(scene, "c", "of size 1")
    site.until(lambda: "widget.example.com/b" not in scene.kubectl("get", "widgets", "-o", "name"), "b is gone")
    scene.ask()
    answer = scene.questions[-1][2].replace("ask", "answer")
    reason = ("get", "pod", "desk", "-o", "jsonpath={.status.reason}")
    site.until(lambda: scene.kubectl(*reason) == answer, "the cloud has the last answer")

    operator.stop()
    assert sorted(operator.told("created")) == [["created", "a", 1], ["created", "b", 1], ["created", "c", 1]]
    assert operator.told("updated") == [["updated", "a", 1, 2], ["updated", "a", 2, 3]]
    assert operator.told("deleted") == [["deleted", "b"]]
    assert sorted(operator.told("resumed")) == [["resumed", "a", 2], ["resumed", "b", 1]]
    assert "not connected to the cloud" not in operator.said.read_text(), "nothing that it needs was refused"
    assert operator.told("asked") == scene.questions, "each question once, in order"


def wait_for(scene: Scene, name: str, phase: str) -> None:
    """Until the cloud has what the operator wrote."""
    arguments = ("get", "widget", name, "-o", "jsonpath={.status.phase}")
    scene.site.until(lambda: scene.kubectl(*arguments) == phase, f"{name} is {phase}")
