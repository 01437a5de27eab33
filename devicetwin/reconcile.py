"""
What a twin becomes when something happens, and what has to be done about it.

One pure function, `step`. The desired half changes when the cluster's objects do, the reported half when the
mapper speaks; the difference is published as a delta, the news is queued for the cloud. A step's effects are
performed in their order, `Save` before anything that is seen outside.

Promises
    idempotent: the same event once more changes nothing and queues nothing
    the halves commute: a reading and a change of the wish give one twin in either order
    a reading that equals the wish, and does not answer an older one, empties the delta
    the versions of wishes only grow
    a report goes up when its content is new, which the first one always is, or when the report cycle asks; else never

Pure: no clock, no I/O. The shell is devicetwin/service.py.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, assert_never

from apimachinery.devices import PROPERTY_FIELD, STATE_FIELD, PropertyReport
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON
from devicetwin.declaration import Declaration, model_for_word
from devicetwin.messages import STATES_UP, Channel, Turn, TwinEntry
from devicetwin.twin import Desired, Origin, Property, Reported, Twin

MAX_UNDECLARED = 64
"""Properties of one twin that only its mapper knows; the cluster bounds the declared ones."""

# --- what happens ---------------------------------------------------------------------------------------------


class Declared(NamedTuple):
    """The Device or its model came or changed; also said of every device when edgecore starts."""

    device: ObjectKey
    declaration: Declaration


class Removed(NamedTuple):
    """The Device is not this node's any more."""

    device: ObjectKey


class Updated(NamedTuple):
    """A mapper's TwinUpdate: readings, wishes set at the edge, deletions. Taken whole or refused whole."""

    device: ObjectKey
    event_id: str
    twin: Mapping[str, TwinEntry | None]


class StateReported(NamedTuple):
    """A mapper's StateUpdate, or its last will ("offline", with no event id)."""

    device: ObjectKey
    event_id: str
    state: str


class Asked(NamedTuple):
    """A mapper's twin Ask."""

    device: ObjectKey
    event_id: str


class Connected(NamedTuple):
    """The broker is there (again): what was published meanwhile is lost."""

    device: ObjectKey


Event = Declared | Removed | Updated | StateReported | Asked | Connected

# --- what is to be done ---------------------------------------------------------------------------------------


class Save(NamedTuple):
    """The twin must be durable before the step's other effects are performed. Not asked for when only times differ."""


class Forget(NamedTuple):
    """The durable twin must go."""


class QueueReport(NamedTuple):
    """News for the cloud, last value per field; durable together with the twin."""

    field: str
    value: Mapping[str, JSON]


class PublishResult(NamedTuple):
    """The answer to a request that was taken."""

    channel: Channel
    event_id: str
    twin: Mapping[str, TwinEntry | None]


class PublishDocument(NamedTuple):
    """What a step changed. No event id: nobody asked."""

    event_id: str
    twin: Mapping[str, Turn]


class PublishDelta(NamedTuple):
    """All wishes, and those not met."""

    twin: Mapping[str, TwinEntry | None]
    delta: Mapping[str, str]


class PublishState(NamedTuple):
    """The answer to a state that was taken. No event id: nobody asked."""

    event_id: str
    state: str
    last_online: str
    """As KubeEdge answers: "" unless the device is online."""


class Refuse(NamedTuple):
    """The answer to a request that was not taken."""

    channel: Channel
    event_id: str
    code: int
    reason: str


Effect = Save | Forget | QueueReport | PublishResult | PublishDocument | PublishDelta | PublishState | Refuse
Step = tuple[Twin | None, tuple[Effect, ...]]


def step(twin: Twin | None, event: Event, now_ms: int) -> Step:
    """
    The twin after `event` and the effects to perform, in order; None for a device that is not this node's.

    now_ms: the edge's clock, milliseconds since 1970.
    """
    match event:
        case Declared():
            return _declared(twin, event, now_ms)
        case Removed():
            return None, () if twin is None else (Forget(),)
        case Updated():
            return _updated(twin, event, now_ms)
        case StateReported():
            return _state_reported(twin, event, now_ms)
        case Asked():
            return _asked(twin, event)
        case Connected():
            return twin, _delta(twin) if twin else ()
        case _:
            assert_never(event)


# --- the desired half -----------------------------------------------------------------------------------------


def _declared(twin: Twin | None, event: Declared, now_ms: int) -> Step:
    declaration = event.declaration
    before = twin
    if before is None or before.uid != declaration.uid:
        # A device made anew under an old name inherits nothing but the count, so that no version comes twice.
        before = Twin(event.device, declaration.uid, {}, versions=twin.versions if twin else 0)
    versions = before.versions
    models = declaration.models or {}
    properties: dict[str, Property] = {}
    for name in dict.fromkeys([*before.properties, *sorted({*declaration.wishes, *models})]):
        old = before.properties.get(name, Property())
        is_declared = name in declaration.wishes or name in models
        if old.declared and not is_declared and declaration.models is not None:
            continue
        wish = declaration.wishes.get(name, "")
        desired = old.desired
        if wish != old.cloud:
            versions += 1
            desired = Desired(wish, versions, now_ms)
        if is_declared or old.declared:
            desired = desired._replace(problem=declaration.problem_with(name, desired.value))
        properties[name] = old._replace(
            desired=desired,
            cloud=wish,
            declared=is_declared or old.declared,
            model=models.get(name),
            cycle_ms=declaration.cycles_ms.get(name, 0),
        )
    after, news = _told(before, before._replace(properties=properties, versions=versions), properties, now_ms)
    turns = {
        name: turn
        for name in dict.fromkeys([*before.properties, *properties])
        if (turn := _turn(before.properties.get(name), properties.get(name)))
        and _expected(turn.last) != _expected(turn.current)
    }
    effects: list[Effect] = []
    # Models are no part of the document, so a twin that differs only in them need not be saved.
    if twin is None or twin.to_json() != after.to_json():
        effects.append(Save())
    if turns:
        effects.append(PublishDocument("", turns))
    if _open(after) - _open(before):
        effects += _delta(after)
    else:
        effects += _withdrawal(before, after)
    return after, (*effects, *news)


# --- the reported half ----------------------------------------------------------------------------------------


def _updated(twin: Twin | None, event: Updated, now_ms: int) -> Step:
    result = Channel.TWIN_UPDATE_RESULT
    if twin is None:
        return None, (Refuse(result, event.event_id, 404, "update rejected due to the device is not existed"),)
    if refusal := _refusal(twin, event):
        return twin, (refusal,)
    versions = twin.versions
    properties = dict(twin.properties)
    for name, entry in event.twin.items():
        old = properties.get(name, Property())
        if entry is None:
            if not old.optional:
                continue
            if not old.declared:
                properties.pop(name, None)
                continue
            new = old._replace(reported=None, type="")
            if old.desired.origin is Origin.EDGE:
                versions += 1
                new = new._replace(desired=Desired(old.cloud, versions, now_ms))
        else:
            new = old._replace(type=entry.type or old.type, optional=old.optional and entry.optional is not False)
            if entry.expected is not None and entry.expected.value != old.desired.value:
                versions += 1
                new = new._replace(desired=Desired(entry.expected.value, versions, now_ms, Origin.EDGE))
            if entry.actual is not None:
                new = new._replace(reported=_reported(old, new.type, entry, entry.actual.value, now_ms))
        properties[name] = new
    names = sorted(event.twin)
    after, news = _told(twin, twin._replace(properties=properties, versions=versions), names, now_ms)
    entries = {name: properties[name].entry() if name in properties and event.twin[name] else None for name in names}
    turns = {name: Turn(_shown(twin.properties.get(name)), _shown(properties.get(name))) for name in names}
    effects: list[Effect] = [Save()] if any(_differs(twin, after, name) for name in names) else []
    effects += [PublishResult(result, event.event_id, entries), PublishDocument(event.event_id, turns)]
    effects += _delta(after) or _withdrawal(twin, after)
    return after, (*effects, *news)


def _reported(old: Property, kind: str, entry: TwinEntry, value: str, now_ms: int) -> Reported:
    before = old.reported
    if before is None:
        return Reported(value, 1, entry.expected_version, now_ms)
    is_same = before.value == value and old.type == kind
    return Reported(value, before.version + (not is_same), entry.expected_version, now_ms)


def _refusal(twin: Twin, event: Updated) -> Refuse | None:
    """The first thing wrong with an update, in the order of the names so that it is always the same one."""
    unknown = sum(not each.declared for each in twin.properties.values())
    for name, entry in sorted(event.twin.items()):
        old = twin.properties.get(name)
        if entry is None:
            continue
        code, reason = 0, ""
        unknown += old is None
        if old is None and unknown > MAX_UNDECLARED:
            code, reason = 400, f"{name}: the Device has more than {MAX_UNDECLARED} properties that it does not declare"
        model = old.model if old and old.model else model_for_word(name, entry.type or (old.type if old else ""))
        if not reason and entry.actual is not None:
            code, reason = 400, model.problem_with(entry.actual.value) or ""
        if not reason and entry.expected is not None and entry.expected.value:
            known, base = (old or Property()).desired, entry.expected_version
            if old and old.declared and not old.model:
                code, reason = 400, f"{name}: no model on this node has it, so the value cannot be checked"
            elif not model.writable:
                code, reason = 400, f"{name} is read-only"
            elif problem := model.problem_with(entry.expected.value):
                code, reason = 400, problem
            elif base is not None and base < known.version and entry.expected.value != known.value:
                code, reason = 409, f"{name}: expected is at version {known.version}, the update is based on {base}"
        if reason:
            return Refuse(Channel.TWIN_UPDATE_RESULT, event.event_id, code, reason)
    return None


def _state_reported(twin: Twin | None, event: StateReported, now_ms: int) -> Step:
    if twin is None:
        reason = f"Device {event.device.namespace}/{event.device.name} not found while updating its state"
        return None, (Refuse(Channel.STATE_UPDATE_RESULT, event.event_id, 404, reason),)
    is_up = event.state.lower() in STATES_UP
    moment = datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    after = twin._replace(state=event.state, last_online=moment if is_up else twin.last_online)
    answer = PublishState(event.event_id, event.state, moment if is_up else "")
    if after.state == twin.state:
        return after, (answer,)
    report: dict[str, JSON] = {"state": after.state}
    if after.last_online:
        # KubeEdge forgets it when the device goes offline, which is when somebody wants to know.
        report["lastOnlineTime"] = after.last_online
    return after, (Save(), answer, QueueReport(STATE_FIELD, report))


def _asked(twin: Twin | None, event: Asked) -> Step:
    if twin is None:
        reason = f"Device {event.device.namespace}/{event.device.name} not found while getting twin"
        return None, (Refuse(Channel.TWIN_GET_RESULT, event.event_id, 404, reason),)
    entries = {name: shown for name, each in twin.properties.items() if (shown := _shown(each))}
    return twin, (PublishResult(Channel.TWIN_GET_RESULT, event.event_id, entries), *_delta(twin))


# --- what they share ------------------------------------------------------------------------------------------


def _delta(twin: Twin) -> tuple[Effect, ...]:
    return (_delta_of(twin),) if twin.delta() else ()


def _withdrawal(before: Twin, after: Twin) -> tuple[Effect, ...]:
    """
    A delta, even an empty one, where an open wish was taken back or changed to what is already so.

    A mapper that keeps trying would otherwise never learn that it may stop. One that was met needs none: the mapper
    said so itself.
    """
    for name, version in _open(before):
        each = after.properties.get(name)
        if each is None or each.desired.version != version or not each.is_wanted:
            return (_delta_of(after),)
    return ()


def _delta_of(twin: Twin) -> PublishDelta:
    wanted = {name: each.entry(versioned=True) for name, each in twin.properties.items() if each.is_wanted}
    return PublishDelta(wanted, twin.delta())


def _told(before: Twin, after: Twin, names: Iterable[str], now_ms: int) -> tuple[Twin, list[QueueReport]]:
    """
    A report for each property whose content differs from what was last queued, or whose report cycle asks for one.

    Times alone are no news, and a cycle asks of a new reading only: a silent device is not spoken for.
    """
    news: list[QueueReport] = []
    properties = dict(after.properties)
    for name in names:
        old, each = before.properties.get(name), after.properties.get(name)
        if each is None or not each.declared:
            continue
        is_new = _content(each) != (_content(old) if old and old.declared else _content(Property()))
        is_read = each.reported is not None and (old is None or each.reported is not old.reported)
        if is_new or (is_read and each.is_due(now_ms)):
            news.append(QueueReport(PROPERTY_FIELD + name, each.report().to_json()))
            properties[name] = each._replace(told_at_ms=now_ms)
    return after._replace(properties=properties) if news else after, news


def _content(each: Property) -> PropertyReport:
    return each.report()._replace(observed_at_ms=0)


def _differs(before: Twin, after: Twin, name: str) -> bool:
    """Whether a property differs in more than when it was observed, or was told again."""
    old, new = before.properties.get(name), after.properties.get(name)
    if old and new and old.reported and new.reported:
        new = new._replace(reported=new.reported._replace(observed_at_ms=old.reported.observed_at_ms))
    return old != new


def _open(twin: Twin) -> set[tuple[str, int]]:
    return {(name, each.desired.version) for name, each in twin.properties.items() if each.is_open}


def _shown(each: Property | None) -> TwinEntry | None:
    """A property as messages show it; None where it has neither a wish nor a reading, as before its first report."""
    return each.entry() if each and (each.reported or each.is_wanted) else None


def _turn(before: Property | None, after: Property | None) -> Turn | None:
    turn = Turn(_shown(before), _shown(after))
    return turn if turn.last != turn.current else None


def _expected(entry: TwinEntry | None) -> str:
    return entry.expected.value if entry and entry.expected else ""
