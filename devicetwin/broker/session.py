"""
One client's session: what it subscribed to, what it must still be sent, and what it must still be told.

A session outlives its connection if the client asked for that (clean_session=0). It has two halves that do not touch:

    deliveries   broker → client: a window of messages in flight by packet id, and a bounded queue behind it
    owed         client → broker: acknowledgements of the client's own publications, in the order these came

Invariants
    a message enters the window only while there is a writable connection, in the order it was offered
    acknowledgements leave in the order of the publications [MQTT-4.6.0-2] [MQTT-4.6.0-3], so one that waits for the
    durable client holds back those behind it
    len(inflight) <= max_inflight, and inflight_bytes is what they have; len(queue) and queued_bytes stay within their
    bounds
    the queue is empty unless the window has no room for its first or there is no writable connection

Pure state: no clock, no I/O. Methods answer with the bytes to send; core.py sends them.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from devicetwin.broker.access import Account
from devicetwin.broker.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel, encode, encode_publish


class Message(NamedTuple):
    """A publication on its way to subscribers."""

    topic: str
    payload: bytes
    qos: int
    """As published."""

    @property
    def size(self) -> int:
        """Bytes it counts for in a bound. Characters of the topic: close enough, and free."""
        return len(self.topic) + len(self.payload)


class Owed:
    """One acknowledgement that a publisher is owed."""

    __slots__ = ("packet_id", "qos", "session", "waiting")

    def __init__(self, session: "Session", packet_id: int, qos: int, waiting: bool) -> None:
        self.session = session
        self.packet_id = packet_id
        self.qos = qos
        self.waiting = waiting
        """Whether the durable client has still to acknowledge the message."""


class Delivery:
    """One message for one session, from the offer until the client has acknowledged it."""

    __slots__ = ("message", "owed", "qos", "released", "retain")

    def __init__(self, message: Message, qos: int, retain: bool = False, owed: Owed | None = None) -> None:
        self.message = message
        self.qos = qos
        """1 or 2: QoS 0 is sent at once or never and needs no Delivery."""
        self.retain = retain
        self.owed = owed
        """The publisher's acknowledgement that waits for this delivery."""
        self.released = False
        """QoS 2 only: PUBREC has come, PUBREL was sent, PUBCOMP is awaited."""


@dataclass(frozen=True, slots=True)
class Window:
    """The bounds on one session's deliveries."""

    max_inflight: int
    max_inflight_bytes: int
    """What is alone under way may be larger."""
    max_queued: int
    max_queued_bytes: int


class Session:
    """See the module. `attached` and `writable` are set through attach(), detach(), choke() and unchoke()."""

    __slots__ = (
        "_last_packet_id",
        "account",
        "attached",
        "clean",
        "client_id",
        "dropped",
        "inflight",
        "inflight_bytes",
        "owed",
        "queue",
        "queued_bytes",
        "received",
        "subscriptions",
        "window",
        "writable",
    )

    def __init__(self, client_id: str, clean: bool, window: Window, account: Account) -> None:
        self.client_id = client_id
        self.account = account
        """Whose it is, and so what it may publish and read."""
        self.clean = clean
        self.window = window
        self.attached = False
        self.writable = False
        """Attached, and the peer reads what it is sent."""
        self.subscriptions: dict[str, int] = {}
        """Topic filter → granted QoS."""
        self.inflight: dict[int, Delivery] = {}
        self.inflight_bytes = 0
        self.queue: deque[Delivery] = deque()
        self.queued_bytes = 0
        self.dropped = 0
        """Messages this session lost to its bounds."""
        self.received: set[int] = set()
        """Ids of QoS 2 publications taken and not yet released by the client: a second PUBLISH with one is a repeat."""
        self.owed: dict[int, Owed] = {}
        self._last_packet_id = 0

    # -- the connection ---------------------------------------------------------------------------------------------

    def attach(self, clean: bool) -> list[bytes]:
        """
        A connection took this session; → what to send it after CONNACK.

        "When a Client reconnects with CleanSession set to 0, both the Client and Server MUST re-send any unacknowledged
        PUBLISH Packets (where QoS > 0) and PUBREL Packets using their original Packet Identifiers" [MQTT-4.4.0-1].
        """
        self.clean = clean
        self.attached = self.writable = True
        again = [
            encode(Pubrel(packet_id)) if delivery.released else _encode(delivery, packet_id, dup=True)
            for packet_id, delivery in self.inflight.items()
        ]
        return again + self._pump()

    def detach(self) -> None:
        """The connection is gone. An unclean session keeps everything; what QoS 0 was under way is lost."""
        self.attached = self.writable = False

    def choke(self) -> None:
        """The peer does not read: nothing enters the window until unchoke()."""
        self.writable = False

    def unchoke(self) -> list[bytes]:
        """The peer reads again; → what waited."""
        self.writable = self.attached
        return self._pump()

    # -- deliveries -------------------------------------------------------------------------------------------------

    def is_full(self) -> bool:
        """Whether the queue would drop the next message."""
        return len(self.queue) >= self.window.max_queued or self.queued_bytes >= self.window.max_queued_bytes

    def has_room(self) -> bool:
        """Whether the queue is at most half full: the mark at which publishers that had to wait go on."""
        return len(self.queue) * 2 <= self.window.max_queued and self.queued_bytes * 2 <= self.window.max_queued_bytes

    def offer(self, delivery: Delivery, allowance: int = 0) -> bytes | None:
        """
        Take a message: → its packet if it may go now, else None (queued, or dropped because the queue is full).

        `allowance` in messages loosens both bounds for a retained message: it is one of a known number that is kept
        anyway, and a subscriber that missed some of them would never learn of it.
        """
        if self.writable and not self.queue and self._may_send(delivery):
            return self._send(delivery)
        if len(self.queue) >= self.window.max_queued + allowance or (not allowance and self.is_full()):
            self.dropped += 1
            return None
        self.queue.append(delivery)
        self.queued_bytes += delivery.message.size
        return None

    def settle(self, packet: Puback | Pubrec | Pubcomp) -> tuple[list[bytes], Owed | None]:
        """
        The client answered a delivery: → (what to send now, the publisher's acknowledgement this one frees).

        A QoS 2 delivery frees its publisher at PUBCOMP, not PUBREC: clients that acknowledge by hand after their commit
        (paho among them) send PUBREC by themselves on arrival.
        """
        delivery = self.inflight.get(packet.packet_id)
        match packet:
            case Puback(packet_id):
                if delivery is None or delivery.qos != 1:
                    return [], None  # a late answer to a session that is no more: ignored, as mosquitto does
            case Pubrec(packet_id):
                if delivery is not None:
                    if delivery.qos != 2:
                        return [], None
                    delivery.released = True
                # Answered even if unknown, else a client that remembers more than we do could never finish.
                return [encode(Pubrel(packet_id))], None
            case Pubcomp(packet_id):
                if delivery is None or not delivery.released:
                    return [], None
        del self.inflight[packet.packet_id]
        self.inflight_bytes -= delivery.message.size
        return self._pump(), delivery.owed

    def _pump(self) -> list[bytes]:
        sent = []
        while self.writable and self.queue and self._may_send(self.queue[0]):
            delivery = self.queue.popleft()
            self.queued_bytes -= delivery.message.size
            sent.append(self._send(delivery))
        return sent

    def _may_send(self, delivery: Delivery) -> bool:
        count, size = len(self.inflight) + 1, self.inflight_bytes + delivery.message.size
        return count == 1 or (count <= self.window.max_inflight and size <= self.window.max_inflight_bytes)

    def _send(self, delivery: Delivery) -> bytes:
        packet_id = self._last_packet_id % 65535 + 1
        while packet_id in self.inflight:  # at most max_inflight steps
            packet_id = packet_id % 65535 + 1
        self._last_packet_id = packet_id
        self.inflight[packet_id] = delivery
        self.inflight_bytes += delivery.message.size
        return _encode(delivery, packet_id)

    # -- acknowledgements owed to the client ------------------------------------------------------------------------

    def owe(self, packet_id: int, qos: int, waiting: bool) -> Owed:
        """Note a publication's acknowledgement; it leaves through pay()."""
        # An id used anew means that the client forgot the old publication; so does its place in the order.
        self.owed.pop(packet_id, None)
        owed = self.owed[packet_id] = Owed(self, packet_id, qos, waiting)
        return owed

    def pay(self) -> list[bytes]:
        """The acknowledgements that nothing holds back any more, oldest first; for a client that is gone, nothing."""
        paid = []
        while self.owed:
            packet_id, owed = next(iter(self.owed.items()))
            if owed.waiting:
                break
            del self.owed[packet_id]
            paid.append(acknowledgement(packet_id, owed.qos))
        # Whoever left resends with DUP and is answered then: QoS 2 from `received`, QoS 1 as a repeat.
        return paid if self.attached else []


def acknowledgement(packet_id: int, qos: int) -> bytes:
    """What a publisher of a QoS 1 or 2 message is answered."""
    return encode(Puback(packet_id) if qos == 1 else Pubrec(packet_id))


def _encode(delivery: Delivery, packet_id: int, dup: bool = False) -> bytes:
    topic, payload, _ = delivery.message
    return encode_publish(Publish(topic, payload, delivery.qos, delivery.retain, dup, packet_id))
