"""
The fuzzing loop: mutations of kept inputs, everything from one seed, so that a number names an input for ever.

The kept inputs are each target's own seeds and those in tests/fuzz/corpus, one file per target and one input per line
in hexadecimal: what a coverage-guided run found to reach other code, and each input that once broke something.

    python -m tests.fuzz.loop frame 1000000      runs one target so often, from a seed that it prints
"""

import logging
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target

CORPUS = Path(__file__).resolve().parent / "corpus"
MOST_BYTES = 4096
"""Of an input: what breaks a parser is short. What is large is the other tests' business."""
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x90, 0xC0, 0xC4, 0xD9, 0xDC)


def kept(target: Target) -> list[bytes]:
    """Seeds and corpus."""
    file = CORPUS / f"{target.name}.hex"
    lines = file.read_text().split() if file.exists() else []
    return [*target.seeds, *(bytes.fromhex(line) for line in lines)]


def mutations(target: Target, seed: int) -> Iterator[bytes]:
    """An endless supply of inputs that are almost right."""
    chance = random.Random(seed)
    inputs = kept(target)
    words = target.words or (b"\0",)
    while True:
        data = bytearray(chance.choice(inputs))
        for _ in range(1 + min(chance.getrandbits(3), chance.getrandbits(3))):
            place = int(chance.random() * (len(data) + 1))
            match chance.getrandbits(3):
                case 0 if place < len(data):
                    data[place] ^= 1 << chance.getrandbits(3)
                case 1 if place < len(data):
                    data[place] = chance.choice(INTERESTING)
                case 2 if place < len(data):
                    data[place] = chance.getrandbits(8)
                case 3:
                    del data[place : place + 1 + chance.getrandbits(3)]
                case 4:
                    data[place:place] = chance.choice(words)
                case 5:
                    other = chance.choice(inputs)
                    data[place:] = other[min(place, len(other)) :]
                case 6:
                    data[place:place] = data[place : place + chance.getrandbits(5)] * (1 + chance.getrandbits(2))
                case _:
                    del data[place:]
        yield bytes(data[:MOST_BYTES])


def run(target: Target, count: int, seed: int) -> None:
    """Every kept input, then `count` mutations. AssertionError with seed, number and input where one breaks it."""
    for number, data in enumerate(kept(target), 1):
        _one(target, data, f"kept input {number}")
    for number, data in zip(range(count), mutations(target, seed), strict=False):
        _one(target, data, f"seed {seed}, input {number}")


def _one(target: Target, data: bytes, what: str) -> None:
    try:
        target.run(data)
    except Exception as error:
        raise AssertionError(f"{target.name}: {what}: bytes.fromhex({data.hex()!r})") from error


def main(name: str, count: int) -> None:
    """One target from the command line."""
    logging.disable()  # what the broker warns of is what is tried here
    [target] = [each for each in TARGETS if each.name == name]
    seed, began = time.time_ns(), time.monotonic()
    print(f"{name}: seed {seed}", flush=True)
    run(target, count, seed)
    print(f"{name}: {count} executions in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
