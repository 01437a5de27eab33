"""
The whole status of a Device: what was reported, what became of each desired value, the conditions.

Invariants
    status_after() of its own result changes nothing, whatever the time
    fields that are not ours are kept

Pure: no clock, no I/O.
"""

from collections.abc import Mapping

from apimachinery.devices import PropertyReport, property_models
from apimachinery.objects import JSON
from cloudhub.conditions import conditions, problems_of, synced_properties, syncs_of
from cloudhub.devices import StateReport, desired_entries, property_names, reported_after


def status_after(
    device: Mapping[str, JSON],
    model: Mapping[str, JSON] | None,
    node: Mapping[str, JSON] | None,
    status: Mapping[str, JSON],
    properties: Mapping[str, PropertyReport],
    state: StateReport | None,
    now: str,
) -> dict[str, JSON]:
    """
    The Device's status once these reports are in it; without reports, only what follows from the spec is updated.

    model, node: None when there is none of that name. now: RFC 3339, for transitions.
    """
    after = {**status, **reported_after(device, status, properties, state)}
    if state is not None and (state.problem or "problem" in status):
        after["problem"] = state.problem
    reported = {twin["propertyName"]: twin for twin in after["twins"]}
    models = property_models(model or {})
    problems = problems_of(device, model, models, node is not None)
    syncs = syncs_of(device, models, problems, reported)
    desired = desired_entries(device)
    twins: list[dict[str, JSON]] = []
    for name in property_names(device):
        twin = dict(reported.get(name, {"propertyName": name}))
        if name in syncs:
            twin["desired"] = {"value": desired[name]["value"]}
            twin["sync"] = syncs[name].state
            if syncs[name].reason:
                twin["reason"] = syncs[name].reason
        if len(twin) > 1:
            twins.append(twin)
    after["twins"] = twins
    after["syncedProperties"] = synced_properties(syncs)
    after["conditions"] = conditions(device, node, problems, syncs, after, now)
    return after
