"""Values out of documents, and templates for what is sent."""

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyType
from mappers.driver import BadConfig, Reading, Value
from mappers.payloads import (
    Absent,
    Codec,
    Pointer,
    Template,
    document,
    moment_ms,
    template,
    template_names,
    to_value,
)
from mappers.settings import Settings
from mappers.values import to_text
from tests.harness.devices import a_device, a_property

RFC_6901 = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def codec(kind: str, **settings: object) -> Codec:
    return Codec(PropertyType(kind), Settings("visitors.configData", settings))


# --- documents and pointers


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "it is not JSON"),
        (b"ON", "it is not JSON .*: ON"),
        (b'{"a":', "it is not JSON"),
        (b"NaN", "NaN is not a number in JSON"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b"9" * 5000, "it is not JSON"),
    ],
)
def test_what_is_no_document_is_told(payload: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        document(payload)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", RFC_6901),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
        ("foo.1", "baz"),
        ("foo", ["bar", "baz"]),
    ],
)
def test_pointers_find_what_the_rfc_says_and_dotted_paths_the_same(text: str, found: object) -> None:
    assert Pointer.parse(text).find(RFC_6901) == found


@pytest.mark.parametrize("text", ["a..b", ".a", "a.", "/a~2", "/~"])
def test_pointers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match='"'):
        Pointer.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [("/foo/2", 'no "2" in "foo"'), ("/foo/01", 'no "01"'), ("/foo/-", 'no "-"'), ("bar.x", 'no "bar"'), ("/ /x", "x")],
)
def test_what_is_not_there_is_absent(text: str, words: str) -> None:
    with pytest.raises(Absent, match=words):
        Pointer.parse(text).find(RFC_6901)


# --- values


@pytest.mark.parametrize(
    ("kind", "found", "value"),
    [
        ("BOOLEAN", True, True),
        ("BOOLEAN", "ON", True),
        ("BOOLEAN", "off", False),
        ("BOOLEAN", 0, False),
        ("INT", 21, 21),
        ("INT", 21.0, 21),
        ("INT", "21", 21),
        ("INT", "9007199254740993", 9007199254740993),
        ("FLOAT", 21, 21.0),
        ("FLOAT", "21.5", 21.5),
        ("DOUBLE", -1e-3, -0.001),
        ("STRING", "x", "x"),
        ("STRING", 3, "3"),
        ("STRING", {"a": [1]}, '{"a":[1]}'),
        ("BYTES", "aGk=", b"hi"),
    ],
)
def test_what_a_device_says_becomes_a_value_of_the_models_type(kind: str, found: object, value: object) -> None:
    result = to_value(PropertyType(kind), found)
    assert (type(result), result) == (type(value), value)


@pytest.mark.parametrize(
    ("kind", "found", "words"),
    [
        ("BOOLEAN", "open", "neither on nor off; name the device's words in `values`"),
        ("BOOLEAN", [], "neither on nor off"),
        ("BOOLEAN", 2, "neither on nor off"),
        ("INT", 21.5, "not a whole number; make the property a FLOAT"),
        ("INT", True, "not a number"),
        ("FLOAT", "warm", '"warm" is not a number'),
        ("FLOAT", "nan", "not a number"),
        ("FLOAT", 10**400, "not a number"),
        ("FLOAT", None, "not a number"),
        ("BYTES", "?", "not base64"),
        ("BYTES", 3, "not base64"),
    ],
)
def test_what_does_not_fit_is_told(kind: str, found: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_value(PropertyType(kind), found)


@given(st.sampled_from(PropertyType), JSON_VALUES)
def test_whatever_a_device_says_is_a_value_or_a_sentence(kind: PropertyType, said: object) -> None:
    problem, value = "", None
    try:
        value = to_value(kind, document(json.dumps(said).encode()))
    except ValueError as exc:
        problem = str(exc)
    assert bool(problem) != isinstance(value, bool | int | float | str | bytes)
    assert "\n" not in problem
    assert len(problem) < 200


def test_a_reading_is_found_by_its_pointer_with_the_devices_own_time() -> None:
    one = codec("FLOAT", pointer="/t", timePointer="/at")
    assert one.reading({"t": 21.5, "at": 1_700_000_000}) == Reading(21.5, 1_700_000_000_000)
    assert one.reading({"t": 21.5}) == Reading(21.5)
    assert one.reading({"t": 21.5, "at": "yesterday"}) == Reading(21.5)
    assert one.reading({"t": None}) is None
    with pytest.raises(Absent):
        one.reading({"at": 1_700_000_000})


@pytest.mark.parametrize(
    ("found", "ms"),
    [
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000.5, 1_700_000_000_500),
        (1_700_000_000_123, 1_700_000_000_123),
        ("1700000000", 1_700_000_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T23:13:20.250+01:00", 1_700_000_000_250),
    ],
)
def test_moments_are_read_as_devices_write_them(found: object, ms: int) -> None:
    assert moment_ms(found) == ms


@pytest.mark.parametrize("found", ["2023-11-14T22:13:20", "yesterday", "T", 0, -5, 1e300, None, [], "9" * 30])
def test_what_is_no_moment_is_refused(found: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        moment_ms(found)


# --- words


def test_a_device_may_have_words_of_its_own_in_both_directions() -> None:
    door = codec("BOOLEAN", pointer="door", values={"true": "OPEN", "false": "CLOSED"})
    assert door.reading({"door": "OPEN"}) == Reading(True)
    assert door.to_device(False) == "CLOSED"
    with pytest.raises(ValueError, match='"AJAR" is neither on nor off; name the device\'s words in `values`'):
        door.reading({"door": "AJAR"})
    assert door.reading({"door": True}) == Reading(True), "a device may say true and want OPEN"
    mode = codec("STRING", values={"low": 0, "high": 1})
    assert mode.reading(1) == Reading("high")
    assert mode.to_device("low") == 0
    with pytest.raises(ValueError, match="2 is none of the device's words in `values`"):
        mode.reading(2)
    with pytest.raises(ValueError, match="`values` has no word for medium"):
        mode.to_device("medium")


def test_without_words_a_value_is_sent_as_it_is() -> None:
    assert codec("FLOAT").to_device(21.5) == 21.5
    assert codec("BYTES").to_device(b"hi") == "aGk="


def test_a_text_is_not_parsed() -> None:
    one = codec("FLOAT", format="text")
    assert not one.is_json
    assert one.reading("21.5") == Reading(21.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pointer": "a..b"}, "pointer .*empty name"),
        ({"pointer": 3}, "pointer must be a text"),
        ({"timePointer": "/~"}, "timePointer"),
        ({"format": "xml"}, "format must be json or text"),
        ({"format": "text", "pointer": "/a"}, "points into JSON"),
        ({"values": {"a": "x", "b": "x"}}, "same word for two values"),
        ({"values": ["ON"]}, "values must be a map"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        codec("FLOAT", **settings)


# --- templates


def test_a_template_is_filled_with_settings_and_the_value() -> None:
    one = Template('{"id": {id}, "set": {json}, "was": "{value}"}', {"id": 7}, with_value=True)
    assert one.text('a"b') == '{"id": 7, "set": "a\\"b", "was": "a"b"}'
    assert one.text(21.5) == '{"id": 7, "set": 21.5, "was": "21.5"}'
    assert one.text(True) == '{"id": 7, "set": true, "was": "true"}'
    assert one.has_value


def test_the_value_is_escaped_and_what_surrounds_it_not() -> None:
    one = Template("/set?v={value}", {}, with_value=True)
    assert one.text("a&b c", lambda text: quote(text, safe="")) == "/set?v=a%26b%20c"


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    assert Template("{a}", {"a": "{b}", "b": "x"}).text() == "{b}"
    assert Template("{a}", {"a": "{value}"}, with_value=True).text("x") == "{value}"
    assert Template("{value}", {}, with_value=True).text("{json}") == "{json}"


def test_braces_of_json_stand_for_themselves() -> None:
    text = '{"a": {"b": {}}, "c": { }}'
    assert Template(text, {}).text() == text


def test_a_name_that_is_not_known_is_told_with_those_that_are() -> None:
    settings = Settings("visitors.configData", {})
    with pytest.raises(
        BadConfig, match=r"state \{nam\} is not known here; known are device, name, namespace, property"
    ):
        template(settings, "state", "tele/{nam}", template_names(a_device({"name": "x"}, p=a_property("INT")), "p"))
    with pytest.raises(BadConfig, match=r"topic \{value\} is not known here"):
        template(settings, "topic", "{value}", {})


def test_templates_know_the_device_and_its_settings_but_no_secret() -> None:
    device = a_device({"name": "x", "channel": 2, "password": "p", "token": "t", "list": []}, p=a_property("INT"))
    assert template_names(device, "p") == {
        "name": "x",
        "channel": 2,
        "namespace": "default",
        "device": "device",
        "property": "p",
    }


@given(st.sampled_from(["INT", "FLOAT", "BOOLEAN", "STRING"]), st.data())
def test_a_value_that_is_sent_as_json_is_read_back_the_same(kind: str, data: st.DataObject) -> None:
    values: dict[str, st.SearchStrategy[Value]] = {
        "INT": st.integers(-(2**53), 2**53),
        "FLOAT": st.floats(allow_nan=False, allow_infinity=False),
        "BOOLEAN": st.booleans(),
        "STRING": st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    }
    value = data.draw(values[kind])
    one = codec(kind, pointer="/x")
    sent = Template('{"x": {json}}', {}, with_value=True).text(one.to_device(value))
    reading = one.reading(document(sent.encode()))
    assert reading is not None
    assert to_text(PropertyType(kind), reading.value) == to_text(PropertyType(kind), value)
