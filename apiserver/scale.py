"""
The scale subresource: how many of something are wanted, said the same way for every kind that has replicas.

Pure. After autoscaling/v1 Scale, and the scale subresource of CustomResourceDefinitions.
"""

from collections.abc import Callable, Mapping

from apimachinery.errors import BadRequest, Cause, Invalid, NotFound
from apimachinery.objects import JSON, lookup
from apiserver.definitions import Definition
from apiserver.metadata import metadata_of

GROUP, VERSION, KIND = "autoscaling", "v1", "Scale"
MAX_REPLICAS = 2**31 - 1
_KEPT = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(body: Mapping[str, JSON], definition: Definition) -> dict[str, JSON]:
    """An object's Scale. Raises NotFound where the kind has none."""
    paths = definition.scale
    if paths is None:
        raise NotFound("the server could not find the requested resource")
    held = body.get("metadata")
    status: dict[str, JSON] = {"replicas": _count(lookup(body, paths.status))}
    if paths.selector and (selector := _selector(lookup(body, paths.selector))):
        status["selector"] = selector
    return {
        "kind": KIND,
        "apiVersion": f"{GROUP}/{VERSION}",
        "metadata": {name: held[name] for name in _KEPT if name in held} if isinstance(held, Mapping) else {},
        "spec": {"replicas": _count(lookup(body, paths.spec))},
        "status": status,
    }


def scaling(
    change: Callable[[dict[str, JSON]], dict[str, JSON]], definition: Definition
) -> Callable[[dict[str, JSON]], dict[str, JSON]]:
    """The change of an object that a change of its Scale is. It raises Invalid or BadRequest for what no Scale is."""

    def changed(current: dict[str, JSON]) -> dict[str, JSON]:
        wanted = change(scale_of(current, definition))
        assert definition.scale is not None, "it has a Scale"
        for name, expected in (("kind", KIND), ("apiVersion", f"{GROUP}/{VERSION}")):
            if wanted.get(name, expected) != expected:
                raise BadRequest(
                    f"the {name} in the data ({wanted[name]}) does not match the expected one ({expected})"
                )
        body = _with(current, definition.scale.spec.split("."), _wanted(wanted))
        version = metadata_of(wanted).get("resourceVersion") or metadata_of(current).get("resourceVersion")
        return {**body, "metadata": {**metadata_of(current), "resourceVersion": version}}

    return changed


def _wanted(scale: Mapping[str, JSON]) -> int:
    replicas = lookup(scale, "spec.replicas")
    if replicas is None:
        return 0
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas > MAX_REPLICAS:
        raise BadRequest(f"spec.replicas must be an integer of at most {MAX_REPLICAS}")
    if replicas < 0:
        message = f"Invalid value: {replicas}: must be greater than or equal to 0"
        cause = Cause("spec.replicas", "FieldValueInvalid", message)
        name = str(lookup(scale, "metadata.name") or "")
        raise Invalid(
            f'{KIND}.{GROUP} "{name}" is invalid: spec.replicas: {message}',
            causes=[cause], kind=KIND, group=GROUP, name=name,
        )  # fmt: skip
    return replicas


def _with(body: Mapping[str, JSON], steps: list[str], value: JSON) -> dict[str, JSON]:
    """A copy with a value set; what is beside the path is shared."""
    first, *rest = steps
    if rest:
        below = body.get(first)
        value = _with(below if isinstance(below, Mapping) else {}, rest, value)
    return {**body, first: value}


def _count(value: JSON) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _selector(value: JSON) -> str:
    """A selector as text: custom kinds keep it so, built-in ones as labels."""
    if isinstance(value, str):
        return value
    labels = value.get("matchLabels", value) if isinstance(value, Mapping) else None
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels)) if isinstance(labels, Mapping) else ""
