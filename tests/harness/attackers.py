"""
Nodes that attack for as long as they are let, all at once, each with a certificate of its own: a process by itself, so
that who measures what a good node notices is not slowed by them.

    python -m tests.harness.attackers SECONDS LINK_PORT JOIN_PORT DIRECTORY

DIRECTORY has what joined in a directory for each of ATTACKS. Prints how often each attack was made, as JSON.
"""

import asyncio
import contextlib
import json
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.resources import CONFIG_MAPS, DEVICES, NODES, PODS, SECRETS
from cloudhub.join import MAX_BODY_BYTES
from link.codec import encode
from link.errors import LinkClosed
from link.frames import (
    MAX_TERM,
    PROTOCOL,
    Ack,
    Call,
    CallHead,
    Check,
    Cursor,
    Goodbye,
    Held,
    Hello,
    Interest,
    Inventory,
    Nack,
    Ping,
    Push,
    Refusal,
    Report,
    ReportEntry,
    Wanted,
    Welcome,
)
from link.peer import MAX_CHATTER
from link.transports import AT_DOOR
from tests.harness.hostile import RawEdge, hello, next_term, node_context

ELSEWHERE = "127.0.0.2"
"""Where strangers come from: on loopback every address is one's own."""
PAUSE_S = 0.05
"""Between two attacks of one attacker: a thief has a line, and a processor, as well."""

INTERESTS = tuple(Interest(CONFIG_MAPS, f"ns-{number}") for number in range(200))
FLOODS: dict[str, Callable[[int], bytes]] = {
    "pings": lambda number: encode(Ping(number)),
    "acks of nothing new": lambda _: encode(Ack(0)),
    "sets of 200 interests": lambda number: encode(Wanted(number + 1, INTERESTS[number % 2 :])),
    "comparisons": lambda number: encode(Check(number, b"d")),
}
_ROW = b"\xdc\x10\x00" + b"\x90" * 4096
BOMBS = {
    "4 MiB of empty arrays": b"\xdc\x03\xf8" + _ROW * 1016,
    "arrays in arrays": b"\xdc\x10\x00" * 100_000,
    "a text that says it has 4 GiB": b"\x92\x05\xdb\xff\xff\xff\xff",
    "an array that says it has 4 billion": b"\x92\x05\xdd\xff\xff\xff\xff",
}
LONGEST = ObjectVersion("u" * 253, "r" * 253)


class Attacker:
    """One node's certificate, and what is done with it."""

    def __init__(self, name: str, ports: tuple[int, int], context: ssl.SSLContext, authority: Path) -> None:
        self.name = name
        self.port, self.join_port = ports
        self.context = context
        self.strange = ssl.create_default_context(cafile=str(authority))
        self.number = 0

    async def dialled(self) -> RawEdge:
        return await RawEdge.dialled(self.port, self.context)

    async def welcomed(self) -> RawEdge:
        edge = await self.dialled()
        edge.say(hello(self.name))
        await edge.heard(Welcome, Goodbye)
        return edge

    async def floods(self) -> None:
        flood = list(FLOODS.values())[self.number % len(FLOODS)]
        edge = await self.welcomed()
        edge.obliging = False
        edge.say(*map(flood, range(MAX_CHATTER + 50 if flood is not FLOODS["sets of 200 interests"] else 120)))
        await edge.goodbye()

    async def inventories(self) -> None:
        edge = await self.dialled()
        edge.say(Hello(PROTOCOL, self.name, None, b"much", "raw", next_term()))
        await edge.heard(Welcome, Goodbye)
        for number in range(20):
            keys = (ObjectKey(PODS, "n" * 253, f"{number}-{place:0>240}") for place in range(1000))
            edge.say(Inventory(tuple(Held(key, LONGEST) for key in keys), False))
            await asyncio.sleep(0.01)
        await edge.goodbye()

    async def bombs(self) -> None:
        edge = await self.welcomed()
        edge.say(list(BOMBS.values())[self.number % len(BOMBS)])
        await edge.goodbye()

    async def forgeries(self) -> None:
        forged = (
            Ack(10**9),
            Nack(10**9, (Refusal(ObjectKey(PODS, "d", "p"), "no"),)),
            Push(1, (), True),
            Wanted(7, ()),
            hello("somebody-else"),
        )
        edge = await self.welcomed()
        edge.say(forged[self.number % len(forged)])
        await edge.goodbye()

    async def greetings(self) -> None:
        """Each over the last; cursors of all kinds, terms of the future."""
        cursors = (None, Cursor("x", 2**63 - 1), Cursor("x", 0))
        edges = []
        for number in range(20):
            edge = await self.dialled()
            term = MAX_TERM if number % 5 == 4 else next_term()
            edge.say(Hello(PROTOCOL, self.name, cursors[number % 3], b"lie", "raw", term))
            await edge.heard(Welcome, Goodbye)
            edges.append(edge)
        for edge in edges:
            await edge.abort()

    async def reports(self) -> None:
        """Of what is not its own, and calls for what it may not have."""
        entries = tuple(ReportEntry(ObjectKey(DEVICES, "d", f"x{number}"), "state", b"{}") for number in range(100))
        edge = await self.welcomed()
        for seq in range(1, 21):
            edge.say(Report(seq, (*entries, ReportEntry(ObjectKey(NODES, "", "good"), "nodeInfo", b"{}"))))
        for number in range(1, 9):
            edge.say(Call(number, CallHead("GET", SECRETS.path()), b"", True))
        await asyncio.sleep(0.5)
        await edge.abort()

    async def slow(self) -> None:
        """As many handshakes as one address may begin, and some more; nobody goes on with any."""
        opened = []
        for _ in range(AT_DOOR.each + 50):
            opened.append(await asyncio.open_connection("127.0.0.1", self.port, local_addr=(ELSEWHERE, 0)))
            opened[-1][1].write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        await asyncio.sleep(3.0)
        for _, writer in opened:
            writer.transport.abort()

    async def joins(self) -> None:
        """Wrong tokens, bodies that are too large, requests that do not end."""
        for body in (b"[" * MAX_BODY_BYTES, b"x" * (MAX_BODY_BYTES + 1), b'{"node":"x","csr":"","token":"no"}'):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", self.join_port, ssl=self.strange, local_addr=(ELSEWHERE, 0)
            )
            writer.write(f"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await asyncio.sleep(0.1)
            writer.transport.abort()


ATTACKS: tuple[str, ...] = ("floods", "inventories", "bombs", "forgeries", "greetings", "reports", "slow", "joins")


async def _for(seconds: float, attacker: Attacker, made: Counter[str]) -> None:
    attack: Callable[[], Awaitable[None]] = getattr(attacker, attacker.name)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                # Being thrown out is what an attacker expects.
                with contextlib.suppress(LinkClosed, OSError, AssertionError):
                    await attack()
                attacker.number += 1
                made[attacker.name] += 1
                await asyncio.sleep(PAUSE_S)


async def main(seconds: float, ports: tuple[int, int], directory: Path) -> None:
    made: Counter[str] = Counter()
    async with asyncio.TaskGroup() as tasks:
        for name in ATTACKS:
            home = directory / name
            attacker = Attacker(name, ports, node_context(home), home / "pki" / "ca.crt")
            tasks.create_task(_for(seconds, attacker, made), name=name)
    print(json.dumps(made))


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3])), Path(sys.argv[4])))
