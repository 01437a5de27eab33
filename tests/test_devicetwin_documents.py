"""What is kept is read back; what is not ours to read is told of and starts empty."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicetwin.documents import mapper_document, mapper_name, read_documents, twin_documents, twin_name
from devicetwin.messages import DeviceId
from devicetwin.twin import Property, Reported, Twin
from devicetwin.wire import key_of

ID = DeviceId("default", "t")


def reading(value: str) -> Property:
    return Property(reported=Reported(value, 1, None, 5))


def twin(**values: str) -> Twin:
    return Twin(key_of(ID), "u", {name: reading(value) for name, value in values.items()})


def test_twins_and_mappers_are_read_back() -> None:
    written = dict(twin_documents(twin(p="1", q="2"), None))
    assert set(written) == {"twin/default/t", "twin/default/t/p", "twin/default/t/q"}
    found = {name: value for name, value in written.items() if value}
    kept = read_documents({**found, mapper_name("m1"): mapper_document([ID]), "other/x": b"whatever"})
    assert kept.twins == kept.split == {ID: twin(p="1", q="2")}
    assert kept.mappers == {"m1": (ID,)}


def test_a_change_writes_what_changed_and_deletes_what_is_gone() -> None:
    before = twin(p="1", q="2", r="3")
    after = before._replace(properties={"p": before.properties["p"], "q": reading("20")})
    assert dict(twin_documents(before, before)) == {}
    assert [(name, value is None) for name, value in twin_documents(after, before)] == [
        ("twin/default/t/q", False),
        ("twin/default/t/r", True),
    ]
    assert [name for name, _ in twin_documents(before._replace(state="ok"), before)] == ["twin/default/t"]


NAMES = st.sampled_from(["p", "q", "a/b", "a/b/c", "/"])
TWINS = st.builds(
    lambda values, state: Twin(key_of(ID), "u", {name: reading(value) for name, value in values.items()}, state),
    st.dictionaries(NAMES, st.sampled_from("123")),
    st.sampled_from(["", "ok"]),
)


@given(st.lists(TWINS, min_size=1))
def test_after_any_changes_what_is_kept_is_the_last_twin(history: list[Twin]) -> None:
    disk: dict[str, bytes] = {}
    before: Twin | None = None
    for each in history:
        for name, value in twin_documents(each, before):
            if value is None:
                del disk[name]
            else:
                disk[name] = value
        before = each
        assert read_documents(disk).twins == {ID: each}


@pytest.mark.parametrize("rows", [{}, {"twin/default/t/p": b"{}", "twin/default/t/gone": b"{}"}])
def test_a_twin_in_one_document_is_read_and_split_at_its_next_change(rows: dict[str, bytes]) -> None:
    whole = twin(p="1", q="2")
    disk = {twin_name(ID): json.dumps(whole.to_json()).encode(), **rows}
    kept = read_documents(disk)
    assert kept.twins == {ID: whole}
    for name, value in twin_documents(whole, kept.split.get(ID)):
        if value is None:
            del disk[name]
        else:
            disk[name] = value
    assert set(disk) == {"twin/default/t", "twin/default/t/p", "twin/default/t/q"}
    assert read_documents(disk).twins == {ID: whole}


def test_properties_whose_twin_is_gone_go_with_the_next_one() -> None:
    kept = read_documents({"twin/default/t/p": b"{}", "twin/default/t/q": b"{}"})
    assert kept.twins == {}
    written = dict(twin_documents(twin(p="1"), kept.split[ID]))
    assert written["twin/default/t/q"] is None
    assert set(written) == {"twin/default/t", "twin/default/t/p", "twin/default/t/q"}


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("twin/default/t", b"not json"),
        ("twin/default/t", b"{}"),
        ("twin/one-level", b"{}"),
        ("twin/default/t/p", b"[1]"),
        ("mapper/m", b"[]"),
        ("mapper/m", b'{"devices":[5]}'),
        ("mapper/m", b'{"devices":["one-level"]}'),
    ],
)
def test_a_document_nobody_can_read_is_told_of_and_left_out(
    name: str, document: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    kept = read_documents({name: document})
    assert (kept.twins, kept.mappers) == ({}, {})
    assert "not readable" in caplog.text
