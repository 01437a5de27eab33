"""
The asyncio around the hub: the listener, the turns of work, the upkeep.

One task gives the sessions their turns and lets the loop breathe between rounds, so that frames and
watch events are taken in however much there is to send.
"""

import asyncio
import logging
import os
import secrets
import ssl
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from apimachinery.watchcache import WatchCache
from cloudhub.closed import Closed
from cloudhub.lobby import Door
from cloudhub.placement import Placement
from cloudhub.session import CallSink, ReportSink
from cloudhub.sessions import GRACE_S, Hub, NodeWatcher
from cloudhub.standings import Access
from cloudhub.wires import AS_IT_IS, Parts
from componentbase.allocator import Tidying
from link.peer import HEARTBEAT_S
from link.websocket import Listener, listen

if TYPE_CHECKING:
    from link.quic import LiveCredentials
    from link.quicserver import Listener as QuicListener

logger = logging.getLogger(__name__)

TURNS = 256  # sessions served before other work gets a chance: about 5 ms with small objects
UPKEEP_S = 30.0
RETRY_REFUSED_S = 300.0
EPOCH_BYTES = 12
PACKER_NICENESS = 5  # beside the loop's: a quarter of the time on a core that both want (docs/why/isolation.md)


class HubServer:
    """A Hub, and what drives it. `hub` is there from the start; nobody is let in before serve()."""

    def __init__(
        self,
        cache: WatchCache,
        placement: Placement,
        reports: ReportSink,
        nodes: NodeWatcher,
        *,
        access: Access | None = None,
        calls: CallSink | None = None,
        door: Door | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        grace_s: float = GRACE_S,
    ) -> None:
        """access, calls: None where nodes may neither be interested in anything nor ask for anything. door: see Hub."""
        closed = Closed()
        self._work = asyncio.Event()
        self._tidying = Tidying()
        self.hub = Hub(
            cache,
            placement,
            reports,
            nodes,
            access=closed if access is None else access,
            calls=closed if calls is None else calls,
            door=door,
            clock=asyncio.get_running_loop(),
            now_ms=lambda: time.time_ns() // 1_000_000,
            new_epoch=lambda: secrets.token_hex(EPOCH_BYTES),
            wake=self._work.set,
            left=lambda: self._tidying.one_left(self.hub.connected),
            heartbeat_s=heartbeat_s,
            grace_s=grace_s,
            aside=self._aside,
        )
        # One, for what it does is to hold the processor. It has no thread before there is something to pack.
        self._packer = ThreadPoolExecutor(1, thread_name_prefix="packer", initializer=give_way)
        self._is_stopping = False

    async def listen(
        self, host: str, port: int, context: ssl.SSLContext | None, *, reuse_port: bool = False
    ) -> Listener:
        """
        Let nodes in. To be called when the cache is in step with the apiserver: empty is not unknown.

        context: None speaks no TLS, and then nobody has a certificate. reuse_port: as for link.websocket.listen.
        """
        return await listen(host, port, context, self.hub.opened, reuse_port=reuse_port)

    async def listen_quic(
        self, host: str, port: int, credentials: "LiveCredentials", reset_key: bytes
    ) -> "QuicListener":
        """As listen(), over QUIC. credentials, reset_key: as link.quicserver.listen() has them."""
        from link import quicserver  # a hub without QUIC does not pay for it

        return await quicserver.listen(host, port, credentials, self.hub.opened, reset_key=reset_key)

    async def run(self, *listeners: "Listener | QuicListener") -> None:
        """Serve until cancelled; then say Goodbye to everybody and leave no connection behind."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._turns(), name="hub[turns]")
                tasks.create_task(self._upkeep(), name="hub[upkeep]")
        finally:
            self._is_stopping = True
            self.hub.close("cloudcore is stopping", retry_after_s=1.0)
            # A third of a second at most, and then nothing is left.
            self._packer.shutdown(wait=True, cancel_futures=True)
            # As they came, backwards: whoever finds no QUIC is not to find TCP.
            for listener in reversed(listeners):
                await listener.close()
            self._tidying.close()

    def _aside(self, work: Callable[[], Parts], done: Callable[[Parts], None]) -> None:
        """Is a cloudhub.wires.Aside, which is given one thing at a time: the thread has no line of its own."""

        def settled(future: asyncio.Future[Parts]) -> None:
            if future.cancelled():
                return
            if (error := future.exception()) is not None:  # memory that is short, say: nobody would ask for it again
                logger.error("cannot pack an object: it goes as it is", exc_info=error)
            done(AS_IT_IS if error is not None else future.result())

        if self._is_stopping:
            return  # who dials while the listeners close gets nothing any more
        asyncio.get_running_loop().run_in_executor(self._packer, work).add_done_callback(settled)

    async def _turns(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self.hub.work(TURNS):  # noqa: ASYNC110 - gives others a turn, waits for nothing
                await asyncio.sleep(0)

    async def _upkeep(self) -> None:
        loop = asyncio.get_running_loop()
        retry_at = loop.time() + RETRY_REFUSED_S
        while True:
            await asyncio.sleep(UPKEEP_S)
            self.hub.expire()
            if loop.time() >= retry_at:
                retry_at = loop.time() + RETRY_REFUSED_S
                self.hub.retry_refused()


def give_way() -> None:
    """
    Let this thread have less of the processor where others want it, too.

    Linux knows the niceness of a thread; elsewhere its number would be some process's. Refused, it stays as it is.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + PACKER_NICENESS)
