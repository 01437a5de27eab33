"""
A bad network between two processes: a TCP proxy that counts, delays, throttles, swallows and cuts.

    with Proxy(hub_port) as proxy:
        proxy.delay_s = 0.1           # each way
        proxy.rate = 2048             # bytes a second towards the dialler
        proxy.stall()                 # half-open from now on: everything is swallowed, nothing is closed
        proxy.heal()                  # as a router that is back: what was stalled is reset, new connections work
        proxy.cut()                   # reset whatever is open
        proxy.target = other_port     # for connections to come

It runs in a thread of its own, so that the test may block. "Up" is from the dialler (the edge) to the target.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, cast

HELD_BYTES = 16 << 20  # on their way with a delay: enough for any bandwidth a test has, at a second of delay
SLOW_HELD_BYTES = 16 << 10  # on their way at a rate: a slow line has no memory
SLICES_PER_S = 20  # a slow line trickles


class Connection:
    """One connection through the proxy, and what passed; readable from any thread."""

    def __init__(self) -> None:
        self.up = 0
        self.down = 0
        self.up_at = self.down_at = 0.0
        """When the last bytes came that were not swallowed, by time.monotonic()."""
        self.is_open = True
        self.is_stalled = False


class Proxy:
    """Listens on a free port of loopback while its block lasts."""

    def __init__(self, target: int, *, delay_s: float = 0.0, rate: int | None = None) -> None:
        """target: a port of loopback. delay_s: each way. rate: bytes a second towards the dialler; None: no limit."""
        self.target = target
        self.delay_s = delay_s
        self.rate = rate
        self.port = 0
        self.connections: list[Connection] = []
        self.is_stalling = False
        self._wires: set[_Wire] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._ended: asyncio.Event | None = None

    @property
    def up(self) -> int:
        """Bytes that came from diallers, over all connections."""
        return sum(each.up for each in list(self.connections))

    @property
    def down(self) -> int:
        return sum(each.down for each in list(self.connections))

    @property
    def open_count(self) -> int:
        """Connections that the dialler and the proxy have open, stalled ones excepted."""
        return sum(each.is_open and not each.is_stalled for each in list(self.connections))

    def candidates(self) -> list[int]:
        """Where a connection is to go: to the first of them that takes it."""
        return [self.target]

    def stall(self) -> None:
        """Swallow everything on every connection, present and to come, until heal()."""
        self._call(self._stall)

    def heal(self) -> None:
        """Let new connections through, and reset those that were stalled: their bytes are gone."""
        self.is_stalling = False
        self._call(lambda: self._each(_Wire.abort_stalled))

    def cut(self) -> None:
        """Reset every connection at both ends."""
        self._call(lambda: self._each(_Wire.abort))

    def sever(self) -> None:
        """Reset every connection at the dialler's end; the target's stays open, silent and unaware."""
        self._call(lambda: self._each(_Wire.sever))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the proxy did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self._ended
        assert ended is not None, "it has started"
        self._loop.call_soon_threadsafe(ended.set)
        self._thread.join(10)

    def _call(self, what: Callable[[], object]) -> None:
        """Do something in the proxy's thread, and wait until it is done."""
        done = threading.Event()

        def step() -> None:
            try:
                what()
            finally:
                done.set()

        self._loop.call_soon_threadsafe(step)
        assert done.wait(10), "the proxy's thread is stuck"

    def _stall(self) -> None:
        self.is_stalling = True
        self._each(_Wire.stall)

    def _each(self, what: "Callable[[_Wire], None]") -> None:
        for wire in list(self._wires):
            what(wire)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        server = await self._loop.create_server(lambda: _Wire(self), "127.0.0.1", 0, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()
        for wire in list(self._wires):
            wire.abort()
        await asyncio.sleep(0)


class Balancer(Proxy):
    """Spreads connections over several targets in turn, past those that refuse: as any TCP balancer does."""

    def __init__(self, targets: Sequence[int]) -> None:
        """targets: ports of loopback."""
        super().__init__(targets[0])
        self._targets = deque(targets)

    def candidates(self) -> list[int]:
        self._targets.rotate(-1)
        return list(self._targets)


class _Wire(asyncio.Protocol):
    """The dialler's side of one connection; dials the target."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.count = Connection()
        self.near: asyncio.Transport | None = None
        self.far: asyncio.Transport | None = None
        self.up = _Pipe(self, towards_target=True)
        self.down = _Pipe(self, towards_target=False)
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.near = cast(asyncio.Transport, transport)
        self.proxy._wires.add(self)
        self.proxy.connections.append(self.count)
        self.count.is_stalled = self.proxy.is_stalling
        if not self.count.is_stalled:
            self._dialling = self.proxy._loop.create_task(self._dial(), name="proxy[dial]")

    async def _dial(self) -> None:
        for port in self.proxy.candidates():
            try:
                await self.proxy._loop.create_connection(lambda: _Far(self), "127.0.0.1", port)
            except OSError:
                continue
            return
        self.abort()

    def data_received(self, data: bytes) -> None:
        self.count.up += len(data)
        self.up.put(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.near = None
        self.count.is_open = False
        self.up.end()

    def stall(self) -> None:
        self.count.is_stalled = True
        self.up.clear()
        self.down.clear()

    def sever(self) -> None:
        self.stall()
        if self.near is not None:
            self.near.abort()

    def abort_stalled(self) -> None:
        if self.count.is_stalled:
            self.abort()

    def abort(self) -> None:
        for transport in (self.near, self.far):
            if transport is not None:
                transport.abort()
        self.forget()

    def forget(self) -> None:
        self.proxy._wires.discard(self)


class _Far(asyncio.Protocol):
    """The target's side."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire.far = cast(asyncio.Transport, transport)
        self._wire.up.flush()

    def data_received(self, data: bytes) -> None:
        self._wire.count.down += len(data)
        self._wire.down.put(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.far = None
        self._wire.down.end()


class _Pipe:
    """One direction: bytes with the time at which they arrive."""

    def __init__(self, wire: _Wire, *, towards_target: bool) -> None:
        self._wire = wire
        self._towards_target = towards_target
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_ended = False

    @property
    def _source(self) -> asyncio.Transport | None:
        return self._wire.near if self._towards_target else self._wire.far

    @property
    def _sink(self) -> asyncio.Transport | None:
        return self._wire.far if self._towards_target else self._wire.near

    def put(self, data: bytes) -> None:
        count, now = self._wire.count, self._wire.proxy._loop.time()
        if count.is_stalled:
            return
        if self._towards_target:
            count.up_at = now
        else:
            count.down_at = now
        self._pieces.append((now + self._wire.proxy.delay_s, data))
        self._held += len(data)
        if self._held > (HELD_BYTES if self._rate is None else SLOW_HELD_BYTES) and self._source is not None:
            self._source.pause_reading()
        self.flush()

    @property
    def _rate(self) -> int | None:
        return None if self._towards_target else self._wire.proxy.rate

    def flush(self) -> None:
        """Hand on what has arrived by now."""
        sink, loop = self._sink, self._wire.proxy._loop
        if sink is None or self._timer is not None:
            return
        while self._pieces and max(self._pieces[0][0], self._free_at) <= loop.time():
            at, piece = self._pieces.popleft()
            if self._rate is not None:
                size = max(1, self._rate // SLICES_PER_S)
                if len(piece) > size:
                    self._pieces.appendleft((at, piece[size:]))
                    piece = piece[:size]
                self._free_at = loop.time() + len(piece) / self._rate
            self._held -= len(piece)
            sink.write(piece)
        if self._held == 0 and self._source is not None and not self._source.is_closing():
            self._source.resume_reading()
        if self._pieces:
            self._timer = loop.call_at(max(self._pieces[0][0], self._free_at), self._due)
        elif self._is_ended:
            sink.close()
            self._wire.forget()

    def _due(self) -> None:
        self._timer = None
        self.flush()

    def end(self) -> None:
        """The source is gone; the sink hears of it after what is on its way, and never if the wire is stalled."""
        self._is_ended = True
        if not self._wire.count.is_stalled:
            self.flush()

    def clear(self) -> None:
        self._pieces.clear()
        self._held = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._source is not None:
            self._source.resume_reading()  # to swallow what comes
