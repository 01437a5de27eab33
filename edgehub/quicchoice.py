"""
Whether the next dial goes over QUIC, and what is remembered of those that did.

Where QUIC is not all that is wanted, a hub is asked first with one packet (link.quicprobe), so that where UDP is
blocked, or the hub has no QUIC, the websocket is dialled within a second and the library is never imported: it is
megabytes, for as long as the process lives. Where the websocket worked and QUIC did not, QUIC is left alone for
RETRY_S, also by the next process; a link that holds is not given up to try.
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

if TYPE_CHECKING:
    from link.quic import Credentials

logger = logging.getLogger(__name__)

RETRY_S = 3600.0  # after the websocket worked where QUIC did not: half to one and a half times this
_PACKAGE = "aioquic"


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
        self._not_before = 0.0 if is_only else _remembered(memory)
        self._has_failed = False
        """At the present dial."""

    async def dial(self, host: str, opened: Callable[[Transport], Pump]) -> bool:
        """
        Whether there is a connection now; if not, the websocket is to be dialled.

        Raises LinkClosed where nothing but QUIC is wanted.
        """
        self._has_failed = False
        # A clock that was wrong when it was remembered, or is now, must not keep QUIC off for years.
        if not self._is_only and 0 < self._not_before - self._now() < 2 * RETRY_S:
            return False
        try:
            await self._dial(host, opened)
        except LinkError as exc:
            if self._is_only:
                raise
            self._has_failed = True
            logger.info("no link over QUIC, trying the websocket", extra={"reason": str(exc)})
            return False
        await self._remember(0.0)
        return True

    async def fell_back(self) -> None:
        """The websocket has connected where dial() had not."""
        if self._has_failed:
            await self._remember(self._now() + RETRY_S * (0.5 + self._draw()))

    async def _dial(self, host: str, opened: Callable[[Transport], Pump]) -> None:
        if not is_installed():
            raise LinkClosed(f"{_PACKAGE} is not installed: install fairlead[edge,quic]")
        found = None
        if not self._is_only:
            try:
                found = await quicprobe.probe(host, self._port)
            except OSError as exc:
                raise LinkClosed(f"{host} is not found: {exc.strerror}") from exc
            if found is None:
                raise LinkClosed(f"nobody answers over QUIC at {host}:{self._port}")
        # In a thread: it takes a fifth of a second, or several on a small machine.
        credentials, dial = await aside(_library, "import[quic]")
        await dial(host, self._port, credentials.of_node(*self._files), opened, found=found)

    async def _remember(self, not_before: float) -> None:
        if self._is_only or not_before == self._not_before:
            return
        self._not_before = not_before
        content = json.dumps({"quicNotBefore": round(not_before)}).encode()
        try:
            await asyncio.to_thread(write_atomic, self._memory, content)
        except (OSError, FilesError) as exc:
            logger.info("not remembered how the hub was reached", extra={"reason": str(exc)})


def _library() -> "tuple[type[Credentials], Callable[..., Awaitable[object]]]":
    from link.quic import Credentials, dial

    return Credentials, dial


def _remembered(memory: Path) -> float:
    try:
        return float(json.loads(memory.read_bytes())["quicNotBefore"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0
