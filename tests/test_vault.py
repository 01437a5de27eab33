"""The Secrets that hold the cloud side's state."""

import pytest

from apimachinery.errors import AlreadyExists, Conflict, InternalError, NotFound
from apimachinery.resources import NAMESPACES, SECRETS
from cloudhub.vault import NAMESPACE, Vault
from tests.harness.objects import MemoryObjects


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def vault(objects: MemoryObjects) -> Vault:
    return Vault(objects)


async def test_what_is_created_is_read_back(vault: Vault) -> None:
    made = await vault.create("one", "Opaque", {"key": b"\0\xff bytes"})
    assert made == await vault.get("one")
    assert made.fields == {"key": b"\0\xff bytes"}


async def test_namespace_is_made_when_it_is_missing_and_only_then(vault: Vault, objects: MemoryObjects) -> None:
    assert (NAMESPACES, "", NAMESPACE) not in objects.kept
    await vault.create("one", "Opaque", {})
    assert (NAMESPACES, "", NAMESPACE) in objects.kept
    await vault.create("two", "Opaque", {})
    assert sorted(name for _, _, name in objects.kept) == [NAMESPACE, "one", "two"]


async def test_a_name_is_given_once_and_the_first_content_stays(vault: Vault) -> None:
    await vault.create("one", "Opaque", {"key": b"first"})
    with pytest.raises(AlreadyExists):
        await vault.create("one", "Opaque", {"key": b"second"})
    assert (await vault.get("one")).fields == {"key": b"first"}


async def test_a_note_is_written_over_what_was_read_only(vault: Vault, objects: MemoryObjects) -> None:
    made = await vault.create("one", "Opaque", {"key": b"x"}, notes={"fairlead.io/a": "1"})
    assert made.notes == {"fairlead.io/a": "1"}
    noted = await vault.note(made, {"fairlead.io/b": "2"})
    assert noted == await vault.get("one")
    assert noted.notes == {"fairlead.io/a": "1", "fairlead.io/b": "2"}
    assert noted.fields == made.fields
    with pytest.raises(Conflict):
        await vault.note(made, {"fairlead.io/b": "3"})
    objects.kept[SECRETS, NAMESPACE, "one"]["metadata"]["annotations"]["example.com/theirs"] = "x"
    assert (await vault.get("one")).notes == noted.notes
    await vault.delete("one")
    with pytest.raises(NotFound):
        await vault.note(noted, {"fairlead.io/b": "4"})


async def test_list_goes_by_label(vault: Vault) -> None:
    await vault.create("one", "Opaque", {}, labels={"kind": "a"})
    await vault.create("two", "Opaque", {}, labels={"kind": "b"})
    assert [entry.name for entry in await vault.list("kind=a")] == ["one"]


async def test_list_is_empty_before_anything_was_kept(vault: Vault) -> None:
    assert await vault.list("kind=a") == []


async def test_deleted_is_not_found(vault: Vault) -> None:
    await vault.create("one", "Opaque", {})
    await vault.delete("one")
    with pytest.raises(NotFound):
        await vault.get("one")


async def test_damaged_data_is_an_error_that_names_the_secret_and_not_its_content(
    vault: Vault, objects: MemoryObjects
) -> None:
    await vault.create("one", "Opaque", {"key": b"x"})
    objects.kept[SECRETS, NAMESPACE, "one"]["data"]["key"] = "!secret!"
    with pytest.raises(InternalError, match="fairlead-system/one") as caught:
        await vault.get("one")
    assert "!secret!" not in str(caught.value)
