"""
Reported values as the edge sends them, checked: what a hub believes of a node's JSON.

The sender is a peer, and what it says goes into an object of the cluster: every length, type and character is looked
at here, before anybody keeps it.

Pure state: no clock, no I/O.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.devices import NODE_INFO_FIELD, PROPERTY_FIELD, STATE_FIELD, PropertyReport
from apimachinery.keys import ObjectKey
from apimachinery.kubeevents import EVENT_FIELD, KubeEvent
from apimachinery.objects import JSON
from apimachinery.resources import DEVICES, EVENTS, NODES
from cloudhub.devices import StateReport
from link.frames import ReportEntry

MAX_PROPERTY_BYTES = 200 << 10  # of one: a value and a desired one of 16 KiB, each six times that as JSON may write
MAX_OTHER_BYTES = 64 << 10  # of one Event, state or nodeInfo, which has 1 to 4 KiB
MAX_TEXT_CHARACTERS = 256
MAX_NODE_ENTRIES = 64


class NodeReport(NamedTuple):
    """What an edge reports of its machine; the fields of a Node's status by these names."""

    node_info: Mapping[str, str]
    addresses: tuple[tuple[str, str], ...]
    """Type and address, for example ("InternalIP", "192.0.2.7")."""
    capacity: Mapping[str, str]


Value = PropertyReport | StateReport | NodeReport | KubeEvent


def parse(entry: ReportEntry) -> Value:
    """The value of a report. Raises ValueError with what is wrong; the sender is a peer, so all of it is checked."""
    most = MAX_PROPERTY_BYTES if entry.field.startswith(PROPERTY_FIELD) else MAX_OTHER_BYTES
    if len(entry.value) > most:
        raise ValueError(f"the value has {len(entry.value)} bytes of JSON, and at most {most} are read")
    try:
        text = entry.value.decode()
        value = json.loads(text)
        if "\\u" in text:  # an escape can still make half a surrogate pair, which no request to an apiserver can carry
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("the value is not JSON: it has half a surrogate pair") from None
    except (ValueError, RecursionError):
        raise ValueError("the value is not JSON") from None
    collection = entry.key.resource.collection
    if collection == DEVICES.collection and entry.field.startswith(PROPERTY_FIELD):
        return PropertyReport.from_json(value)
    if collection == DEVICES.collection and entry.field == STATE_FIELD:
        return _state(value)
    if collection == NODES.collection and entry.field == NODE_INFO_FIELD:
        return _node_report(value)
    if entry.key.resource == EVENTS and entry.field == EVENT_FIELD:
        event = KubeEvent.from_json(value)
        if event.key != entry.key:
            raise ValueError(f"the Event is {path_of(event.key)}, not what its report says")
        return event
    raise ValueError(f'{collection} has no field "{entry.field}" to report')


def path_of(key: ObjectKey) -> str:
    """Namespace and name, as an Event is told apart from others of its node."""
    return f"{key.namespace}/{key.name}"


def _state(value: JSON) -> StateReport:
    if not isinstance(value, dict):
        raise ValueError("a state must be an object")  # noqa: TRY004 - the caller refuses on ValueError
    texts = {name: _text(name, value.get(name) or "") for name in ("lastOnlineTime", "problem")}
    return StateReport(_text("state", value.get("state")), texts["lastOnlineTime"], texts["problem"])


def _node_report(value: JSON) -> NodeReport:
    if not isinstance(value, dict):
        raise ValueError("nodeInfo must be an object")  # noqa: TRY004
    addresses = value.get("addresses", [])
    if not isinstance(addresses, list) or len(addresses) > MAX_NODE_ENTRIES:
        raise ValueError(f"addresses must be a list of at most {MAX_NODE_ENTRIES}")
    pairs = tuple(tuple(sorted(_texts("an address", entry).items())) for entry in addresses)
    if not all([name for name, _ in pair] == ["address", "type"] for pair in pairs):
        raise ValueError("an address has a type and an address")
    return NodeReport(
        _texts("nodeInfo", value.get("nodeInfo", {})),
        tuple((pair[1][1], pair[0][1]) for pair in pairs),
        _texts("capacity", value.get("capacity", {})),
    )


def _texts(what: str, value: JSON) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_NODE_ENTRIES:
        raise ValueError(f"{what} must be an object of at most {MAX_NODE_ENTRIES} fields")
    return {name: _text(f"{what}.{name}", text) for name, text in value.items()}


def _text(what: str, value: JSON) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"{what} must be a string of at most {MAX_TEXT_CHARACTERS} characters")
    return value
