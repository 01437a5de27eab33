"""
What a Device's status says: the twins, and the conditions Valid, Synced and Online.

The desired values stand in the Device's spec, what a node reports goes into status.twins; a condition is
the sentence a person reads with `kubectl describe`, and the word a script waits for. Everything is
computed from the objects alone, so that any replica comes to the same result and writes nothing when it
is there already.

    Valid   the model, the node and every desired value are what they should be
    Synced  every desired value is what the device last reported
    Online  what the mapper last said of the device

Invariants
    status_after(x) of its own result changes nothing, whatever the time
    a condition's lastTransitionTime changes exactly when its status does
    twins are those of properties that the spec lists, in its order

Pure: no clock, no I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from apimachinery.devices import PropertyModel, PropertyReport, property_models, same_value
from apimachinery.objects import JSON, lookup

TOLD = 4
"""Of how many properties a condition's message speaks; the others are counted."""
SHOWN_CHARACTERS = 64

VALID = "Valid"
SYNCED = "Synced"
ONLINE = "Online"

_ONLINE_STATES = frozenset({"online", "ok", "healthy"})
_OFFLINE_STATES = frozenset({"offline", "unhealthy", "disconnected"})


class StateReport(NamedTuple):
    """What an edge reports of a device as a whole."""

    state: str
    """The mapper's word; KubeEdge's are online, offline, ok, unhealthy, unknown."""
    last_online_time: str
    """RFC 3339; "" where there is none."""


class Verdict(NamedTuple):
    """A condition without its times."""

    status: str
    """"True", "False" or "Unknown"."""
    reason: str
    message: str


class Problem(NamedTuple):
    """Why a Device is not valid."""

    reason: str
    message: str


def node_of(device: Mapping[str, JSON]) -> str:
    """The node a device is attached to; "" for none."""
    return str(lookup(device, "spec.nodeName") or "")


def model_of(device: Mapping[str, JSON]) -> str:
    """The name of a device's model, in the device's namespace; "" for none."""
    return str(lookup(device, "spec.deviceModelRef.name") or "")


def property_names(device: Mapping[str, JSON]) -> list[str]:
    """The properties in use, in the spec's order."""
    return [entry["name"] for entry in _entries(lookup(device, "spec.properties"), "name")]


def desired_values(device: Mapping[str, JSON]) -> dict[str, str]:
    """Property to desired value, for those that have one."""
    return {
        entry["name"]: entry["desired"]["value"]
        for entry in _entries(lookup(device, "spec.properties"), "name")
        if isinstance(entry.get("desired"), Mapping) and isinstance(entry["desired"].get("value"), str)
    }


def status_after(
    device: Mapping[str, JSON],
    model: Mapping[str, JSON] | None,
    node_exists: bool,
    status: Mapping[str, JSON],
    properties: Mapping[str, PropertyReport],
    state: StateReport | None,
    now: str,
) -> dict[str, JSON]:
    """
    The Device's status once these reports are in it; without reports, only its conditions are brought up to date.

    status: as it is; fields that are not ours are kept. now: RFC 3339, for transitions.
    """
    after = {**status, **reported_after(device, status, properties, state)}
    after["conditions"] = conditions(device, model, node_exists, after, now)
    return after


def reported_after(
    device: Mapping[str, JSON],
    status: Mapping[str, JSON],
    properties: Mapping[str, PropertyReport],
    state: StateReport | None,
) -> dict[str, JSON]:
    """The part of a status that a node reports: twins, state and lastOnlineTime. Also DeviceStatus.status."""
    twins = {entry["propertyName"]: entry for entry in _entries(status.get("twins"), "propertyName")}
    merged = []
    for name in property_names(device):
        twin = twins.get(name)
        if name in properties:
            twin = _twin(name, twin or {}, properties[name])
        if twin is not None:
            merged.append(twin)
    after: dict[str, JSON] = {"twins": merged}
    told = StateReport(str(status.get("state") or ""), str(status.get("lastOnlineTime") or ""))
    if state is not None:
        # A device that is offline now was online at the time told before.
        told = StateReport(state.state, state.last_online_time or told.last_online_time)
    for field, text in (("state", told.state), ("lastOnlineTime", told.last_online_time)):
        if text:
            after[field] = text
    return after


def conditions(
    device: Mapping[str, JSON],
    model: Mapping[str, JSON] | None,
    node_exists: bool,
    status: Mapping[str, JSON],
    now: str,
) -> list[dict[str, JSON]]:
    """
    The conditions for a device with this status; those in it that are not ours are kept, behind ours.

    model: None when there is none of that name. status: with `twins`, `state` and the previous `conditions`.
    """
    models = property_models(model or {})
    problems = list(_problems(device, model, models, node_exists))
    verdicts = {
        VALID: _valid(device, problems),
        SYNCED: _synced(device, models, status),
        ONLINE: _online(status),
    }
    previous = {entry["type"]: entry for entry in _entries(status.get("conditions"), "type")}
    generation = lookup(device, "metadata.generation")
    ours = [_condition(kind, verdict, previous.pop(kind, None), generation, now) for kind, verdict in verdicts.items()]
    return ours + list(previous.values())


def _condition(
    kind: str, verdict: Verdict, previous: Mapping[str, JSON] | None, generation: JSON, now: str
) -> dict[str, JSON]:
    since = now
    if previous is not None and previous.get("status") == verdict.status:
        since = previous.get("lastTransitionTime") or now
    condition: dict[str, JSON] = {"type": kind, **verdict._asdict(), "lastTransitionTime": since}
    if isinstance(generation, int):
        condition["observedGeneration"] = generation
    return condition


# ---- Valid


def _valid(device: Mapping[str, JSON], problems: Sequence[Problem]) -> Verdict:
    if not problems:
        count = len(property_names(device))
        return Verdict("True", "Accepted", f"the model has {count} of {count} properties" if count else "no properties")
    return Verdict("False", problems[0].reason, _sentence([problem.message for problem in problems]))


def _problems(
    device: Mapping[str, JSON],
    model: Mapping[str, JSON] | None,
    models: Mapping[str, PropertyModel],
    node_exists: bool,
) -> Iterable[Problem]:
    if not model_of(device):
        yield Problem("ModelNotFound", "spec.deviceModelRef.name is not set")
    elif model is None:
        yield Problem("ModelNotFound", f'there is no DeviceModel "{model_of(device)}" in this namespace')
    if not node_of(device):
        yield Problem("NodeNotFound", "spec.nodeName is not set: the device is attached to no node")
    elif not node_exists:
        yield Problem("NodeNotFound", f'there is no node "{node_of(device)}"')
    if model is None:
        return
    desired = desired_values(device)
    for name in property_names(device):
        described = models.get(name)
        if described is None:
            yield Problem("UnknownProperty", f"{name}: the model has no such property")
        elif name in desired:
            if not described.writable:
                yield Problem("NotWritable", f"{name}: is read-only, a desired value has no effect")
            elif (wrong := described.problem_with(desired[name])) is not None:
                yield Problem("DesiredInvalid", wrong)


# ---- Synced


def _synced(device: Mapping[str, JSON], models: Mapping[str, PropertyModel], status: Mapping[str, JSON]) -> Verdict:
    desired = desired_values(device)
    if not desired:
        return Verdict("Unknown", "NothingDesired", "no property has a desired value")
    twins = {entry["propertyName"]: entry for entry in _entries(status.get("twins"), "propertyName")}
    rejected: list[str] = []
    pending: list[str] = []
    for name, wish in desired.items():
        described = models.get(name)
        twin = twins.get(name, {})
        reported = lookup(twin, "reported.value")
        if isinstance(reported, str) and same_value(described.type if described else None, wish, reported):
            continue
        refusal = lookup(twin, "observedDesired.metadata.problem")
        if refusal and lookup(twin, "observedDesired.value") == wish:
            rejected.append(f'{name} (desired "{_short(wish)}": {_short(str(refusal), 2 * SHOWN_CHARACTERS)})')
        elif isinstance(reported, str):
            pending.append(f'{name} (desired "{_short(wish)}", reported "{_short(reported)}")')
        else:
            pending.append(f'{name} (desired "{_short(wish)}", nothing reported yet)')
    count = f"{len(desired) - len(rejected) - len(pending)}/{len(desired)} in step"
    if rejected:
        return Verdict("False", "Rejected", f"{count}; refused: {_sentence(rejected + pending)}")
    if pending:
        return Verdict("False", "Pending", f"{count}; waiting for {_sentence(pending)}")
    return Verdict("True", "InStep", count)


# ---- Online


def _online(status: Mapping[str, JSON]) -> Verdict:
    state = str(status.get("state") or "")
    if not state:
        return Verdict("Unknown", "NotReported", "nobody has reported the device's state")
    told = f'last reported "{_short(state)}"'
    if status.get("lastOnlineTime"):
        told += f", last online {_short(str(status['lastOnlineTime']))}"
    if state.lower() in _ONLINE_STATES:
        return Verdict("True", "Online", told)
    if state.lower() in _OFFLINE_STATES:
        return Verdict("False", "Offline", told)
    return Verdict("Unknown", "OtherState", told)


# ---- texts and shapes


def _twin(name: str, previous: Mapping[str, JSON], report: PropertyReport) -> dict[str, JSON]:
    at = str(report.observed_at_ms)
    twin: dict[str, JSON] = {"propertyName": name}
    if report.value is not None:
        metadata = {"timestamp": at} | ({"type": report.value_type} if report.value_type else {})
        twin["reported"] = {"value": report.value, "metadata": metadata}
    elif "reported" in previous:
        twin["reported"] = previous["reported"]
    if report.desired is not None:
        metadata = {"timestamp": at} | ({"problem": report.problem} if report.problem else {})
        twin["observedDesired"] = {"value": report.desired, "metadata": metadata}
    return twin


def _entries(value: JSON, key: str) -> list[dict[str, JSON]]:
    """The well-formed entries of a list that is keyed by a text field; what a schema refuses is left out."""
    found = value if isinstance(value, list) else ()
    return [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get(key), str)]


def _sentence(parts: Sequence[str]) -> str:
    told = "; ".join(parts[:TOLD])
    return told if len(parts) <= TOLD else f"{told}; and {len(parts) - TOLD} more"


def _short(text: str, most: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
