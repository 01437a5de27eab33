"""
Strategic merge patch: a merge patch that knows which lists are keyed, for built-in kinds.

Directives understood: `$patch: replace|merge|delete` in objects and list entries, `$retainKeys`,
`$setElementOrder/FIELD` and `$deleteFromPrimitiveList/FIELD`. A list without an entry in the table below is
replaced as a whole, as an untagged list is in Kubernetes.

Pure. The given values are not changed. After k8s.io/apimachinery/pkg/util/strategicpatch.
"""

import copy
import json
from collections.abc import Mapping, Sequence

from apimachinery.errors import BadRequest
from apimachinery.objects import JSON

_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_PATCH = "$patch"
_RETAIN = "$retainKeys"
MAX_DEPTH = 100

# Field name to merge key. The patchMergeKey tags of k8s.io/api are per type; these names mean the same
# wherever they occur in a kind that is served here, but for those that the second table names by kind.
_MERGE_KEYS: Mapping[str, str] = {
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "hostIPs": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "podIPs": "ip",
    "ports": "containerPort",
    "resourceClaims": "name",
    "taints": "key",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
_MERGE_KEYS_BY_KIND: Mapping[tuple[str, str], str | None] = {
    ("Node", "addresses"): "type",
    ("Service", "ports"): "port",
    ("ServiceAccount", "secrets"): "name",
    ("EndpointSlice", "ports"): None,
    ("EndpointSlice", "conditions"): None,
    ("NetworkPolicy", "ports"): None,
}
MERGED_SETS = frozenset({"finalizers", "podCIDRs"})
"""Lists of plain values that are merged as sets."""


def merge(current: Mapping[str, JSON], patch: Mapping[str, JSON]) -> dict[str, JSON]:
    """The object after the patch. Raises BadRequest for a patch that cannot be understood."""
    return _object(current, patch, str(current.get("kind") or patch.get("kind") or ""), 0)


def diff(current: Mapping[str, JSON], wanted: Mapping[str, JSON]) -> dict[str, JSON]:
    """
    The patch after which `current` is `wanted`: merge(current, diff(current, wanted)) == wanted.

    Nulls in `wanted` count as absent, for that is what a merge makes of them.
    """
    return _object_diff(current, wanted, str(current.get("kind") or wanted.get("kind") or ""))


def _object_diff(current: Mapping[str, JSON], wanted: Mapping[str, JSON], kind: str) -> dict[str, JSON]:
    patch: dict[str, JSON] = {name: None for name in current if wanted.get(name) is None}
    for name, value in wanted.items():
        held = current.get(name)
        if value is None or value == held:
            continue
        if isinstance(value, Mapping) and isinstance(held, Mapping):
            if changed := _object_diff(held, value, kind):
                patch[name] = changed
        elif isinstance(value, list) and name in MERGED_SETS:
            patch[name] = copy.deepcopy(value)
            if gone := [item for item in _list(held) if item not in value]:
                patch[_DELETE + name] = gone
        elif isinstance(value, list):
            patch[name] = _list_diff(_list(held), value, name, kind)
        else:
            patch[name] = copy.deepcopy(value)
    return patch


def _list_diff(current: list[JSON], wanted: list[JSON], field: str, kind: str) -> list[JSON]:
    """Only the entries that differ, where that leads to the list that is wanted, and otherwise all of it."""
    key = merge_key(kind, field)
    if key is None or not all(isinstance(item, Mapping) and item.get(key) is not None for item in (*current, *wanted)):
        return copy.deepcopy(wanted)
    held = {json.dumps(item[key]): item for item in current}
    kept = {json.dumps(item[key]) for item in wanted}
    patch: list[JSON] = []
    for item in wanted:
        before = held.get(json.dumps(item[key]))
        changed = copy.deepcopy(dict(item)) if before is None else _object_diff(before, item, kind)
        if changed:
            patch.append({key: item[key]} | changed)
    patch += [{key: item[key], _PATCH: "delete"} for name, item in held.items() if name not in kept]
    if _merged_list(current, patch, field, kind, 0) == _without_nulls(wanted):
        return patch
    return [*copy.deepcopy(wanted), {_PATCH: "replace"}]


def _without_nulls(value: JSON) -> JSON:
    if isinstance(value, Mapping):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _object(current: Mapping[str, JSON], patch: Mapping[str, JSON], kind: str, depth: int) -> dict[str, JSON]:
    if depth > MAX_DEPTH:
        raise BadRequest(f"the patch is nested more than {MAX_DEPTH} deep")
    directive = patch.get(_PATCH, "merge")
    if directive == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != _PATCH}
    if directive == "delete":
        return {}
    if directive != "merge":
        raise BadRequest(f'the patch has an unknown directive "{_PATCH}: {directive}"')
    result = dict(current)
    retained = patch.get(_RETAIN)
    if isinstance(retained, list):
        result = {name: value for name, value in result.items() if name in retained}
    for name, value in patch.items():
        if name in (_PATCH, _RETAIN) or name.startswith(_ORDER):
            continue
        if name.startswith(_DELETE):
            field = name.removeprefix(_DELETE)
            result[field] = [item for item in _list(result.get(field)) if item not in _list(value)]
        elif value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            below = result.get(name)
            result[name] = _object(below if isinstance(below, Mapping) else {}, value, kind, depth + 1)
        elif isinstance(value, list):
            result[name] = _merged_list(_list(result.get(name)), value, name, kind, depth + 1)
        else:
            result[name] = value
    for name, order in patch.items():
        if name.startswith(_ORDER) and isinstance(order, list):
            field = name.removeprefix(_ORDER)
            if isinstance(result.get(field), list):
                result[field] = _ordered(result[field], order, _list(current.get(field)), merge_key(kind, field))
    return result


def _list(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []


def merge_key(kind: str, field: str) -> str | None:
    """What tells the entries of a list apart in a patch; None where the list is replaced as a whole."""
    return _MERGE_KEYS_BY_KIND[kind, field] if (kind, field) in _MERGE_KEYS_BY_KIND else _MERGE_KEYS.get(field)


def _merged_list(current: list[JSON], patch: list[JSON], field: str, kind: str, depth: int) -> list[JSON]:
    if field in MERGED_SETS:
        return [*current, *(item for item in patch if item not in current)]
    key = merge_key(kind, field)
    entries = [item for item in patch if isinstance(item, Mapping)]
    if key is None or len(entries) != len(patch) or any(not isinstance(item, Mapping) for item in current):
        return copy.deepcopy([item for item in patch if not (isinstance(item, Mapping) and item.get(_PATCH))])
    if any(item.get(_PATCH) == "replace" and len(item) == 1 for item in entries):
        return copy.deepcopy([dict(item) for item in entries if _PATCH not in item])
    result = list(current)
    for item in entries:
        if key not in item:
            raise BadRequest(f'an entry of the patch\'s list "{field}" lacks its merge key "{key}"')
        place = next((index for index, held in enumerate(result) if held.get(key) == item[key]), None)
        if item.get(_PATCH) == "delete":
            result = [held for held in result if held.get(key) != item[key]]
        elif place is None:
            result.append(_object({}, item, kind, depth))
        else:
            result[place] = _object(result[place], item, kind, depth)
    return _ordered(result, entries, current, key)


def _ordered(items: list[JSON], order: Sequence[JSON], before: list[JSON], key: str | None) -> list[JSON]:
    """
    Entries that the patch names in its order, the others in the order they had, merged.

    Where the two meet, the entry that stood first stays first; one that is new comes before one that is
    not named, which is why a container added by `kubectl patch` is the first of its list.
    """

    def identity(item: JSON) -> JSON:
        return item.get(key) if key is not None and isinstance(item, Mapping) else item

    wanted = [identity(item) for item in order]
    stood = [identity(item) for item in before]
    named = sorted((item for item in items if identity(item) in wanted), key=lambda item: wanted.index(identity(item)))
    others = [item for item in items if identity(item) not in wanted]
    merged: list[JSON] = []
    while named and others:
        first, second = identity(named[0]), identity(others[0])
        behind = first in stood and second in stood and stood.index(second) < stood.index(first)
        merged.append(others.pop(0) if behind else named.pop(0))
    return [*merged, *named, *others]
