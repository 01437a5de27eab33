"""
Which names are taken: whoever was given a certificate is written down, so that nobody else is given one in its name.

A name exists while a certificate for it is valid, and while a Node of it is in the cluster, whoever made that one. To
join under such a name takes a token that may replace: a token that leaked lets a stranger join, but not as a node
that is there already. The key that has the name may ask again at any time: it gets what it has.

A name can be banned, whether it exists or not: then nobody gets it, with whatever token, and who has it is turned
away at the link (cloudhub/gate.py).

What is written down is two notes on the Secret `node-NAME`, which holds nothing else and nothing secret. It stays
when the Node is deleted, since the certificate does, and gives the Node its labels when it is made (again).

Invariants
    of two keys that ask for a free name at once, one gets it
    who was banned before his certificate was handed out does not get it
    whoever takes over a name is in the log
    of a name that was taken over, the former machine renews nothing
"""

import contextlib
import datetime
import json
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from apimachinery.errors import AlreadyExists, Conflict, Forbidden, NotFound
from apimachinery.keys import Node
from apimachinery.resources import NODES
from cloudhub.tokens import Token
from cloudhub.vault import NOTES, Entry, Objects, Vault
from componentbase.words import rfc3339

logger = logging.getLogger(__name__)

NAME_PREFIX = "node-"
_KIND = "fairlead.io/node"
_LABEL = {"fairlead.io/kind": "node"}
_SELECTOR = "fairlead.io/kind=node"
_IDENTITY = NOTES + "identity"
_BAN = NOTES + "ban"
_REPLACED = (
    "another key has the name {node} by now: a machine took its place, or this one was copied; "
    "if it is to be {node} again, join with a token from `cloudcore token create --replace --nodes {node}`"
)
MAX_REASON = 150  # characters: with the name and the time it goes whole into a Goodbye, which has 256
_ATTEMPTS = 4  # each lost one means that somebody else was given the name meanwhile


class RenewalRefused(Forbidden):
    """What was shown does not get another certificate for this name."""


class Banned(Forbidden):
    """Nobody may have this name now."""


class Ban(NamedTuple):
    """A name that nobody may have."""

    since: str
    """RFC 3339 in UTC, for people; "" where what is written cannot be read."""
    reason: str
    """"" where nobody gave one."""


class Identity(NamedTuple):
    """Who has a name."""

    key: str
    """The key of its certificate, see pki.key_id; "" where what is written cannot be read."""
    expires: datetime.datetime
    """When the certificate lapses."""
    token: str
    """The id of the token it joined with."""
    labels: Mapping[str, str]
    ca: str = ""
    """The pin of the CA that signed its certificate; "" where that was not written down yet."""
    former: str = ""
    """The key that it was renewed with; "" where it was not renewed."""
    is_confirmed: bool = True
    """Whether the node is known to have the certificate for `key`. Until then `former` counts, too."""
    joined_with: str = ""
    """The key that the machine joined with, whichever it has by now; "" where that was not written down yet."""


class Listed(NamedTuple):
    """A name that somebody has, or that is banned."""

    node: Node
    identity: Identity | None
    ban: Ban | None


class Seen(NamedTuple):
    """A name as it stood when it was looked at."""

    node: Node
    entry: Entry | None
    identity: Identity | None
    ban: Ban | None


class Roster:
    """The names of one cluster's nodes. Raises ApiError as the apiserver answers."""

    def __init__(self, objects: Objects, *, requires_key: bool = False) -> None:
        """requires_key: whether a certificate counts only where its key is written here, see cloudhub.gate."""
        self._vault = Vault(objects)
        self._objects = objects
        self._requires_key = requires_key

    async def check(self, node: Node, token: Token, key: str, now: datetime.datetime) -> "Seen":
        """What is written of a name that this key may have. AlreadyExists or Banned where it may not."""
        seen = await self._look(node)
        if seen.ban is not None:
            raise Banned(f"{told(node, seen.ban)}; `cloudcore node unban {node}` lets it in again")
        if token.grant.may_replace or (seen.identity is not None and key and seen.identity.key == key):
            return seen
        if seen.identity is not None and now < seen.identity.expires:
            why = f"its certificate is valid until {rfc3339(seen.identity.expires)}"
        elif await self._is_in_cluster(node):
            why = "the cluster has a Node of that name"
        else:
            return seen
        raise AlreadyExists(
            f"a node {node} exists ({why}): choose another name, or let this machine take its place with a token "
            f"from `cloudcore token create --replace --nodes {node}`"
        )

    async def claim(
        self, seen: "Seen", token: Token, key: str, expires: datetime.datetime, now: datetime.datetime, ca: str = ""
    ) -> None:
        """
        Write down that the name has this key from now on, before a certificate is handed out. Raises as check() does.

        expires: the certificate's. ca: the pin of the CA that signed it.
        """
        node = seen.node
        identity = Identity(key, expires, token.id, dict(token.grant.labels), ca)
        for _ in range(_ATTEMPTS):
            had = seen.identity
            joined_with = had.joined_with if had is not None and had.key == key else key
            try:
                await self._write(seen, identity._replace(joined_with=joined_with))
            except (AlreadyExists, Conflict, NotFound):  # somebody was quicker
                seen = await self.check(node, token, key, now)
                continue
            if had is not None and had.key != key:
                logger.warning("node replaced", extra={"node": node, "token": token.id, "former_token": had.token})
            return
        raise Conflict(f"too many join as {node} at once")

    async def may_renew(self, node: Node, key: str) -> str | None:
        """Why the node may not have another certificate by showing this key, as a sentence; None where it may."""
        return self._refusal(await self._look(node), key)

    async def renew(self, node: Node, shown: str, key: str, expires: datetime.datetime, ca: str) -> None:
        """
        Write down that the name has this key from now on, before its certificate is handed out. RenewalRefused.

        shown: the key of the certificate that it asks with. It may ask again until confirm(): its answer may be lost.
        """
        for _ in range(_ATTEMPTS):
            seen = await self._look(node)
            if (refusal := self._refusal(seen, shown)) is not None:
                raise RenewalRefused(refusal)
            was = seen.identity or Identity(shown, expires, "", {})
            with contextlib.suppress(AlreadyExists, Conflict, NotFound):  # somebody was quicker
                await self._write(seen, was._replace(key=key, expires=expires, ca=ca, former=shown, is_confirmed=False))
                return
        raise Conflict(f"too many renew as {node} at once")

    async def confirm(self, node: Node, key: str) -> None:
        """The node has the certificate for this key, it has shown: no former one renews any more. RenewalRefused."""
        for _ in range(_ATTEMPTS):
            seen = await self._look(node)
            if seen.identity is None or seen.identity.key != key:
                raise RenewalRefused(self._refusal(seen, key) or _REPLACED.format(node=node))
            if seen.identity.is_confirmed:
                return
            with contextlib.suppress(Conflict, NotFound):
                await self._write(seen, seen.identity._replace(is_confirmed=True))
                return
        raise Conflict(f"too many renew as {node} at once")

    async def identities(self) -> Mapping[Node, Identity]:
        """Who has which name, all of them."""
        return {each.node: each.identity for each in await self.list() if each.identity is not None}

    async def _write(self, seen: Seen, identity: Identity) -> None:
        notes = {_IDENTITY: json.dumps(identity._asdict() | {"expires": identity.expires.isoformat()})}
        if seen.entry is None:
            await self._vault.create(NAME_PREFIX + seen.node, _KIND, {}, labels=_LABEL, notes=notes)
        else:
            await self._vault.note(seen.entry, notes)

    async def labels(self, node: Node) -> Mapping[str, str]:
        """What the token wished the Node to be labelled with."""
        identity = (await self._look(node)).identity  # None: it joined before names were written down
        return {} if identity is None else identity.labels

    async def is_known(self, node: Node) -> bool:
        """Whether somebody has the name, as far as who asks may see: a certificate was given, or there is a Node."""
        if (await self._look(node)).identity is not None:
            return True
        try:
            return await self._is_in_cluster(node)
        except Forbidden:
            return True

    async def ban(self, node: Node, reason: str, now: datetime.datetime) -> None:
        """Let nobody have the name from now on. Who is banned already stays so, for this reason where one is given."""
        for _ in range(_ATTEMPTS):
            seen = await self._look(node)
            ban = Ban(rfc3339(now), reason[:MAX_REASON])
            if seen.ban is not None:
                ban = Ban(seen.ban.since or ban.since, ban.reason or seen.ban.reason)
            notes = {_BAN: json.dumps(ban._asdict())}
            try:
                if (entry := seen.entry) is None:
                    await self._vault.create(NAME_PREFIX + node, _KIND, {}, labels=_LABEL, notes=notes)
                else:
                    await self._vault.note(entry, notes)
            except (AlreadyExists, Conflict, NotFound):
                continue
            logger.warning("node banned", extra={"node": node, "reason": reason})
            return
        raise Conflict(f"too many write of {node} at once")

    async def unban(self, node: Node) -> None:
        """NotFound where it is not banned."""
        for _ in range(_ATTEMPTS):
            seen = await self._look(node)
            if seen.entry is None or seen.ban is None:
                raise NotFound(f"node {node} is not banned")
            try:
                await self._vault.note(seen.entry, {_BAN: None})
            except (Conflict, NotFound):
                continue
            logger.info("node unbanned", extra={"node": node})
            return
        raise Conflict(f"too many write of {node} at once")

    async def list(self) -> Sequence[Listed]:
        """Every name that is written down, in their order."""
        found = (
            Listed(Node(entry.name.removeprefix(NAME_PREFIX)), identity_in(entry.notes), ban_in(entry.notes))
            for entry in await self._vault.list(_SELECTOR)
        )
        return sorted(each for each in found if each.identity or each.ban)

    def _refusal(self, seen: Seen, key: str) -> str | None:
        """As may_renew(). A name of which nothing is written was joined before names were: it may."""
        if seen.ban is not None:
            return told(seen.node, seen.ban)
        identity = seen.identity
        if identity is None:
            return never_let_in(seen.node) if self._requires_key else None
        if key == identity.key or (key == identity.former and not identity.is_confirmed):
            return None
        return _REPLACED.format(node=seen.node)

    async def _look(self, node: Node) -> Seen:
        try:
            entry = await self._vault.get(NAME_PREFIX + node)
        except NotFound:
            return Seen(node, None, None, None)
        return Seen(node, entry, identity_in(entry.notes), ban_in(entry.notes))

    async def _is_in_cluster(self, node: Node) -> bool:
        try:
            await self._objects.get(NODES, "", node)
        except NotFound:
            return False
        return True


def never_let_in(node: Node) -> str:
    """What whoever hears that shows a certificate of the cluster's that came by another way than joining."""
    return (
        f"no hub has let this key in as {node}, whoever signed its certificate: join, with a token from "
        "`cloudcore token create`"
    )


def told(node: Node, ban: Ban) -> str:
    """What whoever is turned away hears, and whoever looks."""
    since = f" since {ban.since}" if ban.since else ""
    return f"node {node} is banned{since}" + (f": {ban.reason}" if ban.reason else "")


def ban_in(notes: Mapping[str, str]) -> Ban | None:
    """None where the name is not banned. What somebody damaged is a ban: better that than somebody who is let in."""
    if _BAN not in notes:
        return None
    try:
        value = json.loads(notes[_BAN])
        return Ban(str(value["since"]), str(value["reason"])[:MAX_REASON])
    except (KeyError, ValueError, TypeError):
        return Ban("", "")


def identity_in(notes: Mapping[str, str]) -> Identity | None:
    """
    None where nothing is written.

    What somebody damaged is a name that is taken for ever, by nobody: better that than a name for the taking.
    """
    if _IDENTITY not in notes:
        return None
    try:
        value = json.loads(notes[_IDENTITY])
        expires = datetime.datetime.fromisoformat(value["expires"])
        labels = {str(name): str(text) for name, text in value["labels"].items()}
        if expires.tzinfo is None:
            raise ValueError("a time without its zone")
        ca, former = str(value.get("ca", "")), str(value.get("former", ""))
        is_confirmed = bool(value.get("is_confirmed", True))
        joined_with = str(value.get("joined_with", ""))
        return Identity(str(value["key"]), expires, str(value["token"]), labels, ca, former, is_confirmed, joined_with)
    except (KeyError, ValueError, TypeError, AttributeError):
        return Identity("", datetime.datetime.max.replace(tzinfo=datetime.UTC), "", {})
