"""
Sets of field paths, in the form that managedFields keeps them in (FieldsV1).

A set is nested objects whose names are the steps of paths: "f:NAME" is a field or a key of a map, "k:{...}" the
entry of a list that has these keys, "v:..." the entry of a set that has this value. A node is itself in the
set when it is empty or holds ".". Working on this form saves a translation at every write.

Invariants
    no function changes the sets it is given; results may share nodes with them
    every node of a result is a member or leads to one

Pure. The form is metav1.FieldsV1's; what the operations mean is from sigs.k8s.io/structured-merge-diff (fieldpath.Set).
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from apimachinery.objects import JSON, canonical

FieldSet = Mapping[str, "FieldSet"]

MEMBER = "."
MAX_DEPTH = 100  # of a set that a client gives back
NOTHING: FieldSet = {}


def field(name: str) -> str:
    """The step to a field."""
    return f"f:{name}"


def entry(keys: Mapping[str, JSON]) -> str:
    """The step to the entry of a list that is told by these keys."""
    return f"k:{canonical(keys).decode()}"


def item(value: JSON) -> str:
    """The step to an entry of a set."""
    return f"v:{canonical(value).decode()}"


def is_member(node: FieldSet) -> bool:
    """Whether the node's own path is in the set, whatever is below it."""
    return not node or MEMBER in node


def insert(into: dict[str, JSON], path: Sequence[str]) -> None:
    """Add one path, of at least one step, to a set that is being built."""
    *above, last = path
    node = into
    for step in above:
        below = node.get(step)
        if below is None:
            below = node[step] = {}
        elif not below:
            below[MEMBER] = {}
        node = below
    if last not in node:
        node[last] = {}
    elif node[last]:
        node[last][MEMBER] = {}


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    return _combined(left, right, left_only=True, right_only=True, both=True)


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """The paths of `left` that are not in `right`; what is below a path of `right` stays."""
    return _combined(left, right, left_only=True, right_only=False, both=False) if right else left


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    return _combined(left, right, left_only=False, right_only=False, both=True)


def _combined(left: FieldSet, right: FieldSet, *, left_only: bool, right_only: bool, both: bool) -> FieldSet:
    found: dict[str, FieldSet] = {}
    for step, node in left.items():
        if step == MEMBER:
            continue
        other = right.get(step)
        if other is None:
            if left_only:
                found[step] = node
            continue
        here, there = is_member(node), is_member(other)
        below = _combined(node, other, left_only=left_only, right_only=right_only, both=both)
        if both if here and there else left_only if here else right_only and there:
            found[step] = {MEMBER: NOTHING, **below} if below else NOTHING
        elif below:
            found[step] = below
    if right_only:
        found.update({step: node for step, node in right.items() if step not in left and step != MEMBER})
    return found


def without_all(left: FieldSet, right: FieldSet) -> FieldSet:
    """The paths of `left` that are neither in `right` nor below a path of it."""
    found: dict[str, FieldSet] = {}
    for step, node in left.items():
        other = right.get(step)
        if step == MEMBER or other is None:
            found[step] = node
        elif not is_member(other):
            below = without_all(node, other)
            if is_member(node):
                found[step] = below if len(below) > 1 else NOTHING
            elif below:
                found[step] = below
    return found


def paths(of: FieldSet) -> Iterator[tuple[str, ...]]:
    """All paths, at each level those that end there before those that go on."""
    steps = sorted(step for step in of if step != MEMBER)
    for step in steps:
        if is_member(of[step]):
            yield (step,)
    for step in steps:
        for path in paths(of[step]):
            yield (step, *path)


def shown(path: Sequence[str]) -> str:
    """A path as people read it: .spec.containers[name="web"].image"""
    text = ""
    for step in path:
        kind, _, rest = step.partition(":")
        match kind:
            case "f":
                text += f".{rest}"
            case "k":
                pairs = json.loads(rest).items()
                text += f"[{','.join(f'{name}={canonical(value).decode()}' for name, value in pairs)}]"
            case "v":
                text += f"[={rest}]"
            case _:
                text += f"[{rest}]"
    return text


def is_fieldset(value: JSON, depth: int = 0) -> bool:
    """Whether a value has the form of a set, for what comes from a client."""
    if not isinstance(value, Mapping) or depth > MAX_DEPTH:
        return False
    return all(
        below == {} if step == MEMBER else _is_step(step) and is_fieldset(below, depth + 1)
        for step, below in value.items()
    )


def _is_step(step: str) -> bool:
    kind, colon, rest = step.partition(":")
    if not colon:
        return False
    if kind == "f":
        return True
    try:
        value = json.loads(rest)
    except (ValueError, RecursionError):
        return False
    match kind:
        case "k":
            return isinstance(value, dict) and bool(value)
        case "i":
            return isinstance(value, int)
    return kind == "v"
