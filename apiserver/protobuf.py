"""
Kubernetes' protobuf, read: what current Go clients send for built-in kinds, turned into the JSON it stands for.

Such clients accept JSON in return but do not fall back to sending it, so a server that reads JSON only
cannot be told `kubectl create configmap`. Nothing is ever written in protobuf here.

Invariants
    no length in the data sizes an allocation: everything is a slice of the body
    a field with content that is not known here is refused, never dropped: half an object is worse than none

Pure. The wire format is protobuf's own (protobuf.dev, "Encoding"); the envelope is runtime.Unknown.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

from apimachinery.errors import BadRequest, UnsupportedMediaType
from apimachinery.objects import JSON
from apiserver.protobuf_fields import MESSAGES

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
MAX_DEPTH = 64

INLINE = frozenset(
    {
        "ephemeralContainerCommon",
        "handler",
        "ingressRuleValue",
        "localObjectReference",
        "persistentVolumeSource",
        "volumeSource",
    }
)
"""Fields of message type whose content stands directly in the JSON object around them."""
_ZERO_COUNTS = frozenset(
    {
        "activeDeadlineSeconds", "allocateLoadBalancerNodePorts", "allowPrivilegeEscalation", "allowVolumeExpansion",
        "attachRequired", "automountServiceAccountToken", "backoffLimit", "blockOwnerDeletion", "completions",
        "controller", "defaultMode", "deletionGracePeriodSeconds", "enableServiceLinks", "expirationSeconds",
        "failedJobsHistoryLimit", "fsGroup", "gracePeriodSeconds", "hostUsers", "immutable", "leaseTransitions",
        "mode", "optional", "orphanDependents", "parallelism", "partition", "podInfoOnMount", "priority",
        "privileged", "progressDeadlineSeconds", "readOnlyRootFilesystem", "replicas", "restartCount",
        "revisionHistoryLimit", "runAsGroup", "runAsNonRoot", "runAsUser", "setHostnameAsFQDN",
        "shareProcessNamespace", "started", "startingDeadlineSeconds", "storageCapacity", "storageClassName",
        "successfulJobsHistoryLimit", "suspend", "terminationGracePeriodSeconds", "tolerationSeconds",
        "ttlSecondsAfterFinished", "value",
    }
)  # fmt: skip
"""Fields where 0, false or "" differs from absent. Clients send all others as zero where they mean absent."""


class Field(NamedTuple):
    name: str
    type: str
    shape: str
    """ "[]" for a list, "{}" for a map, "" for one value."""


@cache
def messages() -> Mapping[str, Mapping[int, Field]]:
    """The table, read when the first protobuf body comes: a server that never sees one does not pay for it."""
    found: dict[str, dict[int, Field]] = {}
    for entry in re.sub(r"\n +", " ", MESSAGES).strip().splitlines():
        name, _, listed = entry.partition(":")
        fields = found[name] = {}
        for text in filter(None, (part.strip() for part in listed.split(","))):
            number, field, kind = text.split()
            shape = kind[:2] if kind[:2] in ("[]", "{}") else ""
            fields[int(number)] = Field(field, kind.removeprefix(shape), shape)
    return found


def decode(data: bytes) -> dict[str, JSON]:
    """
    The object in a request body of MEDIA_TYPE.

    Raises UnsupportedMediaType for a kind that is not in the table and BadRequest for what cannot be read.
    """
    if not data.startswith(MAGIC):
        raise BadRequest("the object provided is unrecognized: it does not begin as Kubernetes' protobuf does")
    envelope = dict(_fields(memoryview(data)[len(MAGIC) :]))
    meta = dict(_fields(_bytes(envelope.get(1, b""))))
    api_version, kind = _text(meta.get(1, b"")), _text(meta.get(2, b""))
    if envelope.get(3):
        raise UnsupportedMediaType("compressed protobuf is not read by this server: send JSON")
    if kind not in messages():
        raise UnsupportedMediaType(
            f'protobuf is read for built-in kinds only, and "{kind[:80]}" is none: send application/json'
        )
    body = _message(_bytes(envelope.get(2, b"")), kind, 0)
    return {"apiVersion": api_version, "kind": kind} | body


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a message: an int, or the bytes of anything else."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        match tag & 7:
            case 0:
                value, place = _varint(data, place)
                yield tag >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, place = _varint(data, place)
            case 5:
                size = 4
            case _:
                raise BadRequest(f"the protobuf cannot be read: wire type {tag & 7}")
        if size > len(data) - place:
            raise BadRequest("the protobuf ends in the middle of a field")
        yield tag >> 3, data[place : place + size]
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, place + count + 1
    raise BadRequest("the protobuf ends in the middle of a number")


def _message(data: memoryview, name: str, depth: int) -> dict[str, JSON]:
    if depth > MAX_DEPTH:
        raise BadRequest(f"the protobuf is nested more than {MAX_DEPTH} deep")
    known = messages()[name]
    out: dict[str, JSON] = {}
    for number, raw in _fields(data):
        field = known.get(number)
        if field is None:
            if raw:
                raise BadRequest(f"field {number} of {name} is newer than this server: send application/json")
            continue
        if field.shape == "{}":
            entry = dict(_fields(_bytes(raw)))
            out.setdefault(field.name, {})[_text(entry.get(1, b""))] = _value(entry.get(2, b""), field, depth)
        elif field.shape == "[]":
            out.setdefault(field.name, []).append(_value(raw, field, depth))
        else:
            value = _value(raw, field, depth)
            if field.name in INLINE and isinstance(value, dict):
                out |= value
            elif value is not None and (value not in ("", 0, False) or field.name in _ZERO_COUNTS):
                out[field.name] = value
    return out


def _value(raw: int | memoryview | bytes, field: Field, depth: int) -> JSON:
    """One value in the field's type; None for a point in time that is not set."""
    match field.type:
        case "int":
            return _integer(raw)
        case "bool":
            return bool(_integer(raw))
        case "string":
            return _text(raw)
        case "bytes":
            return base64.b64encode(_bytes(raw)).decode()
        case "Time" | "MicroTime":
            return _time(_bytes(raw), "microseconds" if field.type == "MicroTime" else "seconds")
        case "Quantity":
            return _text(dict(_fields(_bytes(raw))).get(1, b""))
        case "IntOrString":
            parts = dict(_fields(_bytes(raw)))
            return _text(parts.get(3, b"")) if parts.get(1) else _integer(parts.get(2, 0))
        case "ExtraValue":
            return [_text(item) for _, item in _fields(_bytes(raw))]
        case "FieldsV1":
            return _embedded(dict(_fields(_bytes(raw))).get(1, b"{}"))
    return _message(_bytes(raw), field.type, depth + 1)


def _integer(raw: int | memoryview | bytes) -> int:
    if not isinstance(raw, int):
        raise BadRequest("the protobuf has bytes where a number is expected")
    raw &= (1 << 64) - 1
    return raw - (1 << 64) if raw >> 63 else raw


def _bytes(raw: int | memoryview | bytes) -> memoryview:
    if isinstance(raw, int):
        raise BadRequest("the protobuf has a number where bytes are expected")
    return memoryview(raw)


def _text(raw: int | memoryview | bytes) -> str:
    try:
        return str(_bytes(raw), "utf-8")
    except UnicodeDecodeError:
        raise BadRequest("the protobuf has a text that is not UTF-8") from None


def _time(data: memoryview, precision: str) -> str | None:
    parts = dict(_fields(data))
    if not parts:
        return None
    try:
        moment = datetime.fromtimestamp(0, UTC) + timedelta(
            seconds=_integer(parts.get(1, 0)), microseconds=_integer(parts.get(2, 0)) // 1000
        )
    except OverflowError:
        raise BadRequest("the protobuf has a point in time out of range") from None
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def _embedded(raw: int | memoryview | bytes) -> JSON:
    try:
        return json.loads(_text(raw))
    except ValueError:
        raise BadRequest("the protobuf holds JSON that cannot be read") from None
