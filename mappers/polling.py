"""
One device in the eyes of its mapper: what to read, write and report, and when.

Each property has its last reading, the last value reported, and perhaps a wish: the desired value from the
last delta. Deltas are cumulative, so a wish lives exactly as long as deltas name it. A device that does not
come to the wished value (it clamps it, or is slow) is told again, ever less often: a wish repeated in every
delta must neither wear out its memory nor flood a field bus.

Invariants
    at most one report is unanswered; what changes meanwhile goes into the next one, the last value only
    the same delta twice causes no second write, and no report of its own (or edge and mapper would go round for ever)
    a wish is written only after a reading that differs from it, or where there is none
    an answered version is one whose wish was written, refused or found fulfilled, never a newer one
    a property that the device tells of by itself is read only where its silence says nothing: subscribed()
    wake_at() > now after everything that was due at now has been done: nobody spins

Pure state: times are seconds on a clock that only goes forward. The shell is mappers/attendant.py.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from apimachinery.devices import PropertyType, same_value
from mappers.values import from_text, has_moved, to_text
from mappers.words import Device, Property, Reading, Value

ANSWER_S = 10.0
"""How long to wait for the edge to confirm a report before it counts as lost; commits take milliseconds."""
RETRY_FIRST_S = 1.0
RETRY_LAST_S = 60.0
"""Between two tries at a silent device, or at a wish the device does not fulfil: doubling from first to last."""
PROBLEM_CHARACTERS = 256  # of a refusal's reason; a quarter of what the edge takes in bytes
CONFIRM_S = 1.0
"""How long a device that speaks for itself may take to tell of a written value before it is asked."""


def retry_after_s(tries: int) -> float:
    """How long to wait after this many tries in vain; tries >= 1."""
    return min(RETRY_FIRST_S * 2.0 ** min(tries - 1, 30), RETRY_LAST_S)


class Sample(NamedTuple):
    """A reading as the twin has it."""

    text: str
    at_ms: int | None


class Report(NamedTuple):
    """One property in the next report."""

    text: str | None
    """None where there is no reading, only a refusal."""
    at_ms: int | None
    answers: int | None
    """The version of the wish that this reading answers; None where there is none."""
    problem: str = ""
    """Why the device does not take the wish; "" where it does."""


class Wish(NamedTuple):
    """A desired value as it came."""

    text: str
    version: int | None


class Order(NamedTuple):
    """A value to write to the device."""

    name: str
    wish: Wish
    value: Value


@dataclass(slots=True)
class _Slot:
    """One property."""

    property: Property
    read_at: float
    """When it is to be read next."""
    sample: Sample | None = None
    reported: str | None = None
    reported_at: float = -math.inf
    owes_report: bool = False
    """To be reported whether it changed or not."""
    wish: Wish | None = None
    """The last one, kept after it was fulfilled for its spelling: "22" is reported as "22", not as "22.0"."""
    is_open: bool = False
    """The edge still asks for it."""
    read_first: bool = False
    """The last reading says it is fulfilled already: look again before writing."""
    tries: int = 0
    write_at: float = 0.0
    speaks: bool = False
    """The device tells of it by itself."""
    is_unconfirmed: bool = False
    """It was written, and the device has not spoken of it; the reading that follows is the answer."""
    answers: int | None = None
    problem: str = ""
    """Why the wish is refused; "" where it is not."""
    is_answered: bool = False
    """What became of the wish was reported, or is owed. Once for each wish: afterwards only a change is news."""

    def fulfils(self, sample: Sample | None) -> bool:
        if self.wish is None or sample is None:
            return False
        return same_value(self.property.model.type, sample.text, self.wish.text)

    def objection(self) -> str | None:
        """Why the wish must not even be tried."""
        assert self.wish, "only asked of a slot with a wish"
        model = self.property.model
        return model.problem_with(self.wish.text) if model.writable else f"{model.name} is read-only"

    def is_pending(self) -> bool:
        """Whether there is a wish to be written, now or later."""
        return self.is_open and not self.fulfils(self.sample) and self.objection() is None

    def is_due_for_report(self, now: float) -> bool:
        if self.owes_report and (self.sample is not None or self.problem):
            return True
        if self.sample is None or not self.property.wanted:
            return False
        if self.reported is None or now >= self.reported_at + self.property.report_s:
            return True
        return has_moved(self.property.model, self.reported, self.sample.text, self.property.dead_band)

    def report(self) -> Report:
        text, at_ms = self.sample if self.sample is not None else (None, None)
        return Report(text, at_ms, self.answers, self.problem)

    def put_off(self, now: float) -> None:
        self.tries += 1
        self.write_at = now + retry_after_s(self.tries)

    def answer(self, problem: str = "") -> None:
        """problem: why the wish is refused."""
        assert self.wish, "only called for a slot with a wish"
        self.is_unconfirmed = False
        self.answers = self.wish.version
        if not self.is_answered or problem != self.problem:
            self.is_answered = self.owes_report = True
        self.problem = problem


class Poller:
    """The cycles, readings and wishes of one device."""

    def __init__(self, device: Device, now: float) -> None:
        self._slots: dict[str, _Slot] = {}
        self._sent: tuple[str, float] | None = None
        """The event id of the unanswered report, and until when to wait for its answer."""
        self.adopt(device, now)

    def adopt(self, device: Device, now: float) -> None:
        """Take a changed device: what is known of properties that stay is kept, unless their type changed."""
        slots: dict[str, _Slot] = {}
        for name, each in device.properties.items():
            slot = self._slots.get(name)
            if slot is None or slot.property.model.type is not each.model.type:
                slots[name] = _Slot(each, read_at=now)
                continue
            slot.property = each
            slot.read_at = min(slot.read_at, now + each.collect_s)
            # A wish that was refused may be allowed now; a model's new limits are a reason to look again.
            slot.write_at, slot.tries = now, 0
            slots[name] = slot
        self._slots = slots

    def renew(self, now: float) -> None:
        """The device was out of reach: read everything before anything else."""
        for slot in self._slots.values():
            slot.read_at = now

    def subscribed(self, names: Collection[str]) -> None:
        """Of these properties the device tells by itself, and of no others: they are read only when there is need."""
        for name, slot in self._slots.items():
            slot.speaks = name in names

    def type_of(self, name: str) -> PropertyType | None:
        """A property's type; None for one that the device does not have."""
        slot = self._slots.get(name)
        return None if slot is None else slot.property.model.type

    # --- reading

    def due(self, now: float) -> list[str]:
        """What to read now."""
        return [name for name, slot in self._slots.items() if now >= slot.read_at]

    def took(self, names: Iterable[str], readings: Mapping[str, Reading], now: float) -> list[str]:
        """
        The device was asked for these names and gave these readings.

        Returns a sentence for each reading that is not of its property's type; it counts as none.
        """
        problems: list[str] = []
        for name in names:
            slot = self._slots.get(name)
            if slot is None:
                continue
            # In step with the cycle, not with how long the reading took; after a pause from now on.
            slot.read_at = math.inf if slot.speaks else slot.read_at + slot.property.collect_s
            if slot.read_at <= now:
                slot.read_at = now + slot.property.collect_s
            slot.read_first = False
            if slot.is_unconfirmed:
                slot.answer()
            problems += self._take(name, slot, readings.get(name))
        return problems

    def heard(self, readings: Mapping[str, Reading | None]) -> list[str]:
        """The device told of these by itself. Returns as took() does."""
        problems: list[str] = []
        for name, reading in readings.items():
            if (slot := self._slots.get(name)) is not None:
                problems += self._take(name, slot, reading)
        return problems

    def _take(self, name: str, slot: _Slot, reading: Reading | None) -> list[str]:
        if reading is None:
            slot.sample = None  # the last one is no longer what it is; repeating it would claim so
            return []
        try:
            sample = Sample(to_text(slot.property.model.type, reading.value), reading.at_ms)
        except ValueError as exc:
            return [f"{name}: {exc}"]
        if slot.wish is not None and slot.fulfils(sample):
            sample = sample._replace(text=slot.wish.text)
            if slot.is_open:
                slot.is_open, slot.tries = False, 0
                slot.answer()
        slot.sample = sample
        return []

    # --- writing

    def wish(self, wishes: Mapping[str, Wish], now: float) -> list[tuple[str, str]]:
        """
        A delta came: all the properties that differ, and what they should be.

        Returns (name, why not) for each new wish that must not be tried.
        """
        refused: list[tuple[str, str]] = []
        for name, slot in self._slots.items():
            new = wishes.get(name)
            if new is None:
                slot.is_open = slot.read_first = False
                slot.problem = ""
                continue
            known, slot.wish = slot.wish, new
            if known != new:
                slot.tries, slot.write_at = 0, now
                slot.answers, slot.is_answered, slot.is_unconfirmed, slot.problem = None, False, False, ""
                if (objection := slot.objection()) is not None:
                    self.refuse(name, new, objection, now)
                    refused.append((name, objection))
            slot.is_open = True
            if slot.fulfils(slot.sample):
                # Either the report of it is still on its way, or the device has changed since it was read.
                slot.read_first, slot.read_at = True, now
        return refused

    def orders(self, now: float) -> list[Order]:
        """What to write now."""
        return [
            Order(name, slot.wish, from_text(slot.property.model.type, slot.wish.text))
            for name, slot in self._slots.items()
            if slot.wish is not None and not slot.read_first and now >= slot.write_at and slot.is_pending()
        ]

    def wrote(self, order: Order, now: float) -> None:
        """The device took the value: read it back at once, and report what it is then."""
        slot = self._slots.get(order.name)
        if slot is None or slot.wish != order.wish:
            return  # the wish changed while it was written
        slot.put_off(now)
        if slot.speaks:
            # Its last word is from before the write, and reporting that as the answer would be a lie.
            slot.read_at, slot.is_unconfirmed = now + CONFIRM_S, True
        else:
            slot.read_at = now
            slot.answer()

    def refuse(self, name: str, wish: Wish, reason: str, now: float) -> None:
        """The device, or the model, does not allow the value: the edge is told why. Not tried again before long."""
        slot = self._slots.get(name)
        if slot is None or slot.wish != wish:
            return
        slot.tries += 1
        slot.write_at = now + RETRY_LAST_S
        # It is an exception's text, so it may be anything.
        slot.answer(reason.encode(errors="replace").decode()[:PROBLEM_CHARACTERS] or "the device refuses it")

    # --- reporting

    def report(self, now: float) -> dict[str, Report]:
        """What to report now; empty while an earlier report is unanswered."""
        if self._sent is not None:
            return {}
        due = {name: slot for name, slot in self._slots.items() if slot.is_due_for_report(now)}
        return {name: slot.report() for name, slot in due.items()}

    def sent(self, event_id: str, report: Mapping[str, Report], now: float) -> None:
        """The report was sent under this id; settle(), or time, will say what became of it."""
        assert self._sent is None, "a second report while one is unanswered"
        self._sent = (event_id, now + ANSWER_S)
        for name, entry in report.items():
            slot = self._slots[name]
            slot.reported, slot.reported_at = entry.text, now
            slot.owes_report = False

    def settle(self, event_id: str) -> bool:
        """The edge answered, with yes or no (then it is the same no tomorrow). False for somebody else's report."""
        if self._sent is None or self._sent[0] != event_id:
            return False
        self._sent = None
        return True

    def forget_sent(self) -> None:
        """The connection is lost, and with it perhaps the last report: say all of it again."""
        self._sent = None
        for slot in self._slots.values():
            slot.reported = None
            slot.owes_report |= bool(slot.problem)

    def expire(self, now: float) -> bool:
        """Stop waiting for an answer that is overdue. True when there was such a report; it will be made again."""
        if self._sent is None or now < self._sent[1]:
            return False
        self.forget_sent()
        return True

    # --- time

    def wake_at(self) -> float:
        """When something becomes due; math.inf when nothing will by itself."""
        times = [] if self._sent is None else [self._sent[1]]
        for slot in self._slots.values():
            times.append(slot.read_at)
            if slot.is_pending():
                times.append(slot.write_at)
            if self._sent is None and slot.sample is not None and slot.property.wanted:
                times.append(slot.reported_at + slot.property.report_s)
        return min(times, default=math.inf)


class Pulse:
    """Whether the device answers, and when to try again if it does not."""

    def __init__(self) -> None:
        self.is_online: bool | None = None
        """None until it was tried for the first time."""
        self.retry_at = -math.inf
        self._misses = 0

    def answered(self) -> bool:
        """It answered. True when that is news."""
        is_news = not self.is_online
        self.is_online, self._misses, self.retry_at = True, 0, -math.inf
        return is_news

    def left(self) -> bool:
        """It said goodbye, and will say when it is back: nothing is tried until then. True when that is news."""
        is_news = self.is_online is not False
        self.is_online, self._misses, self.retry_at = False, 0, math.inf
        return is_news

    def is_away(self) -> bool:
        """Whether it left and is not back."""
        return self.retry_at == math.inf

    def hurry(self) -> None:
        """Something changed: try again now."""
        self.retry_at = -math.inf

    def missed(self, now: float) -> bool:
        """
        It did not answer. True when it counts as offline from now on.

        A device that answered before gets one more try at once: a single lost frame is no outage.
        """
        if self.is_online and self._misses == 0:
            self._misses, self.retry_at = 1, now
            return False
        is_news = self.is_online is not False
        self._misses = max(self._misses, 1) + 1
        self.is_online, self.retry_at = False, now + retry_after_s(self._misses - 1)
        return is_news
