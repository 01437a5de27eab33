"""
What a property's `pushMethod` says: where its samples go besides the twin, read and checked.

A place is a server with a way to talk to it, and is shared by all properties that name it; a target is a place and what
is written there for one property. Credentials are not in the CRD, and so not here.

Invariants
    places compare equal exactly if one connection can serve both
    what makes no sense, or is not supported, is a sentence for the user; the property is served all the same

Pure.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

DEFAULT_TIMEOUT_S = 10.0
LONGEST_TIMEOUT_S = 60.0
T = TypeVar("T", str, int, bool)


class HttpPlace(NamedTuple):
    """`form` is KubeEdge's push, one POST a sample; `influx` InfluxDB's line protocol; `otlp` OpenTelemetry's JSON."""

    format: str
    url: str
    timeout_s: float = DEFAULT_TIMEOUT_S


class MqttPlace(NamedTuple):
    url: str
    """mqtt:// or mqtts://."""


class RedisPlace(NamedTuple):
    address: str
    """HOST:PORT."""
    db: int


class MysqlPlace(NamedTuple):
    address: str
    """HOST[:PORT]."""
    database: str
    user: str


Place = HttpPlace | MqttPlace | RedisPlace | MysqlPlace


class Target(NamedTuple):
    """Where one property's samples go."""

    place: Place
    topic: str = ""
    """mqtt only, as are the next two."""
    qos: int = 0
    retained: bool = False
    measurement: str = ""
    """influx only, as are the next two; "" for the device's name."""
    field: str = ""
    """"" for the property's name."""
    tags: tuple[tuple[str, str], ...] = ()


class Reading(NamedTuple):
    """The targets, and a sentence for each thing that was left out."""

    targets: tuple[Target, ...]
    problems: tuple[str, ...]


def read_push_method(method: Mapping[str, object]) -> Reading:
    """All that a `pushMethod` names; several at once are served all. `anomalyDetection` is the driver's own affair."""
    targets: list[Target] = []
    problems: list[str] = []
    database = method.get("dbMethod")
    for name, value in (*method.items(), *(database.items() if isinstance(database, Mapping) else ())):
        if name in ("dbMethod", "anomalyDetection") or value is None:
            continue
        read = _READERS.get(name)
        try:
            if read is None:
                raise ValueError("is not supported here" if name == "TDEngine" else "is not known")
            if not isinstance(value, Mapping):
                raise TypeError("must be an object")
            targets.append(read(value))
        except (TypeError, ValueError) as exc:
            problems.append(f"pushMethod.{name}: {exc}")
    return Reading(tuple(targets), tuple(problems))


def _http(value: Mapping[str, object]) -> Target:
    host = _get(value, "hostName", "")
    if not host:
        raise ValueError("hostName is missing")
    base = host if "://" in host else f"http://{host}"  # KubeEdge's examples have it there
    port, path = _get(value, "port", 0), _get(value, "requestPath", "")
    if not 0 <= port <= 65535:
        raise ValueError("port must be 0 to 65535")
    url = f"{base.rstrip('/')}{f':{port}' if port else ''}/{path.lstrip('/')}"
    # KubeEdge has the timeout in the CRD, in no unit, and does not use it: milliseconds, as the cycles beside it.
    timeout_s = _get(value, "timeout", 0) / 1000 or DEFAULT_TIMEOUT_S
    return Target(HttpPlace("form", _checked(url), min(max(timeout_s, 0.1), LONGEST_TIMEOUT_S)))


def _mqtt(value: Mapping[str, object]) -> Target:
    address, topic, qos = _get(value, "address", ""), _get(value, "topic", ""), _get(value, "qos", 0)
    if not address or not topic:
        raise ValueError("address and topic are needed")
    _check_no_credentials(address)
    if "+" in topic or "#" in topic or topic.startswith("$hw/"):
        raise ValueError(f'"{topic}" cannot be published to: no wildcards, and $hw/ is the edge\'s')
    if qos not in (0, 1, 2):
        raise ValueError("qos must be 0, 1 or 2")
    scheme, separator, rest = address.partition("://")
    schemes = {"tcp": "mqtt", "mqtt": "mqtt", "ssl": "mqtts", "tls": "mqtts", "mqtts": "mqtts"}
    if separator and scheme not in schemes:
        raise ValueError(f'"{address}" is not tcp://HOST:PORT or ssl://HOST:PORT')
    url = f"{schemes[scheme]}://{rest}" if separator else f"mqtt://{address}"
    return Target(MqttPlace(url), topic=topic, qos=qos, retained=_get(value, "retained", False))


def _otel(value: Mapping[str, object]) -> Target:
    url = _checked(_get(value, "endpointURL", ""))
    # The endpoint of a collector, or the address itself; the specification lets one append to the first only.
    return Target(HttpPlace("otlp", url if urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1/metrics"))


def _influx(value: Mapping[str, object]) -> Target:
    client = _part(value, "influxdb2ClientConfig")
    written = _part(value, "influxdb2DataConfig")
    bucket = _get(client, "bucket", "")
    if not bucket:
        raise ValueError("influxdb2ClientConfig.bucket is missing")
    query = f"org={quote(_get(client, 'org', ''), safe='')}&bucket={quote(bucket, safe='')}&precision=ms"
    url = f"{_checked(_get(client, 'url', '')).rstrip('/')}/api/v2/write?{query}"
    tags = _part(written, "tag")
    if not all(isinstance(each, str) for each in tags.values()):
        raise ValueError("influxdb2DataConfig.tag must have texts as values")
    return Target(
        HttpPlace("influx", url),
        measurement=_get(written, "measurement", ""),
        field=_get(written, "fieldKey", ""),
        tags=tuple(sorted((key, str(text)) for key, text in tags.items() if key and text)),
    )


def _redis(value: Mapping[str, object]) -> Target:
    client = _part(value, "redisClientConfig")
    address, db = _get(client, "addr", ""), _get(client, "db", 0)
    if not address or db < 0:
        raise ValueError("redisClientConfig.addr is missing, or db less than 0")
    _check_no_credentials(address)
    return Target(RedisPlace(address, db))


def _mysql(value: Mapping[str, object]) -> Target:
    client = _part(value, "mysqlClientConfig")
    address, database = _get(client, "addr", ""), _get(client, "database", "")
    user = _get(client, "userName", "")
    if not address or not database or not user:
        raise ValueError("mysqlClientConfig needs addr, database and userName")
    _check_no_credentials(address)
    return Target(MysqlPlace(address, database, user))


_READERS: Mapping[str, Callable[[Mapping[str, object]], Target]] = {
    "http": _http,
    "mqtt": _mqtt,
    "otel": _otel,
    "influxdb2": _influx,
    "redis": _redis,
    "mysql": _mysql,
}


def _get(value: Mapping[str, object], name: str, default: T) -> T:
    found = value.get(name)
    if found is None:
        return default
    if type(found) is not type(default):
        kinds = {str: "a text", int: "a whole number", bool: "true or false"}
        raise ValueError(f"{name} must be {kinds[type(default)]}")
    return found


def _part(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = value.get(name) or {}
    if not isinstance(part, Mapping):
        raise TypeError(f"{name} must be an object")
    return part


def _check_no_credentials(address: str) -> None:
    if "@" in address:
        raise ValueError("credentials do not belong into a Device, which everybody may read")


def _checked(url: str) -> str:
    _check_no_credentials(url.partition("?")[0])
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(each <= " " for each in url):
        raise ValueError(f'"{url}" is not http://HOST or https://HOST')
    _ = parts.port  # raises ValueError for one that is none
    return url
