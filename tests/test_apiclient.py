"""Tests for cloudhub.apiclient, against a server that speaks the real protocol over real sockets."""

import asyncio
import base64
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from apimachinery.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Expired,
    NotFound,
    TooLarge,
    Unavailable,
)
from apimachinery.events import EventType
from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES, NODES, PODS, SECRETS
from apiserver.messages import Request, Response, json_response
from cloudhub.apiclient import ApiClient, ApiUnreachable, KubeconfigError, ObjectsByName
from cloudhub.apiwire import Event
from cloudhub.vault import Objects, Vault
from componentbase.pki import create_ca, issue_server_cert, make_key_and_csr, sign_client_csr
from tests.harness.tinyapi import TinyApi, kubeconfig, tiny_api


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def api() -> AsyncIterator[TinyApi]:
    async with tiny_api() as api:
        yield api


@pytest.fixture
async def client(api: TinyApi, tmp_path: Path) -> AsyncIterator[ApiClient]:
    async with connected(tmp_path, api.url) as client:
        yield client


def written(folder: Path, text: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(text)
    return path


def connected(folder: Path, url: str, user: Mapping[str, object] | None = None, **cluster: object) -> ApiClient:
    return ApiClient.from_kubeconfig(written(folder, kubeconfig(url, user, cluster)))


# ---- requests


async def test_an_object_is_created_read_replaced_patched_and_deleted(client: ApiClient) -> None:
    key = ObjectKey(SECRETS, "default", "s")
    made = await client.create(SECRETS, "default", {"metadata": {"name": "s"}, "data": {"a": "1"}})
    assert made["metadata"]["uid"]
    with pytest.raises(AlreadyExists):
        await client.create(SECRETS, "default", {"metadata": {"name": "s"}})
    assert (await client.get(key))["data"] == {"a": "1"}
    assert (await client.replace(key, {**made, "data": {"b": "2"}}))["data"] == {"b": "2"}
    assert (await client.patch(key, {"data": {"c": "3"}}))["data"] == {"b": "2", "c": "3"}
    await client.delete(key)
    with pytest.raises(NotFound) as caught:
        await client.get(key)
    assert caught.value.name == "s"


async def test_a_patch_of_an_older_version_is_a_conflict(client: ApiClient) -> None:
    made = await client.create(NODES, "", {"metadata": {"name": "n"}})
    key = ObjectKey(NODES, "", "n")
    await client.patch(key, {"spec": {"a": 1}})
    with pytest.raises(Conflict):
        await client.patch(key, {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "spec": {}})


async def test_the_status_subresource_changes_the_status_only(client: ApiClient) -> None:
    await client.create(NODES, "", {"metadata": {"name": "n"}, "spec": {"a": 1}})
    patched = await client.patch(
        ObjectKey(NODES, "", "n"), {"spec": {"a": 2}, "status": {"b": 3}}, subresource="status"
    )
    assert (patched["spec"], patched["status"]) == ({"a": 1}, {"b": 3})


async def test_patch_types_are_told_by_the_content_type(api: TinyApi, client: ApiClient) -> None:
    await client.create(NODES, "", {"metadata": {"name": "n"}})
    for kind in ("merge", "strategic"):
        await client.patch(ObjectKey(NODES, "", "n"), {"spec": {}}, kind)
    assert [entry.headers["content-type"] for entry in api.asked("PATCH")] == [
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ]


async def test_a_long_list_comes_in_pages_and_in_one_version(api: TinyApi, client: ApiClient) -> None:
    for number in range(7):
        await api.put(PODS, {"metadata": {"name": f"p{number}"}}, "default")
    api.page_limit = 3
    objects, version = await client.list(PODS, "50")
    assert [item.key.name for item in objects] == [f"p{number}" for number in range(7)]
    assert version == str(api.revision)
    assert objects[0].parse()["kind"] == "Pod"
    first, second, third = api.asked("GET", "/pods")
    assert (first.query["resourceVersion"], first.query["resourceVersionMatch"]) == ("50", "NotOlderThan")
    for later in (second, third):
        assert "resourceVersion" not in later.query
        assert "resourceVersionMatch" not in later.query
        assert later.query["limit"]


async def test_a_first_list_asks_for_the_newest_state(api: TinyApi, client: ApiClient) -> None:
    await client.list(PODS)
    assert "resourceVersion" not in api.asked("GET", "/pods")[0].query


async def test_selectors_are_passed_on(api: TinyApi, client: ApiClient) -> None:
    await api.put(SECRETS, {"metadata": {"name": "a", "labels": {"x": "1"}}}, "ns")
    await api.put(SECRETS, {"metadata": {"name": "b"}}, "ns")
    objects, _ = await client.list(SECRETS, namespace="ns", labels="x=1", fields="type=Opaque")
    assert [item.key.name for item in objects] == ["a"]
    assert api.asked("GET", "/namespaces/ns/secrets")[0].query["fieldSelector"] == "type=Opaque"


async def test_a_resource_is_discovered_in_the_preferred_version(client: ApiClient) -> None:
    assert await client.discover("devices.devices.kubeedge.io") == DEVICES
    assert await client.discover("nodes") == NODES
    for unknown in ("gadgets", "gadgets.devices.kubeedge.io", "gadgets.example.com"):
        with pytest.raises(NotFound):
            await client.discover(unknown)


async def test_a_definition_tells_whether_a_resource_exists(api: TinyApi, client: ApiClient) -> None:
    assert await client.is_defined(DEVICES) is False
    await api.define(DEVICES)
    assert await client.is_defined(DEVICES) is True
    assert await client.is_defined(PODS) is None
    for status in (403, 404):  # not allowed to look; not there because the server does not know definitions yet
        api.answer = lambda request, status=status: Response(status, [], b"no")  # type: ignore[misc]
        assert await client.is_defined(DEVICES) is None


async def test_the_vault_works_over_it(client: ApiClient) -> None:
    objects: Objects = ObjectsByName(client)
    vault = Vault(objects)
    await vault.create("token", "Opaque", {"a": b"1"}, labels={"kind": "t"})
    assert (await vault.get("token")).fields == {"a": b"1"}
    assert [entry.name for entry in await vault.list("kind=t")] == ["token"]
    await vault.delete("token")
    with pytest.raises(NotFound):
        await vault.get("token")


async def test_a_name_that_would_lead_elsewhere_reaches_no_server(api: TinyApi, client: ApiClient) -> None:
    with pytest.raises(BadRequest):
        await client.get(ObjectKey(NODES, "", ".."))
    assert api.requests == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Response(200, [], b"<html>welcome"), ApiUnreachable),
        (Response(200, [], b"[]"), ApiUnreachable),
        (Response(502, [], b"<html>"), Unavailable),
        (Response(302, [("location", "https://login")], b""), Unavailable),
        (Response(410, [], b""), Expired),
    ],
)
async def test_what_is_no_apiserver_is_told_apart(
    api: TinyApi, client: ApiClient, answer: Response, kind: type[ApiError]
) -> None:
    api.answer = lambda request: answer
    with pytest.raises(kind):
        await client.get(ObjectKey(NODES, "", "n"))


async def test_nobody_there_is_unreachable_and_names_the_server(tmp_path: Path, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    async with connected(tmp_path, url) as client:
        with pytest.raises(ApiUnreachable, match=url):
            await client.get(ObjectKey(NODES, "", "n"))
        with pytest.raises(ApiUnreachable, match=url):
            async for _ in client.watch(PODS, "1"):
                pass


# ---- watches


async def test_a_watch_tells_what_happens_and_where_it_is(api: TinyApi, client: ApiClient) -> None:
    api.bookmark_every_s = 0.02
    start = str(api.revision)
    await api.put(PODS, {"metadata": {"name": "p", "labels": {"a": "é\u2028\x85"}}}, "default")
    await api.put(PODS, {"metadata": {"name": "p"}, "spec": {"x": 1}}, "default")
    await api.delete(ObjectKey(PODS, "default", "p"))
    seen: list[Event] = []
    async with aclosing(client.watch(PODS, start)) as events:
        async for event in events:
            seen.append(event)
            if event.type is EventType.BOOKMARK:
                break
    assert [event.type for event in seen] == ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    assert [event.resume_version for event in seen] == ["101", "102", "103", "103"]
    assert seen[0].object is not None
    assert seen[0].object.labels == {"a": "é\u2028\x85"}
    query = api.asked("WATCH")[0].query
    assert (query["allowWatchBookmarks"], query["resourceVersion"]) == ("true", start)


async def test_a_watch_ends_when_the_server_ends_it(api: TinyApi, client: ApiClient) -> None:
    api.watch_most_s = 0.05
    assert {event.type async for event in client.watch(PODS, "100", timeout_s=77)} <= {EventType.BOOKMARK}
    assert api.asked("WATCH")[0].query["timeoutSeconds"] == "77"


async def test_an_old_version_is_expired_at_once_or_in_the_stream(api: TinyApi, client: ApiClient) -> None:
    await api.put(PODS, {"metadata": {"name": "p"}}, "default")
    api.compact()
    with pytest.raises(Expired):
        await anext(client.watch(PODS, "100"))

    async def late() -> AsyncIterator[bytes]:
        yield b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}\n'

    api.answer = lambda request: Response(200, [], late())
    with pytest.raises(Expired, match="too old"):
        await anext(client.watch(PODS, "100"))


async def test_events_may_come_in_pieces(api: TinyApi, client: ApiClient) -> None:
    async def dripping() -> AsyncIterator[bytes]:
        line = b'{"type":"ADDED","object":{"metadata":{"name":"p","resourceVersion":"5"}}}\n\n'
        for place in range(0, len(line), 7):
            yield line[place : place + 7]
            await asyncio.sleep(0)

    api.answer = lambda request: Response(200, [], dripping())
    events = [event async for event in client.watch(PODS, "1")]
    assert [event.resume_version for event in events] == ["5"]


@pytest.mark.parametrize("rest", [b'{"type":"ADD', b"rubbish\n", b"x" * (9 << 20)])
async def test_a_stream_that_breaks_is_unreachable_not_an_end(api: TinyApi, client: ApiClient, rest: bytes) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield rest

    api.answer = lambda request: Response(200, [], broken())
    with pytest.raises(Unavailable):
        await anext(client.watch(PODS, "1"))


async def test_a_server_that_dies_in_the_middle_is_unreachable(api: TinyApi, client: ApiClient) -> None:
    async def dying() -> AsyncIterator[bytes]:
        yield b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"5"}}}\n'
        raise ConnectionResetError

    api.answer = lambda request: Response(200, [], dying())
    with pytest.raises(ApiUnreachable):
        async for _ in client.watch(PODS, "1"):
            pass


async def test_a_watch_that_is_left_frees_its_connection(api: TinyApi, client: ApiClient) -> None:
    async with aclosing(client.watch(PODS, "100")) as events:
        waiting = asyncio.ensure_future(anext(events))
        while not api.watchers:
            await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    while api.watchers:
        await asyncio.sleep(0.005)


# ---- kubeconfigs


def demanding(*accepted: str) -> tuple[TinyApi, list[str]]:
    """An apiserver that wants one of these Authorization headers, and what it was shown."""
    api = TinyApi()
    shown: list[str] = []

    def answer(request: Request) -> Response | None:
        shown.append(request.headers.get("authorization", ""))
        return None if shown[-1] in accepted else Response(401, [], b"who are you?")

    api.answer = answer
    return api, shown


async def test_a_token(tmp_path: Path) -> None:
    api, shown = demanding("Bearer abc")
    async with tiny_api(api), connected(tmp_path, api.url, {"token": "abc"}) as client:
        await client.list(PODS)
        assert client.server.rstrip("/") == api.url
    assert shown == ["Bearer abc"]


async def test_a_token_file_beside_the_kubeconfig_may_rotate(tmp_path: Path) -> None:
    api, shown = demanding("Bearer second")
    (tmp_path / "token").write_text("first\n")
    async with tiny_api(api), connected(tmp_path, api.url, {"tokenFile": "token"}) as client:
        with pytest.raises(ApiError):
            await client.list(PODS)
        (tmp_path / "token").write_text("second\n")
        await client.list(PODS)
        (tmp_path / "token").unlink()
        api.answer = lambda request: Response(401, [], b"")
        with pytest.raises(ApiUnreachable, match="token"):
            await client.list(PODS)
    assert shown[-1] == "Bearer second"


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_an_exec_plugin_of_each_version(tmp_path: Path, version: str) -> None:
    api, shown = demanding("Bearer token-2")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "login"
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, os\n"
        f"path = {str(tmp_path / 'runs')!r}\n"
        "open(path, 'a').write('x')\n"
        "status = {'token': os.environ['PREFIX'] + str(len(open(path).read()))}\n"
        "print(json.dumps({'kind': 'ExecCredential', 'status': status}))\n"
    )
    script.chmod(0o700)
    user = {
        "exec": {
            "apiVersion": f"client.authentication.k8s.io/{version}",
            "command": "bin/login",  # relative to the kubeconfig, as for kubectl
            "env": [{"name": "PREFIX", "value": "token-"}],
            "interactiveMode": "Never",
        }
    }
    async with tiny_api(api), connected(tmp_path, api.url, user) as client:
        await client.list(PODS)
        await client.list(NODES)
    assert shown == ["Bearer token-1", "Bearer token-2", "Bearer token-2"]


async def test_an_exec_plugin_that_fails_is_told(tmp_path: Path) -> None:
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/no/such/login"}}
    async with tiny_api() as api, connected(tmp_path, api.url, user) as client:
        with pytest.raises(ApiUnreachable, match="/no/such/login cannot be started"):
            await client.list(PODS)


async def test_a_client_certificate_and_a_private_ca(tmp_path: Path) -> None:
    ca = create_ca("test-ca", 1)
    server = issue_server_cert(ca, ["127.0.0.1"], 1)
    key, csr = make_key_and_csr("admin", "system:masters")
    cert = sign_client_csr(ca, csr, "admin", "system:masters", 1)
    for name, content in (("s.crt", server.cert_pem), ("s.key", server.key_pem), ("ca.crt", ca.cert_pem)):
        (tmp_path / name).write_bytes(content)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt"))
    context.load_cert_chain(tmp_path / "s.crt", tmp_path / "s.key")
    context.verify_mode = ssl.CERT_REQUIRED
    user = {
        "client-certificate-data": base64.b64encode(cert).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    names: list[str | None] = []
    api = TinyApi()
    api.answer = lambda request: names.append(request.peer_certificate_cn)
    async with tiny_api(api, context):
        async with connected(tmp_path, api.url, user, **{"certificate-authority": "ca.crt"}) as client:
            await client.list(PODS)
        assert names == ["admin"]
        async with connected(tmp_path, api.url, user) as client:
            with pytest.raises(ApiUnreachable, match="certificate verify failed"):
                await client.list(PODS)


async def test_a_pods_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = create_ca("cluster-ca", 1)
    server = issue_server_cert(ca, ["127.0.0.1"], 1)
    for name, content in (
        ("tls.crt", server.cert_pem),
        ("tls.key", server.key_pem),
        ("ca.crt", ca.cert_pem),
        ("token", b"pod-token"),
        ("namespace", b"fairlead-system"),
    ):
        (tmp_path / name).write_bytes(content)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    api, shown = demanding("Bearer pod-token")
    async with tiny_api(api, context):
        host, _, port = api.url.removeprefix("https://").partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        async with ApiClient.from_kubeconfig(service_account=tmp_path) as client:
            await client.list(PODS)
    assert shown == ["Bearer pod-token"]


async def test_the_environment_names_a_kubeconfig_even_in_a_pod(
    api: TinyApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setenv("KUBECONFIG", str(written(tmp_path, kubeconfig(api.url))))
    async with ApiClient.from_kubeconfig() as client:
        await client.list(PODS)


async def test_a_proxy_from_the_environment_is_used(
    api: TinyApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", api.url)
    path = written(tmp_path, kubeconfig("http://apiserver.invalid:6443"))
    async with ApiClient.from_kubeconfig(path) as client:
        with pytest.raises(NotFound):  # the stand-in for a proxy was asked, and is none
            await client.list(PODS)
    monkeypatch.setenv("no_proxy", "apiserver.invalid")
    async with ApiClient.from_kubeconfig(path) as client:
        with pytest.raises(ApiUnreachable):
            await client.list(PODS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a kubeconfig"),
        ("- a", "is not a kubeconfig"),
        ("{}", "is not a kubeconfig"),
        ("users:\n  token: [geheim\nx: :", r"is not a kubeconfig \(line \d\)"),
        (kubeconfig("http://h").replace('"cluster": "c"', '"cluster": "d"', 1), "is not a kubeconfig|'d'"),
        (kubeconfig("http://h").replace('"current-context": "x"', '"current-context": "y"'), "'y' not found"),
        (kubeconfig("nonsense"), "not an http or https URL"),
        (kubeconfig("https://h", {}, {"certificate-authority": "missing.crt"}), "certificates are of no use"),
        (kubeconfig("https://h", {}, {"certificate-authority-data": "a"}), "certificate-authority-data is not base64"),
        (kubeconfig("https://h", {"client-key-data": "a"}), "client-key-data is not base64"),
        (kubeconfig("https://h", {}, {"certificate-authority-data": "YWJj"}), "certificates are of no use"),
        (kubeconfig("https://h", {"exec": {"apiVersion": "v9", "command": "c"}}), "v9"),
        (kubeconfig("https://h", {"auth-provider": {"name": "gcp"}}), "auth-provider"),
        (kubeconfig("https://h", {"token": 5}), "is not a kubeconfig"),
    ],
)
def test_a_bad_kubeconfig_is_told_without_what_is_in_it(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(KubeconfigError, match=told) as caught:
        ApiClient.from_kubeconfig(path)
    told_all = str(caught.value)
    del caught  # it is in a cycle with this frame, which would keep lightkube's temporary file open
    assert str(path) in told_all
    assert "geheim" not in told_all


def test_no_kubeconfig_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KubeconfigError, match="no such kubeconfig"):
        ApiClient.from_kubeconfig(tmp_path / "none")
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    with pytest.raises(KubeconfigError, match="several files"):
        ApiClient.from_kubeconfig()
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    with pytest.raises(KubeconfigError, match="service account"):
        ApiClient.from_kubeconfig(service_account=tmp_path / "none")


# ---- on behalf of others


async def test_a_review_says_whether_somebody_else_may(api: TinyApi, client: ApiClient) -> None:
    answers = iter(({"allowed": True}, {"allowed": False, "denied": True}, {}))
    api.answer = lambda request: json_response(201, {"kind": "SubjectAccessReview", "status": next(answers)})
    assert await client.may("u", ["g"], "list", PODS, "a", "p")
    assert not await client.may("u", ["g"], "list", NODES)
    assert not await client.may("u", [], "list", NODES), "what says nothing does not allow"
    first, second, _ = api.requests
    assert first.body["spec"] == {
        "user": "u",
        "groups": ["g"],
        "resourceAttributes": {
            "verb": "list",
            "group": "",
            "version": "v1",
            "resource": "pods",
            "namespace": "a",
            "name": "p",
        },
    }
    assert "namespace" not in second.body["spec"]["resourceAttributes"]


async def test_a_request_is_passed_on_as_it_is_and_its_answer_comes_back(api: TinyApi, client: ApiClient) -> None:
    api.answer = lambda request: Response(404, [("warning", '299 - "a"'), ("x", "y")], b"no")
    answer = await client.pass_on(
        "PATCH",
        "/api/v1/nodes/n%3A1?fieldManager=a%20b&x=%2F",
        user="u",
        groups=["g"],
        headers={"Content-Type": "application/merge-patch+json", "Accept": ""},
        body=b"{}",
        room=lambda size: True,
    )
    assert (answer.status, answer.headers["x"], list(answer.warnings), answer.body) == (404, "y", ['299 - "a"'], b"no")
    [asked] = api.requests
    assert (asked.method, asked.path, asked.query) == (
        "PATCH",
        "/api/v1/nodes/n%3A1",
        {"fieldManager": "a b", "x": "/"},
    )
    assert asked.headers["impersonate-user"] == "u"
    assert asked.headers["impersonate-group"] == "g"
    assert asked.headers["content-type"] == "application/merge-patch+json"


async def test_an_answer_is_read_as_far_as_there_is_room(api: TinyApi, client: ApiClient) -> None:
    api.answer = lambda request: Response(200, [], b"x" * 1_000_000)
    asked: list[int] = []

    def room(size: int) -> bool:
        asked.append(size)
        return size < 500_000

    with pytest.raises(TooLarge, match="ask for less"):
        await client.pass_on("GET", "/version", user="u", groups=[], headers={}, body=b"", room=room)
    assert 500_000 <= asked[-1] < 1_000_000


async def test_what_does_not_answer_is_not_passed_on(tmp_path: Path) -> None:
    async with connected(tmp_path, "http://127.0.0.1:1") as client:
        with pytest.raises(ApiUnreachable):
            await client.pass_on("GET", "/version", user="u", groups=[], headers={}, body=b"", room=lambda size: True)
