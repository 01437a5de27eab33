"""The form of what is sent to the join endpoint. What it answers is tests/test_cloudhub_join.py."""

import json

import pytest

from apimachinery.errors import BadRequest, Invalid
from cloudhub.requests import MAX_ADDRESSES, Serving, read_object, read_serving


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="the request is not"):
        read_object(body)


def test_addresses_are_read_up_to_a_limit() -> None:
    addresses = [f"192.0.2.{number}" for number in range(MAX_ADDRESSES)]
    value = json.loads(json.dumps({"csr": "PEM", "addresses": addresses}))
    assert read_serving(value) == Serving(b"PEM", tuple(addresses))
    assert read_serving(None) is None
    for wrong in ({"addresses": [*addresses, "192.0.2.99"]}, {"addresses": ["hub.example"]}, {"csr": 5}):
        with pytest.raises(BadRequest):
            read_serving(value | wrong)
    with pytest.raises(Invalid):
        read_serving(value | {"csr": "é"})
