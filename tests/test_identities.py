"""As whom the apiserver is asked."""

import pytest

from apimachinery.errors import Forbidden
from apimachinery.events import Change, EventType
from apimachinery.keys import Node
from apimachinery.objects import from_json
from apimachinery.resources import PODS, SERVICE_ACCOUNTS
from apimachinery.watchcache import WatchCache
from cloudhub.identities import Identity, identity_of, refused
from cloudhub.placement import MIRROR, Placement

NODE = Node("n1")


def placement(**spec: str) -> Placement:
    """With one pod in namespace a."""
    made = Placement()
    pod = from_json(PODS, {"metadata": {"name": "p", "namespace": "a"}, "spec": spec})
    made.observe(Change(1, EventType.ADDED, pod, None))
    return made


def accounts(*names: str, namespace: str = "a") -> WatchCache:
    made = WatchCache()
    bodies = [{"metadata": {"name": name, "namespace": namespace}} for name in names]
    made.replace(SERVICE_ACCOUNTS, [from_json(SERVICE_ACCOUNTS, body) for body in bodies], "1")
    return made


def test_a_node_speaks_for_itself() -> None:
    assert identity_of(NODE, "", Placement(), WatchCache()) == Identity(
        "system:node:n1", ("system:nodes", "system:authenticated"), ("system:nodes",)
    )


def test_a_node_speaks_for_the_accounts_of_its_pods() -> None:
    user = "system:serviceaccount:a:op"
    found = identity_of(NODE, user, placement(nodeName="n1", serviceAccountName="op"), accounts("op"))
    assert found == Identity(user, ("system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"), ())
    found = identity_of(NODE, "system:serviceaccount:a:default", placement(nodeName="n1"), accounts("default"))
    assert found.user.endswith(":default")


@pytest.mark.parametrize(
    ("user", "spec"),
    [
        ("system:serviceaccount:a:op", {"nodeName": "n2", "serviceAccountName": "op"}),
        ("system:serviceaccount:a:op", {"nodeName": "n1"}),
        ("system:serviceaccount:a:op", {"serviceAccountName": "op"}),
        ("system:serviceaccount:b:op", {"nodeName": "n1", "serviceAccountName": "op"}),
        ("system:serviceaccount:a", {"nodeName": "n1"}),
        ("system:serviceaccount:a:op:x", {"nodeName": "n1", "serviceAccountName": "op"}),
        ("system:serviceaccount:a:op\r\nImpersonate-Group: system:masters", {"nodeName": "n1"}),
        ("system:node:n1", {"nodeName": "n1"}),
        ("kubernetes-admin", {"nodeName": "n1"}),
    ],
)
def test_a_node_speaks_for_nobody_else(user: str, spec: dict[str, str]) -> None:
    with pytest.raises(Forbidden):
        identity_of(NODE, user, placement(**spec), accounts("op", "default"))


def test_an_account_that_is_here_for_another_reason_does_not_count() -> None:
    """Somebody is interested in it, or a rule puts all accounts on all nodes: no pod here uses it."""
    made = placement(nodeName="n1", serviceAccountName="op")
    made.observe(Change(2, EventType.DELETED, from_json(PODS, {"metadata": {"name": "p", "namespace": "a"}}), None))
    with pytest.raises(Forbidden, match="no pod on node"):
        identity_of(NODE, "system:serviceaccount:a:op", made, accounts("op"))


def test_a_pod_that_a_node_made_itself_gives_it_no_account() -> None:
    """It may make one in any namespace, and kube-apiserver gives such a pod no ServiceAccount."""
    made = Placement()
    metadata = {"name": "p", "namespace": "kube-system", "annotations": {MIRROR: "x"}}
    made.observe(Change(1, EventType.ADDED, from_json(PODS, {"metadata": metadata, "spec": {"nodeName": "n1"}}), None))
    with pytest.raises(Forbidden, match="no pod on node"):
        identity_of(
            NODE, "system:serviceaccount:kube-system:default", made, accounts("default", namespace="kube-system")
        )


def test_an_account_that_was_deleted_is_nobody() -> None:
    """Its pod goes on, and so may a role binding."""
    with pytest.raises(Forbidden, match='no ServiceAccount "a/op" any more'):
        identity_of(
            NODE, "system:serviceaccount:a:op", placement(nodeName="n1", serviceAccountName="op"), accounts("other")
        )


def test_a_refusal_is_in_the_apiservers_words() -> None:
    who = Identity("system:node:n1", (), ())
    assert refused(who, "update", PODS, "a", "p", "status") == (
        'pods "p" is forbidden: User "system:node:n1" cannot update resource "pods/status" in API group "" '
        'in the namespace "a"'
    )
