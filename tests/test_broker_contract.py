"""
What both brokers promise: every test here runs against the embedded broker and against a real mosquitto.

Bytes are written and read by hand, so that neither broker is judged by our own codec; paho-mqtt is the unmodified
client. Where the two differ the difference is in docs/why/broker.md, and the test is in test_broker_core.py.
"""

import asyncio
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from devicetwin.broker.config import BrokerConfig
from devicetwin.broker.server import listen
from tests.harness.mosquitto import Mosquitto, executable
from tests.harness.pahoclient import hang_up

DEADLINE_S = 10.0
MAX_PACKET_BYTES = 65536

PINGREQ, PINGRESP, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"
ACCEPTED, ACCEPTED_WITH_SESSION = b"\x20\x02\x00\x00", b"\x20\x02\x01\x00"


class Embedded:
    """The embedded broker on a loop of its own in a thread, as blocking clients need it."""

    def __init__(self) -> None:
        self.port = 0
        self._started: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Task[None] | None]] = queue.Queue(1)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="embedded-broker")

    async def _main(self) -> None:
        server = await listen(BrokerConfig(port=0, max_packet_bytes=MAX_PACKET_BYTES))
        self.port = server.port
        self._started.put((asyncio.get_running_loop(), asyncio.current_task()))
        with suppress(asyncio.CancelledError):
            await server.run()

    def __enter__(self) -> Self:
        self._thread.start()
        self._loop, self._task = self._started.get(timeout=DEADLINE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the embedded broker did not stop"


@pytest.fixture(params=["embedded", "mosquitto"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    if request.param == "embedded":
        with Embedded() as embedded:
            yield embedded.port
        return
    if executable() is None:
        pytest.skip("mosquitto is not installed")
    with Mosquitto(f"max_packet_size {MAX_PACKET_BYTES}") as mosquitto:
        yield mosquitto.port


# -- bytes by hand -----------------------------------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(raw)) + raw


def frame(first: int, body: bytes = b"") -> bytes:
    head = bytes([first])
    length = len(body)
    while length > 127:
        head += bytes([length & 127 | 128])
        length >>= 7
    return head + bytes([length]) + body


def connect(
    client_id: str = "client",
    *,
    clean: bool = True,
    keepalive_s: int = 60,
    will: tuple[str, bytes, int, bool] | None = None,
    name: str = "MQTT",
    level: int = 4,
    flags: int | None = None,
) -> bytes:
    bits = 2 if clean else 0
    payload = text(client_id)
    if will is not None:
        bits |= 4 | will[2] << 3 | will[3] << 5
        payload += text(will[0]) + text(will[1])
    head = bytes([level, bits if flags is None else flags]) + struct.pack("!H", keepalive_s)
    return frame(0x10, text(name) + head + payload)


def publish(
    topic: str | bytes, payload: bytes = b"", qos: int = 0, packet_id: int = 1, retain: bool = False, dup: bool = False
) -> bytes:
    middle = struct.pack("!H", packet_id) if qos else b""
    return frame(0x30 | dup << 3 | qos << 1 | retain, text(topic) + middle + payload)


def subscribe(*filters: tuple[str, int], packet_id: int = 1) -> bytes:
    return frame(0x82, struct.pack("!H", packet_id) + b"".join(text(name) + bytes([qos]) for name, qos in filters))


def unsubscribe(*filters: str, packet_id: int = 1) -> bytes:
    return frame(0xA2, struct.pack("!H", packet_id) + b"".join(map(text, filters)))


def ack(first: int, packet_id: int) -> bytes:
    return struct.pack("!BBH", first, 2, packet_id)


def puback(packet_id: int) -> bytes:
    return ack(0x40, packet_id)


def pubrec(packet_id: int) -> bytes:
    return ack(0x50, packet_id)


def pubrel(packet_id: int) -> bytes:
    return ack(0x62, packet_id)


def pubcomp(packet_id: int) -> bytes:
    return ack(0x70, packet_id)


def suback(*codes: int, packet_id: int = 1) -> bytes:
    return frame(0x90, struct.pack("!H", packet_id) + bytes(codes))


class Wire:
    """A TCP connection to the broker that speaks in whole packets."""

    def __init__(self, port: int, *data: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(*data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, *data: bytes) -> None:
        self.sock.sendall(b"".join(data))

    def _exactly(self, size: int) -> bytes:
        read = b""
        while len(read) < size:
            more = self.sock.recv(size - len(read))
            if not more:
                raise EOFError
            read += more
        return read

    def packet(self) -> bytes:
        """The next packet, as it came."""
        first = self._exactly(1)
        length = shift = 0
        head = first
        while True:
            byte = self._exactly(1)
            head += byte
            length |= (byte[0] & 127) << shift
            shift += 7
            if byte[0] < 128:
                return head + self._exactly(length)

    def expect(self, *packets: bytes) -> None:
        for wanted in packets:
            assert self.packet() == wanted

    def ask(self, question: bytes, *answers: bytes) -> None:
        self.send(question)
        self.expect(*answers)

    def expect_quiet(self) -> None:
        """Nothing is under way: the answer to a ping is the next that comes. Both brokers keep the order."""
        self.ask(PINGREQ, PINGRESP)

    def expect_closed(self) -> None:
        """The broker ends the connection, and says nothing before."""
        try:
            rest = self.sock.recv(1)
        except ConnectionResetError:
            rest = b""
        assert rest == b"", "the broker answered where it should have closed"


def client(port: int, client_id: str = "client", *, clean: bool = True) -> Wire:
    wire = Wire(port, connect(client_id, clean=clean))
    wire.expect(ACCEPTED)
    return wire


def subscriber(port: int, *filters: tuple[str, int], client_id: str = "subscriber", clean: bool = True) -> Wire:
    wire = client(port, client_id, clean=clean)
    wire.ask(subscribe(*filters), suback(*(qos for _, qos in filters)))
    return wire


# -- connecting --------------------------------------------------------------------------------------------------------


def test_connect_ping_disconnect(port: int) -> None:
    with client(port) as wire:
        wire.expect_quiet()
        wire.send(DISCONNECT)
        wire.expect_closed()


def test_mqtt_3_1_client_is_served(port: int) -> None:
    with Wire(port, connect(name="MQIsdp", level=3)) as wire:
        wire.expect(ACCEPTED)
        wire.expect_quiet()


@pytest.mark.parametrize(("name", "level"), [("MQTT", 6), ("MQTT", 3), ("MQIsdp", 4)])
def test_other_protocol_level_is_answered_with_connack_1_and_closed(port: int, name: str, level: int) -> None:
    with Wire(port, connect(name=name, level=level)) as wire:
        wire.expect(b"\x20\x02\x00\x01")
        wire.expect_closed()


def test_other_protocol_name_is_closed(port: int) -> None:
    with Wire(port, connect(name="HTTP")) as wire:
        wire.expect_closed()


def test_empty_client_id_with_clean_session_is_given_a_name(port: int) -> None:
    with Wire(port, connect("")) as one, Wire(port, connect("")) as two:
        one.expect(ACCEPTED)
        two.expect(ACCEPTED)
        one.expect_quiet()
        two.expect_quiet()


@pytest.mark.parametrize(
    "packet", [connect("", clean=False), connect("", name="MQIsdp", level=3)], ids=["unclean", "3.1"]
)
def test_empty_client_id_is_otherwise_refused(port: int, packet: bytes) -> None:
    with Wire(port, packet) as wire:
        wire.expect(b"\x20\x02\x00\x02")
        wire.expect_closed()


MALFORMED_CONNECTS = {
    "reserved flag": connect(flags=0x03),
    "will of QoS 3": connect(will=("w", b"", 3, False)),
    "will QoS without will": connect(flags=0x0A),
    "will topic with wildcard": connect(will=("w/#", b"", 0, False)),
    "empty will topic": connect(will=("", b"", 0, False)),
    "password without user name": frame(0x10, text("MQTT") + b"\x04\x42\x00\x3c" + text("c") + text("p")),
    "bytes after the last field": frame(0x10, text("MQTT") + b"\x04\x02\x00\x3c" + text("c") + b"zz"),
    "publish first": publish("a"),
    "ping first": PINGREQ,
    "type 0": b"\x00\x00",
}


@pytest.mark.parametrize("data", MALFORMED_CONNECTS.values(), ids=MALFORMED_CONNECTS.keys())
def test_bad_beginning_is_closed_without_a_word(port: int, data: bytes) -> None:
    with Wire(port, data) as wire:
        wire.expect_closed()


MALFORMED = {
    "type 0": b"\x00\x00",
    "type 15": b"\xf0\x00",
    "CONNACK from a client": b"\x20\x02\x00\x00",
    "remaining length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "PUBLISH to a wildcard": publish("a/+"),
    "PUBLISH to nothing": publish(""),
    "PUBLISH with QoS 3": frame(0x36, text("a") + b"\x00\x01"),
    "PUBLISH with packet id 0": publish("a", qos=1, packet_id=0),
    "topic with NUL": publish("a\x00b"),
    "topic not UTF-8": publish(b"a\xff"),
    "topic with an encoded surrogate": publish(b"a\xed\xa0\x80"),
    "topic with a control character": publish("a\x01"),
    "topic longer than its packet": frame(0x30, b"\x00\x09abc"),
    "SUBSCRIBE with wrong flags": frame(0x80, b"\x00\x01" + text("a") + b"\x00"),
    "SUBSCRIBE to nothing": frame(0x82, b"\x00\x01"),
    "SUBSCRIBE with QoS 3": subscribe(("a", 3)),
    "SUBSCRIBE with packet id 0": subscribe(("a", 0), packet_id=0),
    "filter empty": subscribe(("", 0)),
    "filter a#": subscribe(("a#", 0)),
    "filter #/a": subscribe(("#/a", 0)),
    "filter a+ behind a good one": subscribe(("good", 1), ("a+", 0)),
    "UNSUBSCRIBE from nothing": frame(0xA2, b"\x00\x01"),
    "UNSUBSCRIBE from a#": unsubscribe("a#"),
    "PUBREL with wrong flags": b"\x60\x02\x00\x07",
    "PUBACK with packet id 0": puback(0),
    "DISCONNECT with wrong flags": b"\xe1\x00",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_packet_closes_and_publishes_the_will(port: int, data: bytes) -> None:
    with subscriber(port, ("w", 1)) as watcher:
        with Wire(port, connect("broken", will=("w", b"gone", 1, False))) as wire:
            wire.expect(ACCEPTED)
            wire.send(data)
            wire.expect_closed()
        watcher.expect(publish("w", b"gone", 1))


def test_second_connect_closes(port: int) -> None:
    with client(port) as wire:
        wire.send(connect())
        wire.expect_closed()


def test_answers_to_unknown_packet_ids_do_no_harm(port: int) -> None:
    with client(port) as wire:
        wire.send(puback(7), pubcomp(7))
        wire.expect_quiet()
        wire.ask(pubrec(7), pubrel(7))
        wire.ask(pubrel(7), pubcomp(7))


def test_packets_may_come_byte_by_byte_or_all_at_once(port: int) -> None:
    session = connect() + subscribe(("t", 1)) + publish("t", b"x" * 200, 0) + PINGREQ
    answers = [ACCEPTED, suback(1), publish("t", b"x" * 200), PINGRESP]
    with Wire(port, session) as wire:
        wire.expect(*answers)
        wire.send(DISCONNECT)
    with Wire(port) as wire:
        for byte in session:
            wire.send(bytes([byte]))
        wire.expect(*answers)


def test_payload_up_to_the_limit_passes_and_beyond_it_closes(port: int) -> None:
    with subscriber(port, ("big", 1)) as wire, client(port) as sender:
        payload = bytes(MAX_PACKET_BYTES - 100)
        sender.ask(publish("big", payload, 1), puback(1))
        wire.expect(publish("big", payload, 1))
        with suppress(ConnectionError):  # the broker may close while the rest is still being sent
            sender.send(publish("big", bytes(MAX_PACKET_BYTES + 100), 1, 2))
        sender.expect_closed()
        wire.send(puback(1))
        wire.expect_quiet()


# -- topics ------------------------------------------------------------------------------------------------------------

MATCHES = [
    ("a/b", "a/b", True),
    ("a/b", "a", False),
    ("a/b", "a/b/", False),
    ("a/+", "a/b", True),
    ("a/+", "a", False),
    ("a/+", "a/", True),
    ("a/+", "a/b/c", False),
    ("+", "a", True),
    ("+", "/a", False),
    ("+/+", "/a", True),
    ("/+", "/a", True),
    ("+/b", "a/b", True),
    ("a/+/c", "a/b/c", True),
    ("a/+/c", "a//c", True),
    ("a/#", "a", True),
    ("a/#", "a/b/c", True),
    ("a/#", "b", False),
    ("#", "a/b", True),
    ("+/#", "a", True),
    ("a/+/#", "a", False),
    ("a/+/#", "a/b", True),
    ("A", "a", False),
    ("a b", "a b", True),
    ("raum/größe/温度", "raum/größe/温度", True),
    ("raum/+/温度", "raum/🌡/温度", True),
    ("#", "$my/events", False),
    ("+/events", "$my/events", False),
    ("+/#", "$my/events", False),
    ("$my/#", "$my/events", True),
    ("$my/+", "$my/events", True),
    ("$my/events", "$my/events", True),
    ("a/#", "a/$my", True),
    ("a/+", "a/$my", True),
]


def test_filters_match_as_the_standard_says(port: int) -> None:
    with client(port) as wire:
        for topic_filter, topic, meets in MATCHES:
            wire.ask(subscribe((topic_filter, 0)), suback(0))
            wire.send(publish(topic, topic_filter.encode()), PINGREQ)
            if meets:
                wire.expect(publish(topic, topic_filter.encode()))
            assert wire.packet() == PINGRESP, f"{topic_filter} met {topic}"
            wire.ask(unsubscribe(topic_filter), ack(0xB0, 1))


def test_device_topics_pass_at_every_qos(port: int) -> None:
    topic = "$my/events/device/default/thermostat/twin/update"
    with subscriber(port, ("$my/events/device/+/+/twin/+", 1)) as wire, client(port) as mapper:
        mapper.send(publish(topic, b"0"))
        mapper.ask(publish(topic, b"1", 1, 1), puback(1))
        mapper.ask(publish(topic, b"2", 2, 2), pubrec(2))
        mapper.ask(pubrel(2), pubcomp(2))
        wire.expect(publish(topic, b"0"), publish(topic, b"1", 1, 1), publish(topic, b"2", 1, 2))


def test_unsubscribed_client_hears_nothing_more(port: int) -> None:
    with subscriber(port, ("a", 0), ("b", 0)) as wire, client(port) as sender:
        wire.ask(unsubscribe("a", "never/subscribed", packet_id=9), ack(0xB0, 9))
        sender.ask(publish("a", qos=1), puback(1))
        sender.ask(publish("b", qos=1), puback(1))
        wire.expect(publish("b"))
        wire.expect_quiet()


def test_overlapping_subscriptions_deliver_once_at_the_highest_qos(port: int) -> None:
    with subscriber(port, ("o/#", 0), ("o/+", 2), ("o/x", 1)) as wire, client(port) as sender:
        sender.ask(publish("o/x", b"once", 1), puback(1))
        wire.expect(publish("o/x", b"once", 1))
        wire.expect_quiet()


def test_subscribing_again_replaces_the_qos(port: int) -> None:
    with subscriber(port, ("t", 1)) as wire, client(port) as sender:
        wire.ask(subscribe(("t", 0)), suback(0))
        sender.ask(publish("t", qos=1), puback(1))
        wire.expect(publish("t"))
        wire.expect_quiet()


# -- quality of service ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granted", [0, 1, 2])
def test_delivered_at_the_lower_of_published_and_granted_qos(port: int, granted: int) -> None:
    with subscriber(port, ("t", granted)) as wire, client(port) as sender:
        for published in (0, 1, 2):
            sender.send(publish("t", b"x", published))
            if published == 1:
                sender.expect(puback(1))
            if published == 2:
                sender.expect(pubrec(1))
                sender.ask(pubrel(1), pubcomp(1))
            qos = min(published, granted)
            came = wire.packet()
            assert came[0] == 0x30 | qos << 1
            if qos == 1:
                wire.send(puback(struct.unpack("!H", came[5:7])[0]))
            if qos == 2:
                packet_id = struct.unpack("!H", came[5:7])[0]
                wire.ask(pubrec(packet_id), pubrel(packet_id))
                wire.send(pubcomp(packet_id))
        wire.expect_quiet()


def test_qos_2_publication_sent_twice_is_delivered_once(port: int) -> None:
    with subscriber(port, ("t", 0)) as wire, client(port) as sender:
        sender.ask(publish("t", b"1", 2, 5), pubrec(5))
        sender.ask(publish("t", b"1", 2, 5, dup=True), pubrec(5))
        sender.ask(pubrel(5), pubcomp(5))
        sender.ask(pubrel(5), pubcomp(5))  # the answer was lost: asked again
        wire.expect(publish("t", b"1"))
        # Released, the id is free for another message.
        sender.ask(publish("t", b"2", 2, 5), pubrec(5))
        sender.ask(pubrel(5), pubcomp(5))
        wire.expect(publish("t", b"2"))
        wire.expect_quiet()


def test_messages_of_one_publisher_keep_their_order(port: int) -> None:
    with subscriber(port, ("t", 1)) as wire, client(port) as sender:
        for number in range(1, 101):
            sender.send(publish("t", b"%d" % number, 1, number))
        for number in range(1, 101):
            sender.expect(puback(number))
        for number in range(1, 101):
            wire.expect(publish("t", b"%d" % number, 1, number))
            wire.send(puback(number))


def test_window_of_twenty_waits_for_acknowledgements(port: int) -> None:
    with subscriber(port, ("t", 1)) as wire, client(port) as sender:
        for number in range(1, 31):
            sender.ask(publish("t", b"", 1, number), puback(number))
        for number in range(1, 21):
            wire.expect(publish("t", b"", 1, number))
        wire.expect_quiet()
        wire.send(puback(1))
        wire.expect(publish("t", b"", 1, 21))


# -- retained messages -------------------------------------------------------------------------------------------------


def test_retained_message_greets_each_new_subscription(port: int) -> None:
    with client(port) as sender:
        sender.ask(publish("r/a", b"1", 1, retain=True), puback(1))
        sender.ask(publish("r/a", b"2", 1, retain=True), puback(1))
        sender.send(publish("r/b", b"3", 0, retain=True), publish("r/c", b"not kept"))
        sender.expect_quiet()
    with client(port, "one") as wire:
        wire.ask(subscribe(("r/a", 1)), suback(1), publish("r/a", b"2", 1, retain=True))
        wire.send(puback(1))
        wire.ask(subscribe(("r/b", 1)), suback(1), publish("r/b", b"3", 0, retain=True))
        wire.ask(subscribe(("r/a", 0)), suback(0), publish("r/a", b"2", 0, retain=True))
        wire.ask(subscribe(("r/c", 0)), suback(0))
        wire.expect_quiet()
    with client(port, "two") as wire:
        wire.ask(subscribe(("r/+", 0)), suback(0))
        assert {wire.packet(), wire.packet()} == {publish("r/a", b"2", retain=True), publish("r/b", b"3", retain=True)}
        wire.expect_quiet()


def test_retained_message_is_forwarded_without_the_flag(port: int) -> None:
    with subscriber(port, ("r", 1)) as wire, client(port) as sender:
        sender.ask(publish("r", b"live", 1, retain=True), puback(1))
        wire.expect(publish("r", b"live", 1))


def test_empty_retained_payload_clears_and_is_forwarded(port: int) -> None:
    with subscriber(port, ("r", 0)) as wire, client(port) as sender:
        sender.ask(publish("r", b"x", 1, retain=True), puback(1))
        sender.ask(publish("r", b"", 1, retain=True), puback(1))
        wire.expect(publish("r", b"x"), publish("r", b""))
    with subscriber(port, ("r", 0)) as wire:
        wire.expect_quiet()


def test_retained_message_under_a_dollar_topic_is_hidden_from_wildcards(port: int) -> None:
    with client(port) as sender:
        sender.ask(publish("$my/x", b"d", 1, retain=True), puback(1))
    with subscriber(port, ("#", 0), ("+/x", 0)) as wire:
        wire.expect_quiet()
        wire.ask(subscribe(("$my/#", 0)), suback(0), publish("$my/x", b"d", retain=True))


# -- wills -------------------------------------------------------------------------------------------------------------


def test_will_is_published_when_the_connection_breaks(port: int) -> None:
    with subscriber(port, ("w", 1)) as watcher:
        with Wire(port, connect("dying", will=("w", b"gone", 1, False))) as wire:
            wire.expect(ACCEPTED)
        watcher.expect(publish("w", b"gone", 1))
        watcher.send(puback(1))
        watcher.expect_quiet()


def test_will_is_not_published_after_disconnect(port: int) -> None:
    with subscriber(port, ("w", 1)) as watcher:
        with Wire(port, connect("leaving", will=("w", b"gone", 1, False))) as wire:
            wire.expect(ACCEPTED)
            wire.send(DISCONNECT)
            wire.expect_closed()
        watcher.expect_quiet()


def test_retained_will_is_found_later(port: int) -> None:
    with subscriber(port, ("w", 0)) as watcher:
        with Wire(port, connect("dying", will=("w", b"gone", 0, True))) as wire:
            wire.expect(ACCEPTED)
        watcher.expect(publish("w", b"gone"))
    with client(port) as late:
        late.ask(subscribe(("w", 0)), suback(0), publish("w", b"gone", retain=True))


def test_silence_beyond_the_keepalive_closes_and_publishes_the_will(port: int) -> None:
    with subscriber(port, ("w", 0)) as watcher, Wire(port) as w:
        began = time.monotonic()  # before it is said: the broker counts from when it hears it
        w.send(connect("mute", keepalive_s=1, will=("w", b"", 0, False)))
        w.expect(ACCEPTED)
        w.expect_closed()
        assert 1.4 < time.monotonic() - began < 9  # mosquitto looks every few seconds
        watcher.expect(publish("w"))


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_persistent_session_keeps_subscriptions_and_queues_while_offline(port: int) -> None:
    with subscriber(port, ("p/#", 1), client_id="keeper", clean=False) as wire:
        wire.send(DISCONNECT)
        wire.expect_closed()
    with client(port) as sender:
        sender.send(publish("p/0", b"dropped: QoS 0"))
        sender.ask(publish("p/1", b"1", 1), puback(1))
        sender.ask(publish("p/2", b"2", 2), pubrec(1))
        sender.ask(pubrel(1), pubcomp(1))
        sender.ask(publish("p/3", b"3", 1), puback(1))
    with Wire(port, connect("keeper", clean=False)) as wire:
        wire.expect(ACCEPTED_WITH_SESSION)
        wire.expect(publish("p/1", b"1", 1, 1), publish("p/2", b"2", 1, 2), publish("p/3", b"3", 1, 3))
        wire.expect_quiet()


def test_unacknowledged_messages_come_again_with_dup(port: int) -> None:
    with subscriber(port, ("p/#", 2), client_id="keeper", clean=False) as wire, client(port) as sender:
        for packet_id, qos in ((1, 1), (2, 2), (3, 1)):
            sender.send(publish(f"p/{packet_id}", b"x", qos, packet_id))
        sender.expect(puback(1), pubrec(2), puback(3))
        sender.ask(pubrel(2), pubcomp(2))
        came = [wire.packet() for _ in range(3)]
        ids = {
            packet[4:7]: packet[7:9] for packet in came
        }  # topic → packet id; the brokers may order these differently
        assert sorted(ids) == [b"p/1", b"p/2", b"p/3"]
        # p/1 is acknowledged, p/2 half, p/3 not at all; then the connection breaks.
        wire.send(b"\x40\x02" + ids[b"p/1"])
        wire.ask(b"\x50\x02" + ids[b"p/2"], b"\x62\x02" + ids[b"p/2"])
    with Wire(port, connect("keeper", clean=False)) as wire:
        wire.expect(ACCEPTED_WITH_SESSION)
        again = {wire.packet(), wire.packet()}
        assert again == {
            b"\x62\x02" + ids[b"p/2"],
            frame(0x3A, text("p/3") + ids[b"p/3"] + b"x"),
        }
        wire.send(b"\x70\x02" + ids[b"p/2"], b"\x40\x02" + ids[b"p/3"])
        wire.expect_quiet()
    with Wire(port, connect("keeper", clean=False)) as wire:
        wire.expect(ACCEPTED_WITH_SESSION)
        wire.expect_quiet()


def test_clean_session_forgets_the_old_one(port: int) -> None:
    with subscriber(port, ("p", 1), client_id="keeper", clean=False):
        pass
    with client(port) as sender:
        sender.ask(publish("p", b"", 1), puback(1))
    with Wire(port, connect("keeper", clean=True)) as wire:
        wire.expect(ACCEPTED)
        wire.expect_quiet()
    with client(port) as sender:
        sender.ask(publish("p", b"", 1), puback(1))
    with Wire(port, connect("keeper", clean=False)) as wire:
        wire.expect(ACCEPTED)
        wire.expect_quiet()


def test_qos_2_publication_is_remembered_across_a_reconnect_of_its_publisher(port: int) -> None:
    with subscriber(port, ("t", 0)) as wire:
        with client(port, "sender", clean=False) as sender:
            sender.ask(publish("t", b"1", 2, 5), pubrec(5))
        with Wire(port, connect("sender", clean=False)) as sender:
            sender.expect(ACCEPTED_WITH_SESSION)
            sender.ask(publish("t", b"1", 2, 5, dup=True), pubrec(5))
            sender.ask(pubrel(5), pubcomp(5))
        wire.expect(publish("t", b"1"))
        wire.expect_quiet()


def test_second_connection_of_a_client_takes_over(port: int) -> None:
    dying = connect("same", will=("w", b"gone", 1, False))
    with subscriber(port, ("w", 1), client_id="watcher") as watcher, Wire(port, dying) as old:
        old.expect(ACCEPTED)
        with Wire(port, connect("same")) as new:
            new.expect(ACCEPTED)
            old.expect_closed()
            new.expect_quiet()
            watcher.expect(publish("w", b"gone", 1))


def test_taken_over_persistent_session_goes_on(port: int) -> None:
    with subscriber(port, ("t", 1), client_id="same", clean=False) as old, client(port) as sender:
        sender.ask(publish("t", b"1", 1), puback(1))
        old.expect(publish("t", b"1", 1, 1))
        with Wire(port, connect("same", clean=False)) as new:
            new.expect(ACCEPTED_WITH_SESSION, publish("t", b"1", 1, 1, dup=True))
            old.expect_closed()
            sender.ask(publish("t", b"2", 1), puback(1))
            new.expect(publish("t", b"2", 1, 2))


# -- paho, as it is ----------------------------------------------------------------------------------------------------


class Paho:
    """paho-mqtt's client with its own thread, and what it received."""

    def __init__(self, port: int, client_id: str, *, clean: bool = True, will: str | None = None) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean)
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.session_present: queue.Queue[bool] = queue.Queue()
        self.subscribed: queue.Queue[int] = queue.Queue()
        self.client.on_message = lambda _client, _userdata, message: self.messages.put(message)
        self.client.on_connect = lambda _client, _userdata, flags, _reason, _properties: self.session_present.put(
            flags.session_present
        )
        self.client.on_subscribe = lambda _client, _userdata, mid, _reasons, _properties: self.subscribed.put(mid)
        if will is not None:
            self.client.will_set(will, b"gone", qos=1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.resumed = self.session_present.get(timeout=DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        hang_up(self.client)

    def subscribe(self, topic_filter: str, qos: int) -> None:
        self.client.subscribe(topic_filter, qos)
        self.subscribed.get(timeout=DEADLINE_S)

    def next(self) -> paho.MQTTMessage:
        return self.messages.get(timeout=DEADLINE_S)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho_moves_messages_at_every_qos(port: int, qos: int) -> None:
    with Paho(port, "in") as receiver, Paho(port, "out") as sender:
        receiver.subscribe("$my/events/device/#", qos)
        sent = [sender.client.publish(f"$my/events/device/d{n}", b"%d" % n, qos) for n in range(300)]
        for n in range(300):
            message = receiver.next()
            assert (message.topic, message.payload, message.qos) == (f"$my/events/device/d{n}", b"%d" % n, qos)
        for handle in sent:
            handle.wait_for_publish(DEADLINE_S)
            assert handle.is_published()


def test_paho_resumes_a_persistent_session(port: int) -> None:
    with Paho(port, "keeper", clean=False) as keeper:
        assert not keeper.resumed
        keeper.subscribe("größe/#", 2)
    with Paho(port, "out") as sender:
        for n in range(50):
            sender.client.publish("größe/温度", b"%d" % n, 1 + n % 2).wait_for_publish(DEADLINE_S)
    with Paho(port, "keeper", clean=False) as keeper:
        assert keeper.resumed
        assert sorted(int(keeper.next().payload) for _ in range(50)) == list(range(50))
    assert keeper.messages.empty()


def test_paho_large_payload_and_retained(port: int) -> None:
    payload = bytes(range(256)) * 200
    with Paho(port, "out") as sender:
        sender.client.publish("large", payload, 1, retain=True).wait_for_publish(DEADLINE_S)
    with Paho(port, "in") as receiver:
        receiver.subscribe("large", 1)
        message = receiver.next()
        assert message.retain
        assert message.payload == payload


def test_paho_will_reaches_paho(port: int) -> None:
    with Paho(port, "watcher") as watcher:
        watcher.subscribe("wills/#", 1)
        dying = Paho(port, "dying", will="wills/dying")
        sock = dying.client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)  # the cable is cut
        message = watcher.next()
        hang_up(dying.client)
        assert (message.topic, message.payload) == ("wills/dying", b"gone")
