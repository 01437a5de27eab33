"""
The columns of the built-in kinds, as kube-apiserver's printers show them.

Kinds without an entry show name and age.

Invariants
    a body of whatever shape gets its cells: what is missing or wrong shows as <none> or <unknown>

Pure: the time is an argument. After kubernetes/pkg/printers/internalversion.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from apimachinery.objects import JSON, lookup
from apiserver.definitions import Column

Cells = Callable[[Mapping[str, JSON], float], list[JSON]]
"""(body, now in seconds since 1970) to one row's cells."""

NONE = "<none>"
UNKNOWN = "<unknown>"

NAME = Column("Name", "string", ".metadata.name", "Name must be unique within a namespace.", format="name")
AGE = Column("Age", "date", ".metadata.creationTimestamp", "Time since the object was created.")

_STEPS = ((1, "s"), (60, "m"), (3600, "h"), (86400, "d"), (365 * 86400, "y"))


class Layout(NamedTuple):
    """What a table of one kind looks like."""

    columns: Sequence[Column]
    cells: Cells


def duration(seconds: float) -> str:
    """
    A time span as kubectl writes it: 45s, 3m5s, 15m, 4h2m, 30h, 3d4h, 20d, 2y50d, 9y.

    The smaller unit is shown only while it matters, which is where the limits below are.
    """
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    whole = max(whole, 0)
    for limit, unit, with_rest in (
        (120, 0, False),
        (600, 1, True),
        (3 * 3600, 1, False),
        (8 * 3600, 2, True),
        (48 * 3600, 2, False),
        (8 * 86400, 3, True),
        (2 * 365 * 86400, 3, False),
        (8 * 365 * 86400, 4, True),
    ):
        if whole < limit:
            return _span(whole, unit, with_rest=with_rest)
    return _span(whole, 4, with_rest=False)


def _span(whole: int, unit: int, *, with_rest: bool) -> str:
    size, letter = _STEPS[unit]
    text = f"{whole // size}{letter}"
    if with_rest:
        rest_size, rest_letter = _STEPS[unit - 1]
        rest = whole % size // rest_size
        text += f"{rest}{rest_letter}" if rest else ""
    return text


def age(timestamp: JSON, now: float) -> str:
    """How long ago an RFC 3339 timestamp was."""
    try:
        then = datetime.fromisoformat(timestamp).timestamp()
    except (TypeError, ValueError, OverflowError):
        return UNKNOWN
    return duration(now - then)


def name_of(body: Mapping[str, JSON]) -> JSON:
    return lookup(body, "metadata.name") or ""


def _age(body: Mapping[str, JSON], now: float) -> str:
    return age(lookup(body, "metadata.creationTimestamp"), now)


def _items(body: Mapping[str, JSON], path: str) -> list[Mapping[str, JSON]]:
    value = lookup(body, path)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _count(body: Mapping[str, JSON], *fields: str) -> int:
    return sum(len(value) for field in fields if isinstance(value := body.get(field), Mapping | list))


def _text(body: Mapping[str, JSON], path: str, missing: str = NONE) -> str:
    value = lookup(body, path)
    return missing if value in (None, "") else str(value)


def _node(body: Mapping[str, JSON], now: float) -> list[JSON]:
    ready = next((item for item in _items(body, "status.conditions") if item.get("type") == "Ready"), None)
    status = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    if lookup(body, "spec.unschedulable") is True:
        status += ",SchedulingDisabled"
    labels = lookup(body, "metadata.labels")
    prefix = "node-role.kubernetes.io/"
    roles = (
        sorted(key[len(prefix) :] for key in labels if key.startswith(prefix)) if isinstance(labels, Mapping) else []
    )
    addresses = {item.get("type"): item.get("address") for item in reversed(_items(body, "status.addresses"))}
    return [
        name_of(body),
        status,
        ",".join(filter(None, roles)) or NONE,
        _age(body, now),
        _text(body, "status.nodeInfo.kubeletVersion", ""),
        addresses.get("InternalIP") or NONE,
        addresses.get("ExternalIP") or NONE,
        _text(body, "status.nodeInfo.osImage", UNKNOWN),
        _text(body, "status.nodeInfo.kernelVersion", UNKNOWN),
        _text(body, "status.nodeInfo.containerRuntimeVersion", UNKNOWN),
    ]


def _pod(body: Mapping[str, JSON], now: float) -> list[JSON]:
    statuses = _items(body, "status.containerStatuses")
    ready = sum(1 for item in statuses if item.get("ready") is True)
    restarts = sum(count for item in statuses if isinstance(count := item.get("restartCount"), int))
    return [
        name_of(body),
        f"{ready}/{len(_items(body, 'spec.containers'))}",
        _pod_status(body, statuses),
        str(restarts),
        _age(body, now),
        _text(body, "status.podIP"),
        _text(body, "spec.nodeName"),
        _text(body, "status.nominatedNodeName"),
        NONE,
    ]


def _pod_status(body: Mapping[str, JSON], statuses: Sequence[Mapping[str, JSON]]) -> str:
    if lookup(body, "metadata.deletionTimestamp"):
        return "Terminating"
    for item in statuses:
        for state in ("waiting", "terminated"):
            if reason := lookup(item, f"state.{state}.reason"):
                return str(reason)
    return _text(body, "status.reason", "") or _text(body, "status.phase", UNKNOWN)


def _service(body: Mapping[str, JSON], now: float) -> list[JSON]:
    ports = []
    for item in _items(body, "spec.ports"):
        node_port = f":{item['nodePort']}" if item.get("nodePort") else ""
        ports.append(f"{item.get('port')}{node_port}/{item.get('protocol') or 'TCP'}")
    selector = lookup(body, "spec.selector")
    pairs = sorted(f"{key}={value}" for key, value in selector.items()) if isinstance(selector, Mapping) else []
    return [
        name_of(body),
        _text(body, "spec.type", "ClusterIP"),
        _text(body, "spec.clusterIP"),
        _text(body, "spec.externalName"),
        ",".join(ports) or NONE,
        _age(body, now),
        ",".join(pairs) or NONE,
    ]


def _event(body: Mapping[str, JSON], now: float) -> list[JSON]:
    involved = f"{_text(body, 'involvedObject.kind', '').lower()}/{_text(body, 'involvedObject.name', '')}"
    seen = lookup(body, "lastTimestamp") or lookup(body, "eventTime") or lookup(body, "metadata.creationTimestamp")
    first = lookup(body, "firstTimestamp") or lookup(body, "eventTime")
    return [
        age(seen, now),
        _text(body, "type", ""),
        _text(body, "reason", ""),
        involved,
        _text(body, "message", "").strip(),
        _text(body, "source.component", "") or _text(body, "reportingComponent", ""),
        age(first, now),
        _text(body, "count", "1"),
        name_of(body),
    ]


def _signing_request(body: Mapping[str, JSON], now: float) -> list[JSON]:
    wanted = lookup(body, "spec.expirationSeconds")
    types = {item.get("type") for item in _items(body, "status.conditions")}
    condition = next((each for each in ("Denied", "Approved") if each in types), "Pending")
    condition += ",Failed" if "Failed" in types else ""
    condition += ",Issued" if lookup(body, "status.certificate") else ""
    return [
        name_of(body),
        _age(body, now),
        _text(body, "spec.signerName"),
        _text(body, "spec.username", ""),
        duration(wanted) if isinstance(wanted, int) else NONE,
        condition,
    ]


def _columns(text: str) -> tuple[Column, ...]:
    """Columns from their names, parted by commas; those after a bar show only with -o wide."""
    shown, _, wide = text.partition("|")
    return tuple(
        NAME if name == "Name" else Column(name, "string", "", priority=priority)
        for priority, names in enumerate((shown, wide))
        for name in filter(None, names.split(","))
    )


BUILT_IN: Mapping[tuple[str, str], Layout] = {
    ("", "nodes"): Layout(
        _columns("Name,Status,Roles,Age,Version|Internal-IP,External-IP,OS-Image,Kernel-Version,Container-Runtime"),
        _node,
    ),
    ("", "pods"): Layout(_columns("Name,Ready,Status,Restarts,Age|IP,Node,Nominated Node,Readiness Gates"), _pod),
    ("", "services"): Layout(_columns("Name,Type,Cluster-IP,External-IP,Port(s),Age|Selector"), _service),
    ("", "events"): Layout(_columns("Last Seen,Type,Reason,Object,Message|Source,First Seen,Count,Name"), _event),
    ("", "configmaps"): Layout(
        _columns("Name,Data,Age"),
        lambda body, now: [name_of(body), _count(body, "data", "binaryData"), _age(body, now)],
    ),
    ("", "secrets"): Layout(
        _columns("Name,Type,Data,Age"),
        lambda body, now: [name_of(body), _text(body, "type", "Opaque"), _count(body, "data"), _age(body, now)],
    ),
    ("", "serviceaccounts"): Layout(
        _columns("Name,Secrets,Age"), lambda body, now: [name_of(body), _count(body, "secrets"), _age(body, now)]
    ),
    ("", "namespaces"): Layout(
        _columns("Name,Status,Age"),
        lambda body, now: [name_of(body), _text(body, "status.phase", "Active"), _age(body, now)],
    ),
    ("coordination.k8s.io", "leases"): Layout(
        _columns("Name,Holder,Age"),
        lambda body, now: [name_of(body), _text(body, "spec.holderIdentity", ""), _age(body, now)],
    ),
    ("certificates.k8s.io", "certificatesigningrequests"): Layout(
        _columns("Name,Age,SignerName,Requestor,RequestedDuration,Condition"), _signing_request
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"): Layout(
        _columns("Name,Created At"),
        lambda body, now: [name_of(body), _text(body, "metadata.creationTimestamp", UNKNOWN)],
    ),
}
