"""
Questions that are asked by creating them: may somebody do this, what may I do, who am I, whose token is this?

Each is answered by what decides about requests, so an answer and what then happens agree.

After k8s.io/kubernetes/pkg/registry/authorization and registry/authentication.
"""

from collections.abc import Callable, Mapping

from apimachinery.errors import BadRequest, NotFound
from apimachinery.objects import JSON
from apimachinery.resources import SERVICE_ACCOUNTS
from apiserver import attributes
from apiserver.authentication import Authentication, BadToken
from apiserver.authorizer import Authorizer
from apiserver.metadata import Facts, metadata_of
from apiserver.nodes import node_of
from apiserver.requests import ApiRequest
from apiserver.users import User

Issue = Callable[[ApiRequest, dict[str, JSON], Facts, str | None], dict[str, JSON]]
"""Answers a TokenRequest; the last argument is the node that asks, if one does."""


class Reviews:
    """`apiserver.writes.Asked` over the server's own access control."""

    def __init__(self, authorizer: Authorizer, authentication: Authentication, issue: Issue) -> None:
        self._authorizer = authorizer
        self._authentication = authentication
        self._issue = issue

    def answer(self, request: ApiRequest, body: dict[str, JSON], user: User, facts: Facts) -> dict[str, JSON]:
        """The body with its status filled in."""
        if request.subresource:
            if (request.resource, request.subresource) != (SERVICE_ACCOUNTS, "token"):
                raise NotFound("the server could not find the requested resource")
            return self._issue(request, body, facts, node_of(user))
        metadata = metadata_of(body)
        spec = body.get("spec")
        spec = {} if spec is None else spec
        if not isinstance(spec, Mapping):
            kind = request.resource.kind
            raise BadRequest(f'{kind} in version "v1" cannot be handled as a {kind}: spec must be an object')
        match request.resource.kind:
            case "SelfSubjectReview":
                metadata.setdefault("creationTimestamp", facts.now)
                status: dict[str, JSON] = {"userInfo": user.to_json()}
            case "SelfSubjectAccessReview":
                status = self._access(spec, user)
            case "SubjectAccessReview":
                status = self._access(spec, _subject(spec))
            case "LocalSubjectAccessReview":
                status = self._access(_within(spec, request.namespace), _subject(spec))
            case "SelfSubjectRulesReview":
                status = self._rules(spec, user)
            case "TokenReview":
                status = self._token(spec)
            case kind:
                raise NotFound(f"the server could not find the requested resource: {kind}")
        return body | {
            "apiVersion": request.resource.api_version,
            "kind": request.resource.kind,
            "spec": spec,
            "status": status,
        }

    def _access(self, spec: Mapping[str, JSON], user: User) -> dict[str, JSON]:
        allowed, reason = self._authorizer.allows(user, attributes.of_review(spec))
        status: dict[str, JSON] = {"allowed": allowed}
        if reason:
            status["reason"] = reason
        return status

    def _rules(self, spec: Mapping[str, JSON], user: User) -> dict[str, JSON]:
        namespace = spec.get("namespace")
        if not isinstance(namespace, str) or not namespace:
            raise BadRequest("no namespace on request")
        rules, errors = self._authorizer.rbac.rules_for(user, namespace)
        if node_of(user) is not None:
            errors = [*errors, "node authorizer does not support user rule resolution"]
        listed = [rule.to_json() for rule in dict.fromkeys(rules)]
        status: dict[str, JSON] = {
            "resourceRules": [rule for rule in listed if "nonResourceURLs" not in rule],
            "nonResourceRules": [rule for rule in listed if "nonResourceURLs" in rule],
            "incomplete": bool(errors),
        }
        if errors:
            status["evaluationError"] = ", ".join(errors)
        return status

    def _token(self, spec: Mapping[str, JSON]) -> dict[str, JSON]:
        token, audiences = spec.get("token"), spec.get("audiences") or []
        if not isinstance(token, str) or not token:
            raise BadRequest("token is required for TokenReview in authentication")
        if not isinstance(audiences, list) or any(not isinstance(name, str) for name in audiences):
            raise BadRequest("spec.audiences must be a list of strings")
        try:
            user, accepted = self._authentication.of_token(token, audiences)
        except BadToken as exc:
            return {"user": {}, "error": str(exc)}
        return {"authenticated": True, "user": user.to_json(), "audiences": list(accepted)}


def _within(spec: Mapping[str, JSON], namespace: str) -> Mapping[str, JSON]:
    asked = spec.get("resourceAttributes")
    if not isinstance(asked, Mapping) or asked.get("namespace", "") != namespace:
        given = asked.get("namespace", "") if isinstance(asked, Mapping) else ""
        raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {namespace}, not {given}")
    return spec


def _subject(spec: Mapping[str, JSON]) -> User:
    """Of whom a SubjectAccessReview asks; the groups are those it names and no others."""
    name, groups, extra = spec.get("user") or "", spec.get("groups") or [], spec.get("extra") or {}
    if not isinstance(name, str) or not isinstance(groups, list) or any(not isinstance(each, str) for each in groups):
        raise BadRequest("spec.user must be a string and spec.groups a list of strings")
    if not isinstance(extra, Mapping) or any(not isinstance(values, list) for values in extra.values()):
        raise BadRequest("spec.extra must be an object of lists of strings")
    if not name and not groups:
        raise BadRequest("at least one of user or group must be specified")
    return User(name, tuple(groups), str(spec.get("uid") or ""), {key: tuple(each) for key, each in extra.items()})
