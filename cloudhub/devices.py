"""
What stands in a Device's spec, and what a node's reports make of a status.

The desired values stand in the spec, what a node reports goes into status.twins. DeviceStatus, where KubeEdge's
users look, has what was reported and no more; Device.status says besides what became of each wish, and the conditions
(cloudhub.conditions).

Where the two kinds have no field, a fact is a text in a `metadata` map, which readers that know KubeEdge pass over:

    reported         timestamp (ms, when the edge took it in), type, deviceTimestamp (ms), answers, stale
    observedDesired  timestamp (ms, when the edge learned of it), version, generation, origin, problem

Invariants
    twins are those of properties that the spec lists, in its order
    a report changes the twin of its own property only

Pure: no clock, no I/O.
"""

from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.devices import PropertyReport
from apimachinery.objects import JSON, lookup


class StateReport(NamedTuple):
    """What an edge reports of a device as a whole."""

    state: str
    """The mapper's word; KubeEdge's are online, offline, ok, unhealthy, unknown."""
    last_online_time: str
    """RFC 3339; "" where there is none."""
    problem: str = ""
    """What a person should know of the device as a whole, as a sentence; "" for nothing."""


def node_of(device: Mapping[str, JSON]) -> str:
    """The node a device is attached to; "" for none."""
    return str(lookup(device, "spec.nodeName") or "")


def model_of(device: Mapping[str, JSON]) -> str:
    """The name of a device's model, in the device's namespace; "" for none."""
    return str(lookup(device, "spec.deviceModelRef.name") or "")


def property_names(device: Mapping[str, JSON]) -> list[str]:
    """The properties in use, in the spec's order."""
    return [entry["name"] for entry in entries(lookup(device, "spec.properties"), "name")]


def desired_entries(device: Mapping[str, JSON]) -> dict[str, dict[str, JSON]]:
    """
    Property to `desired`, for those that have a desired value.

    An empty text is none: KubeEdge's examples write it where nothing is wished for.
    """
    return {
        entry["name"]: entry["desired"]
        for entry in entries(lookup(device, "spec.properties"), "name")
        if isinstance(entry.get("desired"), dict)
        and isinstance(entry["desired"].get("value"), str)
        and entry["desired"]["value"]
    }


def reported_after(
    device: Mapping[str, JSON],
    status: Mapping[str, JSON],
    properties: Mapping[str, PropertyReport],
    state: StateReport | None,
) -> dict[str, JSON]:
    """The part of a status that a node reports: twins, state and lastOnlineTime. All that DeviceStatus.status gets."""
    twins = {entry["propertyName"]: entry for entry in entries(status.get("twins"), "propertyName")}
    merged = []
    for name in property_names(device):
        twin = {field: part for field, part in twins.get(name, {}).items() if field in _REPORTED}
        if name in properties:
            twin = _twin(twin, properties[name])
        if twin:
            merged.append({"propertyName": name, **twin})
    after: dict[str, JSON] = {"twins": merged}
    told = StateReport(str(status.get("state") or ""), str(status.get("lastOnlineTime") or ""))
    if state is not None:
        # A device that is offline now was online at the time told before.
        told = StateReport(state.state, state.last_online_time or told.last_online_time)
    for field, text in (("state", told.state), ("lastOnlineTime", told.last_online_time)):
        if text:
            after[field] = text
    return after


_REPORTED = ("reported", "observedDesired")


def _twin(previous: Mapping[str, JSON], report: PropertyReport) -> dict[str, JSON]:
    twin: dict[str, JSON] = {}
    if report.value is not None:
        metadata = {"timestamp": str(report.observed_at_ms)}
        if report.value_type:
            metadata["type"] = report.value_type
        if report.device_at_ms is not None:
            metadata["deviceTimestamp"] = str(report.device_at_ms)
        if report.answers is not None:
            metadata["answers"] = str(report.answers)
        if report.stale:
            metadata["stale"] = "true"
        twin["reported"] = {"value": report.value, "metadata": metadata}
    elif "reported" in previous:
        twin["reported"] = previous["reported"]
    if report.desired is not None:
        at = report.observed_at_ms if report.desired_at_ms is None else report.desired_at_ms
        metadata = {"timestamp": str(at)}
        for name, number in (("version", report.desired_version), ("generation", report.generation)):
            if number:
                metadata[name] = str(number)
        for name, text in (("origin", report.origin), ("problem", report.problem)):
            if text:
                metadata[name] = text
        twin["observedDesired"] = {"value": report.desired, "metadata": metadata}
    return twin


def entries(value: JSON, key: str) -> list[dict[str, JSON]]:
    """The well-formed entries of a list that is keyed by a text field; what a schema refuses is left out."""
    found = value if isinstance(value, list) else ()
    return [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get(key), str)]
