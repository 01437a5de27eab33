"""
Join tokens: what an operator carries to a machine so that it may become a node.

A token is `fl1.ID.SECRET.PIN`. The id finds the entry, the secret proves the right to join, and the pin
is the SHA-256 of the CA's certificate, so the machine knows on first contact that it talks to the hub
the token came from. A token may be used until it expires, by the nodes its pattern names, once or often.

Only a digest of the secret is kept. The secret is 256 random bits, so the digest is one salted SHA-256
and not a slow password hash: nobody can search 2^256 secrets however fast the hash, whereas a slow one
would let anybody who can reach the join endpoint spend the hub's CPU and memory.

Each use is noted on the entry by compare-and-swap before anything is handed out. A token for a single use is
thereby used by one key, whichever replicas are asked at once; that key may ask again for REPEAT_S, for its
certificate may have been lost on the way: to a crash of either side, or of the line.

Invariants
    the text of a token exists only in the answer to create(); entries, logs and errors never hold it
    unknown id, wrong secret and deleted token are one answer, so that ids cannot be probed
    secrets are compared in constant time
    of a token for a single use, use() returns for one key only
"""

import asyncio
import contextlib
import datetime
import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import NamedTuple

from apimachinery.errors import AlreadyExists, BadRequest, Conflict, Forbidden, NotFound, Unauthorized
from apimachinery.keys import Node
from apimachinery.selectors import Operator, parse_labels
from cloudhub.vault import NOTES, Entry, Vault
from componentbase.words import rfc3339

logger = logging.getLogger(__name__)

DEFAULT_TTL = datetime.timedelta(hours=24)
"""As kubeadm's bootstrap tokens: a day is enough to carry one to a machine."""
MAX_TTL = datetime.timedelta(days=366)
REPEAT_S = 600.0
"""How long the key that used a token for a single use may ask again: a machine without power is back by then."""
WAITING_REPEAT_S = 25 * 3600.0
"""The same where somebody has to approve: a request that waits goes after a day, and an hour after it was signed."""
MAX_LABELS = 32
_ATTEMPTS = 8  # each lost one means that somebody else used the token meanwhile

_PREFIX = "fl1"
_TEXT = re.compile(r"fl1\.(?P<id>[a-z2-7]{8})\.(?P<secret>[A-Za-z0-9_-]{43})\.(?P<pin>[0-9a-f]{64})")
_PATTERN = re.compile(r"[a-z0-9.*?-]{1,52}")  # what a node's name may consist of, and the two wildcards
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 8
_SECRET_BYTES = 32
_NAME_PREFIX = "join-token-"
_KIND = "fairlead.io/join-token"
_LABEL = "fairlead.io/kind"
_LABEL_VALUE = "join-token"
_USES = NOTES + "uses"
_UNKNOWN = (
    "the token is not known here: it was never made, or was deleted, or is mistyped; "
    "make another with `cloudcore token create`"
)


class BadToken(Unauthorized):
    """What was shown is no token that counts now: unknown, expired, used up."""


class NotForThisNode(Forbidden):
    """It is a token, for nodes of other names."""


class Grant(NamedTuple):
    """What a token is good for."""

    nodes: str = ""
    """A pattern of names (* and ? as in a shell); "" for any."""
    is_single_use: bool = False
    may_replace: bool = False
    """Whether it may be used for a name that exists."""
    labels: Mapping[str, str] = MappingProxyType({})
    """What the Node is labelled with when it is made."""

    def covers(self, node: Node) -> bool:
        return not self.nodes or fnmatchcase(node, self.nodes)


class Uses(NamedTuple):
    """What a token was used for."""

    times: int
    last: datetime.datetime
    node: Node
    key: str
    """The last one's, see pki.key_id."""


class Token(NamedTuple):
    """What is known of a token; not the token itself."""

    id: str
    expires: datetime.datetime
    grant: Grant
    uses: Uses | None = None
    pin: str = ""
    """Of the CA that it is pinned to; "" where that was not written down yet."""


@dataclass(frozen=True)
class Presented:
    """A token that somebody has shown, with the entry it was found in."""

    token: Token
    entry: Entry = field(repr=False)


class Created(NamedTuple):
    """A new token and its text, which cannot be had again."""

    token: Token
    text: str


class Tokens:
    """The join tokens of one cluster. Raises ApiError as the apiserver answers."""

    def __init__(self, vault: Vault, repeat_s: float = REPEAT_S) -> None:
        """repeat_s: for how long the key that used a token for a single use may ask again."""
        self._vault = vault
        self.repeat_s = repeat_s
        self._noting = asyncio.Lock()

    async def create(
        self,
        *,
        pin: str,
        now: datetime.datetime,
        ttl: datetime.timedelta = DEFAULT_TTL,
        grant: Grant = Grant(),  # noqa: B008 - it is immutable
    ) -> Created:
        """
        A new token.

        pin: the CA's, see Authority.pin. ttl: positive, at most MAX_TTL, else ValueError; so for a pattern that no
        name can match.
        """
        if not datetime.timedelta(0) < ttl <= MAX_TTL:
            raise ValueError(f"a token's lifetime must be more than nothing and at most {MAX_TTL.days} days")
        if grant.nodes and not _PATTERN.fullmatch(grant.nodes):
            raise ValueError(
                f'"{grant.nodes}" cannot be a node name or a pattern of such: write lower-case letters, digits, '
                "'-' and '.', with * for any of them and ? for one"
            )
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        salt = secrets.token_bytes(16)
        expires = (now + ttl).astimezone(datetime.UTC).replace(microsecond=0)
        fields = {"salt": salt, "hash": _digest(salt, secret), "expires": expires.isoformat().encode()}
        fields["pin"] = pin.encode()
        fields |= {name: b"true" for name, is_so in _switches(grant).items() if is_so}
        if grant.nodes:
            fields["nodes"] = grant.nodes.encode()
        if grant.labels:
            fields["labels"] = json.dumps(dict(grant.labels)).encode()
        while True:
            token = Token("".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH)), expires, grant, pin=pin)
            try:
                await self._vault.create(_NAME_PREFIX + token.id, _KIND, fields, labels={_LABEL: _LABEL_VALUE})
            except AlreadyExists:
                continue  # one in 2^40 per token there is: take another id
            return Created(token, f"{_PREFIX}.{token.id}.{secret}.{pin}")

    async def check(self, text: str, node: Node, now: datetime.datetime, *, late_s: float = 0.0) -> Presented:
        """
        The token a node presents, if it may be used now by that node; whether it is used up, use() and unused() tell.

        late_s: for how long after its end it does, too. BadToken when it is malformed, unknown or expired;
        NotForThisNode when it was made for others.
        """
        parts = _TEXT.fullmatch(text)
        if parts is None:
            raise BadToken(
                "this is not a join token: it reads fl1.ID.SECRET.PIN, as `cloudcore token create` prints it"
            )
        try:
            entry = await self._vault.get(_NAME_PREFIX + parts["id"])
        except NotFound:
            raise BadToken(_UNKNOWN) from None
        if not hmac.compare_digest(
            entry.fields.get("hash", b""), _digest(entry.fields.get("salt", b""), parts["secret"])
        ):
            raise BadToken(_UNKNOWN)
        presented = _presented(entry)
        token = presented.token
        fresh(token, now - datetime.timedelta(seconds=late_s))
        if not token.grant.covers(node):
            # The names it was made for stay untold: whoever holds a stray token need not learn where it would do.
            raise NotForThisNode(
                f"the token was made for another node than {node}: "
                f"make one with `cloudcore token create --nodes {node}`"
            )
        return presented

    async def use(self, presented: Presented, node: Node, key: str, now: datetime.datetime) -> None:
        """
        Note that a node uses a token for a key, before anything is handed out for it. BadToken when it is used up.

        key: of the request, see pki.key_id. Where the apiserver does not let us note it, a token for a single use is
        of no use, and the uses of others are not counted.
        """
        async with self._noting:  # one after the other: those who join at once would only be in each other's way
            for _ in range(_ATTEMPTS):
                token = presented.token
                unused(token, now, key, node, self.repeat_s)
                if token.uses is not None and (token.uses.key, token.uses.node) == (key, node):
                    return  # it asks again
                used = Uses(1 if token.uses is None else token.uses.times + 1, now, node, key)
                try:
                    await self._vault.note(presented.entry, {_USES: _written(used)})
                except Conflict:
                    presented = await self._again(token.id)
                except NotFound:
                    raise BadToken(_UNKNOWN) from None
                except Forbidden as exc:
                    if token.grant.is_single_use:
                        raise
                    logger.warning("uses of join tokens are not counted", extra={"problem": str(exc)})
                    return
                else:
                    return
            raise Conflict("too many use this token at once")

    async def _again(self, token_id: str) -> Presented:
        try:
            return _presented(await self._vault.get(_NAME_PREFIX + token_id))
        except NotFound:
            raise BadToken(_UNKNOWN) from None

    async def list(self) -> Sequence[Token]:
        """All tokens there are, also expired ones, by time of expiry; entries that cannot be read are left out."""
        found = [_token(entry) for entry in await self._vault.list(f"{_LABEL}={_LABEL_VALUE}")]
        return sorted((token for token in found if token is not None), key=lambda token: (token.expires, token.id))

    async def delete(self, token_id: str) -> None:
        """Make a token useless at once; NotFound when there is none. Also takes the text of a token."""
        parts = _TEXT.fullmatch(token_id)
        found = parts["id"] if parts else token_id
        if not re.fullmatch(r"[a-z2-7]{8}", found):
            raise NotFound("there is no such token: an id has eight letters and digits, see `cloudcore token list`")
        await self._vault.delete(_NAME_PREFIX + found)

    async def prune(self, now: datetime.datetime) -> int:
        """
        Delete what has expired, so that Secrets do not pile up; how many there were.

        Not at once, for what was asked for in time is handed out with it, see repeat_s.
        """
        late = datetime.timedelta(seconds=self.repeat_s)
        expired = [token for token in await self.list() if now >= token.expires + late]
        for token in expired:
            with contextlib.suppress(NotFound):  # another replica was quicker
                await self._vault.delete(_NAME_PREFIX + token.id)
        return len(expired)


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(b"fairlead join token\0" + salt + secret.encode()).digest()


def fresh(token: Token, now: datetime.datetime) -> None:
    """BadToken where it has expired."""
    if now >= token.expires:
        raise BadToken(f"the token expired at {rfc3339(token.expires)}: make another with `cloudcore token create`")


def unused(token: Token, now: datetime.datetime, key: str = "", node: str = "", repeat_s: float = REPEAT_S) -> None:
    """BadToken where it was for a single use and is used up, for this node with this key."""
    uses = token.uses
    if not token.grant.is_single_use or uses is None:
        return
    if (uses.key, uses.node) == (key, node) and abs((now - uses.last).total_seconds()) < repeat_s:
        return
    raise BadToken(
        f"the token was for a single use and has been used at {rfc3339(uses.last)}: make another "
        "with `cloudcore token create`, and if that was not this machine, see `cloudcore token list` for who it was"
    )


def node_labels(text: str) -> Mapping[str, str]:
    """The labels of "KEY=VALUE,KEY=VALUE". ValueError, with a sentence, where that is not how it reads."""
    try:
        parts = parse_labels(text).requirements
    except BadRequest as exc:
        raise ValueError(f'"{text}" are not labels: {str(exc).rpartition(": ")[2]}') from None
    labels = {part.key: part.values[0] for part in parts if part.operator is Operator.IN and len(part.values) == 1}
    if len(labels) != len(parts):
        raise ValueError(f'"{text}" are not labels: write KEY=VALUE,KEY=VALUE, each key once')
    if len(labels) > MAX_LABELS:
        raise ValueError(f"{len(labels)} labels are more than {MAX_LABELS}")
    return labels


def _switches(grant: Grant) -> Mapping[str, bool]:
    """Their names in an entry; a field that is there says yes."""
    return {"singleUse": grant.is_single_use, "replace": grant.may_replace}


def _presented(entry: Entry) -> Presented:
    token = _token(entry)
    if token is None:
        raise BadToken(_UNKNOWN)
    return Presented(token, entry)


def _token(entry: Entry) -> Token | None:
    """None for an entry that somebody else wrote or damaged."""
    fields = entry.fields
    try:
        expires = datetime.datetime.fromisoformat(fields["expires"].decode())
        # Earlier releases wrote "node", which is a pattern without wildcards.
        nodes = fields.get("nodes", fields.get("node", b"")).decode()
        labels = {str(key): str(value) for key, value in json.loads(fields.get("labels", b"{}")).items()}
        grant = Grant(nodes, "singleUse" in fields, "replace" in fields, labels)
        uses = _uses(entry.notes[_USES]) if _USES in entry.notes else None
        pin = fields.get("pin", b"").decode()
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    return (
        Token(entry.name.removeprefix(_NAME_PREFIX), expires, grant, uses, pin) if expires.tzinfo is not None else None
    )


def _uses(text: str) -> Uses:
    """Raises ValueError, KeyError or TypeError."""
    value = json.loads(text)
    last = datetime.datetime.fromisoformat(value["last"])
    if last.tzinfo is None:
        raise ValueError("a time without its zone")
    return Uses(int(value["times"]), last, Node(str(value["node"])), str(value["key"]))


def _written(uses: Uses) -> str:
    return json.dumps(uses._asdict() | {"last": uses.last.astimezone(datetime.UTC).isoformat()})
