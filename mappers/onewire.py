"""
The text of a 1-wire thermometer in Linux's sysfs, checked. Pure; the driver is mappers/sysfs.py.

    72 01 4b 46 7f ff 0e 10 57 : crc=57 YES
    72 01 4b 46 7f ff 0e 10 57 t=23125

Nine bytes of the sensor's scratchpad, the last one a checksum of the others, and the temperature in
thousandths of a degree Celsius. As the kernel's documentation of w1_therm has it.
"""

import re

POWER_ON_MILLI = 85_000
"""What a DS18B20 holds until its first conversion is finished."""
_POWER_ON_COUNT = 0x0C  # byte 6 of the scratchpad until then; a conversion leaves 0x10 there (DS18B20, in practice)
_CRC_POLYNOMIAL = 0x8C  # x^8 + x^5 + x^4 + 1, reflected: Maxim's application note 27
_BYTES = r"((?:[0-9a-f]{2} ){9})"
_TEXT = re.compile(rf"{_BYTES}: crc=([0-9a-f]{{2}}) (YES|NO)\n{_BYTES}t=(-?[0-9]{{1,6}})\s*")


def celsius(text: str) -> float:
    """The temperature in °C. Raises ValueError with a sentence for what is not to be trusted."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError("w1_slave does not hold two lines of nine bytes with crc= and t=; is it a thermometer?")
    scratchpad = bytes.fromhex(match[1])
    if match[3] != "YES" or crc8(scratchpad) != 0:
        raise ValueError("the checksum is wrong: look at the cable, its length and the pull-up resistor")
    if not any(scratchpad):
        # Its checksum is right: of zeros it is zero.
        raise ValueError("all bytes are zero: the data line is shorted, or the sensor has no power")
    milli = int(match[5])
    if milli == POWER_ON_MILLI and scratchpad[6] == _POWER_ON_COUNT:
        raise ValueError("85 °C is what the sensor holds before it has measured: look at its power supply")
    return milli / 1000


def crc8(octets: bytes) -> int:
    """The 1-wire checksum; zero over octets that end with their own."""
    crc = 0
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC_POLYNOMIAL if crc & 1 else 0)
    return crc
