"""Credentials: each way in gives its user, and wrong ones are refused wherever they are shown."""

from collections.abc import Sequence

import pytest

from apimachinery.errors import Unauthorized
from apiserver.authentication import Authentication, BadToken
from apiserver.messages import Request
from apiserver.tokens import InvalidToken
from apiserver.users import ADMIN, User, authenticated, service_account

ROBOT = service_account("d", "robot", "u")


class OneAccount:
    """Knows one token by heart."""

    def authenticate(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...]]:
        if token != "a.good.token":
            raise InvalidToken("it is another one")
        return ROBOT, tuple(audiences) or ("here",)


AUTHENTICATION = Authentication({"secret": ADMIN, "t2": authenticated("jane")}, OneAccount(), "here")


@pytest.mark.parametrize(
    ("header", "user"),
    [
        ("Bearer secret", ADMIN),
        ("bearer  secret", ADMIN),
        ("Bearer t2", authenticated("jane")),
        ("Bearer a.good.token", ROBOT),
        ("", None),
    ],
)
def test_a_token_gives_its_user(header: str, user: User | None) -> None:
    assert AUTHENTICATION.user_of(Request("GET", "/", {"authorization": header} if header else {})) == user


@pytest.mark.parametrize(
    "header", ["Bearer secret2", "Bearer ", "Basic secret", "Bearer ü", "Bearer a.bad.token", "secret", "Bearer \udcff"]
)
@pytest.mark.parametrize("path", ["/api/v1/pods", "/healthz"])
def test_wrong_credentials_are_refused_everywhere(header: str, path: str) -> None:
    with pytest.raises(Unauthorized, match="Unauthorized"):
        AUTHENTICATION.user_of(Request("GET", path, {"authorization": header}))


def test_a_certificate_counts_before_a_token() -> None:
    request = Request(
        "GET",
        "/",
        {"authorization": "Bearer secret"},
        peer_certificate_cn="carol",
        peer_certificate_organizations=("dev",),
    )
    assert AUTHENTICATION.user_of(request) == authenticated("carol", ("dev",))


def test_a_token_that_is_compared_is_for_this_server_only() -> None:
    assert AUTHENTICATION.of_token("secret", ["there", "here"]) == (ADMIN, ("here",))
    with pytest.raises(BadToken, match="for this server only"):
        AUTHENTICATION.of_token("secret", ["there"])
    with pytest.raises(BadToken, match="it is another one"):
        AUTHENTICATION.of_token("a.bad.token")
