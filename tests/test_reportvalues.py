"""Reported values: what is believed of a node's JSON."""

import json
from typing import Any

import pytest

from apimachinery.devices import PropertyReport
from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES, NODES, PODS
from cloudhub.devices import StateReport
from cloudhub.reportvalues import NodeReport, parse, path_of
from link.frames import ReportEntry

LAMP = ObjectKey(DEVICES, "default", "lamp")
NODE = ObjectKey(NODES, "", "edge-1")


@pytest.mark.parametrize(
    ("key", "field", "value", "expected"),
    [
        (
            LAMP,
            "property/level",
            {"value": "1", "type": "int", "observedAt": 7, "desired": "2", "problem": "p"},
            PropertyReport("1", "int", 7, "2", "p"),
        ),
        (LAMP, "state", {"state": "online", "lastOnlineTime": "t"}, StateReport("online", "t")),
        (LAMP, "state", {"state": "offline", "lastOnlineTime": None}, StateReport("offline", "")),
        (
            NODE,
            "nodeInfo",
            {"nodeInfo": {"architecture": "arm64"}, "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
            NodeReport({"architecture": "arm64"}, (("InternalIP", "192.0.2.1"),), {}),
        ),
        (NODE, "nodeInfo", {"capacity": {"cpu": "4"}}, NodeReport({}, (), {"cpu": "4"})),
        (LAMP, "state", {"state": "\N{COLLISION SYMBOL}"}, StateReport("\N{COLLISION SYMBOL}", "")),
    ],
)
def test_values(key: ObjectKey, field: str, value: Any, expected: object) -> None:
    assert parse(ReportEntry(key, field, json.dumps(value).encode())) == expected


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        (LAMP, "property/level", b"\xff"),
        (LAMP, "property/level", b"[" * 100_000),
        (LAMP, "property/level", b"[]"),
        (LAMP, "property/level", b'{"value":1,"observedAt":1}'),
        (LAMP, "property/level", b'{"observedAt":true}'),
        (LAMP, "state", b'{"state":5}'),
        (LAMP, "state", b'{"state":"\\ud800"}'),
        (LAMP, "state", b'{"state":"\xed\xa0\x80"}'),
        (LAMP, "property/level", b'{"value":"1","type":"\\udc00","observedAt":1}'),
        (NODE, "nodeInfo", b'{"nodeInfo":{"osImage":"\\ud800"}}'),
        (LAMP, "state", b'{"lastOnlineTime":"t"}'),
        (LAMP, "state", b'"online"'),
        (LAMP, "state", json.dumps({"state": "x" * 300}).encode()),
        (LAMP, "nodeInfo", b"{}"),
        (NODE, "state", b'{"state":"online"}'),
        (NODE, "property/level", b'{"observedAt":1}'),
        (NODE, "nodeInfo", b"[]"),
        (NODE, "nodeInfo", b'{"nodeInfo":{"a":1}}'),
        (NODE, "nodeInfo", b'{"addresses":{}}'),
        (NODE, "nodeInfo", b'{"addresses":[{"type":"Hostname"}]}'),
        (NODE, "nodeInfo", b'{"addresses":[5]}'),
        (NODE, "nodeInfo", json.dumps({"capacity": {str(n): "1" for n in range(99)}}).encode()),
        (ObjectKey(PODS, "default", "p"), "state", b'{"state":"online"}'),
    ],
)
def test_malformed_values(key: ObjectKey, field: str, value: bytes) -> None:
    with pytest.raises(ValueError, match=r"must|JSON|no field|has a type|longer"):
        parse(ReportEntry(key, field, value))


def test_an_event_is_told_apart_by_namespace_and_name() -> None:
    assert path_of(LAMP) == "default/lamp"
