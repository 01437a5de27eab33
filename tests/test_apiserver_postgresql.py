"""`apiserver run` on a real PostgreSQL: what was answered is there, whoever is killed, and nobody writes beside it."""

import asyncio
import http.client
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import Unavailable
from apiserver import storage as storage_module
from apiserver.database import StorageError
from apiserver.storage import Storage
from tests.harness.databases import PASSWORD, Postgres
from tests.harness.proxy import Proxy
from tests.test_apiserver_dev import DEADLINE_S, Apiserver, fails, running
from tests.test_apiserver_storage import key, put

_HERE = "plural = 'configmaps' AND namespace = 'default'"
PLACE = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """A name for the test's own database."""
    return str(request.node.name)[:60]


def until(holds: Callable[[], bool], what: str) -> None:
    by = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < by, what
        time.sleep(0.02)


class Writer(threading.Thread):
    """Creates objects one after another until told to stop; knows which were answered with what."""

    def __init__(self, server: Apiserver, prefix: str) -> None:
        super().__init__(name="writer")
        self._server = server
        self._prefix = prefix
        self._told = threading.Event()
        self.created: list[str] = []
        self.refused: dict[str, Any] = {}

    def run(self) -> None:
        numbers = itertools.count()
        while not self._told.is_set():
            try:
                with self._server.connected() as ask:
                    while not self._told.is_set():
                        name = f"{self._prefix}-{next(numbers)}"
                        status, answer = ask("POST", PLACE, {"metadata": {"name": name}, "data": {"x": "y" * 500}})
                        if status == 201:
                            self.created.append(name)
                        else:
                            self.refused[name] = answer
            except (OSError, http.client.HTTPException):
                if not self._server.is_running:
                    return

    def stop(self) -> None:
        self._told.set()
        self.join(DEADLINE_S)
        assert not self.is_alive()


def listed(server: Apiserver) -> dict[str, int]:
    """Names to the revisions they were made at."""
    status, answer = server.request("GET", PLACE)
    assert status == 200
    return {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in answer["items"]}


def is_whole(server: Apiserver, postgres: Postgres, database: str) -> None:
    """Memory and database hold the same, and each revision is one change."""
    status, answer = server.request("GET", PLACE)
    assert status == 200
    kept = postgres.query(
        "SELECT name, revision FROM objects WHERE plural = 'configmaps' AND namespace = 'default'", database
    )
    assert dict(kept) == listed(server)
    ((count, least, last),) = postgres.query("SELECT count(*), min(revision), max(revision) FROM objects", database)
    assert (count, least) == (last, 1), "nothing was changed or deleted, so revisions are dense"
    assert postgres.query("SELECT value FROM counters WHERE name = 'revision'", database) == [(last,)]
    assert int(answer["metadata"]["resourceVersion"]) == last


def test_everything_is_there_after_a_restart(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with running(tmp_path, None, "--database-url", postgres.create(database)) as server:
        for name in ("a", "b"):
            assert server.request("POST", PLACE, {"metadata": {"name": name}, "data": {"x": "ü\x01"}})[0] == 201
        server.request("PATCH", f"{PLACE}/a", {"data": {"x": "2"}})
        server.request("DELETE", f"{PLACE}/b")
        before = server.request("GET", "/api/v1/configmaps")
        assert server.stop() == 0
        server.start()
        assert server.request("GET", "/api/v1/configmaps") == before
        assert not (server.data / "apiserver.db").exists()


def test_a_killed_apiserver_has_what_it_answered(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with running(tmp_path, None, "--database-url", postgres.create(database)) as server:
        answered: list[str] = []
        for round_number in range(2):
            writer = Writer(server, f"r{round_number}")
            writer.start()
            until(lambda writer=writer: len(writer.created) > 20, "no writes")  # type: ignore[misc]
            server.stop(signal.SIGKILL)
            writer.stop()
            answered += writer.created
            server.start()
            assert set(answered) <= set(listed(server))
            is_whole(server, postgres, database)


def test_a_killed_database_stops_writes_and_nothing_else(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with running(tmp_path, None, "--database-url", postgres.create(database)) as server:
        writer = Writer(server, "w")
        writer.start()
        until(lambda: len(writer.created) > 20, "no writes")
        postgres.kill()
        until(lambda: len(writer.refused) > 3, "no write was refused")
        known = listed(server)
        assert set(writer.created) <= set(known)
        answer = list(writer.refused.values())[-1]  # at once: the writer goes on
        assert (answer["code"], answer["reason"]) == (503, "ServiceUnavailable")
        assert answer["details"]["retryAfterSeconds"] == 5
        assert "Is the server running" in answer["message"]
        assert PASSWORD not in answer["message"]
        postgres.start()
        done = len(writer.created)
        until(lambda: len(writer.created) > done + 20, "writes did not come back")
        writer.stop()
        assert set(writer.created) <= set(listed(server))
        is_whole(server, postgres, database)
        before = listed(server)
        server.stop(signal.SIGKILL)
        server.start()
        assert listed(server) == before


def test_a_commit_whose_answer_was_lost_shows_by_itself(tmp_path: Path, postgres: Postgres, database: str) -> None:
    """The server waits for a replica that does not exist: committed, and not yet said so."""
    with running(tmp_path, None, "--database-url", postgres.create(database)) as server:
        postgres.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        postgres.query("SELECT pg_reload_conf()")
        answers: list[tuple[int, Any]] = []
        body = {"metadata": {"name": "doubtful"}}
        asking = threading.Thread(target=lambda: answers.append(server.request("POST", PLACE, body)))
        asking.start()
        try:
            waits = f"FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'SyncRep'"
            until(lambda: bool(postgres.query(f"SELECT pid {waits}")), "no commit waits")
            assert "doubtful" not in listed(server)
            postgres.query(f"SELECT pg_terminate_backend(pid) {waits}")
            asking.join(DEADLINE_S)
        finally:
            postgres.query("ALTER SYSTEM RESET synchronous_standby_names")
            postgres.query("SELECT pg_reload_conf()")
            asking.join(DEADLINE_S)
        assert answers[0][0] == 503
        until(lambda: "doubtful" in listed(server), "what is in the database does not show")
        assert server.request("POST", PLACE, body)[1]["reason"] == "AlreadyExists"
        assert server.request("POST", PLACE, {"metadata": {"name": "next"}})[0] == 201
        is_whole(server, postgres, database)


async def test_a_database_that_falls_silent_is_given_up(
    monkeypatch: pytest.MonkeyPatch, postgres: Postgres, database: str
) -> None:
    """Nothing is reset: only the time that passes tells."""
    url = postgres.create(database)
    with Proxy(postgres.port) as proxy:
        async with Storage.open(url.replace(str(postgres.port), str(proxy.port))) as storage, asyncio.timeout(30):
            await storage.commit(put("a"))
            proxy.stall()
            with monkeypatch.context() as hasty:
                hasty.setattr(storage_module, "ANSWER_S", 0.3)
                with pytest.raises(Unavailable, match="cannot be stored"):
                    await storage.commit(put("b"))
            assert await storage.get(key("a")) is not None
            proxy.heal()
            while True:
                try:
                    await storage.commit(put("c"))
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
            assert storage.revision == 2
    assert postgres.query("SELECT name, revision FROM objects ORDER BY revision", database) == [("a", 1), ("c", 2)]


def test_two_apiservers_do_not_share_a_database(tmp_path: Path, postgres: Postgres, database: str) -> None:
    url = postgres.create(database)
    with running(tmp_path, None, "--database-url", url) as server:
        told = fails("run", "--data-dir", tmp_path / "other", "--listen", "127.0.0.1:0", "--database-url", url)
        assert "in use by another apiserver; stop that one or choose another database" in told
        assert PASSWORD not in told
        assert server.request("POST", PLACE, {"metadata": {"name": "a"}})[0] == 201


def test_who_lost_the_database_to_another_stops(tmp_path: Path, postgres: Postgres, database: str) -> None:
    """As when the network between the first and its database was cut for long."""
    url = postgres.create(database)
    with running(tmp_path, None, "--database-url", url) as first:
        mine = f"FROM pg_stat_activity WHERE datname = '{database}'"
        postgres.query(f"SELECT pg_terminate_backend(pid) {mine}")
        (tmp_path / "second").mkdir()
        with running(tmp_path / "second", None, "--database-url", url) as second:
            assert second.request("POST", PLACE, {"metadata": {"name": "of-the-second"}})[0] == 201
            assert first.request("POST", PLACE, {"metadata": {"name": "of-the-first"}})[0] == 503
            assert second.stop() == 0
        assert first.wait() == 1
        last = first.log.read_text().splitlines()[-1]
        assert "another apiserver has taken the database over" in last
        first.start()
        assert "of-the-second" in listed(first)
        assert "of-the-first" not in listed(first)


def test_a_database_that_was_put_back_is_noticed(tmp_path: Path, postgres: Postgres, database: str) -> None:
    with running(tmp_path, None, "--database-url", postgres.create(database)) as server:
        postgres.query("UPDATE counters SET value = value - 5 WHERE name = 'revision'", database)
        assert server.request("POST", PLACE, {"metadata": {"name": "a"}})[0] == 503
        assert server.wait() == 1
        assert "was a backup restored" in server.log.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("right%20password", "wrong"), "password authentication failed"),
        (("", ""), 'database "nowhere" does not exist'),
        (("+psycopg", "+psycopg9"), "+psycopg"),
        (("postgresql+psycopg", "mysql+pymysql"), "SQLite and PostgreSQL are supported"),
        (("postgresql+psycopg://", ""), "write postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"),
        (("127.0.0.1:", "127.0.0.2:"), "Is the server running on that host"),
    ],
)
async def test_a_database_that_cannot_be_used_is_said_in_words(
    postgres: Postgres, change: tuple[str, str], words: str
) -> None:
    with pytest.raises(StorageError) as caught:
        async with Storage.open(postgres.url("nowhere").replace(*change)):
            pass
    assert words in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert "right%20password" not in str(caught.value)
