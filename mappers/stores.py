"""
The places samples go to, over HTTP and MQTT; databases with a client of their own have a module each.

Errors a store raises
    OSError         it is away: the same points are tried again later
    PointsRefused   it will never take these points: they are dropped, and the reason is told

HTTP is http.client in a thread that nobody waits for (componentbase/aside.py): InfluxDB's client would bring four
packages and their memory for one POST, OpenTelemetry's ten. What a mapper does at most is a few requests a second.
Whom to trust is the system's choice, or SSL_CERT_FILE's.
"""

import http.client
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from componentbase.aside import aside
from componentbase.brokers import BrokerAddress
from mappers.mqtt import Connection, Message, MqttError, connect
from mappers.points import Point, PointsRefused, encode_form, encode_json, encode_lines, encode_otlp
from mappers.pushmethod import HttpPlace, MqttPlace, MysqlPlace, Place, RedisPlace

MAX_ANSWER_BYTES = 4096
_TEMPORARY = (401, 403, 404, 408, 425, 429)  # a person mends the rights or the address, and what waited is written then


class Store(Protocol):
    """One open place."""

    async def write(self, points: Sequence[Point]) -> None:
        """Write them all. Raises OSError or PointsRefused; then some may be written, and are written again."""
        ...


@asynccontextmanager
async def open_store(place: Place, client_id: str) -> AsyncIterator[Store]:
    """
    The place, to be written to until the end of the block. Raises OSError, and ValueError for one that cannot be.

    client_id: for MQTT, unique on any broker.
    """
    async with AsyncExitStack() as stack:
        match place:
            case HttpPlace():
                client = HttpStore(place)
                stack.callback(client.close)
                yield client
            case MqttPlace(url):
                address = BrokerAddress.parse(url)
                if user := credential("MQTT", "USERNAME"):
                    address = replace(address, username=user, password=credential("MQTT", "PASSWORD"))
                try:
                    yield MqttStore(await stack.enter_async_context(connect(address, client_id, None)))
                except MqttError as exc:
                    raise ConnectionError(str(exc)) from exc
            case RedisPlace():
                from mappers.redisstore import RedisStore

                redis = RedisStore(place, credential("REDIS", "USERNAME"), credential("REDIS", "PASSWORD"))
                stack.callback(redis.close)
                yield redis
            case MysqlPlace():
                from mappers.mysqlstore import MysqlStore

                mysql = MysqlStore(place, credential("MYSQL", "PASSWORD"))
                stack.callback(mysql.close)
                yield mysql


def credential(place: str, kind: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """
    What the environment says: PLACE_KIND, or the first line of the file PLACE_KIND_FILE; else KIND, which is what
    KubeEdge's mappers read, or KIND_FILE. Raises OSError for a file that cannot be read.
    """
    for name in (f"{place}_{kind}", kind):
        if text := environment.get(name):
            return text
        if path := environment.get(f"{name}_FILE"):
            return Path(path).read_text().partition("\n")[0].strip()
    return None


class HttpStore:
    """Three formats over one kept connection."""

    def __init__(self, place: HttpPlace) -> None:
        self._place = place
        self._connection: http.client.HTTPConnection | None = None
        self._headers = _headers(place.format)

    async def write(self, points: Sequence[Point]) -> None:
        encoders: Mapping[str, Callable[[Sequence[Point]], list[bytes]]] = {
            "form": lambda each: [encode_form(point) for point in each],
            "influx": lambda each: [encode_lines(each)],
            "otlp": lambda each: [encode_otlp(each)],
        }
        bodies = encoders[self._place.format](points)
        await aside(lambda: self._post(bodies), f"push[{urlsplit(self._place.url).netloc}]")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _post(self, bodies: Sequence[bytes]) -> None:
        parts = urlsplit(self._place.url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        for body in bodies:
            reused = self._connection is not None
            try:
                self._post_one(target, body)
            except (http.client.HTTPException, ConnectionError) as exc:
                # A server may close a kept connection at any time; that is no outage.
                self.close()
                if not reused:
                    raise ConnectionError(str(exc) or type(exc).__name__) from exc
                try:
                    self._post_one(target, body)
                except http.client.HTTPException as again:
                    self.close()
                    raise ConnectionError(str(again) or type(again).__name__) from again
            except OSError:
                self.close()
                raise

    def _post_one(self, target: str, body: bytes) -> None:
        if self._connection is None:
            self._connection = self._made()
        self._connection.request("POST", target, body, self._headers)
        answer = self._connection.getresponse()
        text = answer.read(MAX_ANSWER_BYTES + 1)
        if len(text) > MAX_ANSWER_BYTES or answer.will_close:
            self.close()
        if 200 <= answer.status < 300:
            return
        reason = f"HTTP {answer.status} {' '.join(text[:200].decode('utf-8', 'replace').split())}"
        if 400 <= answer.status < 500 and answer.status not in _TEMPORARY:
            raise PointsRefused(reason)
        self.close()
        raise ConnectionError(reason)  # 5xx, and redirects, which would take the credentials elsewhere

    def _made(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._place.url)
        assert parts.hostname, "read_push_method checked it"
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=self._place.timeout_s, context=context
            )
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=self._place.timeout_s)


def _headers(form: str) -> dict[str, str]:
    match form:
        case "form":
            return {"Content-Type": "application/x-www-form-urlencoded"}
        case "influx":
            headers = {"Content-Type": "text/plain; charset=utf-8"}
            if token := credential("INFLUXDB", "TOKEN"):
                headers["Authorization"] = f"Token {token}"
            return headers
        case _:
            # OTEL_EXPORTER_OTLP_HEADERS: key1=value1,key2=value2, as every OpenTelemetry exporter reads it.
            pairs = (each.partition("=") for each in os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(","))
            extra = {key.strip(): unquote(text.strip()) for key, _, text in pairs if key.strip()}
            return {"Content-Type": "application/json", **extra}


class MqttStore:
    """A broker: one JSON message a sample."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, points: Sequence[Point]) -> None:
        for point in points:
            target = point.target
            self._connection.publish(Message(target.topic, encode_json(point), target.retained), target.qos)
        await self._connection.confirmed()
