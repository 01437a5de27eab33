"""Messages are cut as the library cuts them, whatever the pieces; and all that is not one reaches the library."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from link.wsframes import Cutter, framed, masked

MOST = 70_000

FRAMES = st.one_of(
    st.builds(lambda data: Frame(Opcode.BINARY, data), st.binary(max_size=300)),
    st.builds(lambda size: Frame(Opcode.BINARY, b"x" * size), st.sampled_from([125, 126, 65_535, 65_536])),
    st.builds(lambda data: Frame(Opcode.PING, data), st.binary(max_size=125)),
    st.builds(lambda data: Frame(Opcode.TEXT, data.encode()), st.text(max_size=20)),
    st.builds(lambda data: Frame(Opcode.CLOSE, b"\x03\xe8" + data), st.binary(max_size=0)),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def cut(cutter: Cutter, data: bytes, cuts: list[int]) -> list[tuple[bool, bytes]]:
    found: list[tuple[bool, bytes]] = []
    for piece in pieces(data, cuts):
        if (message := cutter.whole(piece)) is not None:
            found.append((True, message))
            continue
        cutter.feed(piece)
        found += iter(lambda: cutter.next(True), None)
    return found


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(0, 200_000), max_size=12), st.booleans())
def test_messages_come_out_and_everything_else_goes_to_the_library_in_order(
    frames: list[Frame], cuts: list[int], masked: bool
) -> None:
    raw = [frame.serialize(mask=masked) for frame in frames]
    found = cut(Cutter(masked, MOST), b"".join(raw), cuts)
    assert found == [
        (True, bytes(frame.data)) if frame.opcode is Opcode.BINARY else (False, data)
        for frame, data in zip(frames, raw, strict=True)
    ]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_of_whatever_bytes_nothing_is_lost_or_made_up(data: bytes, cuts: list[int], masked: bool) -> None:
    """With nothing plain all of it goes to the library, which says what it would have said of the uncut bytes."""
    cutter = Cutter(masked, MOST)
    handed = b""
    for piece in pieces(data, cuts):
        cutter.feed(piece)
        handed += b"".join(part for _, part in iter(lambda: cutter.next(False), None))
    assert data.startswith(handed)
    library, whole = (Protocol(SERVER if masked else CLIENT, max_size=MOST) for _ in range(2))
    library.receive_data(handed)
    whole.receive_data(data)
    heard = library.events_received()
    assert whole.events_received()[: len(heard)] == heard
    if whole.parser_exc is not None:
        assert type(library.parser_exc) is type(whole.parser_exc) or library.parser_exc is None


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 69_999])
def test_what_is_written_is_the_librarys(size: int) -> None:
    data = b"x" * size
    assert framed(data) == Frame(Opcode.BINARY, data).serialize(mask=False)
    library = Protocol(SERVER, max_size=MOST)
    library.receive_data(masked(data, b"\x01\xff\x00\x7f"))
    assert library.events_received() == [Frame(Opcode.BINARY, data)]


def test_a_message_over_the_limit_is_the_librarys_to_refuse() -> None:
    cutter = Cutter(True, 1000)
    raw = Frame(Opcode.BINARY, b"x" * 1001).serialize(mask=True)
    cutter.feed(raw[:100])
    assert cutter.next(True) == (False, raw[:100])
    cutter.feed(raw[100:])
    assert cutter.next(True) == (False, raw[100:])


def test_in_the_middle_of_a_fragmented_message_nothing_is_plain() -> None:
    raw = Frame(Opcode.BINARY, b"whole").serialize(mask=True)
    cutter = Cutter(True, 1000)
    cutter.feed(raw)
    assert cutter.next(False) == (False, raw)


def test_a_large_frame_in_small_pieces_is_not_copied_for_each() -> None:
    """Whoever sends 4 MiB but for a byte, and then bytes one by one, had the hub copy 4 MiB for each."""
    cutter, body = Cutter(False, MOST), bytes(MOST)
    frame = framed(body)
    cutter.feed(frame[:10_000])
    cutter.feed(frame[10_000:10_001])
    gathered = cutter._data
    for place in range(10_001, len(frame)):
        assert cutter.next(True) is None
        cutter.feed(frame[place : place + 1])
        assert cutter._data is gathered
    assert cutter.next(True) == (True, body)
    cutter.feed(framed(b"x"))
    assert cutter.next(True) == (True, b"x")
