"""
What either end keeps of a session over QUIC, so that the next one needs no certificates and no signatures.

A hub gives a ticket at the end of each handshake: a number that nobody can guess. Both ends keep with it a secret of
that session, and the certificates that the other side showed and had the key of. Whoever names the number in a first
packet, and shows that it has the secret, is who showed those certificates; they are verified anew each time, as if
they had just come. There is nothing in a ticket but its number, so a hub that has restarted, and every other replica,
knows none and goes on as if there had been none, in the same flight. (RFC 8446, sections 2.2 and 4.6.1.)

Invariants
    in memory only, and only of sessions of which the certificates were verified
    a hub knows a ticket once; an edge offers it until a hub has answered, and to that hub only, with that certificate
    LIFETIME_S after somebody showed the key of a certificate no ticket that came of that counts, nor after the
    certificate has ended
    a hub has one ticket of a node, and forgets the oldest beyond TICKETS; each is under 6 KB
"""

import datetime
from dataclasses import replace
from typing import NamedTuple

from aioquic.tls import SessionTicket

from componentbase import pki

LIFETIME_S = 3600.0
TICKETS = 4096  # 6 MB of usual certificates, 24 MB at worst; whose is forgotten shows its certificate
CHAIN_BYTES = 4096  # of DER, that are kept of one side: a chain of four is less
NUMBER_BYTES = 256  # of a hub's number: ours has 64, and a first packet has room for this


class Ticket(NamedTuple):
    """What one side keeps of a session."""

    session: SessionTicket
    """As the library has it: number, secret, until when."""
    chain: tuple[bytes, ...]
    """What the other side showed, its own first; DER."""

    @classmethod
    def of(cls, session: SessionTicket, shown: list[pki.Certificate]) -> "Ticket | None":
        """
        What is kept of a session; None if that would be too much.

        shown: by the other side in this session, verified.
        """
        chain = pki.encoded(shown)
        if not chain or sum(map(len, chain)) > CHAIN_BYTES:
            return None
        return cls._until(shown[0].not_valid_after_utc, session, chain)

    def followed(self, session: SessionTicket) -> "Ticket | None":
        """What is kept of a session that was resumed by this one: it counts no longer."""
        return self._until(self.session.not_valid_after, session, self.chain)

    @classmethod
    def _until(cls, end: datetime.datetime, session: SessionTicket, chain: tuple[bytes, ...]) -> "Ticket | None":
        if len(session.ticket) > NUMBER_BYTES:
            return None
        end = min(end, session.not_valid_before + datetime.timedelta(seconds=LIFETIME_S))
        # A server may say that it takes early data, and what else it had said of itself: nothing of ours asks.
        return cls(replace(session, not_valid_after=end, max_early_data_size=None, other_extensions=[]), chain)


class Tickets:
    """A hub's, of all nodes, while it has the same certificate and trusts the same CAs."""

    def __init__(self) -> None:
        self._by_number: dict[bytes, tuple[str, Ticket]] = {}
        self._numbers: dict[str, bytes] = {}
        """By whose they are, the oldest first."""

    def __len__(self) -> int:
        return len(self._by_number)

    def add(self, identity: str, ticket: Ticket) -> None:
        """The only one of that node from now on."""
        if (former := self._numbers.pop(identity, None)) is not None:
            del self._by_number[former]
        elif len(self._numbers) >= TICKETS:
            oldest = next(iter(self._numbers))
            del self._by_number[self._numbers.pop(oldest)]
        self._numbers[identity] = ticket.session.ticket
        self._by_number[ticket.session.ticket] = (identity, ticket)

    def take(self, number: bytes) -> Ticket | None:
        """The one of this number, which nobody gets again; whether it still counts is the library's to see."""
        if (found := self._by_number.pop(number, None)) is None:
            return None
        identity, ticket = found
        del self._numbers[identity]
        return ticket


class Slot:
    """An edge's one ticket."""

    def __init__(self) -> None:
        self._kept: tuple[object, Ticket] | None = None

    def put(self, whose: object, ticket: Ticket) -> None:
        """whose: of which hub it is, and what was shown to it; compared for equality."""
        self._kept = (whose, ticket)

    def take(self, whose: object) -> Ticket | None:
        """The one there is, if it is of those; none is there after that."""
        kept, self._kept = self._kept, None
        return kept[1] if kept is not None and kept[0] == whose else None
