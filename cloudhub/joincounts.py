"""
What the join endpoint of one process has answered since it started, in numbers, for whoever operates a hub.

Pure state: no clock, no I/O.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from apimachinery.errors import AlreadyExists, ApiError, BadRequest, Invalid, TooManyRequests, Unavailable
from cloudhub.authority import CaLapsed
from cloudhub.keyturns import NotYet
from cloudhub.roster import Banned, RenewalRefused
from cloudhub.signers import SignerNotTrusted, SigningDenied, SigningFailed
from cloudhub.tokens import BadToken, NotForThisNode
from componentbase.metrics import Metric

_REASONS: Mapping[type[ApiError], str] = {
    AlreadyExists: "name-taken",
    BadRequest: "bad-request",
    BadToken: "bad-token",
    Banned: "banned",
    CaLapsed: "ca-lapsed",
    Invalid: "bad-request",
    NotForThisNode: "other-node",
    NotYet: "too-many",
    RenewalRefused: "not-renewable",
    SignerNotTrusted: "signer-not-trusted",
    SigningDenied: "denied",
    SigningFailed: "signing-failed",
    TooManyRequests: "too-many",
    Unavailable: "apiserver",
}


class JoinCounts:
    """The numbers. They only rise."""

    def __init__(self) -> None:
        self.joined = 0
        self.renewed = 0
        self.waiting = 0
        """Answers that something is waited for, of which one machine gets many."""
        self._refused: Counter[str] = Counter()

    def refuse(self, kind: type[ApiError]) -> None:
        """Of an error that is answered; kinds that are not known are the apiserver's."""
        self._refused[_REASONS.get(kind, "apiserver")] += 1

    def facts(self) -> dict[str, object]:
        """For the status."""
        refused = dict(sorted(self._refused.items()))
        return {"joined": self.joined, "renewed": self.renewed, "waiting": self.waiting, "refused": refused}

    def metrics(self) -> Iterator[Metric]:
        yield Metric("hub_joins_total", "Certificates given to machines that showed a token.", self.joined)
        yield Metric("hub_renewals_total", "Certificates given to nodes for the one they had.", self.renewed)
        yield Metric("hub_joins_waiting_total", "Answers that a certificate is not signed yet.", self.waiting)
        for reason in dict.fromkeys(_REASONS.values()):  # also those that never were: a rate needs a start
            told = "Requests to join or renew that were refused, by why."
            yield Metric("hub_joins_refused_total", told, self._refused[reason], {"reason": reason})
