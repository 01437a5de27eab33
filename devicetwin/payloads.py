"""
Reading and writing JSON payloads from senders who may send anything.

Members are found whatever their case, as Go's decoder does; types are checked and never converted; every
complaint says which member it is about. Limits come before what they protect.

Pure.
"""

import json
from collections.abc import Mapping, Sequence

from componentbase.jsonbytes import compact

MAX_PAYLOAD_BYTES = 256 * 1024  # 16 values of the greatest length; above that a broker's own limit should bite
MAX_VALUE_BYTES = 16 * 1024  # KubeEdge: 512. Equal to apimachinery.devices.MAX_VALUE_BYTES; a test holds them together
_INT64 = range(-(2**63), 2**63)


class Malformed(ValueError):
    """What is wrong with one member; Reading makes a MessageError of it."""


class MessageError(ValueError):
    """A payload that is not what its topic asks for. The sender must change it; code and reason go into the reply."""

    def __init__(self, reason: str, *, code: int = 400, event_id: str = "") -> None:
        # It may quote the sender, who may have sent half a surrogate pair, which no message can carry back.
        self.reason = reason if is_unicode(reason) else reason.encode(errors="replace").decode()
        super().__init__(self.reason)
        self.code = code
        self.event_id = event_id
        """The request's own id where it could be read, so that the sender knows which one is meant."""


class Reading:
    """Parses a payload and turns whatever is wrong with it into one MessageError that carries the event id."""

    def __init__(self, payload: bytes, complaint: str) -> None:
        self._payload = payload
        self._complaint = complaint
        self._event_id = ""

    def __enter__(self) -> "Reading":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MessageError):
            error.event_id = self._event_id
        elif isinstance(error, ValueError):
            raise MessageError(f"{self._complaint}: {error}", event_id=self._event_id) from error

    def members(self) -> dict[str, object]:
        if len(self._payload) > MAX_PAYLOAD_BYTES:
            raise MessageError(f"the payload is longer than {MAX_PAYLOAD_BYTES} bytes", code=413)
        try:
            # Decoded first: json.loads would guess at UTF-16.
            text = self._payload.decode()
        except UnicodeDecodeError:
            raise Malformed("it is not UTF-8") from None
        try:
            value = _DECODER.decode(text)
        except RecursionError:
            raise Malformed("it is nested too deeply") from None
        return members_of(value, "the payload")

    def base(self) -> tuple[str, int, dict[str, object]]:
        members = self.members()
        event_id = members.get("event_id")
        if isinstance(event_id, str) and len(event_id) <= 1024 and is_unicode(event_id):
            self._event_id = event_id
        elif event_id is not None:
            raise Malformed("event_id must be a string of at most 1024 characters")
        timestamp = members.get("timestamp")
        return self._event_id, 0 if timestamp is None else integer(timestamp, "timestamp"), members


def dump(event_id: str, timestamp_ms: int, members: Mapping[str, object]) -> bytes:
    return compact({"event_id": event_id, "timestamp": timestamp_ms, **members})


def mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise Malformed(f"{where} must be an object")
    return value


def members_of(value: object, where: str) -> dict[str, object]:
    """An object's members by lower-case name; of two that differ only in case the later one counts, as in Go."""
    return {name.lower(): member for name, member in mapping(value, where).items()}


def listing(value: object, where: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise Malformed(f"{where} must be a list")
    return value


def text_of(value: object, where: str, limit: int = MAX_VALUE_BYTES) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{where} must be a string")
    if not is_unicode(value):
        raise Malformed(f"{where} is not Unicode: it has half a surrogate pair")
    if len(value.encode()) > limit:
        raise Malformed(f"{where} is longer than {limit} bytes")
    return value


def integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INT64:
        raise Malformed(f"{where} must be an integer of 64 bits")
    return value


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> object:
    raise Malformed(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
