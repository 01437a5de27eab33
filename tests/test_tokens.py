"""Join tokens: who may join, until when, and what is kept of the secret."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from apimachinery.errors import Forbidden, NotFound, Unauthorized
from apimachinery.keys import Node
from apimachinery.resources import SECRETS
from cloudhub.tokens import DEFAULT_TTL, MAX_TTL, Tokens
from cloudhub.vault import NAMESPACE, Vault
from tests.harness.objects import MemoryObjects

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PIN = "ab" * 32
EDGE = Node("edge-1")


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def tokens(objects: MemoryObjects) -> Tokens:
    return Tokens(Vault(objects))


async def test_a_token_is_good_for_any_node_until_it_expires(tokens: Tokens) -> None:
    made = await tokens.create(pin=PIN, now=NOW)
    assert made.text.startswith(f"fl1.{made.token.id}.")
    assert made.text.endswith(f".{PIN}")
    for node in ("edge-1", "edge-2"):
        assert await tokens.check(made.text, Node(node), NOW) == made.token
    last = NOW + DEFAULT_TTL - timedelta(seconds=1)
    assert await tokens.check(made.text, EDGE, last) == made.token
    with pytest.raises(Unauthorized, match=r"expired at 2026-11-24T12:00:00\+00:00.*token create"):
        await tokens.check(made.text, EDGE, NOW + DEFAULT_TTL)


async def test_another_replica_knows_the_token(tokens: Tokens, objects: MemoryObjects) -> None:
    made = await tokens.create(pin=PIN, now=NOW)
    assert await Tokens(Vault(objects)).check(made.text, EDGE, NOW) == made.token


async def test_nothing_that_is_kept_gives_the_secret_away(tokens: Tokens, objects: MemoryObjects) -> None:
    made = await tokens.create(pin=PIN, now=NOW)
    secret = made.text.split(".")[2]
    kept = json.dumps(objects.kept[SECRETS, NAMESPACE, f"join-token-{made.token.id}"])
    assert secret not in kept
    assert len(secret) == 43
    assert secret not in repr(made.token)


async def test_two_tokens_have_nothing_in_common(tokens: Tokens) -> None:
    one, two = await tokens.create(pin=PIN, now=NOW), await tokens.create(pin=PIN, now=NOW)
    assert one.token.id != two.token.id
    swapped = one.text.replace(one.token.id, two.token.id)
    with pytest.raises(Unauthorized, match="not known"):
        await tokens.check(swapped, EDGE, NOW)


async def test_token_for_one_node_is_refused_to_another_without_saying_whose_it_is(tokens: Tokens) -> None:
    made = await tokens.create(pin=PIN, now=NOW, node=EDGE)
    assert (await tokens.check(made.text, EDGE, NOW)).node == EDGE
    with pytest.raises(Forbidden, match="another node than edge-2") as caught:
        await tokens.check(made.text, Node("edge-2"), NOW)
    assert "edge-1" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "abc", "fl1.x.y.z", "fl1.aaaaaaaa." + "s" * 43, "fl2.aaaaaaaa." + "s" * 43 + "." + PIN, "fl1." + "ä" * 130],
)
async def test_malformed_token_is_unauthorized_with_what_one_looks_like(tokens: Tokens, text: str) -> None:
    with pytest.raises(Unauthorized, match=r"fl1\.ID\.SECRET\.PIN"):
        await tokens.check(text, EDGE, NOW)


async def test_wrong_secret_unknown_id_and_deleted_token_sound_alike(tokens: Tokens) -> None:
    made = await tokens.create(pin=PIN, now=NOW)
    prefix, token_id, secret, pin = made.text.split(".")
    wrong_secret = ".".join((prefix, token_id, secret[::-1], pin))
    wrong_id = ".".join((prefix, "a2b3c4d5", secret, pin))
    said = set()
    for text in (wrong_secret, wrong_id):
        with pytest.raises(Unauthorized) as caught:
            await tokens.check(text, EDGE, NOW)
        said.add(str(caught.value))
    await tokens.delete(token_id)
    with pytest.raises(Unauthorized) as caught:
        await tokens.check(made.text, EDGE, NOW)
    assert said == {str(caught.value)}


async def test_a_damaged_entry_admits_nobody(tokens: Tokens, objects: MemoryObjects) -> None:
    made = await tokens.create(pin=PIN, now=NOW)
    entry = objects.kept[SECRETS, NAMESPACE, f"join-token-{made.token.id}"]
    whole = dict(entry["data"])
    for damage in ({"hash": ""}, {"salt": ""}, {"expires": "bmV2ZXI="}, {"expires": "MjAyNi0xMi0wMVQwMDowMDowMA=="}):
        entry["data"] = whole | damage
        with pytest.raises(Unauthorized):
            await tokens.check(made.text, EDGE, NOW)
    entry["data"] = whole
    assert await tokens.check(made.text, EDGE, NOW) == made.token


async def test_list_sorts_by_expiry_and_skips_what_is_no_token(tokens: Tokens, objects: MemoryObjects) -> None:
    late = (await tokens.create(pin=PIN, now=NOW, ttl=timedelta(days=2))).token
    soon = (await tokens.create(pin=PIN, now=NOW, ttl=timedelta(hours=1), node=EDGE)).token
    assert await tokens.list() == [soon, late]
    objects.kept[SECRETS, NAMESPACE, f"join-token-{late.id}"]["data"] = {}
    assert await tokens.list() == [soon]


async def test_delete_takes_an_id_or_a_whole_token(tokens: Tokens) -> None:
    one, two = await tokens.create(pin=PIN, now=NOW), await tokens.create(pin=PIN, now=NOW)
    await tokens.delete(one.token.id)
    await tokens.delete(two.text)
    assert await tokens.list() == []
    with pytest.raises(NotFound):
        await tokens.delete(one.token.id)
    with pytest.raises(NotFound, match="token list"):
        await tokens.delete("../fairlead-ca")


async def test_prune_deletes_what_has_expired(tokens: Tokens) -> None:
    await tokens.create(pin=PIN, now=NOW, ttl=timedelta(hours=1))
    kept = await tokens.create(pin=PIN, now=NOW, ttl=timedelta(hours=3))
    assert await tokens.prune(NOW + timedelta(hours=2)) == 1
    assert await tokens.list() == [kept.token]


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), MAX_TTL + timedelta(seconds=1)])
async def test_senseless_lifetimes_are_refused(tokens: Tokens, ttl: timedelta) -> None:
    with pytest.raises(ValueError, match="lifetime"):
        await tokens.create(pin=PIN, now=NOW, ttl=ttl)
