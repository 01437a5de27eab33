"""Names that nodes can have."""

import pytest

from apimachinery.nodenames import problem


@pytest.mark.parametrize("name", ["a", "edge-1", "0", "rack7.hall-2.example", "x" * 52])
def test_what_a_node_can_be_called_is_no_problem(name: str) -> None:
    assert problem(name) == ""


@pytest.mark.parametrize("name", ["Rack_7", "Edge", "-a", "a-", "a..b", "a_b", "a/b", "ä", "a\nb", "../x"])
def test_another_name_is_shown_with_what_would_do(name: str) -> None:
    assert "cannot be a node name: use lower-case letters" in problem(name)


@pytest.mark.parametrize("length", [0, 53])
def test_the_length_is_told(length: int) -> None:
    told = f"a node name has 1 to 52 characters, for which a certificate has room; this one has {length}"
    assert problem("x" * length) == told
