"""Two ends of a link without a hub or an edge behind them: what the tests of both transports speak through."""

import asyncio

from link.errors import LinkError
from link.frames import PROTOCOL, Frame, Hello, Welcome
from link.peer import Peer, Role
from link.pump import Pump, Transport

HELLO = Hello(PROTOCOL, "n", None, b"", "test", 1)


class Side:
    """A handler that answers a Hello and keeps what it is given."""

    def __init__(self, role: Role, answer: bool = True, heartbeat_s: float = 20.0) -> None:
        self.role = role
        self.answer = answer
        self.heartbeat_s = heartbeat_s
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.lost: asyncio.Future[LinkError] = asyncio.get_running_loop().create_future()
        self.pump: Pump

    def opened(self, connection: Transport) -> Pump:
        loop = asyncio.get_running_loop()
        self.pump = Pump(Peer(self.role, loop.time()), connection, self, loop)
        if self.role is Role.EDGE:
            self.pump.send(HELLO)
        return self.pump

    def frame_received(self, frame: Frame) -> None:
        self.frames.put_nowait(frame)
        if isinstance(frame, Hello) and self.answer:
            self.pump.send(Welcome("e", 0, False, self.heartbeat_s))

    def link_lost(self, error: LinkError) -> None:
        self.lost.set_result(error)
