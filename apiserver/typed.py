"""
Values with the type that their schema gives them: compared, merged and reduced field by field.

The type says what is one thing and what has parts. A map's keys and an object's fields are parts of their
own; a list is one thing unless its schema makes it a set or a map by keys (x-kubernetes-list-type); an
object is one thing where its schema says so (x-kubernetes-map-type: atomic). Where there is no schema,
objects have parts and lists do not.

Invariants
    compare(a, a) finds nothing; merge(a, a) is a
    values are never changed; results may share parts with them

Pure. After sigs.k8s.io/structured-merge-diff (typed), whose words the errors are in.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from apimachinery.objects import JSON
from apiserver import fieldsets
from apiserver.fieldsets import MEMBER, NOTHING, FieldSet

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
MISSING: Final = object()
"""What is not there, told from null, which is."""


class Type:
    """One schema, read as far as it matters here; what is below is read when it is first asked for."""

    __slots__ = (
        "_below",
        "_definitions",
        "_fields",
        "atomic",
        "default",
        "element",
        "is_open",
        "keys",
        "schema",
        "shape",
    )

    def __init__(self, schema: Mapping[str, JSON], definitions: Mapping[str, JSON] | None = None) -> None:
        """definitions: what "$ref" names by its last part."""
        self._definitions = definitions or {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            schema = {**self._definitions[reference.rpartition("/")[2]], **schema}
        self.schema = schema
        self.default: JSON = schema.get("default")
        self._below: dict[str, Type] = {}
        properties, extra, items = (schema.get(name) for name in ("properties", "additionalProperties", "items"))
        self._fields: Mapping[str, JSON] = properties if isinstance(properties, Mapping) else {}
        self.element: Mapping[str, JSON] = {}
        self.is_open = bool(schema.get(_PRESERVE)) or extra is True
        self.keys: tuple[str, ...] = ()
        kind = schema.get("type")
        if schema.get(_INT_OR_STRING) or kind in ("string", "integer", "number", "boolean"):
            self.shape, self.atomic = "scalar", True
        elif kind == "array":
            self.shape = "list"
            self.element = items if isinstance(items, Mapping) else {}
            keys = schema.get("x-kubernetes-list-map-keys")
            is_map = schema.get("x-kubernetes-list-type") == "map" and isinstance(keys, list) and bool(keys)
            self.keys = tuple(map(str, keys)) if is_map and isinstance(keys, list) else ()
            self.atomic = not is_map and schema.get("x-kubernetes-list-type") != "set"
        elif kind == "object" or self._fields or isinstance(extra, Mapping):
            self.shape = "map"
            if isinstance(extra, Mapping):
                self.element, self.is_open = extra, True
            self.is_open = self.is_open or not self._fields
            self.atomic = schema.get("x-kubernetes-map-type") == "atomic"
        else:
            self.shape, self.atomic, self.is_open = "any", False, True

    def has_field(self, name: str) -> bool:
        """Whether the schema names this field, as opposed to a key that a map happens to have."""
        return name in self._fields

    def field(self, name: str) -> "Type":
        """The type of a field or of a map's value."""
        return self._of(f"f:{name}", self._fields.get(name, self.element)) if name in self._fields else self.entry()

    def entry(self) -> "Type":
        """The type of a list's entries, or of a map's values."""
        return self._of("", self.element)

    def _of(self, place: str, schema: JSON) -> "Type":
        found = self._below.get(place)
        if found is None:
            made = Type(schema if isinstance(schema, Mapping) else {}, self._definitions)
            found = self._below[place] = made
        return found

    def shape_of(self, value: JSON) -> str:
        """ "map" or "list" where the value is to be taken apart, "leaf" where it is one thing."""
        if self.atomic:
            return "leaf"
        if isinstance(value, dict):
            return "map" if self.shape in ("map", "any") else "leaf"
        # A list without a schema is one thing.
        return "list" if isinstance(value, list) and self.shape == "list" else "leaf"

    def steps(self, value: Sequence[JSON]) -> list[str] | None:
        """The steps to a list's entries; None where they cannot be told apart by them."""
        found = [self.step(below) for below in value]
        known = [step for step in found if step is not None]
        return known if len(known) == len(set(known)) == len(value) else None

    def step(self, below: JSON) -> str | None:
        """The step to one entry; None where it lacks its keys."""
        if not self.keys:
            return None if isinstance(below, dict | list) else fieldsets.item(below)
        if not isinstance(below, Mapping):
            return None
        keys = {name: below.get(name, self.entry().field(name).default) for name in self.keys}
        if all(name not in below for name in self.keys):
            return None
        return fieldsets.entry({name: value for name, value in keys.items() if value is not None})


ANY = Type({})


class Comparison(NamedTuple):
    """What differs between two values."""

    added: FieldSet
    changed: FieldSet
    removed: FieldSet


def compare(old: JSON, new: JSON, of: Type) -> Comparison:
    """What `new` has more, other and less than `old`. Parts that are equal are not looked into."""
    found: tuple[dict[str, JSON], ...] = ({}, {}, {})
    _compare(old, new, of, (), found)
    return Comparison(*found)


def _compare(old: JSON, new: JSON, of: Type, path: tuple[str, ...], found: tuple[dict[str, JSON], ...]) -> None:
    if same(old, new):
        return
    added, changed, removed = found
    before, after = _parts(old, of), _parts(new, of)
    if (
        (before or after)
        and (before is not None or old in (MISSING, None))
        and (after is not None or new in (MISSING, None))
    ):
        left, right = before or {}, after or {}
        for step, value in left.items():
            _compare(value, right.get(step, MISSING), _type_at(of, step), (*path, step), found)
        for step, value in right.items():
            if step not in left:
                _compare(MISSING, value, _type_at(of, step), (*path, step), found)
    elif old is not MISSING and new is not MISSING and path:
        fieldsets.insert(changed, path)
        # Of another shape than before: its parts went with it, or came.
        for value, into in ((before, removed), (after, added)):
            for step in value or ():
                fieldsets.insert(into, (*path, step))
    if path and old is MISSING:
        fieldsets.insert(added, path)
    elif path and new is MISSING:
        fieldsets.insert(removed, path)


def same(left: JSON, right: JSON) -> bool:
    """Whether two values are equal in JSON, where 1 and true are not."""
    if left is right:
        return True
    # Python takes 1, 1.0 and true for equal; only what is equal so far needs the closer look.
    return left == right and _same_types(left, right)


def _same_types(left: JSON, right: JSON) -> bool:
    """Whether two values that Python takes for equal are written alike, however deep they are."""
    pairs = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        if one is other:
            continue
        if type(one) is not type(other):
            return False
        if isinstance(one, dict):
            pairs += [(value, other[name]) for name, value in one.items()]
        elif isinstance(one, list):
            pairs += zip(one, other, strict=True)
        elif isinstance(one, float) and str(one) != str(other):  # 0.0 and -0.0
            return False
    return True


def _parts(value: JSON, of: Type) -> Mapping[str, JSON] | None:
    """The parts of a value by the steps to them; None where it is one thing."""
    match of.shape_of(value):
        case "map":
            return {f"f:{name}": below for name, below in value.items()}
        case "list" if (steps := of.steps(value)) is not None:
            return dict(zip(steps, value, strict=True))
    return None


def _type_at(of: Type, step: str) -> Type:
    return of.field(step[2:]) if step.startswith("f:") else of.entry()


def fieldset_of(value: JSON, of: Type) -> FieldSet:
    """The paths that whoever applies this value claims: leaves, entries of lists, keys of maps."""
    found: dict[str, FieldSet] = {}
    for step, below in (_parts(value, of) or {}).items():
        kind = _type_at(of, step)
        inside = fieldset_of(below, kind)
        is_leaf = _parts(below, kind) is None or below == {}
        is_claimed = is_leaf or not step.startswith("f:") or not of.has_field(step[2:])
        if inside:
            found[step] = {MEMBER: NOTHING, **inside} if is_claimed else inside
        elif is_claimed:
            found[step] = NOTHING
    return found


def with_named_fields(fields: FieldSet, of: Type) -> FieldSet:
    """The set, and each field that the schema names and some path of the set leads through."""
    found: dict[str, FieldSet] = {}
    for step, node in fields.items():
        if not node or step == MEMBER:
            found[step] = node
            continue
        below = with_named_fields(node, _type_at(of, step))
        named = step.startswith("f:") and of.has_field(step[2:])
        found[step] = {MEMBER: NOTHING, **below} if named else below
    return found


def merge(live: JSON, applied: JSON, of: Type) -> JSON:
    """`live` with everything that `applied` says; what it does not say stays."""
    if live is MISSING:
        return applied
    if applied is MISSING:
        return live
    before, after = _parts(live, of), _parts(applied, of)
    if after is None and not (applied is None and before):
        return applied
    if before is None:
        return applied
    after = after or {}
    if isinstance(live, dict):
        merged = {
            step: merge(before.get(step, MISSING), after.get(step, MISSING), _type_at(of, step))
            for step in (*before, *(step for step in after if step not in before))
        }
        return {step[2:]: value for step, value in merged.items()}
    return [merge(before.get(step, MISSING), after.get(step, MISSING), of.entry()) for step in _in_order(before, after)]


def _in_order(live: Mapping[str, JSON], applied: Mapping[str, JSON]) -> Iterator[str]:
    """The entries of both: those applied in their order, the others where they stand before the next shared one."""
    rest = list(applied)
    shared = [step for step in rest if step in live]
    for step in live:
        if step not in applied:
            yield step
        elif shared and step == shared[0]:
            end = rest.index(step) + 1
            yield from rest[:end]
            rest, shared = rest[end:], shared[1:]
    yield from rest


def without(value: JSON, fields: FieldSet, of: Type) -> JSON:
    """The value without what is at these paths. What is emptied by that stays, empty."""
    parts = _parts(value, of)
    if parts is None or not fields:
        return value
    kept: dict[str, JSON] = {}
    for step, below in parts.items():
        node = fields.get(step)
        if node is None:
            kept[step] = below
        elif not fieldsets.is_member(node):
            kept[step] = without(below, node, _type_at(of, step))
    return {step[2:]: below for step, below in kept.items()} if isinstance(value, dict) else list(kept.values())


def unknown_fields(value: JSON, before: JSON, of: Type, path: str = "") -> Iterator[str]:
    """The paths of fields that the type does not know. Parts that `value` shares with `before` are not looked into."""
    if value is before:
        return
    if isinstance(value, dict) and of.shape == "map":
        held = before if isinstance(before, dict) else {}
        for name, below in value.items():
            here = f"{path}.{name}" if path else name
            if of.has_field(name) or of.is_open:
                yield from unknown_fields(below, held.get(name), of.field(name), here)
            else:
                yield here
    elif isinstance(value, list) and of.shape == "list":
        for place, below in enumerate(value):
            yield from unknown_fields(below, None, of.entry(), f"{path}[{place}]")


def errors(value: JSON, of: Type, path: str = "") -> Iterator[str]:
    """What keeps a value from having this type; nothing is said of scalars, which the schema judges."""
    if value is None or of.shape == "any":
        return
    if of.shape == "map" and not isinstance(value, dict):
        yield _told(path, f"expected map, got {_kind(value)}")
    elif of.shape == "list" and not isinstance(value, list):
        yield _told(path, f"expected list, got {_kind(value)}")
    elif of.shape == "scalar" and isinstance(value, dict | list):
        yield _told(path, f"expected {of.schema.get('type', 'scalar')}, got {_kind(value)}")
    elif of.shape == "map":
        for name, below in value.items():
            if of.has_field(name) or of.is_open:
                yield from errors(below, of.field(name), f"{path}.{name}")
            else:
                yield _told(f"{path}.{name}", "field not declared in schema")
    elif of.shape == "list":
        yield from _list_errors(value, of, path)


def _list_errors(value: list[JSON], of: Type, path: str) -> Iterator[str]:
    seen: set[str] = set()
    for place, below in enumerate(value):
        step = None if of.atomic else of.step(below)
        if not of.atomic and step is None:
            missing = next((name for name in of.keys if isinstance(below, dict) and name not in below), None)
            told = (
                f'associative list with keys has an element that omits key field "{missing}" '
                "(and doesn't have default value)"
                if missing
                else "associative list with keys may not have non-map elements"
                if of.keys
                else "associative list without keys has an element that's not a scalar"
            )
            yield _told(path, f"element {place}: {told}")
        elif step is not None and step in seen:
            yield _told(path, f"duplicate entries for key {fieldsets.shown([step])}")
        else:
            seen.add(step or "")
            here = f"{path}[{place}]" if step is None else path + fieldsets.shown([step])
            yield from errors(below, of.entry(), here)


def _told(path: str, text: str) -> str:
    return f"{path}: {text}" if path else text


def _kind(value: JSON) -> str:
    return {dict: "map", list: "list", str: "string", bool: "boolean"}.get(type(value), "number")
