"""Device and model bodies, read into wishes and configuration; odd shapes are taken for absent."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.objects import lookup
from devicetwin.configuration import DeviceConfig, ProtocolConfig
from devicetwin.declaration import Model, configuration, configured, declaration, model_for_word, model_of
from devicetwin.messages import DeviceId

ID = DeviceId("default", "thermo")
DEVICE: dict[str, Any] = {
    "metadata": {"name": "thermo", "uid": "u"},
    "spec": {
        "deviceModelRef": {"name": "thermostat"},
        "protocol": {"protocolName": "modbus", "configData": {"slaveID": 1}},
        "properties": [
            {
                "name": "setpoint",
                "desired": {"value": "22"},
                "visitors": {"protocolName": "modbus", "configData": {"register": "HoldingRegister"}},
                "collectCycle": 500,
                "reportCycle": 1000,
                "reportToCloud": False,
                "pushMethod": {"http": {"hostName": "h"}},
            },
            {"name": "ghost", "desired": {"value": "1"}, "collectCycle": -1},
        ],
    },
}
MODEL: dict[str, Any] = {
    "metadata": {"name": "thermostat"},
    "spec": {
        "protocol": "modbus",
        "protocolConfigData": {"speed": 9600},
        "properties": [
            {
                "name": "setpoint",
                "type": "INT",
                "accessMode": "ReadWrite",
                "minimum": "5",
                "maximum": "35",
                "unit": "C",
            },
            {
                "name": "temperature",
                "type": "FLOAT",
                "accessMode": "ReadOnly",
                "visitors": {"protocolName": "modbus", "configData": {"register": "InputRegister"}},
            },
        ],
    },
}
THERMOSTAT = Model.read(MODEL)


def test_wishes_and_model_are_read() -> None:
    said = declaration(DEVICE, THERMOSTAT)
    assert (said.uid, said.model) == ("u", "thermostat")
    assert said.wishes == {"setpoint": "22", "ghost": "1"}
    assert said.models is not None
    assert set(said.models) == {"setpoint", "temperature"}


def test_a_report_cycle_counts_where_reports_are_wanted_and_is_a_second_at_least() -> None:
    properties = [
        {"name": "slow", "reportCycle": 60_000},
        {"name": "quick", "reportCycle": 5, "reportToCloud": True},
        {"name": "quiet", "reportCycle": 60_000, "reportToCloud": False},
        {"name": "odd", "reportCycle": -1},
        {"name": "none"},
    ]
    assert declaration({"spec": {"properties": properties}}, None).cycles_ms == {"slow": 60_000, "quick": 1000}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("setpoint", "22", ""),
        ("setpoint", "", ""),
        ("setpoint", "36", "setpoint: 36 is above the model's maximum of 35"),
        ("temperature", "1", "temperature is read-only"),
        ("ghost", "1", 'ghost: the model "thermostat" has no such property'),
    ],
)
def test_a_wish_is_judged_by_the_model(name: str, value: str, says: str) -> None:
    assert declaration(DEVICE, THERMOSTAT).problem_with(name, value) == says


def test_a_wish_in_another_unit_than_the_models_is_kept_from_the_device() -> None:
    device = {"spec": {"properties": [{"name": "setpoint", "desired": {"value": "22", "metadata": {"unit": "F"}}}]}}
    said = declaration(device, THERMOSTAT)
    assert said.problem_with("setpoint", "22") == 'setpoint: the value is in "F", the model\'s unit is "C"'
    assert said.problem_with("setpoint", "23") == "", "a wish of the edge, which names no unit"


def test_without_a_model_no_wish_can_be_judged() -> None:
    assert "not on this node" in declaration(DEVICE, None).problem_with("setpoint", "22")
    assert "names no model" in declaration({"spec": {}}, None).problem_with("setpoint", "22")


def test_the_configuration_joins_device_and_model() -> None:
    config = configuration(ID, "edge1", DEVICE, THERMOSTAT)
    assert (config.id, config.node, config.model, config.problem) == (ID, "edge1", "thermostat", "")
    assert config.protocol == ProtocolConfig("modbus", {"slaveID": 1})
    setpoint, ghost, temperature = config.properties
    assert (setpoint.type, setpoint.writable, setpoint.minimum, setpoint.maximum, setpoint.unit) == (
        "INT",
        True,
        "5",
        "35",
        "C",
    )
    assert (setpoint.collect_cycle_ms, setpoint.report_cycle_ms, setpoint.report_to_cloud) == (500, 1000, False)
    assert setpoint.visitors == ProtocolConfig("modbus", {"register": "HoldingRegister"})
    assert setpoint.push_method == {"http": {"hostName": "h"}}
    assert (ghost.name, ghost.type, ghost.collect_cycle_ms) == ("ghost", "", 0)
    assert (temperature.name, temperature.writable) == ("temperature", False)
    assert temperature.visitors.data == {"register": "InputRegister"}
    assert DeviceConfig.decode(config.encode()) == config


def test_the_protocol_falls_back_on_the_model_s() -> None:
    config = configuration(ID, "edge1", {"spec": {"deviceModelRef": {"name": "thermostat"}}}, THERMOSTAT)
    assert config.protocol == ProtocolConfig("modbus", {"speed": 9600})
    assert "not on this node" in configuration(ID, "edge1", DEVICE, None).problem


def test_a_word_for_a_type_is_checked_as_far_as_it_is_known() -> None:
    assert model_for_word("t", "Integer").problem_with("x") is not None
    assert model_for_word("t", "enum").problem_with("x") is None


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["spec", "metadata", "properties", "name", "desired", "value", "visitors", "protocol"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata"]), ODD), st.dictionaries(st.just("spec"), ODD))
def test_no_shape_stops_the_reading(device: dict[str, Any], model: dict[str, Any]) -> None:
    model_of(device)
    declaration(device, Model.read(model))
    configuration(ID, "n", device, Model.read(model)).encode()


@given(st.dictionaries(st.sampled_from(["spec", "metadata"]), ODD))
def test_what_a_mapper_is_told_is_another_only_where_what_is_read_for_it_is(device: dict[str, Any]) -> None:
    other: dict[str, Any] = json.loads(json.dumps(device))
    properties = lookup(other, "spec.properties")
    for entry in properties if isinstance(properties, list) else ():
        if isinstance(entry, dict):
            entry["desired"] = {"value": "another"}
    assert configured(other) == configured(device)
    assert configuration(ID, "n", other, THERMOSTAT) == configuration(ID, "n", device, THERMOSTAT)


@pytest.mark.parametrize("field", ["visitors", "collectCycle", "reportCycle", "reportToCloud", "pushMethod", "name"])
def test_all_that_a_mapper_is_told_of_a_property_is_read_for_it(field: str) -> None:
    other = copy.deepcopy(DEVICE)
    del other["spec"]["properties"][0][field]
    assert configured(other) != configured(DEVICE)


@pytest.mark.parametrize("field", ["deviceModelRef", "protocol", "properties"])
def test_all_that_a_mapper_is_told_of_a_device_is_read_for_it(field: str) -> None:
    other = copy.deepcopy(DEVICE)
    del other["spec"][field]
    assert configured(other) != configured(DEVICE)
