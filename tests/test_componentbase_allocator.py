"""Large blocks stay apart from the heap, whatever was freed before, and its holes have no pages once that is asked."""

import subprocess
import sys

import pytest

from componentbase.allocator import give_back_holes
from tests.harness.heap import Hole, anonymous_kb

PROGRAM = """
import ctypes, sys
from pathlib import Path
from componentbase.allocator import keep_large_blocks_apart, use_large_blocks_again

if "apart" in sys.argv:
    assert keep_large_blocks_apart()
if "again" in sys.argv:
    assert use_large_blocks_again()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(512 << 10))  # the limit is raised with it
block = libc.malloc(256 << 10)
heap = next(line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if "[heap]" in line)
start, end = (int(place, 16) for place in heap.split("-"))
print("heap" if start <= block < end else "apart")
"""


@pytest.mark.parametrize(("words", "where"), [((), "heap"), (("apart",), "apart")])
def test_a_large_block_is_taken_from_the_heap_unless_that_is_forbidden(words: tuple[str, ...], where: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == where


AGAIN = """
import resource, sys
from componentbase.allocator import keep_large_blocks_apart, use_large_blocks_again

assert use_large_blocks_again() if "again" in sys.argv else keep_large_blocks_apart()
for _ in range(4):
    made = [bytes(bytearray(b"x") * 3_000_000) for _ in range(2)]
    del made
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    made = [bytes(bytearray(b"x") * 3_000_000) for _ in range(2)]
    del made
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_large_block_takes_the_pages_of_the_last_one_where_that_is_asked_for() -> None:
    faults = {}
    for word in ("apart", "again"):
        done = subprocess.run([sys.executable, "-c", AGAIN, word], check=True, capture_output=True, text=True)
        faults[word] = int(done.stdout)
    assert faults["again"] < faults["apart"] / 10


def test_a_hole_in_the_heap_is_given_back_when_that_is_asked_for() -> None:
    with Hole() as hole:
        before = anonymous_kb()
        assert give_back_holes()
        assert before - anonymous_kb() > hole.kb * 0.9
