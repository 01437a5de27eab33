"""The JSONPath of printer columns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.objects import JSON
from apiserver.jsonpath import compile_path, find

BODY = {
    "metadata": {"labels": {"a.b/c": "x", "plain": "y"}, "name": "t"},
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False", "ok": True}],
        "numbers": [1, 2, 3],
    },
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".metadata.name", ["t"]),
        ("{.metadata.name}", ["t"]),
        ("$.metadata.name", ["t"]),
        ("metadata.name", ["t"]),
        (r".metadata.labels.a\.b/c", ["x"]),
        (".metadata.labels['a.b/c']", ["x"]),
        ('.metadata.labels["plain"]', ["y"]),
        (".status.numbers[0]", [1]),
        (".status.numbers[-1]", [3]),
        (".status.numbers[7]", []),
        (".status.numbers[*]", [1, 2, 3]),
        (".status.conditions[*].type", ["Ready", "Synced"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type == 'Nothing')].status", []),
        ('.status.conditions[?(@.type!="Ready")].status', ["False"]),
        (".status.conditions[?(@.ok==true)].type", ["Synced"]),
        (".status.missing.deeper", []),
        (".metadata.name.deeper", []),
        ("", [BODY]),
    ],
)
def test_paths(path: str, expected: list[JSON]) -> None:
    assert find(BODY, path) == expected


@pytest.mark.parametrize("path", [".a[", ".a[?(@.b>1)]", ".a b", ".a[1:2]", "..a", ".a[?(@.b)]"])
def test_what_is_not_supported_is_refused_when_compiled_and_finds_nothing(path: str) -> None:
    with pytest.raises(ValueError, match="cannot read the path"):
        compile_path(path)
    assert find(BODY, path) == []


JSON_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.sampled_from("ab1"), value, max_size=3),
)


@given(st.text(alphabet=".[]?(@)=='\"*ab1\\ {}$", max_size=30), JSON_VALUES)
def test_find_never_raises(path: str, value: JSON) -> None:
    assert isinstance(find(value, path), list)
