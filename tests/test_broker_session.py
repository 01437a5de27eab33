"""One session's deliveries and what it is owed, without a broker around it."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicetwin.broker.access import ANONYMOUS
from devicetwin.broker.packets import Decoder, Packet, Puback, Pubcomp, Publish, Pubrec, Pubrel, encode
from devicetwin.broker.session import Delivery, Message, Session, Window

WINDOW = Window(max_inflight=3, max_inflight_bytes=2000, max_queued=5, max_queued_bytes=1000)


def session(window: Window = WINDOW) -> Session:
    one = Session("c", False, window, ANONYMOUS)
    assert one.attach(False) == []
    return one


def delivery(payload: bytes = b"x", qos: int = 1, retain: bool = False) -> Delivery:
    return Delivery(Message("t", payload, qos), qos, retain)


def decoded(packets: list[bytes]) -> list[Packet]:
    decoder = Decoder()
    decoder.feed(b"".join(packets))
    seen = []
    while (packet := decoder.next()) is not None:
        seen.append(packet)
    return seen


def sent(packet_id: int, payload: bytes = b"x", qos: int = 1, dup: bool = False) -> bytes:
    return encode(Publish("t", payload, qos, False, dup, packet_id))


def test_window_sends_then_queues_then_drops_the_newest() -> None:
    one = session()
    assert [one.offer(delivery(b"%d" % n)) for n in range(9)] == [sent(n + 1, b"%d" % n) for n in range(3)] + [None] * 6
    assert one.is_full()
    assert one.dropped == 1
    assert one.settle(Puback(2)) == ([sent(4, b"3")], None)
    assert [d.message.payload for d in one.queue] == [b"4", b"5", b"6", b"7"]


def test_queue_is_bounded_in_bytes_too() -> None:
    one = Session("c", False, WINDOW, ANONYMOUS)  # offline
    one.offer(delivery(bytes(600)))
    assert not one.has_room()
    one.offer(delivery(bytes(600)))  # the bound is a mark to stop at, not a size to fill exactly
    one.offer(delivery(b""))
    assert (len(one.queue), one.dropped) == (2, 1)
    one.attach(False)
    assert (one.queued_bytes, one.has_room()) == (0, True)


def test_window_is_bounded_in_bytes_too_but_for_what_is_alone_in_it() -> None:
    one = session(Window(20, 100, 20, 10_000))
    large, small = delivery(bytes(300)), delivery(bytes(40))
    assert one.offer(large) == sent(1, bytes(300))
    assert [one.offer(small) for _ in range(3)] == [None] * 3
    assert one.settle(Puback(1)) == ([sent(2, bytes(40)), sent(3, bytes(40))], None)
    assert one.settle(Puback(2)) == ([sent(4, bytes(40))], None)
    assert one.inflight_bytes == 2 * small.message.size


def test_what_would_fit_waits_behind_what_does_not() -> None:
    one = session(Window(20, 100, 20, 10_000))
    assert one.offer(delivery(bytes(60))) == sent(1, bytes(60))
    assert one.offer(delivery(bytes(60))) is None
    assert one.offer(delivery(b"new")) is None
    assert one.settle(Puback(1)) == ([sent(2, bytes(60)), sent(3, b"new")], None)


def test_allowance_lets_retained_messages_exceed_the_queue() -> None:
    one = Session("c", False, WINDOW, ANONYMOUS)
    for _ in range(20):
        one.offer(delivery(bytes(400), retain=True), allowance=10)
    assert (len(one.queue), one.dropped) == (15, 5)


def test_reconnect_repeats_what_is_in_flight_in_its_state_and_order_and_then_goes_on() -> None:
    one = session()
    for n, qos in enumerate((2, 1, 2, 1)):
        one.offer(delivery(b"%d" % n, qos))
    one.settle(Pubrec(1))
    one.settle(Puback(2))
    one.detach()
    assert one.offer(delivery(b"offline")) is None
    assert one.attach(False) == [encode(Pubrel(1)), sent(3, b"2", 2, dup=True), sent(4, b"3", dup=True)]
    assert one.settle(Pubcomp(1)) == ([sent(5, b"offline")], None)


def test_choked_session_keeps_messages_until_it_is_read_again() -> None:
    one = session()
    one.choke()
    assert one.offer(delivery()) is None
    assert one.unchoke() == [sent(1)]
    one.choke()
    one.offer(delivery())
    one.detach()
    assert one.unchoke() == []
    assert len(one.queue) == 1


@pytest.mark.parametrize(
    ("qos", "answer", "reply"),
    [
        (1, Pubrec(1), []),
        (1, Pubcomp(1), []),
        (2, Puback(1), []),
        (2, Pubcomp(1), []),  # before PUBREC
        (1, Puback(9), []),
        (2, Pubrec(9), [encode(Pubrel(9))]),
    ],
)
def test_answer_that_does_not_fit_changes_nothing(qos: int, answer: Puback, reply: list[bytes]) -> None:
    one = session()
    one.offer(delivery(qos=qos))
    assert one.settle(answer) == (reply, None)
    assert list(one.inflight) == [1]
    assert not one.inflight[1].released


def test_qos_2_frees_its_publisher_at_pubcomp() -> None:
    publisher, one = Session("p", True, WINDOW, ANONYMOUS), session()
    owed = publisher.owe(1, 2, True)
    one.offer(Delivery(Message("t", b"", 2), 2, owed=owed))
    assert one.settle(Pubrec(1)) == ([encode(Pubrel(1))], None)
    assert one.settle(Pubcomp(1)) == ([], owed)


def test_packet_ids_wrap_and_skip_those_in_flight() -> None:
    one = session()
    one.offer(delivery(b"stays"))
    for _ in range(65534):
        one.offer(delivery())
        one.settle(Puback(max(one.inflight)))
    assert one.offer(delivery()) == sent(2)


def test_acknowledgements_are_paid_in_the_order_of_the_publications() -> None:
    one = session()
    first, _, third = one.owe(7, 1, True), one.owe(8, 2, False), one.owe(9, 1, True)
    assert one.pay() == []
    third.waiting = False
    assert one.pay() == []
    first.waiting = False
    assert one.pay() == [encode(Puback(7)), encode(Pubrec(8)), encode(Puback(9))]
    assert one.owed == {}


def test_id_used_anew_takes_its_new_place() -> None:
    one = session()
    one.owe(1, 1, True)
    one.owe(2, 1, False)
    one.owe(1, 1, False)
    assert one.pay() == [encode(Puback(2)), encode(Puback(1))]


def test_whoever_left_is_paid_nothing() -> None:
    one = session()
    owed = one.owe(1, 1, True)
    one.detach()
    owed.waiting = False
    assert one.pay() == []
    assert one.owed == {}


STEPS: dict[str, Callable[[Session], object]] = {
    "choke": lambda one: one.choke(),
    "unchoke": lambda one: one.unchoke(),
    "detach": lambda one: one.detach(),
}


@given(st.lists(st.sampled_from(["offer", "offer", "answer", "reattach", *STEPS]), max_size=60), st.integers(0, 2**32))
def test_every_accepted_message_arrives_in_order_whatever_the_connection_does(steps: list[str], seed: int) -> None:
    one = session(Window(2, 10_000, 4, 10_000))
    accepted: list[bytes] = []
    arrived: list[bytes] = []
    peer: dict[int, Publish | Pubrel] = {}  # what the client has and has not answered

    def hear(packets: list[bytes]) -> None:
        for packet in decoded(packets):
            assert isinstance(packet, Publish | Pubrel)
            peer[packet.packet_id] = packet
            if isinstance(packet, Publish) and not packet.dup:
                arrived.append(packet.payload)

    for number, step in enumerate(steps):
        if step == "offer":
            dropped = one.dropped
            data = one.offer(delivery(b"%d" % number, 1 + (seed >> number % 32 & 1)))
            hear([data] if data is not None else [])
            if one.dropped == dropped:
                accepted.append(b"%d" % number)
        elif step == "answer":
            if peer and one.attached:
                packet_id, packet = next(iter(peer.items()))
                del peer[packet_id]
                answer: Puback | Pubrec | Pubcomp
                if isinstance(packet, Pubrel):
                    answer = Pubcomp(packet_id)
                else:
                    answer = Puback(packet_id) if packet.qos == 1 else Pubrec(packet_id)
                hear(one.settle(answer)[0])
        elif step == "reattach":
            if not one.attached:
                peer.clear()
                hear(one.attach(False))
        else:
            out = STEPS[step](one)
            hear(out if isinstance(out, list) else [])
        assert len(one.inflight) <= 2
        assert len(one.queue) <= 4
        assert one.queued_bytes == sum(d.message.size for d in one.queue)
        assert arrived == accepted[: len(arrived)]
    if not one.attached:
        peer.clear()
        hear(one.attach(False))
    hear(one.unchoke())
    while peer:
        packet_id, packet = next(iter(peer.items()))
        del peer[packet_id]
        if isinstance(packet, Pubrel):
            hear(one.settle(Pubcomp(packet_id))[0])
        else:
            hear(one.settle(Puback(packet_id) if packet.qos == 1 else Pubrec(packet_id))[0])
    assert arrived == accepted
    assert not one.inflight
