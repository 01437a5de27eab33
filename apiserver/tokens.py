"""
ServiceAccount tokens: JSON web tokens with Kubernetes' claims, signed and verified.

Verifying needs the issuer's public keys and the time, nothing else, so that an edge can do it with the
cluster gone. Whether the account and what the token is bound to still exist is asked elsewhere.

Invariants
    a token is verified with an algorithm that its key is for, never with the one it names itself
    what verify() returns was signed by the issuer, is in its time and is for one of the audiences

Pure, given the time; the one home of PyJWT. Importing it costs some 9 MB (it brings cryptography): import
this module where tokens are used. After k8s.io/kubernetes/pkg/serviceaccount (claims.go, jwt.go).
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jwt
from jwt.algorithms import ECAlgorithm
from jwt.types import Options

from apimachinery.objects import JSON, canonical
from apiserver import users
from apiserver.users import User

ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512")
MAX_TOKEN_CHARACTERS = 16 << 10
CACHE = 1024  # verified tokens: checking a signature takes as long as fifty look-ups
LEEWAY_S = 10  # clocks of an edge and of the cluster

_BOUND = ("pod", "secret", "node")


class InvalidToken(Exception):
    """The token shows nothing: get another one. The text says why, for a log or a TokenReview."""


class Ref(NamedTuple):
    """An object by name and uid."""

    name: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says."""

    namespace: str
    account: Ref
    audiences: tuple[str, ...]
    expires_at: int
    """Seconds since 1970, as are the others."""
    issued_at: int
    id: str = ""
    """jti."""
    bound: Mapping[str, Ref] = field(default_factory=dict)
    """"pod", "secret" and "node" to what the token lives and dies with."""

    def user(self) -> User:
        """The service account as a user, with what it is bound to as extra."""
        extra: dict[str, tuple[str, ...]] = {}
        for kind in ("pod", "node"):
            if kind in self.bound:
                extra[f"authentication.kubernetes.io/{kind}-name"] = (self.bound[kind].name,)
                if self.bound[kind].uid:
                    extra[f"authentication.kubernetes.io/{kind}-uid"] = (self.bound[kind].uid,)
        if self.id:
            extra["authentication.kubernetes.io/credential-id"] = (f"JTI={self.id}",)
        return users.service_account(self.namespace, self.account.name, self.account.uid, extra)


class Signer:
    """Signs tokens as one issuer with one key."""

    def __init__(self, key_pem: bytes, issuer: str) -> None:
        """key_pem: an EC P-256 key. Raises InvalidToken where it is none."""
        self.issuer = issuer
        self._key_pem = key_pem
        try:
            private = ECAlgorithm(ECAlgorithm.SHA256).prepare_key(key_pem)
            public = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)  # type: ignore[union-attr]  # it is private
        except (jwt.InvalidKeyError, ValueError, AttributeError) as exc:
            raise InvalidToken(f"the signing key is no EC P-256 private key: {exc}") from exc
        named = {name: public[name] for name in ("crv", "kty", "x", "y")}
        digest = hashlib.sha256(canonical(named)).digest()  # RFC 7638, a key's thumbprint
        self._key_id = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        self.jwks: dict[str, JSON] = {"keys": [named | {"use": "sig", "kid": self._key_id, "alg": "ES256"}]}
        """The public key as a JSON web key set, RFC 7517."""

    def sign(self, claims: Claims) -> str:
        bound = {kind: _ref(ref) for kind, ref in claims.bound.items()}
        payload = {
            "aud": list(claims.audiences),
            "exp": claims.expires_at,
            "iat": claims.issued_at,
            "nbf": claims.issued_at,
            "iss": self.issuer,
            "jti": claims.id,
            "sub": claims.user().name,
            "kubernetes.io": {"namespace": claims.namespace, "serviceaccount": _ref(claims.account), **bound},
        }
        return jwt.encode(payload, self._key_pem, algorithm="ES256", headers={"kid": self._key_id})


class Verifier:
    """Verifies tokens of one issuer."""

    def __init__(self, jwks: Mapping[str, JSON], issuer: str) -> None:
        """jwks: as served at /openid/v1/jwks. Raises InvalidToken where there is no usable key in it."""
        try:
            keys = jwt.PyJWKSet.from_dict(dict(jwks)).keys
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError) as exc:
            raise InvalidToken(f"no key to verify with: {exc}") from exc
        self._keys = [key for key in keys if key.algorithm_name in ALGORITHMS]
        if not self._keys:
            raise InvalidToken(f"no key to verify with: only {', '.join(ALGORITHMS)} are accepted")
        self._issuer = issuer
        self._verified: dict[str, Claims] = {}

    def verify(self, token: str, audiences: Sequence[str], now: float) -> Claims:
        """
        What a token says, for those of `audiences` that it is for. Raises InvalidToken.

        now: seconds since 1970.
        """
        claims = self._verified.get(token)
        if claims is None:
            claims = self._read(token)
            if len(self._verified) >= CACHE:
                self._verified.clear()
            self._verified[token] = claims
        if now > claims.expires_at + LEEWAY_S:
            raise InvalidToken("the token has expired")
        if now < claims.issued_at - LEEWAY_S:
            raise InvalidToken("the token is not valid yet: is this machine's clock right?")
        accepted = tuple(name for name in audiences if name in claims.audiences)
        if not accepted:
            raise InvalidToken(f"the token is for {_listed(claims.audiences)}, not for {_listed(audiences)}")
        return Claims(
            claims.namespace, claims.account, accepted, claims.expires_at, claims.issued_at, claims.id, claims.bound
        )

    def _read(self, token: str) -> Claims:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise InvalidToken(f"the token is longer than {MAX_TOKEN_CHARACTERS} characters")
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError as exc:
            raise InvalidToken(f"it is no JSON web token: {exc}") from exc
        failure = "it was signed with a key that is not known here"
        for key in self._keys:
            if key_id not in (None, key.key_id):
                continue
            try:
                payload = jwt.decode(token, key, algorithms=[key.algorithm_name], options=_SIGNATURE_ONLY)
            except jwt.PyJWTError as exc:
                failure = str(exc)
                continue
            return self._claims(payload)
        raise InvalidToken(failure)

    def _claims(self, payload: Mapping[str, JSON]) -> Claims:
        if payload.get("iss") != self._issuer:
            raise InvalidToken(f"the token was issued by {str(payload.get('iss'))[:200]!r}, not by {self._issuer!r}")
        private: JSON = payload.get("kubernetes.io")
        audiences: JSON = payload.get("aud")
        try:
            claims = Claims(
                namespace=private["namespace"],
                account=_read_ref(private["serviceaccount"]),
                audiences=(audiences,) if isinstance(audiences, str) else tuple(audiences),
                expires_at=int(payload["exp"]),
                issued_at=int(payload.get("nbf", payload.get("iat", 0))),
                id=str(payload.get("jti") or ""),
                bound={kind: _read_ref(private[kind]) for kind in _BOUND if private.get(kind)},
            )
        except (KeyError, TypeError, ValueError, OverflowError) as exc:
            raise InvalidToken("a claim is missing or has the wrong form") from exc
        if payload.get("sub") != claims.user().name:
            raise InvalidToken("its subject is not the service account it names")
        return claims


# Time, issuer and audience are judged here, with the time that is given.
_SIGNATURE_ONLY = Options(
    verify_signature=True,
    verify_exp=False,
    verify_nbf=False,
    verify_iat=False,
    verify_aud=False,
    verify_iss=False,
    verify_sub=False,
    verify_jti=False,
)


def _ref(ref: Ref) -> dict[str, str]:
    return {"name": ref.name, "uid": ref.uid} if ref.uid else {"name": ref.name}


def _read_ref(value: Mapping[str, JSON]) -> Ref:
    name, uid = value["name"], value.get("uid") or ""
    if not isinstance(name, str) or not isinstance(uid, str):
        raise TypeError("a name and a uid are texts")
    return Ref(name, uid)


def _listed(audiences: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in audiences)
