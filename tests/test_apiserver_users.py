"""Identities: what credentials and headers make of a name, and what they never make."""

from collections.abc import Mapping
from typing import Any

import pytest

from apimachinery.errors import BadRequest
from apiserver import users
from apiserver.users import ANONYMOUS, TokenFileError, User, parse_token_file


def test_a_token_file_names_users_with_uids_and_groups() -> None:
    found = parse_token_file('t1,jane,u1\n\nt2, bob ,u2,"dev, ops"\nt3,root,,system:masters\n')
    assert found["t1"] == User("jane", ("system:authenticated",), "u1")
    assert found["t2"] == User("bob", ("dev", "ops", "system:authenticated"), "u2")
    assert found["t3"].is_master
    assert not found["t2"].is_master


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("t,jane", "line 1: 3 columns"),
        ("t1,a,1\nt1,b,2", "line 2: this token"),
        (",jane,u", "line 1: the token and the user name"),
        ("t,,u", "line 1: the token and the user name"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(text: str, told: str) -> None:
    with pytest.raises(TokenFileError, match=told):
        parse_token_file(text)


def test_a_certificate_is_its_common_name_and_its_organizations() -> None:
    user = users.of_certificate("system:node:edge-1", ("system:nodes",))
    assert user == User("system:node:edge-1", ("system:nodes", "system:authenticated"))


@pytest.mark.parametrize(
    ("name", "account"),
    [
        ("system:serviceaccount:default:robot", ("default", "robot")),
        ("system:serviceaccount:default:", None),
        ("system:serviceaccount:default", None),
        ("system:serviceaccount:a:b:c", None),
        ("robot", None),
        ("default:robot", None),
    ],
)
def test_a_service_accounts_name_is_known_by_its_form(name: str, account: tuple[str, str] | None) -> None:
    assert users.split_service_account(name) == account


def test_a_service_account_is_in_the_groups_of_its_namespace() -> None:
    user = users.service_account("default", "robot", "u")
    assert user.name == "system:serviceaccount:default:robot"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({}, None),
        ({"impersonate-user": "jane"}, User("jane")),
        ({"impersonate-user": "jane", "impersonate-group": "a, b"}, User("jane", ("a", "b"))),
        ({"impersonate-user": "jane", "impersonate-uid": "7"}, User("jane", uid="7")),
        (
            {"impersonate-user": "jane", "impersonate-extra-acme.com%2fscopes": "x, y"},
            User("jane", extra={"acme.com/scopes": ("x", "y")}),
        ),
        (
            {"impersonate-user": "system:serviceaccount:d:r"},
            User("system:serviceaccount:d:r", ("system:serviceaccounts", "system:serviceaccounts:d")),
        ),
    ],
)
def test_headers_say_whom_to_act_as(headers: Mapping[str, str], wanted: User | None) -> None:
    assert users.impersonated(headers) == wanted


@pytest.mark.parametrize("header", ["impersonate-group", "impersonate-uid", "impersonate-extra-x"])
def test_parts_of_an_identity_without_a_user_are_refused(header: str) -> None:
    with pytest.raises(BadRequest, match="without impersonating a user"):
        users.impersonated({header: "x"})


def test_an_allowed_identity_gets_the_group_that_everybody_has() -> None:
    assert users.completed(User("jane", ("a",))).groups == ("a", "system:authenticated")
    assert users.completed(User("system:anonymous")) == ANONYMOUS


def test_an_identity_is_told_without_what_is_empty() -> None:
    told: dict[str, Any] = User("jane", ("a",), "7", {"k": ("v",)}).to_json()
    assert told == {"username": "jane", "groups": ["a"], "uid": "7", "extra": {"k": ["v"]}}
    assert User("jane").to_json() == {"username": "jane"}
