"""
From what the edge says of a device to what a driver gets to know of it: checked, completed, in seconds.

Pure. The shell is mappers/runtime.py.
"""

from typing import NamedTuple

from apimachinery.devices import PropertyModel, PropertyType
from apimachinery.objects import JSON
from devicetwin.messages import PROPERTY_NAME, DeviceConfig, PropertyConfig
from mappers.pushmethod import Target, read_push_method
from mappers.words import Device, Property

DEFAULT_COLLECT_S = 1.0  # what KubeEdge's mapper framework takes for 0
SHORTEST_COLLECT_S = 0.05  # twenty readings a second: what is faster does not belong into a twin
DEFAULT_REPORT_S = 60.0
SHORTEST_REPORT_S = 0.1
DEAD_BAND = "deadBand"
"""A member of a property's `visitors.configData` that every driver has: the runtime reads it."""


class Adopted(NamedTuple):
    """A device, and a sentence for each thing in its configuration that was left out."""

    device: Device
    problems: list[str]


def device_from(config: DeviceConfig) -> Adopted:
    """The device as its driver sees it. What makes no sense is left out, the rest is served."""
    problems = [config.problem] if config.problem else []
    properties: dict[str, Property] = {}
    for each in config.properties:
        try:
            push = read_push_method(each.push_method or {})
            properties[each.name] = _property_from(each, push.targets)
            problems += [f"{each.name}: {problem}" for problem in push.problems]
        except ValueError as exc:
            problems.append(f"{each.name}: {exc}")
    return Adopted(Device(str(config.id), config.protocol.data, properties), problems)


def needs_new_driver(old: Device, new: Device) -> bool:
    """Whether a driver made for `old` cannot serve `new`. Cycles and dead bands are the runtime's business."""
    return old.settings != new.settings or _as_drivers_see(old) != _as_drivers_see(new)


def has_new_cycles(old: Device, new: Device) -> bool:
    """Whether properties are to be sampled at another pace: the business of a driver that subscribes."""
    return [each.collect_s for each in old.properties.values()] != [each.collect_s for each in new.properties.values()]


def _as_drivers_see(device: Device) -> dict[str, tuple[PropertyModel, dict[str, JSON]]]:
    return {
        name: (each.model, {key: value for key, value in each.settings.items() if key != DEAD_BAND})
        for name, each in device.properties.items()
    }


def _property_from(config: PropertyConfig, targets: tuple[Target, ...]) -> Property:
    if not PROPERTY_NAME.fullmatch(config.name):
        raise ValueError("cannot be on MQTT under this name")
    if not config.type:
        raise ValueError("is not in the device's model")
    dead_band = config.visitors.data.get(DEAD_BAND, 0)
    if isinstance(dead_band, bool) or not isinstance(dead_band, int | float) or not dead_band >= 0:
        raise ValueError(f"visitors.configData.{DEAD_BAND} must be a number, 0 or more")
    return Property(
        model=PropertyModel(
            name=config.name,
            type=PropertyType(config.type),
            writable=config.writable,
            minimum=config.minimum,
            maximum=config.maximum,
            unit=config.unit,
        ),
        settings=config.visitors.data,
        collect_s=_seconds(config.collect_cycle_ms, DEFAULT_COLLECT_S, SHORTEST_COLLECT_S),
        report_s=_seconds(config.report_cycle_ms, DEFAULT_REPORT_S, SHORTEST_REPORT_S),
        wanted=config.report_to_cloud,
        dead_band=float(dead_band),
        targets=targets,
        push_method=config.push_method or {},
    )


def _seconds(cycle_ms: int, default_s: float, shortest_s: float) -> float:
    # KubeEdge lets a cycle be negative and takes it for none.
    return max(cycle_ms / 1000, shortest_s) if cycle_ms > 0 else default_s
