"""
The roles that are there from the start, as in every Kubernetes cluster, and who has them.

admin, edit and view are for people who bind them in a namespace; a ClusterRole with the label
rbac.authorization.k8s.io/aggregate-to-{admin,edit,view}: "true" adds to them, which is how the kinds of a
definition become theirs. The names with system: are what the server itself grants to groups.

Data, and the plan that makes it: what is missing is made, a role that lost rules gets them back, and more
that was added stays. Who does not want that for a role sets its annotation
rbac.authorization.kubernetes.io/autoupdate to "false".
"""

from collections.abc import Callable, Iterator, Mapping

from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON
from apiserver import plans, rbac
from apiserver.admission import Admission
from apiserver.metadata import Facts, metadata_of
from apiserver.plans import Plan, Put, Remove, View
from apiserver.rbac import Rule
from apiserver.requests import ApiRequest, Verb
from apiserver.users import AUTHENTICATED, MASTERS, SERVICE_ACCOUNTS, UNAUTHENTICATED

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
    "system:public-info-viewer": (Rule(("get",), urls=_HEALTH),),
    "system:service-account-issuer-discovery": (Rule(("get",), urls=_ISSUER),),
}
BINDINGS: Mapping[str, tuple[str, ...]] = {
    "cluster-admin": (MASTERS,),
    "system:basic-user": (AUTHENTICATED,),
    "system:discovery": (AUTHENTICATED,),
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


def plan(view: View, facts: Callable[[], Facts], admission: Admission) -> Plan:
    """Make the objects() that are missing, mend the roles that lost something. facts: fresh ones for each object."""
    writes: list[Put | Remove] = []
    for key, wanted in objects():
        found = view.get(key)
        if found is None:
            asked = ApiRequest(verb=Verb.CREATE, resource=key.resource)
            writes += plans.create(view, asked, wanted, facts(), admission).writes
        elif key.resource == rbac.CLUSTER_ROLES and (mended := _mended(found.parse(), wanted)) is not None:
            writes.append(Put(key, mended))
    return Plan(200, tuple(writes))


def _mended(body: dict[str, JSON], wanted: dict[str, JSON]) -> dict[str, JSON] | None:
    """The role with the rules it lacks; None where it lacks none, or is to be left alone."""
    lost = rbac.missing(rbac.rules_of(body), rbac.rules_of(wanted))
    if not lost or (metadata_of(body).get("annotations") or {}).get(AUTOUPDATE) != "true":
        return None
    return body | {"rules": [*(body.get("rules") or []), *(rule.to_json() for rule in lost)]}


def _metadata(name: str) -> dict[str, JSON]:
    return {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {AUTOUPDATE: "true"},
    }
