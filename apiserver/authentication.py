"""
Who sends a request: a verified client certificate, the server's own token, one of a file, a ServiceAccount's.

Invariants
    nothing but these makes a name: no header and no body does
    credentials that are wrong are refused, also where none would be needed
    tokens are compared by their digests, so that the time it takes says nothing about them
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from apimachinery.errors import Unauthorized
from apiserver import users
from apiserver.messages import Request
from apiserver.users import User


class Accounts(Protocol):
    """Tokens that are verified, not compared."""

    def authenticate(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...]]:
        """Whose token, and for which of the audiences. Raises an exception whose text says what is wrong with it."""


class BadToken(Exception):
    """Nobody's token; the text says why, as far as it is known."""


class Authentication:
    """The ways in."""

    def __init__(self, tokens: Mapping[str, User], accounts: Accounts, audience: str) -> None:
        """audience: what tokens for this server are for, which the ones that are compared always are."""
        self._users = {_digest(token): user for token, user in tokens.items()}
        self._accounts = accounts
        self._audience = audience

    def user_of(self, request: Request) -> User | None:
        """None without credentials. Raises Unauthorized."""
        if request.peer_certificate_cn:
            return users.of_certificate(request.peer_certificate_cn, request.peer_certificate_organizations)
        given = request.headers.get("authorization", "").strip()
        if not given:
            return None
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("Unauthorized")
        try:
            return self.of_token(token.strip())[0]
        except BadToken:
            raise Unauthorized("Unauthorized") from None

    def of_token(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...]]:
        """Whose bearer token, and for which of the audiences (this server, when none are named). Raises BadToken."""
        user = self._users.get(_digest(token))
        if user is not None:
            accepted = tuple(name for name in audiences or (self._audience,) if name == self._audience)
            if not accepted:
                raise BadToken("the token is for this server only")
            return user, accepted
        if token.count(".") != 2:
            raise BadToken("invalid bearer token")
        from apiserver.tokens import InvalidToken  # after the accounts, which brought it

        try:
            return self._accounts.authenticate(token, audiences)
        except InvalidToken as exc:
            raise BadToken(str(exc)) from exc


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
