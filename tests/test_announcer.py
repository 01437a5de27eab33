"""Tests for cloudhub.announcer: what is said, and how it is written to a server over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import Forbidden, Unavailable
from apimachinery.keys import ObjectKey
from apimachinery.kubeevents import KubeEvent
from apimachinery.resources import DEVICES, EVENTS
from cloudhub.announcer import ATTEMPTS, BACKLOG, Announcer, validity_event
from cloudhub.apiclient import ApiClient
from tests.harness.tinyapi import TinyApi, kubeconfig, tiny_api

LAMP = ObjectKey(DEVICES, "shop", "lamp")
BODY: dict[str, Any] = {"metadata": {"name": "lamp", "namespace": "shop", "uid": "u-1"}}
AT, LATER = "2030-01-31T12:00:00Z", "2030-01-31T13:00:00Z"


def status(valid: str, message: str = "level: 9 is above the model's maximum of 5") -> dict[str, Any]:
    return {"conditions": [{"type": "Valid", "status": valid, "message": message}]}


def event(at: str = AT, uid: str = "u-1") -> KubeEvent:
    found = validity_event(LAMP, {"metadata": {"uid": uid}}, status("True"), status("False"), at)
    assert found is not None
    return found


# ---- what is said


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, status("False"), ("Warning", "DeviceInvalid", "level: 9 is above the model's maximum of 5")),
        (status("True"), status("False"), ("Warning", "DeviceInvalid", "level: 9 is above the model's maximum of 5")),
        (status("False"), status("False", "another"), None),
        (
            status("False"),
            status("True"),
            ("Normal", "DeviceValid", "the model, the node and the desired values are in order"),
        ),
        ({}, status("True"), None),
        (status("True"), status("True"), None),
        ({"conditions": 5}, {"conditions": [None]}, None),
    ],
)
def test_only_a_turn_is_told(before: dict[str, Any], after: dict[str, Any], expected: tuple[str, str, str]) -> None:
    found = validity_event(LAMP, BODY, before, after, AT)
    assert (None if found is None else (found.type, found.reason, found.message)) == expected


def test_the_same_of_the_same_device_has_one_name_and_anything_else_another() -> None:
    again = validity_event(LAMP, BODY, status("False"), status("True"), AT)
    assert again is not None
    assert event().key == event(LATER).key
    assert len({event().key, event(uid="u-2").key, again.key}) == 3


# ---- how it is written


@asynccontextmanager
async def announcing(folder: Path) -> AsyncIterator[tuple[TinyApi, Announcer]]:
    async with tiny_api() as api:
        (folder / "kubeconfig").write_text(kubeconfig(api.url))
        async with ApiClient.from_kubeconfig(folder / "kubeconfig") as client, asyncio.TaskGroup() as tasks:
            announcer = Announcer(client, interval_s=0.001, jitter=lambda: 0.01)
            running = tasks.create_task(announcer.run(), name="announcer")
            yield api, announcer
            running.cancel()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_same_again_counts_up_the_one_event_there_is(tmp_path: Path) -> None:
    async with announcing(tmp_path) as (api, announcer):
        announcer.say(event())
        announcer.say(event(LATER))
        await until(lambda: api.objects.get(event().key, {}).get("count") == 2)
        told = api.objects[event().key]
        assert (told["firstTimestamp"], told["lastTimestamp"]) == (AT, LATER)
        assert told["source"] == {"component": "cloudcore"}
        assert told["involvedObject"]["uid"] == "u-1"
        assert [key for key in api.objects if key.resource == EVENTS] == [event().key]


async def test_a_passing_failure_is_tried_again_and_a_lasting_one_dropped(tmp_path: Path) -> None:
    async with announcing(tmp_path) as (api, announcer):
        answers = iter([Unavailable("soon"), Unavailable("soon")])
        api.answer = lambda _: next(answers, None)
        announcer.say(event())
        await until(lambda: event().key in api.objects)
        assert announcer.dropped == 0
        api.answer = lambda _: Forbidden("no right")
        asked = len(api.requests)
        announcer.say(event(uid="u-2"))
        await until(lambda: announcer.dropped == 1)
        assert len(api.requests) == asked + 1
        api.answer = lambda _: Unavailable("never")
        announcer.say(event(uid="u-3"))
        await until(lambda: announcer.dropped == 2)
        assert len(api.requests) == asked + 1 + ATTEMPTS


async def test_a_flood_is_cut_at_its_end(tmp_path: Path) -> None:
    async with announcing(tmp_path) as (api, announcer):
        for number in range(BACKLOG + 10):
            announcer.say(event(uid=f"u-{number}"))
        assert announcer.dropped == 10
        await until(lambda: len(api.objects) == BACKLOG)
