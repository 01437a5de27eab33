"""Tests for cloudhub.fences."""

import random
from typing import NamedTuple

import pytest

from apimachinery.keys import Node
from apimachinery.objects import JSON
from cloudhub.fences import MAX_AHEAD_MS, REPLICA_ANNOTATION, TERM_ANNOTATION, Claim, Fences, Permit, Standing, claim_of
from link.frames import MAX_TERM

EDGE = Node("edge-1")
NOW_MS = 1_800_000_000_000


def fences(term: int = 5) -> Fences:
    made = Fences("here")
    made.opened(EDGE, term)
    return made


def taken(term: int = 5) -> Fences:
    made = fences(term)
    made.answered(EDGE, Claim("1", term, "here"), made.tick())
    return made


def test_a_session_waits_until_its_lease_is_taken() -> None:
    it = fences()
    assert it.standing(EDGE) is Standing.WAITING
    assert it.permit(EDGE, 5, 0) is Permit.ASK
    assert it.mark(EDGE) == {TERM_ANNOTATION: "5", REPLICA_ANNOTATION: "here"}
    it.answered(EDGE, Claim("1", 5, "here"), it.tick())
    assert it.standing(EDGE) is Standing.HELD
    assert it.permit(EDGE, 5, 0) is Permit.WRITE


def test_a_renewal_that_the_watch_tells_after_the_next_one_is_passed_over() -> None:
    """The renewal after that would be made at a version that is gone."""
    it = taken()
    it.answered(EDGE, Claim("9", 5, "here"), it.tick())
    it.noticed(EDGE, Claim("8", 5, "here"))
    assert it.claim(EDGE) == Claim("9", 5, "here")
    it.noticed(EDGE, Claim("10", 5, "here"))
    assert it.claim(EDGE) == Claim("10", 5, "here")


def test_what_was_learned_since_asks_for_another_look() -> None:
    it = taken()
    learned = it.tick()
    assert it.permit(EDGE, 5, learned) is Permit.ASK
    began = it.tick()
    it.answered(EDGE, Claim("1", 5, "here"), began)
    assert it.permit(EDGE, 5, learned) is Permit.WRITE


def test_a_look_that_began_before_something_was_learned_proves_nothing() -> None:
    it = taken()
    began, learned = it.tick(), it.tick()
    it.answered(EDGE, Claim("1", 5, "here"), began)
    assert it.permit(EDGE, 5, learned) is Permit.ASK


def test_that_the_watch_says_so_proves_nothing() -> None:
    it = taken()
    learned = it.tick()
    it.noticed(EDGE, Claim("2", 5, "here"))
    assert it.permit(EDGE, 5, learned) is Permit.ASK


@pytest.mark.parametrize("claim", [Claim("2", 6, "there"), Claim("2", 5, "there"), Claim("2", 6, "here")])
def test_a_lease_with_another_session_ends_this_one(claim: Claim) -> None:
    for it, standing in ((taken(), Standing.SUPERSEDED), (fences(), Standing.STALE)):
        it.noticed(EDGE, claim)
        assert it.standing(EDGE) is standing
        assert it.permit(EDGE, 5, 0) is Permit.NEVER


@pytest.mark.parametrize("late", [Claim("2", 5, "here"), Claim("0", 4, "there"), None])
def test_an_answer_that_the_watch_has_overtaken_brings_no_session_back(late: Claim | None) -> None:
    it = taken()
    began = it.tick()
    it.noticed(EDGE, Claim("3", 6, "there"))
    it.answered(EDGE, late, began)
    assert it.standing(EDGE) in (Standing.SUPERSEDED, Standing.STALE)
    assert it.newest(EDGE) == 6
    assert it.permit(EDGE, 5, 0) is Permit.NEVER
    it.opened(EDGE, 7)
    assert it.newest(EDGE) == 0


def test_a_session_whose_term_was_had_is_stale_from_its_beginning() -> None:
    it = taken(9)
    it.closed(EDGE)
    it.opened(EDGE, 8)
    assert (it.standing(EDGE), it.newest(EDGE)) == (Standing.STALE, 9)


def test_a_lower_term_is_taken_over() -> None:
    it = fences()
    it.noticed(EDGE, Claim("7", 4, "there"))
    assert it.standing(EDGE) is Standing.WAITING
    assert it.claim(EDGE) == Claim("7", 4, "there")


def test_a_lower_term_that_the_watch_tells_late_takes_nothing_away() -> None:
    it = taken()
    it.noticed(EDGE, Claim("0", 4, "there"))
    assert it.standing(EDGE) is Standing.HELD
    assert it.claim(EDGE) == Claim("1", 5, "here")


def test_a_lower_term_that_an_answer_tells_is_taken_again() -> None:
    """The apiserver was restored from a backup."""
    it = taken()
    it.answered(EDGE, Claim("0", 4, "there"), it.tick())
    assert it.standing(EDGE) is Standing.WAITING
    assert it.permit(EDGE, 5, 0) is Permit.ASK


def test_a_lease_that_is_gone_was_taken_by_nobody_else() -> None:
    it = taken()
    learned = it.tick()
    it.answered(EDGE, None, it.tick())
    assert it.permit(EDGE, 5, learned) is Permit.WRITE
    new = fences()
    new.answered(EDGE, None, new.tick())
    assert new.standing(EDGE) is Standing.WAITING


def test_a_value_belongs_to_its_own_session() -> None:
    it = taken()
    it.closed(EDGE)
    assert it.permit(EDGE, 5, 0) is Permit.NEVER
    it.opened(EDGE, 6)
    it.answered(EDGE, Claim("2", 6, "here"), it.tick())
    assert it.permit(EDGE, 5, 0) is Permit.NEVER
    assert it.permit(EDGE, 6, 0) is Permit.WRITE


def test_a_lease_that_is_refused_for_good_keeps_nobody_from_writing_until_it_is_taken_after_all() -> None:
    it = fences()
    it.give_up(EDGE)
    assert it.standing(EDGE) is Standing.UNFENCED
    assert it.permit(EDGE, 5, it.tick()) is Permit.WRITE
    it.answered(EDGE, Claim("1", 5, "here"), it.tick())
    assert it.standing(EDGE) is Standing.HELD
    assert it.permit(EDGE, 5, it.tick()) is Permit.ASK


def test_nothing_is_kept_of_a_node_without_a_session_and_a_lease() -> None:
    it = taken()
    it.noticed(EDGE, None)
    it.closed(EDGE)
    it.closed(Node("stranger"))
    assert (it.standing(EDGE), it.term(EDGE), it.claim(EDGE)) == (Standing.ABSENT, 0, None)
    assert not it._records


@pytest.mark.parametrize(
    ("term", "read"),
    [
        ("7", 7),
        (str(NOW_MS + MAX_AHEAD_MS), NOW_MS + MAX_AHEAD_MS),
        (str(NOW_MS + MAX_AHEAD_MS + 1), 0),
        (str(MAX_TERM), 0),
        (str(MAX_TERM + 1), 0),
        ("9" * 400, 0),
        ("-7", 0),
        ("7.5", 0),
        ("\u0667", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_a_term_that_is_none_counts_as_none(term: str | None, read: int) -> None:
    metadata: dict[str, JSON] = {
        "resourceVersion": "3",
        "annotations": {TERM_ANNOTATION: term, REPLICA_ANNOTATION: "r"},
    }
    assert claim_of({"metadata": metadata}, NOW_MS) == Claim("3", read, "r")
    assert claim_of({"metadata": {"resourceVersion": "3"}}, NOW_MS) == Claim("3", 0, "")


class Status(NamedTuple):
    """What stands in the apiserver: a version, and the number of the report that was written last."""

    version: int
    report: int


class Replica:
    """One hub with one session at most; every request is a step of its own."""

    def __init__(self, name: str) -> None:
        self.fences = Fences(name)
        self.reports: dict[int, int] = {}
        """What is to be written, by term: of a session that is over, too, where its write is under way."""
        self.is_asking = False
        self.known = Status(0, 0)
        self.learned = 0


class TwoReplicas:
    """
    A node that moves, its two replicas and the apiserver. What a slow request adds is in `look_at_the_lease`: something
    happens before its answer is looked at.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.status = Status(0, 0)
        self.claim: Claim | None = None
        self.replicas = [Replica("a"), Replica("b")]
        self.at = self.replicas[0]
        self.term = self.number = self.written = 0
        self.undone = False
        self.steps = (
            self.the_node_moves,
            *(self.the_node_reports,) * 2,
            *(self.take_or_renew,) * 2,
            self.look_at_the_lease,
            self.watch_the_lease,
            *(self.read_the_status,) * 2,
            self.write_the_conditions,
            *(self.write_a_report,) * 4,
        )

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.rng.choice(self.steps)(self.rng.choice(self.replicas))

    def the_node_moves(self, to: Replica) -> None:
        """The replica that it leaves is not told; one that it comes back to ends the older session."""
        self.term += 1
        self.at = to
        to.fences.opened(EDGE, self.term)

    def the_node_reports(self, _: Replica) -> None:
        if self.term:
            self.number += 1
            self.at.reports[self.term] = self.number

    def take_or_renew(self, replica: Replica) -> None:
        it = replica.fences
        if replica.is_asking or it.standing(EDGE) not in (Standing.WAITING, Standing.HELD):
            return
        began, base = it.tick(), it.claim(EDGE)
        if (base and base.version) == (self.claim and self.claim.version):
            version = str(int(self.claim.version) + 1) if self.claim else "1"
            self.claim = Claim(version, it.term(EDGE), it.replica)
        it.answered(EDGE, self.claim, began)

    def look_at_the_lease(self, replica: Replica) -> None:
        if replica.is_asking:
            return
        began, claim = replica.fences.tick(), self.claim
        replica.is_asking = True
        self.run(self.rng.choice([0, 3, 9]))
        replica.is_asking = False
        replica.fences.answered(EDGE, claim, began)

    def watch_the_lease(self, replica: Replica) -> None:
        replica.fences.noticed(EDGE, self.claim)

    def read_the_status(self, replica: Replica) -> None:
        replica.known, replica.learned = self.status, replica.fences.tick()

    def write_the_conditions(self, replica: Replica) -> None:
        """Anybody may; what comes of it is as old as what it was made of."""
        if replica.known == self.status:
            self.status = replica.known = Status(self.status.version + 1, self.status.report)
            replica.learned = self.hand_on(replica)

    def hand_on(self, replica: Replica) -> int:
        return replica.learned

    def write_a_report(self, replica: Replica) -> None:
        for term, number in replica.reports.items():
            if replica.fences.permit(EDGE, term, replica.learned) is not Permit.WRITE:
                continue
            if replica.known.version == self.status.version:  # else a Conflict
                self.undone = self.undone or number < self.status.report
                self.status = replica.known = Status(self.status.version + 1, number)
                self.written += 1


def undone(schedules: int) -> int:
    """In how many schedules a report was written over a newer one."""
    found = 0
    for seed in range(schedules):
        world = TwoReplicas(seed)
        world.run(300)
        assert world.written, "otherwise nothing is proved"
        found += world.undone
    return found


def test_however_a_node_moves_no_report_is_written_over_a_newer_one() -> None:
    assert undone(200) == 0


_permit = Fences.permit


def _whatever_was_learned(self: Fences, node: Node, term: int, learned: int) -> Permit:
    return _permit(self, node, term, -1)


def _before_it_is_taken(self: Fences, node: Node, term: int, learned: int) -> Permit:
    return Permit.WRITE if self.standing(node) is Standing.WAITING else _permit(self, node, term, learned)


def _for_any_session(self: Fences, node: Node, term: int, learned: int) -> Permit:
    return _permit(self, node, self.term(node), learned)


def test_what_an_own_write_was_made_of_stays_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoReplicas, "hand_on", lambda self, replica: 0)
    assert undone(200)


@pytest.mark.parametrize("without", [_whatever_was_learned, _before_it_is_taken, _for_any_session])
def test_each_rule_is_needed(without: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fences, "permit", without)
    assert undone(200)
