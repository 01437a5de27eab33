"""What the API asks of a store, as a contract: the embedded storage and its writer keep to it."""

from pathlib import Path

from apimachinery.keys import ObjectKey
from apimachinery.resources import NAMESPACES
from apimachinery.selectors import ALL_FIELDS, EVERYTHING
from apiserver.plans import Plan, Put
from apiserver.protocols import Answer, Page, Storage, Stored, Writes
from apiserver.storage import Storage as EmbeddedStorage
from apiserver.writes import PlannedWrites


def put(name: str) -> Plan:
    return Plan(200, (Put(ObjectKey(NAMESPACES, "", name), {"metadata": {"name": name, "uid": name}}),))


async def test_the_embedded_storage_keeps_the_contract(tmp_path: Path) -> None:
    async with EmbeddedStorage.open(f"sqlite:///{tmp_path / 'a.db'}") as embedded:
        storage: Storage = embedded  # what mypy proves here, the rest of this test observes
        writes: Writes = PlannedWrites(embedded)
        assert writes is not None
        for name in ("b", "a", "c"):
            await embedded.commit(lambda _, name=name: put(name))  # type: ignore[misc]
        page = await storage.list(NAMESPACES, "", EVERYTHING, ALL_FIELDS, 2, None)
        assert [item.object.key.name for item in page.items] == ["a", "b"]
        assert (page.revision, page.more) == (storage.revision, True)
        found = await storage.get(ObjectKey(NAMESPACES, "", "a"))
        assert found == page.items[0]
        assert b'"resourceVersion":"7"' in storage.render(found.object, 7)
        assert [change.revision for change in storage.since(1)] == [2, 3]
        await storage.wait(2)
        assert storage.catalogue().of(NAMESPACES) is not None


def test_a_page_and_an_answer_say_little_by_default() -> None:
    assert Page([], 5) == Page([], 5, more=False)
    assert Answer(200, b"{}").warnings == ()
    assert Stored._fields == ("object", "revision")
