"""
What the cluster says of a device: its Device and its DeviceModel, read once into what the edge acts on.

Both bodies passed a schema in the cluster, yet nothing here trusts that: what has the wrong shape is taken
for absent, so that one odd object cannot stop the others.

Pure.
"""

from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.devices import PropertyModel, PropertyType, property_models
from apimachinery.objects import JSON, lookup
from devicetwin.configuration import DeviceConfig, PropertyConfig, ProtocolConfig
from devicetwin.topics import DeviceId

SHORTEST_CYCLE_MS = 1000  # each costs a commit here and two writes in the cluster; what changes goes up at once
STALE_CYCLES = 3
"""Reports that may be missed, one after the other, before a reading is stale: a lost one is no outage."""


class Declaration(NamedTuple):
    """A Device and its model, as far as its twin is concerned."""

    uid: str
    """The Device's incarnation; another one under the same name starts a new twin."""
    model: str
    """The model's name, "" when the Device names none."""
    models: Mapping[str, PropertyModel] | None
    """The model's properties by name; None while the model is not on this node."""
    wishes: Mapping[str, str]
    """Each property of the Device with its desired value, "" for no wish."""
    cycles_ms: Mapping[str, int] = {}
    """How often a reading that did not change is to go up, for the properties whose reportCycle asks for that."""
    units: Mapping[str, str] = {}
    """The unit that a desired value is given in, by property, where its metadata names one."""
    generation: int = 0
    """The Device's metadata.generation; 0 where it has none."""
    stale_after_ms: Mapping[str, int] = {}
    """How long a reading counts, by property; one that is not in it counts for ever."""

    def problem_with(self, name: str, value: str) -> str:
        """Why the wish `value` for `name` must not reach the device, as a sentence; "" when it may."""
        if not value:
            return ""
        if self.models is None:
            called = f'the model "{self.model}" is not on this node' if self.model else "the Device names no model"
            return f"{name}: {called}, so the value cannot be checked"
        model = self.models.get(name)
        if model is None:
            return f'{name}: the model "{self.model}" has no such property'
        if not model.writable:
            return f"{name} is read-only"
        # A wish of the edge has no unit of its own, and the cloud's is none of its business.
        unit = self.units.get(name, "") if value == self.wishes.get(name) else ""
        return model.problem_with(value) or model.problem_with_unit(unit) or ""


def model_of(device: Mapping[str, JSON]) -> str:
    """The name of the DeviceModel that a Device's body refers to, "" for none."""
    return _text(lookup(device, "spec.deviceModelRef.name"))


class Model(NamedTuple):
    """A DeviceModel, read once for all its Devices."""

    body: Mapping[str, JSON]
    properties: Mapping[str, PropertyModel]

    @classmethod
    def read(cls, body: Mapping[str, JSON]) -> "Model":
        return cls(body, property_models(body))


def declaration(device: Mapping[str, JSON], model: Model | None, *, stale_after_ms: int = 0) -> Declaration:
    """
    Reads a Device's body, given its model; None when that is not there.

    stale_after_ms: how long a reading counts at least; one with a `reportCycle` counts STALE_CYCLES of them if that is
    longer. 0: every reading counts for ever.
    """
    wishes: dict[str, str] = {}
    cycles: dict[str, int] = {}
    due_ms: dict[str, int] = {}
    units: dict[str, str] = {}
    for entry in _entries(lookup(device, "spec.properties")):
        name = entry["name"]
        wishes[name] = _text(lookup(entry, "desired.value"))
        cycles[name] = _positive(entry.get("reportCycle"))
        if cycles[name] and entry.get("reportToCloud") is not False:
            due_ms[name] = max(cycles[name], SHORTEST_CYCLE_MS)
        if unit := _text(lookup(entry, "desired.metadata.unit")):
            units[name] = unit
    models = None if model is None else model.properties
    return Declaration(
        uid=_text(lookup(device, "metadata.uid")),
        model=model_of(device),
        models=models,
        wishes=wishes,
        cycles_ms=due_ms,
        units=units,
        generation=_positive(lookup(device, "metadata.generation")),
        stale_after_ms={
            name: max(stale_after_ms, STALE_CYCLES * cycles.get(name, 0)) for name in {**wishes, **(models or {})}
        }
        if stale_after_ms
        else {},
    )


def configured(device: Mapping[str, JSON]) -> tuple[JSON, ...]:
    """What configuration() reads of a Device: all that it says of its properties but the wishes, and the rest."""
    spec = lookup(device, "spec")
    properties = [
        {field: value for field, value in entry.items() if field != "desired"}
        for entry in _entries(lookup(spec, "properties"))
    ]
    return properties, lookup(spec, "protocol"), lookup(spec, "deviceModelRef")


def configuration(id: DeviceId, node: str, device: Mapping[str, JSON], model: Model | None) -> DeviceConfig:
    """
    What a mapper is told of the device.

    A property's visitor and the protocol come from the Device, and where it has none from the model, as the
    v1beta1 types say. A property that only the model has is told too: it can be read and reported.
    """
    of_device = {entry["name"]: entry for entry in _entries(lookup(device, "spec.properties"))}
    said = {} if model is None else model.body
    of_model = {entry["name"]: entry for entry in _entries(lookup(said, "spec.properties"))}
    models = {} if model is None else model.properties
    name = model_of(device)
    problem = ""
    if model is None:
        problem = f'the model "{name}" is not on this node' if name else "the Device names no model"
    protocol = _protocol(lookup(device, "spec.protocol"))
    if not protocol.name:
        data = lookup(said, "spec.protocolConfigData")
        protocol = ProtocolConfig(_text(lookup(said, "spec.protocol")), protocol.data or _object(data))
    properties = tuple(
        _property(each, of_device.get(each, {}), of_model.get(each, {}), models.get(each))
        for each in dict.fromkeys([*of_device, *of_model])
    )
    return DeviceConfig(id, node, name, protocol, properties, problem)


def _property(
    name: str, entry: Mapping[str, JSON], of_model: Mapping[str, JSON], model: PropertyModel | None
) -> PropertyConfig:
    visitors = _protocol(entry.get("visitors"))
    push_method = entry.get("pushMethod")
    return PropertyConfig(
        name=name,
        type=model.type.value if model else "",
        writable=bool(model and model.writable),
        minimum=model.minimum if model else "",
        maximum=model.maximum if model else "",
        unit=model.unit if model else "",
        collect_cycle_ms=_positive(entry.get("collectCycle")),
        report_cycle_ms=_positive(entry.get("reportCycle")),
        report_to_cloud=entry.get("reportToCloud") is not False,
        visitors=visitors if visitors.name or visitors.data else _protocol(of_model.get("visitors")),
        push_method=push_method if isinstance(push_method, dict) else None,
    )


# The types a mapper may name in metadata.type; KubeEdge's words and the ones it lacked.
_WORDS = {
    "int": PropertyType.INT,
    "integer": PropertyType.INT,
    "float": PropertyType.FLOAT,
    "double": PropertyType.DOUBLE,
    "boolean": PropertyType.BOOLEAN,
    "bool": PropertyType.BOOLEAN,
    "bytes": PropertyType.BYTES,
}


def model_for_word(name: str, word: str) -> PropertyModel:
    """What a mapper's word for the type says of a property that has no model; any other word is text."""
    return PropertyModel(name, _WORDS.get(word.lower(), PropertyType.STRING), True, "", "", "")


def _entries(value: JSON) -> list[dict[str, JSON]]:
    entries = value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("name") and _text(entry.get("name"))]


def _protocol(value: JSON) -> ProtocolConfig:
    return ProtocolConfig(_text(lookup(value, "protocolName")), _object(lookup(value, "configData")))


def _object(value: JSON) -> Mapping[str, JSON]:
    return value if isinstance(value, dict) else {}


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else ""


def _positive(value: JSON) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
