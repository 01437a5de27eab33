"""What is put in place of a renewal, after a crash at any moment, and what a running node says of its certificate."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apimachinery.keys import Node
from componentbase import pki
from componentbase.endpoints import Endpoint
from edgehub.connector import LinkStatus
from edgehub.join import join
from edgehub.renewal import READY, STAGED, Renewal, replaces, settle
from tests.harness.joining import joinable_hub

EDGE = Node("edge-1")
FILES = ("ca.crt", "edge.crt", "edge.key", "api.crt", "api.key")
CA = pki.create_ca("fairlead", 10)


def identity(number: int) -> dict[str, bytes]:
    pair = pki.issue_server_cert(CA, [f"number-{number}"], 1)
    return {name: f"{name} {number}".encode() for name in FILES} | {"edge.crt": pair.cert_pem}


OLD, NEW, OTHER = identity(1), identity(2), identity(3)


def lay(home: Path, used: dict[str, bytes], staged: dict[str, bytes], ready: bytes | None) -> None:
    for folder, files in ((home / "pki", used), (home / STAGED / "pki", staged)):
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    if ready is not None:
        (home / STAGED / READY).write_bytes(ready)


def used(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home / "pki").iterdir()}


@pytest.mark.parametrize("moved", range(len(FILES) + 1))
def test_after_a_crash_in_the_middle_the_rest_is_moved(tmp_path: Path, moved: int) -> None:
    first, rest = FILES[:moved], FILES[moved:]
    ready = replaces(OLD["edge.crt"], NEW["edge.crt"])
    lay(tmp_path, OLD | {name: NEW[name] for name in first}, {name: NEW[name] for name in rest}, ready)
    assert settle(tmp_path)
    assert used(tmp_path) == NEW
    assert not (tmp_path / STAGED).exists()
    assert not settle(tmp_path)


def test_what_is_not_ready_stays_where_it_is(tmp_path: Path) -> None:
    lay(tmp_path, OLD, NEW, None)
    assert not settle(tmp_path)
    assert used(tmp_path) == OLD
    assert (tmp_path / STAGED / "pki" / "edge.key").exists(), "the hub may have signed for this key"


def test_what_was_got_for_another_identity_is_thrown_away(tmp_path: Path) -> None:
    lay(tmp_path, OTHER, NEW, replaces(OLD["edge.crt"], NEW["edge.crt"]))
    assert not settle(tmp_path)
    assert used(tmp_path) == OTHER
    assert not (tmp_path / STAGED).exists()


def test_a_directory_without_certificates_is_not_half_filled(tmp_path: Path) -> None:
    (tmp_path / STAGED).mkdir()
    (tmp_path / STAGED / READY).write_bytes(replaces(OLD["edge.crt"], NEW["edge.crt"]))
    assert not settle(tmp_path)
    assert not (tmp_path / "pki").exists()


async def test_a_running_node_renews_in_time_and_when_asked_and_says_what_keeps_it(
    tmp_path: Path, free_port: int
) -> None:
    home, renewed = tmp_path / "edge", asyncio.Event()
    async with joinable_hub(node_s=60.0) as hub:
        await asyncio.to_thread(join, hub.endpoint, await hub.token(), EDGE, home, lambda _: "")
        renewal = Renewal(home, EDGE, hub.endpoint, LinkStatus(), renewed.set, lambda: 0.5)
        first = renewal.validity
        assert first.lapses - first.made == timedelta(seconds=60)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(renewal.run(), name="renewal")
            renewal.ask()
            await renewed.wait()
            running.cancel()
        assert renewal.validity.lapses >= first.lapses
        assert renewal.problem == ""
        (home / STAGED).mkdir()
        renewed.clear()
        again = Renewal(home, EDGE, hub.endpoint, LinkStatus(), renewed.set, lambda: 0.5)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(again.run(), name="renewal")
            await renewed.wait()  # what was begun is finished at once: it is not due for half a minute
            running.cancel()
    gone = Renewal(home, EDGE, Endpoint("127.0.0.1", free_port), LinkStatus(), renewed.set, lambda: 0.5)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(gone.run(), name="renewal")
        gone.ask()
        while not gone.problem:
            await asyncio.sleep(0.02)
        running.cancel()
    assert "nothing listens at" in gone.problem
    assert gone.validity.lapses > datetime.now(UTC)
