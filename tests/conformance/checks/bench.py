"""What checks have in common: the client at its place, and how a refusal is judged."""

import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.conformance.contract import Client, Refused

AT_ONCE_S = 10.0  # until a refusal: a client is started, and this machine is busy; who waited would wait 30 s, CALL_S


@dataclass(frozen=True)
class Bench:
    """One client at one place."""

    client: Client
    name: str
    """The client's."""
    place: str
    namespace: str

    def own(self, check: str) -> str:
        """The name of what this check may change here; see tests.conformance.seeds."""
        return f"{check}-{self.place}"


Check = Callable[[Bench], Awaitable[None]]


async def refused_for_want_of_the_cloud(check: Check, bench: Bench) -> None:
    """That what the check does first is refused, at once, and the client's user reads why."""
    began = time.monotonic()
    try:
        await check(bench)
    except Refused as exc:
        assert exc.reason == "ServiceUnavailable", exc
        assert "not connected to the cloud" in exc.message, exc
    else:
        raise AssertionError("it was done, without the cloud")
    assert time.monotonic() - began < AT_ONCE_S


@contextlib.asynccontextmanager
async def refusal(reason: str, *words: str) -> AsyncGenerator[None, None]:
    """That the block is refused for this; where it is refused for want of the cloud, that goes through."""
    try:
        yield
    except Refused as exc:
        if exc.reason == "ServiceUnavailable":
            raise
        assert exc.reason == reason, exc
        for word in words:
            assert word in exc.message, exc
    else:
        raise AssertionError(f"not refused, and should be: {reason}")


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["metadata"]["name"] for item in items]
