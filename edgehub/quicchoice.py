"""
Whether the next dial goes over QUIC, and what is remembered of those that did.

Where QUIC is not all that is wanted, a hub is asked first with one packet (link.quicprobe), so that where UDP is
blocked, or the hub has no QUIC, the websocket is dialled within a second and the library is never imported: it is
megabytes, for as long as the process lives. Where the websocket worked and QUIC did not, QUIC is left alone for a
while, also by the next process; a link that holds is not given up to try. How long says what was found:

    REFUSED_S   somebody said no: a hub that starts, or has too many at its door, or has no QUIC
    SILENT_S    nothing came back: UDP is blocked, or the way is long; the answer to the one packet may come late, while
                there is a websocket, and then the next dial goes over QUIC
    RETRY_S     there were connections, and they carried nothing
"""

import asyncio
import importlib.util
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from componentbase.aside import aside
from componentbase.files import FilesError, write_atomic
from link import quicprobe
from link.errors import LinkClosed, LinkError
from link.pump import Pump, Transport
from link.transports import OPEN_S

if TYPE_CHECKING:
    from link.quic import Credentials
    from link.quictickets import Slot

logger = logging.getLogger(__name__)

# After the websocket worked where QUIC did not, half to one and a half times these.
REFUSED_S = 60.0
SILENT_S = 300.0
RETRY_S = 3600.0
LATE_S = 10.0  # for an answer beside the websocket: no line of use has a longer round trip
DIAL_S = 1.0  # for a handshake, beyond the two round trips that it may take: a first packet is sent thrice in that
IN_ROW = 2  # links that carried nothing, or fell silent within SILENT_S, before the websocket is next
_PACKAGE = "aioquic"
_MISSING = f"{_PACKAGE} is not installed: install fairlead[edge,quic]"


def is_installed() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec(_PACKAGE) is not None


class Files(NamedTuple):
    """Where a node keeps what it shows, and the CAs that it trusts; read at each dial."""

    authority: Path
    certificate: Path
    key: Path


class QuicChoice:
    """For one hub; used by one task."""

    def __init__(
        self,
        port: int,
        files: Files,
        *,
        is_only: bool,
        memory: Path,
        draw: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        port: the hub's, UDP. is_only: QUIC is all that is wanted; without that it is tried. memory: a file to remember
        in. draw: uniform in [0, 1). now: the time that other processes count by, too.
        """
        self._port = port
        self._files = files
        self._is_only = is_only
        self._memory = memory
        self._draw = draw
        self._now = now
        self._not_before = 0.0 if is_only else _remembered(memory, port)
        self._failed_for_s = 0.0
        """For how long QUIC is to be left alone, as the present dial found it; 0 while it has not failed."""
        self._late: quicprobe.Probe | None = None
        """Asked at the last dial, and not answered in time."""
        self._in_row = 0
        self._slot: Slot | None = None
        """What the next session may be resumed by; made when the library is imported."""

    @property
    def port(self) -> int:
        """The hub's, UDP."""
        return self._port

    async def dial(self, host: str, opened: Callable[[Transport], Pump]) -> bool:
        """
        Whether there is a connection now; if not, the websocket is to be dialled.

        Raises LinkClosed where nothing but QUIC is wanted.
        """
        self._failed_for_s = 0.0
        late, self._late = self._late, None
        has_answered = late is not None and late.answered.done() and not late.answered.cancelled()
        if late is not None and not has_answered:
            late.close()
        if not self._is_only and not is_installed():
            # Nothing is remembered of the hub by this: whoever installs it starts edgecore again, and has QUIC.
            logger.info("no link over QUIC, trying the websocket", extra={"reason": _MISSING})
            return False
        # A clock that was wrong when it was remembered, or is now, must not keep QUIC off for years.
        left_s = self._not_before - self._now()
        if not self._is_only and not has_answered and 0 < left_s < 2 * RETRY_S:
            told = {"port": self._port, "again_s": round(left_s)}
            logger.info("QUIC is left alone, for it did not work lately", extra=told)
            return False
        try:
            await self._dial(host, opened, late if has_answered else None)
        except LinkError as exc:
            if self._is_only:
                raise
            self._failed_for_s = self._failed_for_s or REFUSED_S
            logger.info("no link over QUIC, trying the websocket", extra={"reason": str(exc)})
            return False
        await self._remember(0.0)
        return True

    async def fell_back(self) -> None:
        """The websocket has connected where dial() had not."""
        if self._failed_for_s:
            await self._leave_alone(self._failed_for_s)

    async def ended(self, *, was_synced: bool, was_silent: bool, after_s: float) -> None:
        """
        A link over QUIC is gone, and the hub has not said why. was_synced: it had brought what there was once.

        A line may pass the handshake's packets and not those that follow, or forget whoever is quiet.
        """
        if was_synced and not (was_silent and after_s < SILENT_S):
            self._in_row = 0
            return
        self._in_row += 1
        if self._in_row >= IN_ROW:
            self._in_row = 0
            logger.info("links over QUIC do not hold, trying the websocket", extra={"synced": was_synced})
            await self._leave_alone(SILENT_S if was_synced else RETRY_S)

    def close(self) -> None:
        """There will be no dial any more."""
        if self._late is not None:
            self._late.close()

    async def _dial(self, host: str, opened: Callable[[Transport], Pump], asked: quicprobe.Probe | None) -> None:
        if not is_installed():
            raise LinkClosed(_MISSING)
        found, limit_s = None, 2 * OPEN_S  # link.quic gives up earlier
        if not self._is_only:
            asked = asked or await self._ask(host)
            found, limit_s = asked.answered.result(), DIAL_S + 2 * asked.round_trip_s
            if found is None:
                raise LinkClosed(f"nobody listens at {host}:{self._port} over UDP")
        # In a thread: it takes a fifth of a second, or several on a small machine.
        credentials, made, dial = await aside(_library, "import[quic]")
        slot = self._slot = self._slot or made()
        try:
            async with asyncio.timeout(limit_s):
                await dial(host, self._port, credentials.of_node(*self._files), opened, found=found, slot=slot)
        except TimeoutError as exc:
            self._failed_for_s = SILENT_S
            why = f"{host}:{self._port} answers over UDP, and to a handshake not within {limit_s:.1f} s"
            raise LinkClosed(why) from exc

    async def _ask(self, host: str) -> quicprobe.Probe:
        """Has an answer, which may be that there is nobody. Raises LinkClosed."""
        try:
            asked = await quicprobe.ask(host, self._port)
        except OSError as exc:
            raise LinkClosed(f"{host} is not found: {exc.strerror}") from exc
        try:
            is_known = await asked.within(quicprobe.TRIES * quicprobe.TRY_S)
        except BaseException:
            asked.close()
            raise
        if not is_known:
            asked.close_after(LATE_S)
            self._late = asked
            self._failed_for_s = SILENT_S
            raise LinkClosed(f"nobody answers over QUIC at {host}:{self._port}")
        return asked

    async def _leave_alone(self, seconds: float) -> None:
        await self._remember(self._now() + seconds * (0.5 + self._draw()))

    async def _remember(self, not_before: float) -> None:
        if self._is_only or not_before == self._not_before:
            return
        self._not_before = not_before
        content = json.dumps({"quicNotBefore": round(not_before), "quicPort": self._port}).encode()
        try:
            await asyncio.to_thread(write_atomic, self._memory, content)
        except (OSError, FilesError) as exc:
            logger.info("not remembered how the hub was reached", extra={"reason": str(exc)})


def _library() -> "tuple[type[Credentials], type[Slot], Callable[..., Awaitable[object]]]":
    from link.quic import Credentials, dial
    from link.quictickets import Slot

    return Credentials, Slot, dial


def _remembered(memory: Path, port: int) -> float:
    """0 also where it was another port, of which nothing is known."""
    try:
        value = json.loads(memory.read_bytes())
        return float(value["quicNotBefore"]) if value["quicPort"] == port else 0.0
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return 0.0
