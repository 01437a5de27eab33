"""
Asking a running process how it stands, over the socket file in its data directory.

Both cores serve GET /statusz there (the name is Kubernetes' own for such pages), GET /metrics and what their
commands ask of them; only whoever may read the directory can.
"""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from componentbase.errors import CommandError

TIMEOUT_S = 5.0
MAX_BYTES = 16 << 20


def ask(path: Path, prog: str, request: str = "GET /statusz") -> Mapping[str, Any]:
    """What the process answers, a JSON object. Raises CommandError, which says whether it is not running."""
    status, body = fetch(path, prog, request)
    try:
        facts = json.loads(body)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise CommandError(f"{prog} gave no answer that can be read on {path}: HTTP {status}")
    if status != 200:
        raise CommandError(f"{prog} refuses: {facts.get('message') or f'HTTP {status}'}")
    return facts


def fetch(path: Path, prog: str, request: str, timeout_s: float = TIMEOUT_S) -> tuple[int, bytes]:
    """The answer's status and body. Raises CommandError where there is none."""
    # Here and not at the top: with what it brings it would cost a running core 1.5 MB, and they never ask.
    import http.client

    method, _, target = request.partition(" ")
    connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(timeout_s)
    try:
        connection.sock.connect(str(path))
        connection.request(method, target)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BYTES)
    except (FileNotFoundError, ConnectionRefusedError):
        raise CommandError(f"{prog} is not running with {path.parent}: start it with `{prog} run`") from None
    except (OSError, http.client.HTTPException) as exc:
        raise CommandError(f"{prog} does not answer on {path}: {exc}") from exc
    finally:
        connection.close()
