"""
Which objects a request selects, and in what order a list has them.

Storages use it to answer lists, the watch to tell what enters and leaves a selection.
"""

from collections.abc import Callable, Iterable, Sequence

from apimachinery.errors import BadRequest
from apimachinery.events import Change
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, Object, lookup
from apimachinery.resources import EVENTS
from apimachinery.selectors import ALL_FIELDS, EVERYTHING, FieldSelector, LabelSelector
from apiserver.definitions import Definition

_METADATA_FIELDS = ("metadata.name", "metadata.namespace")
_ABSENT = {"spec.unschedulable": "false", "spec.hostNetwork": "false"}
"""What a field that is not there says: booleans are false, everything else is the empty string."""


def check_fields(definition: Definition, fields: FieldSelector) -> None:
    """Raises BadRequest for a field that this kind cannot be selected by, in Kubernetes' words."""
    for path, _, _ in fields.terms:
        if path not in _METADATA_FIELDS and path not in definition.selectable:
            raise BadRequest(f"field label not supported: {path}")


def selects(item: Object, labels: LabelSelector = EVERYTHING, fields: FieldSelector = ALL_FIELDS) -> bool:
    """Whether an object is in the selection. Parses the body only for fields that are not in its key."""
    return labels.matches(item.labels) and (not fields.terms or fields.matches(_values(item)))


def _values(item: Object) -> Callable[[str], str]:
    body: dict[str, JSON] | None = None

    def value_at(path: str) -> str:
        nonlocal body
        if path == "metadata.name":
            return item.key.name
        if path == "metadata.namespace":
            return item.key.namespace
        if body is None:
            body = item.parse()
        value = lookup(body, path)
        if path == "source" and item.key.resource == EVENTS:
            # An Event's selectable source is a name; the field is an object (registry/core/event: ToSelectableFields).
            value = lookup(value, "component") or body.get("reportingComponent")
        if value is None:
            return _ABSENT.get(path, "")
        return str(value).lower() if isinstance(value, bool) else str(value)

    return value_at


def order(key: ObjectKey) -> tuple[str, str]:
    """Lists are ordered by namespace and name, so that a continued list can begin after a key."""
    return key.namespace, key.name


def rewind(
    items: Iterable[tuple[Object, int]], changes: Sequence[Change], resource: Resource, namespace: str, revision: int
) -> list[tuple[Object, int]]:
    """
    What a list was at `revision`: the items now minus the changes since then, newest undone first.

    items: all objects of `resource` in `namespace` ("" for all) with their own revisions. An object that
    is brought back gets `revision`: its own was not kept, and it was in this state then.
    """
    held = {item.key: (item, own) for item, own in items}
    for change in reversed(changes):
        key = change.object.key
        if key.resource != resource or (namespace and key.namespace != namespace):
            continue
        if change.previous is None:
            held.pop(key, None)
        else:
            held[key] = change.previous, revision
    return [held[key] for key in sorted(held, key=order)]
