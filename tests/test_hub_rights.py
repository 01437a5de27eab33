"""A hub with the rights that docs/operations.md asks for, and no others: a real apiserver refuses what is more."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_tool
from tests.harness.site import Site
from tests.test_end_to_end import DEVICE, MODEL, NODE

CORE, DEVICE_GROUP, LEASES = "", "devices.kubeedge.io", "coordination.k8s.io"


def rule(group: str, resources: str, verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}


EVERYWHERE = [
    rule(CORE, "nodes pods configmaps secrets serviceaccounts", "list watch"),
    rule("apiextensions.k8s.io", "customresourcedefinitions", "list watch"),
    rule(DEVICE_GROUP, "devices devicemodels", "list watch"),
    rule(CORE, "nodes", "get create"),
    rule(DEVICE_GROUP, "devices", "get"),
    rule(CORE, "nodes/status", "patch"),
    rule(DEVICE_GROUP, "devices/status", "patch"),
    rule(DEVICE_GROUP, "devicestatuses", "get create patch"),
    rule(CORE, "events", "get create patch"),
    rule(CORE, "namespaces", "create"),
]
WITHIN = {
    "kube-node-lease": [rule(LEASES, "leases", "list watch get create patch")],
    "fairlead-system": [rule(CORE, "secrets", "get list create delete")],
}


def manifest() -> dict[str, Any]:
    subjects = [{"kind": "ServiceAccount", "name": "cloudcore", "namespace": "fairlead-system"}]
    group = "rbac.authorization.k8s.io"
    items: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "cloudcore", "namespace": "fairlead-system"},
        }
    ]
    for namespace, rules in {"": EVERYWHERE, **WITHIN}.items():
        kind = "Role" if namespace else "ClusterRole"
        metadata = {"name": "cloudcore", **({"namespace": namespace} if namespace else {})}
        ref = {"apiGroup": group, "kind": kind, "name": "cloudcore"}
        items += [
            {"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "rules": rules},
            {
                "apiVersion": f"{group}/v1",
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": ref,
                "subjects": subjects,
            },
        ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


@pytest.mark.timeout(120)
def test_a_hub_works_with_the_rights_that_are_documented(tmp_path: Path) -> None:
    kubectl = need_tool("kubectl-current")
    with Site(tmp_path) as site:
        admin = site.kubeconfig
        site.apply_crds(kubectl)
        site.kubectl(kubectl, "apply", "-f", "-", stdin=json.dumps(manifest()))
        token = site.kubectl(kubectl, "create", "token", "cloudcore", "-n", "fairlead-system").stdout.strip()
        config = json.loads(admin.read_text())
        config["users"][0]["user"] = {"token": token}
        limited = tmp_path / "kubeconfig-cloudcore"
        limited.write_text(json.dumps(config))
        assert site.kubectl(kubectl, "auth", "whoami", "--kubeconfig", str(limited)).returncode == 0

        site.kubeconfig = limited
        site.start_cloud()
        site.join(NODE)
        site.start_edge(NODE)
        site.kubeconfig = admin
        site.kubectl(kubectl, "apply", "-f", "-", stdin=MODEL + "---" + DEVICE)
        site.until(lambda: site.edge_status(NODE).get("devices"), "the device arrives")
        ready = ("get", "node", NODE, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
        site.until(lambda: site.kubectl(kubectl, *ready).stdout == "True", "the node is ready")
        status = ("get", "device", "thermo-1", "-o", "jsonpath={.status}")
        site.until(lambda: site.kubectl(kubectl, *status).stdout, "the device has a status")
        log = site.processes["cloud"].log.read_text()
        assert "orbidden" not in log, log
