"""
A real mosquitto for tests: the broker that ours is judged beside, and the external broker of end-to-end tests.

    with Mosquitto() as mosquitto:
        client.connect("127.0.0.1", mosquitto.port)

stop() and start() again keep the port; what mosquitto held is gone unless `persistent`.
"""

import contextlib
import random
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

START_DEADLINE_S = 10.0
STOP_DEADLINE_S = 5.0


_DRAW = random.SystemRandom()  # hypothesis seeds the module's own, in all workers alike


def free_port() -> int:
    """
    A port nobody listens on at the moment.

    Not of those that the kernel gives to outgoing connections: one of these would take it while a killed process is
    being started again. Another test may take it first all the same, but that is one in thousands.
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = _DRAW.randrange(10_000, max(first_ephemeral, 20_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def executable() -> str | None:
    """Where mosquitto is; Debian puts it in /usr/sbin, which is not in everybody's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """One mosquitto process on loopback, for anonymous clients."""

    def __init__(self, *options: str, persistent: bool = False) -> None:
        """`options` are further lines of mosquitto.conf; `persistent` keeps sessions and retained messages on disk."""
        self.port = 0
        self._options = options
        self._persistent = persistent
        self._directory = tempfile.TemporaryDirectory(prefix="mosquitto-")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it accepts connections. RuntimeError, with its log, if it does not."""
        attempts = 1 if self.port else 5
        for _ in range(attempts):
            port = self.port or free_port()
            if self._try_start(port):
                self.port = port
                return
        raise RuntimeError(f"mosquitto did not start:\n{self.log()}")

    def stop(self) -> None:
        """Stop it, hard if it hesitates. Harmless if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        """What it wrote so far."""
        path = Path(self._directory.name, "log")
        return path.read_text(errors="replace") if path.exists() else ""

    def _try_start(self, port: int) -> bool:
        program = executable()
        if program is None:
            raise RuntimeError("mosquitto is not installed: apt-get install mosquitto")
        directory = Path(self._directory.name)
        lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "user root", *self._options]
        if self._persistent:
            lines += ["persistence true", f"persistence_location {directory}/", "autosave_interval 1"]
        else:
            lines += ["persistence false"]
        config = directory / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        with (directory / "log").open("ab") as log:
            self._process = subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                # Somebody else may listen there: ours would have ended with "Address already in use".
                time.sleep(0.01)
                if self._process.poll() is None:
                    return True
        self.stop()
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """stop(), and remove its files."""
        self.stop()
        self._directory.cleanup()
