"""Tests for cloudhub.conditions."""

from typing import Any

import pytest

from apimachinery.devices import property_models
from cloudhub.conditions import conditions, problems_of, syncs_of
from cloudhub.devices import entries
from tests.harness.thermostat import THERMOSTAT, a_device

THEN, NOW = "2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z"

NODE: dict[str, Any] = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def found(
    body: dict[str, Any],
    status: dict[str, Any] | None = None,
    *,
    model: dict[str, Any] | None = THERMOSTAT,
    node: dict[str, Any] | None = NODE,
    now: str = NOW,
) -> list[dict[str, Any]]:
    status = status or {}
    models = property_models(model or {})
    problems = problems_of(body, model, models, node is not None)
    twins = {entry["propertyName"]: entry for entry in entries(status.get("twins"), "propertyName")}
    return conditions(body, node, problems, syncs_of(body, models, problems, twins), status, now)


def condition(kind: str, conditions: list[dict[str, Any]]) -> dict[str, Any]:
    (entry,) = [entry for entry in conditions if entry["type"] == kind]
    return entry


def verdict(kind: str, conditions: list[dict[str, Any]]) -> tuple[str, str, str]:
    entry = condition(kind, conditions)
    return entry["status"], entry["reason"], entry["message"]


def twin(name: str, value: str | None, observed: str | None = None, **noted: str) -> dict[str, Any]:
    """A twin as the status has it; what concerns the reading stands in `told`, the rest of noted with the wish."""
    told = {field: noted.pop(field) for field in ("answers", "stale") if field in noted}
    entry: dict[str, Any] = {"propertyName": name}
    if value is not None:
        entry["reported"] = {"value": value, "metadata": {"timestamp": "5", **told}}
    if observed is not None:
        entry["observedDesired"] = {"value": observed, "metadata": {"timestamp": "5", **noted}}
    return entry


# ---- Valid


def with_range(low: str, high: str) -> dict[str, Any]:
    return {"spec": {"properties": [{"name": "setpoint", "type": "FLOAT", "minimum": low, "maximum": high}]}}


@pytest.mark.parametrize(
    ("body", "model", "node", "expected"),
    [
        (
            a_device(setpoint="21", temperature=None),
            THERMOSTAT,
            NODE,
            ("True", "Accepted", "the model has 2 of 2 properties"),
        ),
        (a_device(), THERMOSTAT, NODE, ("True", "Accepted", "no properties")),
        (
            a_device(setpoint="99"),
            None,
            NODE,
            ("False", "ModelNotFound", 'there is no DeviceModel "thermostat" in this namespace'),
        ),
        (a_device(model=""), THERMOSTAT, NODE, ("False", "ModelNotFound", "spec.deviceModelRef.name is not set")),
        (a_device(), THERMOSTAT, None, ("False", "NodeNotFound", 'there is no node "edge-1"')),
        (
            a_device(node=""),
            THERMOSTAT,
            None,
            ("False", "NodeNotFound", "spec.nodeName is not set: the device is attached to no node"),
        ),
        (
            a_device(setpoint="99"),
            THERMOSTAT,
            NODE,
            ("False", "DesiredInvalid", "setpoint: 99 is above the model's maximum of 30"),
        ),
        (a_device(setpoint="warm"), THERMOSTAT, NODE, ("False", "DesiredInvalid", 'setpoint: "warm" is not a number')),
        (
            a_device(temperature="20"),
            THERMOSTAT,
            NODE,
            ("False", "NotWritable", "temperature: is read-only, a desired value has no effect"),
        ),
        (
            a_device(pressure=None),
            THERMOSTAT,
            NODE,
            ("False", "UnknownProperty", "pressure: the model has no such property"),
        ),
        (
            a_device(setpoint="21"),
            with_range("30", "5"),
            NODE,
            ("False", "ModelInvalid", "setpoint: the model's minimum of 30 is above its maximum of 5"),
        ),
        (
            a_device(count="1.5", setpoint="1"),
            THERMOSTAT,
            None,
            (
                "False",
                "NodeNotFound",
                'there is no node "edge-1"; count: "1.5" is not an integer; '
                "setpoint: 1 is below the model's minimum of 5",
            ),
        ),
        (
            a_device(a=None, b=None, c=None, d=None, e=None, f=None),
            THERMOSTAT,
            NODE,
            (
                "False",
                "UnknownProperty",
                "; ".join(f"{name}: the model has no such property" for name in "abcd") + "; and 2 more",
            ),
        ),
        ({}, None, None, ("False", "ModelNotFound", None)),
        ({"spec": {"properties": [5, {}, {"name": 7}]}}, {}, None, ("False", "ModelNotFound", None)),
    ],
)
def test_valid(
    body: dict[str, Any], model: dict[str, Any] | None, node: dict[str, Any] | None, expected: tuple[Any, ...]
) -> None:
    said = verdict("Valid", found(body, model=model, node=node))
    assert said[:2] == expected[:2]
    assert expected[2] in (None, said[2])


def test_a_desired_value_in_another_unit_is_refused() -> None:
    body = a_device(setpoint="70")
    body["spec"]["properties"][0]["desired"] = {"value": "20", "metadata": {"unit": "F", "type": "float"}}
    said = verdict("Valid", found(body))
    assert said == ("False", "DesiredInvalid", 'setpoint: the value is in "F", the model\'s unit is "C"')
    body["spec"]["properties"][0]["desired"]["metadata"]["unit"] = "C"
    assert verdict("Valid", found(body))[0] == "True"


def test_an_empty_desired_value_is_none_as_in_kubeedges_examples() -> None:
    conditions = found(a_device(count="", temperature=""))
    assert verdict("Valid", conditions)[0] == "True"
    assert verdict("Synced", conditions)[1] == "NothingDesired"


# ---- Synced


@pytest.mark.parametrize(
    ("desired", "twins", "expected"),
    [
        ({"temperature": None}, [], ("Unknown", "NothingDesired", "no property has a desired value")),
        ({"setpoint": "21"}, [twin("setpoint", "21", "21")], ("True", "InStep", "1/1 in step")),
        ({"setpoint": "21"}, [twin("setpoint", "21.0", "21")], ("True", "InStep", "1/1 in step")),
        (
            {"mode": "21"},
            [twin("mode", "21.0", "21")],
            ("False", "Pending", '0/1 in step; waiting for mode (desired "21": reported "21.0")'),
        ),
        (
            {"setpoint": "21", "mode": "eco"},
            [twin("mode", "eco", "eco"), twin("setpoint", None, "21")],
            ("False", "Pending", '1/2 in step; waiting for setpoint (desired "21": nothing reported yet)'),
        ),
        (
            {"setpoint": "21"},
            [twin("setpoint", "19", "21", problem="the bus is silent")],
            ("False", "Rejected", '0/1 in step; refused: setpoint (desired "21": the bus is silent)'),
        ),
        (
            # The refusal was of another wish than the one that stands now.
            {"setpoint": "22"},
            [twin("setpoint", "19", "21", problem="the bus is silent")],
            ("False", "Pending", '0/1 in step; waiting for setpoint (desired "22": the node has not taken it in yet)'),
        ),
        (
            # What the node does not know yet cannot have been met, whatever the device says.
            {"setpoint": "22"},
            [twin("setpoint", "22", "21")],
            ("False", "Pending", '0/1 in step; waiting for setpoint (desired "22": the node has not taken it in yet)'),
        ),
        (
            {"setpoint": "21"},
            [twin("setpoint", "21", "21", version="4", answers="3")],
            (
                "False",
                "Pending",
                '0/1 in step; waiting for setpoint (desired "21": reported "21" in answer to an older desired value)',
            ),
        ),
        ({"setpoint": "21"}, [twin("setpoint", "21", "21", version="4", answers="4")], ("True", "InStep", None)),
        (
            {"setpoint": "21"},
            [twin("setpoint", "25", "25", origin="edge")],
            (
                "False",
                "Pending",
                '0/1 in step; waiting for setpoint (desired "21": somebody at the edge has set "25")',
            ),
        ),
        (
            {"setpoint": "21"},
            [twin("setpoint", "21", "21", stale="true")],
            ("True", "InStep", "1/1 in step; not reported for a while: setpoint"),
        ),
        (
            # The cloud knows that it is wrong, also while the node is away.
            {"setpoint": "99"},
            [],
            (
                "False",
                "Rejected",
                '0/1 in step; refused: setpoint (desired "99": setpoint: 99 is above the model\'s maximum of 30)',
            ),
        ),
        (
            {"mode": "x" * 100},
            [],
            (
                "False",
                "Pending",
                f'0/1 in step; waiting for mode (desired "{"x" * 61}...": the node has not taken it in yet)',
            ),
        ),
    ],
)
def test_synced(desired: dict[str, Any], twins: list[dict[str, Any]], expected: tuple[Any, ...]) -> None:
    said = verdict("Synced", found(a_device(**desired), {"twins": twins}))
    assert said[:2] == expected[:2]
    assert expected[2] in (None, said[2])


def test_synced_speaks_of_the_generation_that_the_node_has_confirmed() -> None:
    # 21, 22 and 21 again: the status has the answer to the first. Nobody who waits may take it for the last one's.
    body = a_device(setpoint="21", mode="eco")
    twins = [twin("setpoint", "21", "21", generation="1"), twin("mode", "eco", "eco", generation="3")]
    entry = condition("Synced", found(body, {"twins": twins}))
    assert (entry["status"], entry["observedGeneration"]) == ("True", 1)
    assert entry["message"] == "2/2 in step; the node has not confirmed the latest edit yet"
    twins[0] = twin("setpoint", "21", "21", generation="3")
    entry = condition("Synced", found(body, {"twins": twins}))
    assert (entry["status"], entry["observedGeneration"], entry["message"]) == ("True", 3, "2/2 in step")
    # That something is open is known of the present spec; and a node may be ahead of what this hub has seen.
    twins[1] = twin("mode", "off", "eco", generation="9")
    assert condition("Synced", found(body, {"twins": twins}))["observedGeneration"] == 3


@pytest.mark.parametrize("twins", [None, 5, "x", [None], [{}], [{"propertyName": 5}], [{"propertyName": "mode"}]])
def test_rubbish_in_a_status_is_no_crash(twins: Any) -> None:
    conditions = found(a_device(mode="eco"), {"twins": twins, "conditions": twins, "state": 5})
    assert verdict("Synced", conditions)[:2] == ("False", "Pending")


@pytest.mark.parametrize("text", ["-1", "x", "²", "9" * 30, 7, None])
def test_rubbish_in_metadata_is_nothing_said(text: Any) -> None:
    entry = twin("mode", "eco", "eco")
    entry["observedDesired"]["metadata"] |= {"version": text, "generation": text}
    entry["reported"]["metadata"]["answers"] = text
    said = condition("Synced", found(a_device(mode="eco"), {"twins": [entry]}))
    assert (said["status"], said["observedGeneration"]) == ("True", 3)


# ---- Online


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ("Unknown", "NotReported", "nobody has reported the device's state")),
        ({"state": "online"}, ("True", "Online", 'last reported "online"')),
        ({"state": "OK"}, ("True", "Online", 'last reported "OK"')),
        (
            {"state": "offline", "lastOnlineTime": THEN},
            ("False", "Offline", f'last reported "offline", last online {THEN}'),
        ),
        ({"state": "strange"}, ("Unknown", "OtherState", 'last reported "strange"')),
        (
            {"state": "online", "problem": "two mappers claim it: a, b"},
            ("True", "Online", 'last reported "online"; two mappers claim it: a, b'),
        ),
    ],
)
def test_online(status: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert verdict("Online", found(a_device(), status)) == expected


@pytest.mark.parametrize(
    ("ready", "expected"), [("True", "True"), ("False", "Unknown"), ("Unknown", "Unknown"), ("", "True")]
)
def test_nothing_is_known_of_a_device_whose_node_is_not_there(ready: str, expected: str) -> None:
    node = {"status": {"conditions": [{"type": "Ready", "status": ready}] if ready else []}}
    said = verdict("Online", found(a_device(), {"state": "online"}, node=node))
    assert said[0] == expected
    if expected == "Unknown":
        assert said[1:] == ("NodeNotReady", 'the node is not ready; last reported "online"')


# ---- transitions


def test_a_transition_is_a_change_of_status_not_of_reason() -> None:
    first = found(a_device(setpoint="99"), model=None, now=THEN)
    second = found(a_device(setpoint="99"), {"conditions": first})
    third = found(a_device(setpoint="9"), {"conditions": second})
    valid = [condition("Valid", each) for each in (first, second, third)]
    assert [(entry["reason"], entry["lastTransitionTime"]) for entry in valid] == [
        ("ModelNotFound", THEN),
        ("DesiredInvalid", THEN),
        ("Accepted", NOW),
    ]
    assert [entry["observedGeneration"] for entry in third] == [3, 3, 3]


def test_other_peoples_conditions_are_kept() -> None:
    theirs = {"type": "Calibrated", "status": "True"}
    conditions = found(a_device(), {"conditions": [theirs]})
    assert [entry["type"] for entry in conditions] == ["Valid", "Synced", "Online", "Calibrated"]
    assert conditions[-1] == theirs
