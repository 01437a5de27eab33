"""What a plan looked at: everything that may change it, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from apimachinery.events import Change
from apimachinery.keys import ObjectKey
from apimachinery.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, SECRETS
from apiserver.looking import Looking
from apiserver.plans import Plan, Put
from apiserver.storage import Storage
from tests.test_apiserver_crds import crd
from tests.test_apiserver_storage import key, put, url

LOOKS: dict[str, Callable[[Looking], object]] = {
    "nothing": lambda view: None,
    "the object": lambda view: view.get(key("a")),
    "one that is not there": lambda view: view.get(key("b")),
    "all of its kind": lambda view: view.all_of(CONFIG_MAPS, "elsewhere"),
    "all of another": lambda view: view.all_of(SECRETS),
    "whether an owner lives": lambda view: view.lives("uid-z"),
    "who belongs to one": lambda view: view.dependents("uid-z"),
}


async def changes_after(storage: Storage, name: str) -> list[Change]:
    before = storage.revision
    await storage.commit(put(name, data={"n": "1"}))
    return list(storage.since(before))


@pytest.mark.parametrize(
    ("look", "changed", "is_so"),
    [
        ("nothing", "a", True),
        ("the object", "a", False),
        ("the object", "b", True),
        ("one that is not there", "b", False),
        ("one that is not there", "a", True),
        ("all of its kind", "c", False),
        ("all of another", "c", True),
        ("whether an owner lives", "c", False),
        ("who belongs to one", "c", False),
    ],
)
async def test_what_was_looked_at_is_so_until_it_changes(tmp_path: Path, look: str, changed: str, is_so: bool) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        await storage.commit(put("a"))
        looking = Looking(storage.view(), storage.revision)
        assert looking.revision == 1
        LOOKS[look](looking)
        assert looking.is_so(storage.catalogue(), ())
        assert looking.is_so(storage.catalogue(), await changes_after(storage, changed)) is is_so


async def test_a_view_that_is_looked_through_answers_as_the_view(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        await storage.commit(put("z"))
        owned = {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "z", "uid": "uid-z"}]}
        await storage.commit(put("a", metadata=owned))
        view, looking = storage.view(), Looking(storage.view(), storage.revision)
        assert looking.get(key("a")) == view.get(key("a")) is not None
        assert looking.all_of(CONFIG_MAPS, "d") == view.all_of(CONFIG_MAPS, "d") != []
        assert looking.dependents("uid-z") == [key("a")]
        assert looking.lives("uid-z")
        assert not looking.lives("uid-y")


async def test_with_other_definitions_nothing_is_so(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        looking = Looking(storage.view(), storage.revision)
        body = crd() | {"status": {"conditions": [{"type": "Established", "status": "True"}]}}
        place = ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", "lamps.example.com")
        await storage.commit(lambda _: Plan(201, (Put(place, body),)))
        assert not looking.is_so(storage.catalogue(), ())
