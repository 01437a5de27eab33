"""From the edge's configuration message to a driver's device."""

import pytest

from apimachinery.devices import PropertyType
from devicetwin.messages import DeviceConfig, DeviceId, PropertyConfig, ProtocolConfig
from mappers.membership import DEFAULT_COLLECT_S, DEFAULT_REPORT_S, device_from, has_new_cycles, needs_new_driver
from mappers.pushmethod import HttpPlace

ID = DeviceId("default", "thermostat")


def config(*properties: PropertyConfig, data: dict[str, object] | None = None, problem: str = "") -> DeviceConfig:
    return DeviceConfig(ID, "edge-1", "thermostat", ProtocolConfig("simulated", data or {}), properties, problem)


def setpoint(**changes: object) -> PropertyConfig:
    return PropertyConfig("setpoint", type="FLOAT", writable=True, minimum="5")._replace(**changes)  # type: ignore[arg-type]


def test_a_device_is_taken_over_in_seconds_and_types() -> None:
    visitors = ProtocolConfig("simulated", {"deadBand": 0.5, "register": 4})
    device, problems = device_from(
        config(
            setpoint(collect_cycle_ms=500, report_cycle_ms=2000, report_to_cloud=False, visitors=visitors),
            data={"timeConstant": 5},
        )
    )
    assert problems == []
    assert device.id == "default/thermostat"
    assert device.settings == {"timeConstant": 5}
    taken = device.properties["setpoint"]
    assert (taken.model.type, taken.model.writable, taken.model.minimum) == (PropertyType.FLOAT, True, "5")
    assert (taken.collect_s, taken.report_s, taken.dead_band, taken.wanted) == (0.5, 2.0, 0.5, False)
    assert taken.settings["register"] == 4


@pytest.mark.parametrize(("cycle_ms", "seconds"), [(0, DEFAULT_COLLECT_S), (-5, DEFAULT_COLLECT_S), (1, 0.05)])
def test_a_cycle_of_none_is_the_default_and_a_tiny_one_is_held_back(cycle_ms: int, seconds: float) -> None:
    device, _ = device_from(config(setpoint(collect_cycle_ms=cycle_ms)))
    assert device.properties["setpoint"].collect_s == seconds
    assert device.properties["setpoint"].report_s == DEFAULT_REPORT_S


@pytest.mark.parametrize(
    ("property", "words"),
    [
        (setpoint(type=""), "setpoint: is not in the device's model"),
        (setpoint(type="COLOUR"), "COLOUR"),
        (setpoint(name="set point"), "cannot be on MQTT"),
        (setpoint(visitors=ProtocolConfig("", {"deadBand": "x"})), "deadBand must be a number"),
        (setpoint(visitors=ProtocolConfig("", {"deadBand": -1})), "deadBand must be a number"),
    ],
)
def test_a_property_that_makes_no_sense_is_left_out_and_told(property: PropertyConfig, words: str) -> None:
    device, problems = device_from(config(property, PropertyConfig("heater", type="BOOLEAN")))
    assert set(device.properties) == {"heater"}
    assert len(problems) == 1
    assert words in problems[0]


def test_what_the_edge_found_wrong_is_passed_on() -> None:
    assert device_from(config(problem="there is no DeviceModel thermostat")).problems == [
        "there is no DeviceModel thermostat"
    ]


@pytest.mark.parametrize(
    ("changed", "needs"),
    [
        (config(setpoint(collect_cycle_ms=7, report_cycle_ms=8, report_to_cloud=False)), False),
        (config(setpoint(visitors=ProtocolConfig("", {"deadBand": 3}))), False),
        (config(setpoint(visitors=ProtocolConfig("", {"register": 3}))), True),
        (config(setpoint(minimum="0")), True),
        (config(setpoint(), PropertyConfig("heater", type="BOOLEAN")), True),
        (config(setpoint(), data={"timeConstant": 5}), True),
    ],
)
def test_cycles_and_dead_bands_leave_the_driver_alone(changed: DeviceConfig, needs: bool) -> None:
    old, new = device_from(config(setpoint())).device, device_from(changed).device
    assert needs_new_driver(old, new) is needs


def test_samples_go_where_the_push_method_says_and_a_wrong_one_costs_no_property() -> None:
    method = {"http": {"hostName": "h"}, "mqtt": {"address": "h"}, "anomalyDetection": {"window": 5}}
    device, problems = device_from(config(setpoint(push_method=method)))
    assert [each.place for each in device.properties["setpoint"].targets] == [HttpPlace("form", "http://h/")]
    assert device.properties["setpoint"].push_method == method, "a driver finds its anomalyDetection there"
    assert problems == ["setpoint: pushMethod.mqtt: address and topic are needed"]
    without, _ = device_from(config(setpoint()))
    assert without.properties["setpoint"].targets == ()
    assert not needs_new_driver(device, without)


@pytest.mark.parametrize(
    ("changed", "has_new"),
    [
        (config(setpoint(collect_cycle_ms=700)), True),
        (config(setpoint(report_cycle_ms=8, report_to_cloud=False)), False),
        (config(setpoint()), False),
    ],
)
def test_another_pace_of_sampling_is_told_from_another_pace_of_reports(changed: DeviceConfig, has_new: bool) -> None:
    old, new = device_from(config(setpoint())).device, device_from(changed).device
    assert has_new_cycles(old, new) is has_new
