"""
The conditions of a Device: the sentence a person reads with `kubectl describe`, the word a script waits for.

    Valid   the model, the node and every desired value are what they should be
    Synced  every desired value is known to the node and met by what the device last reported
    Online  what the mapper last said of the device, while its node is there to pass it on

Everything is computed from the objects alone, so that any replica comes to the same result.

Synced and generations. What a node reported may be older than the spec: after 21, 22 and 21 again in quick succession
the first answer looks like one to the last. So a node says which generation it has applied, and Synced=True carries
the least of those as its observedGeneration. `kubectl wait` believes a condition of the present generation only.

Invariants
    conditions() of its own result changes nothing, whatever the time
    a condition's lastTransitionTime changes exactly when its status does

Pure: no clock, no I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from apimachinery.devices import PropertyModel, is_met, same_value
from apimachinery.objects import JSON, lookup
from cloudhub.devices import desired_entries, entries, model_of, node_of, property_names

TOLD = 4
"""Of how many properties a condition's message speaks; the others are counted."""
SHOWN_CHARACTERS = 64
REASON_CHARACTERS = 256

VALID = "Valid"
SYNCED = "Synced"
ONLINE = "Online"

_ONLINE_STATES = frozenset({"online", "ok", "healthy"})
_OFFLINE_STATES = frozenset({"offline", "unhealthy", "disconnected"})


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
    name: str = ""
    """The property whose desired value is to blame; "" when none is."""


class Sync(NamedTuple):
    """What became of one desired value."""

    state: str
    """"synced", "pending" or "rejected"."""
    reason: str
    """A sentence; "" where there is nothing to say."""


def ready_of(node: Mapping[str, JSON] | None) -> str:
    """The status of a Node's Ready condition; "" where there is none."""
    found = [entry for entry in entries(lookup(node or {}, "status.conditions"), "type") if entry["type"] == "Ready"]
    return str(found[0].get("status") or "") if found else ""


def problems_of(
    device: Mapping[str, JSON], model: Mapping[str, JSON] | None, models: Mapping[str, PropertyModel], node_exists: bool
) -> list[Problem]:
    """What is wrong with a Device, the worst first. model: None when there is none of that name."""
    return list(_problems(device, model, models, node_exists))


def syncs_of(
    device: Mapping[str, JSON],
    models: Mapping[str, PropertyModel],
    problems: Iterable[Problem],
    twins: Mapping[str, Mapping[str, JSON]],
) -> dict[str, Sync]:
    """What became of each desired value, by property. twins: status.twins by property."""
    refused = {problem.name: problem.message for problem in problems if problem.name}
    return {
        name: Sync("rejected", refused[name])
        if name in refused
        else _sync(entry["value"], models.get(name), twins.get(name, {}))
        for name, entry in desired_entries(device).items()
    }


def conditions(
    device: Mapping[str, JSON],
    node: Mapping[str, JSON] | None,
    problems: Sequence[Problem],
    syncs: Mapping[str, Sync],
    status: Mapping[str, JSON],
    now: str,
) -> list[dict[str, JSON]]:
    """
    The conditions for a device with this status; those in it that are not ours are kept, behind ours.

    node: None when there is none of that name. status: with `twins`, `state` and the previous `conditions`.
    """
    generation = lookup(device, "metadata.generation")
    current = generation if isinstance(generation, int) else None
    synced = _synced(device, syncs)
    confirmed = _confirmed(status, syncs, current) if synced.status == "True" else current
    if synced.status == "True" and confirmed != current:
        synced = synced._replace(message=f"{synced.message}; the node has not confirmed the latest edit yet")
    previous = {entry["type"]: entry for entry in entries(status.get("conditions"), "type")}
    ours = [
        _condition(kind, verdict, previous.pop(kind, None), observed, now)
        for kind, verdict, observed in (
            (VALID, _valid(device, problems), current),
            (SYNCED, synced, confirmed),
            (ONLINE, _online(node, status), current),
        )
    ]
    return ours + list(previous.values())


def _condition(
    kind: str, verdict: Verdict, previous: Mapping[str, JSON] | None, generation: int | None, now: str
) -> dict[str, JSON]:
    since = now
    if previous is not None and previous.get("status") == verdict.status:
        since = previous.get("lastTransitionTime") or now
    condition: dict[str, JSON] = {"type": kind, **verdict._asdict(), "lastTransitionTime": since}
    if generation is not None:
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
    desired = desired_entries(device)
    for name in property_names(device):
        described = models.get(name)
        if described is None:
            yield Problem("UnknownProperty", f"{name}: the model has no such property", name)
        elif (empty := described.contradiction()) is not None:
            yield Problem("ModelInvalid", empty, name)
        elif name in desired:
            value, unit = desired[name]["value"], str(lookup(desired[name], "metadata.unit") or "")
            if not described.writable:
                yield Problem("NotWritable", f"{name}: is read-only, a desired value has no effect", name)
            elif (wrong := described.problem_with(value) or described.problem_with_unit(unit)) is not None:
                yield Problem("DesiredInvalid", wrong, name)


# ---- Synced


def _sync(wish: str, described: PropertyModel | None, twin: Mapping[str, JSON]) -> Sync:
    observed, noted = lookup(twin, "observedDesired.value"), lookup(twin, "observedDesired.metadata") or {}
    reported, told = lookup(twin, "reported.value"), lookup(twin, "reported.metadata") or {}
    if observed != wish:
        if noted.get("origin") == "edge" and isinstance(observed, str):
            return Sync("pending", f'somebody at the edge has set "{_short(observed)}"')
        return Sync("pending", "the node has not taken it in yet")
    if refusal := noted.get("problem"):
        return Sync("rejected", _short(str(refusal), REASON_CHARACTERS))
    if not isinstance(reported, str):
        return Sync("pending", "nothing reported yet")
    kind = described.type if described else None
    if is_met(kind, wish, _number(noted.get("version")) or 0, reported, _number(told.get("answers"))):
        return Sync("synced", "nobody has reported it for a while" if told.get("stale") else "")
    if same_value(kind, wish, reported):
        return Sync("pending", f'reported "{_short(reported)}" in answer to an older desired value')
    return Sync("pending", f'reported "{_short(reported)}"')


def _synced(device: Mapping[str, JSON], syncs: Mapping[str, Sync]) -> Verdict:
    if not syncs:
        return Verdict("Unknown", "NothingDesired", "no property has a desired value")
    desired = desired_entries(device)
    said: dict[str, list[str]] = {"rejected": [], "pending": [], "synced": []}
    for name, sync in syncs.items():
        said[sync.state].append(f'{name} (desired "{_short(desired[name]["value"])}": {sync.reason})')
    count = f"{synced_properties(syncs)} in step"
    if said["rejected"]:
        return Verdict("False", "Rejected", f"{count}; refused: {_sentence(said['rejected'] + said['pending'])}")
    if said["pending"]:
        return Verdict("False", "Pending", f"{count}; waiting for {_sentence(said['pending'])}")
    stale = [name for name, sync in syncs.items() if sync.reason]
    return Verdict("True", "InStep", count + (f"; not reported for a while: {_sentence(stale)}" if stale else ""))


def synced_properties(syncs: Mapping[str, Sync]) -> str:
    """How many desired values are met, of how many: "2/3"."""
    return f"{sum(sync.state == 'synced' for sync in syncs.values())}/{len(syncs)}"


def _confirmed(status: Mapping[str, JSON], syncs: Mapping[str, Sync], current: int | None) -> int | None:
    """The least generation that the node has confirmed a desired value for; a node that says none confirms all."""
    if current is None:
        return None
    told = [
        _number(lookup(twin, "observedDesired.metadata.generation"))
        for twin in entries(status.get("twins"), "propertyName")
        if twin["propertyName"] in syncs
    ]
    return min([current, *(generation for generation in told if generation is not None)])


# ---- Online


def _online(node: Mapping[str, JSON] | None, status: Mapping[str, JSON]) -> Verdict:
    state = str(status.get("state") or "")
    if not state:
        return Verdict("Unknown", "NotReported", "nobody has reported the device's state")
    told = f'last reported "{_short(state)}"'
    if status.get("lastOnlineTime"):
        told += f", last online {_short(str(status['lastOnlineTime']))}"
    if problem := status.get("problem"):
        told += f"; {_short(str(problem), REASON_CHARACTERS)}"
    if ready_of(node) in ("False", "Unknown"):
        return Verdict("Unknown", "NodeNotReady", f"the node is not ready; {told}")
    if state.lower() in _ONLINE_STATES:
        return Verdict("True", "Online", told)
    if state.lower() in _OFFLINE_STATES:
        return Verdict("False", "Offline", told)
    return Verdict("Unknown", "OtherState", told)


# ---- texts


def _number(text: JSON) -> int | None:
    """A number in a metadata map, where all values are texts."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20 else None


def _sentence(parts: Sequence[str]) -> str:
    told = "; ".join(parts[:TOLD])
    return told if len(parts) <= TOLD else f"{told}; and {len(parts) - TOLD} more"


def _short(text: str, most: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
