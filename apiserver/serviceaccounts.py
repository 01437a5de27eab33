"""
ServiceAccounts as identities: tokens asked for and given, and held against what still exists.

A token lives as long as its account, by uid, and as the Pod, Secret or Node it is bound to. So nothing
has to be revoked: deleting the object is enough.

Invariants
    no token is given for an account, or bound to an object, that is not there
    an account or bound object that was deleted and made again under its name does not revive a token
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from apimachinery.errors import BadRequest, Cause, Conflict, Forbidden, NotFound
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, canonical, lookup
from apimachinery.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS
from apiserver.messages import Response, json_response
from apiserver.metadata import Facts, invalid, metadata_of
from apiserver.nodes import account_of
from apiserver.plans import View
from apiserver.requests import ApiRequest
from apiserver.tokens import Claims, InvalidToken, Ref, Signer, Verifier
from apiserver.users import User

ISSUER = "https://kubernetes.default.svc.cluster.local"  # kubeadm's; clients take it from the token, nobody resolves it
EXPIRATION_S = 3600
MIN_EXPIRATION_S = 600
MAX_EXPIRATION_S = 1 << 32

_BINDABLE = {"Pod": PODS, "Secret": SECRETS, "Node": NODES}


class ServiceAccounts:
    """Tokens of the accounts in a storage."""

    def __init__(self, view: Callable[[], View], signer: Signer) -> None:
        self.signer = signer
        self._view = view
        self._verifier = Verifier(signer.jwks, signer.issuer)

    def document(self, path: str) -> Response | None:
        """What OpenID Connect clients ask an issuer: its description and its keys; None for another path."""
        if path == "/openid/v1/jwks":
            return Response(200, [("content-type", "application/jwk-set+json")], canonical(self.signer.jwks))
        if path != "/.well-known/openid-configuration":
            return None
        described = {
            "issuer": self.signer.issuer,
            "jwks_uri": f"{self.signer.issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        return json_response(200, described)

    def authenticate(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...]]:
        """
        Whose token it is, and for which of the audiences (this server, when none are named).

        Raises InvalidToken.
        """
        claims = self._verifier.verify(token, tuple(audiences) or (self.signer.issuer,), time.time())
        view = self._view()
        account = ObjectKey(SERVICE_ACCOUNTS, claims.namespace, claims.account.name)
        _check_lives(view, account, claims.account.uid)
        for kind, resource in (("pod", PODS), ("secret", SECRETS)):
            if kind in claims.bound:
                key = ObjectKey(resource, claims.namespace, claims.bound[kind].name)
                _check_lives(view, key, claims.bound[kind].uid)
        if "node" in claims.bound and "pod" not in claims.bound:  # beside a Pod it only says where that ran
            _check_lives(view, ObjectKey(NODES, "", claims.bound["node"].name), claims.bound["node"].uid)
        return claims.user(), claims.audiences

    def issue(self, asked: ApiRequest, body: dict[str, JSON], facts: Facts, node: str | None = None) -> dict[str, JSON]:
        """Answer a TokenRequest, body to body. node: who asks, if it is a node, which gets tokens for its pods only."""
        view = self._view()
        key = asked.key
        account = view.get(key)
        if account is None:
            raise _not_found(key)
        spec = body.get("spec")
        spec = {} if spec is None else spec
        if not isinstance(spec, dict):
            raise BadRequest('TokenRequest in version "v1" cannot be handled as a TokenRequest: spec must be an object')
        audiences = spec.get("audiences") or [self.signer.issuer]
        if not isinstance(audiences, list) or any(not isinstance(name, str) or not name for name in audiences):
            raise BadRequest("spec.audiences must be a list of strings that are not empty")
        lasts_s = _expiration_s(spec, asked)
        bound = _bound(view, key, spec.get("boundObjectRef"))
        if node is not None and ("pod" not in bound or bound.get("node", Ref("")).name != node):
            raise Forbidden(
                f'{key.resource.collection} "{key.name}" is forbidden: node requested token not bound to a pod on it',
                kind=key.resource.plural,
                name=key.name,
            )
        now = int(time.time())
        claims = Claims(
            namespace=key.namespace,
            account=Ref(key.name, account.version.uid),
            audiences=tuple(dict.fromkeys(audiences)),
            expires_at=now + lasts_s,
            issued_at=now,
            id=str(uuid.uuid4()),
            bound=bound,
        )
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(claims.expires_at))
        return {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": key.name, "namespace": key.namespace, "creationTimestamp": facts.now},
            "spec": spec | {"audiences": list(claims.audiences), "expirationSeconds": lasts_s},
            "status": {"token": self.signer.sign(claims), "expirationTimestamp": until},
        }


def _expiration_s(spec: Mapping[str, JSON], asked: ApiRequest) -> int:
    lasts_s = spec.get("expirationSeconds")
    if lasts_s is None:
        return EXPIRATION_S
    if not isinstance(lasts_s, int) or isinstance(lasts_s, bool):
        raise BadRequest("spec.expirationSeconds must be an integer")
    told = ""
    if lasts_s < MIN_EXPIRATION_S:
        told = "may not specify a duration less than 10 minutes"
    elif lasts_s > MAX_EXPIRATION_S:
        told = "may not specify a duration larger than 2^32 seconds"
    if told:
        cause = Cause("spec.expirationSeconds", "FieldValueInvalid", f"Invalid value: {lasts_s}: {told}")
        raise invalid(asked.resource._replace(group="authentication.k8s.io", kind="TokenRequest"), asked.name, [cause])
    return lasts_s


def _bound(view: View, account: ObjectKey, ref: JSON) -> dict[str, Ref]:
    """What the token shall be bound to, and the node that a Pod is on."""
    if not ref:
        return {}
    kind, name = (ref.get("kind"), ref.get("name")) if isinstance(ref, Mapping) else (None, None)
    if kind not in _BINDABLE or not isinstance(name, str) or ref.get("apiVersion", "v1") != "v1":
        told = f"{ref.get('apiVersion', '')}, Kind={kind}" if isinstance(ref, Mapping) else "something else"
        raise BadRequest(f"cannot bind token for serviceaccount {account.name!r} to type {told}")
    resource = _BINDABLE[kind]
    key = ObjectKey(resource, account.namespace if resource.namespaced else "", name)
    found = view.get(key)
    if found is None:
        raise _not_found(key)
    if ref.get("uid") not in (None, "", found.version.uid):
        raise Conflict(
            f'Operation cannot be fulfilled on {resource.collection} "{name}": the UID in the bound object reference '
            f"({ref['uid']}) does not match the UID in record. The object might have been deleted and then recreated",
            kind=resource.plural,
            name=name,
        )
    bound = {kind.lower(): Ref(name, found.version.uid)}
    if resource == PODS:
        body = found.parse()
        if account_of(body) != account.name:
            raise BadRequest(
                f'cannot bind token for serviceaccount "{account.name}" to pod running with different serviceaccount '
                "name."
            )
        if node := lookup(body, "spec.nodeName"):
            held = view.get(ObjectKey(NODES, "", node))
            bound["node"] = Ref(node, held.version.uid if held is not None else "")
    return bound


def _check_lives(view: View, key: ObjectKey, uid: str) -> None:
    found = view.get(key)
    if found is None or found.version.uid != uid:
        raise InvalidToken(f"{key.resource.kind.lower()} {key.name} does not exist any more")
    if b'"deletionTimestamp"' in found.body and metadata_of(found.parse()).get("deletionTimestamp"):
        raise InvalidToken(f"{key.resource.kind.lower()} {key.name} is being deleted")


def _not_found(key: ObjectKey) -> NotFound:
    resource = key.resource
    return NotFound(f'{resource.collection} "{key.name}" not found', kind=resource.plural, name=key.name)
