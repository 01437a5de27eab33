"""A client's half of MQTT 3.1.1 against the embedded broker's core, byte by byte, and against rude brokers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicetwin.broker.config import BrokerConfig
from devicetwin.broker.core import Broker, Close, Send
from devicetwin.broker.packets import (
    Connack,
    Decoder,
    Packet,
    Pingresp,
    ProtocolError,
    Puback,
    Publish,
    Suback,
    Subscribe,
    encode,
)
from devicetwin.mqttclient import (
    MAX_KEPT_BYTES,
    Accepted,
    BrokerRefusal,
    BrokerSilent,
    Event,
    MqttClient,
    Subscribed,
)
from devicetwin.payloads import MAX_PAYLOAD_BYTES

KEEPALIVE_S = 60.0


def client() -> MqttClient:
    return MqttClient("edge", [("t/#", 1), ("u", 0)], KEEPALIVE_S)


def said(one: MqttClient, now: float = 0.0) -> list[Packet]:
    """What it wants to send, as sent."""
    decoder = Decoder()
    decoder.feed(bytes(one.outgoing))
    one.sent(len(one.outgoing), now)
    return list(iter(decoder.next, None))


def admitted(one: MqttClient, now: float = 0.0) -> list[Packet]:
    """A connection up to the confirmed subscription; what was sent with the SUBSCRIBE."""
    one.open(now)
    said(one, now)
    assert one.receive(encode(Connack(False, 0))) == [Accepted(False)]
    packets = said(one, now)
    (subscribe,) = [each for each in packets if isinstance(each, Subscribe)]
    assert one.receive(encode(Suback(subscribe.packet_id, (1, 0)))) == [Subscribed(())]
    return packets


class Talk:
    """The client at a broker's core, over a wire that cuts as it likes."""

    def __init__(self, cuts: list[int]) -> None:
        self.broker = Broker(BrokerConfig(port=0))
        self.client = client()
        self.events: list[Event] = []
        self._cuts = cuts
        self.connect()

    def connect(self) -> None:
        self._connection = self.broker.open(0.0, "127.0.0.1")
        assert self._connection is not None
        self.client.open(0.0)

    def run(self) -> None:
        assert self._connection is not None
        while self.client.outgoing:
            data = bytes(self.client.outgoing)
            self.client.sent(len(data), 0.0)
            for piece in self._pieces(data):
                for effect in self.broker.receive(self._connection, memoryview(piece), 0.0):
                    match effect:
                        case Send(_, answer):
                            for part in self._pieces(answer):
                                self.events += self.client.receive(part)
                        case Close(_, reason):
                            raise AssertionError(reason)

    def _pieces(self, data: bytes) -> list[bytes]:
        pieces, at = [], 0
        while at < len(data):
            size = self._cuts[at % len(self._cuts)]
            pieces.append(data[at : at + size])
            at += size
        return pieces


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.lists(st.tuples(st.sampled_from(["t/1", "t/2/3", "u", "other"]), st.binary(max_size=200), st.integers(0, 1))),
)
def test_whatever_the_pieces_what_was_published_comes_once_and_is_acknowledged(
    cuts: list[int], messages: list[tuple[str, bytes, int]]
) -> None:
    talk = Talk(cuts)
    talk.run()
    assert talk.events == [Accepted(False), Subscribed(())]
    for topic, payload, quality in messages:
        talk.client.publish(topic, payload, quality, False)
    talk.run()
    arrived = [each for each in talk.events if isinstance(each, Publish)]
    assert [(each.topic, each.payload) for each in arrived] == [
        (topic, payload) for topic, payload, _ in messages if topic != "other"
    ]
    assert talk.client.waiting == 0


def test_what_was_not_acknowledged_is_said_again_in_order_on_the_next_connection() -> None:
    one = client()
    admitted(one)
    for number in range(3):
        one.publish(f"t/{number}", b"", 1, False)
    one.publish("t/zero", b"", 0, False)
    first = said(one)
    assert isinstance(first[0], Publish)
    one.receive(encode(Puback(first[0].packet_id)))
    assert one.waiting == 2
    again = [each for each in admitted(one) if isinstance(each, Publish)]
    assert [(each.topic, each.dup) for each in again] == [("t/1", True), ("t/2", True)]
    one.publish("t/new", b"", 1, False)
    (new,) = said(one)
    assert isinstance(new, Publish)
    assert new.packet_id not in {each.packet_id for each in again}


def test_messages_that_nobody_acknowledges_wait_until_they_are_sent() -> None:
    one = client()
    admitted(one)
    one.publish("t", b"12345", 0, False)
    one.publish("t", b"12345", 0, False)
    one.sent(5, 0.0)
    assert one.waiting == 2
    one.sent(len(one.outgoing), 0.0)
    assert one.waiting == 0


@pytest.mark.parametrize("over", [1, 5_000_000])
def test_of_a_message_that_is_too_long_only_the_beginning_is_kept_and_the_next_one_is_whole(over: int) -> None:
    one = client()
    admitted(one)
    long = encode(Publish("t/long", b"x" * (MAX_KEPT_BYTES + over), 1, packet_id=7))
    events: list[Event] = []
    data = long + encode(Publish("t/next", b"y"))
    for at in range(0, len(data), 1 << 16):
        events += one.receive(data[at : at + (1 << 16)])
    first, second = events
    assert isinstance(first, Publish)
    assert (first.topic, first.packet_id) == ("t/long", 7)
    assert MAX_PAYLOAD_BYTES < len(first.payload) < MAX_KEPT_BYTES
    assert second == Publish("t/next", b"y")


def test_a_refusal_says_why() -> None:
    for code, words in ((4, "Bad user name or password"), (5, "Not authorized"), (200, "code 200")):
        one = client()
        one.open(0.0, "me", "wrong")
        with pytest.raises(BrokerRefusal, match=words):
            one.receive(encode(Connack(False, code)))


def test_a_subscription_that_is_not_granted_is_told() -> None:
    one = client()
    one.open(0.0)
    one.receive(encode(Connack(True, 0)))
    subscribe = said(one)[-1]
    assert isinstance(subscribe, Subscribe)
    assert one.receive(encode(Suback(subscribe.packet_id, (0x80, 0)))) == [Subscribed(("t/#",))]


@pytest.mark.parametrize("packet", [Publish("t", b""), Suback(9, (0,)), Subscribe(1, (("t", 0),))])
def test_what_a_broker_may_not_say_now_ends_the_connection(packet: Packet) -> None:
    one = client()
    one.open(0.0)
    with pytest.raises(ProtocolError, match="does not send"):
        one.receive(encode(packet))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_whatever_bytes_come_the_answer_is_events_or_one_of_two_errors(data: bytes) -> None:
    one = client()
    one.open(0.0)
    try:
        one.receive(encode(Connack(False, 0)))
        one.receive(data)
    except (ProtocolError, BrokerRefusal):
        pass


def test_it_pings_when_it_has_said_nothing_and_gives_a_silent_broker_up() -> None:
    one = client()
    admitted(one, now=100.0)
    assert one.next_deadline() == 100.0 + KEEPALIVE_S
    one.handle_deadline(159.0)
    assert said(one) == []
    one.handle_deadline(160.0)
    assert [type(each).__name__ for each in said(one, 160.0)] == ["Pingreq"]
    one.receive(encode(Pingresp()))
    assert one.next_deadline() == 220.0
    one.handle_deadline(220.0)
    with pytest.raises(BrokerSilent):
        one.handle_deadline(280.0)
