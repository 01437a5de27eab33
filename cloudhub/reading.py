"""
What an apiserver sends of objects, read once and only as far as somebody asks.

Of a watch event of 4 KB a hub mostly needs the metadata: the rest is what it was before. So a line or a page is taken
apart into the members of its objects, by msgspec, which passes over what is in them in a quarter of the time that
making values of it takes. A member is decoded when somebody looks.

Values read as those of json.loads, and text() writes what apimachinery.objects.canonical does, byte for byte. Fractions
are what libraries write in different ways, so they are read as something that msgspec does not write: whatever holds
one is left to canonical().

Invariants
    text(decoded(raw)) == canonical(json.loads(raw)), or both raise
    Sent.parse() is what json.loads makes of the object

Pure. The home of msgspec, which lightkube brings along.
"""

from collections.abc import Mapping

import msgspec

from apimachinery.errors import BadRequest, Unavailable
from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import JSON, Object, canonical

Members = dict[str, msgspec.Raw]
"""The members of an object, each as the bytes that it was sent in."""


class _Fraction(float):
    """A number that is written by canonical()."""


class Line(msgspec.Struct):
    """A line of a watch."""

    type: str
    object: Members


class ListMetadata(msgspec.Struct, rename={"resource_version": "resourceVersion", "token": "continue"}):
    """That of a page of a list."""

    resource_version: str = ""
    token: str = ""
    """How to ask for the next page; "" when this is the last."""


class Listed(msgspec.Struct):
    """A page of a list."""

    metadata: ListMetadata = msgspec.field(default_factory=ListMetadata)
    items: list[Members] | None = None


_DECODER = msgspec.json.Decoder(float_hook=_Fraction)
_MEMBERS = msgspec.json.Decoder(Members)
_ENCODER = msgspec.json.Encoder(order="sorted")

read_line = msgspec.json.Decoder(Line).decode
"""Raises ValueError, or RecursionError where it is nested too deeply."""

read_page = msgspec.json.Decoder(Listed).decode
"""Raises as read_line() does."""


def decoded(raw: bytes | msgspec.Raw) -> JSON:
    """The value that these bytes are. Raises Unavailable for what is none."""
    try:
        return _DECODER.decode(raw)
    except (ValueError, RecursionError):
        # Without the cause: a JSON error quotes its document.
        raise Unavailable("the apiserver sent what is not JSON") from None


def text(value: JSON) -> bytes:
    """As canonical(). Raises Unavailable for a number that JSON cannot hold."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, RecursionError):
        pass
    try:
        return canonical(value)
    except (ValueError, RecursionError):
        raise Unavailable("the apiserver sent what is not JSON") from None


class Sent:
    """One object as it was sent. What it gives is shared by all who ask: not to be changed."""

    __slots__ = ("_decoded", "key", "members", "metadata", "version")

    key: ObjectKey
    version: ObjectVersion
    """Its revision is the cluster's resourceVersion."""
    members: Members
    metadata: dict[str, JSON]
    """Without the managed fields, which can be most of it."""

    def __init__(self, resource: Resource, members: Members) -> None:
        """Raises BadRequest when there is no metadata.name, Unavailable for what is not JSON."""
        try:
            fields = _MEMBERS.decode(members["metadata"])
        except (KeyError, msgspec.ValidationError):
            fields = {}
        metadata = {field: decoded(raw) for field, raw in fields.items() if field != "managedFields"}
        name = metadata.get("name")
        if not isinstance(name, str) or not name:
            raise BadRequest(f"a {resource.kind} without metadata.name")
        namespace = str(metadata.get("namespace") or "") if resource.namespaced else ""
        self.key = ObjectKey(resource, namespace, name)
        self.version = ObjectVersion(str(metadata.get("uid") or ""), str(metadata.get("resourceVersion") or ""))
        self.members = members
        self.metadata = metadata
        self._decoded: dict[str, JSON] = {}

    @property
    def size(self) -> int:
        """Bytes of its members, as they were sent."""
        return sum(len(memoryview(raw)) for raw in self.members.values())

    @property
    def labels(self) -> Mapping[str, str]:
        labels = self.metadata.get("labels")
        return {name: str(label) for name, label in labels.items()} if isinstance(labels, dict) else {}

    def member(self, name: str) -> JSON:
        """One member's value, None where there is none; the metadata without managed fields."""
        if name == "metadata":
            return self.metadata
        if name not in self._decoded:
            raw = self.members.get(name)
            self._decoded[name] = None if raw is None else decoded(raw)
        return self._decoded[name]

    def release(self) -> None:
        """Forget the values of members: of a page of 10,000 pods they would take 250 MB together."""
        self._decoded.clear()

    def parse(self) -> dict[str, JSON]:
        """All of it, a fresh copy, which the caller may change."""
        return {name: decoded(raw) for name, raw in self.members.items()}


def typed(resource: Resource, members: Members) -> Members:
    """With what the items of a list of a built-in kind leave out, for those of a watch have it. Changes `members`."""
    if "apiVersion" not in members:
        members["apiVersion"] = msgspec.Raw(text(resource.api_version))
    if "kind" not in members:
        members["kind"] = msgspec.Raw(text(resource.kind))
    return members


def sent(item: Object) -> Sent:
    """An object as if it had been sent."""
    return Sent(item.key.resource, _MEMBERS.decode(item.body))
