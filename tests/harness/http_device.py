"""
A device with a web server, good and bad ways included: `python -m tests.harness.http_device PORT [CERT KEY]`.

    /state              JSON: power, level, name, sensors, at
    /set                PUT, POST or PATCH with a JSON object: takes its members into the state; 422 for level > 100
    /relay?turn=on      sets power, as devices do that are set with a GET
    /plain              the level as a plain text
    /private            /state for whoever has the password or the token below
    /requests           JSON: what was asked so far, as "METHOD PATH", and each connection's port once
    /ill/...            what no device should do
"""

import base64
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

USERNAME, PASSWORD, TOKEN = "mapper", "s3cret", "t0ken"

STATE: dict[str, Any] = {
    "power": False,
    "level": 7,
    "name": "lamp",
    "sensors": [{"t": 21.5}, {"t": None}],
    "at": 1_700_000_000,
}
REQUESTS: list[str] = []
CONNECTIONS: set[int] = set()
FOREVER = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._note()
        url = urlsplit(self.path)
        match url.path:
            case "/state":
                self._answer(json.dumps(STATE).encode())
            case "/plain":
                self._answer(f"{STATE['level']}\n".encode(), kind="text/plain")
            case "/relay":
                STATE["power"] = parse_qs(url.query)["turn"] == ["on"]
                self._answer(b"{}")
            case "/private":
                pair = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
                known = self.headers["Authorization"] in (f"Basic {pair}", f"Bearer {TOKEN}")
                self._answer(json.dumps(STATE).encode() if known else b"who are you", 200 if known else 401)
            case "/requests":
                self._answer(json.dumps({"asked": REQUESTS, "connections": len(CONNECTIONS)}).encode())
            case path if path.startswith("/ill/"):
                self._misbehave(path.removeprefix("/ill/"))
            case _:
                self._answer(b"no such page", 404)

    def do_PUT(self) -> None:
        self._note()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/ill/move":
            self._answer(b"", 308, location="/set")
        elif self.path != "/set":
            self._answer(b"no such page", 404)
        elif (said := json.loads(body)).get("level", 0) > 100:
            self._answer(b"too bright", 422)
        else:
            STATE.update(said)
            self._answer(b"")

    do_POST = do_PATCH = do_PUT

    def _note(self) -> None:
        if self.path != "/requests":
            REQUESTS.append(f"{self.command} {self.path}")
            CONNECTIONS.add(self.client_address[1])

    def _answer(self, body: bytes, status: int = 200, *, kind: str = "application/json", location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def _misbehave(self, how: str) -> None:
        match how:
            case "silent":
                FOREVER.wait()
            case "drip":  # a byte now and then, for ever: a timeout for each read never fires
                self.send_response(200)
                self.end_headers()
                while not FOREVER.wait(0.02):
                    self.wfile.write(b" ")
            case "big":  # says so, and would send it
                self.send_response(200)
                self.send_header("Content-Length", str(10**9))
                self.end_headers()
                self.wfile.write(b" " * 100)
            case "endless":  # does not say so
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while True:
                    self.wfile.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
            case "long-head":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000)
            case "no-http":
                self.wfile.write(b"220 ready\r\n")
            case "short":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}")
            case "closed":
                pass
            case "hang-up-later":  # says that it keeps the connection, and does not
                self._answer(json.dumps(STATE).encode())
            case "old":
                self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(STATE).encode())
            case "moved":
                self._answer(b"", 302, location="/state")
                return
            case "moved-away":
                self._answer(b"", 302, location="http://127.0.0.2:9/state?token=t0ken")
            case "moved-in-a-circle":
                self._answer(b"", 302, location="/ill/moved-in-a-circle")
                return
            case "broken":
                self._answer(b"oh no", 503)
                return
            case "no-json":
                self._answer(b"<html>")
                return
        self.close_connection = True


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what half of the tests are about."""


def main() -> None:
    port, *files = sys.argv[1:]
    server = Quiet(("127.0.0.1", int(port)), Handler)
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(f"ready {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
