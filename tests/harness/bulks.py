"""
A large ConfigMap that changes again and again, from a process of its own: what making it costs delays no measurement.

    python -m tests.harness.bulks APISERVER_PORT KUBECONFIG PATH BYTES PAUSE_S

    begin           from now on: PATCH, wait for the answer, a pause of PAUSE_S, and again
    stop            no more after the one under way
    stats           {"sent": how many were answered}

Each command is answered as stats is. The text is base64 of random bytes, one of a few that are made before the first.
Ends with its standard input.
"""

import base64
import itertools
import json
import random
import sys
import threading
from pathlib import Path

from tests.harness.plainapi import Api

KINDS = 3


class Bulks:
    """The changes, in a thread."""

    def __init__(self, api: Api, path: str, size: int, pause_s: float) -> None:
        self.sent = 0
        self._api, self._path, self._pause_s = api, path, pause_s
        rng = random.Random(1)
        texts = (base64.b64encode(rng.randbytes(size * 3 // 4)).decode() for _ in range(KINDS))
        self._bodies = itertools.cycle([json.dumps({"data": {"text": text}}).encode() for text in texts])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bulks", daemon=True)
        self._problem: Exception | None = None

    def begin(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def stats(self) -> dict[str, int]:
        """Raises what a change failed with."""
        if self._problem is not None:
            raise self._problem
        return {"sent": self.sent}

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._api.send("PATCH", self._path, next(self._bodies))
                self.sent += 1
                self._stop.wait(self._pause_s)
        except Exception as problem:  # told with the next answer
            self._problem = problem


def main() -> None:
    port, kubeconfig, path, size, pause_s = sys.argv[1:]
    bulks = Bulks(Api.as_admin(Path(kubeconfig), int(port)), path, int(size), float(pause_s))
    for line in sys.stdin:
        match line.strip():
            case "begin":
                bulks.begin()
            case "stop":
                bulks.stop()
        print(json.dumps(bulks.stats()), flush=True)


if __name__ == "__main__":
    main()
