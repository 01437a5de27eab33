"""
Nobody grants more than they have: who writes a role must hold its rules, who writes a binding those of its role.

What CertificateSigningRequests ask for and are given is judged here, too (apiserver.signing).

The verbs `escalate` on the role and `bind` on it lift this, as in Kubernetes. What a node writes is judged
here too. Looked at with the plan made, so that it holds for every way of writing: create, replace, patch, apply.

Pure, given the authorizer. After k8s.io/kubernetes/pkg/registry/rbac/*/policybased.
"""

from collections.abc import Callable, Mapping

from apimachinery.errors import Cause, Forbidden, NotFound
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, Object
from apimachinery.resources import CERTIFICATE_SIGNING_REQUESTS, NAMESPACES
from apiserver import nodes, rbac, signing
from apiserver.attributes import Attributes
from apiserver.authorizer import Authorizer
from apiserver.metadata import invalid
from apiserver.plans import Plan, Put, View
from apiserver.rbac import Rule
from apiserver.users import User

_EVERYTHING = (Rule(("*",), ("*",), ("*",)), Rule(("*",), urls=("*",)))


def guarded(make: Callable[[View], Plan], user: User, authorizer: Authorizer) -> Callable[[View], Plan]:
    """The plan, refused where it would give somebody more than this user has, or a node more than its own."""
    node = nodes.node_of(user)

    def checked(view: View) -> Plan:
        plan = make(view)
        for write in plan.writes:
            if node is not None:
                nodes.check_write(node, write.key, write.body, _body(view.get(write.key)))
            if isinstance(write, Put) and view.get(write.key) is None:
                # A patch may create: the door has only seen that it is a patch.
                authorizer.check(user, _creation(write.key))
            if isinstance(write, Put) and write.key.resource == CERTIFICATE_SIGNING_REQUESTS:
                signing.check(write.key, write.body, _body(view.get(write.key)), user, authorizer.allows)
            if isinstance(write, Put) and write.key.resource.group == rbac.GROUP:
                _check(write.key, write.body, _body(view.get(write.key)), user, authorizer)
        return plan

    return checked


def _creation(key: ObjectKey) -> Attributes:
    resource = key.resource
    return Attributes(
        verb="create",
        group=resource.group,
        version=resource.version,
        resource=resource.plural,
        namespace=key.namespace or (key.name if resource == NAMESPACES else ""),
        name=key.name,
    )


def _body(found: Object | None) -> dict[str, JSON] | None:
    return None if found is None else found.parse()


def _check(
    key: ObjectKey, body: Mapping[str, JSON], current: Mapping[str, JSON] | None, user: User, authorizer: Authorizer
) -> None:
    is_role = key.resource in (rbac.ROLES, rbac.CLUSTER_ROLES)
    if not is_role and current is not None and body.get("roleRef") != current.get("roleRef"):
        cause = Cause("roleRef", "FieldValueInvalid", f"Invalid value: {body.get('roleRef')}: cannot change roleRef")
        raise invalid(key.resource, key.name, [cause])
    fields = ("rules", "aggregationRule") if is_role else ("subjects", "roleRef")
    if user.is_master or (current is not None and all(body.get(name) == current.get(name) for name in fields)):
        return
    role = key if is_role else rbac.role_of(body, key.namespace)
    assert role is not None, "admission has judged the roleRef"
    lifted = Attributes(
        verb="escalate" if is_role else "bind",
        group=rbac.GROUP,
        resource=role.resource.plural,
        namespace=role.namespace if is_role else key.namespace,
        name=role.name,
    )
    if authorizer.allows(user, lifted)[0]:
        return
    wanted: tuple[Rule, ...] | None
    if is_role:
        wanted = (*rbac.rules_of(body), *(_EVERYTHING if body.get("aggregationRule") else ()))
    else:
        wanted = authorizer.rbac.rules_of_role(role)
    if wanted is None:
        plural = role.resource.plural
        raise NotFound(f'{plural}.{rbac.GROUP} "{role.name}" not found', kind=plural, group=rbac.GROUP, name=role.name)
    held, _ = authorizer.rbac.rules_for(user, key.namespace)
    lacking = rbac.missing(held, wanted)
    if lacking:
        groups = " ".join(f'"{group}"' for group in user.groups)
        listed = "\n".join(dict.fromkeys(map(str, lacking)))
        raise Forbidden(
            f'{key.resource.collection} "{key.name}" is forbidden: user "{user.name}" (groups=[{groups}]) '
            f"is attempting to grant RBAC permissions not currently held:\n{listed}",
            kind=key.resource.plural,
            group=rbac.GROUP,
            name=key.name,
        )
