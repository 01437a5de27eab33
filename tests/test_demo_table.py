"""What the demo shows of the API's answers."""

from datetime import UTC, datetime
from typing import Any

import pytest

from demo.table import Process, Snapshot, age, cut, lines, printable

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
CREATED = "2026-11-23T11:00:00Z"
MODEL = {
    "metadata": {"name": "thermostat", "namespace": "default"},
    "spec": {
        "properties": [
            {"name": "setpoint", "type": "FLOAT", "maximum": "30", "unit": "°C"},
            {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly", "unit": "°C"},
        ]
    },
}


def node(status: str | None) -> dict[str, Any]:
    conditions = [] if status is None else [
        {"type": "MemoryPressure", "status": "False"},
        {"type": "Ready", "status": status, "lastTransitionTime": "2026-11-23T11:57:00Z"},
    ]  # fmt: skip
    return {"metadata": {"name": "edge-1", "creationTimestamp": CREATED}, "status": {"conditions": conditions}}


def device(desired: str | None, reported: str | None, sync: str = "synced", **metadata: str) -> dict[str, Any]:
    """With the status that the hub writes for `desired`."""
    setpoint: dict[str, Any] = {"name": "setpoint"}
    if desired is not None:
        setpoint["desired"] = {"value": desired}
    twin: dict[str, Any] = {"propertyName": "setpoint"}
    if desired is not None:
        twin |= {"desired": {"value": desired}, "sync": sync}
    if reported is not None:
        stamp = str(round(NOW.timestamp() * 1000) - 4200)
        twin["reported"] = {"value": reported, "metadata": {"timestamp": stamp}}
    return {
        "metadata": {"name": "thermostat", "namespace": "default", "creationTimestamp": CREATED, **metadata},
        "spec": {
            "nodeName": "edge-1",
            "deviceModelRef": {"name": "thermostat"},
            "properties": [setpoint, {"name": "temperature"}],
        },
        "status": {"state": "online", "twins": [twin]},
    }


def picture(snapshot: Snapshot) -> str:
    return "\n".join(lines(snapshot, [Process("apiserver", "running"), Process("cloudcore", "restarting")], NOW))


def test_the_whole_picture() -> None:
    assert picture(Snapshot([node("True")], [device("21", "21.0")], [MODEL])) == (
        "apiserver running   cloudcore restarting\n"
        "\n"
        "NODE    LINK       SINCE  AGE\n"
        "edge-1  connected  3m     60m\n"
        "\n"
        "DEVICE      NODE    STATE   PROPERTY     DESIRED           REPORTED  AGE\n"
        "thermostat  edge-1  online  setpoint     21       in step  21.0 °C   4s\n"
        "                            temperature  -                 -         -"
    )


@pytest.mark.parametrize(
    ("status", "shown"), [("True", "connected"), ("False", "down"), ("Unknown", "lost"), (None, "never connected")]
)
def test_the_link_is_what_the_nodes_condition_says(status: str | None, shown: str) -> None:
    assert shown in picture(Snapshot([node(status)], [], []))


@pytest.mark.parametrize(("sync", "shown"), [("synced", "in step"), ("pending", "pending"), ("rejected", "refused")])
def test_what_became_of_a_desired_value_is_what_the_status_says(sync: str, shown: str) -> None:
    (line,) = [each for each in picture(Snapshot([], [device("22", "21", sync)], [MODEL])).split("\n") if "22" in each]
    assert f"  22       {shown}  21 °C" in line


def test_a_verdict_on_the_desired_value_before_is_none_on_this_one() -> None:
    edited = device("21", "21")
    edited["spec"]["properties"][0]["desired"]["value"] = "22"
    assert "pending" in picture(Snapshot([], [edited], [MODEL]))
    assert "pending" not in picture(Snapshot([], [device(None, "21")], [MODEL]))


def test_a_value_that_nobody_repeats_is_marked() -> None:
    silent = device("21", "21")
    silent["status"]["twins"][0]["reported"]["metadata"]["stale"] = "true"
    assert "in step, stale" in picture(Snapshot([], [silent], [MODEL]))


def test_devices_of_other_namespaces_are_called_by_both_names() -> None:
    assert "plant/thermostat" in picture(Snapshot([], [device("21", "21", namespace="plant")], []))


def test_nothing_yet_is_said() -> None:
    assert "(no node yet)" in picture(Snapshot([], [], []))
    assert "(no device)" in picture(Snapshot([], [], []))


def test_values_cannot_move_the_cursor() -> None:
    hostile = device("\x1b[2J", "a\r\n\x9b31m\u202e" + "x" * 100)
    shown = picture(Snapshot([], [hostile], []))
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "x" * 30 not in shown


@pytest.mark.parametrize("value", [None, 1, [], {}, "x", [None], [[]]])
def test_odd_bodies_are_shown_somehow(value: Any) -> None:
    for body in (
        {"metadata": {"name": value, "namespace": value}, "spec": value, "status": value},
        {"metadata": value, "spec": {"properties": value, "nodeName": value}, "status": {"twins": value}},
        {"spec": {"properties": [{"name": value, "desired": {"value": value}}]}, "status": {"conditions": value}},
        {"spec": {"properties": [{"name": "p"}]}, "status": {"twins": [{"propertyName": "p", "reported": value}]}},
    ):
        assert picture(Snapshot([body], [body], [body]))


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "now"), (0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200000, "2d")]
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_lines_are_cut_by_columns_and_not_by_characters() -> None:
    assert cut("abcdef", 3) == "abc"
    assert cut("温度温度", 5) == "温度"
    assert cut("e\u0301e\u0301e\u0301", 2) == "e\u0301e\u0301"
    assert cut("abc", 10) == "abc"


def test_a_cell_that_does_not_fit_is_left_out_whole() -> None:
    assert cut("setpoint  21  in step  8s", 24) == "setpoint  21  in step"
    assert cut("setpoint  21  in step  8s", 25) == "setpoint  21  in step  8s"


def test_what_became_of_a_desired_value_is_seen_in_eighty_columns() -> None:
    wide = device("21", "20.79")
    wide["spec"]["properties"].append({"name": "outdoorTemperature"})
    shown = [cut(line, 79) for line in picture(Snapshot([node("True")], [wide], [MODEL])).split("\n")]
    assert shown[-3] == "thermostat  edge-1  online  setpoint            21       in step  20.79 °C  4s"


def test_long_texts_end_with_an_ellipsis() -> None:
    assert printable("x" * 30) == "x" * 23 + "…"
    assert printable("") == "-"
