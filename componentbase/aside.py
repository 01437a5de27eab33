"""
Blocking calls that may hang for longer than anybody waits, above all name resolution.

A resolver whose servers do not answer blocks for 5 to 30 s, and nothing can interrupt it. In asyncio's own
executor it would hold up the end of the process for as long, for that joins its threads. A thread made for the
one call is not waited for.

Invariants
    the event loop and the end of the process never wait for the call
    whoever awaits it may be cancelled; what the call comes to is then dropped
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T], name: str) -> T:
    """What `work` returns or raises, from a thread of its own, called `name`."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(act: Callable[[], None]) -> None:
        if not answer.done():
            act()

    def run() -> None:
        act: Callable[[], None]
        try:
            result = work()
        except Exception as exc:
            problem = exc
            act = lambda: answer.set_exception(problem)  # noqa: E731
        else:
            act = lambda: answer.set_result(result)  # noqa: E731
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, act)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await answer
