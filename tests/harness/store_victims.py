"""
Processes that write to a store until they are killed, made fast enough to kill thousands of them.

This program imports the store once, and then forks a child for each line on its standard input, lets it work for the
time given, SIGKILLs it, and answers with the last numbers the child said were durable. A child's history is a function
of the seed, so that whoever looks at the files knows what must be in them.

    with Victims() as victims:
        said = victims.kill(directory, seed, work="write", after_s=0.05)
"""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from link.frames import RefusedReport
from metamanager.store import Store
from tests.harness.store_history import SETTLE_EVERY, batch, deltas_of, event_of, report_of, settled_at

ROOT = Path(__file__).resolve().parent.parent.parent


class Victims:
    """The program, as a test sees it."""

    def __enter__(self) -> Self:
        self._program = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._program:
            assert self._program.stdin is not None
            self._program.stdin.close()

    def kill(self, directory: Path, seed: int, *, work: str, after_s: float) -> dict[str, int]:
        """One child's life and death; the last number it said of "applied", "saved", "settled", 0 for none."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        line = json.dumps({"directory": str(directory), "seed": seed, "work": work, "after_s": after_s})
        self._program.stdin.write(line + "\n")
        self._program.stdin.flush()
        said: dict[str, int] = json.loads(self._program.stdout.readline())
        return said


async def write(directory: Path, seed: int, out: int) -> None:
    """Go on with the history where the store says it ended, for ever."""

    def say(word: str, number: int) -> None:
        os.write(out, f"{word} {number}\n".encode())

    store = await Store.open(directory / "edge.db")
    cursor = await store.cursor()
    done = cursor.seq if cursor else 0
    for seq in itertools.count(max(done, 1)):
        if seq > done:
            await store.apply([batch(seq, *deltas_of(seed, seq), synced=seq % 3 == 0)], now_ms=seq)
            say("applied", seq)
        # The last kill may have come between two of these transactions.
        if int((await store.documents()).get("last", b"0")) < seq:
            await store.save({"last": str(seq).encode()}, [report_of(seq)], [event_of(seq)])
            say("saved", seq)
        if seq % SETTLE_EVERY == 0 and (await store.parked()).total < seq // SETTLE_EVERY:
            key, field, _ = report_of(seq)
            await store.settle_reports(range(settled_at(seq) + 1), [RefusedReport(key, field, str(seq))], now_ms=seq)
            say("settled", seq)


async def reopen(directory: Path, seed: int, out: int) -> None:
    """Open, close, open again."""
    for number in itertools.count(seed):
        store = await Store.open(directory / "edge.db")
        await store.close()
        os.write(out, f"opened {number}\n".encode())


def _live_and_die(command: dict[str, object]) -> dict[str, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        work = {"write": write, "reopen": reopen}[str(command["work"])]
        try:
            asyncio.run(work(Path(str(command["directory"])), int(str(command["seed"])), writing))
        finally:
            os._exit(1)  # the work has no end; a traceback is on stderr
    os.close(writing)
    time.sleep(float(str(command["after_s"])))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = {"applied": 0, "saved": 0, "settled": 0, "opened": 0, "failed": int(os.WIFEXITED(status))}
    with os.fdopen(reading) as lines:
        for line in lines:
            word, _, number = line.partition(" ")
            said[word] = int(number)
    return said


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(_live_and_die(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
