"""
The door in front of the API: who is it, as whom do they want to act, and may they?

Invariants
    the handler behind it is called with a user, and only with a request that this user may make
    without credentials only what system:public-info-viewer shows can be seen; all else is 401
    who acts as somebody else was allowed each part of it: the name, every group, the uid, every extra value
"""

import dataclasses
from collections.abc import Iterator

from apimachinery.errors import Unauthorized
from apiserver import users
from apiserver.attributes import Attributes, attributes_of
from apiserver.authentication import Authentication
from apiserver.authorizer import Authorizer
from apiserver.discovery import PUBLIC
from apiserver.messages import Handler, Request, Response
from apiserver.users import ANONYMOUS, User

_AUTHENTICATION = "authentication.k8s.io"


def guarding(handler: Handler, authentication: Authentication, authorizer: Authorizer) -> Handler:
    """The handler behind the door."""

    async def check(request: Request) -> Response:
        user = authentication.user_of(request)
        if user is None:
            if request.path.strip("/").partition("/")[0] not in PUBLIC:
                raise Unauthorized("Unauthorized")
            user = ANONYMOUS
        wanted = users.impersonated(request.headers)
        if wanted is not None:
            for asked in impersonations(wanted):
                authorizer.check(user, asked)
            user = users.completed(wanted)
        authorizer.check(user, attributes_of(request.method, request.target))
        return await handler(dataclasses.replace(request, user=user))

    return check


def impersonations(wanted: User) -> Iterator[Attributes]:
    """What somebody must be allowed who wants to act as another."""
    account = users.split_service_account(wanted.name)
    if account is not None:
        namespace, name = account
        yield Attributes(verb="impersonate", version="v1", resource="serviceaccounts", namespace=namespace, name=name)
    else:
        yield Attributes(verb="impersonate", version="v1", resource="users", name=wanted.name)
    implied = users.service_account_groups(account[0]) if account is not None else ()
    if wanted.groups != implied:
        for group in wanted.groups:
            yield Attributes(verb="impersonate", version="v1", resource="groups", name=group)
    if wanted.uid:
        yield Attributes(verb="impersonate", group=_AUTHENTICATION, version="v1", resource="uids", name=wanted.uid)
    for key, values in wanted.extra.items():
        for value in values:
            yield Attributes(
                verb="impersonate",
                group=_AUTHENTICATION,
                version="v1",
                resource="userextras",
                subresource=key,
                name=value,
            )
