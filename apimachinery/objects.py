"""
An object as the system carries it: its key, its version, its labels and its bytes.

A body is canonical JSON, serialised once and shared by every queue, cache and connection that holds
it; two bodies are equal exactly when their bytes are. Whoever wants to look inside parses it, whoever
only carries it never does.

Invariants
    canonical(parse(body)) == body for every Object.body
    an Object is never changed after it was made
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from apimachinery.errors import BadRequest
from apimachinery.keys import ObjectKey, ObjectVersion, Resource

JSON = Any
"""What json.loads returns. The only place outside codec and client code where a type is left open."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which `kubectl apply` keeps what it was given."""

REVISION_BYTES = 12  # 96 bits: a collision among 10^9 versions of one object is still less likely than 1 in 10^10


# Made once: json.dumps with arguments makes one for each call, a third of the time of a small value.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class NotJSON(ValueError):
    """A value that JSON cannot hold: an infinity, half a surrogate pair."""


def canonical(value: JSON) -> bytes:
    """Sorted keys, no blanks, UTF-8: one value has one encoding. Raises NotJSON."""
    try:
        return _ENCODER.encode(value).encode()
    except ValueError as exc:
        raise NotJSON(str(exc)) from None


def revision_of(body: bytes) -> str:
    """The digest that serves as a version's revision: 24 hexadecimal digits of BLAKE2b."""
    return hashlib.blake2b(body, digest_size=REVISION_BYTES).hexdigest()


class Object(NamedTuple):
    """One object in one version."""

    key: ObjectKey
    version: ObjectVersion
    labels: Mapping[str, str]
    body: bytes
    """Canonical JSON."""
    found: object = None
    """What somebody who looked into the body wants to know again without parsing it; None where nobody did."""

    def parse(self) -> dict[str, JSON]:
        """A fresh copy of the body, which the caller may change."""
        value: dict[str, JSON] = json.loads(self.body)
        return value


def from_json(
    resource: Resource,
    value: Mapping[str, JSON],
    *,
    revision: str | None = None,
    encode: Callable[[JSON], bytes] = canonical,
) -> Object:
    """
    The Object for a decoded body.

    revision: what to use as the version's revision; metadata.resourceVersion when None (the cluster's
    own), or a digest of the bytes where that is empty too. encode: `canonical`, or what writes the same.
    Raises BadRequest when the body has no metadata.name, NotJSON.
    """
    metadata = value.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise BadRequest(f"a {resource.kind} without metadata.name")
    body = encode(value)
    labels = metadata.get("labels") or {}
    if revision is None:
        revision = str(metadata.get("resourceVersion") or "") or revision_of(body)
    return Object(
        key=ObjectKey(resource, metadata.get("namespace") or "" if resource.namespaced else "", metadata["name"]),
        version=ObjectVersion(str(metadata.get("uid") or ""), revision),
        labels={str(name): str(label) for name, label in labels.items()},
        body=body,
    )


def lookup(value: JSON, path: str) -> JSON:
    """
    The value at a dotted path such as "spec.nodeName"; None where any step is missing or not a mapping.

    A step may be quoted by nothing: label keys with dots are read with `metadata.labels` and a subscript.
    """
    for step in path.split("."):
        # A dict nearly always, and that is told in a fifth of the time.
        if type(value) is not dict and not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value
