"""
What a client finds in its namespace, made by the admin before it comes.

Where a check changes something, it has an object of its own, named for the check and the place: so the first request
that writes is the one that the check is about, also where every write is refused.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.conformance.contract import CONFIG_MAP, LEASE, POD, SECRET, SERVICE_ACCOUNT, WIDGET, Body

NODE = "edge-1"
WIDGETS = 5
COLOURS = ("red", "blue", "green")
ACCOUNT = "robot"
HOLDER = "me"
RENEWALS = 2
"""That a leader makes before it leaves off."""
FINALIZER = "example.com/hold"

DEFINITION: Body = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "size": {
                                        "type": "integer",
                                        "minimum": 1,
                                        "description": "How large the widget is.",
                                    },
                                    "replicas": {"type": "integer"},
                                    "parts": {"type": "array", "items": {"type": "string"}},
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {"phase": {"type": "string"}, "replicas": {"type": "integer"}},
                            },
                        },
                    }
                },
            }
        ],
    },
}
OPERATOR = "operator"
"""The ServiceAccount, in the namespace default, that the clients at the edge are."""


def operator() -> list[Body]:
    """Somebody who may do everything, and has a pod on the node: what he may is not what is judged here."""
    return [
        SERVICE_ACCOUNT.body(OPERATOR, metadata={"namespace": "default"}),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": OPERATOR},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": "default"}],
        },
        _pod(OPERATOR, namespace="default", serviceAccountName=OPERATOR),
    ]


def namespace(name: str, places: Sequence[str]) -> list[Body]:
    """A namespace and what is in it, for checks at these places."""
    made: list[Body] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}]
    objects = [
        *(
            WIDGET.body(f"w{number}", metadata={"labels": {"colour": COLOURS[number % 3]}}, spec={"size": number + 1})
            for number in range(WIDGETS)
        ),
        *(each for place in places for each in _changed_at(place)),
        SERVICE_ACCOUNT.body(ACCOUNT),
        LEASE.body("held", spec={"holderIdentity": HOLDER, "leaseDurationSeconds": 30}),
        *(_pod(f"p{number}") for number in range(3)),
    ]
    for each in objects:
        each["metadata"]["namespace"] = name
    return made + objects


def _changed_at(place: str) -> Iterator[Body]:
    for check in ("update", "stale-update", "json-patch", "merge-patch", "status", "delete", "preconditions", "scale"):
        yield WIDGET.body(f"{check}-{place}", spec={"size": 1, "parts": ["a"]})
    yield WIDGET.body(f"finalizers-{place}", metadata={"finalizers": [FINALIZER]}, spec={"size": 1})
    yield CONFIG_MAP.body(f"strategic-{place}", metadata={"finalizers": [f"{FINALIZER}-1"]}, data={"a": "1"})
    for number in range(2):
        yield SECRET.body(f"swept{number}-{place}", metadata={"labels": {"role": f"swept-{place}"}})


def _pod(name: str, namespace: str = "", **spec: Any) -> Body:
    spec |= {"nodeName": NODE, "containers": [{"name": "main", "image": "main:1"}]}
    return POD.body(name, metadata={"namespace": namespace}, spec=spec)
