"""
Which nodes are here, and what the apiserver has to be told about it.

For a node with a session: that it exists, that it is Ready, and every few seconds, by its Lease, that this
is still so. For an edge node that nobody has heard of for the grace period: that it is Unknown. "Heard of"
means a session here, or its Lease changing, whoever renews it: so one replica keeps the others from giving
its nodes up, and a hub that starts gives every node a full grace period.

No clock but this process's own is compared with anything: a Lease's renewTime is only seen to change.

Invariants
    at most one duty per node is under way
    the Lease is tried as soon as there is a Node, before anything else: reports wait for it (cloudhub.fences)
    no duty without need: a node that the apiserver has as it should be costs its Lease's renewals, no more
    a Ready that somebody else took away from a connected node is given back

Pure state; times are on any clock that only moves forward. The shell is cloudhub/nodes.py.
"""

import enum
from typing import NamedTuple

from apimachinery.keys import Node
from cloudhub.agenda import Agenda

LEASE_RENEW_S = 10.0  # as the kubelet does
NODE_GRACE_S = 20.0


class Duty(enum.Enum):
    """Something to tell the apiserver of a node."""

    REGISTER = "register"
    """Make sure that the Node exists."""
    READY = "ready"
    """Set its Ready condition to True."""
    RENEW = "renew"
    """Renew its Lease, or take it for a new session."""
    GIVE_UP = "give up"
    """Set its Ready condition to Unknown."""


class Task(NamedTuple):
    """A duty towards one node. To be finished()."""

    node: Node
    duty: Duty
    failures: int


class _Record:
    """What is known of one node."""

    __slots__ = (
        "busy",
        "connected",
        "failures",
        "fresh",
        "heard_at",
        "is_edge",
        "lease",
        "not_before",
        "ready",
        "register",
        "renew_at",
        "seen",
    )

    def __init__(self, now: float) -> None:
        self.connected = False
        self.fresh = False
        """The Lease was not tried yet for the session that is up."""
        self.register = False
        """A session came up and the Node has not been seen since."""
        self.seen = False
        """The Node exists, as far as is known."""
        self.is_edge = False
        self.ready = ""
        """The status of its Ready condition; "" where there is none."""
        self.lease = ""
        """The last version of the Lease that was seen."""
        self.heard_at = now
        self.renew_at = now
        self.busy = False
        self.failures = 0
        self.not_before = now


class Presence:
    """All nodes that this hub knows of."""

    def __init__(self, *, renew_s: float = LEASE_RENEW_S, grace_s: float = NODE_GRACE_S) -> None:
        # Who shortens the grace period must hear of Leases as often within it: other replicas judge by them.
        self.renew_s = min(renew_s, grace_s / 2)
        """Between two renewals of a Lease, about."""
        self._grace_s = grace_s
        self._records: dict[Node, _Record] = {}
        self._agenda: Agenda[Node] = Agenda()

    def __len__(self) -> int:
        return len(self._records)

    # What happens

    def connected(self, node: Node, now: float) -> None:
        """A session is up, a newer one where one was up already."""
        record = self._records.setdefault(node, _Record(now))
        record.connected = record.fresh = True
        record.register = not record.seen
        record.renew_at = now
        self._schedule(node, record)

    def disconnected(self, node: Node, now: float) -> None:
        """The session is gone."""
        record = self._records.get(node)
        if record is None:
            return
        record.connected = record.register = False
        record.heard_at = now
        self._tidy(node, record)

    def node_seen(self, node: Node, is_edge: bool, ready: str, now: float) -> None:
        """
        The Node exists like this.

        is_edge: whether it is ours to judge when nobody hears of it. ready: the Ready condition's status, "" for none.
        """
        record = self._records.setdefault(node, _Record(now))
        record.seen, record.register = True, False
        record.is_edge, record.ready = is_edge, ready
        self._schedule(node, record)

    def node_gone(self, node: Node) -> None:
        """
        The Node was deleted.

        It is not made again while its session lasts: whoever deletes a Node means it. The next session does.
        """
        if (record := self._records.get(node)) is not None:
            record.seen, record.ready = False, ""
            self._tidy(node, record)

    def lease_seen(self, node: Node, version: str, now: float) -> None:
        """The node's Lease is in this version now; versions are compared for equality only."""
        record = self._records.get(node)
        if record is not None and record.lease != version:
            record.lease = version
            record.heard_at = now
            self._tidy(node, record)

    # What is to be done

    def due(self, now: float, most: int) -> list[Task]:
        """Up to `most` tasks to do now."""
        tasks: list[Task] = []
        while len(tasks) < most and (node := self._agenda.take(now)) is not None:
            record = self._records[node]
            duty = self._duty(record, now)
            if duty is None:
                self._schedule(node, record)
                continue
            record.busy = True
            # Now and not when it is finished: there may be a newer session by then, whose turn is still to come.
            record.fresh = record.fresh and duty is not Duty.RENEW
            tasks.append(Task(node, duty, record.failures))
        return tasks

    def next_deadline(self) -> float | None:
        """When due() may give something; None when only an event can change that."""
        return self._agenda.next_deadline()

    def finished(self, task: Task, now: float, retry_after_s: float | None, jitter: float) -> None:
        """
        What became of a task: retry_after_s is None when it succeeded.

        jitter: uniform in [0, 1), so that Leases are not renewed in step.
        """
        record = self._records[task.node]
        record.busy = False
        if retry_after_s is not None:
            record.failures += 1
            record.not_before = now + retry_after_s
            self._tidy(task.node, record)
            return
        record.failures = 0
        record.not_before = now
        match task.duty:
            case Duty.REGISTER:
                record.seen, record.register = True, False
                record.is_edge = True
            case Duty.READY:
                record.ready = "True"
            case Duty.RENEW:
                # From when it was due, or a slow apiserver's answers would be added to each interval.
                due = record.renew_at + self.renew_s * (0.9 + 0.2 * jitter)
                record.renew_at = max(due, now + self.renew_s / 2)
                record.heard_at = now
            case Duty.GIVE_UP:
                record.ready = "Unknown"
        self._tidy(task.node, record)

    def _duty(self, record: _Record, now: float) -> Duty | None:
        if now < record.not_before:
            return None
        if record.connected:
            if record.register:
                return Duty.REGISTER
            if record.seen and record.fresh:
                return Duty.RENEW
            if record.seen and record.ready != "True":
                return Duty.READY
            return Duty.RENEW if record.seen and now >= record.renew_at else None
        if record.seen and record.is_edge and record.ready != "Unknown" and now >= record.heard_at + self._grace_s:
            return Duty.GIVE_UP
        return None

    def _schedule(self, node: Node, record: _Record) -> None:
        """When the record's duty may be another than now; nothing while one is under way."""
        at: float | None = None
        if record.busy:
            pass
        elif record.connected and (record.register or (record.seen and (record.fresh or record.ready != "True"))):
            at = record.not_before
        elif record.connected and record.seen:
            at = max(record.renew_at, record.not_before)
        elif not record.connected and record.seen and record.is_edge and record.ready != "Unknown":
            at = max(record.heard_at + self._grace_s, record.not_before)
        if at is None:
            self._agenda.discard(node)
        else:
            self._agenda.set(node, at)

    def _tidy(self, node: Node, record: _Record) -> None:
        """Forget a node that neither exists nor is here; else look at it when it is time."""
        if record.seen or record.connected or record.busy:
            self._schedule(node, record)
        else:
            self._agenda.discard(node)
            del self._records[node]
