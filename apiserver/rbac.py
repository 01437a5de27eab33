"""
Role-based access control: what roles and bindings allow, from an index that follows their changes.

A decision looks at the bindings of the user's name and groups and at nothing else, so its cost does not
grow with the number of roles, bindings or namespaces. A ClusterRole with an aggregationRule has, besides
its own rules, those of every ClusterRole it selects; its object is not rewritten for that.

Invariants
    nothing is allowed but by a rule of a role that is bound to the user or one of their groups
    a RoleBinding allows within its namespace only, also where it names a ClusterRole
    observe() never raises: a part of a role that cannot be read allows nothing

Pure. After k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac and its validation package.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from apimachinery.errors import BadRequest, Cause
from apimachinery.events import Change, EventType
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, Object
from apimachinery.selectors import LabelSelector, Operator, Requirement
from apiserver.attributes import Attributes
from apiserver.users import User

GROUP = "rbac.authorization.k8s.io"
ROLES = Resource(GROUP, "v1", "roles", "Role", True)
CLUSTER_ROLES = Resource(GROUP, "v1", "clusterroles", "ClusterRole", False)
ROLE_BINDINGS = Resource(GROUP, "v1", "rolebindings", "RoleBinding", True)
CLUSTER_ROLE_BINDINGS = Resource(GROUP, "v1", "clusterrolebindings", "ClusterRoleBinding", False)
KINDS = (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)

_OPERATORS = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.EXISTS,
    "DoesNotExist": Operator.NOT_EXISTS,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One PolicyRule."""

    verbs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """resourceNames; () for every name."""
    urls: tuple[str, ...] = ()
    """nonResourceURLs."""

    @classmethod
    def of(cls, value: JSON) -> "Rule":
        held = value if isinstance(value, Mapping) else {}
        fields = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
        return cls(*(_texts(held.get(name)) for name in fields))

    def to_json(self) -> dict[str, JSON]:
        """As a PolicyRule, and as the rules in a SelfSubjectRulesReview, without what is empty."""
        listed = {
            "verbs": self.verbs,
            "apiGroups": self.groups,
            "resources": self.resources,
            "resourceNames": self.names,
            "nonResourceURLs": self.urls,
        }
        return {name: list(values) for name, values in listed.items() if values}

    def allows(self, asked: Attributes) -> bool:
        if not _has(self.verbs, asked.verb):
            return False
        if not asked.is_resource:
            return any(_url_matches(url, asked.path) for url in self.urls)
        return (
            _has(self.groups, asked.group)
            and self._names_resource(asked.combined, asked.subresource)
            and (not self.names or asked.name in self.names)
        )

    def _names_resource(self, combined: str, subresource: str) -> bool:
        return _has(self.resources, combined) or (bool(subresource) and f"*/{subresource}" in self.resources)

    def covers(self, single: "Rule") -> bool:
        """Whether all that a rule of one verb and one resource (or URL) allows is allowed by this one."""
        if not _has(self.verbs, single.verbs[0]):
            return False
        if single.urls:
            return any(_url_covers(url, single.urls[0]) for url in self.urls)
        resource = single.resources[0]
        return (
            _has(self.groups, single.groups[0])
            and self._names_resource(resource, resource.partition("/")[2])
            and (not self.names or (bool(single.names) and set(single.names) <= set(self.names)))
        )

    def singles(self) -> Iterator["Rule"]:
        """The rule taken apart into rules that covers() can judge."""
        for verb, group, resource in product(self.verbs, self.groups, self.resources):
            for name in self.names or ("",):
                yield Rule((verb,), (group,), (resource,), (name,) if name else ())
        for verb, url in product(self.verbs, self.urls):
            yield Rule((verb,), urls=(url,))

    def __str__(self) -> str:
        shown = {"APIGroups": self.groups, "Resources": self.resources, "ResourceNames": self.names}
        shown |= {"NonResourceURLs": self.urls, "Verbs": self.verbs}
        parts = (
            f"{name}:[{' '.join(_quoted(each) for each in each_of)}]" for name, each_of in shown.items() if each_of
        )
        return "{" + ", ".join(parts) + "}"


def missing(held: Iterable[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """Which parts of some rules are not covered by others."""
    owned = list(held)
    return [single for rule in wanted for single in rule.singles() if not any(own.covers(single) for own in owned)]


@dataclass(frozen=True, slots=True)
class _Role:
    rules: tuple[Rule, ...]
    labels: Mapping[str, str]
    selectors: tuple[LabelSelector, ...]


@dataclass(frozen=True, slots=True)
class _Binding:
    namespace: str
    """"" for a ClusterRoleBinding."""
    role: ObjectKey | None
    subjects: tuple[str, ...]


class Rbac:
    """The index."""

    def __init__(self) -> None:
        self._roles: dict[ObjectKey, _Role] = {}
        self._bindings: dict[ObjectKey, _Binding] = {}
        self._by_subject: dict[str, dict[ObjectKey, None]] = {}
        self._resolved: dict[ObjectKey, tuple[Rule, ...]] = {}
        """Roles with what they aggregate, until any role changes."""

    def observe(self, change: Change) -> None:
        """Take in one change of anything; what is no role and no binding is passed over."""
        key = change.object.key
        if key.resource.group != GROUP:
            return
        present = None if change.type is EventType.DELETED else change.object
        if key.resource in (ROLES, CLUSTER_ROLES):
            self._put_role(key, present)
        elif key.resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            self._put_binding(key, present)

    def _put_role(self, key: ObjectKey, item: Object | None) -> None:
        self._resolved.clear()
        if item is None:
            self._roles.pop(key, None)
            return
        body = item.parse()
        self._roles[key] = _Role(rules_of(body), item.labels, tuple(_selectors(body.get("aggregationRule"))))

    def _put_binding(self, key: ObjectKey, item: Object | None) -> None:
        held = self._bindings.pop(key, None)
        for subject in held.subjects if held is not None else ():
            bound = self._by_subject.get(subject, {})
            bound.pop(key, None)
            if not bound:
                self._by_subject.pop(subject, None)
        if item is None:
            return
        body = item.parse()
        subjects = tuple(dict.fromkeys(filter(None, map(_subject, _mappings(body.get("subjects"))))))
        self._bindings[key] = _Binding(key.namespace, role_of(body, key.namespace), subjects)
        for subject in subjects:
            self._by_subject.setdefault(subject, {})[key] = None

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        """
        What a user may do in a namespace ("": at the cluster scope), and what could not be resolved.

        Cluster-wide rules are part of every answer.
        """
        rules: list[Rule] = []
        errors: list[str] = []
        for key in self._keys_of(user):
            binding = self._bindings[key]
            if binding.namespace and binding.namespace != namespace:
                continue
            found = self.rules_of_role(binding.role) if binding.role is not None else None
            if found is not None:
                rules += found
            elif binding.role is not None:
                kind = binding.role.resource.kind.lower()
                errors.append(f"{kind}.{GROUP} {_quoted(binding.role.name)} not found")
        return rules, errors

    def rules_of_role(self, key: ObjectKey) -> tuple[Rule, ...] | None:
        """A role's rules, those it aggregates included; None where there is no such role."""
        role = self._roles.get(key)
        if role is None:
            return None
        if not role.selectors:
            return role.rules
        if key not in self._resolved:
            rules = list(role.rules)
            for other, candidate in self._roles.items():
                if other.resource != CLUSTER_ROLES or other == key:
                    continue
                if any(selector.matches(candidate.labels) for selector in role.selectors):
                    rules += candidate.rules
            self._resolved[key] = tuple(rules)
        return self._resolved[key]

    def allows(self, user: User, asked: Attributes) -> tuple[bool, str]:
        """Whether a user may do something, and if not, what may be the reason (often "")."""
        if user.is_master:
            return True, ""
        rules, errors = self.rules_for(user, asked.namespace if asked.is_resource else "")
        if any(rule.allows(asked) for rule in rules):
            return True, ""
        if not errors:
            return False, ""
        told = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
        return False, f"RBAC: {told}"

    def _keys_of(self, user: User) -> Iterable[ObjectKey]:
        found: dict[ObjectKey, None] = {}
        for subject in (f"User:{user.name}", *(f"Group:{group}" for group in user.groups)):
            found |= self._by_subject.get(subject, {})
        return found


def rules_of(body: Mapping[str, JSON]) -> tuple[Rule, ...]:
    """The rules that stand in a Role or ClusterRole."""
    return tuple(Rule.of(value) for value in _mappings(body.get("rules")))


def role_of(body: Mapping[str, JSON], namespace: str) -> ObjectKey | None:
    """The role a binding names; None where it cannot be read."""
    ref = body.get("roleRef")
    if not isinstance(ref, Mapping) or not isinstance(ref.get("name"), str):
        return None
    if ref.get("kind") == ROLES.kind:
        return ObjectKey(ROLES, namespace, ref["name"]) if namespace else None
    return ObjectKey(CLUSTER_ROLES, "", ref["name"]) if ref.get("kind") == CLUSTER_ROLES.kind else None


def admit_role(body: dict[str, JSON]) -> list[Cause]:
    """What is wrong with a Role or ClusterRole. Raises BadRequest where it has the wrong JSON types."""
    namespaced = body.get("kind") == ROLES.kind
    rules = body.get("rules")
    if rules is None:
        rules = body["rules"] = []
    causes: list[Cause] = []
    for place, value in enumerate(_checked_list(rules, "rules", body)):
        for name in ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs"):
            given = value.get(name)
            if given is not None and (not isinstance(given, list) or any(not isinstance(each, str) for each in given)):
                raise _cannot_be_read(body, f"rules[{place}].{name} must be a list of strings")
        causes += _rule_causes(Rule.of(value), f"rules[{place}]", namespaced=namespaced)
    return causes


def _rule_causes(rule: Rule, field: str, *, namespaced: bool) -> Iterator[Cause]:
    if not rule.verbs:
        yield _required(f"{field}.verbs", "verbs must contain at least one value")
    if rule.urls:
        told = ""
        if namespaced:
            told = "namespaced rules cannot apply to non-resource URLs"
        elif rule.groups or rule.resources or rule.names:
            told = "rules cannot apply to both regular resources and non-resource URLs"
        if told:
            listed = ",".join(map(_quoted, rule.urls))
            yield Cause(f"{field}.nonResourceURLs", "FieldValueInvalid", f"Invalid value: [{listed}]: {told}")
        return
    if not rule.groups:
        yield _required(f"{field}.apiGroups", "resource rules must supply at least one api group")
    if not rule.resources:
        yield _required(f"{field}.resources", "resource rules must supply at least one resource")


def admit_binding(body: dict[str, JSON]) -> list[Cause]:
    """Default and judge a RoleBinding or ClusterRoleBinding in place. Raises BadRequest for wrong JSON types."""
    ref = body.setdefault("roleRef", {})
    if not isinstance(ref, dict):
        raise _cannot_be_read(body, "roleRef must be an object")
    ref["apiGroup"] = ref.get("apiGroup") or GROUP
    causes: list[Cause] = []
    kinds = ("ClusterRole",) if body.get("kind") == CLUSTER_ROLE_BINDINGS.kind else ("Role", "ClusterRole")
    if ref["apiGroup"] != GROUP:
        causes.append(_unsupported("roleRef.apiGroup", ref["apiGroup"], (GROUP,)))
    if ref.get("kind") not in kinds:
        causes.append(_unsupported("roleRef.kind", ref.get("kind") or "", kinds))
    if not isinstance(ref.get("name"), str) or not ref["name"]:
        causes.append(_required("roleRef.name", ""))
    for place, subject in enumerate(_checked_list(body.get("subjects") or [], "subjects", body)):
        causes += _subject_causes(subject, f"subjects[{place}]")
    return causes


def _subject_causes(subject: dict[str, JSON], field: str) -> Iterator[Cause]:
    kind = subject.get("kind")
    if not isinstance(subject.get("name"), str) or not subject["name"]:
        yield _required(f"{field}.name", "")
    if kind in ("User", "Group"):
        subject["apiGroup"] = subject.get("apiGroup") or GROUP
        expected = GROUP
    elif kind == "ServiceAccount":
        expected = ""
        if not subject.get("namespace"):
            yield _required(f"{field}.namespace", "")
    else:
        yield _unsupported(f"{field}.kind", kind or "", ("ServiceAccount", "User", "Group"))
        return
    if (subject.get("apiGroup") or "") != expected:
        yield _unsupported(f"{field}.apiGroup", subject["apiGroup"], (expected,))


def _subject(subject: Mapping[str, JSON]) -> str:
    """The index's word for a subject; "" for one that means nobody."""
    kind, name, namespace = subject.get("kind"), subject.get("name"), subject.get("namespace")
    if not isinstance(name, str):
        return ""
    if kind in ("User", "Group"):
        return f"{kind}:{name}"
    if kind == "ServiceAccount" and isinstance(namespace, str) and namespace:
        return f"User:system:serviceaccount:{namespace}:{name}"
    return ""


def _selectors(aggregation: JSON) -> Iterator[LabelSelector]:
    held = aggregation if isinstance(aggregation, Mapping) else {}
    for value in _mappings(held.get("clusterRoleSelectors")):
        labels = value.get("matchLabels")
        terms = [
            Requirement(str(key), Operator.IN, (str(wanted),))
            for key, wanted in (labels.items() if isinstance(labels, Mapping) else ())
        ]
        for entry in _mappings(value.get("matchExpressions")):
            operator = _OPERATORS.get(str(entry.get("operator")))
            if operator is None:
                break
            terms.append(Requirement(str(entry.get("key")), operator, _texts(entry.get("values"))))
        else:
            yield LabelSelector(tuple(terms))


def _has(values: Sequence[str], wanted: str) -> bool:
    return "*" in values or wanted in values


def _url_matches(url: str, path: str) -> bool:
    return url == path or (url.endswith("*") and path.startswith(url[:-1]))


def _url_covers(own: str, wanted: str) -> bool:
    return own == wanted or (own.endswith("*") and wanted.removesuffix("*").startswith(own[:-1]))


def _checked_list(values: JSON, field: str, body: Mapping[str, JSON]) -> list[dict[str, JSON]]:
    if not isinstance(values, list) or any(not isinstance(value, dict) for value in values):
        raise _cannot_be_read(body, f"{field} must be a list of objects")
    return values


def _cannot_be_read(body: Mapping[str, JSON], why: str) -> BadRequest:
    kind = body.get("kind")
    return BadRequest(f'{kind} in version "v1" cannot be handled as a {kind}: {why}')


def _required(field: str, why: str) -> Cause:
    return Cause(field, "FieldValueRequired", f"Required value: {why}" if why else "Required value")


def _unsupported(field: str, given: JSON, supported: Sequence[str]) -> Cause:
    listed = ", ".join(map(_quoted, supported))
    message = f"Unsupported value: {_quoted(str(given))}: supported values: {listed}"
    return Cause(field, "FieldValueNotSupported", message)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _texts(value: JSON) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _mappings(value: JSON) -> list[dict[str, JSON]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
