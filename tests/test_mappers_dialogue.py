"""What is said and heard over MQTT about one device."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyModel, PropertyType
from devicetwin.messages import Channel, Delta, DeviceId, ErrorReply, StateResult, TwinEntry, TwinResult, Value
from mappers.dialogue import CHANNELS, STATE_S, Dialogue, Saying
from mappers.polling import ANSWER_S, Poller
from mappers.words import Device, Property, Reading

DEVICE = DeviceId("default", "thermostat")


def a_property(name: str, kind: PropertyType, *, writable: bool = False) -> Property:
    return Property(PropertyModel(name, kind, writable, "", "30" if writable else "", ""), {}, 1.0, 60.0, True, 0.0)


class Bench:
    def __init__(self) -> None:
        properties = {
            "setpoint": a_property("setpoint", PropertyType.FLOAT, writable=True),
            "heater": a_property("heater", PropertyType.BOOLEAN),
            "label": a_property("label", PropertyType.STRING),
        }
        self.poller = Poller(Device(str(DEVICE), {}, properties), 0.0)
        self.dialogue = Dialogue(DEVICE, self.poller, "run")
        self.dialogue.begin(0.0)

    def read(self, now: float = 0.0, **values: bool | float | str) -> None:
        self.poller.took(values, {name: Reading(value, 55) for name, value in values.items()}, now)

    def speak(self, now: float, state: str | None = "online") -> dict[Channel, dict[str, Any]]:
        return by_channel(self.dialogue.speak(state, now, 1000, with_report=state == "online"))


def by_channel(sayings: list[Saying]) -> dict[Channel, dict[str, Any]]:
    assert len({saying.channel for saying in sayings}) == len(sayings)
    return {saying.channel: json.loads(saying.payload) for saying in sayings}


def test_at_first_it_tells_the_state_asks_for_the_twin_and_reports() -> None:
    bench = Bench()
    bench.read(setpoint=20.0, heater=True, label="x")
    assert bench.speak(0.0) == {
        Channel.STATE_UPDATE: {"event_id": "run-1", "timestamp": 1000, "state": "online"},
        Channel.TWIN_GET: {"event_id": "run-2", "timestamp": 1000},
        Channel.TWIN_UPDATE: {
            "event_id": "run-3",
            "timestamp": 1000,
            "twin": {
                "heater": {
                    "actual": {"value": "true", "metadata": {"timestamp": 55}},
                    "metadata": {"type": "boolean"},
                },
                "label": {"actual": {"value": "x", "metadata": {"timestamp": 55}}, "metadata": {"type": "string"}},
                "setpoint": {
                    "actual": {"value": "20.0", "metadata": {"timestamp": 55}},
                    "metadata": {"type": "float"},
                },
            },
            "sequence": 1,
        },
    }
    assert bench.speak(0.0) == {}


def test_the_state_is_said_when_it_changes_and_now_and_then() -> None:
    bench = Bench()
    bench.speak(0.0)
    assert Channel.STATE_UPDATE not in bench.speak(STATE_S - 1)
    assert bench.speak(STATE_S)[Channel.STATE_UPDATE]["state"] == "online"
    assert bench.speak(STATE_S + 1, "offline")[Channel.STATE_UPDATE]["state"] == "offline"


def test_nothing_is_said_of_a_state_that_is_not_known_yet() -> None:
    assert set(Bench().speak(0.0, None)) == {Channel.TWIN_GET}


def test_the_twin_is_asked_for_until_there_is_an_answer() -> None:
    bench = Bench()
    bench.speak(0.0)
    assert bench.dialogue.wake_at() == ANSWER_S
    (asked,) = (bench.speak(ANSWER_S)[Channel.TWIN_GET],)
    assert bench.dialogue.hear(Channel.TWIN_GET_RESULT, TwinResult("somebody", 0, {}).encode(), 11.0) == []
    assert Channel.TWIN_GET in bench.speak(2 * ANSWER_S)
    # Another one is on its way by now; the first one's answer is late and not counted.
    assert bench.dialogue.hear(Channel.TWIN_GET_RESULT, TwinResult(asked["event_id"], 0, {}).encode(), 21.0) == []
    last = bench.speak(3 * ANSWER_S)[Channel.TWIN_GET]
    assert bench.dialogue.hear(Channel.TWIN_GET_RESULT, TwinResult(last["event_id"], 0, {}).encode(), 31.0) == []
    assert Channel.TWIN_GET not in bench.speak(4 * ANSWER_S)


def test_an_edge_without_the_twin_is_told_and_asked_again() -> None:
    bench = Bench()
    asked = bench.speak(0.0)[Channel.TWIN_GET]["event_id"]
    (complaint,) = bench.dialogue.hear(Channel.TWIN_GET_RESULT, ErrorReply(asked, 0, 404, "no twin").encode(), 1.0)
    assert complaint.facts == {"code": 404, "reason": "no twin"}
    assert Channel.TWIN_GET in bench.speak(ANSWER_S)


def test_a_delta_becomes_a_wish_with_its_version() -> None:
    bench = Bench()
    delta = Delta("e", 0, {"setpoint": TwinEntry(expected=Value("22"), expected_version=9)}, {"setpoint": "22"})
    assert bench.dialogue.hear(Channel.TWIN_DELTA, delta.encode(), 0.0) == []
    (order,) = bench.poller.orders(0.0)
    assert (order.name, order.value, order.wish.version) == ("setpoint", 22.0, 9)
    bench.poller.wrote(order, 0.0)
    bench.read(setpoint=22.0)
    entry = bench.speak(0.0)[Channel.TWIN_UPDATE]["twin"]["setpoint"]
    assert entry["actual"]["value"] == "22"
    assert entry["expected_version"]["cloud"] == 9


def test_a_whole_twin_is_as_good_as_a_delta() -> None:
    bench = Bench()
    asked = bench.speak(0.0)[Channel.TWIN_GET]["event_id"]
    twin = {
        "setpoint": TwinEntry(expected=Value("22"), actual=Value("20"), expected_version=3),
        "label": TwinEntry(expected=Value("y"), actual=Value("y")),
        "heater": TwinEntry(actual=Value("true")),
        "gone": None,
    }
    assert bench.dialogue.hear(Channel.TWIN_GET_RESULT, TwinResult(asked, 0, twin).encode(), 0.0) == []
    assert [(order.name, order.wish.version) for order in bench.poller.orders(0.0)] == [("setpoint", 3)]


def test_a_desired_value_that_is_not_allowed_is_a_complaint() -> None:
    bench = Bench()
    (complaint,) = bench.dialogue.hear(Channel.TWIN_DELTA, Delta("e", 0, {}, {"setpoint": "31"}).encode(), 0.0)
    assert complaint.text == "desired value not allowed"
    assert complaint.facts["property"] == "setpoint"


def test_a_report_is_settled_by_its_own_answer_only() -> None:
    bench = Bench()
    bench.read(setpoint=20.0)
    sent = bench.speak(0.0)[Channel.TWIN_UPDATE]["event_id"]
    bench.read(now=1.0, setpoint=21.0)
    assert bench.dialogue.hear(Channel.TWIN_UPDATE_RESULT, ErrorReply("other", 0, 400, "no").encode(), 1.0) == []
    assert bench.speak(1.0) == {}
    assert bench.dialogue.hear(Channel.TWIN_UPDATE_RESULT, TwinResult(sent, 0, {}).encode(), 1.0) == []
    assert bench.speak(1.0)[Channel.TWIN_UPDATE]["twin"]["setpoint"]["actual"]["value"] == "21.0"


def test_what_the_edge_refuses_is_a_complaint() -> None:
    bench = Bench()
    bench.read(setpoint=20.0)
    sent = bench.speak(0.0)[Channel.TWIN_UPDATE]["event_id"]
    for channel, event_id in ((Channel.TWIN_UPDATE_RESULT, sent), (Channel.STATE_UPDATE_RESULT, "any")):
        (complaint,) = bench.dialogue.hear(channel, ErrorReply(event_id, 0, 400, "no").encode(), 1.0)
        assert complaint.facts == {"code": 400, "reason": "no"}
    state = StateResult("any", 0, "thermostat", "online")
    assert bench.dialogue.hear(Channel.STATE_UPDATE_RESULT, state.encode(), 1.0) == []


def test_an_edge_that_does_not_answer_is_a_complaint_and_the_report_made_again() -> None:
    bench = Bench()
    bench.read(setpoint=20.0)
    bench.speak(0.0)
    assert bench.dialogue.expire(ANSWER_S - 1) == []
    assert [complaint.text for complaint in bench.dialogue.expire(ANSWER_S)] == ["edge does not answer"]
    assert Channel.TWIN_UPDATE in bench.speak(ANSWER_S)


def test_on_a_new_connection_everything_is_said_again() -> None:
    bench = Bench()
    bench.read(setpoint=20.0)
    before = set(bench.speak(0.0))
    bench.dialogue.begin(1.0)
    assert set(bench.speak(1.0)) == before


@given(st.sampled_from(CHANNELS), st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_rubbish_is_a_complaint_and_nothing_else(channel: Channel, payload: bytes) -> None:
    for complaint in Bench().dialogue.hear(channel, payload, 0.0):
        assert complaint.text == "message ignored"


def test_a_channel_nobody_subscribed_to_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="never subscribed"):
        Bench().dialogue.hear(Channel.CONFIG, b"{}", 0.0)
