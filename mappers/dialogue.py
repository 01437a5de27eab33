"""
What one device's task says to the edge over MQTT, and what it makes of what it hears.

On every new connection it asks for the twin, because deltas may have been missed; it repeats its question
until there is an answer, its state now and then, and a report until the edge has confirmed it.

Invariants
    hear() takes any bytes; what is wrong with them comes back as a complaint
    speak() says each thing once: called again at the same time it has nothing to say
    after begin() everything is said again, since nobody knows what the lost connection still delivered

Pure state: no clock, no I/O. The shell is mappers/attendant.py.
"""

from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.devices import PropertyType, same_value
from devicetwin.messages import (
    Ask,
    Channel,
    Delta,
    DeviceId,
    ErrorReply,
    MessageError,
    StateResult,
    StateUpdate,
    TwinEntry,
    TwinResult,
    TwinUpdate,
    Value,
)
from mappers.polling import ANSWER_S, Poller, Report, Wish

TOO_LARGE = 413
STATE_S = 60.0
"""How often the state is said again, for an edge that has lost it."""

CHANNELS = (Channel.TWIN_DELTA, Channel.TWIN_UPDATE_RESULT, Channel.TWIN_GET_RESULT, Channel.STATE_UPDATE_RESULT)
"""What hear() understands."""

TYPE_WORDS: Mapping[PropertyType, str] = {
    PropertyType.INT: "int",
    PropertyType.FLOAT: "float",
    PropertyType.DOUBLE: "float",  # KubeEdge has the type in its models, but not the word on MQTT
    PropertyType.BOOLEAN: "boolean",
}
"""What a property's type is called on MQTT; every other one is a string there."""


class Saying(NamedTuple):
    """A payload for one of the device's channels."""

    channel: Channel
    payload: bytes


class Complaint(NamedTuple):
    """Something an operator should know: a constant text, and the facts."""

    text: str
    facts: Mapping[str, object]


class Dialogue:
    """The MQTT side of one device."""

    def __init__(self, device: DeviceId, poller: Poller, run_id: str) -> None:
        """run_id: told apart by it are the event ids of this run from those of an earlier one, or of other mappers."""
        self._device = device
        self._poller = poller
        self._run_id = run_id
        self._event_count = 0
        self._sequence = 0
        """Of the last report on this connection: what a lost connection takes with it is said anew, and is no gap."""
        self._said: tuple[str, float] | None = None
        """The state last said, and when."""
        self._question: tuple[str, float] | None = None
        """The event id of the unanswered twin/get ("" before the first), and when to ask (again)."""

    def begin(self, now: float) -> None:
        """A new connection."""
        self._said = None
        self._sequence = 0
        self._question = ("", now)
        self._poller.forget_sent()

    def wake_at(self) -> float | None:
        """When to speak again though nothing was heard and nothing was read; None when there is no such time."""
        times = [self._said[1] + STATE_S] if self._said else []
        times += [self._question[1]] if self._question else []
        return min(times, default=None)

    # --- hearing

    def hear(self, channel: Channel, payload: bytes, now: float) -> list[Complaint]:
        """A message came on one of CHANNELS."""
        try:
            match channel:
                case Channel.TWIN_DELTA:
                    return self._hear_delta(Delta.decode(payload), now)
                case Channel.TWIN_UPDATE_RESULT:
                    return self._hear_receipt(TwinResult.decode(payload))
                case Channel.TWIN_GET_RESULT:
                    return self._hear_twin(TwinResult.decode(payload), now)
                case Channel.STATE_UPDATE_RESULT:
                    return _refusal("edge refuses the device's state", StateResult.decode(payload))
                case _:
                    raise AssertionError(f"{channel} was never subscribed to")
        except MessageError as exc:
            return [Complaint("message ignored", {"channel": channel.value, "reason": exc.reason})]

    def _hear_delta(self, delta: Delta, now: float) -> list[Complaint]:
        return self._wish({name: Wish(text, delta.version_of(name)) for name, text in delta.delta.items()}, now)

    def _hear_receipt(self, result: TwinResult | ErrorReply) -> list[Complaint]:
        # The topic is everybody's: an answer to somebody else is not ours to complain about.
        return _refusal("edge refuses the report", result) if self._poller.settle(result.event_id) else []

    def _hear_twin(self, result: TwinResult | ErrorReply, now: float) -> list[Complaint]:
        if self._question is None or self._question[0] != result.event_id:
            return []
        if isinstance(result, ErrorReply):
            if result.code == TOO_LARGE:
                self._question = None  # and will be tomorrow; the deltas come all the same
            return _refusal("edge does not tell the twin", result)  # otherwise the question stays, and is asked again
        self._question = None
        # Our edge sends a delta as well; KubeEdge's does not when asked.
        wishes: dict[str, Wish] = {}
        for name, entry in result.twin.items():
            if entry is None or entry.expected is None:
                continue
            kind = self._poller.type_of(name)
            if entry.actual is None or not same_value(kind, entry.expected.value, entry.actual.value):
                wishes[name] = Wish(entry.expected.value, entry.expected_version)
        return self._wish(wishes, now) if wishes else []

    def _wish(self, wishes: Mapping[str, Wish], now: float) -> list[Complaint]:
        refused = self._poller.wish(wishes, now)
        return [Complaint("desired value not allowed", {"property": name, "reason": why}) for name, why in refused]

    # --- speaking

    def expire(self, now: float) -> list[Complaint]:
        """Give up waiting for what is overdue."""
        return [Complaint("edge does not answer", {})] if self._poller.expire(now) else []

    def speak(self, state: str | None, now: float, now_ms: int, *, with_report: bool) -> list[Saying]:
        """
        All there is to say now.

        state: what the device is like; None while that is not known. now_ms: since 1970, for the messages.
        """
        sayings: list[Saying] = []
        if state is not None and (self._said is None or self._said[0] != state or now >= self._said[1] + STATE_S):
            sayings.append(self.state(state, now_ms))
            self._said = (state, now)
        if self._question is not None and now >= self._question[1]:
            event_id = self._next_event_id()
            sayings.append(Saying(Channel.TWIN_GET, Ask(event_id, now_ms).encode()))
            self._question = (event_id, now + ANSWER_S)
        if with_report and (report := self._poller.report(now)):
            event_id = self._next_event_id()
            self._sequence += 1
            twin = {name: self._entry(name, each) for name, each in report.items()}
            update = TwinUpdate(event_id, now_ms, twin, self._sequence)
            sayings.append(Saying(Channel.TWIN_UPDATE, update.encode()))
            self._poller.sent(event_id, report, now)
        return sayings

    def state(self, state: str, now_ms: int) -> Saying:
        """The device's state, said out of turn."""
        return Saying(Channel.STATE_UPDATE, StateUpdate(self._next_event_id(), now_ms, state).encode())

    def _entry(self, name: str, report: Report) -> TwinEntry:
        kind = self._poller.type_of(name)
        return TwinEntry(
            actual=None if report.text is None else Value(report.text, report.at_ms),
            type=TYPE_WORDS.get(kind, "string") if kind is not None else None,
            expected_version=report.answers,
            problem=report.problem or None,
        )

    def _next_event_id(self) -> str:
        self._event_count += 1
        return f"{self._run_id}-{self._event_count}"


def _refusal(text: str, reply: object) -> list[Complaint]:
    return [Complaint(text, {"code": reply.code, "reason": reply.reason})] if isinstance(reply, ErrorReply) else []
