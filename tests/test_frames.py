"""The words of the link are plain, immutable values."""

import typing

import pytest

from link.frames import Ack, Cursor, Frame, GoodbyeCode, Push


def test_there_are_nineteen_frames_each_with_its_own_fields() -> None:
    frames = typing.get_args(Frame)
    assert len(frames) == 19
    assert all(frame.__doc__ for frame in frames)


def test_a_frame_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Ack(1).seq = 2  # type: ignore[misc]
    assert Push(1, (), True) == Push(1, (), True)
    assert Cursor("e", 1) != Cursor("f", 1)


def test_goodbye_codes_are_words_on_the_wire() -> None:
    words = "shutdown superseded protocol forbidden overloaded resync stale ahead banned replaced"
    assert {code.value for code in GoodbyeCode} == set(words.split())
