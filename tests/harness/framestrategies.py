"""Frames of every sort, as Hypothesis draws them: whatever the link may carry, and small."""

from hypothesis import strategies as st

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from link.frames import (
    MAX_TERM,
    MAX_TRANSFER_BYTES,
    MAX_VERSION,
    Ack,
    Answer,
    AnswerHead,
    Call,
    CallHead,
    Cancel,
    Check,
    Cursor,
    Delta,
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

NAMES = st.text(max_size=20)
FULL_NAMES = st.text(min_size=1, max_size=20)
TERMS = st.integers(1, MAX_TERM)
SEQS = st.integers(0, 2**63 - 1)
KEYS = st.builds(
    ObjectKey, st.builds(Resource, NAMES, FULL_NAMES, FULL_NAMES, FULL_NAMES, st.booleans()), NAMES, FULL_NAMES
)
VERSIONS = st.builds(ObjectVersion, NAMES, FULL_NAMES)
WHOLE = st.builds(Delta, KEYS, VERSIONS, st.binary(max_size=99), st.just(""), st.just(0), taken=st.none())
SIZES = st.integers(1, 4000)
PATCHED = st.builds(Delta, KEYS, VERSIONS, st.binary(max_size=99), FULL_NAMES, SIZES, taken=st.none())
PACKED = st.builds(Delta, KEYS, VERSIONS, st.binary(max_size=99), st.just(""), SIZES, taken=st.none())
REMOVED = st.builds(Delta, KEYS, st.none(), st.just(b""), st.just(""), st.just(0), taken=st.none())
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
