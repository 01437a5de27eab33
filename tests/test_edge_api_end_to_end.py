"""The edge's local API over the whole line, with stock kubectl: online, offline, after a restart, and back."""

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client
from lightkube.config.kubeconfig import KubeConfig
from lightkube.resources.core_v1 import ConfigMap

from tests.conftest import KUBECTLS, find_tool
from tests.harness.site import Site

NODE = "edge-1"
WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, singular: widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, minimum: 1}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
WIDGET = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: %s, namespace: default}\nspec: {size: %d}\n"
RIGHTS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: nodes-may-all}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes"}]
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec: {nodeName: edge-1, containers: [{name: web, image: "web:1"}]}
"""

Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as site:
        binary = find_tool(KUBECTLS[1]) or find_tool("kubectl")
        assert binary is not None, "run scripts/setup-tools"
        for manifest in (WIDGETS, RIGHTS):
            site.kubectl(binary, "apply", "-f", "-", stdin=manifest)
        site.start_cloud()
        site.join(NODE)
        site.start_edge(NODE)
        site.kubectl(binary, "apply", "-f", "-", stdin=POD)
        yield site


@pytest.fixture
def at_edge(site: Site, kubectl: Path) -> Kubectl:
    """kubectl at the local API."""

    def run(*arguments: str, stdin: str = "", fails: bool = False) -> str:
        answer = site.kubectl(kubectl, *arguments, stdin=stdin, server=site.local_api(NODE), check=not fails)
        assert (answer.returncode != 0) is fails, (answer.stdout, answer.stderr)
        return answer.stderr if fails else answer.stdout

    return run


@pytest.fixture
def in_cloud(site: Site, kubectl: Path) -> Kubectl:
    return lambda *arguments, **options: site.kubectl(kubectl, *arguments, **options).stdout


def get(site: Site, path: str) -> Any:
    with urllib.request.urlopen(f"{site.local_api(NODE)}{path}", timeout=10) as answer:
        return json.load(answer)


def test_kubectl_works_on_any_kind_through_the_link(site: Site, at_edge: Kubectl, in_cloud: Kubectl) -> None:
    at_edge("apply", "-f", "-", stdin=WIDGET % ("one", 3))
    assert in_cloud("get", "widget", "one", "-o", "jsonpath={.spec.size}") == "3"
    at_edge("apply", "-f", "-", stdin=WIDGET % ("one", 4))
    assert at_edge("get", "wd", "one", "-o", "jsonpath={.spec.size}") == "4"
    at_edge("patch", "widget", "one", "--type=json", "-p", '[{"op":"replace","path":"/spec/size","value":5}]')
    site.until(lambda: "SIZE" in at_edge("get", "widgets"), "the definition's columns show")
    assert [line.split()[:2] for line in at_edge("get", "widgets").splitlines()] == [["NAME", "SIZE"], ["one", "5"]]
    at_edge("label", "widget", "one", "colour=red")
    assert at_edge("get", "widgets", "-l", "colour=red", "-o", "name") == "widget.example.com/one\n"
    assert "Invalid" in at_edge("patch", "widget", "one", "--type=merge", "-p", '{"spec":{"size":0}}', fails=True)
    at_edge("create", "configmap", "settings", "--from-literal=a=1")
    at_edge("annotate", "configmap", "settings", "b=2")
    assert "settings" in at_edge("get", "configmaps")
    assert at_edge("auth", "can-i", "create", "widgets").strip() == "yes"
    schemas = "/openapi/v3/apis/example.com/v1"
    assert at_edge("get", "--raw", schemas) == in_cloud("get", "--raw", schemas)
    at_edge("delete", "configmap", "settings")
    at_edge("delete", "widget", "one", "--wait=true", "--timeout=20s")
    assert in_cloud("get", "widgets", "-o", "name") == ""
    assert at_edge("get", "widgets", "-o", "name") == ""


def test_kubectl_waits_and_watches_at_the_edge(site: Site, kubectl: Path, at_edge: Kubectl, in_cloud: Kubectl) -> None:
    at_edge("apply", "-f", "-", stdin=WIDGET % ("slow", 1))
    waiting = subprocess.Popen(
        [
            *(kubectl, "--server", site.local_api(NODE), "wait", "widget/slow"),
            *("--for=condition=Ready", "--timeout=30s"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=site.environment,
    )
    status = '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}'
    in_cloud("get", "--raw", "/apis/example.com/v1/namespaces/default/widgets/slow")
    patch = urllib.request.Request(
        f"{site.local_api(NODE)}/apis/example.com/v1/namespaces/default/widgets/slow/status",
        status.encode(),
        {"content-type": "application/merge-patch+json"},
        method="PATCH",
    )
    with urllib.request.urlopen(patch, timeout=10) as answer:
        assert answer.status == 200
    out, _ = waiting.communicate(timeout=40)
    assert "condition met" in out
    at_edge("delete", "widget", "slow")


def test_the_cloud_goes_the_node_restarts_and_everything_goes_on(
    site: Site, at_edge: Kubectl, in_cloud: Kubectl
) -> None:
    at_edge("apply", "-f", "-", stdin=WIDGET % ("kept", 7))
    assert "kept" in at_edge("get", "widgets")
    site.until(lambda: "web" in at_edge("get", "pods", "-o", "name"), "the pod is here")
    site.processes["cloud"].kill()
    site.until(lambda: not site.ask("edgecore", NODE).get("connected"), "the link is lost")
    for restarted in (False, True):
        if restarted:
            site.processes[NODE].kill()
            site.start_edge(NODE, wait=False)
            site.until(lambda: site.ask("edgecore", NODE).get("api"), "edgecore serves")
        assert at_edge("get", "widgets", "-o", "jsonpath={.items[*].spec.size}") == "7"
        assert "not connected to the cloud" in at_edge("apply", "-f", "-", stdin=WIDGET % ("new", 1), fails=True)
        assert "not connected to the cloud" in at_edge("get", "endpoints", fails=True)
    body = json.dumps({"status": {"phase": "Running", "message": "said offline"}}).encode()
    patch = urllib.request.Request(
        f"{site.local_api(NODE)}/api/v1/namespaces/default/pods/web/status",
        body,
        {"content-type": "application/strategic-merge-patch+json"},
        method="PATCH",
    )
    with urllib.request.urlopen(patch, timeout=10) as answer:
        assert json.load(answer)["status"]["phase"] == "Running"
    assert at_edge("get", "pods", "--field-selector=status.phase=Running", "-o", "name") == "pod/web\n"
    site.processes[NODE].kill()
    site.start_edge(NODE, wait=False)
    site.until(lambda: site.ask("edgecore", NODE).get("api"), "edgecore serves")
    told = site.run("edgecore", "status", "--data-dir", str(site.directory / NODE)).stdout
    assert "selections of the cluster, 1 writes wait to go up" in told
    assert site.metrics("edgecore", NODE)["edge_writes_waiting"] == 1
    assert at_edge("get", "pod", "web", "-o", "jsonpath={.status.message}") == "said offline"
    site.start_cloud()
    site.until(lambda: site.ask("edgecore", NODE).get("inSync"), "the node is in sync")
    site.until(
        lambda: in_cloud("get", "pod", "web", "-o", "jsonpath={.status.message}") == "said offline", "it went up"
    )
    at_edge("apply", "-f", "-", stdin=WIDGET % ("kept", 8))
    assert in_cloud("get", "widget", "kept", "-o", "jsonpath={.spec.size}") == "8"
    in_cloud("delete", "widget", "kept")
    site.until(lambda: at_edge("get", "widgets", "-o", "name") == "", "the deletion arrives")
    in_cloud("delete", "pod", "web", "--grace-period=0", "--force")
    in_cloud("apply", "-f", "-", stdin=POD)


SECURED = "edge-2"
OPERATOR = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: operator, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: operator-views, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: operator, namespace: default}]
---
apiVersion: v1
kind: Pod
metadata: {name: operator, namespace: default}
spec: {nodeName: edge-2, serviceAccountName: operator, containers: [{name: op, image: "op:1"}]}
"""


@pytest.fixture(scope="module")
def account(site: Site) -> Path:
    """A node whose API asks who it is, and what a pod there finds in /var/run/secrets/kubernetes.io/serviceaccount."""
    binary = find_tool(KUBECTLS[1]) or find_tool("kubectl")
    assert binary is not None, "run scripts/setup-tools"
    site.join(SECURED)
    configuration = site.directory / SECURED / "edgecore.yaml"
    text = configuration.read_text()
    assert "  tls: false" in text
    configuration.write_text(text.replace("  tls: false", "  tls: true"))
    site.kubectl(binary, "apply", "-f", "-", stdin=OPERATOR)
    site.start_edge(SECURED)
    spec = {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "operator"}}}
    path = "/api/v1/namespaces/default/serviceaccounts/operator/token"
    answer = site.kubectl(binary, "create", "--raw", path, "-f", "-", stdin=json.dumps(spec)).stdout
    folder = site.directory / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text(json.loads(answer)["status"]["token"])
    (folder / "namespace").write_text("default")
    (folder / "ca.crt").write_bytes((site.directory / SECURED / "pki" / "ca.crt").read_bytes())
    return folder


def test_a_pod_uses_its_nodes_api_as_it_would_the_clusters(
    site: Site, account: Path, kubectl: Path, monkeypatch: pytest.MonkeyPatch, in_cloud: Kubectl
) -> None:
    port = site.ports[f"{SECURED}-api"]
    flags = ["--certificate-authority", str(account / "ca.crt"), "--token", (account / "token").read_text()]

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return site.kubectl(kubectl, *flags, *arguments, server=f"https://127.0.0.1:{port}", check=check)

    site.until(lambda: "operator" in run("get", "pods", "-o", "name", check=False).stdout, "its pod is there")
    in_cloud("create", "configmap", "told", "--from-literal=a=1")
    site.until(
        lambda: "told" in run("get", "configmaps", "-o", "name", check=False).stdout, "what the cloud has is told"
    )
    assert 'cannot list resource "secrets"' in run("get", "secrets", check=False).stderr
    assert 'cannot create resource "configmaps"' in run("create", "configmap", "x", check=False).stderr
    assert run("auth", "can-i", "list", "pods").stdout.strip() == "yes"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
    with Client(KubeConfig.from_service_account(str(account))) as client:
        assert client.get(ConfigMap, "told").data == {"a": "1"}
    node = site.directory / SECURED / "pki"
    own = ["--client-certificate", str(node / "edge.crt"), "--client-key", str(node / "edge.key")]
    ca, server = str(account / "ca.crt"), f"https://127.0.0.1:{port}"
    assert SECURED in site.kubectl(kubectl, "--certificate-authority", ca, *own, "get", "nodes", server=server).stdout
    site.processes["cloud"].kill()
    site.until(lambda: not site.ask("edgecore", SECURED).get("connected"), "the link is lost")
    site.processes[SECURED].kill()
    site.start_edge(SECURED, wait=False)
    site.until(lambda: site.ask("edgecore", SECURED).get("api"), "edgecore serves")
    assert "told" in run("get", "configmaps", "-o", "name").stdout
    with Client(KubeConfig.from_service_account(str(account))) as client:
        assert client.get(ConfigMap, "told").data == {"a": "1"}
    assert "told" not in run("get", "configmaps", "--token", "no", check=False).stdout
    site.start_cloud()
    site.until(lambda: site.ask("edgecore", SECURED).get("inSync"), "the node is in sync")
    in_cloud("delete", "configmap", "told")
    site.until(lambda: "told" not in run("get", "configmaps", "-o", "name").stdout, "the deletion arrives")
