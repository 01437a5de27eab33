"""
Elements of a msgpack array, written and read: what every frame and every delta is made of.

The other side is not trusted. Every length is checked before anything of that length is made, every element's type
before it is used, and whatever is wrong raises RemoteProtocolError, which says of what and which.

Invariants
    an array that was read to its end() had the elements that were asked for, each within its limit, and no other
    what is taken from an array is of the type that was asked for, whatever msgpack made of the bytes
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgpack

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from link.errors import RemoteProtocolError
from link.frames import (
    MAX_HORIZON,
    MAX_INTERESTS,
    MAX_NAME_BYTES,
    MAX_USER_BYTES,
    MAX_VERSION,
    Frame,
    Interest,
    Position,
)
from link.tags import Tag

MAX_FRAME_BYTES = 4 << 20  # the largest object Kubernetes takes is 3 MiB (its request limit), plus room for its key
MAX_BODY_BYTES = 3 << 20
MAX_TEXT_BYTES = 1024
MAX_STATUS = 599
MAX_ENTRIES = 1024  # per frame, which take a hub 15 ms; a larger inventory comes in chunks
MAX_SEQ = 2**63 - 1  # SQLite's largest integer, where the cursor is kept
MAX_SECONDS = 86_400.0

_T = TypeVar("_T")

_kind = functools.lru_cache(256)(Resource)
"""Keys of one kind share it: made anew for each, it takes 0.5 KB of whoever keeps the key."""

SMALL_BYTES = 16 << 10
pack: Callable[[list[object]], bytes] = functools.partial(msgpack.packb, use_bin_type=True)
pack_small: Callable[[list[object]], bytes] = msgpack.Packer(use_bin_type=True, buf_size=2 * SMALL_BYTES).pack
"""Half of what packb takes, which makes a buffer each time. This one stays as large as what it was used for."""


def unpack(data: bytes | bytearray, what: str) -> Any:
    """What the bytes are, with no length over what any frame has. Raises RemoteProtocolError. what: they should be."""
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=MAX_TEXT_BYTES,
            max_bin_len=MAX_FRAME_BYTES,
            max_array_len=MAX_ENTRIES,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as exc:
        raise RemoteProtocolError(f"not a {what}: {exc or type(exc).__name__}") from exc


class Fields:
    """Reads the elements of an array one after another, each checked."""

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, list):
            raise RemoteProtocolError(f"a {what} must be an array")
        self._values = value
        self._next = 0
        self._what = what

    def _take(self, name: str) -> Any:
        if self._next >= len(self._values):
            raise RemoteProtocolError(f"{self._what}: {name} is missing")
        value = self._values[self._next]
        self._next += 1
        return value

    def is_integer(self) -> bool:
        """Whether the next element is one."""
        return self._next < len(self._values) and type(self._values[self._next]) is int

    def end(self) -> None:
        if self._next != len(self._values):
            raise RemoteProtocolError(f"{self._what}: {len(self._values) - self._next} elements too many")

    def integer(self, name: str, most: int, least: int = 0) -> int:
        value = self._take(name)
        if type(value) is not int or not least <= value <= most:
            raise RemoteProtocolError(f"{self._what}: {name} must be an integer from {least} to {most}")
        return value

    def size(self) -> int:
        """Of a body that is to be unpacked."""
        return self.integer("size", MAX_BODY_BYTES, 1)

    def seconds(self, name: str) -> float:
        value = self._take(name)
        if type(value) not in (int, float) or not 0 <= value <= MAX_SECONDS:
            raise RemoteProtocolError(f"{self._what}: {name} must be a number from 0 to {MAX_SECONDS:g}")
        return float(value)

    def boolean(self, name: str) -> bool:
        value = self._take(name)
        if type(value) is not bool:
            raise RemoteProtocolError(f"{self._what}: {name} must be a boolean")
        return value

    def text(self, name: str, most: int = MAX_NAME_BYTES, *, empty: bool = True) -> str:
        value = self._take(name)
        if type(value) is not str or len(value) > most or not (value or empty):
            raise RemoteProtocolError(f"{self._what}: {name} must be a string of at most {most} characters")
        return value

    def binary(self, name: str, most: int) -> bytes:
        value = self._take(name)
        if type(value) is not bytes or len(value) > most:
            raise RemoteProtocolError(f"{self._what}: {name} must be at most {most} bytes")
        return value

    def array(self, name: str) -> list[Any]:
        value = self._take(name)
        if type(value) is not list:
            raise RemoteProtocolError(f"{self._what}: {name} must be an array")
        return value

    def records(self, name: str, read: "Callable[[Fields], _T]") -> tuple[_T, ...]:
        found = []
        for value in self.array(name):
            fields = Fields(value, f"{self._what}: {name}")
            found.append(read(fields))
            fields.end()
        return tuple(found)

    def resource(self) -> Resource:
        group, version = self.text("group"), self.text("version", empty=False)
        plural, kind = self.text("plural", empty=False), self.text("kind", empty=False)
        return _kind(group, version, plural, kind, self.boolean("namespaced"))

    def key(self) -> ObjectKey:
        return ObjectKey(self.resource(), self.text("namespace"), self.text("name", empty=False))

    def horizon(self) -> tuple[Position, ...]:
        found = self.records(
            "horizon",
            lambda inner: Position(inner.text("collection", empty=False), inner.integer("version", MAX_VERSION)),
        )
        if len(found) > MAX_HORIZON:
            raise RemoteProtocolError(f"{self._what}: a horizon of more than {MAX_HORIZON} entries")
        return found

    def interests(self) -> tuple[Interest, ...]:
        table = self.records("resources", Fields.resource)
        found = self.records("interests", lambda inner: inner.interest(table))
        if len(found) > MAX_INTERESTS:
            raise RemoteProtocolError(f"{self._what}: more than {MAX_INTERESTS} interests")
        return found

    def interest(self, table: Sequence[Resource]) -> Interest:
        resource = self.placed(table)
        return Interest(resource, self.text("namespace"), self.text("name"), self.text("user", MAX_USER_BYTES))

    def placed(self, table: Sequence[Resource]) -> Resource:
        """A resource by its place in a table."""
        place = self.integer("resource", MAX_ENTRIES)
        if place >= len(table):
            raise RemoteProtocolError(f"{self._what}: there is no resource {place}")
        return table[place]

    def optional(self, name: str) -> "Fields | None":
        """An array within this one, or nil."""
        value = self._take(name)
        return None if value is None else Fields(value, f"{self._what}: {name}")

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        found = self.array(name)
        if len(found) > most or not all(type(text) is str and len(text) <= MAX_TEXT_BYTES for text in found):
            raise RemoteProtocolError(f"{self._what}: {name} must be at most {most} strings")
        return tuple(found)

    def line(self, name: str, most: int) -> str:
        """A text that may be longer than others, carried as bytes."""
        try:
            return self.binary(name, most).decode()
        except UnicodeDecodeError as exc:
            raise RemoteProtocolError(f"{self._what}: {name} is no UTF-8") from exc

    def version(self) -> ObjectVersion:
        return ObjectVersion(self.text("uid"), self.text("revision", empty=False))


class ResourceTable:
    """The resources of a frame's entries, each told once."""

    def __init__(self) -> None:
        self.places: dict[Resource, int] = {}

    def place(self, resource: Resource) -> int:
        return self.places.setdefault(resource, len(self.places))

    def table(self) -> list[list[object]]:
        return [list(resource) for resource in self.places]


def read_with_table(fields: Fields, name: str, read: "Callable[[Fields, ObjectKey], _T]") -> tuple[_T, ...]:
    """Entries that begin with [place in the table, namespace, name]."""
    table = fields.records("resources", Fields.resource)

    def entry(inner: Fields) -> _T:
        return read(inner, ObjectKey(inner.placed(table), inner.text("namespace"), inner.text("name", empty=False)))

    return fields.records(name, entry)


def write_with_table(rows: Sequence[tuple[ObjectKey, list[object]]]) -> list[object]:
    """The table of resources, and entries as read_with_table() reads them. rows: keys and what follows them."""
    resources = ResourceTable()
    entries = [[resources.place(key.resource), key.namespace, key.name, *rest] for key, rest in rows]
    return [resources.table(), entries]


def cut(text: str) -> str:
    """Of a text for people as much as the other side takes, whatever its letters are."""
    return text[: MAX_TEXT_BYTES // 4]


class Codec(NamedTuple):
    """How one frame travels. A frame with two tags has two, which encode alike."""

    frame: type
    tag: Tag
    encode: Callable[[Any], list[object]]
    decode: Callable[[Fields], Frame]
