"""
Keeps a running node's certificates from lapsing: knows when, has the next ones made, puts them in place, says so.

The work is a process of its own (edgehub.renewing). What comes of it is moved into DIR/pki file by file: after a crash
between, the rest is moved at the next start, before anything is read. Connections go on with the certificate that they
were opened with; the next one is dialled, and the local API's next client is shown, what is new.

Invariants
    DIR/pki is of one renewal whenever it is read: settle() comes before
    what was got for another identity than the one that is there is thrown away
    nothing that fails here ends edgecore: it says so, and tries again
"""

import asyncio
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from apimachinery.keys import Node
from componentbase.certificates import Validity, fingerprints, validity
from componentbase.endpoints import Endpoint
from componentbase.files import fsync_dir
from componentbase.tls import TlsMin
from componentbase.words import rfc3339
from edgehub.lifetimes import check_s, linked_s, renew_at, retry_s

logger = logging.getLogger(__name__)

STAGED = ".renewing"
READY = "ready"
"""In STAGED: what is beside it is complete and works. Holds which certificate it replaces, and by which."""
PKI, CERTIFICATE_FILE = "pki", "edge.crt"
PATIENCE_S = 60.0  # for the process: three requests of ten seconds each, on a machine that is slow
LOOK_S = 30.0  # a clock that is set, and a link that came up, are noticed so soon
ANSWER_BYTES = 64 << 10


class State(Enum):
    """What came of an attempt."""

    CURRENT = "current"
    """Nothing was to be done."""
    READY = "ready"
    REFUSED = "refused"
    """The hub will not: somebody must act."""
    FAILED = "failed"


class Outcome(NamedTuple):
    """What came of an attempt, and why."""

    state: State
    text: str = ""
    wait_s: float = 0.0
    """For how long the hub asks to be left alone."""


class LinkUp(Protocol):
    """edgehub.connector.LinkStatus: how often the link came up."""

    sessions: int


def replaces(former_pem: bytes, pem: bytes) -> bytes:
    """The content of READY."""
    return f"{fingerprints(former_pem)[0]} {fingerprints(pem)[0]}\n".encode()


def settle(home: Path) -> bool:
    """Put what is ready in place, or finish to; whether something was. To be called with the directory locked."""
    staged, used = home / STAGED, home / PKI
    try:
        belongs_to = (staged / READY).read_text().split()
    except FileNotFoundError:
        return False
    try:
        present = fingerprints((used / CERTIFICATE_FILE).read_bytes())[0]
    except (OSError, ValueError, IndexError):
        present = ""
    if present not in belongs_to:  # this machine has joined anew
        discard(home)
        return False
    for path in sorted((staged / PKI).glob("*")):
        path.replace(used / path.name)
    fsync_dir(used)
    discard(home)
    return True


def discard(home: Path) -> None:
    """Forget what is under way."""
    staged = home / STAGED
    (staged / READY).unlink(missing_ok=True)  # first: what is left of the rest is nothing to put in place
    shutil.rmtree(staged, ignore_errors=True)


class Renewal:
    """A node's certificate while edgecore runs; `problem` and `validity` are for the status."""

    def __init__(
        self,
        home: Path,
        node: Node,
        cloud: Endpoint,
        link: LinkUp,
        renewed: Callable[[], None],
        draw: Callable[[], float],
        tls_min: TlsMin = TlsMin.TLS_1_3,
    ) -> None:
        """cloud: the join endpoint. renewed: called when other files are in place. draw: uniform in [0, 1)."""
        self._home = home
        self._node = node
        self._cloud = cloud
        self._link = link
        self._renewed = renewed
        self._draw = draw
        self._tls_min = tls_min
        self._asked = asyncio.Event()
        self._attempts = 0
        self.problem = ""
        self._read()

    def ask(self) -> None:
        """Have another certificate now."""
        self._asked.set()

    def _read(self) -> None:
        """Raises OSError or ValueError."""
        pem = (self._home / PKI / CERTIFICATE_FILE).read_bytes()
        self.validity: Validity = validity(pem)
        self._renew_at = renew_at(pem, self.validity)

    async def run(self) -> None:
        """Until cancelled."""
        loop, life = asyncio.get_running_loop(), self.validity.lifetime_s
        sessions, check_at = self._link.sessions, loop.time() + check_s(life, self._draw())
        if (self._home / STAGED).exists():
            self.ask()  # begun before this process was: the hub may count on the next certificate by now
        while True:
            until_due_s = (self._renew_at - datetime.now(UTC)).total_seconds()
            if self._attempts:
                until_due_s = check_at - loop.time()
            at_once = await self._wait(min(max(0.0, until_due_s), max(0.0, check_at - loop.time()), LOOK_S))
            if self._link.sessions != sessions:
                sessions = self._link.sessions
                if not self._attempts:
                    check_at = min(check_at, loop.time() + linked_s(life, self._draw()))
            is_due = not self._attempts and datetime.now(UTC) >= self._renew_at
            if not (at_once or is_due or loop.time() >= check_at):
                continue
            outcome = await self._attempt(at_once=at_once)
            life = self.validity.lifetime_s
            check_at = loop.time() + self._told(outcome)

    async def _wait(self, most_s: float) -> bool:
        """Whether somebody asked meanwhile."""
        try:
            async with asyncio.timeout(most_s):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def _attempt(self, *, at_once: bool) -> Outcome:
        outcome = await self._prepared(at_once=at_once)
        if outcome.state is not State.READY:
            return outcome
        try:
            if settle(self._home):
                self._read()
                self._renewed()
        except (OSError, ValueError) as exc:
            return Outcome(State.FAILED, f"the new certificates cannot be used: {exc}")
        return outcome

    async def _prepared(self, *, at_once: bool) -> Outcome:
        # Modules are looked for where ours were found, and in no other directory that we happen to stand in.
        command = [sys.executable, "-P", "-m", "edgehub.renewing", str(self._home), self._node, str(self._cloud)]
        more = [self._tls_min.value, *(["--now"] if at_once else [])]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                *more,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        except OSError as exc:
            return Outcome(State.FAILED, f"cannot start a process: {exc.strerror}")
        try:
            assert process.stdout is not None, "it is a pipe"
            async with asyncio.timeout(PATIENCE_S):
                answer = json.loads(await process.stdout.read(ANSWER_BYTES) or b"{}")
                await process.wait()
            return Outcome(State(answer["state"]), str(answer["text"]), float(answer["wait_s"]))
        except (TimeoutError, ValueError, KeyError):
            return Outcome(State.FAILED, "it ended without an answer, or did not end; the log says more")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _told(self, outcome: Outcome) -> float:
        """Say what came of it; how long until the next attempt, or the next look."""
        life, lapses = self.validity.lifetime_s, self.validity.lapses
        if outcome.state in (State.CURRENT, State.READY):
            if outcome.state is State.READY:
                logger.info("certificate renewed", extra={"until": rfc3339(lapses)})
            self._attempts, self.problem = 0, ""
            return check_s(life, self._draw())
        self._attempts += 1
        self.problem = outcome.text
        has_lapsed = datetime.now(UTC) >= lapses
        wait_s = retry_s(life, self._attempts, self._draw(), has_lapsed=has_lapsed)
        if outcome.state is State.REFUSED:
            wait_s = retry_s(life, 99, self._draw(), has_lapsed=False)
        wait_s = max(wait_s, outcome.wait_s)
        level = logging.ERROR if outcome.state is State.REFUSED else logging.WARNING
        again = rfc3339(datetime.now(UTC) + timedelta(seconds=wait_s))
        facts = {"reason": outcome.text, "valid_until": rfc3339(lapses), "again_at": again}
        logger.log(level, "certificate not renewed", extra=facts)
        return wait_s
