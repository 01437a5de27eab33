"""
The roles that are there from the start, as in every Kubernetes cluster, and who has them.

admin, edit and view are for people who bind them in a namespace; a ClusterRole with the label
rbac.authorization.k8s.io/aggregate-to-{admin,edit,view}: "true" adds to them, which is how the kinds of a
definition become theirs. The names with system: are what the server itself grants to groups.

Data, and the plan that makes it: what is missing is made, a role that lost rules gets them back, and more
that was added stays. Who does not want that for a role sets its annotation
rbac.authorization.kubernetes.io/autoupdate to "false".
"""

from collections.abc import Iterator, Mapping

from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON
from apiserver import plans, rbac
from apiserver.admission import Admission
from apiserver.metadata import Facts, metadata_of
from apiserver.plans import Plan, Put, View
from apiserver.rbac import Rule
from apiserver.requests import ApiRequest, Verb
from apiserver.users import AUTHENTICATED, MASTERS, NODES, SERVICE_ACCOUNTS, UNAUTHENTICATED

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_APPS = ("daemonsets", "deployments", "replicasets", "statefulsets")
_CORE = (
    "configmaps", "endpoints", "events", "limitranges", "persistentvolumeclaims", "pods", "resourcequotas",
    "serviceaccounts", "services",
)  # fmt: skip
_CORE_WRITTEN = ("configmaps", "events", "persistentvolumeclaims", "pods", "secrets", "serviceaccounts", "services")


def _with_status(*resources: str) -> tuple[str, ...]:
    return tuple(each for resource in resources for each in (resource, f"{resource}/status"))


_VIEW = (
    Rule(_READ, ("",), (*_CORE, "namespaces", *(f"{name}/status" for name in _CORE if name != "configmaps"))),
    Rule(_READ, ("apps",), _with_status(*_APPS)),
    Rule(_READ, ("batch",), _with_status("cronjobs", "jobs")),
    Rule(_READ, ("discovery.k8s.io",), ("endpointslices",)),
    Rule(_READ, ("networking.k8s.io",), (*_with_status("ingresses"), "networkpolicies")),
)
_EDIT = (
    Rule(_READ, ("",), ("secrets",)),
    Rule(_WRITE, ("",), _CORE_WRITTEN),
    Rule(("create",), ("",), ("serviceaccounts/token",)),
    Rule(("impersonate",), ("",), ("serviceaccounts",)),
    Rule(_WRITE, ("apps",), _APPS),
    Rule(_WRITE, ("batch",), ("cronjobs", "jobs")),
    Rule(_WRITE, ("networking.k8s.io",), ("ingresses", "networkpolicies")),
    Rule((*_READ, *_WRITE), ("coordination.k8s.io",), ("leases",)),
)
_ADMIN = (
    Rule((*_READ, *_WRITE), (rbac.GROUP,), ("rolebindings", "roles")),
    Rule(("create",), ("authorization.k8s.io",), ("localsubjectaccessreviews",)),
)
_NODE = (
    Rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
    Rule(("create",), ("authorization.k8s.io",), ("localsubjectaccessreviews", "subjectaccessreviews")),
    Rule(_READ, ("",), ("services",)),
    Rule(("create", *_READ, "patch", "update"), ("",), ("nodes",)),
    Rule(("patch", "update"), ("",), ("nodes/status",)),
    Rule(("create", "patch", "update"), ("",), ("events",)),
    Rule((*_READ, "create", "delete"), ("",), ("pods",)),
    Rule(("patch", "update"), ("",), ("pods/status",)),
    Rule(_READ, ("",), ("configmaps", "secrets")),
    Rule(("get",), ("",), ("persistentvolumeclaims", "persistentvolumes", "serviceaccounts")),
    Rule(("create",), ("",), ("serviceaccounts/token",)),
    Rule(("create", "delete", "get", "patch", "update"), ("coordination.k8s.io",), ("leases",)),
    Rule(_READ, ("storage.k8s.io",), ("csidrivers", "volumeattachments")),
    Rule(("create", "delete", "get", "patch", "update"), ("storage.k8s.io",), ("csinodes",)),
    Rule(_READ, ("node.k8s.io",), ("runtimeclasses",)),
)
_HEALTH = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_DISCOVERY = ("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")
_ISSUER = ("/.well-known/openid-configuration", "/openid/v1/jwks")

ROLES: Mapping[str, tuple[Rule, ...]] = {
    "cluster-admin": (Rule(("*",), ("*",), ("*",)), Rule(("*",), urls=("*",))),
    "admin": (*_ADMIN, *_EDIT, *_VIEW),
    "edit": (*_EDIT, *_VIEW),
    "view": _VIEW,
    "system:auth-delegator": (
        Rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
        Rule(("create",), ("authorization.k8s.io",), ("subjectaccessreviews",)),
    ),
    "system:basic-user": (
        Rule(("create",), ("authorization.k8s.io",), ("selfsubjectaccessreviews", "selfsubjectrulesreviews")),
        Rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
    ),
    "system:discovery": (Rule(("get",), urls=(*_HEALTH, *_DISCOVERY)),),
    "system:monitoring": (Rule(("get",), urls=("/healthz/*", "/livez/*", "/readyz/*", "/metrics")),),
    "system:node": _NODE,
    "system:public-info-viewer": (Rule(("get",), urls=_HEALTH),),
    "system:service-account-issuer-discovery": (Rule(("get",), urls=_ISSUER),),
}
BINDINGS: Mapping[str, tuple[str, ...]] = {
    "cluster-admin": (MASTERS,),
    "system:basic-user": (AUTHENTICATED,),
    "system:discovery": (AUTHENTICATED,),
    "system:node": (NODES,),
    "system:public-info-viewer": (AUTHENTICATED, UNAUTHENTICATED),
    "system:service-account-issuer-discovery": (SERVICE_ACCOUNTS,),
}
"""A ClusterRoleBinding of the same name as its role, and its groups."""


def objects() -> Iterator[tuple[ObjectKey, dict[str, JSON]]]:
    """The roles and bindings as a client would create them."""
    for name, rules in ROLES.items():
        role: dict[str, JSON] = {"metadata": _metadata(name), "rules": [rule.to_json() for rule in rules]}
        if name in ("admin", "edit", "view"):
            wider = [each for each in ("view", "edit", "admin") if name == "admin" or each in (name, "view")]
            selectors = [{"matchLabels": {f"{_AGGREGATE}{each}": "true"}} for each in wider]
            role["aggregationRule"] = {"clusterRoleSelectors": selectors}
        yield ObjectKey(rbac.CLUSTER_ROLES, "", name), role
    for name, groups in BINDINGS.items():
        yield (
            ObjectKey(rbac.CLUSTER_ROLE_BINDINGS, "", name),
            {
                "metadata": _metadata(name),
                "roleRef": {"apiGroup": rbac.GROUP, "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": rbac.GROUP, "kind": "Group", "name": group} for group in groups],
            },
        )


def plan(view: View, facts: Facts, admission: Admission, key: ObjectKey, wanted: dict[str, JSON]) -> Plan:
    """Make one of objects(), or mend it."""
    found = view.get(key)
    if found is None:
        asked = ApiRequest(verb=Verb.CREATE, resource=key.resource)
        return plans.create(view, asked, wanted, facts, admission)
    body = found.parse()
    if (metadata_of(body).get("annotations") or {}).get(AUTOUPDATE) != "true" or "rules" not in wanted:
        return Plan(200, ())
    lost = rbac.missing(rbac.rules_of(body), rbac.rules_of(wanted))
    if not lost:
        return Plan(200, ())
    body["rules"] = [*(body.get("rules") or []), *(rule.to_json() for rule in lost)]
    return Plan(200, (Put(key, body),))


def _metadata(name: str) -> dict[str, JSON]:
    return {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {AUTOUPDATE: "true"},
    }
