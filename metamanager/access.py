"""
Who may use the local API where it is open to more than this machine's own programs: ServiceAccount tokens, and rights.

Tokens are verified here, with the cluster's public keys, so that they count with the cloud gone as well; the keys are
fetched once on behalf of the token's own account, which may read them in every cluster. What an account may read from
the store the cluster decides, asked by SubjectAccessReview as this node; its decisions are kept, count for DECIDED_S
while the cluster can be asked, and until then the last one counts when it cannot. Writes and everything else that goes
through the link are judged by the cluster itself, each time.

Invariants
    nobody gets further than the health probes without this node's certificate or a token of this cluster
    what was never decided is refused while the cluster cannot be asked
    a token that is bound to a Pod counts on the node that holds that Pod, while its account is the one it was made for
"""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from apimachinery.errors import ApiError, Forbidden, Unauthorized, Unavailable
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, canonical
from apimachinery.resources import PODS, SERVICE_ACCOUNTS
from apiserver.discovery import PUBLIC
from apiserver.messages import Request
from apiserver.requests import ApiRequest
from apiserver.users import User, split_service_account
from link.frames import MAX_USER_BYTES, CallHead
from metamanager.cloud import JSON_TYPE, Away, Cloud, Lost, ask
from metamanager.errors import StoreError
from metamanager.reads import only_name
from metamanager.store import Store

logger = logging.getLogger(__name__)

KEYS = "metamanager/token-keys"
DECISIONS = "metamanager/access "
DECIDED_S = 300.0  # as long as an interest goes without being judged again
DECISIONS_OF_ONE = 256  # kinds and namespaces that one account reads; the oldest goes
KEYS_AGE_S = 30.0  # a token with an unknown key may mean new keys; it costs no more than a call in this time
KEYS_RETRY_S = 1.0  # where they were not to be had; a token of anybody's must not keep the right ones out for long
NODE_PREFIX = "system:node:"
ACCOUNT_PREFIX = "system:serviceaccount:"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class _Decision(NamedTuple):
    allowed: bool
    reason: str
    at_s: float
    """Wall clock, seconds since 1970."""


class Access:
    """The door of a local API that is served with TLS."""

    def __init__(self, store: Store, cloud: Cloud, node: str) -> None:
        self._store = store
        self._cloud = cloud
        self._node = node
        self._verifiers: Tokens | None = None
        self._decisions: dict[str, dict[str, _Decision]] = {}
        """By user and question."""

    async def identified(self, request: Request) -> Request:
        """The request with its user; None is the node itself. Raises Unauthorized or Forbidden."""
        if request.peer_certificate_cn:
            if request.peer_certificate_cn != NODE_PREFIX + self._node:
                raise Forbidden(f'"{request.peer_certificate_cn:.80}" is not this node')
            return request
        scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
        if not scheme and request.path.strip("/").partition("/")[0] in PUBLIC:
            return request
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("Unauthorized")
        if self._verifiers is None:
            self._verifiers = Tokens(self._store, self._cloud)
        user, pod = await self._verifiers.user_of(token.strip())
        if pod is not None:
            await self._check_lives(pod.key, pod.uid)
        if (account := split_service_account(user.name)) is not None:
            # A Pod brings its account along; of one without a Pod here the node may not know.
            await self._check_lives(ObjectKey(SERVICE_ACCOUNTS, *account), user.uid, may_be_unknown=pod is None)
        return replace(request, user=user)

    async def _check_lives(self, key: ObjectKey, uid: str, *, may_be_unknown: bool = False) -> None:
        held = await self._store.get(key)
        if (held is None and not may_be_unknown) or (held is not None and uid and held.object.version.uid != uid):
            raise Unauthorized("Unauthorized")

    async def check(self, asked: ApiRequest, user: User | None) -> None:
        """That this user may do this. Raises Forbidden, or Away where nobody can tell."""
        if user is None:
            return
        place = _place(asked)
        # First whether all of them are allowed, which is the rule: then one decision does for every name.
        refused: ApiError | None = None
        unknown: ApiError | None = None
        name = asked.name or only_name(asked)
        for question in (place, place | {"name": name}) if name else (place,):
            try:
                decision = await self._decided(user, question)
            except (Away, Lost, Unavailable) as exc:
                unknown = exc
                continue
            if decision.allowed:
                return
            refused = _forbidden(asked, user, decision.reason)
        # A no to all of them is none to this one, which may have been granted by its name.
        found = unknown or refused
        assert found is not None, "there is one question at least"
        raise found

    async def note_allowed(self, asked: ApiRequest, user: User | None) -> None:
        """The cluster has let this user do this: offline that will count."""
        if user is None:
            return
        known = await self._known(user.name)
        question = _question(_place(asked) | {"name": asked.name})
        if question not in known or not known[question].allowed:
            known[question] = _Decision(True, "", time.time())
            await self._remember(user.name, known)

    async def _decided(self, user: User, place: Mapping[str, str]) -> _Decision:
        known = await self._known(user.name)
        question = _question(place)
        found = known.get(question)
        if found is not None and abs(time.time() - found.at_s) < DECIDED_S:
            return found
        try:
            decision = await self._ask(user, place)
        except ApiError:
            if found is not None:
                return found
            raise
        known.pop(question, None)
        known[question] = decision
        if found is None or found[:2] != decision[:2]:
            await self._remember(user.name, known)
        return decision

    async def _ask(self, user: User, place: Mapping[str, str]) -> _Decision:
        spec = {"user": user.name, "groups": list(user.groups), "resourceAttributes": dict(place)}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        head = CallHead("POST", REVIEWS, content_type=JSON_TYPE, accept=JSON_TYPE)
        answer = await ask(self._cloud, head, json.dumps(review).encode())
        if answer.head.status != 201:
            raise Unavailable(f"the cluster does not say what {user.name} may do: it answered {answer.head.status}")
        status: JSON = json.loads(answer.body).get("status") or {}
        return _Decision(status.get("allowed") is True, str(status.get("reason") or ""), time.time())

    async def _known(self, user: str) -> dict[str, _Decision]:
        if user not in self._decisions:
            name = DECISIONS + user
            kept = (await self._store.documents(name)).get(name, b"{}")
            known = {each: _Decision(*value) for each, value in json.loads(kept).items()}
            # Another request of this account's may have been here meanwhile, and have noted decisions since.
            self._decisions.setdefault(user, known)
        return self._decisions[user]

    async def _remember(self, user: str, known: dict[str, _Decision]) -> None:
        while len(known) > DECISIONS_OF_ONE:
            del known[next(iter(known))]
        try:
            await self._store.save({DECISIONS + user: canonical(known)}, ())
        except StoreError as exc:
            logger.warning("decisions not remembered", extra={"reason": str(exc)})


class BoundPod(NamedTuple):
    """The Pod that a token lives and dies with."""

    key: ObjectKey
    uid: str


class Tokens:
    """The cluster's keys, and whose a token is by them. Importing what verifies costs 9 MB, at the first token."""

    def __init__(self, store: Store, cloud: Cloud) -> None:
        from apiserver.tokens import Verifier

        self._store = store
        self._cloud = cloud
        self._verifier: Verifier | None = None
        self._issuer = ""
        self._not_before = 0.0
        self._fetching = asyncio.Lock()

    async def user_of(self, token: str) -> tuple[User, BoundPod | None]:
        """Whose bearer token it is. Raises Unauthorized, or Unavailable where the cluster's keys were never had."""
        from apiserver.tokens import InvalidToken

        if self._verifier is None:
            self._take((await self._store.documents(KEYS)).get(KEYS))
        for is_last in (False, True):
            if self._verifier is not None:
                try:
                    claims = self._verifier.verify(token, (self._issuer,), time.time())
                except InvalidToken as exc:
                    reason = str(exc)
                else:
                    bound = claims.bound.get("pod")
                    pod = None if bound is None else BoundPod(ObjectKey(PODS, claims.namespace, bound.name), bound.uid)
                    return claims.user(), pod
                if is_last or "not known here" not in reason:
                    logger.info("token refused", extra={"reason": reason})
                    raise Unauthorized("Unauthorized")
            subject = _claimed_subject(token)
            if not subject.startswith(ACCOUNT_PREFIX):
                raise Unauthorized("Unauthorized")
            if not is_last:
                await self._fetch(subject)
        raise Unavailable("this node does not have the cluster's keys yet, so it cannot tell whose token this is")

    async def _fetch(self, user: str) -> None:
        """The keys as the cluster has them now, asked for by whom the token names: the hub knows who is here."""
        async with self._fetching:
            now = time.monotonic()
            if now < self._not_before:
                return
            self._not_before = now + KEYS_RETRY_S
            documents = []
            for path in ("/.well-known/openid-configuration", "/openid/v1/jwks"):
                try:
                    answer = await ask(self._cloud, CallHead("GET", path, user, accept="*/*"))
                except (Away, Lost) as exc:
                    logger.info("the cluster's keys were not fetched", extra={"reason": str(exc)})
                    return
                if answer.head.status != 200:
                    logger.warning("no keys for tokens", extra={"path": path, "status": answer.head.status})
                    return
                documents.append(json.loads(answer.body))
            self._not_before = now + KEYS_AGE_S
            kept = canonical({"issuer": documents[0].get("issuer"), "keys": documents[1]})
            self._take(kept)
            try:
                await self._store.save({KEYS: kept}, ())
            except StoreError as exc:
                logger.warning("the cluster's keys are not remembered", extra={"reason": str(exc)})

    def _take(self, document: bytes | None) -> None:
        from apiserver.tokens import InvalidToken, Verifier

        if document is None:
            return
        value = json.loads(document)
        try:
            self._verifier, self._issuer = Verifier(value["keys"], str(value["issuer"])), str(value["issuer"])
        except InvalidToken as exc:
            logger.warning("the cluster's keys are of no use", extra={"reason": str(exc)})


def _place(asked: ApiRequest) -> dict[str, str]:
    """What is to be done to what, as a SubjectAccessReview says it, but for the name."""
    return {
        "verb": str(asked.verb),
        "group": asked.resource.group,
        "version": asked.resource.version,
        "resource": asked.resource.plural,
        "subresource": asked.subresource,
        "namespace": asked.namespace,
    }


def _question(place: Mapping[str, str]) -> str:
    return canonical({name: value for name, value in place.items() if value}).decode()


def _claimed_subject(token: str) -> str:
    """Who a token says it is of; "" where it is no token. Nothing is believed by it: the hub judges who may ask."""
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        subject = str(claims["sub"])
    except (IndexError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return subject if len(subject) <= MAX_USER_BYTES and subject.isascii() else ""  # as the link can say it


def _forbidden(asked: ApiRequest, user: User, reason: str) -> Forbidden:
    """The apiserver's words."""
    resource = asked.resource
    what = f"{resource.plural}/{asked.subresource}" if asked.subresource else resource.plural
    subject = f'{resource.collection} "{asked.name}"' if asked.name else resource.collection
    scope = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
    message = (
        f'{subject} is forbidden: User "{user.name}" cannot {asked.verb} resource "{what}" '
        f'in API group "{resource.group}"{scope}'
    )
    return Forbidden(
        f"{message}: {reason}" if reason else message, kind=resource.plural, group=resource.group, name=asked.name
    )
