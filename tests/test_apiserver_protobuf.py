"""Kubernetes' protobuf: known bytes, shapes that differ from JSON, and rubbish."""

import base64
import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import ApiError, BadRequest, UnsupportedMediaType
from apimachinery.objects import JSON
from apiserver.protobuf import MAGIC, decode


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value & (1 << 64) - 1)


def text(field: int, value: bytes | str) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def entry(field: int, key: str, value: bytes | str) -> bytes:
    return text(field, text(1, key) + text(2, value))


def envelope(kind: str, body: bytes, api_version: str = "v1", rest: bytes = b"") -> bytes:
    return MAGIC + text(1, text(1, api_version) + text(2, kind)) + text(2, body) + rest


def test_a_configmap_as_kubectl_sends_it() -> None:
    """The bytes of `kubectl create configmap c --from-literal=a=b`, from a current kubectl."""
    data = base64.b64decode("azhzAAoPCgJ2MRIJQ29uZmlnTWFwEhsKEQoBYxIAGgAiACoAMgA4AEIAEgYKAWESAWIaACIA")
    assert decode(data) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"a": "b"},
    }


def pod_spec(body: bytes) -> JSON:
    return decode(envelope("Pod", text(2, body)))["spec"]


def test_values_of_another_shape_become_their_json() -> None:
    limits = entry(1, "cpu", text(1, "100m"))
    probe = text(1, text(2, text(1, "/") + text(2, number(2, 8080))))
    container = text(1, "c") + text(8, limits) + text(10, probe)
    assert pod_spec(text(2, container))["containers"] == [
        {
            "name": "c",
            "resources": {"limits": {"cpu": "100m"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": 8080}},
        }
    ]
    named = text(1, text(2, text(2, number(1, 1) + text(3, "web"))))
    assert pod_spec(text(2, text(10, named)))["containers"][0]["livenessProbe"]["httpGet"]["port"] == "web"
    volume = text(1, "v") + text(2, text(19, text(1, text(1, "cm"))))
    assert pod_spec(text(1, volume))["volumes"] == [{"name": "v", "configMap": {"name": "cm"}}]


def test_times_and_bytes() -> None:
    metadata = text(1, "s") + text(8, number(1, 1_800_000_000)) + text(9, b"")
    secret = decode(envelope("Secret", text(1, metadata) + entry(2, "k", b"\x00\xff")))
    assert secret["metadata"] == {"name": "s", "creationTimestamp": "2027-01-15T08:00:00Z"}
    assert secret["data"] == {"k": "AP8="}
    spec = text(1, "me") + number(2, 40) + text(4, number(1, 1_800_000_000) + number(2, 5000))
    assert decode(envelope("Lease", text(2, spec), "coordination.k8s.io/v1"))["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 40,
        "renewTime": "2027-01-15T08:00:00.000005Z",
    }


def test_zeros_that_mean_absent_are_left_out_and_those_that_count_stay() -> None:
    spec = number(11, 0) + text(10, "") + number(4, 0) + number(21, 0) + number(5, -1)
    assert pod_spec(spec) == {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "activeDeadlineSeconds": -1,
    }
    deployment = decode(envelope("Deployment", text(2, number(1, 0)), "apps/v1"))
    assert deployment["spec"] == {"replicas": 0}


def test_a_field_from_the_future_is_refused_unless_it_is_empty() -> None:
    assert decode(envelope("ConfigMap", text(999, b"") + number(998, 0))) == {"apiVersion": "v1", "kind": "ConfigMap"}
    with pytest.raises(BadRequest, match="field 999 of ConfigMap is newer"):
        decode(envelope("ConfigMap", text(999, b"x")))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", BadRequest),
        (b"{}", BadRequest),
        (envelope("Device", b""), UnsupportedMediaType),
        (envelope("ConfigMap", b"", rest=text(3, "gzip")), UnsupportedMediaType),
        (envelope("ConfigMap", b"\x0a\x7f"), BadRequest),
        (envelope("ConfigMap", b"\x0a" + b"\xff" * 12), BadRequest),
        (envelope("ConfigMap", b"\x0b"), BadRequest),
        (envelope("ConfigMap", number(1, 5)), BadRequest),
        (envelope("Pod", text(2, text(4, "text"))), BadRequest),
        (envelope("ConfigMap", text(1, text(1, b"\xff"))), BadRequest),
        (envelope("ConfigMap", text(1, text(8, number(1, 2**62)))), BadRequest),
        (envelope("ConfigMap", text(1, text(17, text(7, text(1, "{"))))), BadRequest),
        (MAGIC + number(1, 1), BadRequest),
    ],
)
def test_refusals(data: bytes, error: type[ApiError]) -> None:
    with pytest.raises(error):
        decode(data)


def test_wire_types_that_are_not_used_are_passed_over_when_empty() -> None:
    fixed = varint(998 << 3 | 5) + struct.pack("<I", 7)
    with pytest.raises(BadRequest, match="newer"):
        decode(envelope("ConfigMap", fixed))


def test_endless_nesting_is_refused() -> None:
    # JSONSchemaProps is not read; a selector inside an affinity is as deep as a kind can go, so depth is made of it.
    body = b""
    for _ in range(100):
        body = text(2, body)
    with pytest.raises(ApiError):
        decode(envelope("Pod", body))


KINDS = ["Pod", "ConfigMap", "Secret", "Lease", "Event", "Deployment", "DeleteOptions"]


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_any_bytes_are_an_object_or_an_error(kind: str, body: bytes) -> None:
    with contextlib.suppress(ApiError):
        assert isinstance(decode(envelope(kind, body)), dict)


@given(st.binary(max_size=60))
def test_any_envelope_is_an_object_or_an_error(body: bytes) -> None:
    with contextlib.suppress(ApiError):
        decode(MAGIC + body)
