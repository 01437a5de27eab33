"""
A serial cable without a serial port: two pseudo-terminals, and a thread that carries bytes from one to the other.

    with Cable() as cable:
        start_a_device_on(cable.far_end)
        open(cable.near_end)
"""

import os
import selectors
import threading
import tty
from types import TracebackType
from typing import Self

CHUNK_BYTES = 4096


class Cable:
    def __init__(self) -> None:
        self._masters: list[int] = []
        self._slaves: list[int] = []
        for _ in range(2):
            master, slave = os.openpty()
            tty.setraw(slave)
            self._masters.append(master)
            self._slaves.append(slave)  # kept open, or the master reads an error while nobody has the other end
        self.near_end, self.far_end = (os.ttyname(slave) for slave in self._slaves)
        self._stop_reader, self._stop_writer = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="cable")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._stop_writer)
        self._thread.join()
        for each in (*self._masters, *self._slaves, self._stop_reader):
            os.close(each)

    def _carry(self) -> None:
        near, far = self._masters
        with selectors.DefaultSelector() as selector:
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            selector.register(self._stop_reader, selectors.EVENT_READ, None)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    os.write(key.data, os.read(key.fd, CHUNK_BYTES))
