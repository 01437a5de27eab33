"""
An apiserver that changes Devices faster than one can: a relay before the real one that adds events to a watch.

    python -m tests.harness.watchlines APISERVER_PORT KUBECONFIG      prints {"port": N}

    wish RATE       from now on so many changed wishes a second, round about all Devices; 0: none
    stats           {"wished": events added, "last": {name: value}}

Everything passes as it is, but for the watch of Devices. There, events are added that differ from the Device's last
true one in the wish for its setpoint and in their generation, and true ones have these put in, too: so a Device looks
as if somebody had edited it that often, and the resourceVersions are true. The apiserver itself knows nothing of these
wishes: who wants the end to be true, sets the last ones there, and stops the wishing first. It speaks plain HTTP to
whoever connects on loopback, and TLS to the apiserver. Ends with its standard input.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import re
import ssl
import sys
from pathlib import Path

import uvloop

WATCH = re.compile(rb"GET /apis/devices\.kubeedge\.io/[^/ ]+/devices\?(?=[^ ]*watch=true)")
NAME = re.compile(rb'"name":\s*"([^"]+)",\s*"namespace"')
GENERATION = re.compile(rb'("metadata":\s*\{[^{}]*?"generation":\s*)\d+')
WISH = re.compile(rb'("desired":\s*\{[^}]*?"value":\s*")(\d+)')
TICK_S = 0.01
HELD_BYTES = 1 << 20  # in the socket to the hub; above it changes wait, as at an apiserver
FIRST = 1_000_000


class Wishes:
    """What Devices are said to be wished, and the watches that say so."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.added = 0
        self.lines: dict[bytes, bytes] = {}
        """The last event of each Device, as it came."""
        self.values: dict[bytes, int] = {}
        self.writers: set[asyncio.StreamWriter] = set()

    def seen(self, line: bytes) -> bytes:
        """A true event; as it is to be told."""
        if b'"MODIFIED"' not in line[:64] and b'"ADDED"' not in line[:64]:
            return line
        if (found := NAME.search(line)) is None:
            return line
        self.lines[found[1]] = line
        return self.told(found[1]) if self.rate else line

    def told(self, name: bytes) -> bytes:
        line = self.lines[name].replace(b'"ADDED"', b'"MODIFIED"', 1)
        if (value := self.values.get(name)) is None:
            return line
        line = GENERATION.sub(lambda found: found[1] + str(value).encode(), line, count=1)
        return WISH.sub(lambda found: found[1] + str(value).encode(), line, count=1)

    async def run(self) -> None:
        due, place = 0.0, 0
        while True:
            await asyncio.sleep(TICK_S)
            if not self.rate or not self.lines:
                continue
            due = min(due + self.rate * TICK_S, self.rate)
            names = list(self.lines)
            for writer in self.writers:
                transport = writer.transport
                if transport.is_closing() or transport.get_write_buffer_size() > HELD_BYTES:
                    continue
                count = int(due)
                lines = []
                for _ in range(count):
                    name = names[place % len(names)]
                    place += 1
                    self.values[name] = FIRST + place
                    lines.append(self.told(name) + b"\n")
                writer.write(chunk(b"".join(lines)) if lines else b"")
                self.added += count
                due -= count

    def stats(self) -> dict[str, object]:
        return {"wished": self.added, "last": {name.decode(): str(value) for name, value in self.values.items()}}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Relay:
    """One connection to us, one to the apiserver for each."""

    def __init__(self, port: int, context: ssl.SSLContext, wishes: Wishes) -> None:
        self._port, self._context, self._wishes = port, context, wishes

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
            answers: asyncio.Task[None] | None = None
            try:
                while data := await reader.read(1 << 16):
                    server_writer.write(data)
                    if answers is None:
                        work = self._watch if WATCH.match(data) else _copy
                        answers = asyncio.create_task(work(server_reader, writer))
                    elif WATCH.match(data):  # a connection that had another use before
                        answers.cancel()
                        await asyncio.wait([answers])
                        answers = asyncio.create_task(self._watch(server_reader, writer))
                    await server_writer.drain()
            finally:
                if answers is not None:
                    answers.cancel()
                server_writer.close()
        writer.close()

    async def _watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wishes, rest = self._wishes, b""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            if b"200" not in head.split(b"\r\n")[0]:
                await _copy(reader, writer)
                return
            wishes.writers.add(writer)
            while size := int(await reader.readuntil(b"\r\n"), 16):
                *lines, rest = (rest + (await reader.readexactly(size + 2))[:-2]).split(b"\n")
                if lines:
                    writer.write(chunk(b"".join(wishes.seen(line) + b"\n" for line in lines)))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            wishes.writers.discard(writer)
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()


async def _main(port: int, kubeconfig: Path) -> None:
    cluster = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    wishes = Wishes()
    relay = Relay(port, context, wishes)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0, limit=1 << 23)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    running = asyncio.create_task(wishes.run())
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        command, *words = line.decode().split()
        if command == "wish":
            wishes.rate = float(words[0])
        print(json.dumps(wishes.stats()), flush=True)
    running.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="watchlines", description="An apiserver whose Devices change without end.")
    parser.add_argument("port", type=int)
    parser.add_argument("kubeconfig", type=Path)
    args = parser.parse_args()
    uvloop.run(_main(args.port, args.kubeconfig))  # it copies megabytes beside what is measured
