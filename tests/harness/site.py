"""
The whole line as real processes: apiserver, cloudcore, edgecore, mapper; started, stopped and killed by tests.

    with Site(tmp_path) as site:
        site.start_cloud()
        site.join("edge-1")
        site.start_edge("edge-1", mqtt="embedded")
        site.kubectl(binary, "get", "nodes")

Everything listens on free ports of loopback, and nothing is left running.
"""

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from apimachinery.resources import DEVICES
from cloudhub import crds
from componentbase import statusz
from componentbase.errors import CommandError
from tests.harness import forkserver
from tests.harness.forkserver import ROOT as ROOT
from tests.harness.mosquitto import free_port
from tests.harness.rights import hub_kubeconfig

STOP_WITHIN_S = 5.0  # what the commands promise for SIGTERM
READY_WITHIN_S = 30.0


class Process:
    """One command of ours, its log kept."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self._process = forkserver.start(arguments[0], arguments[1:], out=out, error=out, environment=environment)

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code. Fails when it takes longer than is promised."""
        if self.is_running():
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop within {STOP_WITHIN_S} s:\n{self.tail()}") from None

    def wait(self) -> int:
        return self._process.wait(READY_WITHIN_S)

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def rss_kb(self) -> tuple[int, int]:
        """(resident, anonymous) memory in KB."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]), int(fields["RssAnon"].split()[0])


class Site:
    """One cloud and its edges, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kubeconfig = directory / "api" / "kubeconfig"
        self.processes: dict[str, Process] = {}
        self._hub_admin = ""
        self.ports = {name: free_port() for name in ("api", "link", "join")}
        self._token = ""  # for any node, a day long
        environment = {name: text for name, text in os.environ.items() if name != "KUBECONFIG"}
        self.environment = environment | {"HOME": str(directory), "KUBECACHEDIR": str(directory / "kubecache")}

    def __enter__(self) -> Self:
        self.start_api()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(list(self.processes.values())):
            if process.is_running():
                process.kill()
        if kind is not None:
            for process in self.processes.values():
                print(f"---- {process.name}\n{process.tail()}")

    # Processes

    def start(self, name: str, *arguments: str) -> Process:
        process = Process(name, arguments, self.directory / f"{name}.log", self.environment)
        self.processes[name] = process
        return process

    def start_api(self) -> Process:
        process = self.start(
            "api",
            "apiserver.dev",
            "run",
            "--data-dir",
            str(self.directory / "api"),
            "--listen",
            f"127.0.0.1:{self.ports['api']}",
        )
        self.until(lambda: self.kubeconfig.exists() and self._api_answers(), "the apiserver answers", process)
        return process

    def _api_answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.ports["api"]), timeout=1.0).close()
        except OSError:
            return False
        return True

    def hub_kubeconfig(self) -> Path:
        """Of the account that hubs run with, made once for each cluster."""
        admin = self.kubeconfig.read_text()
        if admin != self._hub_admin:
            hub_kubeconfig(self.kubeconfig)
            self._hub_admin = admin
        return self.kubeconfig.with_name("kubeconfig-cloudcore")

    def start_cloud(self, name: str = "cloud", *, flags: Sequence[str] = (), **ports: int) -> Process:
        link, join = ports.get("link", self.ports["link"]), ports.get("join", self.ports["join"])
        process = self.start(
            name,
            "cloudcore",
            "run",
            *("--kubeconfig", str(self.hub_kubeconfig()), "--data-dir", str(self.directory / name)),
            *("--listen", f"127.0.0.1:{link}", "--join-listen", f"127.0.0.1:{join}"),
            *flags,
        )
        self.until(lambda: self.ask("cloudcore", name).get("link"), "cloudcore serves", process)
        return process

    def token(self, *flags: str) -> str:
        return self.run("cloudcore", "token", "create", "--kubeconfig", str(self.kubeconfig), *flags).stdout.strip()

    def join(self, node: str, token: str = "") -> None:
        """With this token, or with one for any node that does not exist."""
        if not token:
            self._token = self._token or self.token()
        self.run(
            "edgecore",
            "join",
            *("--cloud", f"127.0.0.1:{self.ports['join']}", "--token", token or self._token),
            *("--node", node, "--data-dir", str(self.directory / node)),
        )

    def start_edge(self, node: str, *, mqtt: str = "embedded", wait: bool = True, flags: Sequence[str] = ()) -> Process:
        for port in ("api", "mqtt"):
            self.ports.setdefault(f"{node}-{port}", free_port())
        process = self.start(
            node,
            "edgecore",
            "run",
            *("--data-dir", str(self.directory / node), "--mqtt", mqtt),
            *("--mqtt-listen", f"127.0.0.1:{self.ports[f'{node}-mqtt']}"),
            *("--api", f"127.0.0.1:{self.ports[f'{node}-api']}"),
            *flags,
        )
        if wait:
            self.until(lambda: self.ask("edgecore", node).get("inSync"), f"{node} is in sync", process)
        return process

    def edge_status(self, node: str) -> dict[str, Any]:
        return self.status("edgecore", node) or {}

    def status(self, program: str, directory: str) -> dict[str, Any] | None:
        """What `PROGRAM status -o json` prints; None where it fails."""
        answer = self.run(program, "status", "--data-dir", str(self.directory / directory), "-o", "json", check=False)
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def ask(self, program: str, directory: str) -> Mapping[str, Any]:
        """What the status socket says, without the start of a command; {} where nobody answers."""
        try:
            return statusz.ask(self.directory / directory / f"{program}.sock", program)
        except CommandError:
            return {}

    def device(self, name: str, kind: str = "devices") -> dict[str, Any]:
        """What the apiserver has of it, or of what has its name, without the start of a kubectl; {} for nothing."""
        config = json.loads(self.kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        url = f"{cluster['server']}/apis/{DEVICES.api_version}/namespaces/default/{kind}/{name}"
        token = config["users"][0]["user"]["token"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=10, context=context
            ) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code != 404:
                    raise
            return {}

    def metrics(self, program: str, directory: str) -> dict[str, float]:
        """What GET /metrics on its status socket gives: name and labels to figure."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.directory / directory / f"{program}.sock"))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            page = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        lines = [line.rpartition(" ") for line in page.splitlines() if line.startswith(("hub_", "edge_"))]
        assert lines, page
        return {name: float(value) for name, _, value in lines}

    # Commands

    def run(self, *arguments: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """One of our commands to its end."""
        answer = forkserver.run(
            arguments[0], arguments[1:], stdin=stdin, timeout_s=READY_WITHIN_S, environment=self.environment
        )
        assert not check or answer.returncode == 0, f"{arguments}: {answer.stderr}"
        return answer

    def kubectl(
        self, binary: Path, *arguments: str, stdin: str = "", check: bool = True, server: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """A stock kubectl against the cluster, or against `server` with no kubeconfig at all."""
        where = ["--server", server] if server else ["--kubeconfig", str(self.kubeconfig)]
        answer = subprocess.run(
            [str(binary), *where, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environment,
            cwd=ROOT,
            check=False,
        )
        assert not check or answer.returncode == 0, f"kubectl {arguments}: {answer.stderr}"
        return answer

    def local_api(self, node: str) -> str:
        return f"http://127.0.0.1:{self.ports[f'{node}-api']}"

    def apply_crds(self, binary: Path) -> None:
        self.kubectl(binary, "apply", "-f", "-", stdin=crds.text())
        self.kubectl(binary, "wait", "--for=condition=established", "--timeout=30s", "crd", "--all")

    def until(self, condition: Callable[[], object], what: str, process: Process | None = None) -> None:
        """Wait for something that two programs do between them."""
        by = time.monotonic() + READY_WITHIN_S
        while not condition():
            if process is not None and not process.is_running():
                raise AssertionError(f"{process.name} ended before {what}:\n{process.tail()}")
            if time.monotonic() > by:
                logs = "\n".join(f"---- {each.name}\n{each.tail(8)}" for each in self.processes.values())
                raise AssertionError(f"not within {READY_WITHIN_S} s: {what}\n{logs}")
            time.sleep(0.05)
