"""Real database servers for tests, each a process of its own on loopback with a password, killed at the end."""

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conftest import need_tool
from tests.harness.mosquitto import free_port

PASSWORD = "right password"
START_DEADLINE_S = 30.0


class Server:
    """kill() and start() keep port and data."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        log = self.directory / "server.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(self.command(), stdout=out, stderr=out, cwd=self.directory)
        by = time.monotonic() + START_DEADLINE_S
        while True:
            assert self._process.poll() is None, log.read_text()[-2000:]
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < by, log.read_text()[-2000:]
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class Redis(Server):
    def command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "requirepass": PASSWORD,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "dir": str(self.directory),
        }
        return [
            str(need_tool("redis-server")),
            *(each for key, value in options.items() for each in (f"--{key}", value)),
        ]


class MariaDb(Server):
    """With a database `edge` and a user `mapper` who may do anything there."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._data = directory / "data"
        init = directory / "init.sql"
        init.write_text(
            "CREATE DATABASE IF NOT EXISTS edge;\n"
            f"CREATE USER IF NOT EXISTS mapper@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON edge.* TO mapper@'127.0.0.1';\n"
        )
        subprocess.run(
            [
                str(need_tool("mariadb-install-db")),
                *("--no-defaults", "--user=root", f"--datadir={self._data}", "--skip-test-db"),
            ],
            check=True,
            capture_output=True,
        )

    def command(self) -> list[str]:
        return [
            str(need_tool("mariadbd")),
            *("--no-defaults", "--user=root", f"--datadir={self._data}", f"--port={self.port}"),
            *("--bind-address=127.0.0.1", f"--socket={self.directory}/sock", f"--init-file={self.directory}/init.sql"),
            *("--innodb-buffer-pool-size=8M", "--skip-name-resolve"),
        ]
