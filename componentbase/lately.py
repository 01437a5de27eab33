"""
Whether something happened a moment ago, and so will mostly happen again in a moment.

Pure: the clock is the caller's.
"""

from collections.abc import Callable

LATELY_S = 1.0  # who changes one pod mostly changes others, or this one again


class Lately:
    """Of one thing that happens now and then."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._until = float("-inf")

    def happened(self) -> None:
        self._until = self._now_s() + LATELY_S

    def is_so(self) -> bool:
        """Whether it happened in the last LATELY_S."""
        return self._now_s() < self._until
