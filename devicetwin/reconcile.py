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
    a property with a report cycle sends plain readings up once in a cycle at most, and the last one always
    a reading that nobody repeats becomes stale once, and is told so once

Pure: no clock, no I/O. The shell is devicetwin/service.py.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import assert_never

from apimachinery.devices import PROPERTY_FIELD, STATE_FIELD
from apimachinery.kubeevents import EventType
from apimachinery.objects import JSON
from devicetwin.declaration import model_for_word
from devicetwin.messages import OFFLINE, STATES_UP, Channel, Turn, TwinEntry, Value
from devicetwin.steps import (
    Asked,
    Claimed,
    Connected,
    CountMissed,
    Declared,
    Effect,
    Elapsed,
    Event,
    Forget,
    PublishDelta,
    PublishDocument,
    PublishResult,
    PublishState,
    QueueReport,
    Record,
    Refuse,
    Removed,
    Save,
    StateReported,
    Tell,
    Updated,
)
from devicetwin.twin import Desired, Origin, Property, Reported, Twin

MAX_UNDECLARED = 64
"""Properties of one twin that only its mapper knows; the cluster bounds the declared ones."""

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
        case Claimed():
            return _claimed(twin, event)
        case Elapsed():
            return _elapsed(twin, event, now_ms)
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
        new = old._replace(
            desired=desired,
            cloud=wish,
            declared=is_declared or old.declared,
            unlisted=name not in declaration.wishes if is_declared else old.unlisted,
            model=models.get(name),
            cycle_ms=declaration.cycles_ms.get(name, 0),
            stale_after_ms=declaration.stale_after_ms.get(name, 0),
        )
        properties[name] = old if new == old and name in before.properties else new
    after = before._replace(properties=properties, versions=versions, generation=declaration.generation)
    after, news = _told(before, after, properties, now_ms)
    turns = {
        name: turn
        for name in dict.fromkeys([*before.properties, *properties])
        if properties.get(name) is not before.properties.get(name)
        and (turn := _turn(before.properties.get(name), properties.get(name)))
        and _expected(turn.last) != _expected(turn.current)
    }
    effects: list[Effect] = []
    # Models are no part of the document, so a twin that differs only in them need not be saved.
    if twin is None or not twin.is_kept_as(after):
        effects.append(Save())
    if turns:
        effects.append(PublishDocument("", turns))
    if _open(after) - _open(before):
        effects += _delta(after)
    else:
        effects += _withdrawal(before, after)
    effects += news
    effects += _rejections(before, after)
    return after, tuple(effects)


def _rejections(before: Twin, after: Twin) -> list[Effect]:
    """An Event for each wish that is kept from the device, once."""
    told: list[Effect] = []
    for name, each in after.properties.items():
        old = before.properties.get(name)
        is_told = old is not None and old.desired.problem and old.desired.version == each.desired.version
        if each.desired.problem and not is_told:
            told.append(Tell(EventType.WARNING, "DesiredRejected", each.desired.problem))
    return told


# --- the reported half ----------------------------------------------------------------------------------------


def _updated(twin: Twin | None, event: Updated, now_ms: int) -> Step:
    result = Channel.TWIN_UPDATE_RESULT
    if twin is None:
        return None, (Refuse(result, event.event_id, 404, "update rejected due to the device is not existed"),)
    sequence, gap = _numbered(twin.sequence, event.sequence)
    if refusal := _refusal(twin, event):
        return twin._replace(sequence=sequence), (*gap, refusal)
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
            kind, desired, reported = entry.type or old.type, old.desired, old.reported
            if entry.expected is not None and entry.expected.value != desired.value:
                versions += 1
                desired = Desired(entry.expected.value, versions, now_ms, Origin.EDGE)
            if entry.actual is not None:
                reported = _reported(old, kind, entry, entry.actual, event.timestamp_ms, now_ms)
            optional = old.optional and entry.optional is not False
            new = old._replace(desired=desired, reported=reported, type=kind, optional=optional)
            if desired.value and (answered := _answered(new, entry)) is not desired:
                new = new._replace(desired=answered)
        properties[name] = new
    after = twin._replace(properties=properties, versions=versions, sequence=sequence)
    names = sorted(event.twin)
    after, news = _told(twin, after, names, now_ms)
    current = {name: properties[name].entry() for name in names if name in properties}
    entries = {name: current.get(name) if event.twin[name] else None for name in names}
    turns = {
        name: Turn(shown(twin.properties.get(name)), current[name] if _is_shown(properties.get(name)) else None)
        for name in names
    }
    effects: list[Effect] = [Save()] if any(_differs(twin, after, name) for name in names) else []
    effects += [PublishResult(result, event.event_id, entries), PublishDocument(event.event_id, turns)]
    effects += _delta(after, event.event_id) or _withdrawal(twin, after, event.event_id)
    effects += news
    effects += _refusals(twin, after, names)
    effects += _records(twin, after, names, now_ms)
    return after, (*gap, *effects)


def _reported(old: Property, kind: str, entry: TwinEntry, actual: Value, timestamp_ms: int, now_ms: int) -> Reported:
    before = old.reported
    is_same = before is not None and before.value == actual.value and old.type == kind
    # A time of 0 or less is how a sender without a clock spells "not said"; the cloud takes none.
    said_ms = actual.timestamp_ms or timestamp_ms
    answers = entry.expected_version if entry.expected_version is not None and entry.expected_version >= 0 else None
    return Reported(
        value=actual.value,
        version=(before.version if before else 0) + (not is_same),
        answers=answers,
        observed_at_ms=now_ms,
        device_at_ms=said_ms if said_ms > 0 else None,
    )


def _answered(new: Property, entry: TwinEntry) -> Desired:
    """The wish, with the mapper's word on whether the device takes it."""
    desired, answers = new.desired, entry.expected_version
    if entry.expected is not None or (answers is not None and answers < desired.version):
        return desired
    if entry.problem is not None and desired.value:
        return desired._replace(refusal=entry.problem if new.is_open else "")
    # A reading in answer to it, or of what it asks for, says that it was taken after all.
    if desired.refusal and entry.actual is not None and (answers is not None or not new.is_open):
        return desired._replace(refusal="")
    return desired


def _refusals(before: Twin, after: Twin, names: Iterable[str]) -> list[Effect]:
    """An Event for each wish that the device begins to refuse."""
    told: list[Effect] = []
    for name in names:
        old, each = before.properties.get(name), after.properties.get(name)
        if each is None or not each.desired.refusal:
            continue
        if old is None or not old.desired.refusal or old.desired.version != each.desired.version:
            message = f'{name}: the device does not take "{each.desired.value[:64]}": {each.desired.refusal}'
            told.append(Tell(EventType.WARNING, "DesiredRejected", message))
    return told


def _numbered(last: int | None, sequence: int | None) -> tuple[int | None, tuple[Effect, ...]]:
    """
    The number to go on from, and what is missing between the last numbered update and this one.

    A number at or below the last one is a redelivery, or somebody else's count: it says nothing. 0 and 1 begin anew.
    """
    if sequence is None or sequence < 0 or (last is not None and 1 < sequence <= last):
        return last, ()
    if last is None or sequence <= 1 or sequence == last + 1:
        return sequence, ()
    message = f"updates {last + 1} to {sequence - 1} of the mapper never came"
    return sequence, (CountMissed(sequence - last - 1), Tell(EventType.WARNING, "SequenceGap", message))


def _records(before: Twin, after: Twin, names: Iterable[str], now_ms: int) -> list[Effect]:
    found: list[Effect] = []
    for name in names:
        old, new = before.properties.get(name), after.properties.get(name)
        was, now = old.reported if old else None, new.reported if new else None
        if now is None:
            if was is not None:
                found.append(Record(name, now_ms, None))
        elif was is None or was.stale or was.value != now.value:
            found.append(Record(name, now_ms, now.value))
    return found


def _refusal(twin: Twin, event: Updated) -> Refuse | None:
    """The first thing wrong with an update, in the order of the names so that it is always the same one."""
    unknown = 0
    if not twin.properties.keys() >= event.twin.keys():
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
    return after, (Save(), answer, _state_report(after), *_turning(twin.state.lower(), event))


def _state_report(twin: Twin) -> QueueReport:
    report: dict[str, JSON] = {"state": twin.state}
    if twin.last_online:
        # KubeEdge forgets it when the device goes offline, which is when somebody wants to know.
        report["lastOnlineTime"] = twin.last_online
    if twin.problem:
        report["problem"] = twin.problem
    return QueueReport(STATE_FIELD, report)


def _turning(before: str, event: StateReported) -> tuple[Effect, ...]:
    """The Event that a change of the state is worth, if any."""
    now = event.state.lower()
    if now == OFFLINE and before != OFFLINE:
        if event.gone:
            return (
                Tell(EventType.WARNING, "MapperGone", f"its mapper {event.gone} is gone, so the device is offline"),
            )
        return (Tell(EventType.WARNING, "DeviceOffline", "the device is offline, says its mapper"),)
    if now in STATES_UP and before == OFFLINE:
        return (Tell(EventType.NORMAL, "DeviceOnline", f"the device is {event.state} again"),)
    return ()


def _claimed(twin: Twin | None, event: Claimed) -> Step:
    if twin is None:
        return None, ()
    problem = ""
    if (count := len(event.mappers)) > 1:
        names = " and ".join(each[:64] for each in sorted(event.mappers)[:2])
        problem = f"{count} mappers claim it, {names}{' and others' if count > 2 else ''}: the last word counts"
    if problem == twin.problem:
        return twin, ()
    after = twin._replace(problem=problem)
    effects: list[Effect] = [Save()]
    if twin.state:
        effects.append(_state_report(after))
    if problem:
        effects.append(Tell(EventType.WARNING, "TwoMappers", problem))
    return after, tuple(effects)


def _elapsed(twin: Twin | None, event: Elapsed, now_ms: int) -> Step:
    if twin is None:
        return None, ()
    turned: dict[str, Property] = {}
    released: list[str] = []
    for name, each in twin.properties.items():
        if each.held and each.is_due(now_ms):
            released.append(name)
        at_ms = each.stale_at_ms(event.since_ms)
        if each.reported is not None and at_ms is not None and at_ms <= now_ms:
            turned[name] = each._replace(reported=each.reported._replace(stale=True))
    if not turned and not released:
        return twin, ()
    after = twin._replace(properties={**twin.properties, **turned})
    after, news = _told(twin, after, dict.fromkeys([*turned, *released]), now_ms)
    if not turned:
        return after, (Save(), *news)
    turns = {name: Turn(twin.properties[name].entry(), each.entry()) for name, each in turned.items()}
    records = [Record(name, now_ms, None) for name in turned]
    return after, (Save(), PublishDocument("", turns), *news, *records)


def _asked(twin: Twin | None, event: Asked) -> Step:
    if twin is None:
        reason = f"Device {event.device.namespace}/{event.device.name} not found while getting twin"
        return None, (Refuse(Channel.TWIN_GET_RESULT, event.event_id, 404, reason),)
    entries = {name: entry for name, each in twin.properties.items() if (entry := shown(each))}
    return twin, (PublishResult(Channel.TWIN_GET_RESULT, event.event_id, entries), *_delta(twin, event.event_id))


# --- what they share ------------------------------------------------------------------------------------------


def _delta(twin: Twin, event_id: str = "") -> tuple[Effect, ...]:
    return (_delta_of(twin, event_id),) if twin.delta() else ()


def _withdrawal(before: Twin, after: Twin, event_id: str = "") -> tuple[Effect, ...]:
    """
    A delta, even an empty one, where an open wish was taken back or changed to what is already so.

    A mapper that keeps trying would otherwise never learn that it may stop. One that was met needs none: the mapper
    said so itself.
    """
    for name, version in _open(before):
        each = after.properties.get(name)
        if each is None or each.desired.version != version or not each.is_wanted:
            return (_delta_of(after, event_id),)
    return ()


def _delta_of(twin: Twin, event_id: str) -> PublishDelta:
    wanted = {name: each.entry(versioned=True) for name, each in twin.properties.items() if each.is_wanted}
    return PublishDelta(wanted, twin.delta(), event_id)


def _told(before: Twin, after: Twin, names: Iterable[str], now_ms: int) -> tuple[Twin, list[QueueReport]]:
    """
    A report for each property whose content differs from what was last queued, or whose report cycle asks for one.

    Times alone are no news, and a cycle asks of a new reading only: a silent device is not spoken for. A plain reading
    waits until the cycle is over.
    """
    news: list[QueueReport] = []
    is_changed = False
    properties = dict(after.properties)
    for name in names:
        old, each = before.properties.get(name), after.properties.get(name)
        if each is None or not each.is_told:
            continue
        said = _content(old, before.generation) if old and old.is_told else _content(Property(), 0)
        is_new = _content(each, after.generation) != said
        is_read = each.reported is not None and (old is None or each.reported is not old.reported)
        is_due = each.is_due(now_ms)
        if is_new and each.cycle_ms and not is_due and _is_plain(old, each, before.generation, after.generation):
            properties[name] = each._replace(held=True)
        elif is_new or (is_read and is_due) or (each.held and (is_due or not each.cycle_ms)):
            news.append(QueueReport(PROPERTY_FIELD + name, each.report(after.generation).to_json()))
            properties[name] = each._replace(told_at_ms=now_ms, held=False)
        else:
            continue
        is_changed = True
    return after._replace(properties=properties) if is_changed else after, news


def _is_plain(old: Property | None, each: Property, generation_before: int, generation: int) -> bool:
    """Whether nothing is new but what the device is like: it was known before, and no wish is answered by it."""
    if old is None or not old.is_told or old.reported is None or each.reported is None:
        return False
    was, now = old.reported, each.reported
    if (was.answers, was.stale, old.is_open) != (now.answers, now.stale, each.is_open):
        return False
    return _content(old._replace(reported=now, type=each.type), generation_before) == _content(each, generation)


def _content(each: Property, generation: int) -> tuple[object, ...]:
    """What of the property's report is news when it changes: everything but the times."""
    desired, reported = each.desired, each.reported
    return (
        reported and (reported.value, each.type, reported.answers, reported.stale),
        (*desired[:2], *desired[3:], generation) if desired.value else None,
    )


def _differs(before: Twin, after: Twin, name: str) -> bool:
    """Whether a property differs in more than when it was observed, or was told again."""
    old, new = before.properties.get(name), after.properties.get(name)
    if old is None or new is None or old.reported is None or new.reported is None:
        return old != new
    return _timeless(old) != _timeless(new)


def _timeless(each: Property) -> tuple[object, ...]:
    reported = each.reported
    return (
        reported and (reported.value, reported.version, reported.answers, reported.stale),
        *(each.desired, each.cloud, each.type, each.optional, each.declared, each.model),
        *(each.stale_after_ms, each.cycle_ms, each.told_at_ms, each.held),
    )


def _open(twin: Twin) -> set[tuple[str, int]]:
    return {
        (name, each.desired.version) for name, each in twin.properties.items() if each.desired.value and each.is_open
    }


def shown(each: Property | None, *, versioned: bool = False) -> TwinEntry | None:
    """A property as messages show it; None where it has neither a wish nor a reading, as before its first report."""
    return each.entry(versioned=versioned) if each and _is_shown(each) else None


def _is_shown(each: Property | None) -> bool:
    return each is not None and (each.reported is not None or each.is_wanted)


def _turn(before: Property | None, after: Property | None) -> Turn | None:
    turn = Turn(shown(before), shown(after))
    return turn if turn.last != turn.current else None


def _expected(entry: TwinEntry | None) -> str:
    return entry.expected.value if entry and entry.expected else ""
