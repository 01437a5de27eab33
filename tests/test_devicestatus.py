"""Tests for cloudhub.devicestatus."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyReport
from cloudhub.devices import StateReport, property_names
from cloudhub.devicestatus import status_after
from tests.harness.thermostat import THERMOSTAT, a_device

THEN, NOW = "2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z"
NODE: dict[str, Any] = {"metadata": {"name": "edge-1"}}


def report(value: str | None = None, desired: str | None = None, problem: str = "", at: int = 5) -> PropertyReport:
    return PropertyReport(value, "", at, desired, problem)


def test_each_property_says_what_was_wanted_what_is_known_of_it_and_what_became_of_it() -> None:
    body = a_device(temperature=None, setpoint="21", mode="eco", count="7", ghost=None)
    reports = {
        "temperature": report("19.5"),
        "setpoint": report("21.0", "21"),
        "mode": report("off", "eco", "the bus is silent"),
    }
    after = status_after(body, THERMOSTAT, NODE, {}, reports, None, NOW)
    assert [
        (
            twin["propertyName"],
            twin.get("desired", {}).get("value"),
            twin.get("observedDesired", {}).get("value"),
            twin.get("reported", {}).get("value"),
            twin.get("sync"),
            twin.get("reason"),
        )
        for twin in after["twins"]
    ] == [
        ("temperature", None, None, "19.5", None, None),
        ("setpoint", "21", "21", "21.0", "synced", None),
        ("mode", "eco", "eco", "off", "rejected", "the bus is silent"),
        ("count", "7", None, None, "pending", "the node has not taken it in yet"),
    ]
    assert after["syncedProperties"] == "1/3"
    # The next edit takes back what the last one said.
    after = status_after(a_device(mode=None, setpoint="22"), THERMOSTAT, NODE, after, {}, None, NOW)
    assert [(twin["propertyName"], twin.get("sync"), twin.get("reason")) for twin in after["twins"]] == [
        ("mode", None, None),
        ("setpoint", "pending", "the node has not taken it in yet"),
    ]
    assert after["syncedProperties"] == "0/1"
    assert status_after(a_device(), THERMOSTAT, NODE, after, {}, None, NOW)["syncedProperties"] == "0/0"


def test_a_problem_of_the_whole_device_is_shown_until_it_is_taken_back() -> None:
    told = StateReport("online", THEN, "two mappers claim it")
    after = status_after(a_device(), THERMOSTAT, NODE, {}, {}, told, NOW)
    assert after["problem"] == "two mappers claim it"
    assert status_after(a_device(), THERMOSTAT, NODE, after, {}, None, NOW) == after
    after = status_after(a_device(), THERMOSTAT, NODE, after, {}, StateReport("online", THEN), NOW)
    assert after["problem"] == ""
    assert "problem" not in status_after(a_device(), THERMOSTAT, NODE, {}, {}, StateReport("online", THEN), NOW)


NAMES = st.sampled_from(["temperature", "setpoint", "mode", "count", "ghost"])
VALUES = st.sampled_from(["0", "21", "21.0", "99", "warm", ""])
NUMBERS = st.integers(0, 4)
REPORTS = st.builds(
    PropertyReport,
    value=st.none() | VALUES,
    value_type=st.just(""),
    observed_at_ms=st.integers(0, 9),
    desired=st.none() | VALUES,
    problem=st.sampled_from(["", "refused"]),
    device_at_ms=st.none() | NUMBERS,
    desired_at_ms=st.none() | NUMBERS,
    desired_version=NUMBERS,
    answers=st.none() | NUMBERS,
    generation=NUMBERS,
    origin=st.sampled_from(["", "edge"]),
    stale=st.booleans(),
)
DESIRED: st.SearchStrategy[dict[str, Any]] = st.dictionaries(NAMES, st.none() | VALUES)
DEVICES = DESIRED.map(lambda desired: a_device(**desired))


@given(
    DEVICES,
    st.none() | st.just(THERMOSTAT),
    st.none() | st.just(NODE),
    st.lists(st.dictionaries(NAMES, REPORTS)),
    st.booleans(),
)
def test_a_status_that_is_right_is_left_alone(
    body: dict[str, Any],
    model: dict[str, Any] | None,
    node: dict[str, Any] | None,
    reports: list[dict[str, PropertyReport]],
    stated: bool,
) -> None:
    state = StateReport("online", THEN) if stated else None
    status: dict[str, Any] = {"reportToCloud": True}
    for each in reports:
        status = status_after(body, model, node, status, each, state, THEN)
    settled = status_after(body, model, node, status, {}, None, THEN)
    assert status_after(body, model, node, settled, {}, None, NOW) == settled
    assert settled["reportToCloud"] is True
    wanted = {
        entry["name"]
        for entry in body["spec"]["properties"]
        if entry.get("desired", {}).get("value") or any(_says(each.get(entry["name"])) for each in reports)
    }
    shown = [twin["propertyName"] for twin in settled["twins"]]
    assert shown == [name for name in property_names(body) if name in shown]
    assert set(shown) <= wanted
    assert {twin["propertyName"] for twin in settled["twins"] if "sync" in twin} == {
        entry["name"] for entry in body["spec"]["properties"] if entry.get("desired", {}).get("value")
    }


def _says(report: PropertyReport | None) -> bool:
    return report is not None and (report.value is not None or report.desired is not None)
