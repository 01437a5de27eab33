"""
Who owns which field: metadata.managedFields, and server-side apply, which is decided by it.

Every write leaves behind who made it and what it set. Whoever *applies* says which fields it wants to have:
taking one that another has is a conflict unless forced, and a field that it no longer applies goes when
nobody else has it. Whoever *updates* takes what it changes.

Invariants
    a field that a write changed belongs to its writer afterwards, and to nobody else but those who agree
    an apply that changes no field and no ownership changes nothing, not even a time
    an object without managedFields gets none by updates: what it was made of is not known any more

Pure: the time is an argument. After k8s.io/apimachinery/pkg/util/managedfields and
sigs.k8s.io/structured-merge-diff (merge.Updater).
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from apimachinery.errors import ApiError, BadRequest, Cause, Conflict
from apimachinery.objects import JSON, LAST_APPLIED
from apiserver import fieldsets, typed
from apiserver.fieldsets import NOTHING, FieldSet
from apiserver.typed import Comparison, Type

APPLY, UPDATE = "Apply", "Update"
KUBECTL = "kubectl"
BEFORE_FIRST_APPLY = "before-first-apply"
ANCIENT = "ancient-changes"
MAX_UPDATERS = 10  # kube-apiserver's DefaultMaxUpdateManagers; older ones are merged into ANCIENT


class NotTyped(ApiError):
    """An applied object that does not fit its schema. kube-apiserver gives it this code and no reason."""

    code, reason = 500, ""


class Writer(NamedTuple):
    """Who writes, as managedFields tells writers apart."""

    manager: str
    operation: str
    api_version: str
    """In which version the object was written; of no meaning for who applies, which may change it."""
    subresource: str = ""

    @property
    def identity(self) -> "Writer":
        return self._replace(api_version="") if self.operation == APPLY else self

    def __str__(self) -> str:
        told = json.dumps(self.manager, ensure_ascii=False)
        if self.subresource:
            told += f' with subresource "{self.subresource}"'
        return f"{told} using {self.api_version}" if self.operation == UPDATE else told


class Held(NamedTuple):
    """What one writer holds."""

    writer: Writer
    time: str
    """RFC 3339; "" where it is not known."""
    fields: FieldSet


Managers = Mapping[Writer, Held]
"""By the writers' identities."""

_SERVERS = (
    "clusterName", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation",
    "managedFields", "name", "namespace", "resourceVersion", "selfLink", "uid",
)  # fmt: skip
_NOT_OWNED: FieldSet = {
    "f:apiVersion": NOTHING,
    "f:kind": NOTHING,
    "f:metadata": {fieldsets.MEMBER: NOTHING, **{f"f:{name}": NOTHING for name in _SERVERS}},
}
"""Fields that are the server's, or say which object it is."""
_STATUS: FieldSet = {"f:status": NOTHING}


def read(entries: JSON) -> Managers | None:
    """The managers in the managedFields of a client's body; None where it is not what a server wrote."""
    found: dict[Writer, Held] = {}
    for given in entries or () if isinstance(entries, list | None) else (None,):
        if not isinstance(given, Mapping):
            return None
        fields = given.get("fieldsV1", {})
        texts = [given.get(name) or "" for name in ("manager", "operation", "apiVersion", "subresource", "time")]
        if not all(isinstance(text, str) for text in texts) or not fieldsets.is_fieldset(fields):
            return None
        if texts[1] not in (APPLY, UPDATE) or given.get("fieldsType") != "FieldsV1":
            return None
        writer = Writer(*texts[:4])
        found[writer.identity] = Held(writer, texts[4], fields)
    return found


def held_by(body: Mapping[str, JSON]) -> Managers:
    """The managers of an object that the server stored."""
    entries = _metadata(body).get("managedFields") or ()
    writers = (
        (Writer(one["manager"], one["operation"], one["apiVersion"], one.get("subresource", "")), one)
        for one in entries
    )
    return {writer.identity: Held(writer, one.get("time", ""), one["fieldsV1"]) for writer, one in writers}


def written(managers: Managers) -> list[dict[str, JSON]]:
    """metadata.managedFields: who applies first, then in the order of time."""
    entries = []
    for held in sorted(managers.values(), key=lambda held: (held.writer.operation, held.time, held.writer)):
        writer = held.writer
        one: dict[str, JSON] = {"manager": writer.manager, "operation": writer.operation}
        one |= {"apiVersion": writer.api_version, "fieldsType": "FieldsV1", "fieldsV1": held.fields}
        if held.time:
            one["time"] = held.time
        if writer.subresource:
            one["subresource"] = writer.subresource
        entries.append(one)
    return entries


def given(wanted: Mapping[str, JSON], current: Mapping[str, JSON], subresource: str) -> Managers:
    """
    The managers an update begins with.

    A client may rewrite them, or clear them with one empty entry; to leave them out, to send an empty
    list or nonsense leaves them as they are.
    """
    mine = _metadata(wanted).get("managedFields")
    if not subresource and mine and mine != _metadata(current).get("managedFields"):
        if mine == [{}]:
            return {}
        if found := read(mine):
            return found
    return held_by(current)


def ignored(subresource: str, *bodies: Mapping[str, JSON], has_status: bool) -> FieldSet:
    """Which fields of the bodies a write at this place leaves as they are, whatever it says of them."""
    if subresource in ("status", "approval"):
        return {f"f:{name}": NOTHING for body in bodies for name in body if name != "status"}
    return _STATUS if has_status and not subresource else NOTHING


def after_create(new: Mapping[str, JSON], of: Type, writer: Writer, now: str, but: FieldSet) -> Managers:
    """The managers of an object that is made by one that does not apply. but: what is `ignored`."""
    everything = typed.compare({}, _owned(new), of)
    fields = _ownable(everything.added, but)
    return {writer.identity: Held(writer, now, fields)} if fields else {}


def after_update(difference: Comparison, managers: Managers, writer: Writer, now: str, but: FieldSet) -> Managers:
    """
    The managers once a write by one that does not apply has made this difference.

    but: what is `ignored`. An object that had no managers gets none by this; its maker is `after_create`'s.
    """
    if not managers:
        return {}
    taken = fieldsets.union(difference.added, difference.changed)
    left = _taken_away(managers, difference, taken, writer.identity)
    taken = _ownable(taken, but)
    before = managers.get(writer.identity)
    kept = fieldsets.difference(before.fields, difference.removed) if before is not None else NOTHING
    if taken:
        left[writer.identity] = Held(writer, now, fieldsets.union(kept, taken))
    elif before is not None and kept:
        left[writer.identity] = before._replace(fields=kept)
    return _capped(left)


def difference(live: Mapping[str, JSON], new: Mapping[str, JSON], of: Type) -> Comparison:
    """What a write changes of an object, but for managedFields."""
    return typed.compare(_owned(live), _owned(new), of)


def applied(
    live: Mapping[str, JSON] | None,
    config: Mapping[str, JSON],
    of: Type,
    managers: Managers,
    writer: Writer,
    now: str,
    but: FieldSet,
    *,
    force: bool,
) -> tuple[dict[str, JSON], Managers]:
    """
    The object with `config` applied to it, without managedFields, and its managers then.

    live: the object as it is, None where it is made. but: what is `ignored`.
    Raises Conflict with all fields that others hold.
    """
    held = _owned(live or {})
    if live is not None and not managers:
        first = Writer(BEFORE_FIRST_APPLY, UPDATE, str(live.get("apiVersion")))
        managers = after_create(live, of, first, "", NOTHING)
    said = {name: value for name, value in config.items() if f"f:{name}" not in but}
    try:
        merged, after = _apply(held, said, of, managers, writer, now, but, force=force)
    except _Conflicts as exc:
        allowed = _last_applied(held, of) if writer.manager == KUBECTL else NOTHING
        left = {who: fieldsets.difference(fields, allowed) for who, fields in exc.fields.items()}
        left = {who: fields for who, fields in left.items() if fields}
        if left:
            raise _conflict(left) from None
        merged, after = _apply(held, said, of, managers, writer, now, but, force=True)
    if writer.manager == KUBECTL and LAST_APPLIED in (_metadata(merged).get("annotations") or {}):
        text = json.dumps(config, separators=(",", ":"), ensure_ascii=False) + "\n"
        annotations = {**_metadata(merged)["annotations"], LAST_APPLIED: text}
        merged["metadata"] = {**_metadata(merged), "annotations": annotations}
    return merged, after


class _Conflicts(Exception):
    """What others hold of what somebody applies."""

    def __init__(self, fields: Mapping[Writer, FieldSet]) -> None:
        super().__init__("conflicts")
        self.fields = fields


def _apply(
    live: Mapping[str, JSON],
    config: Mapping[str, JSON],
    of: Type,
    managers: Managers,
    writer: Writer,
    now: str,
    but: FieldSet,
    *,
    force: bool,
) -> tuple[dict[str, JSON], Managers]:
    # With the fields that say which object it is: they hold its metadata together while it is pruned.
    claimed = fieldsets.without_all(typed.fieldset_of(config, of), but)
    before = managers.get(writer.identity)
    holding = {**managers, writer.identity: Held(writer, now, claimed)}
    merged = typed.merge(live, config, of)
    if before is not None and before.fields:
        merged = _pruned(merged, before.fields, holding, of)
    difference = typed.compare(live, merged, of)
    taken = fieldsets.union(difference.added, difference.changed)
    conflicts = {
        held.writer: fields
        for identity, held in holding.items()
        if identity != writer.identity and (fields := fieldsets.intersection(held.fields, taken))
    }
    if conflicts and not force:
        raise _Conflicts(conflicts)
    left = _taken_away(holding, difference, taken, writer.identity)
    own = fieldsets.difference(claimed, _NOT_OWNED)
    if own:
        unmoved = before is not None and before.writer == writer and before.fields == own
        is_same = unmoved and not (difference.added or difference.changed or difference.removed)
        left[writer.identity] = before if is_same and before is not None else Held(writer, now, own)
    return merged, _capped(left)


def _pruned(merged: JSON, last: FieldSet, holding: Managers, of: Type) -> JSON:
    """`merged` without what was applied last time, is not now, and nobody holds."""
    last = typed.with_named_fields(last, of)
    everything = typed.with_named_fields(typed.fieldset_of(merged, of), of)
    held: FieldSet = NOTHING
    for one in holding.values():
        held = fieldsets.union(held, one.fields)
    held = typed.with_named_fields(held, of)

    def rest(of_value: JSON) -> FieldSet:
        return typed.with_named_fields(typed.fieldset_of(of_value, of), of)

    # Take off all that was applied; bring back what somebody holds, with what leads to it; of what is
    # still missing then, leave out only what this manager had applied.
    without_last = typed.without(merged, last, of)
    keep = fieldsets.union(rest(without_last), held)
    without_unheld = typed.without(merged, fieldsets.difference(everything, keep), of)
    gone = fieldsets.difference(everything, rest(without_unheld))
    return typed.without(merged, fieldsets.intersection(gone, last), of)


def _taken_away(managers: Managers, difference: Comparison, taken: FieldSet, but: Writer) -> dict[Writer, Held]:
    """What the other managers hold once a write has taken some fields and removed others."""
    gone = fieldsets.union(taken, difference.removed)
    left = {}
    for identity, held in managers.items():
        if identity != but and (fields := fieldsets.difference(held.fields, gone)):
            left[identity] = held if fields == held.fields else held._replace(fields=fields)
    return left


def _ownable(fields: FieldSet, but: FieldSet) -> FieldSet:
    return fieldsets.difference(fieldsets.without_all(fields, but), _NOT_OWNED)


def _owned(body: Mapping[str, JSON]) -> dict[str, JSON]:
    """The body without its managedFields."""
    metadata = _metadata(body)
    if "managedFields" not in metadata:
        return dict(body)
    return {**body, "metadata": {name: value for name, value in metadata.items() if name != "managedFields"}}


def _metadata(body: Mapping[str, JSON]) -> Mapping[str, JSON]:
    metadata = body.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _capped(managers: dict[Writer, Held]) -> Managers:
    """At most MAX_UPDATERS of those that update; the longest ago lose their names, not their fields."""
    updaters = [identity for identity in managers if identity.operation == UPDATE]
    if len(updaters) <= MAX_UPDATERS:
        return managers
    oldest = sorted(updaters, key=lambda identity: (managers[identity].time, identity))
    for identity in oldest[: len(updaters) - MAX_UPDATERS + 1]:
        held = managers.pop(identity)
        ancient = Writer(ANCIENT, UPDATE, held.writer.api_version)
        before = managers.get(ancient)
        fields = fieldsets.union(before.fields, held.fields) if before else held.fields
        managers[ancient] = Held(ancient, max(held.time, before.time if before else ""), fields)
    return managers


def check_config(config: Mapping[str, JSON], of: Type, api_version: str) -> None:
    """Raises NotTyped or BadRequest for what cannot be applied, such as a field that the type does not know."""
    metadata = _metadata(config)
    if metadata.get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    wrong = list(typed.errors(config, of))
    if wrong:
        group, _, version = api_version.rpartition("/")
        place = f"{metadata.get('namespace') or ''}/{metadata.get('name') or ''}"
        kind = f"{group}/{version}, Kind={config.get('kind')}"
        told = wrong[0] if len(wrong) == 1 else "\n  ".join(("errors:", *wrong))
        raise NotTyped(f"failed to create typed patch object ({place}; {kind}): {told}")


def _last_applied(live: Mapping[str, JSON], of: Type) -> FieldSet:
    """
    What `kubectl apply` without --server-side had applied and is still so, by its annotation.

    kubectl may take these fields over: it is the same person who now applies on the server.
    """
    annotations = _metadata(live).get("annotations")
    text = annotations.get(LAST_APPLIED) if isinstance(annotations, Mapping) else None
    try:
        before = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return NOTHING
    if not isinstance(before, dict):
        return NOTHING
    changed = typed.compare(before, live, of)
    fields = typed.fieldset_of(before, of)
    for other in changed:
        fields = fieldsets.difference(fields, other)
    return fields


def _conflict(conflicts: Mapping[Writer, FieldSet]) -> Conflict:
    """The 409 that names every field and who holds it."""
    told = sorted(
        (str(writer), fieldsets.shown(path)) for writer, fields in conflicts.items() for path in fieldsets.paths(fields)
    )
    causes = [Cause(path, "FieldManagerConflict", f"conflict with {writer}") for writer, path in told]
    if len(told) == 1:
        writer, path = told[0]
        return Conflict(f"Apply failed with 1 conflict: conflict with {writer}: {path}", causes=causes)
    lines: list[str] = []
    for writer in dict.fromkeys(writer for writer, _ in told):
        lines += [f"conflicts with {writer}:", *(f"- {path}" for who, path in told if who == writer)]
    return Conflict(f"Apply failed with {len(told)} conflicts: " + "\n".join(lines), causes=causes)


def user_agent_manager(agent: str) -> str:
    """The manager of who gives no name: its User-Agent up to the slash, at most 128 printable characters."""
    name = "".join(character for character in agent.partition("/")[0] if character.isprintable())
    return name.encode()[:128].decode(errors="ignore") or "unknown"


def check_name(manager: str) -> Sequence[Cause]:
    """What is wrong with a `fieldManager` of a request."""
    if len(manager) > 128:
        return [Cause("fieldManager", "FieldValueTooLong", "Too long: may not be more than 128 bytes")]
    if not manager.isprintable():
        shown = json.dumps(manager)
        message = f"Invalid value: {shown}: should only contain printable characters"
        return [Cause("fieldManager", "FieldValueInvalid", message)]
    return []
