"""
What became of the entries of reports, by session, until it is told: one acknowledgement for all that is known.

Invariants
    each entry is told of once: settled, refused or handed back
    numbers are told as spans, and refusals at most MAX_REFUSED in one acknowledgement, so that each fits a frame
    nothing is kept of a session that has closed

Pure state: no clock, no I/O.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from link.frames import RefusedEntry, RefusedReport, ReportAck, Span, Traffic

MAX_REFUSED = 256  # in one acknowledgement: each is at most 1 KiB

S = TypeVar("S", bound=Hashable)


class Acknowledgement(NamedTuple, Generic[S]):
    """What became of entries of a session."""

    session: S
    ack: ReportAck
    refused: tuple[RefusedReport, ...] = ()
    """Those that `ack` refuses, by what they were about."""


class _Ledger:
    """What became of one session's entries of one class and was not told yet."""

    __slots__ = ("later", "refused", "settled")

    def __init__(self) -> None:
        self.settled: list[int] = []
        self.refused: list[tuple[int, RefusedReport]] = []
        self.later: list[int] = []


class Ledgers(Generic[S]):
    """Of all sessions. S is whatever stands for a session."""

    def __init__(self) -> None:
        self._ledgers: dict[tuple[S, Traffic], _Ledger] = {}

    def settle(self, session: S, traffic: Traffic, numbers: Iterable[int]) -> None:
        """The apiserver has these, or a later value of their field."""
        self._ledger(session, traffic).settled += numbers

    def refuse(self, session: S, traffic: Traffic, numbers: Iterable[int], refused: RefusedReport) -> None:
        """It will never have these."""
        self._ledger(session, traffic).refused += ((number, refused) for number in numbers)

    def hand_back(self, session: S, traffic: Traffic, numbers: Iterable[int]) -> None:
        """They are the edge's again, which comes back later."""
        self._ledger(session, traffic).later += numbers

    def close(self, session: S) -> None:
        """Nobody waits for this session's any more."""
        for traffic in Traffic:
            self._ledgers.pop((session, traffic), None)

    def told(self) -> list[Acknowledgement[S]]:
        """Everything that can be acknowledged now; it is not told again."""
        found: list[Acknowledgement[S]] = []
        for (session, traffic), ledger in self._ledgers.items():
            settled, later = tuple(spans(ledger.settled)), tuple(spans(ledger.later))
            for start in range(0, len(ledger.refused) or 1, MAX_REFUSED):
                refused = ledger.refused[start : start + MAX_REFUSED]
                told = tuple(RefusedEntry(number, report.reason) for number, report in refused)
                ack = ReportAck(traffic, settled, told, later)
                found.append(Acknowledgement(session, ack, tuple(report for _, report in refused)))
                settled = later = ()
        self._ledgers.clear()
        return found

    def _ledger(self, session: S, traffic: Traffic) -> _Ledger:
        return self._ledgers.setdefault((session, traffic), _Ledger())


def spans(numbers: Sequence[int]) -> Iterator[Span]:
    """The same numbers, each once, as few spans."""
    rest = iter(sorted(numbers))
    first = last = next(rest, 0)
    for number in rest:
        if number != last + 1:
            yield Span(first, last)
            first = number
        last = number
    if last:
        yield Span(first, last)
