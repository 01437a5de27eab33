"""Tests for cloudhub.devices."""

from typing import Any

from apimachinery.devices import PropertyReport
from cloudhub.devices import StateReport, desired_entries, model_of, node_of, property_names, reported_after
from tests.harness.thermostat import a_device

THEN = "2030-01-01T00:00:00Z"


def report(value: str | None = None, desired: str | None = None, problem: str = "", at: int = 5) -> PropertyReport:
    return PropertyReport(value, "", at, desired, problem)


def twin(name: str, value: str, **observed: Any) -> dict[str, Any]:
    return {"propertyName": name, "reported": {"value": value}, **observed}


# ---- twins


def test_the_very_first_report_is_there() -> None:
    after = reported_after(a_device(mode="eco"), {}, {"mode": report("eco", "eco", at=1700)}, None)
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
        a_device(mode=None, count=None), before, {"count": PropertyReport("8", "int", 5, None, "")}, None
    )
    metadata = {"timestamp": "5", "type": "int"}
    assert after["twins"] == [
        twin("mode", "eco"),
        {"propertyName": "count", "reported": {"value": "8", "metadata": metadata}},
    ]
    assert after["state"] == "online"


def test_what_kubeedge_has_no_field_for_stands_in_the_metadata() -> None:
    told = PropertyReport(
        "eco",
        "string",
        1700,
        "eco",
        "",
        device_at_ms=1650,
        desired_at_ms=1600,
        desired_version=4,
        answers=4,
        generation=9,
        origin="edge",
        stale=True,
    )
    (entry,) = reported_after(a_device(mode="eco"), {}, {"mode": told}, None)["twins"]
    assert entry["reported"]["metadata"] == {
        "timestamp": "1700",
        "type": "string",
        "deviceTimestamp": "1650",
        "answers": "4",
        "stale": "true",
    }
    assert entry["observedDesired"]["metadata"] == {
        "timestamp": "1600",
        "version": "4",
        "generation": "9",
        "origin": "edge",
    }


def test_only_what_was_reported_is_taken_from_a_status() -> None:
    before = {"twins": [twin("mode", "eco", sync="synced", desired={"value": "eco"}), {"propertyName": "count"}]}
    after = reported_after(a_device(mode="eco", count="1"), before, {}, None)
    assert after == {"twins": [twin("mode", "eco")]}


def test_a_refusal_without_a_reading_keeps_the_last_reading() -> None:
    before = {"twins": [twin("mode", "eco")]}
    after = reported_after(a_device(mode="no"), before, {"mode": report(None, "no", "cannot")}, None)
    assert after["twins"] == [
        twin("mode", "eco", observedDesired={"value": "no", "metadata": {"timestamp": "5", "problem": "cannot"}})
    ]


def test_twins_are_those_the_spec_lists_in_its_order() -> None:
    before = {"twins": [twin("gone", "1"), twin("count", "2"), twin("mode", "eco")]}
    after = reported_after(a_device(mode=None, count=None, setpoint=None), before, {"ghost": report("1")}, None)
    assert [entry["propertyName"] for entry in after["twins"]] == ["mode", "count"]


def test_a_state_is_kept_and_the_last_time_online_survives_going_offline() -> None:
    online = reported_after(a_device(), {}, {}, StateReport("online", THEN))
    assert (online["state"], online["lastOnlineTime"]) == ("online", THEN)
    offline = reported_after(a_device(), online, {}, StateReport("offline", ""))
    assert (offline["state"], offline["lastOnlineTime"]) == ("offline", THEN)
    assert reported_after(a_device(), offline, {}, None) == offline


def test_reading_a_device() -> None:
    body = a_device(mode="eco", count=None)
    assert (node_of(body), model_of(body)) == ("edge-1", "thermostat")
    assert property_names(body) == ["mode", "count"]
    assert desired_entries(body) == {"mode": {"value": "eco"}}
    assert (node_of({}), model_of({}), property_names({}), desired_entries({})) == ("", "", [], {})
    assert desired_entries(a_device(mode="", count=None)) == {}
