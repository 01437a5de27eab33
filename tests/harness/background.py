"""What runs for ever, for as long as a test wants it to."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Runs it while the block lasts. It must not have ended by then, and must end when it is cancelled."""
    task = asyncio.create_task(work, name=name)
    await asyncio.sleep(0)  # it is going
    try:
        yield
    finally:
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
