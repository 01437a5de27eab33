"""
Bodies that are too large for one transaction: put into a table of their own, a piece at a time, ahead of the commit
that needs them.

A transaction of 3 MB is 25 ms of a quick processor's work, and a second of an SD card's; a pod's change that comes
meanwhile waits for it. Between two pieces others have their turn, and what the commit then writes of the object is
where its body is.

Of what is taken from such a table nothing is zeroed, for that would write it all once more: no Secret may be in it.

Invariants
    what a row points to has all its pieces, or the row's checksum tells
    a body that no row points to is the one that was put last, or is being put; tidy() takes away all others
    what was put is pointed to by one commit at most: once its row points elsewhere it is gone
    what is remembered here is what the last commit left
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from apimachinery.keys import ObjectKey
from apimachinery.objects import Object
from metamanager import statements
from metamanager.confidential import is_confidential
from metamanager.connection import Database
from metamanager.resourcerows import ResourceRows

PIECE_BYTES = 256 << 10  # 2 ms; 50 ms of a card that writes 5 MB/s. Smaller ones were more syncs of it
LARGE_BYTES = PIECE_BYTES
POINTER_BYTES = 9
_NUL = b"\0"  # begins no JSON of so few bytes


class Pointer(NamedTuple):
    """Where a body is, and what it is."""

    number: int
    checksum: int
    """Of the row with this body: a hub may say a version that is not the digest of what it sends."""

    def to_bytes(self) -> bytes:
        return _NUL + self.number.to_bytes(POINTER_BYTES - 1, "big", signed=True)


def is_large(item: Object) -> bool:
    """Whether its body is put ahead."""
    return len(item.body) > LARGE_BYTES and not is_confidential(item.key.resource)


class LargeBodies:
    """Those of one database. Its methods are called inside a transaction, but for those that say otherwise."""

    def __init__(self, database: Database, resources: ResourceRows, checksum: Callable[[Object], int]) -> None:
        """checksum: that of an object's row. Raises a StoreError."""
        self._database = database
        self._checksum = checksum
        there = [int(row[0]) for row in database.rows(statements.SELECT_LARGE)]
        # Mostly there is none, and then no row is looked at.
        rows = database.rows(statements.SELECT_POINTERS) if there else ()
        self._pointers = {
            ObjectKey(resources.resource(number), namespace, name): Pointer(_number(body), checksum)
            for number, namespace, name, checksum, body in rows
            if _is_pointer(body)
        }
        self._put: tuple[ObjectKey, Pointer] | None = None
        """What was put last, has all its pieces, and no row has pointed to."""
        self._putting = 0
        """The number of what is being put, or was last; 0: nothing was."""
        self._is_given_up = False
        """Whether that lacks pieces, and is not to go on."""
        self._last = max(there, default=0)

    def tidy(self) -> None:
        """At the start: take away what no row points to. Whoever put it was killed before its commit."""
        for (number,) in list(self._database.rows(statements.SELECT_LARGE)):
            if self._is_unused(number):
                self._take_away(number)

    # Ahead of the commit

    def put(self, item: Object, place: int) -> bool:
        """The piece at this place; with the first one what was put before for nothing goes. False: it was given up."""
        if place and self._is_given_up:
            return False
        if place == 0 and self._is_unused(self._putting):
            self._take_away(self._putting)
        piece = item.body[place * PIECE_BYTES : (place + 1) * PIECE_BYTES]
        self._database.run(statements.PUT_PIECE, (self._next(place), place, piece))
        return True

    def has_put(self, item: Object, place: int) -> bool:
        """After the commit of that piece; whether it was the last."""
        self._putting, self._is_given_up = self._next(place), False
        self._last = self._putting
        is_whole = (place + 1) * PIECE_BYTES >= len(item.body)
        self._put = (item.key, Pointer(self._putting, self._checksum(item))) if is_whole else None
        return is_whole

    def give_up(self) -> None:
        """Take away what was put for a commit that has not come: others need the room."""
        # Also if this is rolled back: then the next put takes its pieces away.
        self._put, self._is_given_up = None, True
        if self._is_unused(self._putting):
            self._take_away(self._putting)

    def _next(self, place: int) -> int:
        return self._putting if place else self._last + 1

    def _is_unused(self, number: int) -> bool:
        return all(pointer.number != number for pointer in self._pointers.values())

    # With it

    def pointer(self, key: ObjectKey, checksum: int) -> Pointer | None:
        """
        Where the body of this very object is, from now on or as before; None where it is nowhere but in its row.

        checksum: of the row.
        """
        here = self._pointers.get(key)
        if here is not None and here.checksum == checksum:
            return here
        if self._put is not None and self._put[0] == key and self._put[1].checksum == checksum:
            return self._put[1]
        return None

    def leave(self, key: ObjectKey, now: Pointer | None) -> bool:
        """The row of this object points there from now on, None for nowhere; whether it points elsewhere by now."""
        before = self._pointers.get(key)
        if before is None or before == now:
            return False
        self._take_away(before.number)
        return True

    def committed(self, moved: Mapping[ObjectKey, Pointer | None]) -> None:
        """After a commit: where rows point now."""
        for key, pointer in moved.items():
            if pointer is not None:
                self._pointers[key] = pointer
                if self._put is not None and self._put[1] == pointer:
                    self._put = None  # it goes with its row, and the same version may then come again
            else:
                self._pointers.pop(key, None)

    # Later

    def body(self, stored: bytes) -> bytes:
        """What is meant by what stands in a row."""
        return b"".join(self._pieces(_number(stored))) if _is_pointer(stored) else stored

    def _pieces(self, number: int) -> Iterator[bytes]:
        for (piece,) in self._database.rows(statements.SELECT_PIECES, (number,)):
            yield piece

    def _take_away(self, number: int) -> None:
        with self._database.left_as_it_is():
            self._database.run(statements.DELETE_PIECES, (number,))


def _is_pointer(stored: bytes) -> bool:
    # By the length, too: JSON in UTF-16 may begin with a NUL, and so may what is damaged.
    return len(stored) == POINTER_BYTES and stored.startswith(_NUL)


def _number(stored: bytes) -> int:
    return int.from_bytes(stored[len(_NUL) :], "big", signed=True)  # of damage, too, one that SQLite can look for
