"""The way to the store's thread and back: order, what is told first, who gave up, the end, and whose turn it is."""

import asyncio
import threading
from functools import partial

import pytest

from metamanager.handover import Handover, Turns


async def test_what_waits_is_taken_in_order_what_is_urgent_first_and_the_end_comes_last() -> None:
    thread, order, may_go_on = Handover("t"), list[str](), threading.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(thread.do(lambda: may_go_on.wait(10)))
        for place in range(3):
            for urgent in (False, True):
                call = partial(order.append, f"{'urgent' if urgent else 'other'} {place}")
                group.create_task(thread.do(call, urgent=urgent))
        group.create_task(_closed(thread, partial(order.append, "closed")))
        await asyncio.sleep(0.01)
        may_go_on.set()
    classes = [f"{name} {place}" for name in ("urgent", "other") for place in range(3)]
    assert order == [*classes, "closed"]


async def _closed(thread: Handover, work: partial[None]) -> None:
    await asyncio.sleep(0)
    await thread.close(work)


async def test_what_a_call_tells_is_there_before_its_outcome_also_while_the_loop_is_busy() -> None:
    thread, seen, done = Handover("t"), list[object](), threading.Event()

    def work(number: int) -> int:
        thread.tell(partial(seen.append, number))
        if number == 9:
            done.set()
        return number

    async def caller(number: int) -> None:
        seen.append(f"answer {await thread.do(partial(work, number))}")

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(caller(number))
        await asyncio.sleep(0)
        assert done.wait(10), "the thread does all of it while the loop is held"
    assert [seen.index(number) < seen.index(f"answer {number}") for number in range(10)] == [True] * 10
    await thread.close(lambda: None)


async def test_a_call_raises_what_the_work_raises_and_the_next_is_done() -> None:
    thread = Handover("t")

    def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        await thread.do(fail)
    assert await thread.do(lambda: 1) == 1
    await thread.close(lambda: None)


async def test_what_had_not_begun_when_its_caller_was_cancelled_is_not_done() -> None:
    thread, has_begun, may_go_on, done = Handover("t"), threading.Event(), threading.Event(), list[str]()

    def begin() -> None:
        has_begun.set()
        may_go_on.wait(10)
        done.append("begun")

    async with asyncio.TaskGroup() as group:
        begun = group.create_task(thread.do(begin))
        waiting = group.create_task(thread.do(partial(done.append, "waiting")))
        while not has_begun.is_set():
            await asyncio.sleep(0.001)
        begun.cancel()
        waiting.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
    await thread.close(lambda: None)
    assert done == ["begun"]


@pytest.mark.parametrize("is_closed", [False, True])
async def test_the_thread_ends(is_closed: bool) -> None:
    thread = Handover("t")
    itself = await thread.do(threading.current_thread)
    if is_closed:
        await thread.close(lambda: None)
    else:
        thread.end()
    itself.join(10)
    assert not itself.is_alive()


@pytest.mark.parametrize(("read_s", "least", "most"), [(0.1, 0.22, 0.28), (0.001, 0.0, 0.0)])
def test_devices_have_a_quarter_of_the_time_of_a_thread_and_not_of_its_calls(
    read_s: float, least: float, most: float
) -> None:
    """All wait all the time. Quick reads, as many as there are, are not three quarters of it."""
    turns, spent = Turns(), [0.0, 0.0]
    for _ in range(400):
        for place, seconds in enumerate((read_s, 0.3)):
            turns.put(partial(add, spent, place, seconds), urgent=place == 0)
    for _ in range(400):
        before = sum(spent)
        turns.take()()
        turns.took(sum(spent) - before)
    assert least <= spent[1] / sum(spent) <= most


def add(spent: list[float], place: int, seconds: float) -> None:
    spent[place] += seconds


async def test_what_is_put_and_closed_behind_just_as_the_thread_finds_nothing_more_is_done_first() -> None:
    thread, order = Handover("t"), list[str]()
    found_nothing, may_go_on = threading.Event(), threading.Event()
    lock = thread._lock

    class Watched:
        """The thread's lock, with a pause where it has let go of it having found nothing."""

        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            is_idle = threading.current_thread() is not threading.main_thread() and not thread._is_working
            lock.release()
            if is_idle and not found_nothing.is_set():
                found_nothing.set()
                may_go_on.wait(10)

    thread._lock = Watched()  # type: ignore[assignment]
    await thread.do(lambda: None)
    while not found_nothing.is_set():
        await asyncio.sleep(0.001)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(thread.do(partial(order.append, "put")))
        group.create_task(_closed(thread, partial(order.append, "closed")))
        await asyncio.sleep(0.01)
        may_go_on.set()
    assert order == ["put", "closed"]
