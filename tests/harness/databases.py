"""Real database servers for tests, each a process of its own on loopback with a password, killed at the end."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import psycopg

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


class Postgres(Server):
    """With a superuser `postgres`. It refuses to run as root, and then is the system's user of that name."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        # Not in the test's own directory, which another user cannot enter.
        self._data = Path(tempfile.mkdtemp(prefix="fairlead-postgres-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self._data, "postgres", "postgres")
        password = self._data / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        subprocess.run(
            [
                str(need_tool("initdb")),
                *("--pgdata", str(self._data / "data"), "--username=postgres", f"--pwfile={password}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=self._data,
            **self._as,
        )

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres:{quote(PASSWORD)}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """The URL of a new database."""
        self.query(f'CREATE DATABASE "{database}"')
        return self.url(database)

    def command(self) -> list[str]:
        settings = {"unix_socket_directories": "", "shared_buffers": "16MB", "max_connections": "20"}
        return [
            str(need_tool("postgres")),
            *("-D", str(self._data / "data"), "-h", "127.0.0.1", "-p", str(self.port)),
            *(each for key, value in settings.items() for each in ("-c", f"{key}={value}")),
        ]

    def start(self) -> None:
        """Returns once it answers; after a kill it reads its log first."""
        log = self.directory / "server.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                self.command(), stdout=out, stderr=out, cwd=self._data, start_new_session=True, **self._as
            )
        by = time.monotonic() + START_DEADLINE_S
        while True:
            assert self._process.poll() is None, log.read_text()[-2000:]
            try:
                self.query("SELECT 1")
            except psycopg.OperationalError:
                assert time.monotonic() < by, log.read_text()[-2000:]
                time.sleep(0.02)
            else:
                return

    def query(self, text: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of a statement, committed."""
        address = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "password": PASSWORD}
        with psycopg.connect(**address, dbname=database, connect_timeout=5, autocommit=True) as connection:  # type: ignore[arg-type]
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """kill -9 to every process of it: the survivors of a killed postmaster would hold the data directory."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        super().kill()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, exc, traceback)
        shutil.rmtree(self._data, ignore_errors=True)
