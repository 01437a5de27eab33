"""The CAs in their Secrets: made once, two at most, the oldest dropped."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from apimachinery.errors import AlreadyExists, Conflict, InternalError, NotFound
from apimachinery.resources import SECRETS
from cloudhub import cas
from cloudhub.cas import SECRET_NAME
from cloudhub.vault import NAMESPACE, Vault
from componentbase import pki
from tests.harness.objects import MemoryObjects

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def vault() -> Vault:
    return Vault(MemoryObjects())


async def names(vault: Vault) -> list[str]:
    return [each.name for each in await cas.load(vault)]


async def test_a_rotation_adds_one_ca_and_ends_by_dropping_the_first(vault: Vault) -> None:
    with pytest.raises(NotFound, match="there is no CA yet"):
        await cas.begin(vault, NOW)
    assert await names(vault) == []
    [first] = await cas.load_or_make(vault)
    for number in range(2, 12):  # 10 comes after 9
        made = await cas.begin(vault, NOW + timedelta(minutes=2))
        assert (made.name, made.signs_from) == (f"{SECRET_NAME}-{number}", NOW + timedelta(minutes=2))
        with pytest.raises(Conflict, match="a rotation is under way"):
            await cas.begin(vault, NOW)
        found = await cas.load(vault)
        assert found == [first, made]
        await cas.drop_first(vault, found)
        assert await cas.load_or_make(vault) == [made], "none is made in the place of what was dropped"
        first = made


async def test_of_two_who_begin_at_once_one_does(vault: Vault) -> None:
    await cas.load_or_make(vault)
    done = []

    async def begin() -> None:
        try:
            done.append((await cas.begin(vault, NOW)).pin)
        except (AlreadyExists, Conflict):
            done.append("")

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(begin(), name=f"begin[{number}]")
    assert sorted(map(bool, done)) == [False, False, True]
    assert len(await names(vault)) == 2


async def test_a_ca_of_an_earlier_release_has_no_label_and_is_found() -> None:
    objects = MemoryObjects()
    [first] = await cas.load_or_make(Vault(objects))
    objects.kept[SECRETS, NAMESPACE, SECRET_NAME]["metadata"]["labels"] = {}
    assert await cas.load(Vault(objects)) == [first]
    assert (await cas.begin(Vault(objects), NOW)).name == f"{SECRET_NAME}-2"


async def test_a_ca_that_has_expired_is_whole_and_one_that_is_damaged_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects = MemoryObjects()
    with monkeypatch.context() as past:
        past.setattr(pki, "_now", lambda: NOW - timedelta(days=9999))
        await cas.load_or_make(Vault(objects))
    [found] = await cas.load(Vault(objects))
    assert found.expires < NOW
    made = await cas.begin(Vault(objects), NOW)
    objects.kept[SECRETS, NAMESPACE, made.name]["data"]["signsFrom"] = "c29vbg=="
    with pytest.raises(InternalError, match=rf"{made.name} does not hold a usable CA"):
        await cas.load(Vault(objects))
