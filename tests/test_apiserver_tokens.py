"""Tokens: what is signed is what is read, and nothing else is believed."""

import base64
import json
from dataclasses import replace
from typing import Any

import jwt
import pytest

from apiserver.tokens import LEEWAY_S, MAX_TOKEN_CHARACTERS, Claims, InvalidToken, Ref, Signer, Verifier
from componentbase.pki import create_ca, create_signing_key

ISSUER = "https://issuer.example"
NOW = 1_800_000_000
KEY = create_signing_key()
SIGNER = Signer(KEY, ISSUER)
CLAIMS = Claims(
    namespace="d",
    account=Ref("robot", "uid-1"),
    audiences=("a", "b"),
    expires_at=NOW + 3600,
    issued_at=NOW,
    id="id-1",
    bound={"pod": Ref("p", "uid-2"), "node": Ref("n", "uid-3")},
)


@pytest.fixture
def verifier() -> Verifier:
    return Verifier(SIGNER.jwks, ISSUER)


def payload_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def test_what_was_signed_is_what_is_read(verifier: Verifier) -> None:
    assert verifier.verify(SIGNER.sign(CLAIMS), ["b", "a", "c"], NOW) == replace(CLAIMS, audiences=("b", "a"))


def test_a_token_has_the_claims_of_kubernetes() -> None:
    assert payload_of(SIGNER.sign(CLAIMS)) == {
        "aud": ["a", "b"],
        "exp": NOW + 3600,
        "iat": NOW,
        "nbf": NOW,
        "iss": ISSUER,
        "jti": "id-1",
        "sub": "system:serviceaccount:d:robot",
        "kubernetes.io": {
            "namespace": "d",
            "serviceaccount": {"name": "robot", "uid": "uid-1"},
            "pod": {"name": "p", "uid": "uid-2"},
            "node": {"name": "n", "uid": "uid-3"},
        },
    }


def test_a_token_makes_a_user_with_what_it_is_bound_to() -> None:
    user = CLAIMS.user()
    assert (user.name, user.uid) == ("system:serviceaccount:d:robot", "uid-1")
    assert user.extra == {
        "authentication.kubernetes.io/pod-name": ("p",),
        "authentication.kubernetes.io/pod-uid": ("uid-2",),
        "authentication.kubernetes.io/node-name": ("n",),
        "authentication.kubernetes.io/node-uid": ("uid-3",),
        "authentication.kubernetes.io/credential-id": ("JTI=id-1",),
    }


@pytest.mark.parametrize("again", [False, True], ids=["first", "remembered"])
def test_a_token_has_its_time(verifier: Verifier, again: bool) -> None:
    token = SIGNER.sign(CLAIMS)
    if again:
        verifier.verify(token, ["a"], NOW)
    assert verifier.verify(token, ["a"], NOW + 3600 + LEEWAY_S).id == CLAIMS.id
    with pytest.raises(InvalidToken, match="has expired"):
        verifier.verify(token, ["a"], NOW + 3601 + LEEWAY_S)
    with pytest.raises(InvalidToken, match="not valid yet"):
        verifier.verify(token, ["a"], NOW - 1 - LEEWAY_S)


def test_a_token_is_for_its_audiences(verifier: Verifier) -> None:
    with pytest.raises(InvalidToken, match='is for "a", "b", not for "c"'):
        verifier.verify(SIGNER.sign(CLAIMS), ["c"], NOW)
    with pytest.raises(InvalidToken):
        verifier.verify(SIGNER.sign(CLAIMS), [], NOW)


def test_a_token_of_another_key_or_issuer_is_nobodys(verifier: Verifier) -> None:
    with pytest.raises(InvalidToken, match="key that is not known"):
        verifier.verify(Signer(create_signing_key(), ISSUER).sign(CLAIMS), ["a"], NOW)
    with pytest.raises(InvalidToken, match="was issued by"):
        verifier.verify(Signer(KEY, "https://other").sign(CLAIMS), ["a"], NOW)


def test_no_byte_of_a_token_may_change(verifier: Verifier) -> None:
    head, payload, signature = SIGNER.sign(CLAIMS).split(".")
    more = base64.urlsafe_b64encode(json.dumps(payload_of(f".{payload}.") | {"aud": ["x"]}).encode()).decode()
    forged = (f"{head}.{more.rstrip('=')}.{signature}", f"{head}.{payload}.", f"{head}.{payload}.{signature[:-4]}AAAA")
    for token in forged:
        with pytest.raises(InvalidToken):
            verifier.verify(token, ["a", "x"], NOW)


def test_a_token_does_not_choose_its_algorithm(verifier: Verifier) -> None:
    payload, kid = payload_of(SIGNER.sign(CLAIMS)), SIGNER.jwks["keys"][0]["kid"]
    secret = base64.b64encode(SIGNER.jwks["keys"][0]["x"].encode())  # what an attacker knows as well as the verifier
    for token in (
        jwt.encode(payload, "", algorithm="none", headers={"kid": kid}),
        jwt.encode(payload, secret, algorithm="HS256", headers={"kid": kid}),
    ):
        with pytest.raises(InvalidToken):
            verifier.verify(token, ["a"], NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"kubernetes.io": None},
        {"kubernetes.io": {"namespace": "d", "serviceaccount": {"name": 7}}},
        {"kubernetes.io": {"namespace": "e", "serviceaccount": {"name": "robot", "uid": "uid-1"}}},
        {"exp": None},
        {"exp": "soon"},
        {"aud": 7},
        {"sub": "system:serviceaccount:d:other"},
        {"sub": "system:admin"},
    ],
)
def test_claims_that_do_not_fit_are_not_believed(verifier: Verifier, change: dict[str, Any]) -> None:
    token = jwt.encode(payload_of(SIGNER.sign(CLAIMS)) | change, KEY, algorithm="ES256")
    with pytest.raises(InvalidToken):
        verifier.verify(token, ["a"], NOW)


@pytest.mark.parametrize("token", ["", "..", "a.b.c", "é.é.é", "x" * (MAX_TOKEN_CHARACTERS + 1), "\x00.\x00.\x00"])
def test_rubbish_is_no_token(verifier: Verifier, token: str) -> None:
    with pytest.raises(InvalidToken):
        verifier.verify(token, ["a"], NOW)


def test_one_audience_may_stand_without_a_list(verifier: Verifier) -> None:
    token = jwt.encode(payload_of(SIGNER.sign(CLAIMS)) | {"aud": "a"}, KEY, algorithm="ES256")
    assert verifier.verify(token, ["a"], NOW).audiences == ("a",)


def test_a_key_has_the_same_name_each_time_and_shows_nothing_private() -> None:
    assert Signer(KEY, ISSUER).jwks == SIGNER.jwks
    assert set(SIGNER.jwks["keys"][0]) == {"kty", "crv", "x", "y", "use", "kid", "alg"}


@pytest.mark.parametrize("pem", [b"", b"rubbish", create_ca("x", 1).cert_pem])
def test_a_key_that_is_none_is_refused(pem: bytes) -> None:
    with pytest.raises(InvalidToken, match="no EC P-256 private key"):
        Signer(pem, ISSUER)


@pytest.mark.parametrize(
    "jwks", [{}, {"keys": []}, {"keys": "x"}, {"keys": [{"kty": "oct", "k": "AAAA", "alg": "HS256"}]}]
)
def test_keys_of_which_none_is_usable_are_refused(jwks: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken, match="no key to verify with"):
        Verifier(jwks, ISSUER)
