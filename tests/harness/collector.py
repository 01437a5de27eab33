"""
An HTTP server that takes samples, as a process of its own, and notes each request that it took.

    with Collector(tmp_path) as collector: ... collector.requests()

It is strict where the real ones are: InfluxDB's line protocol is parsed here a second time, by the book and not by our
encoder; a line that breaks it is answered 400, and a wrong token 401.
"""

import json
import re
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.harness.mosquitto import free_port

TOKEN = "right-token"
ROOT = Path(__file__).resolve().parent.parent.parent
_KEY = r"(?:[^\\,= \n]|\\.)+"
_LINE = re.compile(
    rf"(?P<measurement>(?:[^\\, \n]|\\.)+)(?P<tags>(?:,{_KEY}={_KEY})*) (?P<field>{_KEY})="
    r'(?P<value>true|false|-?\d+i|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|"(?:[^"\\]|\\.)*") (?P<time>\d+)',
    re.DOTALL,
)


def parse_lines(text: str) -> list[dict[str, Any]]:
    """Points of a body in line protocol. ValueError if it breaks it."""
    points, at = [], 0
    while at < len(text):
        found = _LINE.match(text, at)
        if found is None:
            raise ValueError(f"no line protocol: {text[at : at + 80]!r}")
        tags = dict(re.findall(rf",({_KEY})=({_KEY})", found["tags"]))
        points.append(
            {
                "measurement": _plain(found["measurement"]),
                "tags": {_plain(key): _plain(value) for key, value in tags.items()},
                "field": _plain(found["field"]),
                "value": _value(found["value"]),
                "time": int(found["time"]),
            }
        )
        at = found.end()
        if at < len(text):
            if text[at] != "\n":
                raise ValueError(f"after a line: {text[at : at + 20]!r}")
            at += 1
    return points


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _value(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"'):
        return _plain(text[1:-1])
    return int(text[:-1]) if text.endswith("i") else float(text)


class Collector:
    """One server process on loopback; kill() and start() keep its port."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._taken = directory / "taken.jsonl"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.collector", str(self.port), str(self._taken)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the collector did not start"

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def requests(self, path: str = "") -> list[dict[str, Any]]:
        """What was answered with yes, oldest first."""
        if not self._taken.exists():
            return []
        lines = self._taken.read_text().splitlines(keepends=True)
        taken = [json.loads(line) for line in lines if line.endswith("\n")]
        return [each for each in taken if each["path"].startswith(path)]

    def until(self, count: int, path: str = "", within_s: float = 20.0) -> list[dict[str, Any]]:
        by = time.monotonic() + within_s
        while len(found := self.requests(path)) < count:
            assert time.monotonic() < by, f"{len(found)} requests of {count}"
            time.sleep(0.02)
        return found

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    taken: Path

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        parts = urlsplit(self.path)
        note: dict[str, Any] = {
            "path": parts.path,
            "query": parse_qs(parts.query),
            "type": self.headers["Content-Type"],
        }
        status, reason = 204, ""
        try:
            if parts.path == "/api/v2/write":
                if self.headers["Authorization"] != f"Token {TOKEN}":
                    status, reason = 401, "unauthorized"
                note["points"] = parse_lines(body)
            elif parts.path == "/v1/metrics":
                note["metrics"] = json.loads(body)["resourceMetrics"]
            elif parts.path == "/moved":
                status = 307
            elif parts.path == "/refuse":
                status, reason = 422, "unprocessable"
            else:
                note["form"] = parse_qs(body, strict_parsing=True)
        except ValueError as exc:
            status, reason = 400, str(exc)
        if status == 204:
            with self.taken.open("a") as file:
                file.write(json.dumps(note) + "\n")
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "/elsewhere")
        answer = reason.encode()
        if status != 204:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if status != 204:
            self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    _Handler.taken = Path(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler)
    print("ready", flush=True)
    server.serve_forever()
