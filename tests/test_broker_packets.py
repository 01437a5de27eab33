"""The MQTT codec: golden bytes both ways, every refusal, and no input that breaks it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicetwin.broker.packets import (
    MAX_REMAINING_LENGTH,
    Connack,
    Connect,
    Decoder,
    Disconnect,
    MalformedPacket,
    Packet,
    PacketTooLarge,
    Pingreq,
    Pingresp,
    ProtocolError,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    UnsupportedVersion,
    Will,
    encode,
)

GOLDEN: list[tuple[str, Packet]] = [
    ("10 0d 0004 4d515454 04 02 003c 0001 63", Connect("c", True, 60)),
    ("10 0c 0004 4d515454 04 00 0000 0000", Connect("", False, 0)),
    ("10 0f 0006 4d5149736470 03 02 000a 0001 63", Connect("c", True, 10, level=3)),
    (
        "10 1e 0004 4d515454 04 f4 ffff 0002 6964 0003 772f31 0003 00ff01 0001 75 0001 00",
        Connect("id", False, 65535, Will("w/1", b"\x00\xff\x01", 2, True), "u", b"\x00"),
    ),
    ("10 11 0004 4d515454 04 0e 0001 0000 0001 77 0000", Connect("", True, 1, Will("w", b"", 1, False))),
    ("20 02 00 00", Connack(False, 0)),
    ("20 02 01 00", Connack(True, 0)),
    ("20 02 00 05", Connack(False, 5)),
    ("30 05 0001 74 6869", Publish("t", b"hi")),
    ("31 03 0001 74", Publish("t", b"", 0, True)),
    ("3a 06 0001 74 000a 00", Publish("t", b"\x00", 1, False, True, 10)),
    ("35 07 0001 74 ffff 6869", Publish("t", b"hi", 2, True, False, 65535)),
    ("30 0b 0009 247261756d2fe6b8a9", Publish("$raum/温", b"")),
    ("40 02 0001", Puback(1)),
    ("50 02 0100", Pubrec(256)),
    ("62 02 ffff", Pubrel(65535)),
    ("70 02 0001", Pubcomp(1)),
    ("82 0c 0007 0001 23 00 0003 612f2b 02", Subscribe(7, (("#", 0), ("a/+", 2)))),
    ("90 05 0007 00 02 80", Suback(7, (0, 2, 0x80))),
    ("a2 08 0007 0001 61 0001 62", Unsubscribe(7, ("a", "b"))),
    ("b0 02 0007", Unsuback(7)),
    ("c0 00", Pingreq()),
    ("d0 00", Pingresp()),
    ("e0 00", Disconnect()),
]


def decode_all(data: bytes, limit: int = MAX_REMAINING_LENGTH, cuts: tuple[int, ...] = ()) -> list[object]:
    """Packets with their types, and at the end the type and text of the error, if there is one."""
    decoder = Decoder(limit)
    seen: list[object] = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        decoder.feed(data[start:end])
        try:
            while (packet := decoder.next()) is not None:
                seen.append((type(packet), packet))
        except ProtocolError as exc:
            return [*seen, (type(exc), str(exc))]
    return seen


@pytest.mark.parametrize(("data", "packet"), GOLDEN, ids=[data[:8] for data, _ in GOLDEN])
def test_golden_bytes_both_ways(data: str, packet: Packet) -> None:
    raw = bytes.fromhex(data)
    assert encode(packet) == raw
    assert decode_all(raw) == [(type(packet), packet)]


@pytest.mark.parametrize(
    ("length", "head"),
    [(127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"), (2_097_151, "ffff7f"), (2_097_152, "80808001")],
)
def test_remaining_length_at_its_borders(length: int, head: str) -> None:
    packet = Publish("t", bytes(length - 3))
    raw = encode(packet)
    assert raw[1 : 1 + len(head) // 2].hex() == head
    assert decode_all(raw) == [(Publish, packet)]


BAD = {
    "type 0": "00 00",
    "type 15": "f0 00",
    "five length bytes": "30 ffffffff",
    "PUBLISH empty": "30 00",
    "PUBLISH half a length": "30 01 00",
    "PUBLISH topic too long": "30 03 0002 74",
    "PUBLISH topic empty": "30 02 0000",
    "PUBLISH wildcard +": "30 03 0001 2b",
    "PUBLISH wildcard #": "30 05 0003 612f23",
    "PUBLISH NUL": "30 03 0001 00",
    "PUBLISH overlong UTF-8": "30 04 0002 c080",
    "PUBLISH surrogate": "30 05 0003 eda080",
    "PUBLISH non-character": "30 05 0003 efbfbf",
    "PUBLISH QoS 3": "36 05 0001 74 0001",
    "PUBLISH packet id 0": "32 05 0001 74 0000",
    "PUBLISH without packet id": "32 03 0001 74",
    "PUBACK id 0": "40 02 0000",
    "PUBACK short": "40 01 00",
    "PUBACK long": "40 03 000100",
    "PUBACK flags": "41 02 0001",
    "PUBREL flags": "60 02 0001",
    "PINGREQ body": "c0 01 00",
    "PINGREQ flags": "c1 00",
    "DISCONNECT body": "e0 01 00",
    "SUBSCRIBE flags": "80 06 0001 0001 61 00",
    "SUBSCRIBE no filter": "82 02 0001",
    "SUBSCRIBE no QoS": "82 05 0001 0001 61",
    "SUBSCRIBE QoS 3": "82 06 0001 0001 61 03",
    "SUBSCRIBE id 0": "82 06 0000 0001 61 00",
    "SUBSCRIBE no id": "82 00",
    "SUBSCRIBE bad filter": "82 07 0001 0002 6123 00",
    "UNSUBSCRIBE no filter": "a2 02 0001",
    "UNSUBSCRIBE flags": "a0 05 0001 0001 61",
    "SUBACK code 3": "90 03 0001 03",
    "SUBACK no code": "90 02 0001",
    "CONNACK flags": "20 02 02 00",
    "CONNACK long": "20 03 00 00 00",
    "CONNECT empty": "10 00",
    "CONNECT flags of the header": "11 0c 0004 4d515454 04 00 0000 0000",
    "CONNECT no level": "10 06 0004 4d515454",
    "CONNECT no keepalive": "10 08 0004 4d515454 04 02",
    "CONNECT reserved flag": "10 0c 0004 4d515454 04 03 0000 0000",
    "CONNECT will QoS without will": "10 0c 0004 4d515454 04 0a 0000 0000",
    "CONNECT will retain without will": "10 0c 0004 4d515454 04 22 0000 0000",
    "CONNECT will QoS 3": "10 11 0004 4d515454 04 1e 0000 0000 0001 77 0000",
    "CONNECT will to a wildcard": "10 11 0004 4d515454 04 06 0000 0000 0001 23 0000",
    "CONNECT password alone": "10 0e 0004 4d515454 04 42 0000 0000 0000",
    "CONNECT too long": "10 0d 0004 4d515454 04 02 0000 0000 00",
    "CONNECT password missing": "10 0f 0004 4d515454 04 c2 0000 0000 0001 75",
    "CONNECT client id not UTF-8": "10 0d 0004 4d515454 04 02 0000 0001 ff",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_malformed_packet_is_refused(data: str) -> None:
    decoder = Decoder()
    decoder.feed(bytes.fromhex(data))
    for _ in range(2):  # it stays refused
        with pytest.raises(MalformedPacket):
            decoder.next()


@pytest.mark.parametrize(
    ("data", "answerable"),
    [
        ("10 0c 0004 4d515454 05 02 0000 0000", True),
        ("10 09 0006 4d5149736470 04", True),
        ("10 0c 0004 48545450 04 02 0000 0000", False),
    ],
)
def test_other_version_is_told_apart_from_another_protocol(data: str, answerable: bool) -> None:
    decoder = Decoder()
    decoder.feed(bytes.fromhex(data))
    with pytest.raises(UnsupportedVersion) as caught:
        decoder.next()
    assert caught.value.answerable is answerable


def test_length_beyond_the_limit_is_refused_before_the_body_comes() -> None:
    decoder = Decoder(100)
    decoder.feed(b"\x30\x65")
    with pytest.raises(PacketTooLarge) as caught:
        decoder.next()
    assert (caught.value.announced, caught.value.limit) == (101, 100)
    exact = Publish("t", bytes(97))
    assert decode_all(encode(exact), limit=100) == [(Publish, exact)]


def test_encode_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="65535"):
        encode(Publish("t" * 65536, b""))
    with pytest.raises(ValueError, match=str(MAX_REMAINING_LENGTH)):
        encode(Publish("t", bytes(MAX_REMAINING_LENGTH)))


# -- for any input ----------------------------------------------------------------------------------------------------

_level = st.text(
    st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs"), exclude_characters="+#/"), max_size=8
)
_topic = st.lists(_level, min_size=1, max_size=5).map("/".join).filter(bool)
_filter = st.builds(
    lambda levels, end: "/".join([*levels, *end]),
    st.lists(_level | st.just("+"), max_size=4),
    st.sampled_from([("#",), ("+",), ("end",)]),
)
_id = st.integers(1, 65535)
_name = st.text(st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs")), max_size=12)
_will = st.builds(Will, _topic, st.binary(max_size=20), st.integers(0, 2), st.booleans())


def _connects() -> st.SearchStrategy[Connect]:
    plain = st.builds(
        Connect,
        _name,
        st.booleans(),
        st.integers(0, 65535),
        st.none() | _will,
        _name,
        st.none() | st.binary(max_size=9),
        st.sampled_from([3, 4]),
    )
    return plain | plain.map(lambda packet: packet._replace(username=None, password=None))


_packets: st.SearchStrategy[Packet] = st.one_of(
    _connects(),
    st.builds(Connack, st.booleans(), st.integers(0, 5)),
    st.builds(Publish, _topic, st.binary(max_size=300), st.just(0), st.booleans(), st.booleans(), st.just(0)),
    st.builds(Publish, _topic, st.binary(max_size=300), st.integers(1, 2), st.booleans(), st.booleans(), _id),
    st.builds(Puback, _id),
    st.builds(Pubrec, _id),
    st.builds(Pubrel, _id),
    st.builds(Pubcomp, _id),
    st.builds(Subscribe, _id, st.lists(st.tuples(_filter, st.integers(0, 2)), min_size=1, max_size=4).map(tuple)),
    st.builds(Suback, _id, st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1, max_size=4).map(tuple)),
    st.builds(Unsubscribe, _id, st.lists(_filter, min_size=1, max_size=4).map(tuple)),
    st.builds(Unsuback, _id),
    st.sampled_from([Pingreq(), Pingresp(), Disconnect()]),
)


@given(st.lists(_packets, max_size=5), st.lists(st.integers(0, 10_000), max_size=6).map(tuple))
def test_what_was_encoded_is_decoded_however_it_is_cut(packets: list[Packet], cuts: tuple[int, ...]) -> None:
    raw = b"".join(map(encode, packets))
    assert decode_all(raw, cuts=cuts) == [(type(packet), packet) for packet in packets]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6).map(tuple))
def test_arbitrary_bytes_raise_nothing_but_the_typed_error(data: bytes, cuts: tuple[int, ...]) -> None:
    assert decode_all(data, 100, cuts) == decode_all(data, 100)


@given(st.data(), st.lists(_packets, min_size=1, max_size=3))
def test_flipped_bytes_raise_nothing_but_the_typed_error(data: st.DataObject, packets: list[Packet]) -> None:
    raw = bytearray(b"".join(map(encode, packets)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cuts = tuple(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    assert decode_all(bytes(raw), 1000, cuts) == decode_all(bytes(raw), 1000)
