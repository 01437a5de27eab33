"""Blocking calls aside: their outcome comes back, and nothing waits for one that hangs."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from componentbase.aside import aside


async def test_the_result_comes_back_from_another_thread() -> None:
    assert await aside(threading.current_thread, "one call") is not threading.current_thread()
    assert (await aside(threading.current_thread, "one call")).name == "one call"


async def test_the_error_comes_back() -> None:
    def fail() -> None:
        raise OSError(7, "no luck")

    with pytest.raises(OSError, match="no luck"):
        await aside(fail, "one call")


async def test_who_gives_up_waiting_is_not_held() -> None:
    gate = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await aside(lambda: gate.wait(10), "one call")
    gate.set()
    await asyncio.sleep(0.01)  # the late answer is dropped without a complaint


def test_a_hanging_call_does_not_hold_up_the_end_of_the_process() -> None:
    program = """
import asyncio, time
from componentbase.aside import aside
async def main():
    try:
        async with asyncio.timeout(0.01):
            await aside(lambda: time.sleep(30), "hangs")
    except TimeoutError:
        print("given up")
asyncio.run(main())
"""
    start = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "given up\n", "")
    assert time.monotonic() - start < 10
