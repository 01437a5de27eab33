"""Creating what manifests say, against the real embedded apiserver in a process of its own."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apimachinery.errors import ApiError, NotFound
from apimachinery.keys import ObjectKey
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICES, NAMESPACES
from cloudhub import crds
from cloudhub.apiclient import ApiClient, KubeconfigError
from componentbase.errors import CommandError
from demo import apply

THERMOSTAT = ObjectKey(DEVICES, "default", "thermostat")
MANIFEST = Path(apply.__file__).parent / "manifests" / "thermostat.yaml"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[ApiClient]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "apiserver.dev", "run", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0"),
        env=os.environ | {"PYTHONPATH": str(MANIFEST.parent.parent.parent)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with await _connected(tmp_path / "kubeconfig") as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def _connected(kubeconfig: Path) -> ApiClient:
    deadline = time.monotonic() + 20
    while True:
        try:
            client = ApiClient.from_kubeconfig(kubeconfig)
            await client.list(NAMESPACES)
            return client
        except (KubeconfigError, ApiError):
            assert time.monotonic() < deadline, "the apiserver did not start"
            await asyncio.sleep(0.05)


async def test_definitions_are_made_served_and_brought_up_to_date(client: ApiClient) -> None:
    definitions = apply.parse(crds.text())
    await apply.define(client, definitions)
    definitions[1]["spec"]["names"]["shortNames"] = ["gadget"]
    await apply.define(client, definitions)
    key = ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", "devices.devices.kubeedge.io")
    assert (await client.get(key))["spec"]["names"]["shortNames"] == ["gadget"]


async def test_devices_are_made_and_a_persons_changes_kept(client: ApiClient) -> None:
    await apply.define(client, apply.parse(crds.text()))
    objects = apply.read(MANIFEST)
    await apply.create_missing(client, objects)
    await client.patch(THERMOSTAT, {"spec": {"nodeName": "elsewhere"}})
    await apply.create_missing(client, objects)
    assert (await client.get(THERMOSTAT))["spec"]["nodeName"] == "elsewhere"


async def test_what_the_apiserver_refuses_is_told_with_its_name(client: ApiClient) -> None:
    await apply.define(client, apply.parse(crds.text()))
    (device,) = [value for value in apply.read(MANIFEST) if value["kind"] == "Device"]
    device["spec"]["properties"][0]["desired"] = {"value": 21}
    with pytest.raises(CommandError, match=r"refused Device thermostat:.*desired.value"):
        await apply.create_missing(client, [device])
    with pytest.raises(NotFound):
        await client.get(THERMOSTAT)
