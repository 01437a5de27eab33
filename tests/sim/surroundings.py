"""What a simulated process finds around itself: time, chance, the network, the apiserver."""

import random
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from apimachinery.errors import ApiError
from apimachinery.keys import Node
from link.frames import Interest, ReportEntry
from tests.sim.apiserver import SimApi
from tests.sim.clock import MachineClock, SimClock
from tests.sim.network import SimNetwork, SimTransport

T = TypeVar("T")


class Surroundings(Protocol):
    """The part of a World that its processes see."""

    rng: random.Random
    clock: SimClock
    network: SimNetwork
    api: SimApi

    @property
    def commits_s(self) -> Sequence[float]:
        """How long a commit takes: one of these."""
        ...

    def new_machine(self) -> MachineClock:
        """The clock of a process that starts now."""
        ...

    def request(self, hub: str, ask: Callable[[], T], answered: Callable[[T | ApiError], None]) -> None:
        """Let the apiserver, as this replica finds it, do something after some time, and tell later what came of it."""
        ...

    def dial(self, node: Node) -> tuple[SimTransport, Callable[[], None], str] | None:
        """The edge's end of a new connection, how to hand the hub its own, the replica's name; None: unreachable."""
        ...

    def is_allowed(self, node: Node, interest: Interest) -> bool:
        """Whether the apiserver lets this node read that, now."""
        ...

    def reported(self, node: Node, entries: Sequence[ReportEntry]) -> None:
        """These reports are durable at the node now."""
        ...
