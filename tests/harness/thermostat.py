"""Bodies of one DeviceModel and its Devices, for the tests of what the hub says of them."""

from typing import Any

THERMOSTAT: dict[str, Any] = {
    "spec": {
        "properties": [
            {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
            {"name": "setpoint", "type": "FLOAT", "minimum": "5", "maximum": "30", "unit": "C"},
            {"name": "mode", "type": "STRING"},
            {"name": "count", "type": "INT"},
        ]
    }
}


def a_device(*, node: str = "edge-1", model: str = "thermostat", **desired: str | None) -> dict[str, Any]:
    """A Device at generation 3 with these properties; None for one without a desired value."""
    properties: list[dict[str, Any]] = [
        {"name": name} | ({"desired": {"value": value}} if value is not None else {}) for name, value in desired.items()
    ]
    return {
        "metadata": {"name": "d", "generation": 3},
        "spec": {"nodeName": node, "deviceModelRef": {"name": model}, "properties": properties},
    }
