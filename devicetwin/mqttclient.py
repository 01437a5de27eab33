"""
A client's half of a conversation with an MQTT 3.1.1 broker, without I/O: bytes in, events out, bytes to send.

The codec is the embedded broker's. A general client costs edgecore 150 us for each report that it takes in and answers
(docs/performance.md), for what a report needs is little: one persistent session, its subscriptions, messages of quality
of service 0 and 1 both ways, acknowledgements when we say so.

How to use it
    open() for each connection, then write `outgoing` and say with sent() how much of it went.
    receive() what arrives; an error in it ends the connection.
    handle_deadline() at next_deadline(). Time is a float of seconds on any clock that only moves forward.

Invariants
    a message of quality of service 1 that was published is kept until the broker has acknowledged it, and is sent
    again, in order, on the next connection
    what a broker sends is bounded before it is kept: of a longer message only the first MAX_KEPT_BYTES are

After "MQTT Version 3.1.1", OASIS Standard, 29 October 2014.
"""

from collections.abc import Sequence
from typing import NamedTuple

from devicetwin.broker.packets import (
    SUBSCRIBE_FAILED,
    Connack,
    Connect,
    ConnectCode,
    Decoder,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    ProtocolViolation,
    Puback,
    Publish,
    Suback,
    Subscribe,
    encode,
    encode_publish,
)
from devicetwin.payloads import MAX_PAYLOAD_BYTES

MAX_KEPT_BYTES = MAX_PAYLOAD_BYTES + (66 << 10)
"""Of a packet: a payload that is too long to be read by more than a topic, so that its sender is told."""

_WORDS: dict[int, str] = {
    ConnectCode.UNACCEPTABLE_VERSION: "it does not speak MQTT 3.1.1",
    ConnectCode.IDENTIFIER_REJECTED: "it does not take our client id",
    ConnectCode.SERVER_UNAVAILABLE: "it is not available",
    ConnectCode.BAD_CREDENTIALS: "Bad user name or password",
    ConnectCode.NOT_AUTHORIZED: "Not authorized",
}
_MAX_ID = 0xFFFF


class Accepted(NamedTuple):
    """The broker took us in; what our session kept may come from now on."""

    session_present: bool


class Subscribed(NamedTuple):
    """The broker took our subscriptions."""

    refused: tuple[str, ...]
    """All but these."""


Event = Accepted | Subscribed | Publish


class BrokerRefusal(Exception):
    """The broker does not take us in; the text says why."""


class BrokerSilent(Exception):
    """The broker did not answer a ping."""


class MqttClient:
    """One persistent session of one client, over any number of connections."""

    def __init__(self, client_id: str, subscriptions: Sequence[tuple[str, int]], keepalive_s: float) -> None:
        self.outgoing = bytearray()
        """Bytes to be sent; only sent() takes any away."""
        self._client_id = client_id
        self._subscriptions = tuple(subscriptions)
        self._keepalive_s = keepalive_s
        self._decoder = Decoder()
        self._unacknowledged: dict[int, Publish] = {}
        """In the order in which they were published."""
        self._last_id = 0
        self._subscribing = 0
        """The packet id of the SUBSCRIBE under way; 0 for none."""
        self._unsent = 0
        """Messages of quality of service 0 among the outgoing bytes."""
        self._accepted = False
        self._sent_at = 0.0
        self._pinged_at: float | None = None

    @property
    def waiting(self) -> int:
        """Messages that wait for the broker: for its acknowledgement, or to be sent at all."""
        return len(self._unacknowledged) + self._unsent

    def open(self, now: float, username: str | None = None, password: str | None = None) -> None:
        """A new connection: say who we are."""
        self._decoder = Decoder(MAX_KEPT_BYTES, cuts=True)
        self._accepted = False
        self._pinged_at, self._sent_at = None, now
        self._subscribing = self._unsent = 0
        self.outgoing.clear()
        secret = None if password is None else password.encode()
        self._send(Connect(self._client_id, False, int(self._keepalive_s), None, username, secret))

    def receive(self, data: bytes) -> list[Event]:
        """
        What arrived, in order.

        Raises BrokerRefusal and packets.ProtocolError; what came before it in `data` is lost with the connection.
        """
        self._decoder.feed(data)
        events: list[Event] = []
        while (packet := self._decoder.next()) is not None:
            match packet:
                case Publish() if self._accepted:
                    events.append(packet)
                case Puback(packet_id):
                    self._unacknowledged.pop(packet_id, None)
                case Connack() if not self._accepted:
                    events.append(self._admitted(packet))
                case Suback(packet_id, codes) if packet_id == self._subscribing:
                    self._subscribing = 0
                    topics = [topic for topic, _ in self._subscriptions]
                    refused = [topic for topic, code in zip(topics, codes, strict=False) if code == SUBSCRIBE_FAILED]
                    events.append(Subscribed(tuple(refused)))
                case Pingresp():
                    self._pinged_at = None
                case _:
                    raise ProtocolViolation(f"a broker does not send {type(packet).__name__} now")
        return events

    def _admitted(self, packet: Connack) -> Accepted:
        if packet.code != ConnectCode.ACCEPTED:
            raise BrokerRefusal(_WORDS.get(packet.code, f"code {packet.code}"))
        self._accepted = True
        for message in self._unacknowledged.values():
            self.outgoing += encode_publish(message._replace(dup=True))
        self._subscribing = self._next_id()
        self._send(Subscribe(self._subscribing, self._subscriptions))
        return Accepted(packet.session_present)

    def publish(self, topic: str, payload: bytes, quality: int, retain: bool) -> None:
        """To be sent. quality: of service, 0 or 1."""
        if quality:
            message = Publish(topic, payload, 1, retain, False, self._next_id())
            self._unacknowledged[message.packet_id] = message
        else:
            message = Publish(topic, payload, 0, retain)
            self._unsent += 1
        self.outgoing += encode_publish(message)

    def acknowledge(self, packet_id: int) -> None:
        """Tell the broker that a message of quality of service 1 is taken care of."""
        self._send(Puback(packet_id))

    def close(self) -> None:
        """Say that we go; the broker keeps the session."""
        self._send(Disconnect())

    def sent(self, size: int, now: float) -> None:
        """So many of the outgoing bytes went."""
        del self.outgoing[:size]
        self._sent_at = now
        if not self.outgoing:
            self._unsent = 0

    def next_deadline(self) -> float:
        """When to call handle_deadline()."""
        return (self._sent_at if self._pinged_at is None else self._pinged_at) + self._keepalive_s

    def handle_deadline(self, now: float) -> None:
        """Whatever time it is: show that we live, and raise BrokerSilent where the broker does not."""
        if now < self.next_deadline():
            return
        if self._pinged_at is not None:
            raise BrokerSilent(f"the broker did not answer a ping within {self._keepalive_s:g} s")
        self._pinged_at = now
        self._send(Pingreq())

    def _send(self, packet: Packet) -> None:
        self.outgoing += encode(packet)

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % _MAX_ID + 1
            if self._last_id not in self._unacknowledged and self._last_id != self._subscribing:
                return self._last_id
