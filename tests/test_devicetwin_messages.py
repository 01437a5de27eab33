"""
Payloads, byte for byte as a real KubeEdge (master of 2026-08-06, external mosquitto) sent and took them.

TRANSCRIPT is copied from that program's traffic; the decoders read it and the encoders give it back.
"""

# ruff: noqa: E501  (the transcript is what it is)

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import apimachinery.devices
from devicetwin import messages
from devicetwin.messages import (
    Ask,
    Channel,
    CurrentTwin,
    Delta,
    DeviceId,
    DeviceTopic,
    Document,
    ErrorReply,
    MapperState,
    Member,
    MembershipList,
    MembershipUpdate,
    MessageError,
    NodeChannel,
    NodeTopic,
    StateResult,
    StateUpdate,
    Turn,
    TwinEntry,
    TwinResult,
    TwinUpdate,
    Value,
    parse_topic,
)

TRANSCRIPT = """\
$hw/events/node/edge1/membership/updated {"event_id":"d2b1364b-49a6-45a8-ad76-db7e97f0e781","timestamp":1795423639862,"added_devices":[{"id":"default/thermo-1","name":"thermo-1","description":"demo"}],"removed_devices":null}
$hw/events/device/default/thermo-1/twin/update {"event_id":"e1","timestamp":1795423700000,"twin":{"temperature":{"actual":{"value":"21"},"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/result {"event_id":"e1","timestamp":1795423663522,"twin":{"temperature":{"actual":{"value":"21","metadata":{"timestamp":1795423663522}},"optional":true,"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/document {"event_id":"e1","timestamp":1795423663522,"twin":{"temperature":{"last":null,"current":{"actual":{"value":"21","metadata":{"timestamp":1795423663522}},"optional":true,"metadata":{"type":"int"}}}}}
$hw/events/device/default/thermo-1/twin/update {"event_id":"e2","timestamp":1795423700000,"twin":{"temperature":{"actual":{"value":"22"},"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/result {"event_id":"e2","timestamp":1795423687547,"twin":{"temperature":{"actual":{"value":"22","metadata":{"timestamp":1795423687547}},"optional":true,"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/document {"event_id":"e2","timestamp":1795423687547,"twin":{"temperature":{"last":{"actual":{"value":"21","metadata":{"timestamp":1795423663522}},"optional":true,"metadata":{"type":"int"}},"current":{"actual":{"value":"22","metadata":{"timestamp":1795423687547}},"optional":true,"metadata":{"type":"int"}}}}}
$hw/events/device/default/thermo-1/twin/update {"event_id":"e2","timestamp":1795423700000,"twin":{"temperature":{"actual":{"value":"23"},"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/result {"event_id":"e2","timestamp":1795423689138,"twin":{"temperature":{"actual":{"value":"23","metadata":{"timestamp":1795423689138}},"optional":true,"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/document {"event_id":"e2","timestamp":1795423689138,"twin":{"temperature":{"last":{"actual":{"value":"22","metadata":{"timestamp":1795423687547}},"optional":true,"metadata":{"type":"int"}},"current":{"actual":{"value":"23","metadata":{"timestamp":1795423689138}},"optional":true,"metadata":{"type":"int"}}}}}
$hw/events/device/default/thermo-1/twin/update {"event_id":"e2","timestamp":1795423700000,"twin":{"temperature":{"actual":{"value":"23"},"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/result {"event_id":"e2","timestamp":1795423690717,"twin":{"temperature":{"actual":{"value":"23","metadata":{"timestamp":1795423690717}},"optional":true,"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/document {"event_id":"e2","timestamp":1795423690717,"twin":{"temperature":{"last":{"actual":{"value":"23","metadata":{"timestamp":1795423689138}},"optional":true,"metadata":{"type":"int"}},"current":{"actual":{"value":"23","metadata":{"timestamp":1795423690717}},"optional":true,"metadata":{"type":"int"}}}}}
$hw/events/device/default/thermo-1/twin/get {"event_id":"g1","timestamp":1795423700000}
$hw/events/device/default/thermo-1/twin/get/result {"event_id":"g1","timestamp":1795423692292,"twin":{"temperature":{"actual":{"value":"23","metadata":{"timestamp":1795423690717}},"optional":true,"metadata":{"type":"int"}}}}
$hw/events/node/edge1/membership/get {"event_id":"g2","timestamp":1795423700000}
$hw/events/node/edge1/membership/get/result {"event_id":"g2","timestamp":1795423692295,"devices":[{"id":"default/thermo-1","name":"thermo-1","description":"demo"}]}
$hw/events/device/default/thermo-1/state/update {"event_id":"s1","timestamp":1795423700000,"state":"online"}
$hw/events/device/default/thermo-1/state/update/result {"event_id":"623df5aa-7b77-442b-a4c6-8828ca83199f","timestamp":1795423692302,"device":{"name":"thermo-1","state":"online","lastOnlineTime":"2026-11-23T08:48:12Z"}}
$hw/events/device/default/nosuch/twin/update {"event_id":"e9","timestamp":1795423700000,"twin":{"temperature":{"actual":{"value":"1"},"metadata":{"type":"int"}}}}
$hw/events/device/default/nosuch/twin/update/result {"event_id":"e9","timestamp":1795423692305,"code":404,"reason":"update rejected due to the device is not existed"}
$hw/events/device/default/thermo-1/twin/update {"event_id":"e10","timestamp":1795423700000,"twin":{"nosuchprop":{"actual":{"value":"1"},"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/result {"event_id":"e10","timestamp":1795423692310,"twin":{"nosuchprop":{"actual":{"value":"1","metadata":{"timestamp":1795423692310}},"optional":true,"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/document {"event_id":"e10","timestamp":1795423692310,"twin":{"nosuchprop":{"last":null,"current":{"actual":{"value":"1","metadata":{"timestamp":1795423692310}},"optional":true,"metadata":{"type":"int"}}}}}
$hw/events/device/default/thermo-1/twin/update {"event_id":"e11","timestamp":1795423700000,"twin":{"setpoint":{"expected":{"value":"30"},"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/result {"event_id":"e11","timestamp":1795423692321,"twin":{"setpoint":{"expected":{"value":"30","metadata":{"timestamp":1795423692321}},"optional":true,"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/document {"event_id":"e11","timestamp":1795423692321,"twin":{"setpoint":{"last":null,"current":{"expected":{"value":"30","metadata":{"timestamp":1795423692321}},"optional":true,"metadata":{"type":"int"}}}}}
$hw/events/device/default/thermo-1/twin/update/delta {"event_id":"47fe215b-c35d-4fb3-8cb4-b5985046f154","timestamp":1795423692323,"twin":{"setpoint":{"expected":{"value":"30","metadata":{"timestamp":1795423692321}},"optional":true,"metadata":{"type":"int"}}},"delta":{"setpoint":"30"}}
$hw/events/device/default/thermo-1/twin/update {"event_id":"e20","timestamp":1795423700000,"twin":{"temperature":{"actual":{"value":"31"},"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/result {"event_id":"e20","timestamp":1795423902353,"twin":{"temperature":{"actual":{"value":"31","metadata":{"timestamp":1795423902353}},"optional":true,"metadata":{"type":"int"}}}}
$hw/events/device/default/thermo-1/twin/update/document {"event_id":"e20","timestamp":1795423902353,"twin":{"temperature":{"last":{"actual":{"value":"23","metadata":{"timestamp":1795423690717}},"optional":true,"metadata":{"type":"int"}},"current":{"actual":{"value":"31","metadata":{"timestamp":1795423902353}},"optional":true,"metadata":{"type":"int"}}}}}
$hw/events/device/default/thermo-1/twin/update/delta {"event_id":"b5cd5c1b-0376-471b-a5f0-e347f23ee2c0","timestamp":1795423902355,"twin":{"setpoint":{"expected":{"value":"30","metadata":{"timestamp":1795423692321}},"optional":true,"metadata":{"type":"int"}}},"delta":{"setpoint":"30"}}
$hw/events/device/default/thermo-1/state/update {"event_id":"s2","timestamp":1795423700000,"state":"offline"}
$hw/events/device/default/thermo-1/state/update/result {"event_id":"0b5782e1-d255-448e-a35b-be606897895c","timestamp":1795423904512,"device":{"name":"thermo-1","state":"offline"}}
"""

DECODERS: dict[Channel | NodeChannel, Any] = {
    Channel.TWIN_UPDATE: TwinUpdate,
    Channel.TWIN_UPDATE_RESULT: TwinResult,
    Channel.TWIN_DOCUMENT: Document,
    Channel.TWIN_DELTA: Delta,
    Channel.TWIN_GET: Ask,
    Channel.TWIN_GET_RESULT: TwinResult,
    Channel.STATE_UPDATE: StateUpdate,
    Channel.STATE_UPDATE_RESULT: StateResult,
    NodeChannel.MEMBERSHIP_GET: Ask,
    NodeChannel.MEMBERSHIP_GET_RESULT: MembershipList,
    NodeChannel.MEMBERSHIP_UPDATED: MembershipUpdate,
}


@pytest.mark.parametrize("line", TRANSCRIPT.splitlines())
def test_what_kubeedge_said_is_read_and_written_byte_for_byte(line: str) -> None:
    topic, _, payload = line.partition(" ")
    place = parse_topic(topic)
    assert isinstance(place, DeviceTopic | NodeTopic)
    assert DECODERS[place.channel].decode(payload.encode()).encode() == payload.encode()


def test_a_decoded_update_has_its_fields() -> None:
    payload = (
        b'{"event_id":"e1","timestamp":5,"twin":{"t":{"actual":{"value":"21"},"metadata":{"type":"int"}},"o":null}}'
    )
    assert TwinUpdate.decode(payload) == TwinUpdate(
        "e1", 5, {"t": TwinEntry(actual=Value("21"), type="int"), "o": None}
    )


def test_members_are_found_whatever_their_case() -> None:
    payload = b'{"Event_ID":"e","TIMESTAMP":1,"Twin":{"Temp":{"Actual":{"VALUE":"1"},"MetaData":{"Type":"int"}}}}'
    update = TwinUpdate.decode(payload)
    assert update == TwinUpdate("e", 1, {"Temp": TwinEntry(actual=Value("1"), type="int")})


def test_unknown_members_are_skipped_and_missing_ones_are_empty() -> None:
    assert TwinUpdate.decode(b'{"twin":{"t":{"actual":{"value":"1","x":2}}},"more":[1]}') == TwinUpdate(
        "", 0, {"t": TwinEntry(actual=Value("1"))}
    )
    assert Ask.decode(b"{}") == Ask("")


@pytest.mark.parametrize(
    ("payload", "event_id", "says"),
    [
        (b"not json", "", "Unmarshal update request body failed, please check the request"),
        (b"", "", "Unmarshal"),
        (b"\xff\xfe", "", "UTF-8"),
        (b"[]", "", "the payload must be an object"),
        (b'{"event_id":7,"twin":{}}', "", "event_id must be a string"),
        (b'{"event_id":"e","timestamp":"now","twin":{}}', "e", "timestamp must be an integer"),
        (b'{"event_id":"e","timestamp":1.5,"twin":{}}', "e", "timestamp must be an integer"),
        (b'{"event_id":"e","timestamp":true,"twin":{}}', "e", "timestamp must be an integer"),
        (b'{"event_id":"e","timestamp":99999999999999999999,"twin":{}}', "e", "64 bits"),
        (b'{"event_id":"e"}', "e", "Update twin error, key:twin does not exist"),
        (b'{"event_id":"e","twin":null}', "e", "Update twin error, key:twin does not exist"),
        (b'{"event_id":"e","twin":[]}', "e", "twin must be an object"),
        (b'{"event_id":"e","twin":{"t":5}}', "e", "twin.t must be an object"),
        (b'{"event_id":"e","twin":{"t":{"actual":{"value":21}}}}', "e", "twin.t.actual.value must be a string"),
        (b'{"event_id":"e","twin":{"t":{"actual":{}}}}', "e", "twin.t.actual.value must be a string"),
        (b'{"event_id":"e","twin":{"t":{"optional":1}}}', "e", "twin.t.optional must be true or false"),
        (b'{"event_id":"e","twin":{"a b":{}}}', "e", "no name for a property"),
        (b'{"event_id":"e","twin":{"":{}}}', "e", "no name for a property"),
        (b'{"event_id":"e","twin":{"t\\n":{}}}', "e", "no name for a property"),
        (b'{"event_id":"e","twin":{"t":{"actual":{"value":"\\ud800"}}}}', "e", "not Unicode"),
        (b'{"event_id":"e","x":NaN,"twin":{}}', "", "NaN is not JSON"),
        (b"[" * 100_000, "", "nested too deeply"),
    ],
)
def test_a_wrong_update_is_told_what_is_wrong_with_it(payload: bytes, event_id: str, says: str) -> None:
    with pytest.raises(MessageError) as caught:
        TwinUpdate.decode(payload)
    assert says in caught.value.reason
    assert (caught.value.code, caught.value.event_id) == (400, event_id)


def test_a_payload_over_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(MessageError) as caught:
        TwinUpdate.decode(b" " * (messages.MAX_PAYLOAD_BYTES + 1))
    assert caught.value.code == 413


def test_a_value_may_be_16_kib_of_unicode_and_no_more() -> None:
    assert apimachinery.devices.MAX_VALUE_BYTES == messages.MAX_VALUE_BYTES
    text = "ü" * (messages.MAX_VALUE_BYTES // 2)
    update = TwinUpdate("e", 1, {"t": TwinEntry(actual=Value(text))})
    assert TwinUpdate.decode(update.encode()) == update
    with pytest.raises(MessageError, match="longer than 16384 bytes"):
        TwinUpdate.decode(TwinUpdate("e", 1, {"t": TwinEntry(actual=Value(text + "!"))}).encode())


def test_the_results_topics_may_carry_an_error() -> None:
    error = ErrorReply("e", 1, 404, "update rejected due to the device is not existed")
    for kind in (TwinResult, StateResult, MembershipList):
        assert kind.decode(error.encode()) == error


def test_a_state_is_one_of_five_words_in_any_case_and_keeps_its_spelling() -> None:
    assert StateUpdate.decode(b'{"state":"OnLine"}').state == "OnLine"
    with pytest.raises(MessageError, match="online, offline, ok, unknown, unhealthy"):
        StateUpdate.decode(b'{"state":"disconnected"}')


def test_a_delta_tells_the_version_of_a_wish_of_the_cloud() -> None:
    delta = Delta("e", 1, {"s": TwinEntry(expected=Value("22", 1), expected_version=3)}, {"s": "22"})
    assert json.loads(delta.encode())["twin"]["s"]["expected_version"] == {"cloud": 3, "edge": 0}
    read = Delta.decode(delta.encode())
    assert read == delta
    assert read.version_of("s") == 3
    assert read.version_of("t") is None


def test_a_mapper_state_round_trips_with_and_without_its_devices() -> None:
    for devices in (None, (), (DeviceId("default", "t1"), DeviceId("ns", "t2"))):
        state = MapperState("e", 1, "online", devices)
        assert MapperState.decode(state.encode()) == state
    with pytest.raises(MessageError):
        MapperState.decode(b'{"state":"online","devices":["one-level"]}')


VALUES = st.builds(
    Value, st.text(st.characters(codec="utf-8"), max_size=20), st.none() | st.integers(0, 2**53), st.booleans()
)
ENTRIES = st.builds(
    TwinEntry,
    expected=st.none() | VALUES,
    actual=st.none() | VALUES,
    optional=st.none() | st.booleans(),
    type=st.none() | st.sampled_from(["int", "string", "float"]),
    expected_version=st.none() | st.integers(0, 2**40),
)
NAMES = st.from_regex(messages.PROPERTY_NAME, fullmatch=True)
TWINS = st.dictionaries(NAMES, st.none() | ENTRIES, max_size=4)
IDS = st.text(st.characters(codec="utf-8"), max_size=10)
STAMPS = st.integers(0, 2**60)
LEVELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
MEMBERS = st.builds(Member, st.builds(DeviceId, LEVELS, LEVELS), st.text(st.characters(codec="utf-8"), max_size=5))
MESSAGES = st.one_of(
    st.builds(TwinUpdate, IDS, STAMPS, TWINS, st.none() | STAMPS),
    st.builds(CurrentTwin, STAMPS, IDS, IDS, TWINS, st.dictionaries(NAMES, IDS, max_size=3)),
    st.builds(TwinResult, IDS, STAMPS, TWINS),
    st.builds(Delta, IDS, STAMPS, TWINS, st.dictionaries(NAMES, IDS, max_size=3)),
    st.builds(Document, IDS, STAMPS, st.dictionaries(NAMES, st.builds(Turn, st.none() | ENTRIES, st.none() | ENTRIES))),
    st.builds(Ask, IDS, STAMPS),
    st.builds(StateUpdate, IDS, STAMPS, st.sampled_from(messages.STATES)),
    st.builds(StateResult, IDS, STAMPS, LEVELS, st.sampled_from(messages.STATES), st.just("2026-11-23T08:48:12Z")),
    st.builds(MembershipUpdate, IDS, STAMPS, st.lists(MEMBERS).map(tuple), st.lists(MEMBERS).map(tuple)),
    st.builds(MembershipList, IDS, STAMPS, st.lists(MEMBERS).map(tuple)),
)


@given(MESSAGES)
def test_every_message_survives_the_wire(message: Any) -> None:
    assert type(message).decode(message.encode()) == message


MEMBER_NAMES = [
    "event_id",
    "timestamp",
    "twin",
    "t",
    "expected",
    "actual",
    "value",
    "metadata",
    "type",
    "optional",
    "expected_version",
    "cloud",
    "delta",
    "state",
    "device",
    "devices",
    "id",
    "code",
    "reason",
    "last",
    "current",
    "added_devices",
    "properties",
    "visitors",
    "protocol",
    "name",
    "configData",
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(MEMBER_NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
KINDS = [*dict.fromkeys(DECODERS.values()), MapperState, messages.DeviceConfig]


@given(st.sampled_from(KINDS), JSON_VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_no_payload_does_more_than_raise_a_message_error(kind: Any, payload: bytes) -> None:
    try:
        message = kind.decode(payload)
    except MessageError:
        return
    message.encode()
