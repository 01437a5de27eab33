"""Large deltas that come in parts: which is unfolded before its push, and when it may be said to be taken."""

import pytest

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.resources import CONFIG_MAPS
from edgehub.arrivals import Arrivals
from link.errors import RemoteProtocolError
from link.frames import Delta, Part
from link.pushcodec import decode_delta, encode_delta

DELTA = Delta(ObjectKey(CONFIG_MAPS, "default", "large"), ObjectVersion("u", "r"), b"{}")
WIRE = encode_delta(DELTA)
MADE = DELTA._replace(body=b"[]")


def whole(number: int) -> Part:
    return Part(number, len(WIRE), WIRE)


def away(number: int = 1) -> Arrivals:
    """One is handed over."""
    arrivals = Arrivals(hands_over=True)
    assert arrivals.take(whole(number))
    assert arrivals.next() == bytearray(WIRE)
    return arrivals


def test_what_is_whole_is_handed_over_once_and_comes_back_as_what_was_made_of_it() -> None:
    arrivals = Arrivals(hands_over=True)
    assert not arrivals.take(Part(1, len(WIRE), WIRE[:5]))
    assert (arrivals.next(), arrivals.is_busy) == (None, False), "a part is missing"
    assert arrivals.take(Part(1, len(WIRE), WIRE[5:]))
    body = arrivals.next()
    assert body is not None
    assert decode_delta(body) == DELTA
    body.clear()
    assert arrivals.next() is None
    arrivals.unfolded(MADE)
    assert (arrivals.is_busy, arrivals.claim(1, 7)) == (False, MADE)
    with pytest.raises(RemoteProtocolError, match="is not complete"):
        arrivals.claim(1, 8)


def test_until_it_is_committed_another_is_left_as_it_comes() -> None:
    arrivals = away()
    assert not arrivals.take(whole(2))
    assert arrivals.is_busy, "nothing is taken that came after the one that is away"
    arrivals.unfolded(MADE)
    assert not arrivals.take(whole(3))
    assert (arrivals.claim(1, 7), arrivals.claim(2, 8)) == (MADE, DELTA)
    arrivals.committed(6)
    assert not arrivals.take(whole(4))
    arrivals.committed(7)
    assert arrivals.take(whole(5))


@pytest.mark.parametrize("is_back", [False, True])
def test_one_that_the_hub_drops_makes_room_for_the_next(is_back: bool) -> None:
    arrivals = away()
    if is_back:
        arrivals.unfolded(MADE)
    arrivals.take(Part(1, 0, b""))
    if not is_back:
        assert not arrivals.take(whole(2)), "the first is still held in memory"
        arrivals.unfolded(MADE)
    with pytest.raises(RemoteProtocolError, match="is not complete"):
        arrivals.claim(1, 7)
    assert arrivals.take(whole(3))


def test_a_hub_that_names_what_is_not_taken_or_what_is_no_delta_is_told_so() -> None:
    with pytest.raises(RemoteProtocolError, match="transfer 1 is named, but it is not Taken"):
        away().claim(1, 7)
    arrivals = away()
    arrivals.unfolded(RemoteProtocolError("no delta"))
    with pytest.raises(RemoteProtocolError, match="no delta"):
        arrivals.claim(1, 7)
    with pytest.raises(RemoteProtocolError, match="is not as it was declared"):
        away().take(whole(1))


def test_where_nobody_unfolds_all_is_as_it_came() -> None:
    arrivals = Arrivals(hands_over=False)
    assert not arrivals.take(whole(1))
    assert arrivals.next() is None
    assert arrivals.claim(1, 7) == DELTA
