"""Every namespace has its default ServiceAccount and the CA, as long as it is there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS
from apiserver import namespaces
from apiserver.collector import collect
from apiserver.namespaces import ROOT_CA
from tests.harness.cluster import Cluster, cluster

CA = b"-----BEGIN CERTIFICATE-----"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path) as made, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(namespaces.follow(made.storage, CA), name="namespaces"),
            group.create_task(collect(made.storage), name="collector"),
        ]
        yield made
        for task in tasks:
            task.cancel()


async def until(api: Cluster, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await api.storage.wait(api.storage.revision)


def has_both(api: Cluster, namespace: str) -> bool:
    keys = (ObjectKey(SERVICE_ACCOUNTS, namespace, "default"), ObjectKey(CONFIG_MAPS, namespace, ROOT_CA))
    return all(api.storage.view().get(key) is not None for key in keys)


async def test_namespaces_that_are_there_and_that_come_are_furnished(api: Cluster) -> None:
    await until(api, lambda: has_both(api, "d") and has_both(api, "e"))
    await api("POST", "/api/v1/namespaces", {"metadata": {"name": "new"}})
    await until(api, lambda: has_both(api, "new"))
    assert (await api("GET", f"/api/v1/namespaces/new/configmaps/{ROOT_CA}"))["data"] == {"ca.crt": CA.decode()}


async def test_what_somebody_deletes_or_changes_comes_back(api: Cluster) -> None:
    await until(api, lambda: has_both(api, "d"))
    place = f"/api/v1/namespaces/d/configmaps/{ROOT_CA}"
    old = (await api("GET", "/api/v1/namespaces/d/serviceaccounts/default"))["metadata"]["uid"]
    await api("DELETE", "/api/v1/namespaces/d/serviceaccounts/default")
    await api("PATCH", place, {"data": {"ca.crt": "mine"}})
    held = ObjectKey(CONFIG_MAPS, "d", ROOT_CA)

    def is_mended() -> bool:
        found = api.storage.view().get(held)
        return has_both(api, "d") and found is not None and b"mine" not in found.body

    await until(api, is_mended)
    assert (await api("GET", "/api/v1/namespaces/d/serviceaccounts/default"))["metadata"]["uid"] != old


async def test_a_namespace_that_is_deleted_goes(api: Cluster) -> None:
    await until(api, lambda: has_both(api, "d"))
    await api("DELETE", "/api/v1/namespaces/d")
    await until(api, lambda: api.storage.view().get(ObjectKey(NAMESPACES, "", "d")) is None)
    assert not has_both(api, "d")
