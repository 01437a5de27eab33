"""Bodies made small, and rubbish to a typed error."""

import base64
import hashlib
import json
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.objects import canonical
from link.packing import (
    DICTIONARY,
    REACH,
    TRIED_BYTES,
    Unpackable,
    differing,
    pack,
    pack_against,
    repeats,
    unpack,
    unpack_against,
)
from tests.harness.pods import deployed_pod

NOISE = random.Random(5).randbytes(REACH + 5000)
LARGE = TRIED_BYTES + 40_000


def base64_of_noise(size: int, seed: int = 1) -> bytes:
    return base64.b64encode(random.Random(seed).randbytes(size))[:size]


def records(size: int, noise: int = 0) -> bytes:
    """JSON as programs write it, with so much base64 in each record."""
    rng, made = random.Random(2), bytearray()
    while len(made) < size:
        made += b'{"id":%d,"name":"sensor-%d","limit":%d,"unit":"celsius","content":"%s"},' % (
            len(made),
            rng.randrange(10**6),
            rng.randrange(100),
            base64_of_noise(noise, len(made)),
        )
    return bytes(made[:size])


@given(st.binary(max_size=2000), st.just(DICTIONARY) | st.binary(max_size=200))
def test_what_is_packed_unpacks_to_the_same(body: bytes, dictionary: bytes) -> None:
    assert unpack(pack(body, dictionary), len(body), dictionary) == body


@pytest.mark.parametrize("size", [1, 10_000, 16_384, 40_000, 3 << 20])
def test_any_size_survives_also_beyond_the_small_window(size: int) -> None:
    body = random.Random(size).randbytes(size)
    assert unpack(pack(body), size) == body


@pytest.mark.parametrize("size", [100, 8_000, 16_384, 30_000])
def test_an_old_body_is_found_wherever_the_windows_reach(size: int) -> None:
    """Noise, so that what is found is found in the dictionary."""
    old = random.Random(size).randbytes(size)
    assert len(pack(old + b"!", old)) < 50 + size / 50


@given(st.lists(st.sampled_from([b"", b"a", b"ab", NOISE, NOISE[:REACH], b"x" * 40_000]), max_size=4).map(b"".join))
def test_what_is_packed_against_a_body_of_any_size_unpacks_to_the_same(body: bytes) -> None:
    for held in (b"", b"a", NOISE[:REACH], NOISE, b"a" + NOISE, NOISE + NOISE, b"x" * 50_000):
        assert unpack_against(pack_against(body, held), len(body), held) == body


@pytest.mark.parametrize("size", [100, REACH, REACH + 1, 33_000, 100_000, 3 << 20])
def test_a_change_costs_the_same_in_a_body_of_any_size(size: int) -> None:
    old = random.Random(size).randbytes(size)
    for new in (b"!" + old, old + b"!", old[: size // 2] + b"!" + old[size // 2 :], old[:-9], old[9:]):
        assert len(pack_against(new, old)) < (100 if size > REACH else 50 + size / 50)


@given(st.binary(max_size=40), st.integers(0, 100_000))
def test_rubbish_against_a_large_body_is_unpackable(data: bytes, size: int) -> None:
    with pytest.raises(Unpackable):
        unpack_against(data, size, NOISE)


def test_a_difference_of_another_length_or_to_another_body_is_unpackable() -> None:
    data, size = pack_against(NOISE + b"!", NOISE), len(NOISE) + 1
    for wrong, length, held in (
        (data, size - 1, NOISE),
        (data, size + 1, NOISE),
        (data + b"x", size, NOISE),
        (data[:7], size, NOISE),
        (b"\xff" * 8 + data[8:], size, NOISE),
        (data, size, NOISE[::-1]),
    ):
        with pytest.raises(Unpackable):
            unpack_against(wrong, length, held)


def test_a_pod_of_4_kb_takes_a_quarter_of_its_bytes() -> None:
    rng = random.Random(3)
    bodies = [canonical(deployed_pod(number, "edge-1", rng)) for number in range(20)]
    assert min(map(len, bodies)) > 4000
    assert sum(len(pack(body)) for body in bodies) < sum(map(len, bodies)) / 4
    assert sum(len(pack(body)) for body in bodies) < 0.6 * sum(len(zlib.compress(body)) for body in bodies)


def test_a_small_object_gains_too() -> None:
    body = canonical({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}})
    assert len(pack(body)) < 0.6 * len(body)
    assert len(zlib.compress(body)) > 0.9 * len(body), "which is what the dictionary is for"


@pytest.mark.parametrize(
    ("searched", "body"),
    [
        (False, base64_of_noise(LARGE)),
        (False, b"\\n".join(base64_of_noise(76, line) for line in range(LARGE // 78))),
        (False, random.Random(1).randbytes(LARGE // 2).hex().encode()),
        (False, base64.b85encode(random.Random(1).randbytes(LARGE))),
        (False, random.Random(1).randbytes(LARGE)),
        (True, base64_of_noise(TRIED_BYTES)),
        (True, records(LARGE)),
        (True, records(LARGE, 1000)),
        (True, base64.b64encode(records(LARGE))),
        (True, base64_of_noise(25_000) * 12),
        (True, records(LARGE // 2) + base64_of_noise(LARGE // 2)),
        (True, base64_of_noise(LARGE) + records(LARGE // 8)),
        (True, bytes(LARGE)),
    ],
    ids=[
        *("base64", "base64 in lines", "hexadecimal", "base85", "noise"),
        *("not large", "JSON", "JSON with base64", "base64 of JSON", "the same again", "half", "an eighth", "zeros"),
    ],
)
def test_a_large_body_is_searched_only_where_something_repeats(searched: bool, body: bytes) -> None:
    assert repeats(body) is searched
    data, before = pack(body), pack(body, searching=True)
    assert data[1] >> 6 == (2 if searched else 0), "FLEVEL (RFC 1950): the default algorithm, or the fastest"
    assert len(data) <= 1.001 * len(before)
    assert zlib.decompressobj(zdict=DICTIONARY).decompress(data) == body, "whoever reads it need not know"


def test_where_a_little_that_repeats_is_missed_the_body_gets_a_little_larger() -> None:
    rng, kinds, larger = random.Random(3), (records(LARGE), base64.b64encode(records(LARGE))), []
    for _ in range(12):
        body, share = bytearray(), rng.random() / 20
        while len(body) < LARGE:
            start, size = rng.randrange(LARGE), rng.randrange(1_000, 20_000)
            repeated = rng.random() < share
            body += rng.choice(kinds)[start : start + size] if repeated else base64_of_noise(size, len(body))
        if not repeats(bytes(body)):
            data = pack(bytes(body))
            assert unpack(data, len(body)) == body
            larger.append(len(data) / len(pack(bytes(body), searching=True)))
    assert len(larger) > 3
    assert 1.001 < max(larger) < 1.05, "something was missed, or this says nothing"
    assert sum(larger) < 1.02 * len(larger)


def test_what_the_other_side_holds_counts_as_what_repeats() -> None:
    held, new = base64_of_noise(REACH), base64_of_noise(LARGE, 2)
    assert not repeats(held + new, DICTIONARY)
    assert repeats(held + new, held)
    assert len(pack_against(held + new, held)) < 0.95 * len(differing(held + new, held).packed(searching=False))


def test_of_what_is_new_in_a_large_body_only_that_is_tried() -> None:
    old = records(LARGE) + base64_of_noise(LARGE)
    new = records(LARGE) + base64_of_noise(LARGE, 2)
    difference = differing(new, old)
    assert repeats(new)
    assert not repeats(difference.rest, difference.dictionary)
    data = difference.packed()
    assert data == difference.packed(searching=False)
    assert len(data) < len(difference.packed(searching=True))
    assert unpack_against(data, len(new), old) == new


def test_it_is_plain_zlib() -> None:
    """A peer in another language needs RFC 1950 and the dictionary, which docs/protocol.md names, and nothing else."""
    old, new = b'{"a":"' + b"x" * 300 + b'"}', b'{"a":"' + b"x" * 300 + b'y"}'
    unpacker = zlib.decompressobj(zdict=old)
    assert json.loads(unpacker.decompress(pack(new, old)))["a"].endswith("xy")


def test_the_dictionary_is_that_of_the_protocol() -> None:
    """A change here is a change of protocol: the number in link/frames.py must change with it, and docs/protocol.md."""
    assert len(DICTIONARY) == 9408
    assert hashlib.sha256(DICTIONARY).hexdigest() == "3cdc2d2c6f4d6130e0bd45d5a9d1fd6d8a2d0660beec0465ef9e5673344c610b"


def test_another_dictionary_is_noticed() -> None:
    with pytest.raises(Unpackable, match="cannot be unpacked"):
        unpack(pack(b"{}", DICTIONARY + b"x"), 2)
    with pytest.raises(Unpackable):
        unpack(zlib.compress(b"{}")[:-1], 2)


@given(st.binary(max_size=100), st.integers(0, 1000))
def test_rubbish_is_unpackable(data: bytes, size: int) -> None:
    with pytest.raises(Unpackable):
        unpack(data, size)


def test_a_stream_of_another_length_is_unpackable() -> None:
    data = pack(b"x" * 1000)
    for wrong, size in ((data, 999), (data, 1001), (data, 0), (data[:-1], 1000), (data + b"x", 1000)):
        with pytest.raises(Unpackable, match=f"to {size} bytes"):
            unpack(wrong, size)
