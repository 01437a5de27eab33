"""
Secrets on the whole line: real processes at their most talkative, errors on the way, and then every file is searched.

What the apiserver keeps is the apiserver's matter; everything that cloudcore and edgecore wrote, printed or answered
beside the objects themselves must have no value of a Secret in it.
"""

import base64
import json
import secrets
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import KUBECTLS, find_tool
from tests.harness.site import Site

NODE = "edge-1"
DEBUG = ("--log-level", "debug")
FIRST, SECOND, OVERSIZED, MALFORMED, OFFLINE = VALUES = [secrets.token_hex(16) for _ in range(5)]
PATH = "/api/v1/namespaces/default/secrets"
POD = f"""
apiVersion: v1
kind: Pod
metadata: {{name: app, namespace: default}}
spec:
  nodeName: {NODE}
  containers:
  - {{name: app, image: app, envFrom: [{{secretRef: {{name: password}}}}]}}
"""


def secret(value: str, name: str = "password") -> str:
    """Through a merge patch or as a whole, the value in base64 as in any Secret."""
    data = {"password": base64.b64encode(value.encode()).decode()}
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data})


class Line(Site):
    """A node with a Pod that uses a Secret."""

    def cluster(self, *arguments: str, stdin: str = "") -> str:
        binary = next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name)))
        return self.kubectl(binary, *arguments, stdin=stdin).stdout

    def local(self, method: str, path: str, content: str = "", media_type: str = "application/json") -> tuple[int, Any]:
        """(status, body) of the node's own API; 0 where nobody listens."""
        data = content.encode() if content else None
        request = urllib.request.Request(self.local_api(NODE) + path, data, {"Content-Type": media_type}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.load(refused)
        except urllib.error.URLError:
            return 0, {}

    def password(self) -> str:
        """As a program on the node reads it; "" for whatever is no success."""
        status, found = self.local("GET", f"{PATH}/password")
        return base64.b64decode(found["data"]["password"]).decode() if status == 200 else ""

    def holds(self, value: str) -> None:
        self.until(lambda: self.password() == value, "the Secret is here")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with Line(tmp_path_factory.mktemp("site")) as line:
        line.start_cloud(flags=DEBUG)
        line.join(NODE)
        line.cluster("apply", "-f", "-", stdin=f"{POD}---\n{secret(FIRST)}")
        line.start_edge(NODE, flags=DEBUG)
        line.holds(FIRST)
        yield line


def needles() -> list[bytes]:
    """The values, and what base64 makes of them, whatever stands before."""
    found = []
    for value in VALUES:
        found += [value.encode(), *(base64.b64encode(b"x" * n + value.encode())[4:-4] for n in range(3))]
    return found


def leaks(directory: Path) -> list[str]:
    """Files of cloudcore and edgecore in which a value stands."""
    files = [path for path in directory.rglob("*") if path.is_file() and "api" not in path.relative_to(directory).parts]
    assert {"cloud.log", f"{NODE}.log", "edge.db"} <= {path.name for path in files}
    return [str(path) for path in files if any(needle in path.read_bytes() for needle in needles())]


@pytest.mark.timeout(120)
def test_no_log_status_metric_error_or_file_has_a_value_whatever_goes_wrong(line: Line) -> None:
    # An edit that travels as a difference; a write through the node; three that are refused on the way.
    line.cluster("patch", "secret", "password", "--type", "merge", "-p", secret(SECOND))
    line.holds(SECOND)
    answers = [
        line.local("POST", PATH, secret(OVERSIZED * 110_000, "large")),
        line.local("POST", PATH, secret("").replace('"password": ""', f'"password": "!{MALFORMED}"')),
        line.local("PUT", f"{PATH}/other", secret(MALFORMED, "another")),
        line.local("POST", PATH, f"{{{MALFORMED}"),
        line.local("PATCH", f"{PATH}/password", f'["{MALFORMED}"]', "application/merge-patch+json"),
    ]
    assert [status // 100 for status, _ in answers] == [4] * len(answers), answers
    assert answers[0][0] == 413
    line.processes["cloud"].kill()
    line.until(lambda: line.ask("edgecore", NODE).get("connected") is False, "the cloud is gone")
    status, refusal = line.local("PUT", f"{PATH}/password", secret(OFFLINE))
    assert status == 503
    assert OFFLINE not in str(refusal)
    assert line.password() == SECOND, "what is held is served"
    line.processes[NODE].kill()  # in the middle of its log
    line.start_edge(NODE, wait=False, flags=DEBUG)
    line.until(line.password, "edgecore is back, and its store opens")
    line.start_cloud(flags=DEBUG)
    line.until(lambda: line.ask("edgecore", NODE).get("inSync"), "in sync")
    said = [
        line.run(program, "status", "--data-dir", str(line.directory / where), "-o", output).stdout
        for program, where in (("edgecore", NODE), ("cloudcore", "cloud"))
        for output in ("text", "json")
    ]
    said += [str(line.metrics(program, where)) for program, where in (("edgecore", NODE), ("cloudcore", "cloud"))]
    assert not [text for text in said if any(needle.decode() in text for needle in needles())]
    assert leaks(line.directory) == []


@pytest.mark.timeout(120)
def test_a_lost_key_costs_a_question_to_the_hub_and_nothing_else(line: Line) -> None:
    def restart(*, connected: bool) -> None:
        line.start_edge(NODE, wait=connected, flags=DEBUG)
        line.until(lambda: line.ask("edgecore", NODE).get("api"), "edgecore serves")

    line.holds(SECOND)
    line.processes[NODE].stop()
    line.processes["cloud"].stop()
    key = line.directory / f"{NODE}.secrets-key"
    key.unlink()
    restart(connected=False)
    assert line.edge_status(NODE)["secretsLost"] == 1
    status, refusal = line.local("GET", f"{PATH}/password")
    assert (status, "the key that it was sealed with is gone" in refusal["message"]) == (503, True)
    assert line.local("GET", PATH)[0] == 503, "a list that is not whole is not given"
    assert line.local("GET", "/api/v1/namespaces/default/pods/app")[0] == 200
    line.start_cloud(flags=DEBUG)
    line.holds(SECOND)
    assert line.edge_status(NODE)["secretsLost"] == 0
    assert line.metrics("cloudcore", "cloud")["hub_divergences_total"] == 0

    # A new key by command, and the same Secret without the cloud.
    line.processes["cloud"].stop()
    rotate = ("edgecore", "rotate-secrets-key", "--data-dir", str(line.directory / NODE))
    refused = line.run(*rotate, check=False)
    assert (refused.returncode, "in use by process" in refused.stderr) == (1, True)
    line.processes[NODE].stop()
    former = key.read_text()
    assert str(key) in line.run(*rotate).stdout
    assert key.read_text() != former
    restart(connected=False)
    assert line.password() == SECOND
    assert leaks(line.directory) == []
    content = sqlite3.connect(line.directory / NODE / "edge.db")
    assert content.execute("SELECT count(*) FROM objects WHERE name = 'password'").fetchone() == (1,)
    content.close()


@pytest.mark.timeout(60)
def test_purge_takes_everything_once_edgecore_is_stopped(line: Line) -> None:
    home = line.directory / NODE
    command = ("edgecore", "purge", "--data-dir", str(home))
    refused = line.run(*command, "--yes", check=False)
    assert (refused.returncode, "in use by process" in refused.stderr) == (1, True)
    assert "stop that one first" in line.run(*command, "--dry-run").stdout
    line.processes[NODE].kill()
    others = {"notes.txt", "pki/broker.key"}
    for name in others:
        (home / name).write_text("an operator's")
    dry = line.run(*command, "--dry-run").stdout
    asked = line.run(*command, check=False)
    assert (asked.returncode, "say --yes" in asked.stderr) == (1, True)
    key = line.directory / f"{NODE}.secrets-key"
    for path in (key, home / "edge.db", home / "pki" / "edge.key", home / "edgecore.yaml"):
        assert path.exists()
        assert str(path) in dry
    done = line.run(*command, "--yes").stdout
    assert f"kubectl delete node {NODE}" in done
    assert {path.relative_to(home).as_posix() for path in home.rglob("*")} == {*others, "pki"}
    assert not key.exists()
    again = line.run(*command, "--yes", check=False)
    assert (again.returncode, "not a node's directory" in again.stderr) == (1, True)
