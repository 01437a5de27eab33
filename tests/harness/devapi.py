"""The embedded apiserver as a process of its own, as `apiserver run` starts it."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import yaml

from apimachinery.errors import ApiError, NotFound
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICE_STATUSES, DEVICES, NAMESPACES
from cloudhub import crds
from cloudhub.apiclient import ApiClient, KubeconfigError
from tests.harness import forkserver

STARTS_WITHIN_S = 40.0  # a second, on a machine that has nothing else to do


@contextlib.asynccontextmanager
async def dev_api(folder: Path) -> AsyncIterator[ApiClient]:
    """A client of an apiserver that has run since the block was entered, and is stopped when it is left."""
    flags = ["run", "--data-dir", str(folder), "--listen", "127.0.0.1:0"]
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = forkserver.start("apiserver.dev", flags, out=log, error=log, environment=os.environ)
        try:
            async with asyncio.timeout(STARTS_WITHIN_S), contextlib.AsyncExitStack() as stack:
                client = await stack.enter_async_context(await _client(folder / "kubeconfig", process))
                kept = stack.pop_all()
            async with kept:
                yield client
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)


async def apply_device_definitions(client: ApiClient) -> None:
    """As `cloudcore crds | kubectl apply -f -`; returns once they are served."""
    for value in yaml.safe_load_all(crds.text()):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, "", value)
    async with asyncio.timeout(5.0):
        for resource in (DEVICES, DEVICE_STATUSES):
            while not await _is_served(client, resource.collection):
                await asyncio.sleep(0.02)


async def _client(kubeconfig: Path, process: forkserver.Running) -> ApiClient:
    while process.poll() is None:
        with contextlib.suppress(KubeconfigError):
            client = ApiClient.from_kubeconfig(kubeconfig)
            try:
                await client.list(NAMESPACES)
            except ApiError:
                await client.close()
            else:
                return client
        await asyncio.sleep(0.05)
    raise AssertionError(f"the apiserver ended with {process.poll()}: see {kubeconfig.parent}.log")


async def _is_served(client: ApiClient, collection: str) -> bool:
    try:
        await client.discover(collection)
    except NotFound:
        return False
    return True
