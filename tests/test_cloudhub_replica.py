"""
Three replicas of the hub behind a TCP balancer: nodes go from one to another amid edits and reports, one is killed.

Each replica is a real cloudcore that knows nothing of the others. What must hold whatever happens: nothing is lost, no
version comes to a node twice, and what devices report is written once and never goes back.
"""

import asyncio
import contextlib
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from apimachinery.events import EventType
from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICE_STATUSES, PODS
from cloudhub.apiclient import ApiClient
from tests.conftest import KUBECTLS, find_tool
from tests.harness.proxy import Balancer
from tests.test_faults import Line, Publisher, figure, in_parallel, knows, make_device, make_model, pod, publisher

HUBS = ("cloud", "second", "third")
NODES = ("n0", "n1", "n2")
PODS_EACH = 8
MOVES = 6
SOAK_MOVES = 100
LOST = "second"
"""The replica that is killed, after LOST_AT of the moves."""
LOST_AT = 0.5
Texts = dict[str, list[int]]
"""By pod: the numbers of the edits that a watch told, in its order."""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    kubectl = next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name)))
    with Line(tmp_path_factory.mktemp("replicas")) as line:
        for name in HUBS:
            line.start_hub(name)
        line.apply_crds(kubectl)
        line.do(make_model)
        yield line


async def told_at_edge(port: int, texts: Texts) -> None:
    """Every version of a pod that is committed at a node, by a watch of its local API; until cancelled."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(b"GET /api/v1/pods?watch=true HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    try:
        while read := await reader.readline():
            if read.startswith(b"{"):
                event = json.loads(read)
                if event["type"] in ("ADDED", "MODIFIED"):
                    metadata = event["object"]["metadata"]
                    texts[metadata["name"]].append(int(metadata["annotations"]["text"]))
        raise AssertionError("the watch ended")
    finally:
        writer.close()


async def written(client: ApiClient, since: str, statuses: dict[str, list[Any]]) -> None:
    """Every status of a device that is written to the apiserver; until cancelled."""
    async with contextlib.aclosing(client.watch(DEVICE_STATUSES, since)) as events:
        async for event in events:
            if event.object is not None and event.type is not EventType.DELETED:
                statuses[event.object.key.name].append(event.object.parse().get("status"))
    raise AssertionError("the watch ended")


async def edit(client: ApiClient, number: int, rng: random.Random, names: dict[str, set[str]]) -> None:
    """One edit of one pod: changed, deleted or made again. `number` is its text."""
    node = rng.choice(NODES)
    name = f"{node}-{rng.randrange(PODS_EACH)}"
    if name not in names[node]:
        await client.create(PODS, "default", pod(name, node, str(number)))
        names[node].add(name)
    elif rng.random() < 0.15:
        await client.delete(ObjectKey(PODS, "default", name))
        names[node].discard(name)
    else:
        body = {"metadata": {"annotations": {"text": str(number)}}}
        await client.patch(ObjectKey(PODS, "default", name), body)


@pytest.mark.parametrize(
    "moves",
    [
        pytest.param(MOVES, marks=pytest.mark.timeout(120)),
        pytest.param(SOAK_MOVES, marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
def test_nodes_that_move_between_three_replicas_lose_nothing_and_get_nothing_twice(line: Line, moves: int) -> None:
    rng = random.Random(moves)
    made = {node: {f"{node}-{number}" for number in range(PODS_EACH)} for node in NODES}
    texts: dict[str, Texts] = {node: defaultdict(list) for node in NODES}
    statuses: dict[str, list[Any]] = defaultdict(list)
    value = 0
    line.do(
        lambda client: in_parallel(
            client.create(PODS, "default", pod(name, node, "0")) for node in NODES for name in made[node]
        )
    )
    with Balancer([line.ports[f"{name}-link"] for name in HUBS]) as balancer, contextlib.ExitStack() as stack:
        for node in NODES:
            make_device(line, f"d-{node}", node)
            line.enrol(node, balancer.port)
            line.start_edge(node, wait=False)
        for node in NODES:
            line.soon(lambda node=node: knows(line, node, 1), "the device is known")  # type: ignore[misc]
        mappers = {node: stack.enter_context(publisher(line.ports[f"{node}-mqtt"], f"d-{node}")) for node in NODES}

        async def story(client: ApiClient) -> None:
            nonlocal value
            _, since = await client.list(DEVICE_STATUSES)
            async with asyncio.TaskGroup() as tasks:
                watches = [tasks.create_task(written(client, since, statuses), name="statuses")]
                for node in NODES:
                    at_edge = told_at_edge(line.ports[f"{node}-api"], texts[node])
                    watches.append(tasks.create_task(at_edge, name=f"watch[{node}]"))
                for move in range(moves):
                    # Half of the moves leave the replica believing in its session until the Lease tells it.
                    balancer.cut() if move % 2 else balancer.sever()
                    if move == int(moves * LOST_AT):
                        line.kill_hub(LOST)
                        line.hubs.remove(LOST)
                    for number in range(20):
                        await edit(client, 1 + move * 20 + number, rng, made)
                        if number % 4 == 0:
                            value += 1
                            report(mappers, value)
                    await asyncio.to_thread(line.soon, all_connected, "all nodes are connected")
                await asyncio.to_thread(line.soon, all_quiet, "all is still")
                for watch in watches:
                    watch.cancel()

        def all_connected() -> bool:
            return all(line.edge(node).get("connected") for node in NODES)

        def all_quiet() -> bool:
            return all(
                line.is_quiet(node, *line.hubs)
                and line.edge(node)["reportsWaiting"] == 0
                and values_in(statuses[f"d-{node}"])[-1:] == [value]
                for node in NODES
            )

        line.do(story)

        def places() -> dict[str, list[str]]:
            return {node: [name for name in line.hubs if line.session(node, name).get("connected")] for node in NODES}

        # One that was left half-open may end after all is still: it is the Lease that tells it.
        line.soon(lambda: all(len(each) == 1 for each in places().values()), "each node is at one replica")
        sessions = {name: line.metrics("cloudcore", name)["hub_sessions_total"] for name in line.hubs}
        assert all(sessions.values()), "every replica had its part"
        for node in NODES:
            assert line.equal(node) >= len(made[node])
    counts = [sum(map(len, each.values())) for each in (*texts.values(), statuses)]
    figure(f"{moves} moves between three replicas: versions at each node, statuses written", f"{counts}, {sessions}")
    for name in line.hubs:
        line.assert_nothing_was_healed(name)
    for node in NODES:
        assert set(texts[node]) == {f"{node}-{number}" for number in range(PODS_EACH)}
        twice = {name: told for name, told in texts[node].items() if told != sorted(set(told))}
        assert not twice, "a version came twice, or an older one after a newer"
    for device in (f"d-{node}" for node in NODES):
        told = statuses[device]
        assert not [number for number, each in enumerate(told[1:]) if each == told[number]], "written twice"
        values = values_in(told)
        assert values == sorted(values), "an older value after a newer"
        assert values[-1] == value


def report(mappers: dict[str, Publisher], value: int) -> None:
    for mapper in mappers.values():
        mapper.report({"p0": value})


def values_in(statuses: list[Any]) -> list[int]:
    """What was reported, in the order in which it was written."""
    twins = [twin for each in statuses for twin in each.get("twins", ()) if twin["propertyName"] == "p0"]
    return [int(twin["reported"]["value"]) for twin in twins if (twin.get("reported") or {}).get("value")]
