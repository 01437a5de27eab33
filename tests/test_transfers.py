"""Large deltas in parts: what goes out, and what of it comes together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.errors import RemoteProtocolError
from link.frames import CHUNK_BYTES, MAX_TRANSFER_BYTES, MAX_TRANSFERS, MAX_TRANSFERS_BYTES, Part
from link.transfers import Arriving, Departing


@given(st.integers(1, 5 * CHUNK_BYTES))
def test_what_is_claimed_is_what_was_sent(size: int) -> None:
    body = (b"%06d" % size) * (size // 6 + 1)
    departing, arriving = Departing(3, body), Arriving()
    while not departing.is_sent:
        part = departing.next()
        assert 0 < len(part.body) <= CHUNK_BYTES
        arriving.take(part)
    assert arriving.claim(3, 1) == body
    assert len(arriving) == 0


def test_what_is_not_complete_was_dropped_or_was_claimed_cannot_be_claimed() -> None:
    arriving = Arriving()
    arriving.take(Part(1, 2, b"a"))
    arriving.take(Part(2, 1, b"b"))
    arriving.claim(2, 1)
    for number in (1, 2, 3):
        with pytest.raises(RemoteProtocolError, match=f"transfer {number} is not complete"):
            arriving.claim(number, 1)
    arriving.take(Part(1, 0, b""))
    with pytest.raises(RemoteProtocolError, match="it is over"):
        arriving.take(Part(1, 2, b"a"))
    arriving.take(Part(7, 0, b""))  # of which no part had been sent
    assert (len(arriving), arriving.size) == (0, 0)


def test_what_is_claimed_takes_its_room_until_it_is_committed() -> None:
    arriving = Arriving()
    for number in range(1, MAX_TRANSFERS + 1):
        arriving.take(Part(number, 1, b"x"))
        arriving.claim(number, 10 + number)
    with pytest.raises(RemoteProtocolError, match="one too many"):
        arriving.take(Part(9, 1, b"x"))
    arriving.committed(10)
    with pytest.raises(RemoteProtocolError, match="one too many"):
        arriving.take(Part(9, 1, b"x"))
    arriving.committed(11)
    arriving.take(Part(9, 1, b"x"))
    assert arriving.claim(9, 20) == b"x"


def test_what_is_handed_over_takes_its_room_until_it_is_committed_or_dropped() -> None:
    arriving = Arriving()
    arriving.take(Part(1, MAX_TRANSFER_BYTES, b"x"))
    assert arriving.hand_over(1) is None, "it is not whole"
    arriving.take(Part(1, 0, b""))
    arriving.take(Part(2, 1, b"x"))
    assert arriving.hand_over(2) == bytearray(b"x")
    assert (arriving.hand_over(2), arriving.hand_over(3)) == (None, None)
    assert (2 in arriving, len(arriving), arriving.size) == (True, 1, 1)
    assert arriving.claim(2, 1) == b""
    assert 2 not in arriving


@pytest.mark.parametrize(
    "part", [Part(1, 9, b"x"), Part(1, 8, b""), Part(1, 8, b"x" * 8), Part(1, MAX_TRANSFER_BYTES, b"x")], ids=str
)
def test_a_part_that_is_not_as_the_first_declared_is_refused(part: Part) -> None:
    arriving = Arriving()
    arriving.take(Part(1, 8, b"x"))
    with pytest.raises(RemoteProtocolError, match="not as it was declared"):
        arriving.take(part)
    assert arriving.size == 8


def test_one_too_many_is_refused_by_number_and_by_what_they_declare() -> None:
    many, large = Arriving(), Arriving()
    for number in range(1, MAX_TRANSFERS + 1):
        many.take(Part(number, 2, b"x"))
    with pytest.raises(RemoteProtocolError, match="one too many"):
        many.take(Part(9, 2, b"x"))
    large.take(Part(1, MAX_TRANSFERS_BYTES - 5, b"x"))
    large.take(Part(2, 5, b"x"))
    with pytest.raises(RemoteProtocolError, match="one too many"):
        large.take(Part(3, 1, b"x"))
