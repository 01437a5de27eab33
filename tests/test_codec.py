"""Frames to bytes and back, and rubbish to a typed error."""

import contextlib
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.resources import CONFIG_MAPS, PODS
from link.codec import (
    MAX_BODY_BYTES,
    MAX_ELEMENTS,
    MAX_ENTRIES,
    MAX_FRAME_BYTES,
    MAX_NESTING,
    MAX_REPORT_BYTES,
    MAX_TEXT_BYTES,
    MAX_UNPACKED_BYTES,
    decode,
    decode_delta,
    encode,
    encode_delta,
)
from link.errors import LocalProtocolError, RemoteProtocolError
from link.frames import (
    CHUNK_BYTES,
    MAX_HORIZON,
    MAX_INTERESTS,
    MAX_REPORT_ENTRIES,
    MAX_TARGET_BYTES,
    MAX_TERM,
    MAX_TRANSFER_BYTES,
    MAX_VERSION,
    MAX_WARNINGS,
    REPORT_WINDOW_ENTRIES,
    Ack,
    Answer,
    AnswerHead,
    Call,
    CallHead,
    Cancel,
    Check,
    Cursor,
    Delta,
    Frame,
    Goodbye,
    GoodbyeCode,
    Granted,
    Held,
    Hello,
    Interest,
    Inventory,
    Nack,
    Part,
    Ping,
    Pong,
    Position,
    Push,
    Refusal,
    RefusedEntry,
    RefusedInterest,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Taken,
    Traffic,
    Wanted,
    Welcome,
)

KEY = ObjectKey(CONFIG_MAPS, "default", "a")
VERSION = ObjectVersion("u", "r1")
INTEREST = Interest(PODS, "default", "a", "system:serviceaccount:default:x")
HEAD = CallHead("PUT", "/api/v1/pods?x=%C3%A4", "u", "application/json", "a", "r1", "kubectl/v1.33")

# Golden bytes: a peer of another release must read these, so a change here is a change of protocol.
GOLDEN: list[tuple[Frame, str]] = [
    (
        Hello(1, "edge-1", Cursor("e", 7), b"\x01\x02", "fairlead/0.1", 5, (Position("pods", 300),)),
        "9b0101a6656467652d3192a16507c4020102ac666169726c6561642f302e31059192a4706f6473cd012c9090c2",
    ),
    (Hello(1, "edge-1", None, b"", "", 1, superseded=True), "9b0101a6656467652d31c0c400a001909090c3"),
    (Welcome("e", 7, True, 20.0), "9502a16507c3cb4034000000000000"),
    (
        Inventory((Held(KEY, VERSION),), True),
        "94039195a0a27631aa636f6e6669676d617073a9436f6e6669674d6170c3919500a764656661756c74a161a175a27231c3",
    ),
    (
        Push(8, (Delta(KEY, VERSION, b"{}"),), False),
        "950408c291c42f9ba0a27631aa636f6e6669676d617073a9436f6e6669674d6170c3a764656661756c74a16101a175a27231c4027b7d90",
    ),
    (
        Push(8, (Delta(KEY, VERSION, b"zz", "r0", 300),), False),
        "950408c291c4359da0a27631aa636f6e6669676d617073a9436f6e6669674d6170c3a764656661756c74a16102a175a27231a27230cd012cc4027a7a90",
    ),
    (
        Push(8, (Delta(KEY, VERSION, b"zz", "", 300),), False),
        "950408c291c4329ca0a27631aa636f6e6669676d617073a9436f6e6669674d6170c3a764656661756c74a16103a175a27231cd012cc4027a7a90",
    ),
    (
        Push(9, (Delta(KEY, None, b""),), True),
        "950409c391c42698a0a27631aa636f6e6669676d617073a9436f6e6669674d6170c3a764656661756c74a1610090",
    ),
    (Push(9, (), True, (Position("pods", 300),)), "950409c3909192a4706f6473cd012c"),
    (Ack(9), "920509"),
    (
        Nack(9, (Refusal(KEY, "no"),)),
        "9406099195a0a27631aa636f6e6669676d617073a9436f6e6669674d6170c3919500a764656661756c74a161a26e6fc2",
    ),
    (
        Report(1, (ReportEntry(KEY, "state", b"1"),)),
        "9407019195a0a27631aa636f6e6669676d617073a9436f6e6669674d6170c3919500a764656661756c74a161a57374617465c40131",
    ),
    (
        Report(7, (ReportEntry(KEY, "state", b"1"),), Traffic.DEVICES),
        "9414079195a0a27631aa636f6e6669676d617073a9436f6e6669674d6170c3919500a764656661756c74a161a57374617465c40131",
    ),
    (ReportAck(Traffic.INFRASTRUCTURE, (Span(1, 3),)), "9508c29192010390" + "90"),
    (ReportAck(Traffic.DEVICES, (), (RefusedEntry(4, "no"),), (Span(5, 5),)), "9508c3909192" + "04a26e6f91920505"),
    (Check(9, b"\x01\x02"), "930c09c4020102"),
    (
        Wanted(2, (INTEREST, Interest(PODS))),
        "940d029195a0a27631a4706f6473a3506f64c3929400a764656661756c74a161bf73797374656d3a736572766963656163636f756e743a64656661756c743a789400a0a0a0",
    ),
    (
        Granted(2, (RefusedInterest(INTEREST, 403, "no"),), (PODS,)),
        "950e029195a0a27631a4706f6473a3506f64c3919600a764656661756c74a161bf73797374656d3a736572766963656163636f756e743a64656661756c743a78cd0193a26e6f9195a0a27631a4706f6473a3506f64c3",
    ),
    (
        Call(7, HEAD, b"{}", False),
        "950f0797a3505554c4152f6170692f76312f706f64733f783d254333254134a175b06170706c69636174696f6e2f6a736f6ea161a27231ad6b75626563746c2f76312e3333c4027b7dc2",
    ),
    (Call(7, None, b"", True), "950f07c0c400c3"),
    (
        Answer(7, AnswerHead(409, "application/json", 1.0, ("old",), "r2"), b"{}", False),
        "95100795cd0199b06170706c69636174696f6e2f6a736f6ecb3ff000000000000091a36f6c64a27232c4027b7dc2",
    ),
    (Answer(7, None, b"", True), "951007c0c400c3"),
    (Taken(3), "921103"),
    (Cancel(7), "921207"),
    (Part(7, 40_000, b"{}"), "941307cd9c40c4027b7d"),
    (Push(9, (), False, (), 7), "950409c20790"),
    (Ping(3), "920903"),
    (Pong(3), "920a03"),
    (Goodbye(GoodbyeCode.STALE, "bye", 1.0, 7), "950ba57374616c65a3627965cb3ff000000000000007"),
]


@pytest.mark.parametrize(
    ("frame", "golden"), GOLDEN, ids=[f"{type(frame).__name__}-{n}" for n, (frame, _) in enumerate(GOLDEN)]
)
def test_golden_bytes_both_ways(frame: Frame, golden: str) -> None:
    assert encode(frame).hex() == golden
    assert decode(bytes.fromhex(golden)) == frame


NAMES = st.text(max_size=20)
FULL_NAMES = st.text(min_size=1, max_size=20)
TERMS = st.integers(1, MAX_TERM)
SEQS = st.integers(0, 2**63 - 1)
KEYS = st.builds(
    ObjectKey, st.builds(Resource, NAMES, FULL_NAMES, FULL_NAMES, FULL_NAMES, st.booleans()), NAMES, FULL_NAMES
)
VERSIONS = st.builds(ObjectVersion, NAMES, FULL_NAMES)
WHOLE = st.builds(Delta, KEYS, VERSIONS, st.binary(max_size=99), st.just(""), st.just(0))
SIZES = st.integers(1, 4000)
PATCHED = st.builds(Delta, KEYS, VERSIONS, st.binary(max_size=99), FULL_NAMES, SIZES)
PACKED = st.builds(Delta, KEYS, VERSIONS, st.binary(max_size=99), st.just(""), SIZES)
REMOVED = st.builds(Delta, KEYS, st.none(), st.just(b""), st.just(""), st.just(0))
DELTAS = WHOLE | PATCHED | PACKED | REMOVED
SECONDS = st.floats(0, 86_400)


def tuples(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(strategy, max_size=3).map(tuple)


HORIZONS = tuples(st.builds(Position, FULL_NAMES, st.integers(0, MAX_VERSION)))
INTERESTS = st.builds(
    Interest, st.builds(Resource, NAMES, FULL_NAMES, FULL_NAMES, FULL_NAMES, st.booleans()), NAMES, NAMES, NAMES
)
CODES = st.integers(400, 599)
METHODS = st.text(min_size=1, max_size=16)
HEADS = st.builds(CallHead, METHODS, NAMES, NAMES, NAMES, NAMES, NAMES, NAMES)
ANSWER_HEADS = st.builds(AnswerHead, st.integers(100, 599), NAMES, SECONDS, tuples(NAMES), NAMES)
TRAFFIC = st.sampled_from(Traffic)
SPANS = st.builds(lambda first, more: Span(first, first + more), st.integers(1, 2**62), st.integers(0, 99))
FRAMES = st.one_of(
    st.builds(Wanted, SEQS, tuples(INTERESTS)),
    st.builds(
        Granted,
        SEQS,
        tuples(st.builds(RefusedInterest, INTERESTS, CODES, NAMES)),
        tuples(st.builds(Resource, NAMES, FULL_NAMES, FULL_NAMES, FULL_NAMES, st.booleans())),
    ),
    st.builds(Call, SEQS, st.none() | HEADS, st.binary(max_size=99), st.booleans()),
    st.builds(Answer, SEQS, st.none() | ANSWER_HEADS, st.binary(max_size=99), st.booleans()),
    st.builds(Taken, SEQS),
    st.builds(Cancel, SEQS),
    st.builds(
        Hello,
        st.integers(0, 65_535),
        FULL_NAMES,
        st.none() | st.builds(Cursor, FULL_NAMES, SEQS),
        st.binary(max_size=64),
        NAMES,
        TERMS,
        HORIZONS,
        tuples(INTERESTS),
    ),
    st.builds(Welcome, FULL_NAMES, SEQS, st.booleans(), SECONDS),
    st.builds(Inventory, tuples(st.builds(Held, KEYS, VERSIONS)), st.booleans()),
    st.builds(Push, SEQS, tuples(DELTAS), st.booleans(), HORIZONS, st.just(0)),
    st.builds(Ack, SEQS),
    st.builds(Part, st.integers(1, 2**63 - 1), st.integers(0, MAX_TRANSFER_BYTES), st.binary(max_size=99)),
    st.builds(Push, SEQS, st.just(()), st.booleans(), HORIZONS, TERMS),
    st.builds(Nack, SEQS, tuples(st.builds(Refusal, KEYS, NAMES, st.booleans()))),
    st.builds(
        Report,
        st.integers(1, 2**63 - 1),
        tuples(st.builds(ReportEntry, KEYS, FULL_NAMES, st.binary(max_size=99))),
        TRAFFIC,
    ),
    st.builds(
        ReportAck, TRAFFIC, tuples(SPANS), tuples(st.builds(RefusedEntry, st.integers(1, 99), NAMES)), tuples(SPANS)
    ),
    st.builds(Check, SEQS, st.binary(max_size=64)),
    st.builds(Ping, SEQS),
    st.builds(Pong, SEQS),
    st.builds(Goodbye, st.sampled_from(GoodbyeCode), NAMES, SECONDS, st.just(0) | TERMS),
)


@given(FRAMES)
def test_decode_inverts_encode(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


@given(DELTAS)
def test_a_delta_by_itself_survives(delta: Delta) -> None:
    assert decode_delta(encode_delta(delta)) == delta


def test_a_horizon_of_more_entries_than_a_frame_may_have_is_refused() -> None:
    position = Position("pods", 1)
    assert decode(encode(Push(1, (), True, (position,) * MAX_HORIZON)))
    with pytest.raises(RemoteProtocolError, match="horizon"):
        decode(encode(Push(1, (), True, (position,) * (MAX_HORIZON + 1))))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_remote_protocol_error(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode(data)


@given(FRAMES, st.data())
def test_a_damaged_frame_is_a_frame_or_a_remote_protocol_error(frame: Frame, data: st.DataObject) -> None:
    encoded = bytearray(encode(frame))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    for damaged in (bytes(encoded), bytes(encoded[:cut])):
        with contextlib.suppress(RemoteProtocolError):
            decode(damaged)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({}, "must be an array"),
        ({"a": 1}, "not a frame"),
        (7, "must be an array"),
        ([], "tag is missing"),
        ([99], "unknown frame 99"),
        ([True], "tag must be an integer"),
        ([5], "seq is missing"),
        ([5, -1], "seq must be an integer"),
        ([5, 2**63], "seq must be an integer"),
        ([5, 1, 1], "1 elements too many"),
        ([1, 1, "", None, b"", ""], "node must be a string"),
        ([1, 1, "n" * 300, None, b"", ""], "node must be a string"),
        ([1, 1, "n", [], b"", ""], "epoch is missing"),
        ([1, 1, "n", None, b"", "", 0, []], "term must be an integer from 1"),
        ([2, "e", 1, True, "soon"], "heartbeat_s must be a number"),
        ([2, "e", 1, 1, 1.0], "inventory must be a boolean"),
        ([4, 1, True, ["x"]], "a delta must be bytes"),
        ([4, 1, True, [b"\xc1"]], "not a delta"),
        ([4, 1, True, [msgpack.packb(["", "v1", "pods", "Pod", True, "", "a", 9])]], "unknown delta encoding 9"),
        (
            [4, 1, True, [msgpack.packb(["", "v1", "pods", "Pod", True, "", "a", 3, "u", "r", 0, b""])]],
            "size must be an integer from 1 to 3145728",
        ),
        (
            [4, 1, True, [msgpack.packb(["", "v1", "pods", "Pod", True, "", "a", 2, "u", "r", "b", 2**30, b""])]],
            "size must be an integer from 1 to 3145728",
        ),
        ([3, [], [[0, "n", "a", "u", "r"]], True], "there is no resource 0"),
        ([11, "nonsense", "", 0], "nonsense"),
        ([13, 1, [], [[0, "", "", ""]]], "there is no resource 0"),
        (
            [14, 1, [["", "v1", "pods", "Pod", True]], [[0, "", "", "", 200, ""]], []],
            "code must be an integer from 400",
        ),
        ([15, 1, ["GET", "/x", "", "", "", "", ""], b"", False], "target must be at most"),
        ([15, 1, ["GET", b"\xff", "", "", "", "", ""], b"", False], "target is no UTF-8"),
        ([15, 1, 7, b"", False], "head must be an array"),
        ([16, 1, [42, "", 0, [], ""], b"", True], "status must be an integer from 100"),
        ([16, 1, [200, "", 0, [7], ""], b"", True], "warnings must be at most"),
    ],
)
def test_what_is_wrong_is_said(value: object, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        decode(msgpack.packb(value))


def test_limits_are_checked_on_both_sides() -> None:
    with pytest.raises(RemoteProtocolError, match="is over"):
        decode(b"\0" * (MAX_FRAME_BYTES + 1))
    with pytest.raises(LocalProtocolError, match="is over"):
        encode(Report(1, tuple(ReportEntry(KEY, str(n), b"x" * MAX_BODY_BYTES) for n in range(2))))
    with pytest.raises(RemoteProtocolError, match="body must be at most"):
        decode(encode(Push(1, (Delta(KEY, VERSION, b"x" * (MAX_BODY_BYTES + 1)),), False)))
    half = MAX_UNPACKED_BYTES // 2
    assert decode(encode(Push(1, (Delta(KEY, VERSION, b"", size=half),) * 2, False)))
    with pytest.raises(RemoteProtocolError, match=f"bodies of {MAX_UNPACKED_BYTES + 1} bytes are over"):
        decode(encode(Push(1, (Delta(KEY, VERSION, b"", size=half), Delta(KEY, VERSION, b"", "r0", half + 1)), False)))
    most = Inventory(tuple(Held(KEY, VERSION) for _ in range(MAX_ENTRIES)), True)
    assert decode(encode(most)) == most
    with pytest.raises(RemoteProtocolError, match="not a frame"):
        decode(encode(Inventory((*most.entries, most.entries[0]), True)))


def test_limits_of_interests_and_calls() -> None:
    most = (Interest(PODS, "n" * 253, "x" * 253, "u" * 600),) * MAX_INTERESTS
    assert decode(encode(Wanted(1, most)))
    refused = tuple(RefusedInterest(interest, 403, "\N{COLLISION SYMBOL}" * MAX_TEXT_BYTES) for interest in most)
    assert decode(encode(Granted(1, refused, (PODS,) * MAX_INTERESTS)))
    for frame in (
        Wanted(1, (*most, most[0])),
        Hello(1, "n", None, b"", "", 1, (), (*most, most[0])),
        Granted(1, (*refused, refused[0]), ()),
    ):
        with pytest.raises(RemoteProtocolError, match="more than 256 interests"):
            decode(encode(frame))
    with pytest.raises(RemoteProtocolError, match="body must be at most"):
        decode(encode(Call(1, None, b"x" * (CHUNK_BYTES + 1), True)))
    with pytest.raises(RemoteProtocolError, match="body must be at most"):
        decode(encode(Part(1, 1, b"x" * (CHUNK_BYTES + 1))))
    with pytest.raises(RemoteProtocolError, match="size must be an integer"):
        decode(encode(Part(1, MAX_TRANSFER_BYTES + 1, b"x")))
    with pytest.raises(RemoteProtocolError, match="target must be at most"):
        decode(encode(Call(1, HEAD._replace(target="x" * (MAX_TARGET_BYTES + 1)), b"", True)))
    many = AnswerHead(200, warnings=("w" * 9999,) * (MAX_WARNINGS + 1), retry_after_s=1e9)
    told = decode(encode(Answer(1, many, b"", True)))
    assert isinstance(told, Answer), "what is too long for an answer is cut short: nobody can be asked to say it again"
    assert told.head is not None
    assert len(told.head.warnings) == MAX_WARNINGS


def test_limits_of_reports() -> None:
    entries = tuple(ReportEntry(KEY, "f" * 500, b"x" * 4096) for _ in range(MAX_REPORT_ENTRIES))
    with pytest.raises(LocalProtocolError, match=f"is over {MAX_REPORT_BYTES}"):
        encode(Report(1, entries))
    for tag in (7, 20):
        with pytest.raises(RemoteProtocolError, match=f"is over {MAX_REPORT_BYTES}"):
            decode(msgpack.packb([tag, b"\0" * MAX_REPORT_BYTES]))
    with pytest.raises(RemoteProtocolError, match="257 entries"):
        decode(encode(Report(1, (ReportEntry(KEY, "f", b""),) * (MAX_REPORT_ENTRIES + 1))))
    most = REPORT_WINDOW_ENTRIES + MAX_REPORT_ENTRIES
    assert decode(encode(ReportAck(Traffic.DEVICES, (Span(1, most),))))
    for many in (
        ReportAck(Traffic.DEVICES, (Span(1, most + 1),)),
        ReportAck(Traffic.DEVICES, (), (), (Span(1, 2**63 - 1),)),
    ):
        with pytest.raises(RemoteProtocolError, match="which is more than there can be"):
            decode(encode(many))
    refused = tuple(RefusedEntry(number, "\N{COLLISION SYMBOL}" * MAX_TEXT_BYTES) for number in range(1, MAX_ENTRIES))
    assert decode(encode(ReportAck(Traffic.DEVICES, (), refused)))


def test_a_length_field_cannot_size_an_allocation() -> None:
    """msgpack's array32 and bin32 headers announce 4 GiB in five bytes."""
    for header in (b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"):
        with pytest.raises(RemoteProtocolError):
            decode(header)
    with pytest.raises(RemoteProtocolError):
        decode(b"\x91" * 100_000)


def test_entries_of_one_kind_name_their_resource_once() -> None:
    entries = tuple(Held(ObjectKey(PODS, "default", f"p{n}"), VERSION) for n in range(100))
    assert encode(Inventory(entries, True)).count(b"Pod") == 1


def test_a_frame_of_empty_arrays_is_refused_before_it_is_made() -> None:
    """Four MiB of them took 256 MiB and seconds."""
    row = b"\xdc\x10\x00" + b"\x90" * 4096
    data = b"\xdc\x03\xe8" + row * 1000
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match=f"more than {MAX_ELEMENTS} elements"):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_nesting_is_bounded_at_the_deepest_that_a_frame_has() -> None:
    answer = Answer(1, AnswerHead(200, "", 0.0, ("w",), ""), b"", True)
    assert decode(encode(answer)) == answer
    with pytest.raises(RemoteProtocolError, match=f"nested deeper than {MAX_NESTING}"):
        decode(msgpack.packb([16, 1, [200, "", 0, [["w"]], ""], b"", True]))
    with pytest.raises(RemoteProtocolError, match="nested deeper than 3"):
        decode(b"\xdc\x10\x00" * 1000)  # 31 MiB of room, for 3,000 bytes


def test_the_largest_frames_have_no_more_elements_than_may_be() -> None:
    held = tuple(Held(ObjectKey(Resource("g", "v", f"p{n}", "K", True), "d", "n"), VERSION) for n in range(MAX_ENTRIES))
    inventory = Inventory(held, True)
    assert decode(encode(inventory)) == inventory


def test_a_delta_with_an_array_in_it_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="not a delta: arrays are nested deeper than 1"):
        decode_delta(msgpack.packb(["", "v1", "pods", "Pod", True, "", ["a"], 0]))
    with pytest.raises(RemoteProtocolError, match="more than 16 elements"):
        decode_delta(msgpack.packb([0] * 17))
