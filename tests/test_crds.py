"""The device definitions: KubeEdge's YAML passes unchanged, nonsense does not."""

from typing import Any

import pytest
import yaml

from apimachinery import resources
from apiserver.definitions import from_crd
from apiserver.jsonpath import find
from apiserver.schemas import Schema, definition_causes, unknown_keywords
from cloudhub import crds

DEFINITIONS: dict[str, dict[str, Any]] = {
    value["spec"]["names"]["kind"]: value for value in yaml.safe_load_all(crds.text())
}
VERSIONS = {kind: value["spec"]["versions"][0] for kind, value in DEFINITIONS.items()}
SCHEMAS = {kind: Schema(version["schema"]["openAPIV3Schema"]) for kind, version in VERSIONS.items()}

# Every field there is, as a KubeEdge user may have written it.
KUBEEDGE = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: boiler, namespace: plant}
spec:
  protocol: modbus
  protocolConfigData: {serialPort: /dev/ttyS0, baudRate: 9600, deep: {er: [1, 2.5, null, true]}}
  properties:
    - {name: temperature, description: of the water, type: INT, accessMode: ReadOnly, minimum: "-40", maximum: "125",
       unit: C,
       visitors: {protocolName: modbus, configData: {register: HoldingRegister, offset: 2, limit: 1, scale: 0.1}}}
    - {name: enabled, type: BOOLEAN, accessMode: ReadWrite}
    - {name: ratio, type: FLOAT, minimum: "1.5e-3", maximum: ""}
    - {name: precise, type: DOUBLE}
    - {name: note, type: STRING}
    - {name: blob, type: BYTES}
    - {name: video, type: STREAM}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: boiler-1, namespace: plant, labels: {description: cellar}}
spec:
  deviceModelRef: {name: boiler}
  nodeName: edge-1
  properties:
    - name: temperature
      collectCycle: 10000
      reportCycle: 10000
      reportToCloud: true
      desired: {value: "", metadata: {type: integer, timestamp: "1550049403598"}}
      visitors: {protocolName: modbus, configData: {register: HoldingRegister, offset: 2, nested: {a: [1]}}}
      pushMethod:
        http: {hostName: "http://127.0.0.1", port: 8080, requestPath: /device, timeout: 1000}
        mqtt: {address: "tcp://127.0.0.1:1883", topic: temperature, qos: 0, retained: false}
        otel: {endpointURL: "http://127.0.0.1:4318"}
        dbMethod:
          influxdb2:
            influxdb2ClientConfig: {url: "http://127.0.0.1:8086", org: plant, bucket: boilers}
            influxdb2DataConfig: {measurement: t, tag: {unit: C}, fieldKey: value}
          redis: {redisClientConfig: {addr: "127.0.0.1:6379", db: 0, poolsize: 30, minIdleConns: 30}}
          TDEngine: {TDEngineClientConfig: {addr: "127.0.0.1:6041", dbName: plant}}
          mysql: {mysqlClientConfig: {addr: "127.0.0.1:3306", database: plant, userName: root}}
        anomalyDetection: {method: threshold, window: 10, levels: [1.5, 2]}
    - {name: enabled, desired: {value: "true"}}
  protocol: {protocolName: modbus, configData: {slaveID: 1, ip: 192.0.2.1}}
  methods:
    - {name: setBoth, description: both at once, propertyNames: [temperature, enabled]}
  stateReport: {reportToCloud: true, reportCycle: 5000}
status: {reportToCloud: true, reportCycle: -1, somethingOlder: {kept: true}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceStatus
metadata:
  name: boiler-1
  namespace: plant
  ownerReferences: [{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, name: boiler-1, uid: u, controller: true}]
spec: {}
status:
  state: online
  lastOnlineTime: "2026-11-23T08:48:12Z"
  extensions: {vendor: {firmware: 7}}
  twins:
    - propertyName: temperature
      observedDesired: {value: ""}
      reported: {value: "31", metadata: {timestamp: "1795423902353", type: int}}
"""


@pytest.mark.parametrize("value", list(yaml.safe_load_all(KUBEEDGE)), ids=lambda value: value["kind"])
def test_what_was_written_for_kubeedge_passes_and_loses_nothing(value: dict[str, Any]) -> None:
    schema = SCHEMAS[value["kind"]]
    assert schema.causes(value) == []
    assert schema.unknown_fields(value) == []


def test_the_text_is_what_the_files_are_and_names_the_resources_the_code_speaks_of() -> None:
    assert list(DEFINITIONS) == ["DeviceModel", "Device", "DeviceStatus"]
    served = [found.resource for value in DEFINITIONS.values() for found in from_crd(value)]
    assert served == [resources.DEVICE_MODELS, resources.DEVICES, resources.DEVICE_STATUSES]
    for value in DEFINITIONS.values():
        assert value["metadata"]["name"] == f"{value['spec']['names']['plural']}.{value['spec']['group']}"


@pytest.mark.parametrize("kind", VERSIONS)
def test_schemas_are_structural(kind: str) -> None:
    schema = VERSIONS[kind]["schema"]["openAPIV3Schema"]
    assert definition_causes(schema, "spec.versions[0].schema.openAPIV3Schema") == []
    assert list(unknown_keywords(schema, "")) == []


def test_only_devices_have_a_status_of_their_own() -> None:
    assert {kind: "subresources" in version for kind, version in VERSIONS.items()} == {
        "DeviceModel": False,
        "Device": True,
        "DeviceStatus": False,
    }


def nonsense() -> list[tuple[str, dict[str, Any], str]]:
    """Kind, spec, and the field the refusal must name."""

    def prop(**fields: object) -> dict[str, Any]:
        return {"properties": [{"name": "p", **fields}]}

    return [
        ("DeviceModel", prop(type="int"), "spec.properties[0].type"),
        ("DeviceModel", prop(accessMode="Writable"), "spec.properties[0].accessMode"),
        ("DeviceModel", prop(minimum=-40), "spec.properties[0].minimum"),
        ("DeviceModel", prop(maximum="hot"), "spec.properties[0].maximum"),
        ("DeviceModel", prop(maximum="1" * 65), "spec.properties[0].maximum"),
        ("DeviceModel", {"properties": [{"name": f"p{each}"} for each in range(4097)]}, "spec.properties"),
        ("DeviceModel", {"properties": [{"type": "INT"}]}, "spec.properties[0].name"),
        ("DeviceModel", {"properties": [{"name": ""}]}, "spec.properties[0].name"),
        ("DeviceModel", {"properties": [{"name": "p"}, {"name": "p"}]}, "spec.properties[1]"),
        ("DeviceModel", {"properties": {"p": {}}}, "spec.properties"),
        ("Device", prop(desired={}), "spec.properties[0].desired.value"),
        ("Device", prop(desired={"value": 21}), "spec.properties[0].desired.value"),
        ("Device", prop(desired="21"), "spec.properties[0].desired"),
        ("Device", prop(desired={"value": "x" * 16385}), "spec.properties[0].desired.value"),
        ("Device", prop(collectCycle=-1), "spec.properties[0].collectCycle"),
        ("Device", prop(reportCycle="10s"), "spec.properties[0].reportCycle"),
        ("Device", prop(reportToCloud="yes"), "spec.properties[0].reportToCloud"),
        ("Device", prop(pushMethod={"mqtt": {"qos": 3}}), "spec.properties[0].pushMethod.mqtt.qos"),
        ("Device", prop(visitors={"configData": "register 2"}), "spec.properties[0].visitors.configData"),
        ("Device", {"properties": [{"name": "p"}, {"name": "p"}]}, "spec.properties[1]"),
        ("Device", {"nodeName": ["edge-1"]}, "spec.nodeName"),
        ("Device", {"deviceModelRef": "boiler"}, "spec.deviceModelRef"),
    ]


@pytest.mark.parametrize(("kind", "spec", "field"), nonsense())
def test_nonsense_is_refused_with_the_field(kind: str, spec: dict[str, Any], field: str) -> None:
    causes = SCHEMAS[kind].causes({"apiVersion": "v", "kind": kind, "metadata": {"name": "x"}, "spec": spec})
    assert [cause.field for cause in causes if cause.field.startswith(field)], causes


@pytest.mark.parametrize("kind", ["DeviceModel", "Device"])
def test_an_object_without_a_spec_is_refused(kind: str) -> None:
    assert [cause.field for cause in SCHEMAS[kind].causes({"metadata": {"name": "x"}})] == ["spec"]


def test_misspelled_fields_are_known_as_unknown() -> None:
    device = {"spec": {"nodename": "edge-1", "properties": [{"name": "p", "desird": {"value": "1"}}]}}
    assert sorted(SCHEMAS["Device"].unknown_fields(device)) == ["spec.nodename", "spec.properties[0].desird"]


def test_what_the_hub_writes_into_status_passes() -> None:
    entry = {
        "propertyName": "p",
        "desired": {"value": "22"},
        "sync": "rejected",
        "reason": "the bus is silent",
        "reported": {"value": "21", "metadata": {"timestamp": "1", "type": "int", "deviceTimestamp": "1"}},
        "observedDesired": {"value": "22", "metadata": {"version": "3", "problem": "the bus is silent"}},
    }
    condition = {
        "type": "Synced",
        "status": "True",
        "reason": "InStep",
        "message": "",
        "lastTransitionTime": "2026-11-23T08:48:12Z",
        "observedGeneration": 3,
    }
    status = {
        "state": "online",
        "lastOnlineTime": "2026-11-23T08:48:12Z",
        "problem": "two mappers claim it",
        "syncedProperties": "0/1",
        "twins": [entry],
        "conditions": [condition],
    }
    device = {"spec": {}, "status": status}
    assert SCHEMAS["Device"].causes(device) == []
    assert SCHEMAS["Device"].unknown_fields(device) == []
    # DeviceStatus has what was reported, in fields and maps that KubeEdge's readers know.
    theirs = {"twins": [{field: entry[field] for field in ("propertyName", "reported", "observedDesired")}]}
    assert SCHEMAS["DeviceStatus"].unknown_fields({"spec": {}, "status": theirs}) == []
    assert SCHEMAS["DeviceStatus"].causes({"spec": {}, "status": theirs}) == []
    wrong = {"spec": {}, "status": {"conditions": [condition | {"status": "yes"}]}}
    assert [cause.field for cause in SCHEMAS["Device"].causes(wrong)] == ["status.conditions[0].status"]


def test_columns_answer_the_first_question() -> None:
    device = {
        "metadata": {"creationTimestamp": "2026-11-23T08:48:12Z"},
        "spec": {"nodeName": "edge-1", "deviceModelRef": {"name": "boiler"}},
        "status": {
            "state": "online",
            "syncedProperties": "2/3",
            "lastOnlineTime": "2026-11-23T08:48:12Z",
            "conditions": [{"type": "Valid", "status": "True"}, {"type": "Online", "status": "Unknown"}],
        },
    }
    columns = VERSIONS["Device"]["additionalPrinterColumns"]
    assert {column["name"]: find(device, column["jsonPath"]) for column in columns} == {
        "Node": ["edge-1"],
        "Model": ["boiler"],
        "Online": ["Unknown"],
        "Synced": ["2/3"],
        "Age": ["2026-11-23T08:48:12Z"],
        "Valid": ["True"],
        "State": ["online"],
        "Last Online": ["2026-11-23T08:48:12Z"],
    }
    assert [column["name"] for column in columns if not column.get("priority")] == [
        "Node",
        "Model",
        "Online",
        "Synced",
        "Age",
    ]
    assert [column["name"] for column in VERSIONS["DeviceModel"]["additionalPrinterColumns"]] == ["Protocol", "Age"]
    assert [column["name"] for column in VERSIONS["DeviceStatus"]["additionalPrinterColumns"]] == [
        "State",
        "Last Online",
        "Age",
    ]


def test_every_rule_stands_where_its_cost_is_bounded() -> None:
    # A real apiserver estimates what a rule may cost, and refuses the definition where a list or a text has no bound.
    def rules(schema: Any, path: str, unbounded: list[str]) -> list[tuple[str, list[str]]]:
        found = [(path, unbounded)] if "x-kubernetes-validations" in schema else []
        for name, below in schema.get("properties", {}).items():
            found += rules(below, f"{path}.{name}", unbounded)
        if "items" in schema:
            found += rules(schema["items"], f"{path}[]", unbounded + [path] * ("maxItems" not in schema))
        return found

    found = {
        kind: rules(version["schema"]["openAPIV3Schema"], "", [])
        for kind, version in VERSIONS.items()
        if rules(version["schema"]["openAPIV3Schema"], "", [])
    }
    assert found == {"DeviceModel": [(".spec.properties[]", [])]}
    fields = VERSIONS["DeviceModel"]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["properties"]
    assert all(fields["items"]["properties"][each]["maxLength"] for each in ("minimum", "maximum"))
