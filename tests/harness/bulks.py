"""
A large ConfigMap that changes again and again, from a process of its own: what making it costs delays no measurement.

    python -m tests.harness.bulks APISERVER_PORT KUBECONFIG NAMESPACE NAME BYTES EDGE_DATABASE

    begin           from now on: PATCH, wait until the edge has committed it, and again: one is always on its way
    stop            no more after the one under way
    stats           {"held": how many the edge has committed}

Each command is answered as stats is. The text is base64 of random bytes, one of a few that are made before the first.
The edge's database is looked into, for a read of 3 MB at its local API would be a load of its own. Ends with its
standard input.
"""

import base64
import contextlib
import itertools
import json
import random
import sqlite3
import sys
import threading
from pathlib import Path

from tests.harness.plainapi import Api

KINDS = 3
LOOK_S = 0.02
VERSION = "SELECT version FROM objects WHERE namespace = ? AND name = ?"


class Bulks:
    """The changes, in a thread."""

    def __init__(self, api: Api, namespace: str, name: str, size: int, database: Path) -> None:
        self.held = 0
        self._api, self._namespace, self._name = api, namespace, name
        self._database = database
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
        return {"held": self.held}

    def _run(self) -> None:
        place = (self._namespace, self._name)
        path = "/api/v1/namespaces/{}/configmaps/{}".format(*place)
        try:
            with contextlib.closing(sqlite3.connect(f"{self._database.as_uri()}?mode=ro", uri=True)) as database:
                while not self._stop.is_set():
                    before = database.execute(VERSION, place).fetchone()
                    self._api.send("PATCH", path, next(self._bodies))
                    while database.execute(VERSION, place).fetchone() == before:
                        if self._stop.wait(LOOK_S):
                            return
                    self.held += 1
        except Exception as problem:  # told with the next answer
            self._problem = problem


def main() -> None:
    port, kubeconfig, namespace, name, size, database = sys.argv[1:]
    bulks = Bulks(Api.as_admin(Path(kubeconfig), int(port)), namespace, name, int(size), Path(database))
    for line in sys.stdin:
        match line.strip():
            case "begin":
                bulks.begin()
            case "stop":
                bulks.stop()
        print(json.dumps(bulks.stats()), flush=True)


if __name__ == "__main__":
    main()
