"""
`cloudcore rbac`: the least that a hub must be allowed, as objects for `kubectl apply -f -`.

What is printed is what the documentation shows and what the tests run hubs with, so that a right which is missing fails
there. A rule is here because a request of the hub needs it; whoever adds a request adds its rule.

Pure state: no clock, no I/O.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from apimachinery.resources import NODE_LEASE_NAMESPACE
from cloudhub.identities import NODE_PREFIX
from cloudhub.vault import NAMESPACE

ACCOUNT = "cloudcore"
NAME = "fairlead-cloudcore"
INTEREST = NAME + "-interest"
CALLERS = NAME + "-callers"
SIGNER = NAME + "-signer"

_CERTIFICATES = "certificates.k8s.io"
_API = "rbac.authorization.k8s.io"
_PLAIN = re.compile(r"[a-zA-Z][a-zA-Z0-9]*([-./][a-zA-Z0-9]+)*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})  # to YAML 1.1 no strings

_READ = ("list", "watch")


class Rule(NamedTuple):
    """Some verbs on some resources of one group."""

    group: str
    resources: Sequence[str]
    verbs: Sequence[str]
    names: Sequence[str] = ()
    """These objects only; all of them where there are none."""

    def __str__(self) -> str:
        names = f"resourceNames: {_list(self.names)}, " if self.names else ""
        return (
            f"- {{apiGroups: {_list([self.group])}, resources: {_list(self.resources)}, {names}"
            f"verbs: {_list(self.verbs)}}}"
        )


class Wanted(NamedTuple):
    """What a hub is to be used for."""

    interest: bool = True
    """Nodes may be interested in what is not placed on them, and make requests."""
    placed: Sequence[str] = ()
    """Collections ("plural.group") that rules name beside the standard ones."""
    nodes: Sequence[str] = ()
    """Only these may make requests as themselves; any node where there are none."""
    namespaces: Sequence[str] = ()
    """Requests of pods in these namespaces only; in any where there are none."""
    signer: str = ""
    """The cluster's signer that signs nodes; "" for the installation's own CA."""
    approves: bool = True
    """Whether the hub approves what it asks of that signer."""


ALWAYS = (
    Rule("", ("nodes", "pods", "configmaps", "secrets", "serviceaccounts"), _READ),
    Rule("apiextensions.k8s.io", ("customresourcedefinitions",), ("get", *_READ)),
    Rule("devices.kubeedge.io", ("devices", "devicemodels"), _READ),
    Rule("", ("nodes",), ("get", "create")),
    Rule("", ("nodes/status",), ("patch",)),
    Rule("", ("events",), ("get", "create", "patch")),
    Rule("devices.kubeedge.io", ("devices",), ("get",)),
    Rule("devices.kubeedge.io", ("devices/status",), ("patch",)),
    Rule("devices.kubeedge.io", ("devicestatuses",), ("get", "create", "patch")),
)
VAULT = (Rule("", ("secrets",), ("get", "list", "create", "patch", "delete")),)
NODE_LEASES = (Rule("coordination.k8s.io", ("leases",), ("get", "list", "watch", "create", "patch")),)


def text(wanted: Wanted) -> str:
    """A stream of YAML documents."""
    documents = [
        f"# cloudcore's rights\n{_object('v1', 'Namespace', NAMESPACE)}",
        _object("v1", "ServiceAccount", ACCOUNT, NAMESPACE),
        *_granted(NAME, [*ALWAYS, *map(_placed, dict.fromkeys(wanted.placed))]),
        "# Its CA, its join tokens, who has which name and who is banned.\n" + _role(NAME, VAULT, NAMESPACE),
        _binding("Role", NAME, NAMESPACE),
        "# The nodes' Leases.\n" + _role(NAME, NODE_LEASES, NODE_LEASE_NAMESPACE),
        _binding("Role", NAME, NODE_LEASE_NAMESPACE),
    ]
    if wanted.signer:
        documents += _of_signing(wanted)
    if wanted.interest:
        documents += _of_interest(wanted)
    return "---\n".join(documents)


def _of_signing(wanted: Wanted) -> Iterable[str]:
    rules = [Rule(_CERTIFICATES, ("certificatesigningrequests",), ("get", "create"))]
    if wanted.approves:
        rules += [
            Rule(_CERTIFICATES, ("certificatesigningrequests/approval",), ("update",)),
            Rule(_CERTIFICATES, ("signers",), ("approve",), (wanted.signer,)),
        ]
    role, binding = _granted(SIGNER, rules)
    yield from ("# Nodes are signed by the cluster.\n" + role, binding)
    published = Rule("", ("configmaps",), ("get",), ("extension-apiserver-authentication",))
    yield "# The CA of its clients.\n" + _role(SIGNER, (published,), "kube-system")
    yield _binding("Role", SIGNER, "kube-system")


def _of_interest(wanted: Wanted) -> Iterable[str]:
    accounts = Rule("", ("serviceaccounts",), ("impersonate",))
    rules = [
        Rule("*", ("*",), ("get", *_READ)),
        Rule("authorization.k8s.io", ("subjectaccessreviews",), ("create",)),
        Rule("", ("users",), ("impersonate",), [NODE_PREFIX + node for node in dict.fromkeys(wanted.nodes)]),
        Rule("", ("groups",), ("impersonate",), ("system:nodes",)),
    ]
    if not wanted.namespaces:
        rules.insert(2, accounts)
    role, binding = _granted(INTEREST, rules)
    left_out = "# What nodes are interested in, and ask for. Left out with --no-interest.\n"
    yield from (left_out + role, binding)
    if wanted.namespaces:
        yield "# Whose requests are made: those of pods in these namespaces.\n" + _role(CALLERS, (accounts,))
        yield from (_binding("ClusterRole", CALLERS, namespace) for namespace in dict.fromkeys(wanted.namespaces))


def _placed(collection: str) -> Rule:
    plural, _, group = collection.partition(".")
    return Rule(group, (plural,), _READ)


def _granted(name: str, rules: Iterable[Rule]) -> tuple[str, str]:
    return _role(name, rules), _binding("ClusterRole", name)


def _role(name: str, rules: Iterable[Rule], namespace: str = "") -> str:
    kind = "Role" if namespace else "ClusterRole"
    return _object(f"{_API}/v1", kind, name, namespace) + "rules:\n" + "".join(f"{rule}\n" for rule in rules)


def _binding(kind: str, name: str, namespace: str = "") -> str:
    """Of the hub's account to a role, everywhere or in a namespace."""
    return (
        _object(f"{_API}/v1", "RoleBinding" if namespace else "ClusterRoleBinding", name, namespace)
        + f"roleRef: {{apiGroup: {_API}, kind: {kind}, name: {name}}}\n"
        + f"subjects:\n- {{kind: ServiceAccount, name: {ACCOUNT}, namespace: {NAMESPACE}}}\n"
    )


def _object(api_version: str, kind: str, name: str, namespace: str = "") -> str:
    metadata = f"name: {name}" + (f", namespace: {_scalar(namespace)}" if namespace else "")
    return f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{{metadata}}}\n"


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_scalar, texts))}]"


def _scalar(text: str) -> str:
    """As YAML has it in a flow; a string of JSON is one of YAML."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text)
