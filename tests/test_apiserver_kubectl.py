"""
What people do with kubectl, by both generations of it, against one `apiserver run`.

The server is shared: each test has a namespace of its own, and custom kinds are in a group of its own.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_apiserver_dev import DEADLINE_S, Apiserver, running


class Kubectl:
    """kubectl in a namespace."""

    def __init__(self, server: Apiserver, namespace: str, *, is_current: bool) -> None:
        self.server = server
        self.namespace = namespace
        self.group = f"{namespace}.example.com"
        self.lamps = f"lamps.{self.group}"
        self.is_current = is_current

    def run(self, *args: object, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return self.server.run("-n", self.namespace, *args, given=given, **environment)

    def __call__(self, *args: object, given: str = "", **environment: str) -> str:
        return self.server("-n", self.namespace, *args, given=given, **environment)

    def refused(self, *args: object, given: str = "") -> str:
        return self.server.refused("-n", self.namespace, *args, given=given)

    def read(self, *args: object) -> Any:
        return json.loads(self("get", *args, "-o", "json", *(["--show-managed-fields"] if self.is_current else [])))

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        return self.server.request(method, path, body)

    def define(self, versions: str, kind: str = "Lamp") -> None:
        plural = f"{kind.lower()}s"
        self(
            "apply",
            "-f",
            "-",
            given=f"""
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.{self.group}}}
spec:
  group: {self.group}
  scope: Namespaced
  names: {{plural: {plural}, kind: {kind}}}
  versions:
{versions}
""",
        )
        self("wait", "--for", "condition=established", f"crd/{plural}.{self.group}", "--timeout=10s")

    def popen(self, *args: object) -> "subprocess.Popen[str]":
        command, environment = self.server.command("-n", self.namespace, *args)
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apiserver]:
    with running(tmp_path_factory.mktemp("kubectl"), None, "--durability", "crash") as started:
        yield started


_numbers = iter(range(1000))


@pytest.fixture
def kube(server: Apiserver, kubectl: Path) -> Kubectl:
    namespace = f"t{next(_numbers)}"
    assert server.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})[0] == 201
    server.kubectl = kubectl
    return Kubectl(server, namespace, is_current=kubectl.name == "kubectl-current")


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def gone(kube: Kubectl, what: str) -> None:
    until(lambda: kube.run("get", what).returncode != 0, f"{what} is still there")


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: a
        image: x:1
        ports: [{containerPort: 80}]
        env: [{name: A, value: "1"}, {name: B, value: "2"}]
"""

LAMP_V1 = """
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        description: A lamp on a desk.
        properties:
          spec:
            type: object
            properties:
              watts: {type: integer, description: How bright it is.}
              hue: {type: string, default: red}
              port: {x-kubernetes-int-or-string: true}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, size: {type: integer}}
              any: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status:
            type: object
            properties: {lit: {type: boolean}}
"""


def lamp(kube: Kubectl, spec: str, name: str = "desk", version: str = "v1") -> str:
    return f"apiVersion: {kube.group}/{version}\nkind: Lamp\nmetadata: {{name: {name}}}\nspec: {spec}\n"


APPLY = ("apply", "--server-side", "-f", "-")


# ---- server-side apply


def test_apply_on_the_server_makes_changes_and_removes(kube: Kubectl) -> None:
    assert kube(*APPLY, given=DEPLOYMENT) == "deployment.apps/web serverside-applied"
    first = kube.read("deployment/web")
    (entry,) = first["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("kubectl", "Apply", "apps/v1")
    containers = entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"a"}']
    assert set(containers["f:ports"]) == {'k:{"containerPort":80,"protocol":"TCP"}'}
    kube(*APPLY, given=DEPLOYMENT)
    assert kube.read("deployment/web") == first
    kube(*APPLY, given=DEPLOYMENT.replace(', {name: B, value: "2"}', "").replace("  replicas: 2\n", ""))
    changed = kube.read("deployment/web")
    assert "replicas" not in changed["spec"]
    assert changed["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]
    assert changed["metadata"]["generation"] == 2


def test_a_conflict_is_told_and_force_takes_the_field(kube: Kubectl) -> None:
    kube(*APPLY, given=DEPLOYMENT)
    other = DEPLOYMENT.replace("replicas: 2", "replicas: 3").replace("x:1", "x:2")
    told = kube.refused(*APPLY, "--field-manager=other", given=other)
    assert "Apply failed with 2 conflicts" in told
    assert '.spec.template.spec.containers[name="a"].image' in told
    kube("patch", "deployment", "web", "--type=merge", "-p", '{"spec":{"replicas":9}}')
    told = kube.refused(*APPLY, given=DEPLOYMENT)
    assert 'Apply failed with 1 conflict: conflict with "kubectl-patch" using apps/v1: .spec.replicas' in told
    kube(*APPLY, "--field-manager=other", "--force-conflicts", given=other)
    held = {entry["manager"]: entry for entry in kube.read("deployment/web")["metadata"]["managedFields"]}
    assert "f:replicas" in held["other"]["fieldsV1"]["f:spec"]
    assert "f:replicas" not in held["kubectl"]["fieldsV1"]["f:spec"]


def test_custom_resources_are_applied_by_their_schema(kube: Kubectl) -> None:
    kube.define(LAMP_V1)
    kube(*APPLY, given=lamp(kube, "{watts: 5, parts: [{name: a, size: 1}]}"))
    kube(*APPLY, "--field-manager=other", given=lamp(kube, "{parts: [{name: b}]}"))
    assert kube.read(f"{kube.lamps}/desk")["spec"] == {
        "watts": 5, "hue": "red", "parts": [{"name": "a", "size": 1}, {"name": "b"}],
    }  # fmt: skip
    kube(*APPLY, given=lamp(kube, "{watts: 5}"))
    assert kube.read(f"{kube.lamps}/desk")["spec"]["parts"] == [{"name": "b"}]
    # The server is strict about what is applied, whether a client has validated it or not.
    told = kube.refused(*APPLY, "--validate=false", given=lamp(kube, "{wats: 5}"))
    assert ".spec.wats: field not declared in schema" in told
    unchecked = (*APPLY, "--validate=false", "--force-conflicts")
    assert "omits key field" in kube.refused(*unchecked, given=lamp(kube, "{parts: [{size: 1}]}"))
    assert "must be of type integer" in kube.refused(*unchecked, given=lamp(kube, "{watts: bright}"))


def test_apply_on_the_server_can_be_rehearsed_and_compared(kube: Kubectl) -> None:
    kube(*APPLY, given=DEPLOYMENT)
    other = DEPLOYMENT.replace("replicas: 2", "replicas: 3")
    assert "serverside-applied (server dry run)" in kube(*APPLY, "--dry-run=server", given=other)
    assert kube.read("deployment/web")["spec"]["replicas"] == 2
    done = kube.run("diff", "--server-side", "-f", "-", given=other)
    assert (done.returncode, "+  replicas: 3" in done.stdout) == (1, True), done.stderr
    assert kube.run("diff", "--server-side", "-f", "-", given=DEPLOYMENT).returncode == 0
    new = DEPLOYMENT.replace("name: web", "name: new")
    assert "dry run" in kube(*APPLY, "--dry-run=server", given=new)
    assert "NotFound" in kube.refused("get", "deployment", "new")


def test_kubectl_moves_from_client_side_to_server_side_apply(kube: Kubectl) -> None:
    kube("apply", "-f", "-", given=DEPLOYMENT)
    kube(*APPLY, given=DEPLOYMENT.replace("replicas: 2", "replicas: 4"))
    moved = kube.read("deployment/web")
    assert moved["spec"]["replicas"] == 4
    assert '"replicas":4' in moved["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    kube("apply", "-f", "-", given=DEPLOYMENT.replace("replicas: 2", "replicas: 5"))
    assert kube.read("deployment/web")["spec"]["replicas"] == 5


def test_every_command_is_a_manager_of_what_it_set(kube: Kubectl, tmp_path: Path) -> None:
    kube("create", "configmap", "c", "--from-literal=a=1")
    kube("label", "configmap", "c", "l=1")
    kube("annotate", "configmap", "c", "n=1")
    kube("patch", "configmap", "c", "-p", '{"data":{"b":"2"}}')
    held = {entry["manager"]: entry["fieldsV1"] for entry in kube.read("configmap/c")["metadata"]["managedFields"]}
    assert held["kubectl-create"] == {"f:data": {".": {}, "f:a": {}}}
    assert held["kubectl-label"] == {"f:metadata": {"f:labels": {".": {}, "f:l": {}}}}
    assert held["kubectl-annotate"] == {"f:metadata": {"f:annotations": {".": {}, "f:n": {}}}}
    assert held["kubectl-patch"] == {"f:data": {"f:b": {}}}
    shown = kube("get", "configmap", "c", "-o", "yaml")
    assert ("managedFields" in shown) != kube.is_current, "current ones hide them unless asked"


def test_managers_are_cleared_by_one_empty_entry(kube: Kubectl) -> None:
    kube(*APPLY, given=DEPLOYMENT)
    kube("patch", "deployment", "web", "--type=merge", "-p", '{"metadata":{"managedFields":[]}}')
    assert kube.read("deployment/web")["metadata"]["managedFields"]
    kube("patch", "deployment", "web", "--type=merge", "-p", '{"metadata":{"managedFields":[{}]}}')
    assert "managedFields" not in kube.read("deployment/web")["metadata"]
    kube("label", "deployment", "web", "x=y")
    assert "managedFields" not in kube.read("deployment/web")["metadata"]
    told = kube.refused(*APPLY, given=DEPLOYMENT.replace("replicas: 2", "replicas: 3"))
    assert 'conflict with "before-first-apply" using apps/v1: .spec.replicas' in told


# ---- deletion


def test_deletion_in_the_foreground_background_and_of_the_owner_alone(kube: Kubectl) -> None:
    for policy, is_left in (("foreground", False), ("background", False), ("orphan", True)):
        kube("create", "configmap", "owner")
        uid = kube.read("configmap/owner")["metadata"]["uid"]
        child = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": f"child-{policy}",
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "blockOwnerDeletion": True}
                ],
            },
        }
        kube("create", "-f", "-", given=json.dumps(child))
        kube("delete", "configmap", "owner", f"--cascade={policy}")
        if policy == "foreground":
            assert kube.run("get", "configmap", f"child-{policy}").returncode != 0, "the owner went first"
        elif not is_left:
            gone(kube, f"configmap/child-{policy}")
        else:
            assert "ownerReferences" not in kube.read(f"configmap/child-{policy}")["metadata"]


def test_a_finalizer_holds_an_object_and_no_new_one_is_taken(kube: Kubectl) -> None:
    kube("create", "configmap", "c")
    kube("patch", "configmap", "c", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    kube("delete", "configmap", "c", "--wait=false")
    assert kube.read("configmap/c")["metadata"]["deletionTimestamp"]
    more = '{"metadata":{"finalizers":["example.com/hold","example.com/more"]}}'
    told = kube.refused("patch", "configmap", "c", "--type=merge", "-p", more)
    assert "no new finalizers can be added if the object is being deleted" in told
    assert 'found new finalizers []string{"example.com/more"}' in told
    kube("patch", "configmap", "c", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert "NotFound" in kube.refused("get", "configmap", "c")


def test_a_namespace_waits_for_what_is_in_it(kube: Kubectl) -> None:
    kube("create", "configmap", "c")
    kube("patch", "configmap", "c", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    kube("delete", "namespace", kube.namespace, "--wait=false")
    until(lambda: "deletionTimestamp" in kube.read("configmap/c")["metadata"], "the content is left alone")
    assert "because it is being terminated" in kube.refused("create", "configmap", "d")
    assert kube.read(f"namespace/{kube.namespace}")["status"]["phase"] == "Terminating"
    kube("patch", "configmap", "c", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    gone(kube, f"namespace/{kube.namespace}")


# ---- versions and schemas


def test_every_served_version_reads_and_writes_the_same_objects(kube: Kubectl) -> None:
    old = LAMP_V1.replace("name: v1", "name: v1beta1").replace("storage: true", "storage: false")
    kube.define(LAMP_V1 + old.replace("              hue: {type: string, default: red}\n", ""))
    kube("apply", "-f", "-", given=lamp(kube, "{watts: 5}", version="v1beta1"))
    assert kube.read(f"lamps.v1.{kube.group}/desk")["spec"] == {"watts": 5, "hue": "red"}
    read = kube.read(f"lamps.v1beta1.{kube.group}/desk")
    assert (read["apiVersion"], read["spec"]) == (f"{kube.group}/v1beta1", {"watts": 5})
    kube("apply", "-f", "-", given=lamp(kube, "{watts: 6}"))
    assert kube.read(f"lamps.v1beta1.{kube.group}/desk")["spec"] == {"watts": 6}
    assert kube.read(f"{kube.lamps}/desk")["apiVersion"] == f"{kube.group}/v1", "the stable version is preferred"
    watch = kube.popen("get", f"lamps.v1beta1.{kube.group}", "-w", "-o", "jsonpath={.apiVersion}={.spec.watts} ")
    try:
        assert watch.stdout is not None
        assert watch.stdout.read(len(kube.group) + 11) == f"{kube.group}/v1beta1=6 "
        kube("patch", kube.lamps, "desk", "--type=merge", "-p", '{"spec":{"watts":7}}')
        assert watch.stdout.read(len(kube.group) + 11) == f"{kube.group}/v1beta1=7 "
    finally:
        watch.kill()
        watch.communicate()


def test_structural_schemas_default_prune_and_preserve(kube: Kubectl) -> None:
    kube.define(LAMP_V1)
    given = lamp(kube, "{watts: 5, wats: 6, port: http, any: {x: {z: 1}}}")
    kube("create", "--validate=false", "-f", "-", given=given)
    assert kube.read(f"{kube.lamps}/desk")["spec"] == {
        "watts": 5,
        "hue": "red",
        "port": "http",
        "any": {"x": {"z": 1}},
    }
    kube("patch", kube.lamps, "desk", "--type=merge", "-p", '{"spec":{"port":80,"hue":null}}')
    assert kube.read(f"{kube.lamps}/desk")["spec"]["port"] == 80
    assert kube.read(f"{kube.lamps}/desk")["spec"]["hue"] == "red"
    assert "must be of type" in kube.refused("patch", kube.lamps, "desk", "--type=merge", "-p", '{"spec":{"port":1.5}}')


def test_unknown_fields_are_refused_warned_of_or_dropped_as_asked(kube: Kubectl) -> None:
    kube.define(LAMP_V1)
    path = f"/apis/{kube.group}/v1/namespaces/{kube.namespace}/lamps"
    body = {"metadata": {"name": "l"}, "spec": {"wats": 1}}
    status, answer = kube.ask("POST", f"{path}?fieldValidation=Strict", body)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.wats"' in answer["message"]
    assert kube.ask("POST", f"{path}?fieldValidation=Warn&dryRun=All", body)[0] == 201
    assert kube.ask("POST", f"{path}?fieldValidation=Ignore", body)[1]["spec"] == {"hue": "red"}
    status, answer = kube.ask("POST", f"{path}?fieldValidation=Perhaps", body)
    assert (status, answer["reason"]) == (422, "Invalid")
    pods = f"/api/v1/namespaces/{kube.namespace}/pods"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x", "imag": "y"}]}}
    status, answer = kube.ask("POST", f"{pods}?fieldValidation=Strict", pod)
    assert (status, answer["message"]) == (
        400,
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: '
        'unknown field "spec.containers[0].imag"',
    )
    if kube.is_current:
        given = lamp(kube, "{wats: 1}", name="m")
        assert 'unknown field "spec.wats"' in kube.refused("create", "--validate=strict", "-f", "-", given=given)
        assert "Warning: unknown field" in kube.run("create", "--validate=warn", "-f", "-", given=given).stderr


# ---- the rest of kubectl


def test_explain_knows_built_in_and_custom_kinds(kube: Kubectl) -> None:
    kube.define(LAMP_V1)
    assert "image" in kube("explain", "pod.spec.containers")
    assert "<string>" in kube("explain", "deployment.spec.template.spec.containers.image")
    assert "maxUnavailable" in kube("explain", "deployment.spec", "--recursive")
    told = kube("explain", "lamps.spec.watts", f"--api-version={kube.group}/v1")
    assert "How bright it is." in told
    assert 'field "nothing" does not exist' in kube.refused("explain", "pod.spec.nothing")


def test_apply_prunes_what_is_no_longer_there(kube: Kubectl) -> None:
    def config(name: str) -> str:
        return f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: one}}}}\n"

    prune = ("apply", "--prune", "-l", "set=one", "--prune-whitelist=core/v1/ConfigMap", "-f", "-")
    if kube.is_current:
        prune = ("apply", "--prune", "-l", "set=one", "--prune-allowlist=core/v1/ConfigMap", "-f", "-")
    kube(*prune, given=config("a") + config("b"))
    assert "configmap/b pruned" in kube(*prune, given=config("a"))
    assert kube("get", "configmaps", "-l", "set=one", "-o", "name") == "configmap/a"


def test_client_side_apply_removes_an_entry_of_a_keyed_list(kube: Kubectl) -> None:
    kube("apply", "-f", "-", given=DEPLOYMENT)
    kube("apply", "-f", "-", given=DEPLOYMENT.replace('{name: A, value: "1"}, ', ""))
    (container,) = kube.read("deployment/web")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "B", "value": "2"}]
    assert "unchanged" in kube("apply", "-f", "-", given=DEPLOYMENT.replace('{name: A, value: "1"}, ', ""))


def test_edit_replace_and_diff(kube: Kubectl, tmp_path: Path) -> None:
    kube("apply", "-f", "-", given=DEPLOYMENT)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/image: x:1/image: x:9/" "$1"\n')
    editor.chmod(0o700)
    kube("edit", "deployment", "web", EDITOR=str(editor))
    assert kube.read("deployment/web")["spec"]["template"]["spec"]["containers"][0]["image"] == "x:9"
    assert kube.run("diff", "-f", "-", given=DEPLOYMENT).returncode == 1
    kube("replace", "-f", "-", given=DEPLOYMENT)
    assert kube.read("deployment/web")["spec"]["template"]["spec"]["containers"][0]["image"] == "x:1"
    kube("replace", "--force", "-f", "-", given=DEPLOYMENT)
    assert kube.read("deployment/web")["metadata"]["generation"] == 1


def test_a_watch_tells_what_happened(kube: Kubectl) -> None:
    kube("create", "configmap", "a")
    only = "--field-selector=metadata.name=a"  # every namespace has one of its own too
    watch = kube.popen("get", "configmaps", only, "-w", "--output-watch-events", "--no-headers")
    try:
        assert watch.stdout is not None
        assert watch.stdout.readline().split()[:2] == ["ADDED", "a"]
        kube("label", "configmap", "a", "x=y")
        assert watch.stdout.readline().split()[:2] == ["MODIFIED", "a"]
        kube("delete", "configmap", "a")
        assert watch.stdout.readline().split()[:2] == ["DELETED", "a"]
    finally:
        watch.kill()
        watch.communicate()


def test_wait_for_a_condition_a_value_and_the_end(kube: Kubectl) -> None:
    kube("create", "deployment", "d", "--image=x")
    path = f"/apis/apps/v1/namespaces/{kube.namespace}/deployments/d/status"
    assert kube.ask("PATCH", path, {"status": {"conditions": [{"type": "Available", "status": "True"}]}})[0] == 200
    kube("wait", "--for=condition=Available", "deployment/d", "--timeout=10s")
    if kube.is_current:
        kube("wait", "--for=jsonpath={.status.conditions[0].status}=True", "deployment/d", "--timeout=10s")
    held = {entry.get("subresource"): entry for entry in kube.read("deployment/d")["metadata"]["managedFields"]}
    assert "f:status" in held["status"]["fieldsV1"]
    if not kube.is_current:
        return  # it fails where the object is gone before it looks
    waiting = kube.popen("wait", "--for=delete", "deployment/d", "--timeout=15s")
    try:
        kube("delete", "deployment", "d")
        assert waiting.wait(DEADLINE_S) == 0
    finally:
        waiting.kill()
        waiting.communicate()


def test_kinds_with_replicas_are_scaled(kube: Kubectl) -> None:
    kube("create", "-f", "-", given=DEPLOYMENT)
    kube("scale", "deployment", "web", "--replicas=5")
    assert kube.read("deployment/web")["spec"]["replicas"] == 5
    path = f"/apis/apps/v1/namespaces/{kube.namespace}/deployments/web/scale"
    status, scale = kube.ask("GET", path)
    assert (status, scale["kind"], scale["spec"], scale["status"]["selector"]) == (
        200, "Scale", {"replicas": 5}, "app=web",
    )  # fmt: skip
    told = kube.refused("scale", "deployment", "web", "--current-replicas=2", "--replicas=1")
    assert "replicas to be 2, was 5" in told
    kube.define(LAMP_V1.replace(
        "subresources: {status: {}}",
        "subresources: {scale: {specReplicasPath: .spec.watts, statusReplicasPath: .status.watts}}",
    ))  # fmt: skip
    kube("apply", "-f", "-", given=lamp(kube, "{watts: 5}"))
    kube("scale", kube.lamps, "desk", "--replicas=7")
    assert kube.read(f"{kube.lamps}/desk")["spec"]["watts"] == 7
    daemons = DEPLOYMENT.replace("kind: Deployment", "kind: DaemonSet").replace("  replicas: 2\n", "")
    kube("create", "-f", "-", given=daemons)
    assert "could not find the requested resource" in kube.refused("scale", "daemonset", "web", "--replicas=1")


def test_names_are_generated(kube: Kubectl) -> None:
    given = "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: x-}\n"
    made = {kube("create", "-f", "-", "-o", "name", given=given) for _ in range(2)}
    assert len(made) == 2
    assert all(name.startswith("configmap/x-") for name in made)


def test_every_verb_can_be_rehearsed(kube: Kubectl) -> None:
    kube("create", "configmap", "c", "--from-literal=a=1")
    before = kube.read("configmap/c")
    for command in (
        ("create", "configmap", "new"),
        ("label", "configmap", "c", "x=y"),
        ("patch", "configmap", "c", "-p", '{"data":{"a":"2"}}'),
        ("delete", "configmap", "c"),
        ("delete", "configmaps", "--all"),
    ):
        assert kube(*command, "--dry-run=server")
    assert kube.read("configmap/c") == before
    assert "NotFound" in kube.refused("get", "configmap", "new")
