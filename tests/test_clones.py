"""The book of certificates that are used from two places."""

from apimachinery.keys import Node
from cloudhub.clones import ADDRESSES, MOST, PROVEN, QUIET_S, WINDOW_S, Clone, Clones

EDGE = Node("edge-1")
AT = "2030-01-31T12:00:00Z"


def test_the_addresses_of_both_are_kept_and_how_often_it_showed() -> None:
    clones = Clones()
    clones.shown(EDGE, ["192.0.2.1:5", "[2001:db8::1]:7"], "t1", 0.0)
    assert clones.proven() == [], "a disk that was rolled back does it once"
    found = clones.shown(EDGE, ["192.0.2.1:6"], "t2", 1.0)
    assert found == Clone(EDGE, PROVEN, "t1", "t2", ("[2001:db8::1]", "192.0.2.1"))
    assert clones.proven() == [found]


def test_what_showed_once_and_long_ago_counts_no_more() -> None:
    clones = Clones()
    for times in range(PROVEN):
        clone = clones.shown(EDGE, ["192.0.2.1:5"], AT, times * (WINDOW_S + 1))
        assert (clone.times, clones.event(clone, 0.0), clones.proven()) == (1, None, [])


def test_what_is_kept_is_bounded_and_the_latest_stay() -> None:
    clones = Clones()
    for number in range(MOST + 1):
        for _ in range(PROVEN):
            clones.shown(Node(f"n{number}"), [], AT, 0.0)
    assert len(clones.proven()) == MOST
    assert "n0" not in {clone.node for clone in clones.proven()}
    found = [clones.shown(EDGE, [f"192.0.2.{number}:5"], AT, 0.0) for number in range(ADDRESSES + 1)][-1]
    assert found.addresses == tuple(f"192.0.2.{number}" for number in range(1, ADDRESSES + 1))


def test_an_event_is_told_now_and_then() -> None:
    clones = Clones()
    [_, clone] = [clones.shown(EDGE, ["192.0.2.1:5", "192.0.2.2:5"], AT, 0.0) for _ in range(PROVEN)]
    event = clones.event(clone, 0.0)
    assert event is not None
    assert (event.about.name, event.reason, event.type.value) == (EDGE, "CertificateUsedTwice", "Warning")
    assert "(192.0.2.1, 192.0.2.2)" in event.message
    assert clones.event(clone, QUIET_S - 1) is None
    assert clones.event(clone, QUIET_S) is not None
