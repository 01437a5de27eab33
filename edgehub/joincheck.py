"""
`edgecore join --check`: what joining would meet with, step by step, before anything is changed.

Each step is one line that says what was found, and where it would fail, what to do. All steps are tried that can be,
so that whoever stands at the machine learns of the closed port of the link and of the full disk in one go. Nothing is
written here, and the hub, which is asked about token and name, notes nothing: the token is not used.

The token goes over a verified connection only, as it does when joining (edgehub.joinhub).
"""

import enum
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from apimachinery.keys import Node
from componentbase.endpoints import Endpoint
from componentbase.files import FilesError, check_private_dir
from componentbase.proxies import ProxyError
from componentbase.tls import client_context
from componentbase.words import rfc3339
from edgehub.join import asked_before, check_name, check_vacant
from edgehub.joinhub import CLOCK_SKEW_S, Busy, Hub, JoinError, Refused, pin_of


class Verdict(enum.StrEnum):
    """How a step went, as it is printed."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"
    UNTRIED = "-"


class Finding(NamedTuple):
    """One line."""

    step: str
    verdict: Verdict
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:<4}  {self.step:<11}  {self.text}"


def check(
    cloud: Endpoint, token: str, node: Node, data_dir: Path, *, replace: bool = False, timeout_s: float = 10.0
) -> Iterator[Finding]:
    """The findings, each as soon as it is there."""
    yield _tried("directory", lambda: _directory(data_dir, node, replace=replace))
    yield (form := _tried("token form", lambda: f"reads as a token, made for the CA {pin_of(token)[:16]}..."))
    yield _tried("name form", lambda: _name(node))
    hub = Hub(cloud, timeout_s)
    yield (resolved := _tried("resolution", lambda: _resolve(hub, cloud)))
    yield (port := _after(resolved, "port", lambda: _connect(hub, cloud)))
    shown: list[str] = []

    def fetched() -> str:
        shown.append(hub.fetch_ca(pin_of(token)))
        return "is the one the token was made for"

    yield (ca := _after(port if _is_good(form) else form, "CA", fetched))
    yield (trusted := _after(ca, "certificate", lambda: _verified(hub, shown[0], cloud)))
    yield _clock(hub) if _is_good(ca) else _untried("clock", ca)
    request = {"node": node, "token": token}
    if _is_good(form) and (csr := asked_before(data_dir, node, pin_of(token))):
        request["csr"] = csr
    yield from _asked(hub, cloud, shown[0] if shown else "", request, trusted, timeout_s)


def _asked(
    hub: Hub, cloud: Endpoint, ca_pem: str, request: dict[str, str], trusted: Finding, timeout_s: float
) -> Iterator[Finding]:
    """What the hub says of token and name, and whether its link is there."""
    if not _is_good(trusted):
        yield from (_untried(step, trusted) for step in ("token", "name", "link"))
        return
    try:
        found = hub.check(ca_pem, request)
    except Refused as exc:
        # By the status: what is wrong with the name is found out for a token that is right only.
        told = {404: _earlier, 409: _taken, 422: _misnamed}.get(exc.status, _busy if isinstance(exc, Busy) else _wrong)
        yield from told(str(exc))
        yield Finding("link", Verdict.UNTRIED, "not tried, for cloudcore tells its port to who may join")
        return
    except JoinError as exc:
        yield (failed := Finding("token", Verdict.FAIL, str(exc)))
        yield from (_untried(step, failed) for step in ("name", "link"))
        return
    yield Finding("token", Verdict.OK, f"is good for {request['node']} until {rfc3339(found.expires)}")
    yield Finding("name", Verdict.OK, "is free, or this token may replace who has it")
    if found.notice:
        yield Finding("approval", Verdict.WARN, found.notice)
    link = Endpoint(cloud.host, found.link_port)
    yield _tried("link", lambda: _linked(hub, link, ca_pem, timeout_s))


def _wrong(text: str) -> Iterator[Finding]:
    yield (failed := Finding("token", Verdict.FAIL, text))
    yield _untried("name", failed)


def _taken(text: str) -> Iterator[Finding]:
    yield Finding("token", Verdict.OK, "is good for names that are free")
    yield Finding("name", Verdict.FAIL, text)


def _misnamed(text: str) -> Iterator[Finding]:
    yield (failed := Finding("name", Verdict.FAIL, text))
    yield _untried("token", failed)


def _busy(text: str) -> Iterator[Finding]:
    yield Finding("token", Verdict.FAIL, f"{text}; check again then")
    yield Finding("name", Verdict.UNTRIED, "not asked")


def _earlier(_: str) -> Iterator[Finding]:
    yield Finding("token", Verdict.WARN, "this cloudcore is of an earlier release, which cannot be asked about tokens")
    yield Finding("name", Verdict.UNTRIED, "not asked")


# ---- the steps


def _directory(data_dir: Path, node: Node, *, replace: bool) -> str:
    check_private_dir(data_dir)
    check_vacant(data_dir, node, replace=replace)
    if not data_dir.exists():
        return f"{data_dir} can be made"
    return f"{data_dir} can be written, and {'what joined there is replaced' if replace else 'nobody has joined there'}"


def _name(node: Node) -> str:
    check_name(node)
    return f"{node} can be a node's, and fits a certificate"


def _resolve(hub: Hub, cloud: Endpoint) -> str:
    if (proxy := hub.proxy()) is not None:
        return f"{cloud.host} is left to the proxy {proxy.endpoint}"
    try:
        found = socket.getaddrinfo(cloud.host, cloud.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise hub.explained(exc) from exc
    return f"{cloud.host} is {', '.join(dict.fromkeys(str(address[0]) for *_, address in found))}"


def _connect(hub: Hub, cloud: Endpoint) -> str:
    try:
        hub.connected().close()
    except OSError as exc:
        raise hub.explained(exc) from exc
    return f"{cloud} takes connections{_way(hub, cloud)}"


def _way(hub: Hub, there: Endpoint) -> str:
    proxy = hub.proxy(there.port)
    return "" if proxy is None else f" through the proxy {proxy.endpoint}"


def _verified(hub: Hub, ca_pem: str, cloud: Endpoint) -> str:
    hub.verify(ca_pem)
    return f"is of this CA and valid for {cloud.host}"


def _clock(hub: Hub) -> Finding:
    """A clock that is off is no obstacle in itself; where it makes a certificate invalid, that step has said so."""
    off_s, way = abs(hub.ahead_s), "behind" if hub.ahead_s > 0 else "ahead of"
    said = f"says {rfc3339(datetime.now(UTC))}, {off_s:.0f} s {way} cloudcore's"
    if off_s <= CLOCK_SKEW_S:
        return Finding("clock", Verdict.OK, said)
    return Finding("clock", Verdict.WARN, f"{said}: set it, or certificates will be taken for not yet valid or expired")


def _linked(hub: Hub, link: Endpoint, ca_pem: str, timeout_s: float) -> str:
    """Without a certificate of ours the hub hangs up after this; that it is there and the right one is what we see."""
    context = client_context()
    context.load_verify_locations(cadata=ca_pem)
    try:
        with (
            hub.connected(link.port) as plain,
            context.wrap_socket(plain, server_hostname=link.host),
        ):
            pass
    except OSError as exc:
        raise JoinError(
            f"{link}: {_reason(exc, timeout_s)}; nodes need this port too: see firewalls, and cloudcore's --listen"
        ) from exc
    return f"{link} is there{_way(hub, link)}, with a certificate of this CA"


def _reason(exc: OSError, timeout_s: float) -> str:
    match exc:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not to be trusted ({exc.verify_message})"
        case ProxyError():
            return str(exc)
        case ConnectionRefusedError():
            return "nothing listens there"
        case TimeoutError():
            return f"no answer within {timeout_s:g} s"
        case _:
            return exc.strerror or str(exc)


# ---- lines


def _tried(step: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(step, Verdict.OK, attempt())
    except (JoinError, FilesError) as exc:
        return Finding(step, Verdict.FAIL, str(exc))


def _after(before: Finding, step: str, attempt: Callable[[], str]) -> Finding:
    return _tried(step, attempt) if _is_good(before) else _untried(step, before)


def _untried(step: str, before: Finding) -> Finding:
    return Finding(step, Verdict.UNTRIED, f"not tried, for the {before.step} comes first")


def _is_good(finding: Finding) -> bool:
    return finding.verdict in (Verdict.OK, Verdict.WARN)
