"""Tests for cloudhub.devices."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyReport
from cloudhub.devices import (
    StateReport,
    conditions,
    desired_values,
    model_of,
    node_of,
    property_names,
    reported_after,
    status_after,
)

THEN, NOW = "2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z"

MODEL: dict[str, Any] = {
    "spec": {
        "properties": [
            {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
            {"name": "setpoint", "type": "FLOAT", "minimum": "5", "maximum": "30"},
            {"name": "mode", "type": "STRING"},
            {"name": "count", "type": "INT"},
        ]
    }
}


def device(*, node: str = "edge-1", model: str = "thermostat", **desired: Any) -> dict[str, Any]:
    """A device with these properties; None for one without a desired value."""
    properties = [
        {"name": name} | ({"desired": {"value": value}} if value is not None else {}) for name, value in desired.items()
    ]
    return {
        "metadata": {"name": "d", "generation": 3},
        "spec": {"nodeName": node, "deviceModelRef": {"name": model}, "properties": properties},
    }


def report(value: str | None = None, desired: str | None = None, problem: str = "", at: int = 5) -> PropertyReport:
    return PropertyReport(value, "", at, desired, problem)


def twin(name: str, value: str, **observed: Any) -> dict[str, Any]:
    return {"propertyName": name, "reported": {"value": value}, **observed}


def verdict(kind: str, found: list[dict[str, Any]]) -> tuple[str, str, str]:
    (entry,) = [entry for entry in found if entry["type"] == kind]
    return entry["status"], entry["reason"], entry["message"]


# ---- Valid


@pytest.mark.parametrize(
    ("body", "model", "node_exists", "expected"),
    [
        (device(setpoint="21", temperature=None), MODEL, True, ("True", "Accepted", "the model has 2 of 2 properties")),
        (device(), MODEL, True, ("True", "Accepted", "no properties")),
        (
            device(setpoint="99"),
            None,
            True,
            ("False", "ModelNotFound", 'there is no DeviceModel "thermostat" in this namespace'),
        ),
        (device(model=""), MODEL, True, ("False", "ModelNotFound", "spec.deviceModelRef.name is not set")),
        (device(), MODEL, False, ("False", "NodeNotFound", 'there is no node "edge-1"')),
        (
            device(node=""),
            MODEL,
            False,
            ("False", "NodeNotFound", "spec.nodeName is not set: the device is attached to no node"),
        ),
        (
            device(setpoint="99"),
            MODEL,
            True,
            ("False", "DesiredInvalid", "setpoint: 99 is above the model's maximum of 30"),
        ),
        (device(setpoint="warm"), MODEL, True, ("False", "DesiredInvalid", 'setpoint: "warm" is not a number')),
        (
            device(temperature="20"),
            MODEL,
            True,
            ("False", "NotWritable", "temperature: is read-only, a desired value has no effect"),
        ),
        (
            device(pressure=None),
            MODEL,
            True,
            ("False", "UnknownProperty", "pressure: the model has no such property"),
        ),
        (
            device(count="1.5", setpoint="1"),
            MODEL,
            False,
            (
                "False",
                "NodeNotFound",
                'there is no node "edge-1"; count: "1.5" is not an integer; '
                "setpoint: 1 is below the model's minimum of 5",
            ),
        ),
        (
            device(a=None, b=None, c=None, d=None, e=None, f=None),
            MODEL,
            True,
            (
                "False",
                "UnknownProperty",
                "; ".join(f"{name}: the model has no such property" for name in "abcd") + "; and 2 more",
            ),
        ),
        ({}, None, False, ("False", "ModelNotFound", None)),
        ({"spec": {"properties": [5, {}, {"name": 7}]}}, {}, False, ("False", "ModelNotFound", None)),
    ],
)
def test_valid(body: dict[str, Any], model: dict[str, Any] | None, node_exists: bool, expected: Any) -> None:
    found = verdict("Valid", conditions(body, model, node_exists, {}, NOW))
    assert found[:2] == expected[:2]
    assert expected[2] in (None, found[2])


# ---- Synced


@pytest.mark.parametrize(
    ("desired", "twins", "expected"),
    [
        ({"temperature": None}, [], ("Unknown", "NothingDesired", "no property has a desired value")),
        ({"setpoint": "21"}, [twin("setpoint", "21")], ("True", "InStep", "1/1 in step")),
        ({"setpoint": "21"}, [twin("setpoint", "21.0")], ("True", "InStep", "1/1 in step")),
        (
            {"mode": "21"},
            [twin("mode", "21.0")],
            ("False", "Pending", '0/1 in step; waiting for mode (desired "21", reported "21.0")'),
        ),
        (
            {"setpoint": "21", "mode": "eco"},
            [twin("mode", "eco")],
            ("False", "Pending", '1/2 in step; waiting for setpoint (desired "21", nothing reported yet)'),
        ),
        (
            {"setpoint": "21"},
            [twin("setpoint", "19", observedDesired={"value": "21", "metadata": {"problem": "the bus is silent"}})],
            ("False", "Rejected", '0/1 in step; refused: setpoint (desired "21": the bus is silent)'),
        ),
        (
            # The refusal was of another wish than the one that stands now.
            {"setpoint": "22"},
            [twin("setpoint", "19", observedDesired={"value": "21", "metadata": {"problem": "the bus is silent"}})],
            ("False", "Pending", '0/1 in step; waiting for setpoint (desired "22", reported "19")'),
        ),
        (
            {"mode": "x" * 100},
            [],
            ("False", "Pending", f'0/1 in step; waiting for mode (desired "{"x" * 61}...", nothing reported yet)'),
        ),
    ],
)
def test_synced(desired: dict[str, Any], twins: list[dict[str, Any]], expected: tuple[str, str, str]) -> None:
    found = conditions(device(**desired), MODEL, True, {"twins": twins}, NOW)
    assert verdict("Synced", found) == expected


@pytest.mark.parametrize("twins", [None, 5, "x", [None], [{}], [{"propertyName": 5}], [{"propertyName": "mode"}]])
def test_rubbish_in_a_status_is_no_crash(twins: Any) -> None:
    found = conditions(device(mode="eco"), MODEL, True, {"twins": twins, "conditions": twins, "state": 5}, NOW)
    assert verdict("Synced", found)[:2] == ("False", "Pending")


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
    ],
)
def test_online(status: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert verdict("Online", conditions(device(), MODEL, True, status, NOW)) == expected


# ---- transitions


def test_a_transition_is_a_change_of_status_not_of_reason() -> None:
    first = conditions(device(setpoint="99"), None, True, {}, THEN)
    second = conditions(device(setpoint="99"), MODEL, True, {"conditions": first}, NOW)
    third = conditions(device(setpoint="9"), MODEL, True, {"conditions": second}, NOW)
    valid = [next(entry for entry in found if entry["type"] == "Valid") for found in (first, second, third)]
    assert [(entry["reason"], entry["lastTransitionTime"]) for entry in valid] == [
        ("ModelNotFound", THEN),
        ("DesiredInvalid", THEN),
        ("Accepted", NOW),
    ]
    assert valid[0]["observedGeneration"] == 3


def test_other_peoples_conditions_are_kept() -> None:
    theirs = {"type": "Calibrated", "status": "True"}
    found = conditions(device(), MODEL, True, {"conditions": [theirs]}, NOW)
    assert [entry["type"] for entry in found] == ["Valid", "Synced", "Online", "Calibrated"]
    assert found[-1] == theirs


# ---- twins


def test_the_very_first_report_is_there() -> None:
    after = reported_after(device(mode="eco"), {}, {"mode": report("eco", "eco", at=1700)}, None)
    assert after == {
        "twins": [
            {
                "propertyName": "mode",
                "reported": {"value": "eco", "metadata": {"timestamp": "1700"}},
                "observedDesired": {"value": "eco", "metadata": {"timestamp": "1700"}},
            }
        ]
    }


def test_a_report_changes_its_own_property_only() -> None:
    before = {"twins": [twin("mode", "eco"), twin("count", "7")], "state": "online", "other": 1}
    after = reported_after(
        device(mode=None, count=None), before, {"count": PropertyReport("8", "int", 5, None, "")}, None
    )
    metadata = {"timestamp": "5", "type": "int"}
    assert after["twins"] == [
        twin("mode", "eco"),
        {"propertyName": "count", "reported": {"value": "8", "metadata": metadata}},
    ]
    assert after["state"] == "online"


def test_a_refusal_without_a_reading_keeps_the_last_reading() -> None:
    before = {"twins": [twin("mode", "eco")]}
    after = reported_after(device(mode="no"), before, {"mode": report(None, "no", "cannot")}, None)
    assert after["twins"] == [
        twin("mode", "eco", observedDesired={"value": "no", "metadata": {"timestamp": "5", "problem": "cannot"}})
    ]


def test_twins_are_those_the_spec_lists_in_its_order() -> None:
    before = {"twins": [twin("gone", "1"), twin("count", "2"), twin("mode", "eco")]}
    after = reported_after(device(mode=None, count=None, setpoint=None), before, {"ghost": report("1")}, None)
    assert [entry["propertyName"] for entry in after["twins"]] == ["mode", "count"]


def test_a_state_is_kept_and_the_last_time_online_survives_going_offline() -> None:
    online = reported_after(device(), {}, {}, StateReport("online", THEN))
    assert (online["state"], online["lastOnlineTime"]) == ("online", THEN)
    offline = reported_after(device(), online, {}, StateReport("offline", ""))
    assert (offline["state"], offline["lastOnlineTime"]) == ("offline", THEN)
    assert reported_after(device(), offline, {}, None) == offline


def test_reading_a_device() -> None:
    body = device(mode="eco", count=None)
    assert (node_of(body), model_of(body)) == ("edge-1", "thermostat")
    assert property_names(body) == ["mode", "count"]
    assert desired_values(body) == {"mode": "eco"}
    assert (node_of({}), model_of({}), property_names({}), desired_values({})) == ("", "", [], {})


NAMES = st.sampled_from(["temperature", "setpoint", "mode", "count", "ghost"])
VALUES = st.sampled_from(["0", "21", "21.0", "99", "warm", ""])
REPORTS = st.builds(report, st.none() | VALUES, st.none() | VALUES, st.sampled_from(["", "refused"]), st.integers(0, 9))
DESIRED: st.SearchStrategy[dict[str, Any]] = st.dictionaries(NAMES, st.none() | VALUES)
DEVICES = DESIRED.map(lambda desired: device(**desired))


@given(DEVICES, st.none() | st.just(MODEL), st.booleans(), st.lists(st.dictionaries(NAMES, REPORTS)), st.booleans())
def test_a_status_that_is_right_is_left_alone(
    body: dict[str, Any],
    model: dict[str, Any] | None,
    node_exists: bool,
    reports: list[dict[str, PropertyReport]],
    stated: bool,
) -> None:
    state = StateReport("online", THEN) if stated else None
    status: dict[str, Any] = {"reportToCloud": True}
    for each in reports:
        status = status_after(body, model, node_exists, status, each, state, THEN)
    settled = status_after(body, model, node_exists, status, {}, None, THEN)
    assert status_after(body, model, node_exists, settled, {}, None, NOW) == settled
    assert settled["reportToCloud"] is True
    assert [entry["propertyName"] for entry in settled["twins"]] == [
        name for name in property_names(body) if any(name in each for each in reports)
    ]
