"""Devices as their drivers get to know them, written shortly."""

from collections.abc import Mapping

from apimachinery.devices import PropertyModel, PropertyType
from mappers.driver import Device, Property


def a_property(kind: str, *, writable: bool = False, **settings: object) -> Property:
    """One property; settings: its `visitors.configData`."""
    model = PropertyModel("", PropertyType(kind), writable, "", "", "")
    return Property(model, settings, 1.0, 60.0, True, 0.0)


def a_device(settings: Mapping[str, object], **properties: Property) -> Device:
    """One device; settings: its `protocol.configData`."""
    named = {name: each._replace(model=each.model._replace(name=name)) for name, each in properties.items()}
    return Device("default/device", settings, named)
