"""
What must be true of a world that has calmed down, and of everything that was ever seen on the way.

Each problem is a sentence. None is computed with the code it judges, but for the projection, which says what
of an object a node may see.
"""

import random
from collections.abc import Iterable, Iterator, Sequence

from apimachinery.devices import PROPERTY_FIELD, PropertyReport
from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import JSON
from apimachinery.resources import CONFIG_MAPS, DEVICE_MODELS, DEVICES, NODES, PODS, SECRETS
from cloudhub.devices import StateReport
from cloudhub.reportvalues import Value
from devicetwin.documents import read_documents
from devicetwin.wire import id_of
from link.frames import Interest
from tests.sim.access import STEADY_KEY
from tests.sim.apiserver import POISON, SimApi
from tests.sim.edge import SimEdge
from tests.sim.hub import SHARED
from tests.sim.world import STEPS, Shape, World, tuned


def run(seed: int, steps: int = STEPS, shape: Shape | None = None) -> World:
    """One schedule; the world as it is when everything has calmed down, or will not."""
    # Of three schedules one has lanes, which is drawn from nothing: with and without them a seed is much the same one.
    shape = Shape.drawn(random.Random(seed))._replace(lanes=seed % 3 == 1) if shape is None else shape
    with tuned(shape):
        world = World(seed, shape)
        for _ in range(steps):
            world.step()
        world.settle(lambda each: not unsettled(each))
    return world


def problems(world: World) -> list[str]:
    """Every promise that is broken, in words."""
    return [
        *unsettled(world),
        *(each for edge in world.edges for each in _wrongly_seen(world, edge)),
        *(
            f"{edge.node} held bodies of {edge.unlike} that are not the version they say"
            for edge in world.edges
            if edge.unlike
        ),
        *(each for edge in world.edges for each in _forgotten(edge)),
        *(
            f"{edge.node} was told that it holds {edge.incomplete}, and did not"
            for edge in world.edges
            if edge.incomplete
        ),
        *(f"{edge.node} and its hub broke the protocol: {edge.broken}" for edge in world.edges if edge.broken),
        *_deleted_for_not_knowing(world),
        *_taken_out_of_order(world),
        *_healed(world),
        *(
            f"{edge.node} was taken for two"
            for edge in world.edges
            if edge.superseded > edge.rolled_back + edge.terms_lost
        ),
        *dict.fromkeys(world.faulty_bounds),
        *dict.fromkeys(f"a peer broke the protocol: {breach}" for breach in world.network.breaches),
        *(f"what {key} reported came back to its node as a change" for key in world.api.echoes),
    ]


def unsettled(world: World) -> list[str]:
    """What is still to come, or will never."""
    found = [each for edge in world.edges for each in _not_converged(world, edge)]
    found += _left_over(world)
    found += _not_last(world)
    return found or list(_not_obeyed(world))


# ---- down


def desired(api: SimApi, node: Node, interests: Iterable[Interest]) -> dict[ObjectKey, ObjectVersion]:
    """What the apiserver says this node should hold, computed the slow way from the objects alone."""
    found = {
        key
        for key in api.objects
        for resource, namespace, name, _ in interests
        if key.resource == resource and namespace in ("", key.namespace) and name in ("", key.name)
    }
    for key, body in api.objects.items():
        spec = body.get("spec") or {}
        if key.namespace == SHARED or (key.resource == NODES and key.name == node):
            found.add(key)
        if spec.get("nodeName") != node:
            continue
        found.add(key)
        for volume in spec.get("volumes", ()):
            if "configMap" in volume:
                found.add(ObjectKey(CONFIG_MAPS, key.namespace, volume["configMap"]["name"]))
            else:
                found.add(ObjectKey(SECRETS, key.namespace, volume["secret"]["secretName"]))
        if "deviceModelRef" in spec:
            found.add(ObjectKey(DEVICE_MODELS, key.namespace, spec["deviceModelRef"]["name"]))
    versions = ((key, api.history[key][-1].version) for key in found & api.objects.keys())
    return {key: version for key, version in versions if version is not None}


def _not_converged(world: World, edge: SimEdge) -> Iterator[str]:
    granted = [each for each in edge.disk.image.interests if (edge.node, each) not in world.forbidden]
    held = {key: version for key, (version, _) in edge.disk.image.objects.items()}
    wanted = desired(world.api, edge.node, granted)
    if held != wanted:
        wrong = [str(key) for key in held.keys() | wanted.keys() if held.get(key) != wanted.get(key)]
        yield f"{edge.node} differs from the apiserver in {sorted(wrong)}"
    if not edge.disk.image.synced:
        yield f"{edge.node} was never told that it is in sync"
    if edge.complete != set(granted):
        yield f"{edge.node} takes {sorted(edge.complete)} for complete, not {granted}"


def _deleted_for_not_knowing(world: World) -> Iterator[str]:
    """The steady object is always there, and the first node always may and wants to hold it."""
    edge = world.edges[0]
    if any(None in seen for (_, key), seen in edge.seen.items() if key == STEADY_KEY):
        yield f"{edge.node} was told to delete {STEADY_KEY}, which was always there for it"


def _wrongly_seen(world: World, edge: SimEdge) -> Iterator[str]:
    """What an edge was told to commit is part of what was, in its order: nothing made up, nothing returns."""
    lives = [] if _has_lagged(world) or "restore_backup" in world.happened else list(edge.lived.items())
    by_replica = [(f" by {replica}", key, seen) for (replica, key), seen in edge.seen.items()]
    for by, key, seen in [*by_replica, *(("", key, seen) for (_, key), seen in lives)]:
        is_exact = key.resource in (PODS, DEVICES, NODES) or key.namespace == SHARED
        states: list[ObjectVersion | None] = [
            None if is_exact and state.node not in ("", edge.node) else state.version
            for state in world.api.history[key]
        ]
        if key.resource == PODS:
            states = [state.version if state.node == edge.node else None for state in world.api.history[key]]
        made_up = [version for version in seen if version is not None and version not in states]
        if made_up:
            yield f"{edge.node} was given versions of {key} that never were: {made_up}"
        # What others refer to comes and goes with them, whatever becomes of it itself.
        told = seen if is_exact else [version for version in seen if version is not None]
        if not made_up and not is_subsequence(told, states):
            yield f"{edge.node} was given states of {key}{by} in an order in which they never were: {told}"


def _has_lagged(world: World) -> bool:
    """Whether a replica went on without having seen what a node had been told of: it had waited long enough."""
    return any(hub.all_lagged for hub in world.hubs)


def is_subsequence(told: Sequence[object], states: Sequence[object]) -> bool:
    """Whether `told` is `states` with some left out and some said repeatedly."""
    place = 0
    for each in told:
        while place < len(states) and states[place] != each:
            place += 1
        if place == len(states):
            return False
    return True


def _healed(world: World) -> Iterator[str]:
    healed = sum(hub.all_healed for hub in world.hubs)
    if healed:
        yield f"{healed} times a node did not hold what its hub took it to hold"


# ---- up


def _forgotten(edge: SimEdge) -> Iterator[str]:
    """What a device was told to be durable is what its twin has."""
    twins = read_documents(edge.disk.image.documents).twins
    for (device, name), said in edge.said.items():
        twin = twins.get(id_of(device))
        reported = twin.properties[name].reported if twin and twin.uid == said.uid and name in twin.properties else None
        if twin is not None and twin.uid == said.uid and (reported is None or reported.value != said.value):
            yield f"{edge.node} told {device} that {name} = {said.value} is durable, and its twin has {reported}"


def _left_over(world: World) -> Iterator[str]:
    for edge in world.edges:
        if edge.disk.image.reports:
            yield f"{edge.node} has reports left: {sorted(name for _, name in edge.disk.image.reports)}"
        if edge.inbox:
            yield f"{edge.node} has not taken in what devices said"


def _not_last(world: World) -> Iterator[str]:
    """The apiserver has what was reported last."""
    if _has_lagged(world):
        return  # it may have refused reports of objects that it did not know yet
    for (key, field), wanted in world.expected.items():
        status = world.api.objects[key].get("status") or {}
        if not _says(status, field, wanted.value):
            yield f"{wanted.node} reported {wanted.value} last for {key} {field}, the apiserver has {status}"


def _says(status: JSON, field: str, value: Value) -> bool:
    """Whether a status has what was reported; what the apiserver refuses for good counts as said."""
    if isinstance(value, StateReport):
        return bool(status.get("state") == value.state)
    assert isinstance(value, PropertyReport), "a device reports properties and its state"
    if value.value is not None and value.value.endswith(POISON):
        return True
    twins = {twin["propertyName"]: twin for twin in status.get("twins", ())}
    twin = twins.get(field.removeprefix(PROPERTY_FIELD), {})
    pairs = ((value.value, "reported"), (value.desired, "observedDesired"))
    return all(text is None or twin.get(part, {}).get("value") == text for text, part in pairs)


def _taken_out_of_order(world: World) -> Iterator[str]:
    """A report that was followed by a later one never undoes it."""
    for name, taken in world.api.taken.items():
        if name not in world.unordered and not is_subsequence(taken, world.reports.get(name, [])):
            yield f"reports of {name[0]} {name[1]} were taken in an order in which they were not made"


def _not_obeyed(world: World) -> Iterator[str]:
    """A wish in the cluster reaches the device, and its answer the cluster."""
    if "restore_backup" in world.happened or "roll_back_disk" in world.happened:
        return
    for key, body in world.api.objects.items():
        if (
            key.resource != DEVICES
            or key in world.moved
            or ("default", body["spec"]["deviceModelRef"]["name"])
            not in {each[1:] for each in world.api.objects if each.resource == DEVICE_MODELS}
        ):
            continue
        wish = body["spec"]["properties"][0]["desired"]["value"]
        twins = {twin["propertyName"]: twin for twin in (body.get("status") or {}).get("twins", ())}
        said = twins.get("t", {}).get("reported", {}).get("value")
        if said != wish and not wish.endswith(POISON):
            yield f"{key} was to be {wish} and is {said} as far as the apiserver knows"
