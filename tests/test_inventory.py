"""The digest both sides compare."""

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.inventory import digest
from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.resources import CONFIG_MAPS, PODS

HELD = st.dictionaries(
    st.builds(
        ObjectKey,
        st.sampled_from([PODS, CONFIG_MAPS]),
        st.text("ab", max_size=2),
        st.text("ab", min_size=1, max_size=2),
    ),
    st.builds(ObjectVersion, st.text("ab", max_size=2), st.text("ab", max_size=2)),
    max_size=5,
)


@given(HELD, st.randoms())
def test_order_does_not_matter(held: dict[ObjectKey, ObjectVersion], random: object) -> None:
    items = list(held.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert digest(items) == digest(held.items())


@given(HELD, HELD)
def test_different_holdings_have_different_digests(
    one: dict[ObjectKey, ObjectVersion], other: dict[ObjectKey, ObjectVersion]
) -> None:
    assert (digest(one.items()) == digest(other.items())) == (one == other)


def test_the_digest_of_nothing_is_fixed() -> None:
    assert digest([]).hex() == "cae66941d9efbd404e4d88758ea67670"
