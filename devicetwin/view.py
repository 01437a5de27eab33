"""
A twin as the node's local API shows it: the status that the hub would write, from what the edge knows itself.

The words and places are those of Device.status in the cluster (docs/devices.md), so that what reads the one reads
the other. What only the cluster knows (when a condition turned) is left out.

Pure.
"""

from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.objects import JSON
from devicetwin.messages import OFFLINE, STATES_UP
from devicetwin.twin import Origin, Property, Twin


class EdgeWish(NamedTuple):
    """A wish that somebody at the edge set and the cloud has not replaced."""

    value: str
    """"" for: no wish, whatever the cloud wishes."""
    version: int


class TwinView(NamedTuple):
    """What the local API adds to a Device."""

    edge_wishes: Mapping[str, EdgeWish]
    versions: Mapping[str, int]
    """The number of each property's wish, to base another one on; 0 for a property that never had one."""
    status: Mapping[str, JSON]


def view_of(twin: Twin) -> TwinView:
    """Everything that the local API shows of a twin."""
    return TwinView(
        edge_wishes={
            name: EdgeWish(each.desired.value, each.desired.version)
            for name, each in twin.properties.items()
            if each.desired.origin is Origin.EDGE
        },
        versions={name: each.desired.version for name, each in twin.properties.items()},
        status=status_of(twin),
    )


def status_of(twin: Twin) -> dict[str, JSON]:
    """Device.status of what the Device or its model declares."""
    wanted = {name: each for name, each in twin.properties.items() if each.declared and each.desired.value}
    met = sum(not each.is_open and not each.desired.problem for each in wanted.values())
    status: dict[str, JSON] = {
        "twins": [
            entry
            for name, each in twin.properties.items()
            if each.declared and len(entry := _entry(name, each, twin.generation)) > 1
        ],
        "syncedProperties": f"{met}/{len(wanted)}",
        "conditions": [
            _condition("Valid", _valid(wanted), twin),
            _condition("Synced", _synced(met, wanted), twin),
            _condition("Online", _online(twin), twin),
        ],
    }
    for name, text in (("state", twin.state), ("lastOnlineTime", twin.last_online), ("problem", twin.problem)):
        if text:
            status[name] = text
    return status


def _entry(name: str, each: Property, generation: int) -> dict[str, JSON]:
    report = each.report(generation)
    entry: dict[str, JSON] = {"propertyName": name}
    if report.value is not None:
        entry["reported"] = _value(
            report.value,
            timestamp=report.observed_at_ms,
            type=report.value_type,
            deviceTimestamp=report.device_at_ms,
            answers=report.answers,
            stale=report.stale,
        )
    if report.desired is not None:
        entry["observedDesired"] = _value(
            report.desired,
            timestamp=report.desired_at_ms,
            version=report.desired_version,
            generation=report.generation,
            origin=report.origin,
            problem=report.problem,
        )
        entry["desired"] = {"value": report.desired}
        entry["sync"] = "rejected" if report.problem else "pending" if each.is_open else "synced"
        if report.problem:
            entry["reason"] = report.problem
    return entry


def _value(value: str, **metadata: str | int | bool | None) -> dict[str, JSON]:
    """KubeEdge's TwinProperty: its metadata are texts. What is not known is left out, but for an answer to wish 0."""
    texts = {
        name: "true" if each is True else str(each)
        for name, each in metadata.items()
        if each or (name == "answers" and each is not None)
    }
    return {"value": value, "metadata": texts}


def _condition(kind: str, verdict: tuple[str, str, str], twin: Twin) -> dict[str, JSON]:
    status, reason, message = verdict
    condition: dict[str, JSON] = {"type": kind, "status": status, "reason": reason, "message": message}
    if twin.generation:
        condition["observedGeneration"] = twin.generation
    return condition


def _valid(wanted: Mapping[str, Property]) -> tuple[str, str, str]:
    problems = [each.desired.problem for each in wanted.values() if each.desired.problem]
    return ("False", "DesiredInvalid", "; ".join(problems[:4])) if problems else ("True", "Accepted", "")


def _synced(met: int, wanted: Mapping[str, Property]) -> tuple[str, str, str]:
    if not wanted:
        return "Unknown", "NothingDesired", "no property has a desired value"
    if met == len(wanted):
        return "True", "InStep", f"{met}/{met} in step"
    if refused := [
        f"{name}: {why}" for name, each in wanted.items() if (why := each.desired.problem or each.desired.refusal)
    ]:
        return "False", "Rejected", f"{met}/{len(wanted)} in step; refused: {'; '.join(refused[:4])}"
    waiting = ", ".join(name for name, each in wanted.items() if each.is_open)
    return "False", "Pending", f"{met}/{len(wanted)} in step; waiting for {waiting}"[:256]


def _online(twin: Twin) -> tuple[str, str, str]:
    if not twin.state:
        return "Unknown", "NotReported", "nobody has reported the device's state"
    told = f'last reported "{twin.state}"'
    if twin.state.lower() in STATES_UP:
        return "True", "Online", told
    if twin.state.lower() in (OFFLINE, "unhealthy"):
        return "False", "Offline", told
    return "Unknown", "OtherState", told
