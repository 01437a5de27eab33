"""
A bad line between two network namespaces, packet by packet: what real TCP and real UDP make of it.

    with BadLine() as line:
        line.set(delay_s=0.05, loss=0.01)            # each way
        line.set(rate=64_000, way="down")            # bits a second; None: no limit
        with line.cloud: server = socket.create_server((line.cloud.address, 0))
        with line.edge:  client = socket.create_connection(server.getsockname())
        line.counts()

Each namespace has one TUN device; what the kernel of the one sends is read here, in a process of its own, and written
to the other when its time has come. For kernels without `netem` (CONFIG_NET_SCH_NETEM), and the same on all. Root
only: `why_not()` says what is missing.

A namespace is entered by a thread: sockets that it makes and processes that it starts meanwhile belong there for
good.

What happens to a packet, in this order: blackhole, loss, duplication (each copy goes on by itself), the queue of a
line with a rate (full: dropped, the newest first), its time on the line, delay and jitter. Without `reorder` packets
keep their order whatever the jitter; that share of them is held back by `reorder_s`, so that those behind go before.
"""

import argparse
import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent.parent
MTU = 1500
AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
TCP = "cubic"  # what Linux does if it is not told otherwise: a machine that is would compare something else
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
SOME, MOST = 64, 4096  # packets taken of one device before the clock is looked at; more than a device holds
WAYS = ("up", "down")
"""From the edge to the cloud, and back."""


@dataclass
class Quality:
    """One direction of the line."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Added to the delay, uniform between 0 and this."""
    loss: float = 0.0
    """Share of the packets, each by itself."""
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.02
    rate: float | None = None
    """Bits a second, IP headers included; None: as fast as it goes."""
    queue_bytes: int = 64 << 10
    """What waits for a line with a rate; a packet for which there is no room is dropped."""
    blackhole: bool = False


@dataclass
class Counts:
    """What came, and what became of it. Bytes are those of IP packets."""

    packets: int = 0
    bytes: int = 0
    lost: int = 0
    """By `loss` and by the blackhole."""
    dropped: int = 0
    """Because the queue was full."""
    duplicated: int = 0


class Way:
    """One direction: what comes when. Pure: time and chance are given."""

    def __init__(self, seed: int) -> None:
        self.quality = Quality()
        self.counts = Counts()
        self._rng = random.Random(seed)
        self._free_at = 0.0
        """When the line is done with what is in its queue."""
        self._last = 0.0

    def offer(self, size: int, now: float) -> list[float]:
        """A packet of so many bytes comes; when it arrives: never, once, or more often."""
        quality, counts, draw = self.quality, self.counts, self._rng.random
        counts.packets += 1
        counts.bytes += size
        if quality.blackhole or draw() < quality.loss:
            counts.lost += 1
            return []
        copies = 1 + (draw() < quality.duplicate)
        counts.duplicated += copies - 1
        return [at for _ in range(copies) if (at := self._carried(size, now)) is not None]

    def _carried(self, size: int, now: float) -> float | None:
        quality = self.quality
        leaves = now
        if quality.rate is not None:
            starts = max(now, self._free_at)
            if (starts - now) * quality.rate / 8 + size > quality.queue_bytes:
                self.counts.dropped += 1
                return None
            leaves = self._free_at = starts + size * 8 / quality.rate
        arrives = leaves + quality.delay_s + self._rng.random() * quality.jitter_s
        if self._rng.random() < quality.reorder:
            return arrives + quality.reorder_s
        self._last = max(self._last, arrives)
        return self._last


class Namespace:
    """A network namespace; the thread that enters it is in it until it leaves."""

    _libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._fd = -1
        self._way: tuple[str, ...] = ()
        self._entered = threading.local()

    def make(self, device: str, peer: str) -> None:
        """Make it, with a device that was made outside and is moved into it. Raises RuntimeError."""
        _ip("netns", "add", self.name)
        self._fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        _ip("link", "set", device, "netns", self.name)
        inside = ("-n", self.name)
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "addr", "add", f"{self.address}/32", "peer", f"{peer}/32", "dev", device)
        _ip(*inside, "link", "set", device, "mtu", str(MTU), "up")
        self._way = (*inside, "route", "replace", f"{peer}/32", "dev", device, "src", self.address)
        self.set_tcp(TCP)

    def set_tcp(self, name: str) -> None:
        """How TCP slows down on the line, for connections that begin here from now on. Raises RuntimeError."""
        _ip(*self._way, "congctl", name)

    def remove(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)

    def __enter__(self) -> Self:
        before: list[int] = self._entered.__dict__.setdefault("before", [])
        before.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        self._enter(self._fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before = self._entered.before.pop()
        self._enter(before)
        os.close(before)

    def _enter(self, fd: int) -> None:
        if self._libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")


class BadLine:
    """Two namespaces, `edge` and `cloud`, and what is between them. At first it is a good line."""

    def __init__(self, seed: int = 1) -> None:
        tag = f"{os.getpid() % 100_000}{os.urandom(1).hex()}"
        self.edge = Namespace(f"fl-e-{tag}", "10.77.0.1")
        self.cloud = Namespace(f"fl-c-{tag}", "10.77.0.2")
        self._seed = seed
        self._stack = contextlib.ExitStack()
        self._qualities = {way: Quality() for way in WAYS}
        self._router: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            names = [f"fl{way[0]}{self.edge.name[5:]}"[:15] for way in WAYS]
            tuns = [_tun(name) for name in names]
            for tun in tuns:
                stack.callback(os.close, tun)
            for namespace, device, peer in (
                (self.edge, names[0], self.cloud.address),
                (self.cloud, names[1], self.edge.address),
            ):
                self._stack.callback(namespace.remove)
                namespace.make(device, peer)
            self._router = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.badline", *map(str, tuns), str(self._seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=tuns,
                cwd=ROOT,
            )
            self._stack.callback(self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _end(self) -> None:
        self._router.kill()
        self._router.wait()
        for pipe in (self._router.stdin, self._router.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def reset(self) -> None:
        """A good line again."""
        self._qualities = {way: Quality() for way in WAYS}
        self._ask()

    def set_tcp(self, name: str = TCP) -> None:
        """At both ends, as Namespace.set_tcp()."""
        for each in (self.edge, self.cloud):
            each.set_tcp(name)

    def set(self, *, way: str = "", **quality: float | bool | None) -> None:
        """These fields of Quality, of one way or both; what is on its way already is not touched."""
        for each in (way,) if way else WAYS:
            self._qualities[each] = Quality(**{**asdict(self._qualities[each]), **quality})
        self._ask()

    def counts(self) -> dict[str, Counts]:
        """By way, since it began."""
        return self._ask()

    @property
    def router_pid(self) -> int:
        return self._router.pid

    def _ask(self) -> dict[str, Counts]:
        said, told = self._router.stdin, self._router.stdout
        assert said is not None, "made with a pipe"
        assert told is not None, "made with a pipe"
        said.write(json.dumps({way: asdict(each) for way, each in self._qualities.items()}).encode() + b"\n")
        said.flush()
        line = told.readline()
        assert line, f"the router ended with {self._router.wait()}"
        return {way: Counts(**each) for way, each in json.loads(line).items()}


def tcp_ways() -> list[str]:
    """How TCP can slow down here."""
    return AVAILABLE.read_text().split()


def why_not() -> str:
    """What is missing for a bad line; "" for nothing."""
    if os.geteuid() != 0:
        return "network namespaces and TUN devices need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    if subprocess.run(["ip", "netns", "list"], check=False, capture_output=True).returncode != 0:
        return "`ip netns` does not work: install iproute2"
    try:
        os.close(_tun("flprobe"))
    except OSError as exc:
        return f"no TUN device can be made: {exc}"
    return ""


def _tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


# ---- the router's process


def _route(tuns: list[int], seed: int) -> None:
    """Until standard input ends. A line on it is the line's quality from now on; the answer is its counts."""
    ways = [Way(seed + number) for number in range(2)]
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    poller = select.poll()
    for fd in (0, *tuns):
        poller.register(fd, select.POLLIN)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, sink, packet = heapq.heappop(waiting)
            with contextlib.suppress(BlockingIOError):
                os.write(sink, packet)
        # poll() counts in whole milliseconds: the last one is waited for without sleeping past it.
        timeout_ms = None if not waiting else max(0, int((waiting[0][0] - now) * 1000))
        ready = {fd for fd, _ in poller.poll(timeout_ms)}
        # What was sent before a command came is of the quality from before: so all that there is, then the command.
        for source, fd in enumerate(tuns):
            for packet in _packets(fd, MOST if 0 in ready else SOME):
                for at in ways[source].offer(len(packet), time.monotonic()):
                    number += 1
                    heapq.heappush(waiting, (at, number, tuns[1 - source], packet))
        if 0 in ready:
            line = sys.stdin.buffer.readline()
            if not line:
                return
            for way, quality in json.loads(line).items():
                ways[WAYS.index(way)].quality = Quality(**quality)
            print(json.dumps({name: asdict(way.counts) for name, way in zip(WAYS, ways, strict=True)}), flush=True)


def _packets(fd: int, most: int) -> Iterator[bytes]:
    """Of IPv4; a kernel sends some of IPv6 for itself."""
    for _ in range(most):
        try:
            packet = os.read(fd, MTU + 64)
        except BlockingIOError:
            return
        if packet[0] >> 4 == 4:
            yield packet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="badline", description="Carries packets between two TUN devices.")
    parser.add_argument("tuns", type=int, nargs=2, help="open descriptors")
    parser.add_argument("seed", type=int)
    args = parser.parse_args()
    _route(args.tuns, args.seed)
