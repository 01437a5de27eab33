"""
Requests to a Kubernetes apiserver: get, list, watch, create, replace, patch, delete.

Thin on purpose: objects go out and come in as JSON, addressed by our own keys, so that custom resources need
no classes and a new field no release. What is hard is left to lightkube: finding and reading a kubeconfig,
TLS, client certificates, tokens that rotate. What it lacks is added here: exec plugins of the current API
version, a kubeconfig without a user, a dead peer noticed by TCP keepalive.

Errors
    KubeconfigError   the kubeconfig cannot be used; say so and end
    ApiUnreachable    no answer, or none that makes sense; is_retriable()
    ApiError          what the apiserver answered, see apimachinery.errors

The one home of lightkube and httpx2.
"""

import base64
import json
import logging
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import httpx2
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import User, UserExec
from lightkube.core.exceptions import ConfigError

from apimachinery.errors import ApiError, Forbidden, NotFound, TooLarge, Unavailable
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS
from cloudhub.apiwire import Event, Lines, Page, error_in, event_of, page_of, path_of, segment, selection
from cloudhub.execplugin import CredentialsUnavailable, ExecPlugin
from cloudhub.reading import Sent

PAGE_OBJECTS = 500  # client-go's pager's default
WATCH_S = 300.0  # the middle of client-go's reflectors' 5 to 10 minutes would be 450; routers cut idle streams sooner
LINE_BYTES = 8 << 20  # an object of etcd's 1.5 MiB, escaped at its worst, fits several times
CONNECT_S = 10.0
ANSWER_S = 30.0  # between two reads of one answer; kube-apiserver ends a request after 60 s
# A watch has one for itself: of nine kinds and up to 48 that nodes ask for. Calls of nodes may take 48 more.
_CONNECTIONS = httpx2.Limits(max_connections=128, max_keepalive_connections=32, keepalive_expiry=60.0)

_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
_NOT_OLDER_THAN: Final = "NotOlderThan"

# One INFO line per request, lease renewals included, would bury everything else.
for _library in ("httpx2", "httpcore2"):
    logging.getLogger(_library).setLevel(logging.WARNING)


class KubeconfigError(Exception):
    """The kubeconfig cannot be used; the text is for the person who gave it."""


class ApiUnreachable(Unavailable):
    """There was no answer: the network, TLS, or credentials that could not be had. Worth retrying."""


class RawAnswer(NamedTuple):
    """What a request that was passed on was answered with, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """In lower case."""
    warnings: Sequence[str]
    """The Warning headers, of which there may be several."""
    body: bytes


class ApiClient:
    """
    One apiserver, as one user. Close it, or use it in an `async with`.

    Objects it gives have metadata.resourceVersion as their version's revision.
    """

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    @classmethod
    def from_kubeconfig(cls, path: Path | None = None, *, service_account: Path = Path(SERVICE_ACCOUNT)) -> Self:
        """
        The client for a kubeconfig's current context.

        path: None takes the file that $KUBECONFIG names, else a pod's service account, else ~/.kube/config.
        Raises KubeconfigError.
        """
        found = _find(path, service_account)
        try:
            config = found.get()
            assert config is not None, "get() without a default gives a context or raises"
            return cls(_http_client(config))
        except KeyError as exc:
            raise KubeconfigError(f"{_called(found)}: its context names {exc}, which is not there") from exc
        except (ConfigError, CredentialsUnavailable) as exc:
            raise KubeconfigError(f"{_called(found)}: {exc}") from exc
        except (OSError, ValueError, httpx2.InvalidURL) as exc:
            # ssl.SSLError is an OSError; none of these quotes a key.
            raise KubeconfigError(f"{_called(found)}: server or certificates are of no use: {exc}") from exc

    @property
    def server(self) -> str:
        """Where the apiserver is."""
        return str(self._http.base_url)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Reading

    async def get(self, key: ObjectKey) -> dict[str, JSON]:
        """One object's body."""
        return await self._request("GET", path_of(key.resource, key.namespace, key.name))

    async def pages(
        self, resource: Resource, resource_version: str = "", *, namespace: str = "", labels: str = "", fields: str = ""
    ) -> AsyncGenerator[Page, None]:
        """
        All objects of a resource, a page at a time.

        resource_version: a state that the answer must not be older than; "" asks for the newest, which is
        never older than anything seen. (A server that has that state in memory ignores the page's limit.)
        """
        path = path_of(resource, namespace)
        query = {"limit": str(PAGE_OBJECTS), **selection(labels, fields)}
        if resource_version:
            query |= {"resourceVersion": resource_version, "resourceVersionMatch": _NOT_OLDER_THAN}
        while True:
            page = page_of(resource, await self._ask("GET", path, query))
            yield page
            if not page.token:
                return
            # "Specifying resource version is not allowed when using continue": the token has it.
            query = {"limit": str(PAGE_OBJECTS), "continue": page.token, **selection(labels, fields)}

    async def list(
        self, resource: Resource, resource_version: str = "", *, namespace: str = "", labels: str = "", fields: str = ""
    ) -> tuple[Sequence[Sent], str]:
        """All objects of a resource and the resource version of the list. For resource_version see pages()."""
        objects: list[Sent] = []
        version = ""
        async for page in self.pages(resource, resource_version, namespace=namespace, labels=labels, fields=fields):
            objects += page.objects
            version = page.resource_version
        return objects, version

    async def watch(
        self,
        resource: Resource,
        resource_version: str,
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        timeout_s: float = WATCH_S,
    ) -> AsyncGenerator[Event, None]:
        """
        What happens after `resource_version`; ends when the server ends it, about `timeout_s` later.

        Raises Expired, at once or in the middle, when the server no longer knows that version; ApiUnreachable
        when the stream breaks. Close it (contextlib.aclosing) when it is not read to its end.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(timeout_s))),
            **selection(labels, fields),
        }
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S, read=timeout_s + ANSWER_S)
        try:
            async with self._http.stream(
                "GET", path_of(resource, namespace), params=query, timeout=timeout
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _error(response)
                lines = Lines(LINE_BYTES)
                async for chunk in response.aiter_bytes():
                    for line in lines.take(chunk):
                        yield event_of(resource, line)
                    if lines.is_too_long:
                        raise ApiUnreachable(f"an event of {resource.collection} is longer than {LINE_BYTES} bytes")
                if lines.has_rest:
                    raise ApiUnreachable(f"the watch of {resource.collection} ended in the middle of an event")
        except _TROUBLE as exc:
            raise self._unreachable(exc) from exc

    async def is_defined(self, resource: Resource) -> bool | None:
        """
        Whether a resource exists at all, by its definition; None when that cannot be told.

        A 404 on a list is no proof: an apiserver that is starting answers it for resources whose
        definitions it has not read yet.
        """
        if "." not in resource.group:
            return None
        try:
            await self.get(ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", resource.collection))
        except NotFound as error:
            return False if error.name == resource.collection else None
        except Forbidden:
            return None
        return True

    async def discover(self, collection: str) -> Resource:
        """
        The resource called `plural.group` (just `plural` for the core group), in the group's preferred version.

        Raises NotFound when the apiserver has none of that name.
        """
        plural, _, group = collection.partition(".")
        for prefix, version in await self._versions(group):
            answer = await self._request("GET", f"{prefix}/{version}")
            for entry in answer.get("resources") or ():
                if entry.get("name") == plural:
                    return Resource(group, version, plural, str(entry["kind"]), bool(entry.get("namespaced")))
        raise NotFound(f'the apiserver has no resource "{collection}"')

    async def _versions(self, group: str) -> Sequence[tuple[str, str]]:
        """Path prefix and version, the preferred one first."""
        if not group:
            return [("/api", "v1")]
        prefix = f"/apis/{segment(group)}"
        answer = await self._request("GET", prefix)
        versions = [str(entry["version"]) for entry in answer.get("versions") or ()]
        preferred = str((answer.get("preferredVersion") or {}).get("version") or "")
        return [(prefix, version) for version in sorted(versions, key=lambda version: version != preferred)]

    # Writing

    async def create(self, resource: Resource, namespace: str, value: Mapping[str, JSON]) -> dict[str, JSON]:
        """Raises AlreadyExists; NotFound where the namespace is missing."""
        return await self._request("POST", path_of(resource, namespace), body=value)

    async def create_below(self, key: ObjectKey, subresource: str, value: Mapping[str, JSON]) -> dict[str, JSON]:
        """What is created at an object, and answered: a ServiceAccount's `token`."""
        return await self._request("POST", path_of(key.resource, key.namespace, key.name, subresource), body=value)

    async def replace(self, key: ObjectKey, value: Mapping[str, JSON], subresource: str = "") -> dict[str, JSON]:
        """Raises Conflict where the value carries another resourceVersion than the object has."""
        return await self._request("PUT", path_of(key.resource, key.namespace, key.name, subresource), body=value)

    async def patch(
        self,
        key: ObjectKey,
        body: Mapping[str, JSON] | Sequence[Mapping[str, JSON]],
        patch_type: str = "merge",
        subresource: str = "",
    ) -> dict[str, JSON]:
        """
        patch_type: "merge", "strategic", "json" or "apply".

        With metadata.resourceVersion in a merge patch, Conflict is raised where the object has another.
        """
        path = path_of(key.resource, key.namespace, key.name, subresource)
        return await self._request("PATCH", path, body=body, content_type=_PATCH_TYPES[patch_type])

    async def delete(self, key: ObjectKey) -> None:
        await self._request("DELETE", path_of(key.resource, key.namespace, key.name))

    # On behalf of others

    async def may(
        self,
        user: str,
        groups: Sequence[str],
        verb: str,
        resource: Resource,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
    ) -> bool:
        """Whether somebody else may do this, by the apiserver's own decision (a SubjectAccessReview)."""
        asked = {"verb": verb, "group": resource.group, "version": resource.version, "resource": resource.plural}
        where = {"namespace": namespace, "name": name, "subresource": subresource}
        asked |= {field: text for field, text in where.items() if text}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": list(groups), "resourceAttributes": asked},
        }
        answer = await self._request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
        status = answer.get("status")
        return isinstance(status, Mapping) and status.get("allowed") is True

    async def pass_on(
        self,
        method: str,
        target: str,
        *,
        user: str,
        groups: Sequence[str],
        headers: Mapping[str, str],
        body: bytes,
        room: Callable[[int], bool],
    ) -> RawAnswer:
        """
        A request of somebody else, made as that user (impersonation).

        target: path and query as in a request line. groups: beside those that the apiserver adds for such a user.
        room: whether an answer of so many bytes may be kept; asked as they come.
        Raises TooLarge where they may not, ApiUnreachable where there is no answer.
        """
        sent = [(name, text) for name, text in headers.items() if text]
        sent.append(("Impersonate-User", user))
        sent += [("Impersonate-Group", group) for group in groups]
        try:
            async with self._http.stream(method, target, content=body or None, headers=sent) as response:
                found = bytearray()
                async for chunk in response.aiter_bytes():
                    if not room(len(found) + len(chunk)):
                        raise TooLarge(
                            "the answer is too large for the link; ask for less, as with limit or a selector"
                        )
                    found += chunk
                warnings = response.headers.get_list("warning")
                return RawAnswer(response.status_code, dict(response.headers), warnings, bytes(found))
        except _TROUBLE as exc:
            raise self._unreachable(exc) from exc

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, JSON] | Sequence[Mapping[str, JSON]] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, JSON]:
        answer = await self._ask(method, path, query, body=body, content_type=content_type)
        try:
            value = json.loads(answer)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ApiUnreachable(f"what answers at {self.server} is no apiserver: its answer is not a JSON object")
        return value

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, JSON] | Sequence[Mapping[str, JSON]] | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        content = None if body is None else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        headers = {} if body is None else {"Content-Type": content_type}
        try:
            response = await self._http.request(method, path, params=query, content=content, headers=headers)
        except _TROUBLE as exc:
            raise self._unreachable(exc) from exc
        if not response.is_success:
            raise _error(response)
        return response.content

    def _unreachable(self, exc: Exception) -> ApiUnreachable:
        why = str(exc) or type(exc).__name__
        return ApiUnreachable(f"no answer from the apiserver at {self.server}: {why}")


class ObjectsByName:
    """The same requests with resource, namespace and name instead of keys, as cloudhub.vault asks for them."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def create(self, resource: Resource, namespace: str, value: Mapping[str, JSON]) -> Mapping[str, JSON]:
        return await self._client.create(resource, namespace, value)

    async def get(self, resource: Resource, namespace: str, name: str) -> Mapping[str, JSON]:
        return await self._client.get(ObjectKey(resource, namespace, name))

    async def list_all(self, resource: Resource, namespace: str, labels: str) -> Sequence[Mapping[str, JSON]]:
        objects, _ = await self._client.list(resource, namespace=namespace, labels=labels)
        return [item.parse() for item in objects]

    async def merge(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, JSON]
    ) -> Mapping[str, JSON]:
        return await self._client.patch(ObjectKey(resource, namespace, name), patch)

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        await self._client.delete(ObjectKey(resource, namespace, name))


_TROUBLE = (httpx2.RequestError, httpx2.StreamError, ConfigError, CredentialsUnavailable, OSError)
"""What a request can fail with before there is an answer. ConfigError: lightkube reads rotating tokens late."""


# ---- kubeconfig


class _ExecAuth(httpx2.Auth):
    """Asks the plugin again, once, when the apiserver refuses its token."""

    def __init__(self, plugin: ExecPlugin) -> None:
        self._plugin = plugin

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        token = await self._plugin.token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            token = await self._plugin.token(refused=token)
            request.headers["Authorization"] = f"Bearer {token}"
            yield request


def _find(path: Path | None, service_account: Path) -> KubeConfig:
    named = os.environ.get("KUBECONFIG", "")
    if path is None and not named and "KUBERNETES_SERVICE_HOST" in os.environ:
        try:
            return KubeConfig.from_service_account(service_account)
        except (ConfigError, KeyError, OSError) as exc:
            raise KubeconfigError(f"the pod's service account in {service_account} cannot be used: {exc}") from exc
    if path is None and os.pathsep in named:
        raise KubeconfigError(
            "$KUBECONFIG names several files: give one, as `kubectl config view --flatten --minify` prints it"
        )
    file = path or Path(named or DEFAULT_KUBECONFIG)
    try:
        return KubeConfig.from_file(file)
    except ConfigError as exc:
        raise KubeconfigError(f"{file}: there is no such kubeconfig") from exc
    except OSError as exc:
        raise KubeconfigError(f"{file}: cannot be read: {exc.strerror}") from exc
    except Exception as exc:
        # The loader lets the errors of its YAML and schema libraries through, which have no home here. A
        # YAML error quotes the line, which may hold a token: only its place is told.
        mark = getattr(exc, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise KubeconfigError(f"{file}: is not a kubeconfig{where}") from exc


def _called(config: KubeConfig) -> str:
    return str(config.fname) if config.fname else "the pod's service account"


def _http_client(config: SingleConfig) -> httpx2.AsyncClient:
    user = config.user or User()
    plugin = None if user.exec is None else _exec_plugin(config, user.exec)
    if user.token_file is not None:
        user.token_file = str(config.abs_file(user.token_file))
    _check_base64("certificate-authority-data", config.cluster.certificate_auth_data)
    _check_base64("client-certificate-data", user.client_cert_data)
    _check_base64("client-key-data", user.client_key_data)
    # lightkube would refuse a plugin of version v1, and ask each plugin once per request that waits.
    config = config._replace(user=user)
    params = ConnectionParams(timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S)).httpx_params(config)
    base_url = httpx2.URL(params["base_url"])
    if base_url.scheme not in ("http", "https") or not base_url.host:
        raise ConfigError(f'the server "{base_url}" is not an http or https URL')
    return httpx2.AsyncClient(
        base_url=base_url,
        auth=_ExecAuth(plugin) if plugin is not None else params["auth"],
        timeout=params["timeout"],
        transport=httpx2.AsyncHTTPTransport(
            verify=params["verify"], limits=_CONNECTIONS, proxy=_proxy(base_url), socket_options=_keepalive()
        ),
        headers={"User-Agent": "fairlead-cloudcore", "Accept": "application/json"},
    )


def _check_base64(field: str, text: str | None) -> None:
    """lightkube leaves a file open, and says nothing of the field, where this fails."""
    try:
        base64.b64decode(text or "")
    except ValueError:
        raise ConfigError(f"{field} is not base64") from None


def _exec_plugin(config: SingleConfig, described: UserExec) -> ExecPlugin:
    command = described.command
    if os.sep in command and not Path(command).is_absolute():
        command = str(config.abs_file(command))
    cluster = config.cluster
    told: dict[str, JSON] = {"server": cluster.server, "insecure-skip-tls-verify": cluster.insecure}
    if cluster.certificate_auth_data:
        told["certificate-authority-data"] = cluster.certificate_auth_data
    return ExecPlugin(
        [command, *(described.args or ())],
        api_version=described.apiVersion,
        env={entry.name: entry.value for entry in described.env or ()},
        cluster=told,
    )


def _proxy(url: httpx2.URL) -> str | None:
    """The proxy that the environment wants for this server; httpx looks only where it makes the transport itself."""
    if urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _keepalive() -> list[tuple[int, int, int]]:
    """A watch may be silent for minutes. A peer that is gone without a word is noticed after 60 s."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not on every system
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _error(response: httpx2.Response) -> ApiError:
    where = f"{response.request.method} {response.url.path}"
    return error_in(response.status_code, response.content, response.headers.get("retry-after", ""), where)
