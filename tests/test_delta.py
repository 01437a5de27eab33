"""The subtraction."""

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.resources import PODS
from cloudhub.delta import diff

HOLDINGS = st.dictionaries(
    st.builds(ObjectKey, st.just(PODS), st.just("n"), st.sampled_from("abcd")),
    st.builds(ObjectVersion, st.sampled_from("uv"), st.sampled_from("12")),
)


@given(HOLDINGS, HOLDINGS)
def test_applying_the_difference_to_known_gives_desired(
    desired: dict[ObjectKey, ObjectVersion], known: dict[ObjectKey, ObjectVersion]
) -> None:
    held = dict(known)
    for key, version in diff(desired, known):
        assert held.get(key) != version, "nothing is sent for nothing"
        if version is None:
            del held[key]
        else:
            held[key] = version
    assert held == desired


@given(HOLDINGS)
def test_there_is_no_difference_to_oneself(held: dict[ObjectKey, ObjectVersion]) -> None:
    assert list(diff(held, held)) == []
