"""The ring of what devices said: thinned, bounded, gone with its device."""

from pathlib import Path

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from metamanager.errors import StoreError
from metamanager.history import MAX_VALUE_BYTES, SLACK, SLOT_MS, Sample, read_file
from metamanager.store import Store

START = 1_800_000_000_000


def key(name: str = "thermo") -> ObjectKey:
    return ObjectKey(DEVICES, "default", name)


async def say(store: Store, at_ms: int, value: str | None, name: str = "temperature", device: str = "thermo") -> None:
    await store.save({}, (), samples={(key(device), name): (START + at_ms, value)})


async def test_what_was_said_is_told_with_what_was_before(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "edge.db")
    for at_ms, value in ((0, "20"), (60_000, "21"), (120_000, None), (180_000, "22")):
        await say(store, at_ms, value)
    await say(store, 0, "on", "heater")
    await say(store, 0, "7", device="other")
    found = await store.history(key(), "temperature", START + 60_000)
    assert found.samples == [
        Sample(START, "20"),
        Sample(START + 60_000, "21"),
        Sample(START + 120_000, None),
        Sample(START + 180_000, "22"),
    ]
    assert found.properties == ["heater", "temperature"]
    assert (await store.history(key("nobody"), "temperature", 0)).samples == []
    await store.close()


async def test_of_what_comes_faster_than_a_slot_the_last_stays(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "edge.db")
    for number in range(100):
        await say(store, number * SLOT_MS // 20, str(number))
    found = await store.history(key(), "temperature", START)
    assert [each.value for each in found.samples] == ["19", "39", "59", "79", "99"]
    await store.close()


async def test_the_oldest_make_room(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "edge.db", history_rows=50)
    for number in range(3 * SLACK):
        await store.save(
            {}, (), samples={(key("new" if number > SLACK else "old"), "t"): (START + number * SLOT_MS, str(number))}
        )
    found = await store.history(key("new"), "t", 0)
    assert 50 <= len(found.samples) <= 50 + SLACK
    assert found.samples[-1].value == str(3 * SLACK - 1)
    # Not even the name of what was forgotten is kept.
    assert (await store.history(key("old"), "t", 0)).properties == []
    await store.close()


async def test_a_device_that_goes_takes_its_history_along_and_its_successor_begins_anew(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "edge.db")
    await say(store, 0, "20")
    await store.save({}, (), samples={(key(), "temperature"): (START + 99_000, "1")}, gone=[key()])
    assert (await store.history(key(), "temperature", 0)).samples == [Sample(START + 99_000, "1")]
    await store.close()


async def test_long_text_is_cut_and_with_no_rows_nothing_is_kept(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "edge.db")
    await say(store, 0, "\u20ac" * 1000)
    (sample,) = (await store.history(key(), "temperature", 0)).samples
    assert sample.value == "\u20ac" * (MAX_VALUE_BYTES // 3)
    await store.close()
    store = await Store.open(tmp_path / "none.db", history_rows=0)
    await say(store, 0, "20")
    assert (await store.history(key(), "temperature", 0)).samples == []
    await store.close()


async def test_it_is_read_from_the_file_of_an_edgecore_that_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    store = await Store.open(path)
    await store.save({"twin/a": b"1", "twin/ab": b"2"}, (), samples={(key(), "t"): (START, "20")})
    await store.close()
    recorded, documents = read_file(path, key(), "t", 0, "twin/a")
    assert (recorded.samples, documents) == ([Sample(START, "20")], {"twin/a": b"1", "twin/ab": b"2"})
    assert read_file(path, key(), "t", 0, "twin/b")[1] == {}
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="another release"):
        read_file(path, key(), "t", 0, "twin/a")
