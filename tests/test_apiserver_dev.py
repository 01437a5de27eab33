"""
`apiserver run` as a process, with real kubectl of both generations.

Tests share one process and have a namespace each, but for those of what all namespaces share, and of start and end.
"""

import asyncio
import base64
import contextlib
import copy
import http.client
import itertools
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.resources import CONFIG_MAPS
from apiserver.dev import FIRST_NAMESPACES, Identity, accept_clients, read_token_file, tidy
from apiserver.plans import Plan, Put
from apiserver.storage import Storage
from componentbase.cli import CommandError
from tests.conftest import GO, KUBECTLS, find_tool
from tests.harness import forkserver
from tests.harness.heap import Hole, anonymous_kb
from tests.harness.plainapi import Api

DEADLINE_S = 20.0
ROOT = Path(__file__).resolve().parent.parent
CRDS = ROOT / "cloudhub" / "crds"

LAMP_CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lamps.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: lamps, singular: lamp, kind: Lamp, shortNames: [la]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {name: Watts, type: integer, jsonPath: .spec.watts}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [watts]
            properties:
              watts: {type: integer, minimum: 1, maximum: 100}
              colour: {type: string, enum: [red, green], default: red}
              tags: {type: array, items: {type: string}}
          status:
            type: object
            properties: {lit: {type: boolean}}
"""

LAMP = """
apiVersion: example.com/v1
kind: Lamp
metadata: {name: desk, labels: {room: study}}
spec: {watts: 5, tags: [a, b]}
"""


class Apiserver:
    """One `apiserver run` on a data directory, with a kubectl to ask it."""

    def __init__(self, directory: Path, kubectl: Path | None = None, *flags: str) -> None:
        self.data = directory / "data"
        self.home = directory / "home"
        self.home.mkdir(exist_ok=True)
        self.kubeconfig = self.data / "kubeconfig"
        """kubectl's; the server writes it."""
        self.log = directory / "log"
        self.kubectl = kubectl
        self._flags = flags
        self._process: forkserver.Running | None = None
        self.port = 0

    def start(self) -> None:
        (self.data / "kubeconfig").unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self._process = forkserver.start(
                "apiserver.dev",
                ["run", "--data-dir", str(self.data), "--listen", f"127.0.0.1:{self.port}", *self._flags],
                out=log,
                error=log,
                environment=os.environ,
            )
        deadline = time.monotonic() + DEADLINE_S
        while not (self.data / "kubeconfig").exists():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "no kubeconfig yet"
            time.sleep(0.02)
        server = json.loads((self.data / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"]
        self.port = int(server.rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        try:
            return self._process.wait(DEADLINE_S)
        finally:
            self._process.kill()
            self._process = None

    def wait(self) -> int:
        """The code of a process that ends by itself."""
        assert self._process is not None
        code = self._process.wait(DEADLINE_S)
        self._process = None
        return code

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def request(self, method: str, path: str, body: object = None, token: str | None = None) -> tuple[int, Any]:
        """A request as any HTTP client makes it, trusting the kubeconfig's CA and nothing else."""
        with self.connected(token) as ask:
            return ask(method, path, body)

    @contextlib.contextmanager
    def connected(
        self, token: str | None = None, context: ssl.SSLContext | None = None
    ) -> Iterator[Callable[..., tuple[int, Any]]]:
        """One kept-alive connection: (method, path, body) to (status, answer)."""
        config = json.loads((self.data / "kubeconfig").read_text())
        authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        token = config["users"][0]["user"]["token"] if token is None else token
        context = context or ssl.create_default_context(cadata=authority)
        connection = http.client.HTTPSConnection("localhost", self.port, context=context, timeout=DEADLINE_S)

        def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
            media_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
            headers = {"authorization": f"Bearer {token}", "content-type": media_type}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

        with contextlib.closing(connection):
            yield ask

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def seen_from(self, namespace: str, kubectl: Path) -> "Apiserver":
        """The same process for a kubectl that is at home in a namespace, which is made."""
        status, _ = self.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        assert status == 201, namespace
        view = copy.copy(self)
        view.kubectl = kubectl
        view.home = self.home / kubectl.name  # discovery is kept there, for the next test with this kubectl
        view.home.mkdir(exist_ok=True)
        view.kubeconfig = view.home / namespace
        config = json.loads((self.data / "kubeconfig").read_text())
        config["contexts"][0]["context"]["namespace"] = namespace
        view.kubeconfig.write_text(json.dumps(config))
        return view

    @property
    def namespace(self) -> str:
        """Where kubectl is at home."""
        context = json.loads(self.kubeconfig.read_text())["contexts"][0]["context"]
        return str(context.get("namespace", "default"))

    def command(self, *args: object) -> tuple[list[str], dict[str, str]]:
        environment = {"HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), "TZ": "UTC"}
        environment |= {"PATH": os.environ["PATH"], **GO}
        return [str(self.kubectl), *map(str, args)], environment

    def run(self, *args: object, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        command, base = self.command(*args)
        return subprocess.run(
            command,
            env=base | environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def __call__(self, *args: object, given: str = "", **environment: str) -> str:
        """What kubectl says when it succeeds."""
        done = self.run(*args, given=given, **environment)
        assert done.returncode == 0, f"{args}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def refused(self, *args: object, given: str = "") -> str:
        """What kubectl says when it fails."""
        done = self.run(*args, given=given)
        assert done.returncode != 0, f"{args}: {done.stdout}"
        return done.stderr.strip()

    def object(self, *args: object) -> Any:
        return json.loads(self("get", *args, "-o", "json"))


@contextlib.contextmanager
def running(directory: Path, kubectl: Path | None = None, *flags: str) -> Iterator[Apiserver]:
    server = Apiserver(directory, kubectl, *flags)
    server.start()
    try:
        yield server
    finally:
        if server.is_running:
            assert server.stop() == 0, server.log.read_text()
        assert "Traceback" not in server.log.read_text(), server.log.read_text()


@pytest.fixture
def server(tmp_path: Path, kubectl: Path) -> Iterator[Apiserver]:
    with running(tmp_path, kubectl) as started:
        yield started


@pytest.fixture
def own_lamps(server: Apiserver) -> Apiserver:
    define_lamps(server)
    server("apply", "-f", "-", given=LAMP)
    return server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apiserver]:
    kubectl = next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name)))
    with running(tmp_path_factory.mktemp("shared"), kubectl) as started:
        define_lamps(started)
        yield started


_numbers = itertools.count()


@pytest.fixture
def room(shared: Apiserver, kubectl: Path) -> Apiserver:
    """The shared server, in an empty namespace."""
    return shared.seen_from(f"room-{next(_numbers)}", kubectl)


@pytest.fixture
def lamps(room: Apiserver) -> Apiserver:
    """The shared server, in a namespace with a lamp."""
    room("apply", "-f", "-", given=LAMP)
    return room


def define_lamps(server: Apiserver) -> None:
    server("apply", "-f", "-", given=LAMP_CRD)
    server("wait", "--for", "condition=established", "crd/lamps.example.com", "--timeout=10s")


def test_a_fresh_server_has_its_namespaces_and_kinds(server: Apiserver) -> None:
    assert server("get", "namespaces", "-o", "name").split() == sorted(f"namespace/{name}" for name in FIRST_NAMESPACES)
    listed = server("api-resources", "--verbs=list", "-o", "name").split()
    assert {"configmaps", "nodes", "leases.coordination.k8s.io", "deployments.apps"} <= set(listed)
    assert "v1.3" in server("version")
    assert server("auth", "can-i", "delete", "nodes") == "yes"


def test_a_definition_is_served_at_once_with_its_columns(own_lamps: Apiserver) -> None:
    header, row = own_lamps("get", "la").splitlines()
    assert header.split() == ["NAME", "WATTS"]
    assert row.split() == ["desk", "5"]
    assert own_lamps("get", "lamps", "-A", "--no-headers").split()[:2] == ["default", "desk"]


def test_defaults_are_filled_in_and_apply_is_idempotent(lamps: Apiserver) -> None:
    assert lamps.object("lamp/desk")["spec"] == {"watts": 5, "colour": "red", "tags": ["a", "b"]}
    assert lamps("apply", "-f", "-", given=LAMP) == "lamp.example.com/desk unchanged"
    assert lamps("apply", "-f", "-", given=LAMP.replace("watts: 5", "watts: 6")) == "lamp.example.com/desk configured"
    assert lamps.object("lamp/desk")["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("watts: 5", "watts: many"),
            'spec.watts: Invalid value: "string": spec.watts in body must be of type integer',
        ),
        (("watts: 5", "watts: 500"), "should be less than or equal to 100"),
        (("watts: 5, ", ""), "spec.watts: Required value"),
        (("watts: 5", "watts: 5, colour: blue"), 'spec.colour: Unsupported value: "blue"'),
        (("name: desk", "name: Desk"), "a lowercase RFC 1123 subdomain"),
        (("name: desk", "name: desk, namespace: nowhere"), 'namespaces "nowhere" not found'),
    ],
)
def test_a_bad_object_is_refused_with_the_reason(lamps: Apiserver, change: tuple[str, str], words: str) -> None:
    # Without what the client finds by itself: what is asked for is the words of the server.
    assert words in lamps.refused("create", "--validate=false", "-f", "-", given=LAMP.replace(*change))


def test_an_unknown_field_is_told(lamps: Apiserver) -> None:
    # An old kubectl reads the schema and refuses by itself, a current one leaves it to the server.
    told = lamps.refused("apply", "-f", "-", given=LAMP.replace("watts: 5", "watts: 5, wats: 6"))
    assert "unknown field" in told
    assert "wats" in told


def test_a_bad_definition_is_refused_with_all_reasons(server: Apiserver) -> None:
    bad = LAMP_CRD.replace("group: example.com", "group: example").replace("type: boolean", "type: bool")
    told = server.refused("apply", "-f", "-", given=bad)
    assert "spec.group" in told
    assert "properties[lit].type" in told
    assert "no matches for kind" in server.refused("apply", "-f", "-", given=LAMP)


def test_three_kinds_of_patch(lamps: Apiserver) -> None:
    lamps("patch", "lamp", "desk", "--type", "merge", "-p", '{"spec":{"watts":7,"tags":["x"]}}')
    lamps("patch", "lamp", "desk", "--type", "json", "-p", '[{"op":"add","path":"/spec/tags/-","value":"y"}]')
    spec = lamps.object("lamp/desk")["spec"]
    assert (spec["watts"], spec["tags"]) == (7, ["x", "y"])
    lamps("create", "-f", "-", given=POD)
    lamps("patch", "pod", "p", "-p", '{"spec":{"containers":[{"name":"two","image":"b"}]}}')
    assert [entry["name"] for entry in lamps.object("pod/p")["spec"]["containers"]] == ["two", "one"]
    assert "is invalid" in lamps.refused("patch", "lamp", "desk", "--type", "merge", "-p", '{"spec":{"watts":"x"}}')


POD = """
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {containers: [{name: one, image: a}]}
"""


def test_edit_goes_through_the_editor(lamps: Apiserver, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/"watts: 5"/"watts: 42"/ "$1"\n')
    editor.chmod(0o700)
    lamps("edit", "lamp", "desk", EDITOR=str(editor))
    assert lamps.object("lamp/desk")["spec"]["watts"] == 42


def test_labels_annotations_and_selectors(lamps: Apiserver) -> None:
    lamps("apply", "-f", "-", given=LAMP.replace("desk", "hall").replace("study", "hall"))
    assert lamps("get", "lamps", "-l", "room=study", "-o", "name") == "lamp.example.com/desk"
    assert lamps("get", "lamps", "-l", "room in (hall),!x", "-o", "name") == "lamp.example.com/hall"
    assert lamps("get", "lamps", "--field-selector", "metadata.name=hall", "-o", "name") == "lamp.example.com/hall"
    lamps("label", "lamp", "desk", "room=attic", "--overwrite")
    lamps("annotate", "lamp", "desk", "note=x")
    metadata = lamps.object("lamp/desk")["metadata"]
    assert (metadata["labels"], metadata["annotations"]["note"]) == ({"room": "attic"}, "x")
    assert len(lamps("get", "lamps", "--chunk-size=1", "-o", "name").split()) == 2
    assert "not supported" in lamps.refused("get", "lamps", "--field-selector", "spec.watts=5")


def test_describe_shows_the_object_and_its_events(lamps: Apiserver) -> None:
    told = lamps("describe", "lamp", "desk")
    assert "Watts:" in told
    assert "Events:" in told


def test_a_stale_replace_is_a_conflict(lamps: Apiserver) -> None:
    stale = lamps("get", "lamp", "desk", "-o", "yaml")
    lamps("label", "lamp", "desk", "x=y")
    assert "the object has been modified" in lamps.refused("replace", "-f", "-", given=stale)
    assert "already exists" in lamps.refused("create", "-f", "-", given=LAMP)


def test_a_dry_run_changes_nothing(lamps: Apiserver) -> None:
    changed = LAMP.replace("watts: 5", "watts: 9")
    assert "dry run" in lamps("apply", "--dry-run=server", "-f", "-", given=changed)
    assert lamps.object("lamp/desk")["spec"]["watts"] == 5
    difference = lamps.run("diff", "-f", "-", given=changed)
    assert difference.returncode == 1
    assert "watts: 9" in difference.stdout


def test_delete_waits_until_it_is_gone(own_lamps: Apiserver) -> None:
    assert "deleted" in own_lamps("delete", "lamp", "desk")
    assert "NotFound" in own_lamps.refused("get", "lamp", "desk")
    own_lamps("create", "namespace", "brief")
    own_lamps("create", "configmap", "c", "--from-literal=a=b", "-n", "brief")
    own_lamps("delete", "namespace", "brief")
    assert "NotFound" in own_lamps.refused("get", "namespace", "brief")
    own_lamps("delete", "crd", "lamps.example.com")
    assert "could not find the requested resource" in own_lamps.refused("get", "--raw", "/apis/example.com/v1/lamps")
    assert "may not be deleted" in own_lamps.refused("delete", "namespace", "default")


def test_objects_made_by_kubectls_own_generators(room: Apiserver) -> None:
    """Current clients send these in protobuf."""
    room("create", "configmap", "c", "--from-literal=a=b")
    assert room.object("configmap/c")["data"] == {"a": "b"}
    room("create", "secret", "generic", "s", "--from-literal=password=x y")
    assert room.object("secret/s")["data"] == {"password": "eCB5"}
    room("create", "serviceaccount", "robot")
    room("create", "deployment", "d", "--image=web:1", "--replicas=0")
    deployment = room.object("deployment/d")
    assert deployment["spec"]["replicas"] == 0
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "web:1"
    room("create", "role", "r", "--verb=get,list", "--resource=pods")
    assert room.object("role/r")["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    room("create", "rolebinding", "b", "--role=r", "--serviceaccount=default:robot")
    assert room.object("rolebinding/b")["subjects"][0]["name"] == "robot"
    room("create", "service", "clusterip", "web", "--tcp=80:8080")
    assert room.object("service/web")["spec"]["ports"][0]["targetPort"] == 8080
    room("run", "p", "--image=x", "--env=A=B", "--port=80")
    container = room.object("pod/p")["spec"]["containers"][0]
    assert (container["env"], container["ports"]) == ([{"name": "A", "value": "B"}], [{"containerPort": 80}])
    room("create", "job", "j", "--image=x", "--", "sleep", "1")
    assert room.object("job/j")["spec"]["template"]["spec"]["containers"][0]["command"] == ["sleep", "1"]


def test_a_watch_shows_what_changes(lamps: Apiserver) -> None:
    command, environment = lamps.command("get", "lamps", "-w", "--no-headers")
    watch = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert watch.stdout is not None
        assert watch.stdout.readline().split() == ["desk", "5"]
        lamps("patch", "lamp", "desk", "--type", "merge", "-p", '{"spec":{"watts":8}}')
        assert watch.stdout.readline().split() == ["desk", "8"]
        lamps("apply", "-f", "-", given=LAMP.replace("desk", "hall"))
        assert watch.stdout.readline().split() == ["hall", "5"]
    finally:
        watch.kill()
        watch.communicate()


def test_wait_sees_a_condition_come(room: Apiserver) -> None:
    room("create", "-f", "-", given=POD)
    command, environment = room.command("wait", "--for=condition=Ready", "pod/p", "--timeout=15s")
    waiting = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        status, _ = room.request("PATCH", f"/api/v1/namespaces/{room.namespace}/pods/p/status", ready)
        assert status == 200
        assert waiting.wait(DEADLINE_S) == 0
    finally:
        waiting.kill()
        waiting.wait()


def test_raw_requests_get_a_real_servers_answers(lamps: Apiserver) -> None:
    for number in range(3):
        lamps("patch", "lamp", "desk", "--type", "merge", "-p", json.dumps({"spec": {"watts": 10 + number}}))
    told = lamps("get", "--raw", "/apis/example.com/v1/lamps?watch=1&resourceVersion=1&timeoutSeconds=1")
    assert "ADDED" in told
    assert lamps("get", "--raw", "/readyz") == "ok"
    assert "resourceVersion" in lamps.refused("get", "--raw", "/api/v1/pods?resourceVersion=x")


def test_after_a_restart_everything_is_there_and_old_versions_are_expired(own_lamps: Apiserver) -> None:
    before = own_lamps("get", "lamps,crds,namespaces", "-A", "-o", "json")
    version = own_lamps.object("lamp/desk")["metadata"]["resourceVersion"]
    kubeconfig = (own_lamps.data / "kubeconfig").read_text()
    assert own_lamps.stop(signal.SIGKILL) != 0
    own_lamps.start()
    assert (own_lamps.data / "kubeconfig").read_text() == kubeconfig
    assert own_lamps("get", "lamps,crds,namespaces", "-A", "-o", "json") == before
    old = int(version) - 1
    told = own_lamps("get", "--raw", f"/apis/example.com/v1/lamps?watch=1&resourceVersion={old}&timeoutSeconds=1")
    assert json.loads(told)["object"]["code"] == 410
    own_lamps("patch", "lamp", "desk", "--type", "merge", "-p", '{"spec":{"watts":77}}')
    assert int(own_lamps.object("lamp/desk")["metadata"]["resourceVersion"]) > int(version)


def test_a_kill_amid_large_patches_loses_none_that_was_answered(tmp_path: Path) -> None:
    server, path, answered = Apiserver(tmp_path), "/api/v1/namespaces/default/configmaps", 0
    server.start()
    try:
        with contextlib.closing(Api.as_admin(server.kubeconfig, server.port)) as api:
            api.ask("POST", path, {"metadata": {"name": "large"}, "data": {"n": "0"}})
        for wait_s in (0.05, 0.11, 0.17, 0.23):
            with contextlib.closing(Api.as_admin(server.kubeconfig, server.port)) as api:
                killing = threading.Timer(wait_s, server.stop, [signal.SIGKILL])
                with contextlib.suppress(OSError, http.client.HTTPException):
                    while True:
                        data = {"n": str(answered + 1), "text": str(answered % 10) * 1_000_000}
                        answered = int(api.ask("PATCH", f"{path}/large", {"data": data})["data"]["n"])
                        if killing.ident is None:
                            killing.start()
                killing.join()
            server.start()
            with contextlib.closing(Api.as_admin(server.kubeconfig, server.port)) as api:
                found = api.ask("GET", f"{path}/large")
            assert int(found["data"]["n"]) in (answered, answered + 1), "what was under way may have been done"
            answered = int(found["data"]["n"])
            assert found["data"]["text"] == str((answered - 1) % 10) * 1_000_000
            assert len([*(server.data / "apiserver.db-large").iterdir()]) == 1
    finally:
        if server.is_running:
            server.stop()


@pytest.mark.skipif(not list(CRDS.glob("*.yaml")), reason="the device kinds are not written yet")
def test_the_device_kinds_are_accepted_and_a_status_goes_with_its_device(server: Apiserver) -> None:
    for path in sorted(CRDS.glob("*.yaml")):
        server("apply", "-f", path)
        server("apply", "-f", path)
    server("wait", "--for", "condition=established", "crd", "--all", "--timeout=10s")
    server("apply", "-f", "-", given=DEVICES)
    uid = server.object("device/t1")["metadata"]["uid"]
    server("apply", "-f", "-", given=DEVICE_STATUS.replace("UID", uid))
    assert server("get", "devices").splitlines()[1].split()[:3] == ["t1", "edge-1", "thermostat"]
    server("delete", "device", "t1")
    deadline = time.monotonic() + DEADLINE_S
    while server.run("get", "devicestatus", "t1").returncode == 0:
        assert time.monotonic() < deadline, "the status outlived its device"


DEVICES = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: thermostat}
spec:
  properties:
  - {name: setpoint, type: FLOAT, accessMode: ReadWrite, minimum: "5", maximum: "30"}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: t1}
spec:
  deviceModelRef: {name: thermostat}
  nodeName: edge-1
  properties:
  - name: setpoint
    desired: {value: "21"}
"""

DEVICE_STATUS = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceStatus
metadata:
  name: t1
  ownerReferences:
  - {apiVersion: devices.kubeedge.io/v1beta1, kind: Device, name: t1, uid: UID}
status: {state: online}
"""


# ---- the process, without kubectl


def test_a_stop_is_clean_and_quick_also_with_a_watch_open(tmp_path: Path, kubectl: Path) -> None:
    with running(tmp_path, kubectl) as server:
        command, environment = server.command("get", "namespaces", "-w", "--no-headers")
        watch = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert watch.stdout is not None
            assert watch.stdout.readline()
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 5
        finally:
            watch.kill()
            watch.communicate()


def test_secrets_are_for_their_owner_only_and_the_banner_says_what_it_is_for(shared: Apiserver) -> None:
    assert (shared.data / "kubeconfig").stat().st_mode & 0o777 == 0o600
    assert shared.data.stat().st_mode & 0o777 == 0o700
    assert "for trying out" in shared.log.read_text()
    token = json.loads((shared.data / "kubeconfig").read_text())["users"][0]["user"]["token"]
    assert token not in shared.log.read_text()


def test_a_wrong_token_and_an_oversized_body_get_a_status(shared: Apiserver) -> None:
    status, answer = shared.request("GET", "/api/v1/pods", token="wrong")
    assert (status, answer["reason"]) == (401, "Unauthorized")
    huge = {"metadata": {"name": "huge"}, "data": {"x": "y" * (3 << 20)}}
    status, answer = shared.request("POST", "/api/v1/namespaces/default/configmaps", huge)
    assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")


def fails(*args: object) -> str:
    """The last line of a start that must fail with code 1."""
    done = forkserver.run("apiserver.dev", list(map(str, args)), environment=os.environ, timeout_s=DEADLINE_S)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_a_taken_port_a_used_directory_and_a_file_in_the_way_are_said_in_the_last_line(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        taken = fails("run", "--data-dir", tmp_path / "other", "--listen", f"127.0.0.1:{server.port}")
        assert f"port {server.port} is taken" in taken
        assert "in use by" in fails("run", "--data-dir", server.data, "--listen", "127.0.0.1:0")
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "not a directory" in fails("run", "--data-dir", blocked / "data", "--listen", "127.0.0.1:0")
    (server.data / "apiserver.db").write_bytes(b"rubbish" * 1000)
    shutil.rmtree(server.data / "pki")
    assert "not a database" in fails("run", "--data-dir", server.data, "--listen", "127.0.0.1:0")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_said_in_the_last_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "permission denied" in fails("run", "--data-dir", tmp_path, "--listen", "127.0.0.1:0").lower()
    finally:
        tmp_path.chmod(0o700)


def test_help_shows_an_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "apiserver.dev", "run", "--help"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
        cwd=ROOT,
    )
    assert "example:" in done.stdout
    assert "apiserver run --data-dir" in done.stdout


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"token,jane", "tokens.csv: line 1: 3 columns are needed"),
        (b"\xff,a,b", "it is not UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_token_file_that_cannot_be_used_is_said_in_words(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "tokens.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=told):
        read_token_file(path)


def test_client_cas_that_cannot_be_used_are_said_in_words(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(CommandError, match="there is no such file"):
        accept_clients(context, tmp_path / "nothing")
    (tmp_path / "ca.crt").write_text("rubbish")
    with pytest.raises(CommandError, match="no CA certificate can be read"):
        accept_clients(context, tmp_path / "ca.crt")
    assert context.verify_mode is ssl.CERT_NONE


def test_a_damaged_signing_key_is_said_in_words(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    Identity.in_directory(tmp_path, ["localhost"])
    key = tmp_path / "pki" / "service-account.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.write_text("rubbish")
    with pytest.raises(CommandError, match="remove it to have another one made"):
        Identity.in_directory(tmp_path, ["localhost"])


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    first = Identity.in_directory(tmp_path, ["localhost"])
    second = Identity.in_directory(tmp_path, ["localhost", "other"])
    assert first.token == second.token
    assert first.signer.jwks == second.signer.jwks
    config = json.loads(second.kubeconfig("https://127.0.0.1:1"))
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    assert first.kubeconfig("x") == second.kubeconfig("x")


async def test_what_large_objects_took_is_given_back_once_none_comes_any_more(tmp_path: Path) -> None:
    key = ObjectKey(CONFIG_MAPS, "d", "large")

    async def put(storage: Storage, size: int) -> None:
        value = {"metadata": {"name": "large", "namespace": "d", "uid": "large"}, "data": {"text": "x" * size}}
        await storage.commit(lambda _: Plan(200, (Put(key, value),)))

    async with Storage.open(f"sqlite:///{tmp_path / 'a.db'}") as storage:
        await put(storage, 100)
        assert storage.large_writes == 0
        await put(storage, 300_000)  # what the first one takes for good is not looked at below
        async with asyncio.timeout(20):
            task = asyncio.create_task(tidy(storage, quiet_s=0.02))
            await asyncio.sleep(0)
            with Hole() as hole:
                before = anonymous_kb()
                await put(storage, 400_000)
                assert storage.large_writes == 2
                while before - anonymous_kb() < hole.kb * 0.25:  # the object lies in some of it
                    await asyncio.sleep(0.01)
            with Hole():
                before = anonymous_kb()
                await asyncio.sleep(0.05)
                assert before - anonymous_kb() < hole.kb * 0.1, "once for each time that some came"
            task.cancel()
            await asyncio.wait([task])
