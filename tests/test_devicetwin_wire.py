"""From bytes to the core's words and back: nothing that comes in gets past `read` but as one of them."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicetwin.messages import (
    MAX_PAYLOAD_BYTES,
    Channel,
    Delta,
    DeviceConfig,
    DeviceId,
    Document,
    ErrorReply,
    MapperState,
    NodeChannel,
    Turn,
    TwinEntry,
    TwinResult,
    Value,
    mapper_state_topic,
)
from devicetwin.steps import (
    Asked,
    PublishDelta,
    PublishDocument,
    PublishResult,
    PublishState,
    Refuse,
    StateReported,
    Updated,
)
from devicetwin.wire import (
    ConfigSeen,
    Ignored,
    MapperSpoke,
    MembershipAsked,
    Publication,
    Read,
    Refused,
    id_of,
    key_of,
    read,
    subscriptions,
    written,
)

ID = DeviceId("default", "t")
KEY = key_of(ID)


def test_a_key_and_an_id_name_the_same_device() -> None:
    assert id_of(KEY) == ID


def test_each_request_becomes_its_event() -> None:
    update = b'{"event_id":"e","twin":{"p":{"actual":{"value":"1"}}}}'
    assert read(Channel.TWIN_UPDATE.topic(ID), update) == Updated(KEY, "e", {"p": TwinEntry(actual=Value("1"))})
    assert read(Channel.TWIN_GET.topic(ID), b'{"event_id":"g"}') == Asked(KEY, "g")
    assert read(Channel.STATE_UPDATE.topic(ID), b'{"event_id":"s","state":"ok"}') == StateReported(KEY, "s", "ok")
    assert read(NodeChannel.MEMBERSHIP_GET.topic("n"), b'{"event_id":"m"}') == MembershipAsked("m")
    said = MapperState("x", 0, "online", (ID,)).encode()
    assert read(mapper_state_topic("m1"), said) == MapperSpoke("m1", "x", "online", (ID,))


def test_only_a_retained_configuration_is_looked_at() -> None:
    topic, payload = Channel.CONFIG.topic(ID), DeviceConfig(ID, "edge1").encode()
    assert read(topic, payload, retained=True) == ConfigSeen(ID, "edge1")
    assert isinstance(read(topic, payload), Ignored)
    assert isinstance(read(topic, b"", retained=True), Ignored)
    assert isinstance(read(topic, b"rubbish", retained=True), Ignored)


@pytest.mark.parametrize(
    ("channel", "payload", "answer", "code"),
    [
        (Channel.TWIN_UPDATE, b"not json", Channel.TWIN_UPDATE_RESULT, 400),
        (Channel.TWIN_GET, b"", Channel.TWIN_GET_RESULT, 400),
        (Channel.STATE_UPDATE, b"{}", Channel.STATE_UPDATE_RESULT, 400),
        (Channel.TWIN_CLOUD_UPDATED, b"{}", Channel.TWIN_UPDATE_RESULT, 403),
    ],
)
def test_what_cannot_be_read_is_refused_on_the_device_s_own_topic(
    channel: Channel, payload: bytes, answer: Channel, code: int
) -> None:
    refused = read(channel.topic(ID), payload)
    assert isinstance(refused, Refused)
    assert (refused.device, refused.refuse.channel, refused.refuse.code) == (ID, answer, code)


@pytest.mark.parametrize("channel", [Channel.TWIN_UPDATE_RESULT, Channel.TWIN_DELTA, Channel.TWIN_DOCUMENT])
def test_our_own_answers_are_not_listened_to(channel: Channel) -> None:
    assert isinstance(read(channel.topic(ID), b"{}"), Ignored)


TOPICS = st.one_of(
    st.sampled_from(Channel).map(lambda channel: channel.topic(ID)),
    st.sampled_from(NodeChannel).map(lambda channel: channel.topic("n")),
    st.just(mapper_state_topic("m")),
    st.text(max_size=30),
)
PAYLOADS = st.binary(max_size=40) | st.from_regex(
    r'\{("(event_id|twin|state|devices)":("a"|1|null|\{\}|\[\]),?)*\}'
).map(str.encode)


@given(TOPICS, PAYLOADS, st.booleans())
def test_whatever_comes_in_becomes_one_of_the_words(topic: str, payload: bytes, retained: bool) -> None:
    assert isinstance(read(topic, payload, retained=retained), get_args(Read))


def new() -> str:
    return "new"


def test_each_effect_is_said_on_its_topic() -> None:
    entry = TwinEntry(actual=Value("1", 5))
    topic = "$hw/events/device/default/t/"
    said = written(ID, PublishResult(Channel.TWIN_GET_RESULT, "g", {"p": entry}), 9, new)
    assert said == Publication(
        topic + "twin/get/result",
        b'{"event_id":"g","timestamp":9,"twin":{"p":{"actual":{"value":"1","metadata":{"timestamp":5}}}}}',
    )
    said = written(ID, PublishDocument("", {"p": Turn(None, entry)}), 9, new)
    assert (said.topic, Document.decode(said.payload).event_id) == (topic + "twin/update/document", "new")
    assert said.quality == 0
    said = written(ID, PublishDelta({"p": entry}, {"p": "2"}), 9, new)
    assert said.topic == topic + "twin/update/delta"
    assert json.loads(said.payload)["event_id"] == "new"
    said = written(ID, PublishState("", "offline", ""), 9, new)
    assert said.payload == b'{"event_id":"new","timestamp":9,"device":{"name":"t","state":"offline"}}'
    said = written(ID, Refuse(Channel.TWIN_UPDATE_RESULT, "e", 404, "gone"), 9, new)
    assert said.payload == b'{"event_id":"e","timestamp":9,"code":404,"reason":"gone"}'
    assert (said.retain, said.quality) == (False, 1)


def test_the_node_listens_to_its_own_membership_only() -> None:
    topics = dict(subscriptions("edge1"))
    assert topics["$hw/events/node/edge1/membership/get"] == 1
    assert topics["$hw/events/device/+/+/twin/+"] == 1


def test_what_edgecore_says_itself_and_hears_again_is_nothing_odd() -> None:
    said = read(Channel.CONFIG.topic(ID), DeviceConfig(ID, "n").encode())
    assert isinstance(said, Ignored)
    assert not said.is_odd
    assert Ignored("nobody asks on this topic").is_odd


def test_an_answer_longer_than_any_mapper_takes_is_an_error_and_a_delta_names_as_many_wishes_as_it_can() -> None:
    wishes = {f"p{number:02}": "x" * 16_000 for number in range(30)}
    twin = {name: TwinEntry(expected=Value(wish, 1), expected_version=1) for name, wish in wishes.items()}
    answer = written(ID, PublishResult(Channel.TWIN_GET_RESULT, "g", twin), 5, str)
    reply = TwinResult.decode(answer.payload)
    assert isinstance(reply, ErrorReply)
    assert (reply.event_id, reply.code) == ("g", 413)

    publication = written(ID, PublishDelta(twin, wishes, "e"), 5, str)
    assert len(publication.payload) <= MAX_PAYLOAD_BYTES
    delta = Delta.decode(publication.payload)
    assert list(delta.delta) == sorted(wishes)[: len(delta.delta)]
    assert delta.delta.keys() == delta.twin.keys()
    assert len(delta.delta) >= 7, "a wish stands in it twice"
    rest = {name: wish for name, wish in wishes.items() if name not in delta.delta}
    assert set(Delta.decode(written(ID, PublishDelta(twin, rest), 5, str).payload).delta) <= set(rest)
