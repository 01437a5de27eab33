"""
Who makes a request, in Kubernetes' words: a name, a uid, groups and what else is known.

Invariants
    whoever showed credentials is in system:authenticated, whoever did not is system:anonymous
    a name of the form system:serviceaccount:NAMESPACE:NAME is given to service accounts only by service_account()

Pure. After k8s.io/apiserver/pkg/authentication/user, its tokenfile and x509 authenticators.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from apimachinery.errors import BadRequest
from apimachinery.objects import JSON

MASTERS = "system:masters"
"""The group that may do everything; no role has to say so."""
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
NODES = "system:nodes"
SERVICE_ACCOUNTS = "system:serviceaccounts"

_SERVICE_ACCOUNT = "system:serviceaccount:"
_EXTRA_HEADER = "impersonate-extra-"


class TokenFileError(ValueError):
    """A line of a token file cannot be used; the text says which and what it should be."""


@dataclass(frozen=True, slots=True)
class User:
    """One identity."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_master(self) -> bool:
        return MASTERS in self.groups

    def to_json(self) -> dict[str, JSON]:
        """As authentication.k8s.io/v1 UserInfo."""
        info: dict[str, JSON] = {"username": self.name}
        if self.uid:
            info["uid"] = self.uid
        if self.groups:
            info["groups"] = list(self.groups)
        if self.extra:
            info["extra"] = {name: list(values) for name, values in self.extra.items()}
        return info


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))
ADMIN = User("kubernetes-admin", (MASTERS, AUTHENTICATED))
"""The holder of the token that `apiserver run` makes."""


def authenticated(
    name: str, groups: Iterable[str] = (), uid: str = "", extra: Mapping[str, tuple[str, ...]] | None = None
) -> User:
    """A user who has shown who they are."""
    return User(name, tuple(dict.fromkeys((*groups, AUTHENTICATED))), uid, extra or {})


def service_account(namespace: str, name: str, uid: str, extra: Mapping[str, tuple[str, ...]] | None = None) -> User:
    """A service account as a user."""
    return authenticated(f"{_SERVICE_ACCOUNT}{namespace}:{name}", service_account_groups(namespace), uid, extra)


def service_account_groups(namespace: str) -> tuple[str, str]:
    return SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}"


def split_service_account(username: str) -> tuple[str, str] | None:
    """(namespace, name) of the service account with this user name; None for another user."""
    namespace, colon, name = username.removeprefix(_SERVICE_ACCOUNT).partition(":")
    if not username.startswith(_SERVICE_ACCOUNT) or not (namespace and colon and name) or ":" in name:
        return None
    return namespace, name


def parse_token_file(text: str) -> dict[str, User]:
    """
    Users by token: lines of `token,user,uid` or `token,user,uid,"group,group"`, as kube-apiserver's
    --token-auth-file has them. Raises TokenFileError.
    """
    import csv  # at the start of one server only; this module is on every edge

    found: dict[str, User] = {}
    for number, record in enumerate(csv.reader(text.splitlines()), 1):
        columns = [column.strip() for column in record]
        if not any(columns):
            continue
        if len(columns) < 3:
            raise TokenFileError(f"line {number}: 3 columns are needed (token,user,uid), {len(columns)} found")
        token, name, uid, *rest = columns
        if not token or not name:
            raise TokenFileError(f"line {number}: the token and the user name must not be empty")
        if token in found:
            raise TokenFileError(f"line {number}: this token stands in an earlier line already")
        groups = [group.strip() for group in rest[0].split(",")] if rest else []
        found[token] = authenticated(name, filter(None, groups), uid)
    return found


def of_certificate(common_name: str, organizations: Sequence[str]) -> User:
    """The user a verified client certificate names: CN is the name, each O a group."""
    return authenticated(common_name, organizations)


def impersonated(headers: Mapping[str, str]) -> User | None:
    """
    Whom a request wants to act as, by its Impersonate-* headers; None where it wants nothing of the kind.

    Each part of the answer must be allowed to whoever asks before it counts. A repeated header comes joined
    with commas, so one group with a comma in its name is taken for two: both are then asked for.
    """
    name = headers.get("impersonate-user", "")
    groups = [group.strip() for group in headers.get("impersonate-group", "").split(",") if group.strip()]
    uid = headers.get("impersonate-uid", "")
    extra = {
        unquote(header.removeprefix(_EXTRA_HEADER)).lower(): tuple(part.strip() for part in value.split(","))
        for header, value in headers.items()
        if header.startswith(_EXTRA_HEADER)
    }
    if not name:
        if groups or uid or extra:
            raise BadRequest("requested to impersonate groups, a uid or extra without impersonating a user")
        return None
    if not groups and (account := split_service_account(name)) is not None:
        groups = list(service_account_groups(account[0]))
    return User(name, tuple(groups), uid, extra)


def completed(wanted: User) -> User:
    """An impersonated user, once it is allowed, with the group that every request has."""
    rest = UNAUTHENTICATED if wanted.name == ANONYMOUS.name else AUTHENTICATED
    return User(wanted.name, tuple(dict.fromkeys((*wanted.groups, rest))), wanted.uid, wanted.extra)
