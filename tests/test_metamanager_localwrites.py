"""Which way a write goes: to the cluster, or into the store; never both at once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from metamanager import deferred, localwrites
from tests.harness.edgeapi import POD, EdgeApi, edge_and_cloud
from tests.test_metamanager_deferred import is_drained, phase
from tests.test_metamanager_offline import STRATEGIC


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[EdgeApi]:
    async with edge_and_cloud(tmp_path) as edge:
        yield edge


async def test_with_the_cloud_a_status_goes_to_the_apiserver(edge: EdgeApi) -> None:
    answer = await phase(edge, "Running")
    assert answer.status == 200
    assert await is_drained(edge)
    assert (await edge.cloud.ask("GET", POD))["status"]["phase"] == "Running"
    assert (await edge.get(POD)).body == answer.body


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_an_apiserver_that_is_not_there_is_the_cloud_being_away(edge: EdgeApi, status: int) -> None:
    edge.cloud.answers_with = status
    answer = await phase(edge, "Running")
    assert (answer.status, answer.body["status"]["phase"]) == (200, "Running")
    assert not await is_drained(edge)
    labelled = await edge.ask("PATCH", "/api/v1/nodes/edge-1", {"metadata": {"labels": {"a": "b"}}})
    assert labelled.status == status, "what is not the node's own gets the answer"


async def test_a_lost_answer_to_a_status_is_made_good_and_to_anything_else_is_told(edge: EdgeApi) -> None:
    edge.cloud.loses_answers = True
    assert (await phase(edge, "Running")).status == 200
    lost = await edge.ask("PATCH", "/api/v1/nodes/edge-1", {"metadata": {"labels": {"a": "b"}}})
    assert (lost.status, lost.body["reason"]) == (504, "Timeout")
    assert "may have been done" in lost.body["message"]


async def test_a_link_that_went_away_unheard_keeps_the_nodes_own_waiting_for_seconds_only(
    edge: EdgeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localwrites, "OWN_S", 0.05)
    monkeypatch.setattr(localwrites, "CALL_S", 0.1)
    edge.cloud.hangs = True
    answer = await phase(edge, "Running")
    assert (answer.status, answer.body["status"]["phase"]) == (200, "Running")
    lost = await edge.ask("PATCH", "/api/v1/nodes/edge-1", {"metadata": {"labels": {"a": "b"}}})
    assert lost.status == 504


async def test_while_a_local_write_waits_the_next_joins_it_and_others_wait(
    edge: EdgeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred, "LOOK_S", 0.02)
    monkeypatch.setattr(deferred, "RETRY_S", 0.02)
    monkeypatch.setattr(localwrites, "DRAIN_S", 0.2)
    edge.cloud.answers_with = 503
    await phase(edge, "Running")
    edge.cloud.go()
    assert (await phase(edge, "Succeeded")).body["status"]["phase"] == "Succeeded"
    label = {"metadata": {"labels": {"a": "b"}}}
    blocked = await edge.ask("PATCH", POD, label, STRATEGIC)
    assert (blocked.status, "has not gone up yet" in blocked.body["message"]) == (503, True)
    edge.cloud.answers_with = 0
    edge.cloud.come_back()
    monkeypatch.setattr(localwrites, "DRAIN_S", 10.0)
    done = await edge.ask("PATCH", POD, label, STRATEGIC)
    assert (done.status, done.body["status"]["phase"]) == (200, "Succeeded")
    assert await is_drained(edge)
