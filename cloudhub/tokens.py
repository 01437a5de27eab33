"""
Join tokens: what an operator carries to a machine so that it may become a node.

A token is `fl1.ID.SECRET.PIN`. The id finds the entry, the secret proves the right to join, and the pin
is the SHA-256 of the CA's certificate, so the machine knows on first contact that it talks to the hub
the token came from. A token may be used until it expires, by one named node or by any.

Only a digest of the secret is kept. The secret is 256 random bits, so the digest is one salted SHA-256
and not a slow password hash: nobody can search 2^256 secrets however fast the hash, whereas a slow one
would let anybody who can reach the join endpoint spend the hub's CPU and memory.

Invariants
    the text of a token exists only in the answer to create(); entries, logs and errors never hold it
    unknown id, wrong secret and deleted token are one answer, so that ids cannot be probed
    secrets are compared in constant time
"""

import contextlib
import datetime
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from apimachinery.errors import AlreadyExists, Forbidden, NotFound, Unauthorized
from apimachinery.keys import Node
from cloudhub.vault import Entry, Vault

DEFAULT_TTL = datetime.timedelta(hours=24)
"""As kubeadm's bootstrap tokens: a day is enough to carry one to a machine."""
MAX_TTL = datetime.timedelta(days=366)

_PREFIX = "fl1"
_TEXT = re.compile(r"fl1\.(?P<id>[a-z2-7]{8})\.(?P<secret>[A-Za-z0-9_-]{43})\.(?P<pin>[0-9a-f]{64})")
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 8
_SECRET_BYTES = 32
_NAME_PREFIX = "join-token-"
_KIND = "fairlead.io/join-token"
_LABEL = "fairlead.io/kind"
_LABEL_VALUE = "join-token"
_UNKNOWN = (
    "the token is not known here: it was never made, or was deleted, or is mistyped; "
    "make another with `cloudcore token create`"
)


class Token(NamedTuple):
    """What is known of a token; not the token itself."""

    id: str
    expires: datetime.datetime
    node: Node | None
    """The only node it may be used for; None for any."""


class Created(NamedTuple):
    """A new token and its text, which cannot be had again."""

    token: Token
    text: str


class Tokens:
    """The join tokens of one cluster. Raises ApiError as the apiserver answers."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def create(
        self,
        *,
        pin: str,
        now: datetime.datetime,
        ttl: datetime.timedelta = DEFAULT_TTL,
        node: Node | None = None,
    ) -> Created:
        """
        A new token.

        pin: the CA's, see Authority.pin. ttl: positive, at most MAX_TTL, else ValueError.
        """
        if not datetime.timedelta(0) < ttl <= MAX_TTL:
            raise ValueError(f"a token's lifetime must be more than nothing and at most {MAX_TTL.days} days")
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        salt = secrets.token_bytes(16)
        expires = (now + ttl).astimezone(datetime.UTC).replace(microsecond=0)
        fields = {"salt": salt, "hash": _digest(salt, secret), "expires": expires.isoformat().encode()}
        if node is not None:
            fields["node"] = node.encode()
        while True:
            token = Token("".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH)), expires, node)
            try:
                await self._vault.create(_NAME_PREFIX + token.id, _KIND, fields, labels={_LABEL: _LABEL_VALUE})
            except AlreadyExists:
                continue  # one in 2^40 per token there is: take another id
            return Created(token, f"{_PREFIX}.{token.id}.{secret}.{pin}")

    async def check(self, text: str, node: Node, now: datetime.datetime) -> Token:
        """
        The token a node presents, if it may be used now by that node.

        Unauthorized when it is malformed, unknown or expired; Forbidden when it was made for another node.
        """
        parts = _TEXT.fullmatch(text)
        if parts is None:
            raise Unauthorized(
                "this is not a join token: it reads fl1.ID.SECRET.PIN, as `cloudcore token create` prints it"
            )
        try:
            entry = await self._vault.get(_NAME_PREFIX + parts["id"])
        except NotFound:
            raise Unauthorized(_UNKNOWN) from None
        if not hmac.compare_digest(
            entry.fields.get("hash", b""), _digest(entry.fields.get("salt", b""), parts["secret"])
        ):
            raise Unauthorized(_UNKNOWN)
        token = _token(entry)
        if token is None:
            raise Unauthorized(_UNKNOWN)
        if now >= token.expires:
            raise Unauthorized(
                f"the token expired at {token.expires.isoformat()}: make another with `cloudcore token create`"
            )
        if token.node is not None and token.node != node:
            # The name it was made for stays untold: whoever holds a stray token need not learn where it would do.
            raise Forbidden(
                f"the token was made for another node than {node}: make one with `cloudcore token create --node {node}`"
            )
        return token

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
        """Delete what has expired, so that Secrets do not pile up; how many there were."""
        expired = [token for token in await self.list() if now >= token.expires]
        for token in expired:
            with contextlib.suppress(NotFound):  # another replica was quicker
                await self._vault.delete(_NAME_PREFIX + token.id)
        return len(expired)


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(b"fairlead join token\0" + salt + secret.encode()).digest()


def _token(entry: Entry) -> Token | None:
    """None for an entry that somebody else wrote or damaged."""
    try:
        expires = datetime.datetime.fromisoformat(entry.fields["expires"].decode())
        node = entry.fields.get("node")
        token = Token(entry.name.removeprefix(_NAME_PREFIX), expires, Node(node.decode()) if node is not None else None)
    except (KeyError, ValueError):
        return None
    return token if expires.tzinfo is not None else None
