"""docs/limits.md says what the constants are, and each names a test that there is."""

import importlib
import re
from typing import NamedTuple

import pytest

from tests.house import ROOT

PAGE = (ROOT / "docs" / "limits.md").read_text()


class Row(NamedTuple):
    constant: str
    value: str
    tests: tuple[str, ...]


ROWS = [
    Row(constant, value, tuple(re.findall(r"`([\w/.]+)`", tests)))
    for constant, value, tests in re.findall(r"(?m)^\| `([\w.]+)` \| ([\d.]+) \| .* \| ([^|]*) \|$", PAGE)
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.constant)
def test_a_limit_is_what_the_page_says_and_is_tested_where_it_says(row: Row) -> None:
    path, found = row.constant.split("."), None
    module = importlib.import_module(".".join(path[:2]))
    for name in path[2:]:
        found = getattr(module if found is None else found, name)
    assert str(found) == row.value
    assert row.tests, "a limit without a test"
    assert all((ROOT / name).exists() for name in row.tests)


def test_the_page_has_what_the_issue_asked_for() -> None:
    told = {row.constant.rpartition(".")[2] for row in ROWS}
    assert told >= {"MAX_FRAME_BYTES", "MAX_BODY_BYTES", "MAX_INVENTORY", "MAX_HEAD_BYTES", "MAX_UNPACKED_BYTES"}
    assert told >= {"MAX_NESTING", "MAX_ELEMENTS", "MAX_CALLS", "WINDOW_BYTES", "each", "OPEN_S", "HANDSHAKE_S"}
