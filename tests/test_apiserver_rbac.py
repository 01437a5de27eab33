"""Rules and bindings: Kubernetes' meaning of each field, and an index that equals looking at everything."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import BadRequest
from apimachinery.events import Change, EventType
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import from_json
from apiserver.attributes import Attributes
from apiserver.rbac import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    Rbac,
    Rule,
    admit_binding,
    admit_role,
    missing,
)
from apiserver.users import User, service_account


def rule(verbs: str, groups: str, resources: str, *names: str) -> Rule:
    return Rule(tuple(verbs.split()), tuple(groups.split(",")), tuple(resources.split()), names)


@pytest.mark.parametrize(
    ("held", "verb", "group", "resource", "name", "allowed"),
    [
        (rule("get", "", "pods"), "get", "", "pods", "", True),
        (rule("get", "", "pods"), "list", "", "pods", "", False),
        (rule("get", "", "pods"), "get", "apps", "pods", "", False),
        (rule("get", "", "pods"), "get", "", "pods/status", "", False),
        (rule("get", "", "pods/status"), "get", "", "pods/status", "", True),
        (rule("get", "", "pods/status"), "get", "", "pods", "", False),
        (rule("get", "", "*/status"), "get", "", "pods/status", "", True),
        (rule("get", "", "*/status"), "get", "", "pods/log", "", False),
        (rule("get", "", "*/status"), "get", "", "pods", "", False),
        (rule("*", "*", "*"), "delete", "x", "y/z", "n", True),
        (rule("*", "", "*"), "delete", "x", "y", "", False),
        (rule("get", "", "pods", "a", "b"), "get", "", "pods", "b", True),
        (rule("get", "", "pods", "a", "b"), "get", "", "pods", "c", False),
        (rule("list", "", "pods", "a"), "list", "", "pods", "", False),
        (rule("get", ",apps", "pods"), "get", "apps", "pods", "", True),
    ],
)
def test_a_rule_allows_what_it_names(
    held: Rule, verb: str, group: str, resource: str, name: str, allowed: bool
) -> None:
    plural, _, subresource = resource.partition("/")
    asked = Attributes(verb=verb, group=group, resource=plural, subresource=subresource, name=name)
    assert held.allows(asked) is allowed


@pytest.mark.parametrize(
    ("url", "path", "allowed"),
    [
        ("/healthz", "/healthz", True),
        ("/healthz", "/healthz/ping", False),
        ("/healthz/*", "/healthz/ping", True),
        ("/healthz/*", "/healthz", False),
        ("*", "/anything", True),
        ("/api*", "/apis/x", True),
    ],
)
def test_a_url_may_end_with_a_star(url: str, path: str, allowed: bool) -> None:
    assert Rule(("get",), urls=(url,)).allows(Attributes(verb="get", path=path)) is allowed
    assert not Rule(("get",), urls=(url,)).allows(Attributes(verb="post", path=path))
    assert not Rule(("*",), ("*",), ("*",)).allows(Attributes(verb="get", path=path))
    assert not Rule(("get",), urls=(url,)).allows(Attributes(verb="get", resource="pods", path=path))


class World:
    """An index, fed like a storage feeds it."""

    def __init__(self) -> None:
        self.index = Rbac()

    def put(self, resource: Resource, name: str, namespace: str = "", **body: Any) -> None:
        metadata = {"name": name, "namespace": namespace, "labels": body.pop("labels", {})}
        item = from_json(resource, {"kind": resource.kind, "metadata": metadata, **body})
        self.index.observe(Change(1, EventType.MODIFIED, item, None))

    def remove(self, resource: Resource, name: str, namespace: str = "") -> None:
        item = from_json(resource, {"metadata": {"name": name, "namespace": namespace}})
        self.index.observe(Change(1, EventType.DELETED, item, item))

    def bind(self, role: str, *subjects: Mapping[str, str], namespace: str = "", name: str = "b") -> None:
        kind, _, named = role.partition("/")
        resource = ROLE_BINDINGS if namespace else CLUSTER_ROLE_BINDINGS
        self.put(resource, name, namespace, roleRef={"kind": kind, "name": named}, subjects=list(subjects))

    def may(self, user: User, verb: str = "get", namespace: str = "d", resource: str = "pods") -> bool:
        return self.index.allows(user, Attributes(verb=verb, resource=resource, namespace=namespace))[0]


JANE = User("jane", ("dev",))
READ_PODS = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}


@pytest.fixture
def world() -> World:
    made = World()
    made.put(CLUSTER_ROLES, "reader", rules=[READ_PODS])
    return made


def test_nothing_is_allowed_without_a_binding(world: World) -> None:
    assert not world.may(JANE)
    assert world.may(User("root", ("system:masters",)), "delete")


@pytest.mark.parametrize(
    ("subject", "user"),
    [
        ({"kind": "User", "name": "jane"}, JANE),
        ({"kind": "Group", "name": "dev"}, JANE),
        ({"kind": "ServiceAccount", "name": "robot", "namespace": "d"}, service_account("d", "robot", "u")),
        ({"kind": "Group", "name": "system:serviceaccounts:d"}, service_account("d", "robot", "u")),
    ],
)
def test_each_kind_of_subject_is_bound(world: World, subject: Mapping[str, str], user: User) -> None:
    world.bind("ClusterRole/reader", subject)
    assert world.may(user)
    assert not world.may(User("other", ("dev2",)))
    assert not world.may(service_account("e", "robot", "u"))


def test_a_role_binding_holds_in_its_namespace_only(world: World) -> None:
    world.bind("ClusterRole/reader", {"kind": "User", "name": "jane"}, namespace="d")
    assert world.may(JANE)
    assert not world.may(JANE, namespace="e")
    assert not world.may(JANE, namespace="")
    assert not world.index.allows(JANE, Attributes(verb="get", path="/x"))[0]


def test_a_role_is_of_its_own_namespace(world: World) -> None:
    world.put(ROLES, "own", "e", rules=[READ_PODS])
    world.bind("Role/own", {"kind": "User", "name": "jane"}, namespace="d")
    allowed, reason = world.index.allows(JANE, Attributes(verb="get", resource="pods", namespace="d"))
    assert not allowed
    assert reason == 'RBAC: role.rbac.authorization.k8s.io "own" not found'
    world.put(ROLES, "own", "d", rules=[READ_PODS])
    assert world.may(JANE)
    world.bind("Role/own", {"kind": "User", "name": "jane"})  # a cluster-wide binding has no namespace to find it in
    assert not world.may(JANE, namespace="e")


def test_changes_count_at_once(world: World) -> None:
    world.bind("ClusterRole/reader", {"kind": "User", "name": "jane"})
    world.put(CLUSTER_ROLES, "reader", rules=[])
    assert not world.may(JANE)
    world.put(CLUSTER_ROLES, "reader", rules=[READ_PODS])
    world.bind("ClusterRole/reader", {"kind": "User", "name": "bob"})
    assert not world.may(JANE)
    assert world.may(User("bob"))
    world.remove(CLUSTER_ROLE_BINDINGS, "b")
    assert not world.may(User("bob"))


def test_a_role_has_the_rules_of_those_it_aggregates(world: World) -> None:
    selectors = {"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]}
    world.put(CLUSTER_ROLES, "view", aggregationRule=selectors, rules=[])
    world.bind("ClusterRole/view", {"kind": "User", "name": "jane"})
    assert not world.may(JANE)
    world.put(CLUSTER_ROLES, "more", labels={"to-view": "true"}, rules=[READ_PODS])
    assert world.may(JANE)
    world.put(CLUSTER_ROLES, "more", labels={"to-view": "false"}, rules=[READ_PODS])
    assert not world.may(JANE)
    expression = {"key": "to-view", "operator": "NotIn", "values": ["true"]}
    world.put(CLUSTER_ROLES, "view", aggregationRule={"clusterRoleSelectors": [{"matchExpressions": [expression]}]})
    assert world.may(JANE)


@pytest.mark.parametrize(
    "body",
    [
        {"rules": "x"},
        {"rules": [{"verbs": "get"}, 1, {"verbs": [1], "resources": ["pods"]}]},
        {"aggregationRule": {"clusterRoleSelectors": [{"matchExpressions": [{"operator": "?"}]}]}},
    ],
)
def test_what_cannot_be_read_allows_nothing(world: World, body: dict[str, Any]) -> None:
    world.put(CLUSTER_ROLES, "reader", **body)
    world.bind("ClusterRole/reader", {"kind": "User", "name": "jane"})
    world.put(CLUSTER_ROLE_BINDINGS, "bad", roleRef=7, subjects={"kind": "User"})
    world.put(CLUSTER_ROLE_BINDINGS, "worse", subjects=[{"kind": "User", "name": 7}, {"kind": "ServiceAccount"}])
    assert not world.may(JANE)


NAMES = st.sampled_from(["a", "b", "c"])
SUBJECTS = st.lists(st.fixed_dictionaries({"kind": st.sampled_from(["User", "Group"]), "name": NAMES}), max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("role"), NAMES, st.sampled_from(["get", "list", "*"])),
        st.tuples(st.just("unrole"), NAMES),
        st.tuples(st.just("bind"), NAMES, NAMES, st.sampled_from(["", "d", "e"]), SUBJECTS),
        st.tuples(st.just("unbind"), NAMES, st.sampled_from(["", "d", "e"])),
    ),
    max_size=25,
)


@given(STEPS)
def test_the_index_equals_looking_at_everything(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    roles: dict[str, str] = {}
    bindings: dict[tuple[str, str], tuple[str, list[dict[str, str]]]] = {}
    for step in steps:
        match step:
            case ("role", name, verb):
                roles[name] = verb
                rules = [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]
                world.put(CLUSTER_ROLES, name, rules=rules)
            case ("unrole", name):
                roles.pop(name, None)
                world.remove(CLUSTER_ROLES, name)
            case ("bind", name, role, namespace, subjects):
                bindings[name, namespace] = (role, subjects)
                world.bind(f"ClusterRole/{role}", *subjects, namespace=namespace, name=name)
            case ("unbind", name, namespace):
                bindings.pop((name, namespace), None)
                world.remove(ROLE_BINDINGS if namespace else CLUSTER_ROLE_BINDINGS, name, namespace)
    for user in (User("a", ("b", "c")), User("b"), User("x", ("a",))):
        names = [("User", user.name), *(("Group", group) for group in user.groups)]
        for namespace in ("", "d", "e"):
            for verb in ("get", "list"):
                expected = any(
                    where in ("", namespace)
                    and roles.get(role) in (verb, "*")
                    and any((each["kind"], each["name"]) in names for each in subjects)
                    for (_, where), (role, subjects) in bindings.items()
                )
                assert world.may(user, verb, namespace) is expected


@pytest.mark.parametrize(
    ("held", "wanted", "lacking"),
    [
        ([rule("get list", "", "pods")], [rule("get", "", "pods")], 0),
        ([rule("get", "", "pods")], [rule("get list", "", "pods secrets")], 3),
        ([rule("*", "*", "*")], [rule("x y", "a,b", "c d/e")], 0),
        ([rule("*", "*", "*")], [Rule(("get",), urls=("/x",))], 1),
        ([Rule(("get",), urls=("/x/*",))], [Rule(("get",), urls=("/x/y", "/x/*"))], 0),
        ([Rule(("get",), urls=("/x",))], [Rule(("get",), urls=("/x/*",))], 1),
        ([rule("get", "", "pods", "a")], [rule("get", "", "pods", "a")], 0),
        ([rule("get", "", "pods", "a")], [rule("get", "", "pods")], 1),
        ([rule("get", "", "pods")], [rule("*", "", "pods")], 1),
        ([rule("get", "", "*/status")], [rule("get", "", "pods/status")], 0),
        ([rule("get", "", "pods", "a"), rule("get", "", "pods", "b")], [rule("get", "", "pods", "a", "b")], 0),
    ],
)
def test_rules_cover_others_part_by_part(held: list[Rule], wanted: list[Rule], lacking: int) -> None:
    assert len(missing(held, wanted)) == lacking


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"apiGroups": [""], "resources": ["pods"]}, "rules[0].verbs"),
        ({"verbs": ["get"], "resources": ["pods"]}, "rules[0].apiGroups"),
        ({"verbs": ["get"], "apiGroups": [""]}, "rules[0].resources"),
        ({"verbs": ["get"], "nonResourceURLs": ["/x"]}, "rules[0].nonResourceURLs"),
    ],
)
def test_a_rule_with_a_hole_is_refused(value: dict[str, Any], field: str) -> None:
    assert [cause.field for cause in admit_role({"kind": "Role", "rules": [value]})] == [field]


def test_a_cluster_role_may_name_urls_but_not_with_resources() -> None:
    urls = {"verbs": ["get"], "nonResourceURLs": ["/x"]}
    assert admit_role({"kind": "ClusterRole", "rules": [urls]}) == []
    assert len(admit_role({"kind": "ClusterRole", "rules": [urls | {"resources": ["pods"]}]})) == 1
    with pytest.raises(BadRequest, match="must be a list of strings"):
        admit_role({"kind": "Role", "rules": [{"verbs": "get"}]})
    with pytest.raises(BadRequest, match="must be a list of objects"):
        admit_role({"kind": "Role", "rules": ["get"]})


def test_a_binding_is_completed() -> None:
    body: dict[str, Any] = {
        "kind": "RoleBinding",
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "s", "namespace": "d"}],
    }
    assert admit_binding(body) == []
    assert body["roleRef"]["apiGroup"] == "rbac.authorization.k8s.io"
    assert body["subjects"][0]["apiGroup"] == "rbac.authorization.k8s.io"
    assert "apiGroup" not in body["subjects"][1]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"roleRef": {"kind": "Role"}}, "roleRef.name"),
        ({"roleRef": {"kind": "Pod", "name": "x"}}, "roleRef.kind"),
        ({"roleRef": {"kind": "Role", "name": "x", "apiGroup": "apps"}}, "roleRef.apiGroup"),
        ({"subjects": [{"kind": "User"}]}, "subjects[0].name"),
        ({"subjects": [{"kind": "Dog", "name": "x"}]}, "subjects[0].kind"),
        ({"subjects": [{"kind": "ServiceAccount", "name": "x"}]}, "subjects[0].namespace"),
        ({"subjects": [{"kind": "User", "name": "x", "apiGroup": "apps"}]}, "subjects[0].apiGroup"),
    ],
)
def test_a_binding_with_a_mistake_is_refused(change: dict[str, Any], field: str) -> None:
    body = {"kind": "RoleBinding", "roleRef": {"kind": "Role", "name": "r"}} | change
    assert [cause.field for cause in admit_binding(body)] == [field]


def test_a_cluster_wide_binding_names_a_cluster_role() -> None:
    body = {"kind": "ClusterRoleBinding", "roleRef": {"kind": "Role", "name": "r"}}
    assert [cause.field for cause in admit_binding(body)] == ["roleRef.kind"]


def test_rules_are_listed_for_a_namespace(world: World) -> None:
    world.bind("ClusterRole/reader", {"kind": "User", "name": "jane"}, namespace="d")
    rules, errors = world.index.rules_for(JANE, "d")
    assert [each.to_json() for each in rules] == [READ_PODS]
    assert errors == []
    assert world.index.rules_for(JANE, "e") == ([], [])
    assert world.index.rules_of_role(ObjectKey(CLUSTER_ROLES, "", "nobody's")) is None
