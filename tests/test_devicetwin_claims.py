"""Who serves which device, seen from both sides."""

from hypothesis import given
from hypothesis import strategies as st

from devicetwin.claims import MAX_MAPPERS, MapperClaims
from devicetwin.topics import DeviceId

A, B, C = (DeviceId("default", name) for name in "abc")


def test_a_device_with_two_mappers_is_contested_until_one_lets_go() -> None:
    claims = MapperClaims({"m1": (A, B)})
    assert claims.take("m2", (B, C)) == [B]
    assert claims.of(B) == ("m1", "m2")
    assert list(claims.contested) == [B]
    assert claims.take("m2", (C,)) == [B]
    assert list(claims.contested) == []
    assert claims.take("m2", None) == []
    assert claims.of(C) == ()
    assert claims.served_by("m2") is None


def test_a_list_that_names_a_device_twice_claims_it_once() -> None:
    claims = MapperClaims({})
    assert claims.take("m1", (A, A)) == []
    assert claims.of(A) == ("m1",)


def test_it_is_full_at_its_bound() -> None:
    assert not MapperClaims({}).is_full
    assert MapperClaims({f"m{n}": () for n in range(MAX_MAPPERS)}).is_full


@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.none() | st.lists(st.sampled_from([A, B, C]), max_size=4).map(tuple)),
        max_size=12,
    )
)
def test_both_sides_say_the_same(history: list[tuple[str, tuple[DeviceId, ...] | None]]) -> None:
    claims = MapperClaims({})
    lists: dict[str, tuple[DeviceId, ...]] = {}
    for mapper, devices in history:
        before = {each: set(claims.of(each)) for each in (A, B, C)}
        concerned = claims.take(mapper, devices)
        lists.pop(mapper, None)
        if devices is not None:
            lists[mapper] = devices
        for device in (A, B, C):
            expected = {name for name, listed in lists.items() if device in listed}
            assert set(claims.of(device)) == expected
            assert (device in claims.contested) == (len(expected) > 1)
            if before[device] != expected:
                assert (device in concerned) == (max(len(before[device]), len(expected)) > 1)
    assert all(claims.served_by(name) == lists.get(name) for name in "xyz")
