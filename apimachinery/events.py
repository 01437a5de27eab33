"""
What a watch says, and what a cache makes of it.

A WatchEvent is what an apiserver sent about one resource; a Change is the same fact put into the one
dense, local order of a cache. Consumers of a cache see Changes only, and resume by their revision.
"""

import enum
from typing import NamedTuple

from apimachinery.objects import Object


class EventType(enum.StrEnum):
    """The word in a watch event's `type` field."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


class WatchEvent(NamedTuple):
    """One line of a watch. `object` is None for a BOOKMARK; for DELETED it is the last state."""

    type: EventType
    object: Object | None
    resume_version: str
    """The cluster's resource version from which a watch may go on after this event."""


class Change(NamedTuple):
    """One step of a cache's history."""

    revision: int
    """Dense and local: the step after n is n + 1."""
    type: EventType
    """ADDED, MODIFIED or DELETED."""
    object: Object
    """The new state, or for DELETED the last one."""
    previous: Object | None
    """The state before, None for ADDED. Selectors need it: an object may leave a selection without being deleted."""
