"""
`kubectl apply` without kubectl, for the demo's first start: what is in YAML files is created through the API.

Definitions are brought up to date each time, because a newer checkout may know more. Devices are
created only: what a person changed or deleted in an earlier run stays changed or deleted.
"""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Mapping
from pathlib import Path

import yaml

from apimachinery.errors import AlreadyExists, ApiError, NotFound
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICE_MODELS, DEVICES
from cloudhub.apiclient import ApiClient
from componentbase.errors import CommandError

SERVED_WITHIN_S = 20.0

_RESOURCES = {resource.kind: resource for resource in (CUSTOM_RESOURCE_DEFINITIONS, DEVICE_MODELS, DEVICES)}


def read(path: Path) -> list[dict[str, JSON]]:
    """The objects in a manifest."""
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> list[dict[str, JSON]]:
    """The objects in a YAML stream; empty documents are no objects."""
    return [value for value in yaml.safe_load_all(text) if value]


async def define(client: ApiClient, definitions: Iterable[Mapping[str, JSON]]) -> None:
    """Create or update CustomResourceDefinitions, and wait until their kinds are served. Raises CommandError."""
    for value in definitions:
        try:
            await _create(client, value)
        except AlreadyExists:
            key = ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", value["metadata"]["name"])
            await _told(value, client.patch(key, {"spec": value["spec"]}))
    deadline = time.monotonic() + SERVED_WITHIN_S
    while True:
        try:
            await client.list(DEVICES)
            await client.list(DEVICE_MODELS)
            return
        except NotFound as exc:
            if time.monotonic() > deadline:
                raise CommandError(f"the apiserver does not serve devices: {exc}") from exc
        await asyncio.sleep(0.05)


async def create_missing(client: ApiClient, objects: Iterable[Mapping[str, JSON]]) -> None:
    """Create what is not there; leave what is. Raises CommandError."""
    for value in objects:
        try:
            await _create(client, value)
        except AlreadyExists:
            continue


async def _create(client: ApiClient, value: Mapping[str, JSON]) -> None:
    resource = _RESOURCES[value["kind"]]
    namespace = value["metadata"].get("namespace", "default") if resource.namespaced else ""
    await _told(value, client.create(resource, namespace, value))


async def _told(value: Mapping[str, JSON], request: Awaitable[JSON]) -> None:
    try:
        await request
    except AlreadyExists:
        raise
    except ApiError as exc:
        raise CommandError(f"the apiserver refused {value['kind']} {value['metadata']['name']}: {exc}") from exc
