"""
The broker's core: routing, the durable client's rule, bounds, and where we differ from mosquitto.

What mosquitto does too is in test_broker_contract.py. Here there are no sockets and no clock: peers are test objects
that hand packets to the core and take its effects.
"""

import dataclasses
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicetwin.broker.access import Access, Account
from devicetwin.broker.config import BrokerConfig
from devicetwin.broker.core import MAX_CLIENT_ID, Broker, Close, Connection, Effect, Pause, Resume, Send, Verify
from devicetwin.broker.packets import (
    Connack,
    Connect,
    Decoder,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    encode,
)

REPORTS = "$hw/events/device/+/+/twin/+"
REPORT = "$hw/events/device/default/d/twin/update"


class House:
    """A broker, its peers, and the time."""

    def __init__(self, config: BrokerConfig | None = None, access: Access | None = None) -> None:
        self.config = config or BrokerConfig()
        self.access = access or Access()
        self.broker = Broker(self.config, self.access)
        self.asked: list[Verify] = []
        self.now = 100.0
        self.peers: dict[Connection, Peer] = {}

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            peer = self.peers[effect.connection]
            match effect:
                case Send(_, data):
                    assert peer.closed == "", "a closed connection was written to"
                    peer.decoder.feed(data)
                    while (packet := peer.decoder.next()) is not None:
                        peer.inbox.append(packet)
                case Close(_, reason):
                    peer.closed = reason
                case Verify():
                    self.asked.append(effect)
                case Pause():
                    assert not peer.paused
                    peer.paused = True
                case Resume():
                    assert peer.paused
                    peer.paused = False
                    peer.resumed += 1

    def open(self, *, address: str = "127.0.0.1", inside: bool = False) -> "Peer":
        connection = self.broker.open(self.now, address, inside=inside)
        assert connection is not None
        peer = self.peers[connection] = Peer(self, connection)
        return peer

    def connect(
        self, client_id: str = "c", *, clean: bool = True, will: Will | None = None, keepalive_s: int = 0
    ) -> "Peer":
        peer = self.open(inside=client_id == self.config.durable_client_id)
        peer.send(Connect(client_id, clean, keepalive_s, will))
        return peer

    def joined(self, client_id: str, *filters: tuple[str, int], clean: bool = True) -> "Peer":
        """Connected and subscribed, with an empty inbox."""
        peer = self.connect(client_id, clean=clean)
        if filters:
            peer.send(Subscribe(1, filters))
        peer.take()
        return peer

    def verify(self, peer: "Peer", account: Account | None) -> None:
        """The shell has found out whose password it was."""
        self.perform(self.broker.verified(peer.connection, account, self.now))

    def adopt(self, access: Access) -> None:
        self.access = access
        self.perform(self.broker.adopt(access))

    def expire(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.broker.expire(self.now))


class Peer:
    def __init__(self, house: House, connection: Connection) -> None:
        self.house = house
        self.connection = connection
        self.decoder = Decoder()
        self.inbox: list[Packet] = []
        self.closed = ""
        self.paused = False
        """Whether the broker has stopped reading this peer."""
        self.resumed = 0

    def is_paused(self) -> bool:
        return self.paused

    def send(self, *packets: Packet) -> None:
        self.send_bytes(b"".join(map(encode, packets)))

    def send_bytes(self, data: bytes) -> None:
        self.house.perform(self.house.broker.receive(self.connection, data, self.house.now))

    def take(self) -> list[Packet]:
        taken, self.inbox = self.inbox, []
        return taken

    def vanish(self) -> None:
        self.house.perform(self.house.broker.lost(self.connection))
        self.closed = self.closed or "vanished"


# -- sessions and connections -----------------------------------------------------------------------------------------


def test_connect_timeout_and_keepalive_are_exact() -> None:
    house = House()
    mute, pinging, forever = house.open(), house.connect("p", keepalive_s=4), house.connect("f")
    house.expire(5.9)
    assert (mute.closed, pinging.closed) == ("", "")
    pinging.send(Pingreq())
    house.expire(4.0)
    assert (mute.closed, pinging.closed) == ("", "")
    house.expire(0.2)
    assert (mute.closed, pinging.closed) == ("no CONNECT in time", "")
    house.expire(1.8)
    assert (pinging.closed, forever.closed) == ("keepalive expired", "")
    house.expire(1e9)
    assert forever.closed == ""


def test_bytes_before_connect_do_not_extend_its_deadline() -> None:
    house = House()
    peer = house.open()
    for byte in encode(Connect("slow"))[:9]:
        peer.send_bytes(bytes([byte]))
        house.expire(1.2)
    assert peer.closed == "no CONNECT in time"


def test_one_connection_too_many_is_refused() -> None:
    house = House(BrokerConfig(max_connections=2))
    house.open()
    second = house.connect()
    assert house.broker.open(house.now) is None
    second.vanish()
    assert house.broker.open(house.now) is not None


def test_longest_offline_session_makes_room_but_never_the_durable_one(caplog: pytest.LogCaptureFixture) -> None:
    house = House(BrokerConfig(max_connections=1, max_sessions=3, durable_client_id="twin"))
    for client_id in ("a", "b", "c"):
        house.connect(client_id, clean=False).vanish()
    assert [record.__dict__["client"] for record in caplog.records if record.levelno == logging.WARNING] == ["a"]
    for client_id, present in (("twin", True), ("b", True), ("a", False)):
        peer = house.connect(client_id, clean=False)
        assert peer.take() == [Connack(present, 0)]
        peer.vanish()


def test_client_id_has_a_limit() -> None:
    house = House()
    assert house.connect("x" * MAX_CLIENT_ID).take() == [Connack(False, 0)]
    long = house.connect("x" * (MAX_CLIENT_ID + 1))
    assert (long.take(), long.closed) == ([Connack(False, 2)], "client id refused")


def test_anonymous_clients_get_names_of_their_own() -> None:
    house = House()
    house.connect("anonymous-1")
    names = {house.connect("").connection.client_id for _ in range(3)}
    assert len(names) == 3
    assert "anonymous-1" not in names


def test_subscriptions_have_a_limit_and_the_rest_of_the_packet_counts() -> None:
    house = House(BrokerConfig(max_subscriptions=2))
    peer = house.connect()
    peer.take()
    peer.send(Subscribe(1, (("a", 1), ("b", 0), ("c", 0), ("a", 2))))
    assert peer.take() == [Suback(1, (1, 0, 0x80, 2))]
    peer.send(Unsubscribe(2, ("b",)), Subscribe(3, (("c", 0),)), Publish("c", b"x"))
    assert peer.take() == [Unsuback(2), Suback(3, (0,)), Publish("c", b"x")]


def test_take_over_publishes_the_will_also_of_a_persistent_session() -> None:
    # mosquitto does not; the standard wants it, [MQTT-3.1.2-8].
    house = House()
    watcher = house.joined("w", ("w", 0))
    old = house.connect("same", clean=False, will=Will("w", b"gone", 0, False))
    new = house.connect("same", clean=False)
    assert old.closed == "session taken over"
    assert new.take() == [Connack(True, 0)]
    assert watcher.take() == [Publish("w", b"gone")]


def test_stop_closes_everybody_and_publishes_no_will() -> None:
    house = House()
    peers = [house.open(), house.joined("w", ("w", 1)), house.connect("d", will=Will("w", b"gone", 1, True))]
    house.perform(house.broker.stop())
    assert [peer.closed for peer in peers] == ["broker stops"] * 3
    assert peers[1].take() == []
    for peer in peers:
        peer.vanish()  # the transports follow
    assert peers[1].take() == []


def test_closed_connection_is_deaf() -> None:
    house = House()
    peer = house.connect()
    peer.send(Disconnect(), Pingreq())
    peer.send(Pingreq())
    assert peer.take() == [Connack(False, 0)]
    assert peer.closed == "client disconnected"
    house.broker.choke(peer.connection)
    assert house.broker.unchoke(peer.connection) == []


def test_packets_only_a_server_sends_end_the_connection() -> None:
    house = House()
    for packet in (Connack(False, 0), Suback(1, (0,)), Unsuback(1), Pingresp(), Connect("again")):
        peer = house.connect()
        peer.send(packet)
        assert "in a session" in peer.closed


def test_clean_session_ends_with_its_connection() -> None:
    house = House()
    house.joined("c", ("t", 1)).vanish()
    house.joined("s").send(Publish("t", b"", 1, packet_id=1))
    assert house.connect("c", clean=False).take() == [Connack(False, 0)]


def test_disconnect_takes_the_will_back() -> None:
    house = House()
    watcher = house.joined("w", ("w", 0))
    house.connect("d", will=Will("w", b"gone", 0, False)).send(Disconnect())
    assert watcher.take() == []


# -- slow clients -----------------------------------------------------------------------------------------------------


def test_slow_client_loses_qos_0_and_keeps_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    slow, fast, sender = house.joined("slow", ("t", 1)), house.joined("fast", ("t", 1)), house.joined("s")
    house.broker.choke(slow.connection)
    sender.send(Publish("t", b"0"), Publish("t", b"1", 1, packet_id=1))
    assert fast.take() == [Publish("t", b"0"), Publish("t", b"1", 1, packet_id=1)]
    assert slow.take() == []
    house.perform(house.broker.unchoke(slow.connection))
    assert slow.take() == [Publish("t", b"1", 1, packet_id=1)]
    assert [record.__dict__["client"] for record in caplog.records if record.levelno == logging.WARNING] == ["slow"]


def test_full_queue_drops_the_newest_and_logs_rarely(caplog: pytest.LogCaptureFixture) -> None:
    house = House(BrokerConfig(max_queued=10))
    house.joined("away", ("t", 1), clean=False).vanish()
    sender = house.joined("s")
    for n in range(110):
        sender.send(Publish("t", b"%d" % n, 1, packet_id=n + 1))
    assert len(sender.take()) == 110
    assert [record.__dict__["dropped"] for record in caplog.records] == [1, 2, 4, 8, 16, 32, 64]
    back = house.connect("away", clean=False)
    assert [p.payload for p in back.take() if isinstance(p, Publish)] == [b"%d" % n for n in range(10)]


def test_every_retained_message_reaches_a_new_subscriber_although_they_exceed_its_queue() -> None:
    house = House(BrokerConfig(max_queued=5, max_inflight=2))
    sender = house.joined("s")
    for n in range(40):
        sender.send(Publish(f"r/{n}", b"v", 1, True, packet_id=1))
    peer = house.joined("late")
    peer.send(Subscribe(1, (("r/#", 1),)))
    seen = set()
    while packets := [p for p in peer.take() if isinstance(p, Publish)]:
        for packet in packets:
            assert packet.retain
            seen.add(packet.topic)
            peer.send(Puback(packet.packet_id))
    assert len(seen) == 40


# -- the durable client -----------------------------------------------------------------------------------------------


def durable(**settings: int) -> House:
    return House(BrokerConfig(durable_client_id="twin", durable_filters=(REPORTS,), **settings))  # type: ignore[arg-type]


def test_publisher_is_acknowledged_after_the_durable_client() -> None:
    house = durable()
    twin, mapper = house.joined("twin", clean=False), house.joined("mapper")
    mapper.send(Publish(REPORT, b"20", 1, packet_id=7))
    assert mapper.take() == []
    assert twin.take() == [Publish(REPORT, b"20", 1, packet_id=1)]
    twin.send(Puback(1))
    assert mapper.take() == [Puback(7)]


def test_the_durable_client_has_a_window_of_its_own() -> None:
    house = durable(max_inflight=2, durable_inflight=3)
    twin, mapper, reader = house.joined("twin", clean=False), house.joined("mapper"), house.joined("r", (REPORTS, 1))
    reader.take()
    mapper.send(*(Publish(REPORT, b"", 1, packet_id=number) for number in range(1, 6)))
    assert (len(twin.take()), len(reader.take())) == (3, 2)


def test_qos_2_publisher_waits_for_pubrec_and_a_qos_2_durable_client_counts_at_pubcomp() -> None:
    house = durable()
    twin, mapper = house.joined("twin", (REPORTS, 2), clean=False), house.joined("mapper")
    mapper.send(Publish(REPORT, b"20", 2, packet_id=7), Publish(REPORT, b"20", 2, dup=True, packet_id=7))
    assert twin.take() == [Publish(REPORT, b"20", 2, packet_id=1)]
    twin.send(Pubrec(1))
    assert (twin.take(), mapper.take()) == ([Pubrel(1)], [])
    twin.send(Pubcomp(1))
    assert mapper.take() == [Pubrec(7)]
    mapper.send(Publish(REPORT, b"20", 2, dup=True, packet_id=7), Pubrel(7))
    assert (mapper.take(), twin.take()) == ([Pubrec(7), Pubcomp(7)], [])


def test_what_the_durable_client_does_not_receive_is_acknowledged_at_once() -> None:
    house = durable()
    twin, mapper = house.joined("twin", ("zero", 0), clean=False), house.joined("mapper")
    mapper.send(Publish("zero", b"", 1, packet_id=1), Publish("other", b"", 2, packet_id=2), Publish(REPORT, b"0"))
    assert mapper.take() == [Puback(1), Pubrec(2)]
    assert [p.topic for p in twin.take() if isinstance(p, Publish)] == ["zero", REPORT]


def test_acknowledgements_keep_the_order_of_the_publications() -> None:
    house = durable()
    twin, mapper, other = house.joined("twin", clean=False), house.joined("mapper"), house.joined("other")
    mapper.send(
        Publish("free", b"", 1, packet_id=1),
        Publish(REPORT, b"", 1, packet_id=2),
        Publish("free", b"", 2, packet_id=3),
        Publish(REPORT, b"", 1, packet_id=4),
    )
    other.send(Publish("free", b"", 1, packet_id=1))
    assert (mapper.take(), other.take()) == ([Puback(1)], [Puback(1)])
    twin.send(Puback(2))
    assert mapper.take() == []
    twin.send(Puback(1))
    assert mapper.take() == [Puback(2), Pubrec(3), Puback(4)]


def test_report_before_the_durable_client_ever_connected_waits_for_it() -> None:
    house = durable()
    mapper = house.joined("mapper")
    mapper.send(Publish(REPORT, b"first", 1, packet_id=1))
    assert mapper.take() == []
    twin = house.connect("twin", clean=False)
    assert twin.take() == [Connack(True, 0), Publish(REPORT, b"first", 1, packet_id=1)]
    twin.send(Puback(1))
    assert mapper.take() == [Puback(1)]


def test_durable_client_that_leaves_before_its_commit_gets_the_report_again() -> None:
    house = durable()
    twin, mapper = house.joined("twin", clean=False), house.joined("mapper")
    mapper.send(Publish(REPORT, b"20", 1, packet_id=1))
    twin.vanish()
    assert mapper.take() == []
    twin = house.connect("twin", clean=False)
    assert twin.take() == [Connack(True, 0), Publish(REPORT, b"20", 1, dup=True, packet_id=1)]
    twin.send(Puback(1))
    assert mapper.take() == [Puback(1)]


def test_repeat_of_a_waiting_publication_joins_it_in_a_persistent_session() -> None:
    house = durable()
    mapper = house.connect("mapper", clean=False)
    mapper.send(Publish(REPORT, b"1", 1, packet_id=1), Publish(REPORT, b"2", 2, packet_id=2))
    mapper.vanish()
    mapper = house.connect("mapper", clean=False)
    mapper.send(Publish(REPORT, b"1", 1, dup=True, packet_id=1), Publish(REPORT, b"2", 2, dup=True, packet_id=2))
    assert mapper.take() == [Connack(True, 0)]
    twin = house.connect("twin", clean=False)
    assert [p.payload for p in twin.take() if isinstance(p, Publish)] == [b"1", b"2"]
    twin.send(Puback(1), Puback(2))
    assert mapper.take() == [Puback(1), Pubrec(2)]


def test_publisher_that_left_for_good_is_no_obstacle() -> None:
    house = durable()
    twin, mapper = house.joined("twin", clean=False), house.joined("mapper")
    mapper.send(Publish(REPORT, b"1", 1, packet_id=1))
    mapper.vanish()
    twin.send(Puback(1))
    again = house.joined("mapper")
    again.send(Publish(REPORT, b"1", 1, dup=True, packet_id=1))
    twin.take()
    twin.send(Puback(2))
    assert again.take() == [Puback(1)]


def test_full_queue_stops_reading_and_loses_nothing() -> None:
    house = durable(max_queued=10)
    first, second = house.joined("m1"), house.joined("m2")
    first.send(*(Publish(REPORT, b"1-%d" % n, 1, packet_id=n) for n in range(1, 31)))
    assert first.is_paused()
    second.send(Publish("other", b"", 1, packet_id=1), Publish(REPORT, b"2-1", 1, packet_id=2), Pingreq())
    assert second.is_paused()
    assert (first.take(), second.take()) == ([], [Puback(1)])

    twin = house.connect("twin", clean=False)
    arrived = []
    while packets := [p for p in twin.take() if isinstance(p, Publish)]:
        for packet in packets:
            arrived.append(packet.payload)
            twin.send(Puback(packet.packet_id))
    assert sorted(arrived) == sorted([*(b"1-%d" % n for n in range(1, 31)), b"2-1"])
    assert [p for p in arrived if p.startswith(b"1")] == [b"1-%d" % n for n in range(1, 31)]
    assert first.take() == [Puback(n) for n in range(1, 31)]
    # The ping was answered when its turn came; the report before it is acknowledged after the commit.
    assert second.take() == [Pingresp(), Puback(2)]
    assert not first.is_paused()
    assert not second.is_paused()


def test_stalled_publishers_go_on_when_the_queue_is_half_empty_with_a_new_deadline() -> None:
    house = durable(max_queued=10, max_inflight=1)
    mapper = house.connect("mapper", keepalive_s=10)
    twin = house.connect("twin", clean=False)
    mapper.send(*(Publish(REPORT, b"", 1, packet_id=n) for n in range(1, 20)))
    house.now += 14
    twin.send(*(Puback(n) for n in range(1, 5)))
    assert mapper.resumed == 0
    twin.send(Puback(5))
    assert mapper.resumed == 1
    assert mapper.is_paused(), "five more fitted, the sixth did not"
    house.expire(2)
    assert mapper.closed == ""


def test_stalled_publisher_that_breaks_off_takes_its_message_with_it() -> None:
    house = durable(max_queued=1)
    mapper = house.connect("mapper", keepalive_s=10)
    mapper.take()
    mapper.send(Publish(REPORT, b"1", 1, packet_id=1), Publish(REPORT, b"2", 1, packet_id=2), Pingreq())
    assert mapper.is_paused()
    house.expire(15)
    assert mapper.closed == "keepalive expired"
    twin = house.connect("twin", clean=False)
    twin.take()
    twin.send(Puback(1))
    assert twin.take() == []
    assert mapper.take() == []


def test_publisher_that_waits_in_vain_is_bounded_even_off_the_durable_topics() -> None:
    house = durable(max_queued=10)
    mapper = house.joined("mapper")
    mapper.send(Publish(REPORT, b"", 1, packet_id=1), *(Publish("free", b"", 1, packet_id=n) for n in range(2, 100)))
    assert mapper.is_paused()
    twin = house.connect("twin", clean=False)
    twin.send(Puback(1))
    assert not mapper.is_paused()
    assert mapper.resumed == 1
    assert mapper.take() == [Puback(n) for n in range(1, 100)]


def test_publisher_that_waits_for_its_own_acknowledgements_goes_on_when_half_are_paid() -> None:
    house = durable(max_queued=10)
    mapper, twin = house.joined("mapper"), house.connect("twin", clean=False)
    mapper.send(*(Publish(REPORT, b"", 1, packet_id=n) for n in range(1, 13)))
    assert mapper.is_paused()
    twin.send(*(Puback(n) for n in range(1, 5)))
    assert mapper.resumed == 0
    twin.send(Puback(5))
    assert mapper.resumed == 1


def test_durable_clients_own_publications_never_wait_for_itself() -> None:
    house = durable(max_queued=2, max_inflight=1)
    twin = house.joined("twin", clean=False)
    for n in range(1, 10):
        twin.send(Publish(REPORT, b"", 1, packet_id=n))
    assert [p for p in twin.take() if isinstance(p, Puback)] == [Puback(n) for n in range(1, 10)]
    assert not twin.is_paused()


def test_will_for_the_durable_client_is_delivered_without_waiting() -> None:
    house = durable()
    house.connect("dying", will=Will(REPORT, b"gone", 1, False)).vanish()
    assert Publish(REPORT, b"gone", 1, packet_id=1) in house.connect("twin", clean=False).take()


def test_durable_client_must_ask_for_a_persistent_session() -> None:
    house = durable()
    peer = house.connect("twin", clean=True)
    assert (peer.take(), peer.closed) == ([Connack(False, 2)], "client id refused")


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["publish", "publish", "ack", "twin off", "twin on", "mapper off", "mapper on"])))
def test_no_acknowledged_report_was_not_committed_before(steps: list[str]) -> None:
    """Promise 4 of the design: durable before acknowledged, whatever comes and goes; and nothing is lost in the end."""
    house = durable(max_queued=4, max_inflight=2)
    twin, mapper = house.joined("twin", clean=False), house.joined("mapper", clean=False)
    committed: set[bytes] = set()
    unacked: dict[int, bytes] = {}  # the mapper's memory
    number = 0

    def settle(n: int) -> None:
        for packet in twin.take()[:n]:
            if isinstance(packet, Publish):
                committed.add(packet.payload)
                twin.send(Puback(packet.packet_id))

    def hear() -> None:
        for packet in mapper.take():
            if isinstance(packet, Puback):
                assert unacked.pop(packet.packet_id) in committed, "acknowledged before its commit"

    def resend() -> None:
        mapper.send(*(Publish(REPORT, payload, 1, dup=True, packet_id=n) for n, payload in unacked.items()))

    for step in steps:
        match step:
            case "publish":
                number += 1
                unacked[number] = b"%d" % number
                if not mapper.closed:
                    mapper.send(Publish(REPORT, unacked[number], 1, packet_id=number))
            case "ack" if not twin.closed:
                settle(1)
            case "twin off" if not twin.closed:
                twin.vanish()
                twin.take()
            case "twin on" if twin.closed:
                twin = house.connect("twin", clean=False)
            case "mapper off" if not mapper.closed:
                mapper.vanish()
            case "mapper on" if mapper.closed:
                mapper = house.connect("mapper", clean=False)
                resend()
            case _:
                pass
        hear()
    twin = house.connect("twin", clean=False)
    mapper = house.connect("mapper", clean=False)
    resend()
    while twin.inbox:
        settle(1000)
        hear()
    assert unacked == {}
    assert committed == {b"%d" % n for n in range(1, number + 1)}


# -- any bytes --------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_arbitrary_bytes_end_at_most_their_own_connection(chunks: list[bytes]) -> None:
    house = durable()
    watcher, rude = house.joined("w", ("#", 0)), house.connect("rude")
    for chunk in chunks:
        rude.send_bytes(chunk)
    watcher.take()
    watcher.send(Pingreq())
    assert watcher.take() == [Pingresp()]


# -- who may come, and who may speak ----------------------------------------------------------------------------------

MAPPER = Account(name="modbus", password="1", mapper=True)
BOUND = Account(name="bound", password="1", devices=("default/d",))
USERS = Access({"modbus": MAPPER, "bound": BOUND}, anonymous=False)
DELTA = f"{REPORT}/delta"
NOT_AUTHORIZED, BAD_CREDENTIALS, COME_AGAIN = 5, 4, 3


def as_user(house: House, user: str, client_id: str = "c", **settings: Any) -> Peer:
    """Connected with a password that turned out to be right."""
    peer = house.open()
    peer.send(Connect(client_id, settings.pop("clean", True), username=user, password=b"right", **settings))
    house.verify(peer, house.access.users[user])
    return peer


def test_an_anonymous_client_cannot_pose_as_the_cloud(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    mapper = house.joined("mapper", ("$hw/#", 1))
    forger = house.joined("forger")
    for topic in (DELTA, f"{REPORT}/result", "$hw/events/device/default/d/config"):
        forger.send(Publish(topic, b"{}", 1, True, packet_id=1), Publish(topic, b"{}"))
        assert forger.take() == [Puback(1)]  # as mosquitto: acknowledged and dropped
    forger.send(Publish(DELTA, b"{}", 2, packet_id=2))
    assert forger.take() == [Pubrec(2)]
    assert mapper.take() == []
    assert house.broker.denied == 7
    late = house.connect("late")
    late.take()
    late.send(Subscribe(1, (("$hw/#", 1),)))
    assert late.take() == [Suback(1, (1,))]  # nothing of it was retained
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "mqtt client has no right to publish there, dropped"
    ]
    house.now += 60
    forger.send(Publish(DELTA, b"{}"))
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 2
    forger.send(Publish(REPORT, b"{}"))
    assert mapper.take() == [Publish(REPORT, b"{}")]


def test_only_a_connection_from_inside_is_edgecore() -> None:
    house = House(BrokerConfig(durable_client_id="twin"))
    thief = house.open()
    thief.send(Connect("twin", False, username="twin", password=b""))
    assert thief.take() == [Connack(False, 2)]
    assert thief.closed
    edge = house.connect("twin", clean=False)
    assert edge.take() == [Connack(True, 0)]
    mapper = house.joined("mapper", (DELTA, 1))
    edge.send(Publish(DELTA, b"{}", 1, packet_id=1))
    assert edge.take() == [Puback(1)]
    assert mapper.take() == [Publish(DELTA, b"{}", 1, packet_id=1)]


def test_an_inside_connection_is_let_in_when_all_others_are_taken() -> None:
    house = House(BrokerConfig(max_connections=1, durable_client_id="twin"))
    house.connect("a")
    assert house.broker.open(house.now) is None
    assert house.connect("twin", clean=False).take() == [Connack(True, 0)]


def test_without_a_name_nobody_enters_where_only_users_may() -> None:
    house = House(access=USERS)
    stranger = house.connect("c")
    assert stranger.take() == [Connack(False, NOT_AUTHORIZED)]
    assert stranger.closed == "anonymous, and only users may come"
    assert house.broker.logins_refused == 1


def test_a_name_is_taken_for_none_where_nobody_has_one() -> None:
    house = House()
    peer = house.open()
    peer.send(Connect("c", username="me", password=b"x"))
    assert peer.take() == [Connack(False, 0)]


def test_a_right_password_lets_in_and_what_was_sent_behind_it_is_taken() -> None:
    house = House(access=USERS)
    peer = house.open()
    peer.send(Connect("c", username="modbus", password=b"right"), Subscribe(1, (("$hw/#", 0),)))
    assert peer.take() == []
    assert peer.paused
    assert [(each.username, each.password) for each in house.asked] == [("modbus", b"right")]
    house.verify(peer, MAPPER)
    assert peer.take() == [Connack(False, 0), Suback(1, (0,))]
    assert not peer.paused


def test_a_wrong_password_is_answered_a_second_later() -> None:
    house = House(access=USERS)
    peer = house.open()
    peer.send(Connect("c", username="modbus", password=b"wrong"))
    house.verify(peer, None)
    house.expire(0.9)
    assert (peer.take(), peer.closed) == ([], "")
    house.expire(0.2)
    assert peer.take() == [Connack(False, BAD_CREDENTIALS)]
    assert peer.closed == "wrong user or password"


def test_guesses_are_bounded_by_address_and_in_all() -> None:
    house = House(BrokerConfig(max_logins_per_peer=2, max_logins=3), USERS)

    def guess(peer: str) -> Peer:
        one = house.open(address=peer)
        one.send(Connect("c", username="modbus", password=b"guess"))
        return one

    first, second, third = (guess("10.0.0.1") for _ in range(3))
    assert third.take() == [Connack(False, COME_AGAIN)]
    assert guess("10.0.0.2").take() == []
    assert guess("10.0.0.3").take() == [Connack(False, COME_AGAIN)]
    assert len(house.asked) == 3
    house.verify(first, None)
    second.vanish()  # whoever hangs up does not guess faster for it
    house.verify(second, None)
    assert guess("10.0.0.1").take() == [Connack(False, COME_AGAIN)]
    house.expire(1.1)
    assert first.take() == [Connack(False, BAD_CREDENTIALS)]
    fourth = guess("10.0.0.1")
    house.verify(fourth, MAPPER)
    assert fourth.take() == [Connack(False, 0)]


def test_a_password_that_is_not_verified_in_time_ends_the_connection_and_not_the_count() -> None:
    house = House(BrokerConfig(max_logins_per_peer=1), USERS)
    peer = house.open()
    peer.send(Connect("c", username="modbus", password=b"right"))
    house.expire(11)
    assert peer.closed == "no CONNECT in time"
    house.verify(peer, MAPPER)
    assert peer.take() == []
    assert as_user(house, "modbus").take() == [Connack(False, 0)]


def test_a_user_bound_to_devices_hears_of_no_other_by_wildcards_retained_or_later() -> None:
    house = House(access=USERS)
    mapper = as_user(house, "modbus", "m")
    state = "$hw/events/mapper/modbus/state/update"
    mapper.send(Publish(state, b'{"state":"online"}', 1, True, packet_id=1))
    bound = as_user(house, "bound", "b")
    bound.take()
    other = REPORT.replace("/d/", "/e/")
    bound.send(Subscribe(1, (("$hw/#", 1), (other, 1), (REPORT, 0))))
    assert bound.take() == [Suback(1, (1, 0x80, 0))]
    mapper.send(Publish(other, b"1"), Publish(REPORT, b"2"))
    assert bound.take() == [Publish(REPORT, b"2")]
    bound.send(Publish(REPORT, b"3", 1, packet_id=1))
    assert bound.take() == [Puback(1)]  # an observer; and its own subscription brings nothing
    assert house.broker.denied == 1


def test_a_will_needs_the_right_to_its_topic() -> None:
    house = House(access=USERS)
    refused = as_user(house, "bound", will=Will(REPORT, b"gone", 1, True))
    assert refused.take() == [Connack(False, NOT_AUTHORIZED)]
    assert refused.closed == "no right to its will's topic"
    watcher = as_user(house, "modbus", "w")
    watcher.send(Subscribe(1, ((REPORT, 0),)))
    watcher.take()
    allowed = as_user(house, "modbus", "m", will=Will(REPORT, b"gone", 0, False))
    allowed.vanish()
    assert watcher.take() == [Publish(REPORT, b"gone")]


def test_a_session_is_its_users() -> None:
    house = House(access=Access(USERS.users, anonymous=True))
    as_user(house, "modbus", "mine", clean=False).send(Subscribe(1, ((REPORT, 1),)))
    thief = as_user(house, "bound", "mine", clean=False)
    assert thief.take() == [Connack(False, NOT_AUTHORIZED)]
    stranger = house.connect("mine", clean=False)
    assert stranger.take() == [Connack(False, NOT_AUTHORIZED)]
    assert as_user(house, "modbus", "mine", clean=False).take() == [Connack(True, 0)]
    # Whoever is nobody keeps no name from its owner, nor hands over what was meant for it.
    squatter = house.joined("theirs", (REPORT, 1), clean=False)
    assert as_user(house, "modbus", "theirs", clean=False).take() == [Connack(False, 0)]
    assert squatter.closed == "session taken over"


def test_a_user_that_was_changed_or_deleted_is_let_go_and_others_stay() -> None:
    house = House(access=USERS)
    online = as_user(house, "modbus", "online", clean=False, will=Will(REPORT, b"gone", 0, False))
    as_user(house, "modbus", "offline", clean=False).vanish()
    bound = as_user(house, "bound", "b")
    bound.send(Subscribe(1, (("$hw/#", 0),)))
    bound.take()
    changed = dataclasses.replace(MAPPER, password="2")
    house.adopt(Access({"modbus": changed, "bound": BOUND}, anonymous=False))
    assert online.closed == "its user was changed or deleted"
    assert bound.closed == ""
    assert bound.take() == [Publish(REPORT, b"gone")]
    for client_id in ("online", "offline"):
        again = as_user(house, "modbus", client_id, clean=False)
        assert again.take() == [Connack(False, 0)], "nothing of the old session is left"
    house.adopt(Access({}, anonymous=True))
    assert bound.closed


def test_a_password_verified_for_rights_that_have_changed_is_not_right_any_more() -> None:
    house = House(access=USERS)
    peer = house.open()
    peer.send(Connect("c", username="modbus", password=b"right"))
    house.adopt(Access({"modbus": dataclasses.replace(MAPPER, mapper=False)}, anonymous=False))
    house.verify(peer, MAPPER)
    house.expire(1.1)
    assert peer.take() == [Connack(False, BAD_CREDENTIALS)]
