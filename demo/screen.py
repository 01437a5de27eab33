"""
Where the demo draws: a terminal, redrawn in place, or a pipe, written to now and then.

Invariants
    the picture is the last thing on the terminal; what else is said stands above it
    no line is wider than the terminal and the picture is not taller, else redrawing in place would tear it
"""

import shutil
import time
from collections.abc import Sequence
from typing import TextIO

from demo.table import cut

PLAIN_EVERY_S = 5.0

_UP = "\x1b[{}F"
_CLEAR_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[J"


class Screen:
    """One output stream."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._drawn = 0
        self._written_at: float | None = None

    def say(self, text: str) -> None:
        """Lines that stay."""
        self._erase()
        self._out.write(text + "\n")
        self._out.flush()

    def draw(self, lines: Sequence[str]) -> None:
        """The picture as it is now. On a pipe it is left out when the last one is younger than PLAIN_EVERY_S."""
        if self._is_terminal:
            self._redraw(lines)
            return
        now = time.monotonic()
        if self._written_at is None or now - self._written_at >= PLAIN_EVERY_S:
            self._written_at = now
            self._out.write("\n".join(lines) + "\n\n")
            self._out.flush()

    def _redraw(self, lines: Sequence[str]) -> None:
        size = shutil.get_terminal_size()
        room = max(1, size.lines - 1)
        shown = [*lines] if len(lines) <= room else [*lines[: room - 1], "… (a taller window shows more)"]
        up = _UP.format(self._drawn) if self._drawn else ""
        body = "".join(f"{cut(line, size.columns - 1)}{_CLEAR_LINE}\n" for line in shown)
        self._out.write(up + body + _CLEAR_BELOW)
        self._out.flush()
        self._drawn = len(shown)

    def _erase(self) -> None:
        if self._drawn:
            self._out.write(_UP.format(self._drawn) + _CLEAR_BELOW)
            self._drawn = 0
