"""
Mappers that report without end, as one cheap process: packets are made once, and only their numbers are written in.

    python -m tests.harness.flooder PORT DEVICES [--prefix NAME] [--values 2] [--client flooder]

Each line on its standard input is a command, answered with a line of JSON:

    flood RATE      offer so many reports a second from now on; 0: none
    settle          report a last value of every device until each is answered, as a mapper that wants to be heard
    ask             ask for the twin of every device: wishes that are open are told again
    stats           how it stands

*Offered* is what is due by the clock. What the broker does not take when it is due (its socket is full, or WINDOW
reports are unacknowledged) is not sent later: a sensor that is asked again in a moment has another value by then. What
is read of the device's wishes is remembered, by device. Quality of service 1 throughout. Ends with its standard input.
"""

import argparse
import collections
import json
import os
import re
import selectors
import socket
import struct
import time
from collections.abc import Sequence

TICK_S = 0.01  # one wake-up in it, however many answers come: what offers the load is to take little of the machine
WINDOW = 4000  # unacknowledged reports; far more than a broker keeps before it stops reading
OUT_BYTES = 64 << 10  # not yet taken by the socket
SETTLING = 64  # outstanding while the last values are told
AGAIN_S = 2.0  # a last value without an answer is told again
FIRST = 100_000_000  # all numbers have nine digits, so that a packet keeps its length
SETPOINT = b'"setpoint":"'
NUMBERS = [struct.pack("!H", number) for number in range(1, 1 << 16)]  # of packets
ACKS = re.compile(rb"(?:\x40\x02..)+", re.DOTALL)


def name_of(prefix: str, number: int) -> str:
    return f"{prefix}-{number:03}"


def _text(text: str) -> bytes:
    return struct.pack("!H", len(text.encode())) + text.encode()


def packet(kind: int, body: bytes) -> bytes:
    """A packet of MQTT 3.1.1: section 2.2.3 of the standard has the length."""
    length, size = len(body), bytearray()
    while True:
        length, low = divmod(length, 128)
        size.append(low | (128 if length else 0))
        if not length:
            return bytes([kind]) + size + body


def report(topic: str, event_id: str, properties: list[str], value: int) -> bytes:
    """A PUBLISH of quality of service 1 with packet id 1."""
    twin = {name: {"actual": {"value": str(value)}, "metadata": {"type": "int"}} for name in properties}
    payload = json.dumps({"event_id": event_id, "timestamp": 1, "twin": twin}, separators=(",", ":")).encode()
    return packet(0x32, _text(topic) + b"\0\1" + payload)


class Round:
    """A report of each device, all with one value: made once, and its numbers written in at once."""

    def __init__(self, topics: list[str], properties: list[str]) -> None:
        pieces = []
        for topic in topics:
            whole = report(topic, "", properties, FIRST)
            at = whole.index(_text(topic)) + len(_text(topic))
            ends = whole[:at], whole[at + 2 :].replace(str(FIRST).encode(), b"%b")
            pieces.append(ends[0].replace(b"%", b"%%") + b"%b" + ends[1])
        self._template = b"".join(pieces)
        self._step = 1 + len(properties)
        self.size = len(topics)

    def filled(self, numbers: Sequence[bytes], value: int) -> bytes:
        fields = [b"%d" % value] * (self._step * self.size)
        fields[:: self._step] = numbers
        return self._template % tuple(fields)


class Flooder:
    """One client of the broker."""

    def __init__(self, port: int, devices: int, prefix: str, properties: list[str], client: str) -> None:
        self.names = [name_of(prefix, number) for number in range(devices)]
        self._topics = [f"$hw/events/device/default/{name}/twin/update" for name in self.names]
        self._properties = properties
        self._round = Round(self._topics, properties)
        self._by_name = {name.encode(): number for number, name in enumerate(self.names)}
        self.rate = 0.0
        self._began = 0.0
        self._due_before = 0
        self.offered = self.sent = self.acked = self.wishes = 0
        self.last = 0
        """The last value that was sent of each device."""
        self.wished = [""] * devices
        """The last wish that was heard of each."""
        self._unanswered: dict[bytes, tuple[int, float]] = {}
        self._out = bytearray()
        self._in = bytearray()
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(packet(0x10, b"\0\4MQTT\4\2\0\0" + _text(client)))
        self._socket.sendall(packet(0x82, b"\0\1" + _text("$hw/events/device/+/+/twin/update/delta") + b"\0"))
        self._handshake = 2
        while self._handshake:
            self._take(self._socket.recv(4096))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    # What goes out

    def flood(self, rate: float) -> None:
        self.rate, self._began, self._due_before = rate, time.perf_counter(), 0

    def tick(self) -> None:
        """Send what is due, as far as it is taken."""
        self.write()
        size = self._round.size
        due = int((time.perf_counter() - self._began) * self.rate / size) if self.rate else 0
        count, self._due_before = due - self._due_before, due
        self.offered += count * size
        room = min(count, (WINDOW - (self.sent - self.acked)) // size) if len(self._out) < OUT_BYTES else 0
        for _ in range(room):
            self.last += 1
            at = self.sent % len(NUMBERS)
            numbers = NUMBERS[at : at + size] + NUMBERS[: max(0, at + size - len(NUMBERS))]
            self._out += self._round.filled(numbers, FIRST + self.last)
            self.sent += size
        if room > 0:
            self.write()

    def _next(self) -> bytes:
        self.sent += 1
        return NUMBERS[(self.sent - 1) % len(NUMBERS)]

    def write(self) -> None:
        while self._out:
            try:
                del self._out[: self._socket.send(self._out)]
            except BlockingIOError:
                return

    # What comes in

    def readable(self) -> None:
        data = self._socket.recv(1 << 18)
        if not data:
            raise SystemExit("the broker closed the connection")
        # mosquitto holds its next packet back until the last one is acknowledged.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._take(data)

    def _take(self, data: bytes) -> None:
        self._in += data
        buffer, place, size = self._in, 0, len(self._in)
        while place + 2 <= size:
            if acks := ACKS.match(buffer, place):
                self.acked += len(acks[0]) // 4
                place = acks.end()
                continue
            kind, length, at, shift = buffer[place], 0, place + 1, 0
            while at < size:
                length |= (buffer[at] & 127) << shift
                shift += 7
                at += 1
                if buffer[at - 1] < 128:
                    break
            else:
                break
            if at + length > size:
                break
            if kind >> 4 == 3:
                self._heard(bytes(buffer[at : at + length]))
            else:
                self._handshake -= 1
            place = at + length
        del self._in[:place]

    def _heard(self, body: bytes) -> None:
        end = 2 + struct.unpack_from("!H", body)[0]
        levels = body[2:end].split(b"/")
        if levels[-1] == b"result":
            event = body.partition(b'"event_id":"')[2].partition(b'"')[0]
            self._unanswered.pop(event, None)
            return
        found = body.find(SETPOINT, body.find(b'"delta":'))
        device = self._by_name.get(levels[4])
        if found >= 0 and device is not None:
            self.wishes += 1
            self.wished[device] = body[found + len(SETPOINT) : body.index(b'"', found + len(SETPOINT))].decode()

    # The end

    def settle(self, wait: "Waiter", within_s: float = 120.0) -> None:
        """Raises SystemExit where some device is never answered."""
        self.flood(0)
        by = time.perf_counter() + within_s
        self._out += packet(0x82, b"\0\2" + _text("$hw/events/device/+/+/twin/update/result") + b"\0")
        waiting = collections.deque(range(len(self.names)))
        self.last += 1
        while waiting or self._unanswered:
            now = time.perf_counter()
            if now > by:
                raise SystemExit(f"{len(waiting) + len(self._unanswered)} last values without an answer")
            for event, (device, at) in list(self._unanswered.items()):
                if now - at > AGAIN_S:
                    del self._unanswered[event]
                    waiting.append(device)
            while waiting and len(self._unanswered) < SETTLING:
                device = waiting.popleft()
                number = self._next()
                event_id = f"last-{device}-{self.sent}"
                whole = report(self._topics[device], event_id, self._properties, FIRST + self.last)
                at = whole.index(_text(self._topics[device])) + len(_text(self._topics[device]))
                self._out += whole[:at] + number + whole[at + 2 :]
                self._unanswered[event_id.encode()] = (device, now)
            wait.once()

    def ask(self) -> None:
        for name in self.names:
            topic = _text(f"$hw/events/device/default/{name}/twin/get")
            self._out += packet(0x32, topic + self._next() + b'{"event_id":"ask"}')
        self.write()

    def stats(self) -> dict[str, object]:
        return {
            "offered": self.offered,
            "sent": self.sent,
            "acked": self.acked,
            "wishes": self.wishes,
            "last": dict.fromkeys(self.names, str(FIRST + self.last)),
            "wished": dict(zip(self.names, self.wished, strict=True)),
            "processor_s": time.process_time(),
        }


class Waiter:
    """Commands and the socket, looked at once in a tick."""

    def __init__(self, flooder: Flooder) -> None:
        self.flooder = flooder
        self.commands: collections.deque[str] = collections.deque()
        self.is_over = False
        self._line = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(flooder, selectors.EVENT_READ)
        os.set_blocking(0, False)
        self._selector.register(0, selectors.EVENT_READ)

    def once(self) -> None:
        time.sleep(TICK_S)
        for key, _ in self._selector.select(0):
            if key.fileobj is self.flooder:
                self.flooder.readable()
            else:
                data = os.read(0, 4096)
                self.is_over = self.is_over or not data
                *lines, self._line = (self._line + data).split(b"\n")
                self.commands += [line.decode() for line in lines]
        self.flooder.tick()


def main() -> None:
    parser = argparse.ArgumentParser(prog="flooder", description="Mappers that report without end.")
    parser.add_argument("port", type=int)
    parser.add_argument("devices", type=int)
    parser.add_argument("--prefix", default="thermo", help="of the devices' names: PREFIX-000 ..")
    parser.add_argument("--values", type=int, default=2, help="properties in one report: p0 ..")
    parser.add_argument("--client", default="flooder")
    args = parser.parse_args()
    properties = [f"p{number}" for number in range(args.values)]
    flooder = Flooder(args.port, args.devices, args.prefix, properties, args.client)
    waiter = Waiter(flooder)
    while not waiter.is_over:
        waiter.once()
        while waiter.commands:
            command, *words = waiter.commands.popleft().split()
            if command == "flood":
                flooder.flood(float(words[0]))
            elif command == "settle":
                flooder.settle(waiter)
            elif command == "ask":
                flooder.ask()
            print(json.dumps(flooder.stats()), flush=True)


if __name__ == "__main__":
    main()
