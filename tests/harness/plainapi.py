"""An apiserver, or a node's local API, over one kept-alive connection of http.client: little between a test and it."""

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.harness.watchreader import wake_reader, watched

WITHIN_S = 60.0


class Api:
    """One connection; one request at a time, or a watch."""

    def __init__(self, connection: http.client.HTTPConnection, token: str = "") -> None:
        self._connection = connection
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @classmethod
    def as_admin(cls, kubeconfig: Path, port: int) -> Self:
        """To the apiserver of this kubeconfig, at this port of the machine's own."""
        config = json.loads(kubeconfig.read_text())
        authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=WITHIN_S, context=context)
        return cls(connection, config["users"][0]["user"]["token"])

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Raises AssertionError for any answer but success."""
        value: dict[str, Any] = json.loads(self.send(method, path, None if body is None else json.dumps(body)))
        return value

    def send(self, method: str, path: str, content: str | bytes | None) -> bytes:
        """As ask(), of what is JSON already; the answer as it came."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        self._connection.request(method, path, content, {**self._headers, "Content-Type": kind})
        answer = self._connection.getresponse()
        told = answer.read()
        assert answer.status in (200, 201), told[:500]
        return told

    def lines(self, path: str) -> Iterator[tuple[float, bytes]]:
        """Lines of a watch, and when they came."""
        return watched(self._connection, path, self._headers)

    def close(self) -> None:
        wake_reader(self._connection)
        self._connection.close()
