"""
What clients of the local API are interested in, as rows: so that a restarted node asks the hub for it again.

Who decides what is kept and what is forgotten is metamanager.interests.

Invariants
    one row for a selection and a user
    none is said to be held whole while a part of it cannot be read
"""

from collections.abc import Sequence
from typing import NamedTuple

from apimachinery.keys import Resource
from metamanager import statements
from metamanager.connection import Database
from metamanager.resourcerows import ResourceRows


class RememberedInterest(NamedTuple):
    """A selection of objects that somebody asked the local API for."""

    resource: Resource
    namespace: str
    """"" for all."""
    name: str
    """"" for all of them."""
    user: str
    """On whose behalf; "" for the node itself."""
    used_at_ms: int
    """When it was last asked for, in milliseconds since 1970, not more exact than an hour."""
    complete: bool
    """Whether it was ever held whole: then it is served, however old."""


class InterestRows:
    """The table of interests."""

    def __init__(self, database: Database, resources: ResourceRows) -> None:
        self._database = database
        self._resources = resources

    def all(self) -> list[RememberedInterest]:
        """What the local API was asked for beyond what the node is sent by itself."""
        with self._database.transaction():
            return [
                RememberedInterest(self._resources.resource(number), namespace, name, user, used_at_ms, bool(complete))
                for number, namespace, name, user, used_at_ms, complete in self._database.rows(
                    statements.SELECT_INTERESTS
                )
            ]

    def remember(self, interests: Sequence[RememberedInterest], gone: Sequence[RememberedInterest] = ()) -> None:
        """Keep these, in the place of those with the same selection and user, and forget those that are `gone`."""
        number = self._resources.number
        with self._resources.writing():
            self._database.run_many(statements.PUT_INTEREST, [(number(each.resource), *each[1:]) for each in interests])
            self._database.run_many(statements.DELETE_INTEREST, [(number(each.resource), *each[1:4]) for each in gone])

    def note_incomplete(self, number: int) -> None:
        """What is held of the resource with this number is not all of it; to be called in a transaction."""
        self._database.run(statements.UPDATE_INTERESTS, (number,))
