"""
Structural schemas compiled: whether a value is in order as it is, in a twentieth of the time of telling what is not.

Most values that are written are in order: a Device whose status is patched has passed the same schema a second ago.
For those nothing is pruned, defaulted or explained, and one walk over the value is enough to know it. All others go
the long way (`apiserver.pruning`, `apiserver.schemas`), whose findings this module never makes.

Invariants
    sound(value) is True only where pruning and defaulting leave the value alone and no cause is found in it
    what is rare or costly to judge (oneOf, embedded resources, ...) may be called unsound, never sound by mistake

Pure.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import NoneType

from apimachinery.objects import JSON
from apiserver.pruning import PRESERVE, ROOT_FIELDS

INT_OR_STRING = "x-kubernetes-int-or-string"
LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"
EMBEDDED = "x-kubernetes-embedded-resource"

Sound = Callable[[JSON], bool]
_Kinds = Mapping[type, Sound]
"""What to ask of a value, by its type; of a type that is not among them nothing is sound."""

_OF_TYPE: Mapping[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
    INT_OR_STRING: (int, str),
}
_EVERY = (NoneType, bool, int, float, str, list, dict)
_JUDGED = (
    "allOf", "anyOf", "oneOf", "not", "multipleOf", "uniqueItems", "maxProperties", "minProperties",
)  # fmt: skip
"""Keywords that are left to the validator: those that are rare, and those that take other schemas."""
_BARE = frozenset({"type", "description"})


def compiled(
    schema: Mapping[str, JSON], judge: Callable[[dict[str, JSON]], Sound], formats: Mapping[str, Sound]
) -> Sound:
    """
    Whether a whole object is sound, as a function. Its apiVersion, kind and metadata are not looked at.

    judge: whether values fit a part of a schema, by its own keywords only. formats: those that mean something.
    """
    properties = schema.get("properties")
    own = properties if isinstance(properties, Mapping) else {}
    if isinstance(schema.get("additionalProperties"), Mapping) or any(
        not isinstance(own.get(name, {}), Mapping) or own.get(name, {}).keys() - _BARE for name in ROOT_FIELDS
    ):
        return _never  # it says more of these three than that they are there, which the walks look at in their own ways
    left = {**schema, "properties": {name: below for name, below in own.items() if name not in ROOT_FIELDS}}
    find = _Compiler(judge, formats).kinds(left, skipped=ROOT_FIELDS).get(dict, _never)
    return lambda value: type(value) is dict and find(value)


class _Compiler:
    def __init__(self, judge: Callable[[dict[str, JSON]], Sound], formats: Mapping[str, Sound]) -> None:
        self._judge = judge
        self._formats = formats

    def kinds(self, schema: JSON, *, is_property: bool = False, skipped: tuple[str, ...] = ()) -> _Kinds:
        """is_property: where a null that is not allowed is cut off. skipped: fields that are not judged."""
        if not isinstance(schema, Mapping) or schema.get(EMBEDDED):
            return {}
        nullable = bool(schema.get("nullable"))
        given = INT_OR_STRING if schema.get(INT_OR_STRING) else schema.get("type")
        types = _OF_TYPE.get(given, ()) if given else _EVERY
        if nullable and given:
            types = (*types, NoneType)
        if is_property and not nullable:
            types = tuple(kind for kind in types if kind is not NoneType)
        found: dict[type, Sound] = dict.fromkeys(types, _always)
        made: Mapping[type, Callable[[Mapping[str, JSON]], Sound]] = {
            str: self._text,
            int: self._number,
            float: self._number,
            list: self._list,
            dict: lambda schema: self._object(schema, skipped),
        }
        for kind in found.keys() & made.keys():
            found[kind] = made[kind](schema)
        if "enum" in schema:
            found = _among(schema["enum"], found, nullable=nullable and bool(given))
        judged = {name: schema[name] for name in _JUDGED if name in schema}
        if judged:
            fits = self._judge(judged)
            found = {kind: _all((sound, fits)) for kind, sound in found.items()}
        return found

    def _text(self, schema: Mapping[str, JSON]) -> Sound:
        checks: list[Sound] = []
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if least:
            checks.append(lambda value: len(value) >= least)
        if most is not None:
            checks.append(lambda value: len(value) <= most)
        if "pattern" in schema:
            search = re.compile(schema["pattern"]).search
            checks.append(lambda value: search(value) is not None)
        return _all((*checks, *self._format(schema)))

    def _number(self, schema: Mapping[str, JSON]) -> Sound:
        checks: list[Sound] = []
        if (least := schema.get("minimum")) is not None:
            over: Sound = lambda value: value > least  # noqa: E731
            checks.append(over if schema.get("exclusiveMinimum") else lambda value: value >= least)
        if (most := schema.get("maximum")) is not None:
            under: Sound = lambda value: value < most  # noqa: E731
            checks.append(under if schema.get("exclusiveMaximum") else lambda value: value <= most)
        return _all((*checks, *self._format(schema)))

    def _format(self, schema: Mapping[str, JSON]) -> Iterator[Sound]:
        if (check := self._formats.get(str(schema.get("format")))) is not None:
            yield check

    def _list(self, schema: Mapping[str, JSON]) -> Sound:
        items, keys = schema.get("items"), schema.get(LIST_KEYS)
        find = self.kinds(items).get if isinstance(items, Mapping) else None
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        top = float("inf") if most is None else most
        kind = schema.get(LIST_TYPE)
        names = tuple(keys) if kind == "map" and isinstance(keys, list) else ()

        def sound(value: list[JSON]) -> bool:
            if not least <= len(value) <= top:
                return False
            if find is not None:
                for item in value:
                    check = find(type(item))
                    if check is None or not check(item):
                        return False
            if kind == "set":
                return _are_apart([(item,) for item in value])
            if names:
                return _are_apart([tuple(map(item.get, names)) for item in value if type(item) is dict])
            return True

        return sound

    def _object(self, schema: Mapping[str, JSON], skipped: tuple[str, ...]) -> Sound:
        properties, extra = schema.get("properties"), schema.get("additionalProperties")
        fields = properties if isinstance(properties, Mapping) else {}
        known = {name: self.kinds(below, is_property=True) for name, below in fields.items()}
        known.update((name, dict.fromkeys(_EVERY, _always)) for name in skipped)
        rest: _Kinds = {}
        if isinstance(extra, Mapping):
            rest = self.kinds(extra)
        elif extra is True or schema.get(PRESERVE):
            rest = dict.fromkeys(_EVERY, _always)
        defaulted = (name for name, below in fields.items() if isinstance(below, Mapping) and "default" in below)
        needed = frozenset((*schema.get("required", ()), *defaulted))

        def sound(value: dict[str, JSON]) -> bool:
            for name, item in value.items():
                check = known.get(name, rest).get(type(item))
                if check is None or not check(item):
                    return False
            return needed <= value.keys()

        return sound


def _always(value: JSON) -> bool:
    return True


def _never(value: JSON) -> bool:
    return False


def _all(checks: Iterable[Sound]) -> Sound:
    """One function for some."""
    left = [check for check in checks if check is not _always]
    if len(left) < 2:
        return left[0] if left else _always
    return lambda value: all(check(value) for check in left)


def _among(choices: JSON, found: Mapping[type, Sound], *, nullable: bool) -> dict[type, Sound]:
    """One of some texts, which is what an enum is made of; what else it may have in it is not sound."""
    texts = frozenset(choice for choice in choices if isinstance(choice, str))
    left = {kind: found[kind] for kind in ((str, NoneType) if nullable else (str,)) if kind in found}
    return {kind: sound if kind is NoneType else _all((sound, texts.__contains__)) for kind, sound in left.items()}


def _are_apart(identities: list[tuple[JSON, ...]]) -> bool:
    """Whether no two entries are the same; False where that cannot be told by plain values."""
    plain = all(type(part) is str or type(part) is int for identity in identities for part in identity)
    return plain and len(set(identities)) == len(identities)
