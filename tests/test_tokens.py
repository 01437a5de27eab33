"""Join tokens: who may join, until when, and what is kept of the secret."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import Forbidden, NotFound, Unauthorized
from apimachinery.keys import Node
from apimachinery.resources import SECRETS
from cloudhub.tokens import DEFAULT_TTL, MAX_TTL, REPEAT_S, BadToken, Grant, Presented, Tokens, node_labels, unused
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
        assert (await tokens.check(made.text, Node(node), NOW)).token == made.token
    last = NOW + DEFAULT_TTL - timedelta(seconds=1)
    assert (await tokens.check(made.text, EDGE, last)).token == made.token
    with pytest.raises(Unauthorized, match=r"expired at 2026-11-24T12:00:00Z.*token create"):
        await tokens.check(made.text, EDGE, NOW + DEFAULT_TTL)


async def test_another_replica_knows_the_token(tokens: Tokens, objects: MemoryObjects) -> None:
    made = await tokens.create(pin=PIN, now=NOW)
    assert (await Tokens(Vault(objects)).check(made.text, EDGE, NOW)).token == made.token


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
    made = await tokens.create(pin=PIN, now=NOW, grant=Grant(EDGE))
    assert (await tokens.check(made.text, EDGE, NOW)).token.grant == Grant(EDGE)
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
    for damage in ({"labels": "bm8="}, {"labels": "W10="}, {"nodes": "/w=="}):
        entry["data"] = whole | damage
        with pytest.raises(Unauthorized):
            await tokens.check(made.text, EDGE, NOW)
    entry["data"] = whole
    for uses in ("", "{}", "[]", '{"times": 1, "last": "2026-11-23T12:00:00", "node": "n", "key": "k"}'):
        entry["metadata"]["annotations"] = {"fairlead.io/uses": uses}
        with pytest.raises(Unauthorized):
            await tokens.check(made.text, EDGE, NOW)
    entry["metadata"]["annotations"] = {}
    assert (await tokens.check(made.text, EDGE, NOW)).token == made.token


async def test_list_sorts_by_expiry_and_skips_what_is_no_token(tokens: Tokens, objects: MemoryObjects) -> None:
    late = (await tokens.create(pin=PIN, now=NOW, ttl=timedelta(days=2))).token
    soon = (await tokens.create(pin=PIN, now=NOW, ttl=timedelta(hours=1), grant=Grant(EDGE))).token
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


# ---- what a token is good for


@pytest.mark.parametrize(
    ("pattern", "fit", "unfit"),
    [
        ("", ["edge-1", "x"], []),
        ("edge-1", ["edge-1"], ["edge-2", "edge-10", "xedge-1"]),
        ("rack7-*", ["rack7-", "rack7-a.b"], ["rack70", "rack8-1"]),
        ("rack?-1", ["rack7-1"], ["rack-1", "rack77-1"]),
        ("*.berlin.example", ["a.berlin.example"], ["berlin.example", "a.berlinxexample"]),
    ],
)
async def test_a_pattern_says_for_which_names(tokens: Tokens, pattern: str, fit: list[str], unfit: list[str]) -> None:
    made = await tokens.create(pin=PIN, now=NOW, grant=Grant(pattern))
    for node in fit:
        assert (await tokens.check(made.text, Node(node), NOW)).token.grant.nodes == pattern
    for node in unfit:
        with pytest.raises(Forbidden):
            await tokens.check(made.text, Node(node), NOW)


def fits(pattern: str, name: str) -> bool:
    """What * and ? mean, word for word."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return fits(pattern[1:], name) or (bool(name) and fits(pattern, name[1:]))
    return bool(name) and pattern[0] in ("?", name[0]) and fits(pattern[1:], name[1:])


@given(st.text("a-.*?", min_size=1, max_size=7), st.text("a-.", max_size=9))
def test_patterns_mean_what_a_shells_do(pattern: str, name: str) -> None:
    assert Grant(pattern).covers(Node(name)) is fits(pattern, name)


@pytest.mark.parametrize("pattern", ["A_", "a/b", "[ab]", "x" * 53, "a b", "a,b"])
async def test_a_pattern_that_no_name_can_match_is_refused(tokens: Tokens, pattern: str) -> None:
    with pytest.raises(ValueError, match="cannot be a node name or a pattern"):
        await tokens.create(pin=PIN, now=NOW, grant=Grant(pattern))


async def test_what_is_granted_is_kept_and_listed(tokens: Tokens) -> None:
    grant = Grant("edge-*", True, True, {"site": "berlin", "example.com/rack": "7"})
    made = await tokens.create(pin=PIN, now=NOW, grant=grant)
    [listed] = await tokens.list()
    assert listed == made.token
    assert listed.grant == grant


async def test_a_token_of_an_earlier_release_counts_for_its_node(tokens: Tokens, objects: MemoryObjects) -> None:
    made = await tokens.create(pin=PIN, now=NOW)
    objects.kept[SECRETS, NAMESPACE, f"join-token-{made.token.id}"]["data"]["node"] = "ZWRnZS0x"
    assert (await tokens.check(made.text, EDGE, NOW)).token.grant == Grant("edge-1")
    with pytest.raises(Forbidden):
        await tokens.check(made.text, Node("edge-2"), NOW)


# ---- uses


async def used(tokens: Tokens, text: str, node: str, key: str, now: datetime = NOW) -> None:
    await tokens.use(await tokens.check(text, Node(node), now), Node(node), key, now)


async def test_uses_are_counted_once_per_key(tokens: Tokens) -> None:
    made = await tokens.create(pin=PIN, now=NOW)
    for number, node in enumerate(("edge-1", "edge-2", "edge-2", "edge-3")):
        await used(tokens, made.text, node, f"key of {node}", NOW + timedelta(seconds=number))
    [listed] = await tokens.list()
    assert listed.uses is not None
    assert listed.uses._asdict() == {
        "times": 3,
        "last": NOW + timedelta(seconds=3),
        "node": "edge-3",
        "key": "key of edge-3",
    }


async def test_a_single_use_is_for_one_key_which_may_ask_again_for_some_minutes(tokens: Tokens) -> None:
    made = await tokens.create(pin=PIN, now=NOW, grant=Grant(is_single_use=True))
    presented = await tokens.check(made.text, EDGE, NOW)
    unused(presented.token, NOW)
    await used(tokens, made.text, "edge-1", "mine")
    soon, late = NOW + timedelta(seconds=REPEAT_S - 1), NOW + timedelta(seconds=REPEAT_S)
    await used(tokens, made.text, "edge-1", "mine", soon)
    for key, now in (("other", NOW), ("other", soon), ("mine", late), ("mine", NOW - timedelta(seconds=REPEAT_S))):
        with pytest.raises(BadToken, match="single use and has been used at 2026-11-23T12:00:00"):
            await used(tokens, made.text, "edge-1", key, now)
    with pytest.raises(BadToken):
        unused((await tokens.check(made.text, EDGE, NOW)).token, NOW)
    with pytest.raises(BadToken, match="single use"):
        await used(tokens, made.text, "edge-2", "mine", soon)  # the same key, for another name


async def test_replicas_that_are_asked_at_once_let_one_key_use_it(objects: MemoryObjects) -> None:
    replicas = [Tokens(Vault(objects)) for _ in range(6)]
    made = await replicas[0].create(pin=PIN, now=NOW, grant=Grant(is_single_use=True))
    # Each has read the entry before any has written it.
    read = [await replica.check(made.text, EDGE, NOW) for replica in replicas]

    async def use(replica: Tokens, presented: Presented, key: str) -> bool:
        try:
            await replica.use(presented, EDGE, key, NOW)
        except BadToken:
            return False
        return True

    let_in = [
        await use(replica, entry, f"key-{n}") for n, (replica, entry) in enumerate(zip(replicas, read, strict=True))
    ]
    assert let_in == [True] + [False] * 5


async def test_a_token_that_is_deleted_meanwhile_is_of_no_use(tokens: Tokens) -> None:
    made = await tokens.create(pin=PIN, now=NOW)
    presented = await tokens.check(made.text, EDGE, NOW)
    await tokens.delete(made.token.id)
    with pytest.raises(BadToken, match="not known"):
        await tokens.use(presented, EDGE, "key", NOW)


async def test_without_the_right_to_note_uses_only_single_use_is_refused(
    tokens: Tokens, objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = await tokens.create(pin=PIN, now=NOW)
    once = await tokens.create(pin=PIN, now=NOW, grant=Grant(is_single_use=True))

    async def refuse(*_: object) -> None:
        raise Forbidden("secrets are not yours to patch")

    monkeypatch.setattr(objects, "merge", refuse)
    await used(tokens, often.text, "edge-1", "key")
    with pytest.raises(Forbidden, match="not yours"):
        await used(tokens, once.text, "edge-1", "key")


@pytest.mark.parametrize(
    ("text", "labels"),
    [("a=b", {"a": "b"}), ("example.com/rack=7,site=", {"example.com/rack": "7", "site": ""})],
)
def test_labels_read_as_kubectl_has_them(text: str, labels: dict[str, str]) -> None:
    assert node_labels(text) == labels


@pytest.mark.parametrize(
    "text", ["a", "a!=b", "!a", "a in (b,c)", "a=b,a=c", "a=b c", "-=x", "a=" + "x" * 64, ",", "a>1"]
)
def test_what_are_no_labels_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="are not labels"):
        node_labels(text)


def test_too_many_labels_are_told() -> None:
    with pytest.raises(ValueError, match="33 labels"):
        node_labels(",".join(f"l{number}=x" for number in range(33)))
