"""Drawing on a terminal and on a pipe."""

import io
import os
import re
import shutil
import time
from collections.abc import Sequence

import pytest

from demo import screen
from demo.screen import Screen


class Terminal(io.StringIO):
    """A terminal of eight rows and thirty columns, which knows the escapes that the screen uses and no others."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        rows, row = [""], 0
        for part in re.findall(r"\x1b\[[0-9]*[A-Z]|\n|[^\x1b\n]+", self.getvalue()):
            match re.fullmatch(r"\x1b\[([0-9]*)([A-Z])", part):
                case None if part == "\n":
                    row += 1
                    rows += [""] * (row + 1 - len(rows))
                case None:
                    rows[row] = part
                case found if found[2] == "F":
                    row -= int(found[1])
                    assert row >= 0
                case found if found[2] == "K":
                    pass  # a row is written whole
                case found if found[2] == "J":
                    rows[row:] = [""]
                case found:
                    raise AssertionError(f"unknown escape {found[0]!r}")
        return rows[:-1]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((30, 8)))
    return Terminal()


@pytest.mark.parametrize("second", [["x", "y"], ["x"], ["x", "y", "z", "w"]])
def test_a_picture_takes_the_place_of_the_one_before(terminal: Terminal, second: Sequence[str]) -> None:
    drawn = Screen(terminal)
    drawn.draw(["a", "b", "c"])
    drawn.draw(second)
    assert terminal.shown() == list(second)


def test_what_is_said_stands_above_the_picture(terminal: Terminal) -> None:
    drawn = Screen(terminal)
    drawn.say("first")
    drawn.draw(["a", "b"])
    drawn.say("second\nand more")
    drawn.draw(["c", "d"])
    assert terminal.shown() == ["first", "second", "and more", "c", "d"]


def test_a_picture_never_outgrows_the_terminal(terminal: Terminal) -> None:
    drawn = Screen(terminal)
    drawn.draw(["x" * 100] * 100)
    shown = terminal.shown()
    assert len(shown) == 7
    assert max(map(len, shown)) == 29
    assert "taller window" in shown[-1]


def test_a_pipe_gets_plain_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    out, clock = io.StringIO(), iter([0.0, 1.0, screen.PLAIN_EVERY_S])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    drawn = Screen(out)
    for picture in ("one", "two", "three"):
        drawn.draw([picture])
    assert out.getvalue() == "one\n\nthree\n\n"
