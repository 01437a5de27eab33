"""Sealed values open with their key, in their place, as they were; and with nothing else."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from componentbase.sealing import (
    HEAD_BYTES,
    OVERHEAD_BYTES,
    BadKeys,
    Keyring,
    SealingError,
    Tampered,
    UnknownKey,
    is_sealed,
    key_lines,
    new_key,
    parse_keys,
)

OLD, NEW = b"o" * 32, b"n" * 32


@given(st.binary(max_size=300), st.lists(st.text(max_size=20), max_size=3))
def test_what_was_sealed_opens_in_its_place(value: bytes, words: list[str]) -> None:
    keys = Keyring([NEW])
    sealed = keys.seal(value, *words)
    assert keys.open(sealed, *words) == value
    assert len(sealed) == len(value) + OVERHEAD_BYTES
    assert is_sealed(sealed)


@given(st.lists(st.text(max_size=5), max_size=3), st.lists(st.text(max_size=5), max_size=3))
def test_other_words_do_not_open_it_however_they_are_cut(words: list[str], others: list[str]) -> None:
    keys = Keyring([NEW])
    sealed = keys.seal(b"value", *words)
    if words != others:
        with pytest.raises(Tampered):
            keys.open(sealed, *others)


def test_any_changed_byte_is_noticed() -> None:
    keys = Keyring([NEW])
    sealed = keys.seal(b"value", "here")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(SealingError):
            keys.open(bytes(changed), "here")
    for length in range(len(sealed)):
        with pytest.raises(Tampered):
            keys.open(sealed[:length], "here")


def test_no_two_sealings_are_alike() -> None:
    keys = Keyring([NEW])
    drawn = {keys.seal(b"")[HEAD_BYTES : HEAD_BYTES + 32] for _ in range(2000)}
    assert len(drawn) == 2000


def test_the_first_key_seals_and_the_others_open() -> None:
    former = Keyring([OLD]).seal(b"value")
    keys = Keyring([NEW, OLD])
    assert keys.open(former) == b"value"
    assert keys.knows(former)
    assert not keys.is_current(former)
    assert keys.is_current(keys.seal(b"value"))
    with pytest.raises(UnknownKey) as caught:
        Keyring([NEW]).open(former)
    assert OLD.hex() not in str(caught.value)
    assert not Keyring([NEW]).knows(former)


def test_keys_are_lines_of_text_and_bad_ones_are_told_without_being_shown() -> None:
    first, second = new_key(), new_key()
    text = f"# a remark\n\n{first}\n  {second} \n"
    assert key_lines(text) == [first, second]
    sealed = parse_keys(first).seal(b"value")
    assert parse_keys(text).is_current(sealed)
    for bad, words in (
        ("", "0 keys"),
        ("\n".join([first] * 9), "9 keys"),
        (f"{first}\nhunter2", "key 2 is not 32 bytes"),
        (first[:-6], "key 1 is not 32 bytes"),
        ("ü" * 44, "key 1 is not 32 bytes"),
    ):
        with pytest.raises(BadKeys, match=words) as caught:
            parse_keys(bad)
        assert "hunter2" not in str(caught.value)
    assert first not in repr(parse_keys(first)) + repr(vars(parse_keys(first)).keys())


GOLDEN = (
    "01b0a33fbc694faa77b9f17ee62062e9cbd9dfef685e5b8c3fba20ea25417cebc11d5e5c0d557b8135d77ffac1e48426"
    "6986e4540a4d2456b20397162e57dfdd"
)


def test_a_value_sealed_by_an_earlier_release_still_opens() -> None:
    """Sealed once by this code; the form on disk may not change without another first byte."""
    sealed = bytes.fromhex(GOLDEN)
    assert Keyring([NEW]).open(sealed, "objects", "a/b") == b"a value"


def test_cryptography_is_imported_by_the_first_value_and_not_before() -> None:
    code = (
        "import sys; from componentbase.sealing import Keyring; keys = Keyring([bytes(32)]); "
        "print('cryptography' in sys.modules); keys.seal(b''); print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
