"""
When to look at which device: for readings that nobody repeats any more, and for news that waits for its report cycle.

A device's deadline moves with each of its reports, thousands of times in a second where there are many. So it is
not moved: a report leaves the deadline as it is, and when it comes the device is looked at and given the next one.

Invariants
    a device's deadline is never later than the earliest moment at which a reading may become stale or news go up
    a device has one deadline or none; the heap holds at most STRAY times as many entries as there are devices

Pure: times are milliseconds on the caller's clock.
"""

import heapq

from devicetwin.topics import DeviceId

STRAY = 4


class SilenceDeadlines:
    """One deadline per device."""

    def __init__(self) -> None:
        self._at_ms: dict[DeviceId, int] = {}
        self._heap: list[tuple[int, DeviceId]] = []
        """Entries that are not a device's deadline any more are passed over."""

    def note(self, device: DeviceId, at_ms: int | None) -> None:
        """The device has to be looked at by then; an earlier deadline stands. None: nothing to look at."""
        if at_ms is None:
            return
        known = self._at_ms.get(device)
        if known is not None and known <= at_ms:
            return
        self._at_ms[device] = at_ms
        heapq.heappush(self._heap, (at_ms, device))
        if len(self._heap) > STRAY * len(self._at_ms) + STRAY:
            self._heap = [(at_ms, device) for device, at_ms in self._at_ms.items()]
            heapq.heapify(self._heap)

    def drop(self, device: DeviceId) -> None:
        """The device is gone."""
        self._at_ms.pop(device, None)

    def next_ms(self) -> int | None:
        """The earliest deadline; None for none."""
        while self._heap and self._at_ms.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now_ms: int, limit: int) -> list[DeviceId]:
        """Devices whose deadline has come, at most `limit`. They have none until `note` gives them the next."""
        found: list[DeviceId] = []
        while len(found) < limit and (at_ms := self.next_ms()) is not None and at_ms <= now_ms:
            device = heapq.heappop(self._heap)[1]
            del self._at_ms[device]
            found.append(device)
        return found
