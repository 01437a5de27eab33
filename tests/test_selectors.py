"""Label and field selectors, as kubectl writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import BadRequest
from apimachinery.selectors import parse_fields, parse_labels

LABELS = {"app": "web", "tier": "front", "example.com/rank": "7", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web", True),
        ("app=api", False),
        ("app!=api", True),
        ("missing!=x", True),
        ("app in (web, api)", True),
        ("app in (api)", False),
        ("app notin (api),tier=front", True),
        ("missing notin (x)", True),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("!app", False),
        ("example.com/rank=7", True),
        ("example.com/rank>6", True),
        ("example.com/rank<7", False),
        ("app>6", False),
        ("empty=", True),
        ("app=web,tier=back", False),
    ],
)
def test_label_selectors(text: str, matches: bool) -> None:
    assert parse_labels(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text", ["app=web,", "a b", "app in (a", "=x", "app=a=b", "app in a)", "-bad=x", "app=-x-", ",", "a/b/c"]
)
def test_malformed_label_selectors_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="unable to parse label selector"):
        parse_labels(text)


@given(st.text(max_size=40))
def test_any_text_is_either_a_selector_or_a_bad_request(text: str) -> None:
    for parse in (parse_labels, parse_fields):
        try:
            parse(text)
        except BadRequest:
            continue


def test_field_selectors() -> None:
    fields = {"metadata.name": "a", "spec.nodeName": "n"}
    selector = parse_fields("metadata.name=a,spec.nodeName!=m, status.phase=")
    assert selector.matches(lambda path: fields.get(path, ""))
    assert not parse_fields("metadata.name==b").matches(lambda path: fields.get(path, ""))
    with pytest.raises(BadRequest, match="cannot read"):
        parse_fields("metadata.name")
