"""
The driver `http`: devices that answer HTTP with JSON or text. Its requests go through mappers/webclient.py.

Settings (`protocol.configData`)
    url                     where the device is: http://HOST[:PORT][/PATH], or https
    username, password      for basic authentication; passwordFile: a file of the secrets directory instead
    token                   for bearer authentication; tokenFile likewise
    headers                 a map of further headers
    caFile                  the CA to verify an https device with, instead of the system's; verified it is always
    timeout                 seconds for one request; 5
    maxBytes                how long an answer may be; 65536
and anything that a template names.

Settings of a property (`visitors.configData`)
    url                     where to GET it, a path on the device; several properties of one URL are one request
    pointer, format, values, timePointer    where in the answer it is, and what it means there: mappers/payloads.py
    write                   how to set it, as "PUT /PATH": PUT, POST or PATCH, or GET for devices that are so made
    body, contentType       what to send; {json} and application/json

A property that has `write`, but nothing to read it by, reports what was last written, and nothing before.

Invariants
    neither credentials nor bodies are ever in a log, nor in an error
    a request goes to the device's origin only, whatever the settings of a property or the device itself say
"""

import asyncio
import functools
import re
import ssl
from collections import defaultdict
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from apimachinery.objects import JSON
from componentbase import tcp
from mappers.credentials import Account, Secret, Unusable, basic, bearer, tls_context
from mappers.driver import CALL_TIMEOUT_S, Device, DeviceSilent, Reading, Value, WriteRefused
from mappers.faults import Faults
from mappers.payloads import Codec, Names, Template, document, plain, template, template_names
from mappers.settings import Settings, shown
from mappers.webclient import Answer, Origin, Request, WebClient, WebError, target_of

TIMEOUT_S = 5.0
MAX_BYTES = 64 * 1024
MOST_BYTES = 1024 * 1024
READ_BY = ("url", "pointer", "format", "timePointer")
"""A property that has none of these, but `write`, is not read."""
_WRITE = re.compile(r"(PUT|POST|PATCH|GET) (\S.*)")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_OUR_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})

Headers = tuple[tuple[str, str], ...]


class Point(NamedTuple):
    """One property: how to read and how to write it."""

    codec: Codec
    target: str | None
    """What to GET; None for a property that cannot be read."""
    write: "Write | None"


class Write(NamedTuple):
    """How to set a property."""

    method: str
    url: Template
    body: Template
    content_type: str


class Http:
    """One device that speaks HTTP."""

    def __init__(self, device: Device) -> None:
        settings = Settings.of_device(device)
        self._url = settings.text("url")
        try:
            self._origin = Origin.of(self._url)
        except ValueError as exc:
            raise settings.bad("url", str(exc)) from None
        self._headers = _headers(settings)
        self._account, self._token = Account.read(settings), Secret(settings, "token")
        if self._account.username and self._token:
            raise settings.bad("token", "and username are there: a request has one Authorization")
        if ":" in self._account.username:
            raise settings.bad("username", 'must be without ":" (RFC 7617)')
        self._ca_file = settings.text("caFile", "")
        if self._ca_file and self._origin.scheme != "https":
            raise settings.bad("caFile", "is for https, and the url is http")
        self._timeout_s = settings.number("timeout", TIMEOUT_S, minimum=0.05, maximum=CALL_TIMEOUT_S - 1)
        self._max_bytes = settings.whole("maxBytes", MAX_BYTES, minimum=1, maximum=MOST_BYTES)
        self._points = {name: self._point(device, name) for name in device.properties}
        self._faults = Faults(device.id, [name for name, each in self._points.items() if each.target is not None])
        self._written: dict[str, Reading] = {}
        self._client: WebClient | None = None
        self._secret_headers: Headers = ()

    async def connect(self) -> None:
        """Read the files that are named. The device is reached by the first request."""
        try:
            tls = tls_context(self._ca_file) if self._origin.scheme == "https" else None
            self._secret_headers = self._headers
            if self._account.username:
                self._secret_headers += (basic(self._account),)
            elif self._token:
                self._secret_headers += (bearer(self._token),)
        except Unusable as exc:
            raise DeviceSilent(str(exc)) from exc
        self._client = WebClient(self._origin, tls, self._max_bytes)

    async def read(self, names: Collection[str]) -> Mapping[str, Reading]:
        """One GET for each URL among these properties."""
        by_target: dict[str, list[str]] = defaultdict(list)
        readings: dict[str, Reading] = {}
        for name in names:
            if (target := self._points[name].target) is not None:
                by_target[target].append(name)
            elif name in self._written:
                readings[name] = self._written[name]
        for target, group in by_target.items():
            try:
                answer = _successful(await self._ask(Request("GET", target, self._secret_headers)))
            except WebError as exc:
                for name in group:
                    self._faults.found(name, f"GET {_path(target)}: {exc}")
            else:
                readings |= self._readings(group, answer.body)
        if (silence := self._faults.silence()) is not None:
            raise silence
        return readings

    async def write(self, name: str, value: Value) -> None:
        """One request, as the property's `write` says."""
        point = self._points[name]
        if point.write is None:
            raise WriteRefused(f"{name}: visitors.configData.write does not say how to set it")
        try:
            word = point.codec.to_device(value)
            target = target_of(point.write.url.text(word, functools.partial(quote, safe="")))
            body = b"" if point.write.method == "GET" else point.write.body.text(word).encode()
        except ValueError as exc:
            raise WriteRefused(f"{name}: {exc}") from None
        headers = self._secret_headers
        if point.write.method != "GET":
            headers = (*headers, ("Content-Type", point.write.content_type))
        try:
            request = Request(point.write.method, target, headers, body, is_repeatable=False)
            _successful(await self._ask(request))
        except WebError as exc:
            raise WriteRefused(f"{name}: {point.write.method} {_path(target)}: {exc}") from exc
        if point.target is None:
            self._written[name] = Reading(value)

    async def close(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _ask(self, request: Request) -> Answer:
        assert self._client is not None, "connect() comes before read() and write()"
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.ask(request)
        except TimeoutError as exc:
            raise DeviceSilent(f"{self._origin} does not answer within {self._timeout_s:g} s") from exc
        except ssl.SSLCertVerificationError as exc:
            raise DeviceSilent(
                f"{self._origin}: its certificate is not trusted ({exc.verify_message}): "
                "name the CA that issued it in protocol.configData.caFile"
            ) from exc
        except OSError as exc:
            raise DeviceSilent(f"{self._origin}: {tcp.why(exc) or type(exc).__name__}") from exc
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            # Not repeated each second: some devices lock out whoever is wrong too often.
            raise DeviceSilent(
                f"{self._origin} answers {_status(answer)} to {request.method} {_path(request.target)}: "
                f"look at {self._where_credentials()}"
            )
        return answer

    def _where_credentials(self) -> str:
        if self._account.username:
            return self._account.where()
        return self._token.setting if self._token else "username and password, or token: there are none"

    def _readings(self, names: list[str], body: bytes) -> dict[str, Reading]:
        said: JSON = None
        why_not_json = ""
        if any(self._points[name].codec.is_json for name in names):
            try:
                said = document(body)
            except ValueError as exc:
                why_not_json = f"the answer cannot be used: {exc}"
        readings: dict[str, Reading] = {}
        for name in names:
            codec = self._points[name].codec
            try:
                if codec.is_json and why_not_json:
                    raise ValueError(why_not_json)
                reading = codec.reading(said if codec.is_json else body.decode(errors="replace").strip())
            except ValueError as exc:
                self._faults.found(name, str(exc))
                continue
            self._faults.over(name)
            if reading is not None:
                readings[name] = reading
        return readings

    def _point(self, device: Device, name: str) -> Point:
        settings = Settings.of_property(device, name)
        names = template_names(device, name)
        is_read = "write" not in settings or any(each in settings for each in READ_BY)
        codec = Codec(device.properties[name].model.type, settings)
        target = self._on_device(settings, "url", settings.text("url", ""), names, with_value=False).text()
        point = Point(codec, target_of(target) if is_read else None, self._write(settings, names))
        if point.write is None and device.properties[name].model.writable:
            raise settings.bad("write", 'is missing, as in "PUT /PATH"; else the model must say ReadOnly')
        settings.done()
        return point

    def _write(self, settings: Settings, names: Names) -> Write | None:
        body, content_type = settings.text("body", "{json}"), settings.text("contentType", "application/json")
        if "write" not in settings:
            return None
        match = _WRITE.fullmatch(settings.text("write"))
        if match is None:
            raise settings.bad("write", 'must be PUT, POST, PATCH or GET and a path, as in "PUT /lamp/state"')
        if not _HEADER_VALUE.fullmatch(content_type):
            raise settings.bad("contentType", "must be a media type such as application/json")
        url = self._on_device(settings, "write", match[2], names, with_value=True)
        if match[1] == "GET" and not url.has_value:
            raise settings.bad("write", "is a GET, so {value} must stand in its path")
        return Write(match[1], url, template(settings, "body", body, names, with_value=True), content_type)

    def _on_device(self, settings: Settings, name: str, path: str, names: Names, *, with_value: bool) -> Template:
        """The whole URL for a path on the device. Raises BadConfig when it is not on the device."""
        url = template(settings, name, urljoin(self._url, path), names, with_value=with_value)
        try:
            is_here = Origin.of(url.text()) == self._origin
        except ValueError:
            is_here = False
        if not is_here:
            raise settings.bad(name, f"must be a path on {self._origin}")
        return url


def _headers(settings: Settings) -> Headers:
    headers: list[tuple[str, str]] = []
    for name, value in settings.scalars("headers").items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(plain(value)):
            raise settings.bad("headers", f'has "{shown(name)}", which is no header')
        if name.lower() in _OUR_HEADERS:
            raise settings.bad("headers", f"has {name}, which the driver sets itself")
        headers.append((name, plain(value)))
    return tuple(headers)


def _successful(answer: Answer) -> Answer:
    if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        raise WebError(f"the device answers {_status(answer)}")
    return answer


def _status(answer: Answer) -> str:
    return f"{answer.status} {shown(answer.reason)}".strip()


def _path(target: str) -> str:
    """Without the query, where devices of a simple kind want their passwords."""
    return urlsplit(target).path
