"""Topics: built and parsed, and everything else refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicetwin.topics import (
    Channel,
    DeviceId,
    DeviceTopic,
    MapperTopic,
    NodeChannel,
    NodeTopic,
    TopicError,
    mapper_state_topic,
    parse_topic,
)

LEVELS = st.text(st.characters(exclude_characters="+#/\0", codec="utf-8"), min_size=1, max_size=20)


@given(LEVELS, LEVELS, st.sampled_from(Channel))
def test_a_device_topic_is_parsed_to_what_it_was_built_from(namespace: str, name: str, channel: Channel) -> None:
    device = DeviceId(namespace, name)
    assert parse_topic(channel.topic(device)) == DeviceTopic(device, channel)
    assert DeviceId.parse(str(device)) == device


@given(LEVELS, st.sampled_from(NodeChannel))
def test_a_node_topic_is_parsed_to_what_it_was_built_from(node: str, channel: NodeChannel) -> None:
    assert parse_topic(channel.topic(node)) == NodeTopic(node, channel)
    assert parse_topic(mapper_state_topic(node)) == MapperTopic(node)


@pytest.mark.parametrize("namespace", ["e", "d", "device", "events", "hw", "twin", "update", ".."])
def test_a_namespace_that_occurs_elsewhere_in_the_topic_is_no_trap(namespace: str) -> None:
    topic = f"$hw/events/device/{namespace}/x/twin/update"
    assert parse_topic(topic) == DeviceTopic(DeviceId(namespace, "x"), Channel.TWIN_UPDATE)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "$hw",
        "$hw/events/device/",
        "$hw/events/device/a",
        "$hw/events/device/a/twin/update",
        "$hw/events/device//b/twin/update",
        "$hw/events/device/a//twin/update",
        "$hw/events/device/a/b/twin/other",
        "$hw/events/device/a/b/twin/update/",
        "$hw/events/device/+/b/twin/update",
        "$hw/events/device/a/#",
        "$hw/events/device/a/b\0/twin/update",
        "$hw/events/device/a/" + "b" * 254 + "/twin/update",
        "$hw/events/node/n",
        "$hw/events/node//membership/get",
        "$hw/events/mapper/m/state/get",
        "hw/events/device/a/b/twin/update",
    ],
)
def test_any_other_topic_is_refused(topic: str) -> None:
    with pytest.raises(TopicError):
        parse_topic(topic)


@given(st.text(max_size=40) | st.text("$hw/events/device/+#ab", max_size=60))
def test_no_text_does_more_than_raise_a_topic_error(text: str) -> None:
    for parse in (parse_topic, DeviceId.parse, lambda rest: parse_topic("$hw/events/device/" + rest)):
        try:
            parse(text)
        except TopicError:
            continue


@pytest.mark.parametrize("text", ["", "one", "/", "a/", "/b", "a/b/c", "+/b"])
def test_an_id_has_two_levels(text: str) -> None:
    with pytest.raises(TopicError):
        DeviceId.parse(text)


def test_a_channel_has_a_subscription_for_every_device() -> None:
    assert Channel.CONFIG.filter == "$hw/events/device/+/+/config"
