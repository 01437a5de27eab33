"""
What a mapper must know of a device to serve it: protocol, visitors, properties. Fairlead adds.

With KubeEdge this reaches a mapper by gRPC or by a ConfigMap and a restart; here it is retained on MQTT, one
message per device, so that a change costs one device and a mapper that starts late is told at once. Mappers
get these names from devicetwin.messages.

Standard library only; pure.
"""

from collections.abc import Mapping
from typing import NamedTuple

from componentbase.jsonbytes import compact
from devicetwin.payloads import Reading, integer, listing, mapping, members_of, text_of
from devicetwin.topics import DeviceId


class ProtocolConfig(NamedTuple):
    """How to reach a device or one of its properties: `protocol` of a Device, `visitors` of a property."""

    name: str = ""
    """protocolName; which mapper is meant."""
    data: Mapping[str, object] = {}
    """configData, as somebody wrote it into the Device: check before use."""

    def to_json(self) -> dict[str, object]:
        return {"protocolName": self.name, "configData": dict(self.data)}

    @classmethod
    def from_json(cls, value: object, where: str) -> "ProtocolConfig":
        members = members_of(value, where)
        name = text_of(members.get("protocolname") or "", f"{where}.protocolName")
        return cls(name, mapping(members.get("configdata") or {}, f"{where}.configData"))


class PropertyConfig(NamedTuple):
    """One property of a device, from the Device and its model together."""

    name: str
    type: str = ""
    """INT, FLOAT, DOUBLE, STRING, BOOLEAN, BYTES, STREAM; "" when the model does not name the property."""
    writable: bool = False
    minimum: str = ""
    maximum: str = ""
    unit: str = ""
    collect_cycle_ms: int = 0
    """How often to read; 0: the mapper's choice."""
    report_cycle_ms: int = 0
    """The longest time between two reports of an unchanged value; 0: the mapper's choice."""
    report_to_cloud: bool = True
    visitors: ProtocolConfig = ProtocolConfig()
    push_method: Mapping[str, object] | None = None
    """`pushMethod` as it stands in the Device."""

    def to_json(self) -> dict[str, object]:
        out: dict[str, object] = {
            "name": self.name,
            "type": self.type,
            "accessMode": "ReadWrite" if self.writable else "ReadOnly",
            "minimum": self.minimum,
            "maximum": self.maximum,
            "unit": self.unit,
            "collectCycle": self.collect_cycle_ms,
            "reportCycle": self.report_cycle_ms,
            "reportToCloud": self.report_to_cloud,
            "visitors": self.visitors.to_json(),
        }
        if self.push_method is not None:
            out["pushMethod"] = dict(self.push_method)
        return out

    @classmethod
    def from_json(cls, value: object) -> "PropertyConfig":
        members = members_of(value, "properties")
        name = text_of(members.get("name"), "properties.name")
        texts = {each: text_of(members.get(each) or "", f"{name}.{each}") for each in _PROPERTY_TEXTS}
        push_method = members.get("pushmethod")
        return cls(
            name=name,
            type=texts["type"],
            writable=texts["accessmode"] == "ReadWrite",
            minimum=texts["minimum"],
            maximum=texts["maximum"],
            unit=texts["unit"],
            collect_cycle_ms=integer(members.get("collectcycle") or 0, f"{name}.collectCycle"),
            report_cycle_ms=integer(members.get("reportcycle") or 0, f"{name}.reportCycle"),
            report_to_cloud=members.get("reporttocloud") is not False,
            visitors=ProtocolConfig.from_json(members.get("visitors") or {}, f"{name}.visitors"),
            push_method=None if push_method is None else mapping(push_method, f"{name}.pushMethod"),
        )


_PROPERTY_TEXTS = ("type", "accessmode", "minimum", "maximum", "unit")


class DeviceConfig(NamedTuple):
    """
    All that a mapper needs to serve a device, retained on Channel.CONFIG. One device has one encoding: equal bytes,
    nothing changed. Wishes are not in it, they have their own way: TWIN_GET and Delta.
    """

    id: DeviceId
    node: str
    """Who published it: on a broker that nodes share, each minds its own."""
    model: str = ""
    protocol: ProtocolConfig = ProtocolConfig()
    properties: tuple[PropertyConfig, ...] = ()
    problem: str = ""
    """Why this cannot be all, for example a missing model; "" when it is."""

    def encode(self) -> bytes:
        out: dict[str, object] = {
            "id": str(self.id),
            "node": self.node,
            "model": self.model,
            "protocol": self.protocol.to_json(),
            "properties": [each.to_json() for each in self.properties],
        }
        if self.problem:
            out["problem"] = self.problem
        return compact(out)

    @classmethod
    def decode(cls, payload: bytes) -> "DeviceConfig":
        with Reading(payload, "not a device's configuration") as reading:
            members = reading.members()
            texts = {each: text_of(members.get(each) or "", each) for each in ("id", "node", "model", "problem")}
            return cls(
                id=DeviceId.parse(texts["id"]),
                node=texts["node"],
                model=texts["model"],
                protocol=ProtocolConfig.from_json(members.get("protocol") or {}, "protocol"),
                properties=tuple(
                    PropertyConfig.from_json(each) for each in listing(members.get("properties") or [], "properties")
                ),
                problem=texts["problem"],
            )
