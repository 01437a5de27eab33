"""Texts of w1_slave, good and bad."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.onewire import celsius, crc8


def text(scratchpad: bytes, milli: int, *, verdict: str = "YES") -> str:
    octets = scratchpad + bytes([crc8(scratchpad)])
    line = octets.hex(" ")
    return f"{line} : crc={octets[-1]:02x} {verdict}\n{line} t={milli}\n"


# As a DS18B20 gives them.
REAL = "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n"
BELOW_ZERO = bytes.fromhex("5eff4b467fff0210")


def test_a_temperature_is_read_in_degrees() -> None:
    assert celsius(REAL) == 23.125
    assert celsius(text(BELOW_ZERO, -10125)) == -10.125


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (REAL.replace("YES", "NO"), "checksum is wrong: look at the cable"),
        (REAL.replace("72 01 4b", "73 01 4b"), "checksum is wrong"),
        (text(bytes(8), 0), "all bytes are zero: the data line is shorted"),
        (text(bytes.fromhex("50054b467fff0c10"), 85000), "85 °C is what the sensor holds before it has measured"),
        ("", "is it a thermometer"),
        (REAL.splitlines()[0], "is it a thermometer"),
        (REAL.replace("t=23125", "t=warm"), "is it a thermometer"),
        ("00" * 5000, "is it a thermometer"),
    ],
)
def test_what_is_not_to_be_trusted_is_told(said: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        celsius(said)


def test_a_boiler_may_really_have_85_degrees() -> None:
    assert celsius(text(bytes.fromhex("50054b467fff1010"), 85000)) == 85.0


def test_the_checksum_is_that_of_the_application_note() -> None:
    assert crc8(bytes.fromhex("021cb801000000")) == 0xA2  # Maxim's application note 27, its example of a ROM code


@given(st.binary(min_size=8, max_size=8), st.integers(0, 71))
def test_no_single_wrong_bit_goes_unnoticed(scratchpad: bytes, bit: int) -> None:
    octets = bytearray(scratchpad + bytes([crc8(scratchpad)]))
    assert crc8(bytes(octets)) == 0
    octets[bit // 8] ^= 1 << bit % 8
    assert crc8(bytes(octets)) != 0
