"""
What the store takes from the hub: a delta in, the object to be stored out, or why it cannot be taken.

The hub is trusted to mean well and not to be free of bugs: a body that is not the object its key says
would be served under a wrong name for ever, so it is looked at once, here, before it is stored.

Pure: no I/O.
"""

from collections.abc import Mapping

from apimachinery.objects import JSON, Object, revision_of
from componentbase.jsonbytes import parsed
from link.frames import MAX_NAME_BYTES, Delta, Refusal
from link.packing import Unpackable, unpack, unpack_against

MAX_BODY_BYTES = 3 << 20  # the link's bound, which is that of a request to an apiserver


class Untakable(Exception):
    """The delta cannot be stored; the text is a sentence for whoever looks at the node's state."""


class NotHeld(Untakable):
    """The delta cannot be unpacked here, as when it is told against a version that is not held: the JSON itself can."""


def unfold(delta: Delta, held: Object | None) -> Delta:
    """
    The delta with its body as JSON, given what is held under its key.

    The version is the digest of the body, so a body that unfolds to something else is noticed, whatever went
    wrong. Raises NotHeld. O(size of the body), which is bounded before it is made.
    """
    if not delta.size or delta.version is None:
        return delta
    size = min(delta.size, MAX_BODY_BYTES)
    try:
        if not delta.base:
            body = unpack(delta.body, size)
        elif held is None or (held.version.uid, held.version.revision) != (delta.version.uid, delta.base):
            raise NotHeld("told against a version that is not held")
        else:
            body = unpack_against(delta.body, size, held.body)
    except Unpackable as exc:
        raise NotHeld(str(exc)) from exc
    if revision_of(body) != delta.version.revision:
        raise NotHeld("does not unpack to the version it says")
    return Delta(delta.key, delta.version, body)


def take(delta: Delta) -> Object:
    """The object of a delta that is no removal. Raises Untakable. O(size of the body)."""
    assert delta.version is not None, "a removal has no body to look at"
    _check_key(delta)
    value = _decode(delta.body)
    metadata = value.get("metadata")
    if not isinstance(metadata, Mapping):
        raise Untakable("the body has no metadata")
    _check_identity(delta, value, metadata)
    labels = metadata.get("labels") or {}
    if not isinstance(labels, Mapping) or not all(isinstance(text, str) for text in labels.values()):
        raise Untakable("metadata.labels is not a mapping of strings")
    return Object(delta.key, delta.version, labels, delta.body)


def prepared(delta: Delta) -> Delta:
    """The delta, with what intake() makes of it where that does not depend on what is held. For any thread."""
    if delta.version is None or delta.base:
        return delta
    return delta._replace(body=b"", size=delta.whole_size, taken=intake(delta, None))


def intake(delta: Delta, held: Object | None) -> Object | Refusal:
    """The object of a delta that is no removal, given what is held under its key; or what to tell the hub."""
    if delta.taken is not None:
        return delta.taken
    try:
        return take(unfold(delta, held))
    except Untakable as error:
        return Refusal(delta.key, str(error), isinstance(error, NotHeld))


def _check_key(delta: Delta) -> None:
    resource, namespace, name = delta.key
    if not name or len(name) > MAX_NAME_BYTES or len(namespace) > MAX_NAME_BYTES:
        raise Untakable("the name is empty or too long")
    if bool(namespace) is not resource.namespaced:
        raise Untakable(f"a {resource.kind} {'needs a' if resource.namespaced else 'has no'} namespace")
    if len(delta.body) > MAX_BODY_BYTES:
        raise Untakable(f"the body has {len(delta.body)} bytes, more than {MAX_BODY_BYTES}")


def _decode(body: bytes) -> dict[str, JSON]:
    try:
        value = parsed(body)
    except RecursionError:
        raise Untakable("the body is nested too deeply") from None
    except ValueError as exc:
        raise Untakable(f"the body is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise Untakable("the body is not a JSON object")
    return value


def _check_identity(delta: Delta, value: Mapping[str, JSON], metadata: Mapping[str, JSON]) -> None:
    resource, namespace, name = delta.key
    said: tuple[tuple[str, object, str], ...] = (
        ("metadata.name", metadata.get("name"), name),
        ("metadata.namespace", metadata.get("namespace") or "", namespace),
    )
    # Items of a list that an apiserver gave need not say what they are.
    if "apiVersion" in value or "kind" in value:
        said += (
            ("apiVersion", value.get("apiVersion"), resource.api_version),
            ("kind", value.get("kind"), resource.kind),
        )
    for field, found, expected in said:
        if found != expected:
            raise Untakable(f"{field} in the body is {found!r:.80}, but the key says {expected!r}")
