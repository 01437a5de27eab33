"""Whom the roster's Secrets let in, as a watch tells of them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from apimachinery.events import EventType, WatchEvent
from apimachinery.keys import Node
from apimachinery.objects import from_json
from apimachinery.resources import CONFIG_MAPS, SECRETS
from apimachinery.watchcache import WatchCache
from cloudhub.gate import Gate
from cloudhub.lobby import Denial
from cloudhub.roster import Ban, Roster
from cloudhub.tokens import Grant, Token
from cloudhub.vault import NAMESPACE
from link.frames import GoodbyeCode
from tests.harness.objects import MemoryObjects

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
EDGE = Node("edge-1")
AT = "2030-01-31T12:00:00Z"


class Watched:
    """A gate that is told what a roster has written."""

    def __init__(self) -> None:
        self.objects, self.cache = MemoryObjects(), WatchCache()
        self.roster, self.gate = Roster(self.objects), Gate(self.cache)

    def follow(self, kind: EventType = EventType.MODIFIED) -> list[Node | None]:
        value = self.objects.kept[SECRETS, NAMESPACE, f"node-{EDGE}"]
        return self.told(WatchEvent(kind, from_json(SECRETS, value), "1"))

    def told(self, event: WatchEvent) -> list[Node | None]:
        return [self.gate.observe(change) for change in self.cache.apply(event)]

    async def claim(self, key: str) -> None:
        token = Token("aaaaaaaa", NOW + timedelta(days=1), Grant(may_replace=True))
        seen = await self.roster.check(EDGE, token, key, NOW)
        await self.roster.claim(seen, token, key, NOW + timedelta(days=365), NOW)
        self.follow()

    def note(self, **changed: Any) -> None:
        """Change what is written of the identity."""
        annotations = self.objects.kept[SECRETS, NAMESPACE, f"node-{EDGE}"]["metadata"]["annotations"]
        annotations["fairlead.io/identity"] = json.dumps(json.loads(annotations["fairlead.io/identity"]) | changed)
        self.objects.kept[SECRETS, NAMESPACE, f"node-{EDGE}"]["metadata"]["resourceVersion"] += "0"
        self.follow()


async def test_a_ban_counts_from_when_it_is_told_until_it_is_lifted_or_deleted() -> None:
    watched = Watched()
    assert watched.gate.refusal(EDGE, "key") is None
    for lift in (watched.roster.unban, None):
        await watched.roster.ban(EDGE, "stolen", NOW)
        assert watched.follow() == [EDGE]
        reason = "node edge-1 is banned since 2026-11-23T12:00:00Z: stolen"
        for key in ("", "key"):
            assert watched.gate.refusal(EDGE, key) == Denial(GoodbyeCode.BANNED, reason)
        assert watched.gate.refusal(Node("edge-2"), "key") is None
        assert watched.gate.bans() == [(EDGE, Ban("2026-11-23T12:00:00Z", "stolen"))]
        if lift is not None:
            await lift(EDGE)
            assert watched.follow() == [EDGE]
        else:
            assert watched.follow(EventType.DELETED) == [EDGE]
        assert watched.gate.refusal(EDGE, "key") is None
        assert watched.gate.bans() == []


async def test_a_key_counts_until_another_machine_has_its_name() -> None:
    watched = Watched()
    await watched.claim("one")
    assert watched.gate.refusal(EDGE, "one") is None
    await watched.claim("two")
    assert watched.gate.refusal(EDGE, "two") is None
    refused = watched.gate.refusal(EDGE, "one")
    assert refused is not None
    assert (refused.code, "another machine has joined in its name" in refused.reason) == (GoodbyeCode.REPLACED, True)
    assert watched.gate.refusal(EDGE, "one", joined_with="one") == refused
    was = watched.gate.joined_with(EDGE)
    for shown, renewed in (("two", "three"), ("three", "four")):
        await watched.roster.renew(EDGE, shown, renewed, NOW + timedelta(days=700), "")
        watched.follow()
        assert watched.gate.refusal(EDGE, shown) is None, "it may not have got the new one"
        await watched.roster.confirm(EDGE, renewed)
        watched.follow()
        assert watched.gate.refusal(EDGE, shown) is not None, "it has got the new one"
        assert watched.gate.refusal(EDGE, renewed) is None
    assert watched.gate.refusal(EDGE, "two", joined_with=was) is None, "it is the same machine, and need not dial"
    watched.note(expires="soon")
    assert watched.gate.refusal(EDGE, "three") is None, "a damaged note names nobody"


async def test_a_machine_that_was_replaced_unseen_is_found_out_though_the_other_has_renewed_since() -> None:
    """While the watch was away the other one joined, and renewed: a list tells of the last state only."""
    watched = Watched()
    await watched.claim("one")
    was = watched.gate.joined_with(EDGE)
    token = Token("aaaaaaaa", NOW + timedelta(days=1), Grant(may_replace=True))
    await watched.roster.claim(
        await watched.roster.check(EDGE, token, "two", NOW), token, "two", NOW + timedelta(days=365), NOW
    )
    await watched.roster.renew(EDGE, "two", "three", NOW + timedelta(days=700), "")
    watched.follow()
    refused = watched.gate.refusal(EDGE, "one", joined_with=was)
    assert refused is not None
    assert refused.code is GoodbyeCode.REPLACED
    assert watched.gate.refusal(EDGE, "two", joined_with="two") is None


async def test_notes_of_before_say_that_a_renewed_machine_is_the_same() -> None:
    watched = Watched()
    await watched.claim("one")
    watched.note(joined_with="")
    was = watched.gate.joined_with(EDGE)
    for shown, renewed in (("one", "two"), ("two", "three")):
        await watched.roster.renew(EDGE, shown, renewed, NOW + timedelta(days=700), "")
    watched.follow()
    assert watched.gate.refusal(EDGE, "one", joined_with=was) is None
    assert watched.gate.refusal(EDGE, "one") is not None


async def test_where_another_ca_vouches_only_a_key_that_is_written_down_opens_the_door() -> None:
    watched = Watched()
    strict = Gate(watched.cache, requires_key=True)
    refused = strict.refusal(EDGE, "one")
    assert refused is not None
    assert refused.code is GoodbyeCode.REPLACED, "it asks again soon: a watch may be behind"
    assert "no hub has let this key in as edge-1" in refused.reason
    await watched.claim("one")
    assert strict.refusal(EDGE, "one") is None
    for key in ("two", ""):
        assert strict.refusal(EDGE, key) is not None, key
    watched.note(expires="soon")
    assert strict.refusal(EDGE, "one") is not None, "of a damaged note nobody knows whom it names"
    assert strict.refusal(EDGE, "one", joined_with="one") is not None


def test_what_is_not_the_rosters_is_none_of_its_business() -> None:
    watched = Watched()
    places = ((SECRETS, "default", "node-x"), (SECRETS, NAMESPACE, "fairlead-ca"), (CONFIG_MAPS, NAMESPACE, "node-x"))
    for resource, namespace, name in places:
        metadata = {"name": name, "namespace": namespace, "annotations": {"fairlead.io/ban": "{}"}}
        assert watched.told(WatchEvent(EventType.ADDED, from_json(resource, {"metadata": metadata}), "1")) == [None]
    assert watched.gate.bans() == []


async def test_an_event_is_made_once_of_each_ban() -> None:
    watched = Watched()
    assert watched.gate.event(EDGE, AT) is None
    for reason in ("stolen", "really"):
        await watched.roster.ban(EDGE, reason, NOW)
        watched.follow()
        event = watched.gate.event(EDGE, AT)
        assert event is not None
        assert (event.about.name, event.reason, reason in event.message) == (EDGE, "NodeBanned", True)
        assert watched.gate.event(EDGE, AT) is None
