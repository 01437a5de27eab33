"""
The MQTT surface under inputs that are almost right: nothing crashes, and no report beside them is lost.

A million inputs by `make soak`; the seed and the number of an input are in what fails.
"""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest

from apimachinery.devices import PropertyReport
from apimachinery.objects import from_json
from apimachinery.resources import DEVICE_MODELS, DEVICES
from devicetwin.documents import Kept, read_documents
from devicetwin.fleet import Fleet, Moment, Outcome
from devicetwin.messages import Channel, DeviceId
from devicetwin.reconcile import MAX_UNDECLARED
from devicetwin.twin import Twin
from devicetwin.wire import key_of
from tests.harness.mqtt_fuzz import MqttFuzz

BESIDE = DeviceId("default", "beside")
EVERY = 50  # inputs between two good reports
TYPES = {"temperature": "INT", "setpoint": "INT", "mode": "STRING", "blob": "BYTES", "switch": "BOOLEAN"}


def objects() -> list[Any]:
    properties = [
        {"name": name, "type": kind, "accessMode": "ReadOnly" if name == "temperature" else "ReadWrite"}
        for name, kind in TYPES.items()
    ]
    model = from_json(
        DEVICE_MODELS, {"metadata": {"name": "m", "namespace": "default"}, "spec": {"properties": properties}}
    )
    devices = [
        from_json(
            DEVICES,
            {
                "metadata": {"name": name, "namespace": "default", "uid": name, "generation": 1},
                "spec": {
                    "deviceModelRef": {"name": "m"},
                    "properties": [
                        {"name": each} | ({"desired": {"value": wish}} if wish else {}) for each, wish in wishes.items()
                    ],
                },
            },
        )
        for name, wishes in (
            ("fuzzed", {"setpoint": "20", "mode": "eco"}),
            ("other", {}),
            ("beside", {"temperature": ""}),
        )
    ]
    return [model, *devices]


class Edge:
    """A fleet, and the durable documents and reports that came of it."""

    def __init__(self) -> None:
        self.fleet = Fleet("edge1", Kept({}, {}))
        self.documents: dict[str, bytes] = {}
        self.reports: dict[tuple[object, str], bytes] = {}
        self.ids = itertools.count()
        outcome = Outcome()
        self.fleet.declare(self.fleet.take_snapshot(objects(), self.moment(), outcome), self.moment(), outcome)
        self.seal(outcome)

    def moment(self, now_ms: int = 1_800_000_000_000) -> Moment:
        return Moment(now_ms, lambda: f"id{next(self.ids)}")

    def hear(self, inputs: list[tuple[str, bytes, bool]]) -> Outcome:
        outcome = Outcome()
        for topic, payload, retained in inputs:
            self.fleet.take_message(topic, payload, self.moment(), outcome, retained=retained)
        self.fleet.take_time(self.moment(), outcome)
        return self.seal(outcome)

    def seal(self, outcome: Outcome) -> Outcome:
        """What may reach others must be what they can read."""
        self.fleet.seal(outcome)
        for name, document in outcome.documents.items():
            if document is None:
                self.documents.pop(name, None)
            else:
                self.documents[name] = document
        for report in outcome.reports:
            self.reports[report.key, report.field] = report.value
            if report.field.startswith("property/"):
                assert PropertyReport.from_json(json.loads(report.value)).to_json() == json.loads(report.value)
        for publication in [*outcome.publications, *self.fleet.current(self.moment())]:
            publication.topic.encode()
            assert not publication.payload or isinstance(json.loads(publication.payload), Mapping)
        for event in outcome.events:
            assert type(event).from_json(event.to_json()) == event
        return outcome


def timeless(twin: Twin) -> object:
    """Times alone are no reason to write anything down."""
    value = twin.to_json()
    for each in value["properties"].values():
        if "reported" in each:
            each["reported"][3:5] = []
    return value


@pytest.mark.parametrize(
    "count",
    [20_000, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(0)])],
    ids=["20k", "1M"],
)
def test_nothing_crashes_and_no_report_beside_it_is_lost(count: int) -> None:
    seed = count
    edge = Edge()
    inputs = iter(MqttFuzz(seed))
    for number in range(0, count, EVERY):
        some = list(itertools.islice(inputs, EVERY))
        good = json.dumps({"event_id": f"good{number}", "twin": {"temperature": {"actual": {"value": str(number)}}}})
        some.insert(number % EVERY, (Channel.TWIN_UPDATE.topic(BESIDE), good.encode(), False))
        try:
            outcome = edge.hear(some)
        except Exception as error:
            raise AssertionError(f"seed {seed}, inputs {number} to {number + EVERY}") from error
        answers = [
            json.loads(each.payload)
            for each in outcome.publications
            if each.topic == Channel.TWIN_UPDATE_RESULT.topic(BESIDE)
        ]
        assert [each["event_id"] for each in answers] == [f"good{number}"], (seed, number)
        assert "code" not in answers[0], (seed, number)
        report = json.loads(edge.reports[key_of(BESIDE), "property/temperature"])
        assert report["value"] == str(number), (seed, number)
    # What was written down is what is, after all of that, and nothing has grown beyond its bounds.
    kept = read_documents(edge.documents)
    for device, twin in edge.fleet.twins.items():
        assert timeless(kept.twins[device]) == timeless(twin)
        assert sum(not each.declared for each in twin.properties.values()) <= MAX_UNDECLARED
    assert set(edge.fleet.twins) == {DeviceId("default", name) for name in ("fuzzed", "other", "beside")}
