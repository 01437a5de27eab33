"""Bodies in pieces: whatever is put ahead, and whatever becomes of it, what is read is what was committed."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apimachinery.keys import Resource
from apimachinery.objects import revision_of
from apimachinery.resources import CONFIG_MAPS, SECRETS
from link.frames import Delta
from metamanager import records
from metamanager.errors import StoreCorrupt, StoreFull
from metamanager.intake import take
from metamanager.largebodies import LARGE_BYTES, PIECE_BYTES, is_large
from metamanager.overlay import LocalWrite
from metamanager.store import Store
from tests.harness.store_history import batch, removal, upsert


def made(text: str, name: str = "large", resource: Resource = CONFIG_MAPS, length: int = 3 * PIECE_BYTES) -> Delta:
    return upsert(resource, name, text * (length // len(text)))


def come(delta: Delta) -> Delta:
    """As a transfer brings it."""
    assert delta.version is not None
    return delta._replace(body=b"", size=len(delta.body), taken=take(delta))


def pieces(path: Path) -> dict[int, int]:
    """How many there are, by the number of the body."""
    connection = sqlite3.connect(path / "edge.db")
    found = dict(connection.execute("SELECT number, count(*) FROM pieces GROUP BY number").fetchall())
    connection.close()
    return found


async def put(store: Store, delta: Delta, most: int = 1 << 30) -> None:
    """So many pieces at most."""
    left = most

    def goes_on() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    await store.put_ahead(take(delta), goes_on)


async def body(store: Store, delta: Delta) -> bytes | None:
    found = await store.get(delta.key)
    return None if found is None else found.object.body


async def test_what_was_put_ahead_is_what_the_commit_brings_and_others_commit_in_between(tmp_path: Path) -> None:
    large, small = made("ab"), upsert(CONFIG_MAPS, "small", 1)
    store = await Store.open(tmp_path / "edge.db")
    putting = asyncio.create_task(put(store, large), name="put")
    await asyncio.sleep(0)
    await store.apply([batch(1, small)])
    assert not putting.done(), "it waited for one piece at most"
    await putting
    assert await body(store, large) is None, "it is not committed"
    assert set(pieces(tmp_path).values()) == {4}
    applied = await store.apply([batch(2, come(large), synced=True)])
    assert [change.object.body for change in applied.changes] == [large.body]
    assert await body(store, large) == large.body
    await store.close()
    store = await Store.open(tmp_path / "edge.db")
    found, _ = await store.list(CONFIG_MAPS)
    assert [each.object.body for each in found] == [large.body, small.body]
    assert {entry.key: entry.version for entry in await store.held()}[large.key] == large.version
    await store.apply([batch(3, removal(large))])
    assert await body(store, large) is None
    assert pieces(tmp_path) == {}
    await store.close()


@pytest.mark.parametrize(
    "delta",
    [upsert(CONFIG_MAPS, "small", "x" * (LARGE_BYTES // 2)), made("s", resource=SECRETS)],
    ids=["small", "a Secret"],
)
async def test_nothing_is_put_ahead_of_what_is_small_or_secret(delta: Delta, tmp_path: Path) -> None:
    assert not is_large(take(delta))
    store = await Store.open(tmp_path / "edge.db")
    await put(store, delta)
    assert pieces(tmp_path) == {}
    await store.apply([batch(1, come(delta))])
    assert (await body(store, delta), pieces(tmp_path)) == (delta.body, {})
    await store.close()


@pytest.mark.parametrize("between", [removal(made("ab")), come(made("cd"))], ids=["a removal", "another version"])
async def test_a_version_that_comes_again_without_being_put_is_not_looked_for_where_it_was(
    between: Delta, tmp_path: Path
) -> None:
    large = made("ab")
    store = await Store.open(tmp_path / "edge.db")
    await put(store, large)
    await store.apply([batch(1, come(large))])
    await store.apply([batch(2, between)])
    await store.apply([batch(3, come(large))])
    assert await body(store, large) == large.body
    await store.close()


async def test_a_local_write_that_is_settled_leaves_what_it_was_laid_over_where_it_is(tmp_path: Path) -> None:
    large = made("ab")
    assert large.version is not None
    store = await Store.open(tmp_path / "edge.db")
    await store.apply([batch(1, come(large))])  # as a difference brings it
    await put(store, large)
    held = await store.get(large.key)
    assert held is not None
    patch = b'{"status":{"phase":"Running"}}'
    write = LocalWrite(0, large.key, "status", large.version.uid, False, "user", 0, 0, patch)
    await store.write_locally(write, held.revision)
    (kept,) = await store.local_writes()
    await store.settle_locally(kept.seq)
    await put(store, made("cd"))
    assert await body(store, large) == large.body
    await store.close()


async def test_a_version_that_is_said_of_two_bodies_is_not_taken_for_one(tmp_path: Path) -> None:
    large, other = made("ab"), made("cd")
    same = other._replace(version=large.version)
    store = await Store.open(tmp_path / "edge.db")
    await put(store, large)
    await store.apply([batch(1, come(same))])
    assert await body(store, large) == other.body
    await store.apply([batch(2, removal(same))])
    await put(store, large)
    await store.apply([batch(3, come(large))])
    assert await body(store, large) == large.body
    await store.close()


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-32-be"])
async def test_json_that_begins_with_a_nul_is_no_pointer(encoding: str, tmp_path: Path) -> None:
    plain = upsert(CONFIG_MAPS, "wide", "x")
    assert plain.version is not None
    text = plain.body.decode().encode(encoding)
    wide = plain._replace(version=plain.version._replace(revision=revision_of(text)), body=text)
    store = await Store.open(tmp_path / "edge.db")
    await store.apply([batch(1, wide)])
    assert await body(store, wide) == text
    await store.close()


TEXTS = ("a", "b", "c")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("mn"), st.sampled_from(TEXTS), st.sampled_from((1, 2, 9))),
        st.tuples(st.just("commit"), st.sampled_from("mn"), st.sampled_from((*TEXTS, "small")), st.just(0)),
        st.tuples(st.just("remove"), st.sampled_from("mn"), st.just(""), st.just(0)),
        st.tuples(st.just("open"), st.just(""), st.just(""), st.just(0)),
    ),
    max_size=14,
)


@given(STEPS)
@settings(max_examples=60)
def test_whatever_is_put_and_whatever_comes_what_is_read_is_what_was_committed(
    steps: list[tuple[str, str, str, int]],
) -> None:
    async def run(directory: Path) -> None:
        store, model = await Store.open(directory / "edge.db"), dict[str, Delta]()
        for seq, (kind, name, text, most) in enumerate(steps, 1):
            delta = upsert(CONFIG_MAPS, name, "s") if text == "small" else made(text or "x", name)
            match kind:
                case "put":
                    await put(store, delta, most)
                case "commit":
                    await store.apply([batch(seq, come(delta))])
                    model[name] = delta
                case "remove":
                    await store.apply([batch(seq, removal(delta))])
                    model.pop(name, None)
                case _:
                    await store.close()
                    store = await Store.open(directory / "edge.db")
                    assert len(pieces(directory)) <= len(model), "what nobody points to is gone"
            for each in "mn":
                expected = model[each].body if each in model else None
                assert await body(store, upsert(CONFIG_MAPS, each, 1)) == expected
            assert len(pieces(directory)) <= len(model) + 1
        await store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


async def test_where_the_disk_is_full_the_piece_is_not_there_and_nothing_else_is_lost(tmp_path: Path) -> None:
    kept, large = upsert(CONFIG_MAPS, "kept", 1), made("ab", length=8 * PIECE_BYTES)
    store = await Store.open(tmp_path / "edge.db", max_bytes=6 * PIECE_BYTES)
    await store.apply([batch(1, kept)])
    with pytest.raises(StoreFull):
        await put(store, large)
    with pytest.raises(StoreFull):
        await store.apply([batch(2, come(large))])
    other = made("cd")
    await put(store, other)
    await store.apply([batch(2, come(other))])
    assert [await body(store, each) for each in (kept, large, other)] == [kept.body, other.body, other.body]
    await store.close()


async def test_what_does_not_fit_takes_nobody_elses_room(tmp_path: Path) -> None:
    large, pod = made("ab", length=8 * PIECE_BYTES), upsert(CONFIG_MAPS, "pod", "x" * PIECE_BYTES)
    store = await Store.open(tmp_path / "edge.db", max_bytes=6 * PIECE_BYTES)
    with pytest.raises(StoreFull):
        await put(store, large)
    await store.apply([batch(1, pod)])
    assert await body(store, pod) == pod.body
    await store.close()


async def test_what_made_room_for_others_amid_its_pieces_is_written_by_its_commit(tmp_path: Path) -> None:
    large, pod = made("ab"), upsert(CONFIG_MAPS, "pod", "x" * 4 * PIECE_BYTES)
    store = await Store.open(tmp_path / "edge.db", max_bytes=5 * PIECE_BYTES)
    others = list[asyncio.Task[object]]()

    def goes_on() -> bool:
        if pieces(tmp_path) and not others:
            others.append(asyncio.create_task(store.apply([batch(1, pod)]), name="pod"))
        return True

    await store.put_ahead(take(large), goes_on)
    (outcome,) = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(outcome, StoreFull)
    await store.apply([batch(2, come(large))])
    assert await body(store, large) == large.body
    await store.close()


async def test_what_is_put_ahead_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = made("ab", length=8 * PIECE_BYTES)
    monkeypatch.setattr(records, "MAX_STORE_BYTES", len(large.body) + 3 * PIECE_BYTES)
    store = await Store.open(tmp_path / "edge.db")
    await put(store, large)
    applied = await store.apply([batch(1, come(large), come(large))])
    assert applied.refusals == {}
    assert set(pieces(tmp_path).values()) == {9}, "it was put ahead, all of it"
    await store.close()


@pytest.mark.parametrize("most", [2, 9])
async def test_what_a_killed_process_had_put_is_taken_away(most: int, tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from metamanager.store import Store
from tests.test_metamanager_largebodies import come, made, put
from tests.harness.store_history import batch

async def main():
    store = await Store.open(Path(sys.argv[1]) / "edge.db")
    await put(store, made("ab"))
    await store.apply([batch(1, come(made("ab")))])
    await put(store, made("cd"), {most})
    print("put", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "put\n"
        os.kill(victim.pid, signal.SIGKILL)
    assert len(pieces(tmp_path)) == 2
    store = await Store.open(tmp_path / "edge.db")
    assert list(pieces(tmp_path).values()) == [4]
    assert await body(store, made("ab")) == made("ab").body
    await put(store, made("cd"))
    await store.apply([batch(2, come(made("cd")))])
    assert await body(store, made("ab")) == made("cd").body
    assert list(pieces(tmp_path).values()) == [4]
    await store.close()


def without(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM pieces WHERE place = 1")
    connection.commit()
    connection.close()


def changed(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE pieces SET body = zeroblob(length(body)) WHERE place = 1")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("damage", [without, changed])
async def test_a_piece_that_is_not_what_was_written_is_damage(damage: Callable[[Path], None], tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "edge.db")
    await put(store, made("ab"))
    await store.apply([batch(1, come(made("ab")))])
    await store.close()
    damage(tmp_path / "edge.db")
    store = await Store.open(tmp_path / "edge.db")
    with pytest.raises(StoreCorrupt, match="is not what was written"):
        await body(store, made("ab"))
    await store.close()
