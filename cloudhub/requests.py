"""What is sent to the join endpoint and what joining and renewing have in common in it; its form, not who may."""

import ipaddress
import json
from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.errors import BadRequest, Invalid

MAX_ADDRESSES = 16  # of a node; most have one, some one per network


class Link(NamedTuple):
    """Where the joined node finds the hub, on the host it joined through."""

    port: int
    path: str = "/v1/link"


class Serving(NamedTuple):
    """What a node asks for to serve its own API."""

    csr: bytes
    addresses: tuple[str, ...]


def read_object(body: bytes) -> Mapping[str, object]:
    """Raises BadRequest where it is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the request is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the request is not a JSON object")
    return value


def read_serving(value: object) -> Serving | None:
    """Raises BadRequest or Invalid."""
    if value is None:
        return None
    csr, listed = (value.get("csr"), value.get("addresses")) if isinstance(value, dict) else (None, None)
    if not isinstance(csr, str) or not isinstance(listed, list) or len(listed) > MAX_ADDRESSES:
        raise BadRequest(f'"serving" must have a csr, and at most {MAX_ADDRESSES} addresses')
    if not csr.isascii():
        raise Invalid("the certificate signing request is not PEM")
    try:
        return Serving(csr.encode(), tuple(str(ipaddress.ip_address(each)) for each in listed))
    except ValueError:
        raise BadRequest('"serving.addresses" must be IP addresses') from None
