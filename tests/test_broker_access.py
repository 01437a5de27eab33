"""Who may say and hear what: the rules as a table, and that nobody but edgecore speaks as the edge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicetwin.broker.access import ANONYMOUS, EDGE, MAX_RULES, Account
from devicetwin.messages import Channel, DeviceId, MapperState, NodeChannel, mapper_state_topic

LAMP = DeviceId("default", "lamp")
PUMP = DeviceId("default", "pump")
MAPPER = Account(name="modbus", mapper=True)
BOUND = Account(name="bound", mapper=True, devices=("default/lamp", "yard/*"), topics=("zigbee2mqtt/+/set", "free/#"))
OBSERVER = Account(name="display")
BOUND_OBSERVER = Account(name="door", devices=("default/lamp",))

ASKED = (Channel.TWIN_UPDATE, Channel.TWIN_GET, Channel.STATE_UPDATE, Channel.TWIN_CLOUD_UPDATED)
"""What mappers publish; the last one so that they are told 403."""
SAID = tuple(channel for channel in Channel if channel not in ASKED)
"""What only the edge publishes."""


@pytest.mark.parametrize("channel", ASKED)
def test_a_mapper_asks_for_its_devices_and_no_others(channel: Channel) -> None:
    for account, lamp, pump in ((MAPPER, True, True), (BOUND, True, False), (ANONYMOUS, True, True)):
        assert account.may_publish(channel.topic(LAMP), b"") is lamp
        assert account.may_publish(channel.topic(PUMP), b"") is pump
    assert BOUND.may_publish(channel.topic(DeviceId("yard", "gate")), b"")
    assert not OBSERVER.may_publish(channel.topic(LAMP), b"")


@pytest.mark.parametrize("account", [MAPPER, BOUND, OBSERVER, ANONYMOUS])
def test_nobody_but_edgecore_speaks_as_the_edge(account: Account) -> None:
    topics = [channel.topic(LAMP) for channel in SAID]
    topics += [NodeChannel.MEMBERSHIP_GET_RESULT.topic("edge-1"), NodeChannel.MEMBERSHIP_UPDATED.topic("edge-1")]
    assert {Channel.TWIN_DELTA, Channel.CONFIG, Channel.TWIN_UPDATE_RESULT} <= set(SAID)
    for topic in topics:
        assert not account.may_publish(topic, b""), topic
        assert EDGE.may_publish(topic, b""), topic


@given(
    st.lists(st.sampled_from(["twin", "update", "get", "result", "delta", "config", "a", "", "node", "x"]), max_size=6)
)
def test_under_hw_only_what_is_named_is_open(levels: list[str]) -> None:
    topic = "/".join(["$hw", "events", "device", *levels])
    may = ANONYMOUS.may_publish(topic, b"")
    assert may == (len(levels) == 4 and (levels[2] == "twin" or levels[2:] == ["state", "update"]))
    assert EDGE.may_publish(topic, b"")
    assert not OBSERVER.may_publish(topic, b"")


@pytest.mark.parametrize("account", [MAPPER, BOUND, OBSERVER])
def test_a_user_speaks_for_the_mapper_of_its_name_only(account: Account) -> None:
    state = MapperState("e", 1, "online", ()).encode()
    assert account.may_publish(mapper_state_topic(account.name), state) is account.mapper
    assert not account.may_publish(mapper_state_topic("other"), state)
    assert ANONYMOUS.may_publish(mapper_state_topic("other"), state)


def test_a_mapper_bound_to_devices_claims_no_others() -> None:
    # Its last will would turn them offline.
    topic = mapper_state_topic("bound")
    assert BOUND.may_publish(topic, MapperState("e", 1, "online", (LAMP,)).encode())
    assert BOUND.may_publish(topic, MapperState("e", 1, "offline").encode())
    assert not BOUND.may_publish(topic, MapperState("e", 1, "online", (LAMP, PUMP)).encode())


def test_a_user_hears_of_its_devices_only() -> None:
    for channel in Channel:
        assert BOUND.may_read(channel.topic(LAMP))
        assert not BOUND.may_read(channel.topic(PUMP))
        assert not BOUND_OBSERVER.may_read(channel.topic(PUMP))
        assert OBSERVER.may_read(channel.topic(PUMP))
    for account in (MAPPER, BOUND, OBSERVER):
        assert account.may_read(NodeChannel.MEMBERSHIP_UPDATED.topic("edge-1"))
        assert not account.may_read("$hw/other")
        assert not account.may_read("$SYS/broker/version")
    assert OBSERVER.may_read(mapper_state_topic("modbus"))
    assert not BOUND_OBSERVER.may_read(mapper_state_topic("modbus"))


def test_topics_outside_the_realm_are_as_given() -> None:
    assert BOUND.may_publish("zigbee2mqtt/lamp/set", b"")
    assert BOUND.may_read("free/a/b")
    assert not BOUND.may_publish("zigbee2mqtt/lamp", b"")
    assert not MAPPER.may_publish("free/a", b"")
    assert not MAPPER.may_read("free/a")
    assert ANONYMOUS.may_publish("anything", b"")
    assert ANONYMOUS.may_read("anything")


def test_a_filter_is_refused_only_where_nothing_could_ever_come() -> None:
    assert BOUND.may_subscribe(Channel.CONFIG.filter)
    assert BOUND.may_subscribe(Channel.TWIN_DELTA.topic(LAMP))
    assert not BOUND.may_subscribe(Channel.TWIN_DELTA.topic(PUMP))
    assert not BOUND.may_subscribe("elsewhere")


@pytest.mark.parametrize(
    ("devices", "topics", "says"),
    [
        (("lamp",), (), "is not NAMESPACE/NAME"),
        (("a/b/c",), (), "is not NAMESPACE/NAME"),
        (("/b",), (), "is not NAMESPACE/NAME"),
        (("a/+",), (), "wildcard"),
        (("a/b",) * (MAX_RULES + 1), (), "more than 1000"),
        ((), ("a#",), "is not a topic filter"),
        ((), ("$hw/#",), "begin with"),
    ],
)
def test_rules_that_make_no_sense_are_refused(devices: tuple[str, ...], topics: tuple[str, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Account(name="a", devices=devices, topics=topics)


def test_a_password_is_not_shown_and_counts_as_a_change() -> None:
    one = Account(name="a", password="scrypt$hash")
    assert "hash" not in repr(one)
    assert one != Account(name="a", password="scrypt$other")
