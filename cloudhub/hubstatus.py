"""
What a hub tells of itself: what it has done since it started, and how each node stands.

Whoever does something counts it, so that the status page and tests find all of it in one place.

Pure state: no clock, no I/O.
"""

from dataclasses import dataclass
from typing import NamedTuple

from apimachinery.keys import Node
from cloudhub.outbox import Outbox
from cloudhub.standings import Standing
from link.pump import Pump


@dataclass
class Counters:
    """What a hub has done since it started; each only grows."""

    sessions: int = 0
    """Hellos acted on."""
    resumed: int = 0
    """... that went on after a cursor."""
    identical: int = 0
    """... whose node held what it should."""
    empty: int = 0
    """... whose node held nothing."""
    surveyed: int = 0
    """... whose node was asked for its inventory."""
    superseded: int = 0
    """Sessions ended by a newer one of their node, here or at another replica."""
    stale: int = 0
    """Sessions whose term was not newer than one that was known: dead connections, or a disk that was rolled back."""
    ahead: int = 0
    """Sessions whose term was of the future: nodes with a wrong clock, or somebody who would keep others out."""
    lagging: int = 0
    """Sessions begun though this hub had seen less of the apiserver than the node had been told of."""
    turned_away: int = 0
    """Connections without a node's certificate, or of a node that called itself another."""
    banned: int = 0
    """Connections refused or ended because the node is banned."""
    replaced: int = 0
    """... because another key has the node's name."""
    clones: int = 0
    """Hellos of nodes whose connection somebody else's had superseded."""
    pushes: int = 0
    deltas: int = 0
    patches: int = 0
    """Deltas told as what changed."""
    packed: int = 0
    """Deltas whose body went whole and packed."""
    push_bytes: int = 0
    """Of bodies as they travel, before framing."""
    reports: int = 0
    """Report frames."""
    nacks: int = 0
    """Objects that nodes could not take in."""
    healed: int = 0
    """Objects sent whole because a node did not hold what we thought it held. No fault should need it."""
    divergences: int = 0
    """Nodes at rest that did not hold what they should. No fault should need it."""
    undecided: int = 0
    """Sessions begun though an interest of the node was not known yet."""
    calls: int = 0
    """Requests that nodes made through their link."""
    calls_refused: int = 0
    """... that were turned away, as one too many."""


class SessionStatus(NamedTuple):
    """One line of `cloudcore status`."""

    node: str
    connected: bool
    remote: str
    agent: str
    outbox: str
    dirty: int
    synced: bool
    refused: int
    interests: int = 0
    """How many the node has."""
    interests_refused: int = 0
    """... that are not granted, be it that they are not known yet."""
    transport: str = ""
    """What carries its link."""


def status_of(node: Node, outbox: Outbox, standing: Standing, pump: Pump | None, agent: str) -> SessionStatus:
    """pump: of its connection; None while it is away."""
    return SessionStatus(
        node=node,
        connected=pump is not None,
        remote=pump.transport.remote if pump else "",
        transport=pump.transport.kind if pump else "",
        agent=agent,
        outbox=str(outbox),
        dirty=outbox.dirty_count,
        synced=outbox.is_settled and outbox.synced_told,
        refused=len(outbox.refused),
        interests=len(standing.interests),
        interests_refused=len(standing.told.refused) if standing.told else 0,
    )
