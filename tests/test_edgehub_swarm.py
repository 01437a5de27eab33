"""What hollow nodes share, and what each must have made for itself."""

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import Object, canonical, revision_of
from apimachinery.resources import CONFIG_MAPS
from edgehub.swarm import COMMONS, Swarm
from link.frames import Delta, Refusal
from link.packing import pack_against
from metamanager.intake import intake

KEY = ObjectKey(CONFIG_MAPS, "default", "c")


def state(value: str, name: str = "c") -> Object:
    metadata = {"name": name, "namespace": "default", "uid": "u"}
    body = canonical({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"v": value * 300}})
    return Object(KEY._replace(name=name), ObjectVersion("u", revision_of(body)), {}, body)


def swarm() -> Swarm:
    return Swarm((), "127.0.0.1", 1, intake, agent="test", draw=lambda: 0.0)


async def test_what_one_node_was_told_the_next_one_shares() -> None:
    new = state("b")
    one = swarm()
    first, second = (one.take(Delta(KEY, new.version, new.body), None) for _ in range(2))
    assert first == new
    assert second is first


async def test_a_difference_is_taken_only_by_a_node_that_holds_what_it_differs_from() -> None:
    old, new = state("a"), state("b")
    told = Delta(KEY, new.version, pack_against(new.body, old.body), old.version.revision, len(new.body))
    one = swarm()
    made = one.take(told, old)
    assert made == new
    assert one.take(told, old) is made
    for held in (None, new):
        refused = one.take(told, held)
        assert isinstance(refused, Refusal)
        assert refused.whole


async def test_a_body_that_is_not_what_its_version_says_is_refused_by_each() -> None:
    new = state("b")
    one = swarm()
    for _ in range(2):
        refused = one.take(Delta(KEY, new.version, b"nonsense", size=8), None)
        assert isinstance(refused, Refusal)


async def test_what_is_shared_is_bounded() -> None:
    one = swarm()
    for number in range(COMMONS + 10):
        each = state("x", f"c{number}")
        one.take(Delta(each.key, each.version, each.body), None)
    assert len(one._commons) == COMMONS
