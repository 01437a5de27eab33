"""What is kept is read back; what is not ours to read is told of and starts empty."""

import pytest

from devicetwin.documents import mapper_document, mapper_name, read_documents, twin_document, twin_name
from devicetwin.messages import DeviceId
from devicetwin.twin import Property, Reported, Twin
from devicetwin.wire import key_of

ID = DeviceId("default", "t")


def test_twins_and_mappers_are_read_back() -> None:
    twin = Twin(key_of(ID), "u", {"p": Property(reported=Reported("1", 1, None, 5))})
    kept = read_documents(
        {twin_name(ID): twin_document(twin), mapper_name("m1"): mapper_document([ID]), "other/x": b"whatever"}
    )
    assert kept.twins == {ID: twin}
    assert kept.mappers == {"m1": (ID,)}


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("twin/default/t", b"not json"),
        ("twin/default/t", b"{}"),
        ("twin/one-level", b"{}"),
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
