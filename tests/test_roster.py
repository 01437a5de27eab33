"""Who has a name, until when, and who may take it over."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from apimachinery.errors import AlreadyExists, Conflict, NotFound
from apimachinery.keys import Node
from apimachinery.resources import NODES, SECRETS
from cloudhub.roster import MAX_REASON, Ban, Banned, Listed, RenewalRefused, Roster
from cloudhub.tokens import Grant, Token
from cloudhub.vault import NAMESPACE
from componentbase.words import rfc3339
from tests.harness.objects import MemoryObjects

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
YEAR = timedelta(days=365)
EDGE = Node("edge-1")
PLAIN = Token("aaaaaaaa", NOW + YEAR, Grant(labels={"site": "berlin"}))
REPLACING = Token("bbbbbbbb", NOW + YEAR, Grant(may_replace=True))


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def roster(objects: MemoryObjects) -> Roster:
    return Roster(objects)


async def claim(roster: Roster, key: str, token: Token = PLAIN, now: datetime = NOW) -> None:
    await roster.claim(await roster.check(EDGE, token, key, now), token, key, now + YEAR, now)


async def test_a_free_name_is_had_by_whoever_comes_first(roster: Roster) -> None:
    assert (await roster.check(EDGE, PLAIN, "one", NOW)).identity is None
    await claim(roster, "one")
    await claim(roster, "one", now=NOW + timedelta(days=1))  # again
    for key in ("two", ""):
        with pytest.raises(AlreadyExists, match=r"edge-1 exists \(its certificate is valid until 2027-11-24T12:00"):
            await roster.check(EDGE, PLAIN, key, NOW)
    with pytest.raises(AlreadyExists):
        await claim(roster, "two")
    await roster.check(Node("edge-2"), PLAIN, "two", NOW)


async def test_a_token_that_may_replace_takes_the_name_over(roster: Roster) -> None:
    await claim(roster, "one")
    await claim(roster, "two", REPLACING)
    with pytest.raises(AlreadyExists):
        await claim(roster, "one")


async def test_a_name_is_free_when_its_certificate_has_lapsed_unless_the_cluster_has_its_node(
    roster: Roster, objects: MemoryObjects
) -> None:
    await claim(roster, "one")
    later = NOW + YEAR
    await roster.check(EDGE, PLAIN, "two", later)
    await objects.create(NODES, "", {"metadata": {"name": EDGE}})
    with pytest.raises(AlreadyExists, match="the cluster has a Node of that name"):
        await roster.check(EDGE, PLAIN, "two", later)
    await roster.check(EDGE, REPLACING, "two", later)
    await objects.delete(NODES, "", EDGE)
    await claim(roster, "two", now=later)


async def test_a_node_of_an_earlier_release_or_of_somebody_elses_is_not_given_away(
    roster: Roster, objects: MemoryObjects
) -> None:
    await objects.create(NODES, "", {"metadata": {"name": EDGE}})
    with pytest.raises(AlreadyExists, match=r"cloudcore token create --replace --nodes edge-1"):
        await claim(roster, "one")


async def test_of_two_replicas_one_gives_the_name_away(objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has looked before, and seen that it is free."""
    roster, other = Roster(objects), Roster(objects)
    real = objects.create

    async def overtaken(*arguments: object) -> object:
        if arguments[0] == SECRETS:
            monkeypatch.setattr(objects, "create", real)
            await claim(other, "theirs")
        return await real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(objects, "create", overtaken)
    with pytest.raises(AlreadyExists):
        await claim(roster, "ours")
    assert (await roster.check(EDGE, PLAIN, "theirs", NOW)).identity is not None


async def test_a_name_that_changes_hands_all_the_time_is_a_conflict(
    roster: Roster, objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claim(roster, "one")

    async def always(*_: object) -> None:
        raise Conflict("modified")

    monkeypatch.setattr(objects, "merge", always)
    with pytest.raises(Conflict, match="too many join as edge-1"):
        await claim(roster, "two", REPLACING)


async def test_labels_are_those_of_the_token_that_was_used_last(roster: Roster) -> None:
    assert await roster.labels(EDGE) == {}
    await claim(roster, "one")
    assert await roster.labels(EDGE) == {"site": "berlin"}
    await claim(roster, "two", REPLACING)
    assert await roster.labels(EDGE) == {}


@pytest.mark.parametrize("damage", ["", "{}", "[]", json.dumps({"key": "k", "expires": "soon", "labels": {}})])
async def test_a_damaged_record_is_a_name_that_is_taken(roster: Roster, objects: MemoryObjects, damage: str) -> None:
    await claim(roster, "one")
    objects.kept[SECRETS, NAMESPACE, "node-edge-1"]["metadata"]["annotations"]["fairlead.io/identity"] = damage
    for key in ("one", ""):
        with pytest.raises(AlreadyExists):
            await roster.check(EDGE, PLAIN, key, NOW)
    assert await roster.labels(EDGE) == {}
    await claim(roster, "two", REPLACING)
    assert (await roster.check(EDGE, PLAIN, "two", NOW)).identity is not None


async def test_the_key_that_has_the_name_renews_and_the_former_until_the_new_one_is_seen(roster: Roster) -> None:
    await claim(roster, "one")
    later = NOW + 2 * YEAR
    assert await roster.may_renew(EDGE, "one") is None
    assert "another key has the name edge-1" in (await roster.may_renew(EDGE, "two") or "")
    await roster.renew(EDGE, "one", "two", later, "ca-2")
    identity = (await roster.identities())[EDGE]
    assert (identity.key, identity.former, identity.ca, identity.is_confirmed) == ("two", "one", "ca-2", False)
    assert (identity.labels, identity.joined_with) == ({"site": "berlin"}, "one")
    assert await roster.may_renew(EDGE, "one") is None, "the answer may have been lost"
    with pytest.raises(RenewalRefused):
        await roster.confirm(EDGE, "one")
    await roster.confirm(EDGE, "two")
    assert await roster.may_renew(EDGE, "two") is None
    with pytest.raises(RenewalRefused, match="another key has the name"):
        await roster.renew(EDGE, "one", "three", later, "ca-2")
    await claim(roster, "two", REPLACING)
    assert (await roster.identities())[EDGE].joined_with == "one", "it has joined again as what it is"
    await claim(roster, "four", REPLACING)
    assert (await roster.identities())[EDGE].joined_with == "four"
    for key in ("one", "two"):
        assert await roster.may_renew(EDGE, key) is not None, "a machine that was replaced"


async def test_where_another_ca_vouches_nobody_renews_of_whom_nothing_is_written(objects: MemoryObjects) -> None:
    strict = Roster(objects, requires_key=True)
    assert "no hub has let this key in as edge-1" in str(await strict.may_renew(EDGE, "one"))
    with pytest.raises(RenewalRefused):
        await strict.renew(EDGE, "one", "two", NOW + YEAR, "")
    assert await strict.identities() == {}
    await claim(strict, "one")
    await strict.renew(EDGE, "one", "two", NOW + YEAR, "")


async def test_of_two_renewals_at_once_both_are_told_what_became_of_them(
    roster: Roster, objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claim(roster, "one")
    real = objects.merge

    async def overtaken(*arguments: object) -> object:
        monkeypatch.setattr(objects, "merge", real)
        await claim(Roster(objects), "theirs", REPLACING)
        return await real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(objects, "merge", overtaken)
    with pytest.raises(RenewalRefused):
        await roster.renew(EDGE, "one", "two", NOW + YEAR, "")
    assert (await roster.identities())[EDGE].key == "theirs"


async def test_who_is_banned_gets_the_name_with_no_token_and_no_key(roster: Roster) -> None:
    await claim(roster, "one")
    await roster.ban(EDGE, "stolen", NOW)
    for key, token in (("one", PLAIN), ("two", REPLACING)):
        with pytest.raises(Banned, match=r"edge-1 is banned since 2026-11-23T12:00:00Z: stolen; `cloudcore node unban"):
            await roster.check(EDGE, token, key, NOW)
    await roster.ban(EDGE, "still stolen", NOW + YEAR)
    await roster.ban(EDGE, "", NOW + YEAR)
    [listed] = await roster.list()
    assert (listed.ban, listed.identity and listed.identity.key) == (Ban(rfc3339(NOW), "still stolen"), "one")
    await roster.unban(EDGE)
    await claim(roster, "one")
    with pytest.raises(NotFound, match="edge-1 is not banned"):
        await roster.unban(EDGE)


async def test_a_name_that_nobody_has_can_be_banned_and_be_free_again(roster: Roster) -> None:
    await roster.ban(EDGE, "", NOW)
    with pytest.raises(Banned):
        await claim(roster, "one")
    assert await roster.list() == [Listed(EDGE, None, Ban(rfc3339(NOW), ""))]
    await roster.unban(EDGE)
    assert await roster.list() == []
    await claim(roster, "one")


async def test_a_ban_that_comes_between_a_look_and_a_claim_is_heeded(roster: Roster) -> None:
    for key in ("one", "one again"):
        seen = await roster.check(EDGE, REPLACING, key, NOW)
        await roster.ban(EDGE, "", NOW)
        with pytest.raises(Banned):
            await roster.claim(seen, REPLACING, key, NOW + YEAR, NOW)
        await roster.unban(EDGE)


async def test_a_ban_that_somebody_damaged_is_one(roster: Roster, objects: MemoryObjects) -> None:
    await roster.ban(EDGE, "x" * 2 * MAX_REASON, NOW)
    for damage in ("", "[]", "{}"):
        objects.kept[SECRETS, NAMESPACE, "node-edge-1"]["metadata"]["annotations"]["fairlead.io/ban"] = damage
        with pytest.raises(Banned, match="node edge-1 is banned;"):
            await roster.check(EDGE, PLAIN, "", NOW)


async def test_who_is_banned_renews_nothing(roster: Roster) -> None:
    await claim(roster, "one")
    await roster.ban(EDGE, "stolen", NOW)
    assert "edge-1 is banned" in (await roster.may_renew(EDGE, "one") or "")
    with pytest.raises(RenewalRefused, match="stolen"):
        await roster.renew(EDGE, "one", "two", NOW + YEAR, "")
