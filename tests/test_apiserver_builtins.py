"""The table of built-in kinds is consistent."""

from collections import Counter

from apimachinery.resources import BUILT_IN as NAMED
from apiserver.builtins import BUILT_IN, REVIEWS
from apiserver.definitions import ALL_VERBS


def test_every_kind_that_the_system_names_is_served() -> None:
    assert {definition.resource for definition in BUILT_IN} >= set(NAMED)


def test_no_name_means_two_things() -> None:
    places = Counter((found.resource.group, found.resource.plural) for found in (*BUILT_IN, *REVIEWS))
    assert [place for place, count in places.items() if count > 1] == []
    shorts = Counter(short for found in BUILT_IN for short in found.short_names)
    assert [short for short, count in shorts.items() if count > 1] == []


def test_plurals_are_lower_case_and_kinds_are_not() -> None:
    for found in (*BUILT_IN, *REVIEWS):
        assert found.resource.plural == found.resource.plural.lower()
        assert found.resource.kind[0].isupper()


def test_reviews_can_only_be_created() -> None:
    assert {found.verbs for found in REVIEWS} == {("create",)}
    assert {found.verbs for found in BUILT_IN} == {ALL_VERBS}
