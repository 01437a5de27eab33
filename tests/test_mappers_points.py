"""Samples in their backlog, and in each format; the line protocol is read back by a second reader."""

import json
from urllib.parse import parse_qs

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyType
from mappers.points import Backlog, Point, encode_form, encode_json, encode_lines, encode_otlp
from mappers.pushmethod import HttpPlace, Target
from mappers.values import to_text
from tests.harness.collector import parse_lines

PLACE = HttpPlace("influx", "http://h")
AT_MS = 1_795_423_663_522


def point(
    text: str = "21.5",
    kind: PropertyType = PropertyType.FLOAT,
    *,
    name: str = "temperature",
    at_ms: int = AT_MS,
    target: Target | None = None,
) -> Point:
    return Point("default/room", name, kind, text, at_ms, target or Target(PLACE), "Celsius")


def numbered(count: int) -> list[Point]:
    return [point(str(number), PropertyType.INT) for number in range(count)]


def texts(points: list[Point]) -> list[int]:
    return [int(each.text) for each in points]


def test_a_full_backlog_drops_its_oldest_and_counts_them() -> None:
    backlog = Backlog(limit=5, max_bytes=1 << 20)
    for each in numbered(8):
        backlog.add(each)
    assert (len(backlog), backlog.dropped) == (5, 3)
    first = backlog.take(2)
    assert texts(first) == [3, 4]
    backlog.add(point("8", PropertyType.INT))
    backlog.put_back(first)
    assert backlog.dropped == 4
    assert texts(backlog.take(99)) == [4, 5, 6, 7, 8]
    assert len(backlog) == 0


def test_a_backlog_is_bounded_in_bytes_too() -> None:
    backlog = Backlog(limit=1000, max_bytes=50_000)
    for _ in range(10):
        backlog.add(point("x" * 10_000, PropertyType.STRING))
    assert len(backlog) == 4
    backlog.add(point("x" * 100_000, PropertyType.STRING))
    assert (len(backlog), backlog.dropped) == (0, 11)


@given(st.lists(st.one_of(st.integers(1, 4), st.just(0), st.just(-1)), max_size=60))
def test_points_leave_in_the_order_they_came_whatever_is_put_back(steps: list[int]) -> None:
    backlog, came, taken = Backlog(limit=10, max_bytes=1 << 20), 0, list[Point]()
    written: list[int] = []
    for step in steps:
        if step > 0:
            for _ in range(step):
                backlog.add(point(str(came), PropertyType.INT))
                came += 1
        elif step == 0:
            written += texts(taken)
            taken = backlog.take(3)
        else:
            backlog.put_back(taken)
            taken = []
        assert len(backlog) <= 10
    written += texts(taken) + texts(backlog.take(99))
    assert written == sorted(set(written))
    assert len(written) + backlog.dropped == came


def test_a_form_is_kubeedges_and_names_the_device() -> None:
    form = encode_form(point("a&b=c", PropertyType.STRING, name="mode"))
    assert form.startswith(b"mode=a%26b%3Dc&time=")
    assert parse_qs(form.decode()) == {
        "mode": ["a&b=c"],
        "time": ["2026-11-23T08:47:43.522Z"],
        "device": ["default/room"],
    }


def test_json_has_values_of_their_type() -> None:
    for kind, text, value in (
        (PropertyType.FLOAT, "21.5", 21.5),
        (PropertyType.INT, "-3", -3),
        (PropertyType.BOOLEAN, "true", True),
        (PropertyType.STRING, "ä\n", "ä\n"),
        (PropertyType.BYTES, "AAE=", "AAE="),
    ):
        assert json.loads(encode_json(point(text, kind))) == {
            "device": "default/room",
            "property": "temperature",
            "value": value,
            "timestamp": AT_MS,
        }


def test_a_line_of_a_device_without_settings_has_sensible_ones() -> None:
    assert encode_lines([point()]) == f"room,device=default/room temperature=21.5 {AT_MS}".encode()
    target = Target(PLACE, measurement="my room", field="t", tags=(("device", "own"), ("site", "a,b")))
    assert encode_lines([point("4", PropertyType.INT, target=target)]) == (
        rf"my\ room,device=own,site=a\,b t=4i {AT_MS}".encode()
    )


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(TEXT, TEXT, TEXT, TEXT, TEXT, st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1))
def test_lines_are_read_back_whatever_names_and_values_there_are(
    measurement: str, key: str, tag: str, field: str, text: str, number: float, whole: int
) -> None:
    target = Target(PLACE, measurement=measurement, field=field, tags=((key, tag),))
    values: list[tuple[PropertyType, bool | float | int | str]] = [
        (PropertyType.STRING, text),
        (PropertyType.FLOAT, number),
        (PropertyType.INT, whole),
        (PropertyType.BOOLEAN, True),
    ]
    points = [point(to_text(kind, value), kind, target=target) for kind, value in values]
    read = parse_lines(encode_lines(points).decode())
    assert [each["value"] for each in read] == [value for _, value in values]
    assert {each["time"] for each in read} == {AT_MS}
    if not set("\\\n\r") & set(measurement + key + tag + field):
        assert {(each["measurement"], each["field"], each["tags"][key]) for each in read} == {(measurement, field, tag)}


def test_otlp_is_a_gauge_for_each_property_and_leaves_texts_out() -> None:
    points = [
        point(),
        point("22.5", at_ms=AT_MS + 1),
        point("4", PropertyType.INT, name="count"),
        point("false", PropertyType.BOOLEAN, name="on"),
        point("x", PropertyType.STRING, name="mode"),
    ]
    ((resource,),) = json.loads(encode_otlp(points)).values()
    (scope,) = resource["scopeMetrics"]
    found = {each["name"]: each["gauge"]["dataPoints"] for each in scope["metrics"]}
    assert set(found) == {"temperature", "count", "on"}
    assert [(each["asDouble"], each["timeUnixNano"]) for each in found["temperature"]] == [
        (21.5, f"{AT_MS}000000"),
        (22.5, f"{AT_MS + 1}000000"),
    ]
    assert (found["count"][0]["asInt"], found["on"][0]["asInt"]) == ("4", "0")
    assert {each["key"]: each["value"]["stringValue"] for each in found["count"][0]["attributes"]} == {
        "device.namespace": "default",
        "device.name": "room",
    }
    assert scope["metrics"][0]["unit"] == "Celsius"
