"""The fleet: a replay of what a real KubeEdge answered, and the bookkeeping of devices, models and mappers."""

import json
from typing import Any

import pytest

from apimachinery.events import Change, EventType
from apimachinery.objects import Object, from_json
from apimachinery.resources import DEVICE_MODELS, DEVICES
from devicetwin.claims import MAX_MAPPERS
from devicetwin.documents import Kept, read_documents
from devicetwin.fleet import CURRENT_PER_S, CURRENT_PER_TURN, MEMBERS_PER_MESSAGE, Fleet, Moment, Outcome
from devicetwin.messages import Channel, DeviceConfig, DeviceId, MapperState, MembershipUpdate, mapper_state_topic
from devicetwin.wire import Publication, key_of
from tests.test_devicetwin_messages import TRANSCRIPT

ID = DeviceId("default", "thermo-1")


def moment(now_ms: int = 1000, new_id: str = "new") -> Moment:
    return Moment(now_ms, lambda: new_id)


def model(name: str = "thermostat", maximum: str = "35") -> Object:
    properties = [
        {"name": "temperature", "type": "INT", "accessMode": "ReadOnly"},
        {"name": "setpoint", "type": "INT", "accessMode": "ReadWrite", "maximum": maximum},
    ]
    return from_json(
        DEVICE_MODELS, {"metadata": {"name": name, "namespace": "default"}, "spec": {"properties": properties}}
    )


def device(name: str = "thermo-1", setpoint: str = "", of: str = "thermostat", uid: str = "u") -> Object:
    return from_json(
        DEVICES,
        {
            "metadata": {"name": name, "namespace": "default", "uid": uid, "labels": {"description": "demo"}},
            "spec": {
                "deviceModelRef": {"name": of},
                "properties": [{"name": "temperature"}, {"name": "setpoint", "desired": {"value": setpoint}}],
            },
        },
    )


def change(each: Object, type: EventType = EventType.MODIFIED) -> Change:
    return Change(1, type, each, None)


class Driver:
    """A fleet with one outcome per call."""

    def __init__(self, *objects: Object, kept: Kept | None = None) -> None:
        self.fleet = Fleet("edge1", kept or Kept({}, {}))
        self.documents: dict[str, bytes] = {}
        self.start = self.snapshot(*objects)

    def snapshot(self, *objects: Object) -> Outcome:
        outcome = Outcome()
        self.fleet.declare(self.fleet.take_snapshot(objects, moment(), outcome), moment(), outcome)
        return self.seal(outcome)

    def change(self, *changes: Change) -> Outcome:
        outcome = Outcome()
        self.fleet.declare(self.fleet.take_changes(changes, moment(), outcome), moment(), outcome)
        return self.seal(outcome)

    def online(self) -> Outcome:
        outcome = Outcome()
        self.fleet.declare(self.fleet.take_online(moment(), outcome), moment(), outcome)
        return self.seal(outcome)

    def message(
        self, topic: str, payload: bytes, now_ms: int = 1000, new_id: str = "new", *, retained: bool = False
    ) -> Outcome:
        outcome = Outcome()
        self.fleet.take_message(topic, payload, moment(now_ms, new_id), outcome, retained=retained)
        return self.seal(outcome)

    def seal(self, outcome: Outcome) -> Outcome:
        self.fleet.seal(outcome)
        for name, document in outcome.documents.items():
            if document is None:
                self.documents.pop(name, None)
            else:
                self.documents[name] = document
        return outcome


def said(outcome: Outcome, channel: Channel) -> list[dict[str, Any]]:
    return [
        json.loads(each.payload) for each in outcome.publications if each.topic.endswith("/" + channel) and each.payload
    ]


def members(outcome: Outcome) -> list[MembershipUpdate]:
    return [
        MembershipUpdate.decode(each.payload)
        for each in outcome.publications
        if each.topic == "$hw/events/node/edge1/membership/updated"
    ]


REQUESTS = tuple(f"/{name}" for name in ("twin/update", "twin/get", "membership/get", "state/update"))


def test_the_answers_are_kubeedge_s_byte_for_byte() -> None:
    """
    Every request of the transcript, each at the time its answers bear, and every answer compared.

    Two differences are ours: the answer to a state carries the request's event id (KubeEdge makes one up), and
    the membership list says the state of a device that has one (KubeEdge's list came before the state).
    """
    driver = Driver(model(), device(uid="u"))
    lines = [line.partition(" ")[::2] for line in TRANSCRIPT.splitlines()][1:]
    answers: list[tuple[str, str]] = []
    expected: list[tuple[str, str]] = []
    for index, (topic, payload) in enumerate(lines):
        if not topic.endswith(REQUESTS):
            expected.append((topic, payload))
            continue
        reply = next(line for line in lines[index:] if line[0] == topic + "/result")
        stamp = json.loads(reply[1])["timestamp"]
        answers += [
            (each.topic, each.payload.decode()) for each in driver.message(topic, payload.encode(), stamp).publications
        ]

    def comparable(line: tuple[str, str]) -> tuple[str, str]:
        value = json.loads(line[1])
        if line[0].endswith(("/delta", "/state/update/result")):
            # Ids made up on the way, and the delta was written a little later than the twin.
            value["event_id"], value["timestamp"] = "", 0
        return line[0], json.dumps(value)

    assert sorted(map(comparable, answers)) == sorted(map(comparable, expected))


def test_a_device_that_comes_is_announced_and_configured() -> None:
    driver = Driver(model())
    outcome = driver.change(change(device(), EventType.ADDED))
    (update,) = members(outcome)
    assert [(each.id, each.description) for each in update.added] == [(ID, "demo")]
    (config,) = [each for each in outcome.publications if each.retain]
    assert DeviceConfig.decode(config.payload).node == "edge1"
    assert driver.change(change(device())).publications == []


def test_a_wish_alone_does_not_publish_the_configuration_again() -> None:
    driver = Driver(model(), device())
    outcome = driver.change(change(device(setpoint="22")))
    assert said(outcome, Channel.TWIN_DELTA)[0]["delta"] == {"setpoint": "22"}
    assert said(outcome, Channel.CONFIG) == []


def test_a_model_that_changes_concerns_the_devices_that_use_it() -> None:
    driver = Driver(model(), model("other"), device(setpoint="50"), device("x", of="other"))
    assert said(driver.start, Channel.TWIN_DELTA) == []
    outcome = driver.change(change(model(maximum="60")))
    assert said(outcome, Channel.TWIN_DELTA)[0]["delta"] == {"setpoint": "50"}
    assert [each.topic for each in outcome.publications if each.retain] == [Channel.CONFIG.topic(ID)]
    outcome = driver.change(change(model(), EventType.DELETED))
    assert "not on this node" in said(outcome, Channel.CONFIG)[0]["problem"]


def test_a_device_and_its_model_may_come_in_any_order() -> None:
    first = Driver(device(setpoint="22"))
    assert said(first.start, Channel.TWIN_DELTA) == []
    assert said(first.change(change(model())), Channel.TWIN_DELTA)[0]["delta"] == {"setpoint": "22"}


def test_a_device_that_changes_its_model_leaves_the_old_one_s_users() -> None:
    driver = Driver(model(), model("other", maximum="10"), device(setpoint="22"))
    driver.change(change(device(setpoint="22", of="other")))
    assert driver.fleet.twins[ID].properties["setpoint"].desired.problem
    assert driver.change(change(model())).publications == []


def test_a_device_that_leaves_takes_everything_with_it() -> None:
    driver = Driver(model(), device())
    outcome = driver.change(change(device(), EventType.DELETED))
    assert members(outcome)[0].removed[0].id == ID
    assert Publication(Channel.CONFIG.topic(ID), b"", True) in outcome.publications
    assert driver.documents == {}
    assert said(driver.message(Channel.TWIN_GET.topic(ID), b"{}"), Channel.TWIN_GET_RESULT)[0]["code"] == 404


def test_what_left_while_edgecore_was_away_is_found_at_the_start() -> None:
    before = Driver(model(), device(), device("old"))
    after = Driver(model(), device(), kept=read_documents(before.documents))
    old = ("twin/default/old", "twin/default/old/setpoint", "twin/default/old/temperature")
    assert after.start.documents == dict.fromkeys(old)
    assert [each.id.name for update in members(after.online()) for each in update.removed] == ["old"]


def test_a_restart_with_nothing_new_writes_nothing() -> None:
    before = Driver(model(), device(setpoint="22"))
    before.message(Channel.TWIN_UPDATE.topic(ID), b'{"twin":{"temperature":{"actual":{"value":"1"}}}}')
    after = Driver(model(), device(setpoint="22"), kept=read_documents(before.documents))
    assert after.start.is_durable
    assert after.fleet.twins[ID] == before.fleet.twins[ID]


def test_on_connect_everything_that_stands_is_said() -> None:
    driver = Driver(model(), *(device(f"d{n}", setpoint="22") for n in range(MEMBERS_PER_MESSAGE + 1)))
    outcome = driver.online()
    assert [len(update.added) for update in members(outcome)] == [MEMBERS_PER_MESSAGE, 1]
    assert len(said(outcome, Channel.CONFIG)) == MEMBERS_PER_MESSAGE + 1
    assert len(said(outcome, Channel.TWIN_DELTA)) == MEMBERS_PER_MESSAGE + 1
    assert outcome.is_durable


def test_a_retained_configuration_of_a_device_that_is_not_here_is_taken_away_but_only_ours() -> None:
    driver = Driver(model(), device())
    gone = DeviceId("default", "gone")
    topic = Channel.CONFIG.topic(gone)
    outcome = driver.message(topic, DeviceConfig(gone, "edge1").encode(), retained=True)
    assert outcome.publications == [
        Publication(topic, b"", True),
        Publication(Channel.TWIN.topic(gone), b"", True),
    ]
    assert driver.message(topic, DeviceConfig(gone, "edge2").encode(), retained=True).publications == []
    here = DeviceConfig(ID, "edge1").encode()
    assert driver.message(Channel.CONFIG.topic(ID), here, retained=True).publications == []


def test_a_mapper_s_will_turns_off_the_devices_it_served_once() -> None:
    driver = Driver(model(), device(), device("other"))
    topic = mapper_state_topic("m1")
    driver.message(topic, MapperState("", 0, "online", (ID, DeviceId("default", "unknown"))).encode())
    driver.message(Channel.STATE_UPDATE.topic(ID), b'{"state":"online"}')
    restarted = Driver(model(), device(), device("other"), kept=read_documents(driver.documents))
    will = MapperState("", 0, "offline").encode()
    outcome = restarted.message(topic, will, retained=True)
    assert [each["device"]["state"] for each in said(outcome, Channel.STATE_UPDATE_RESULT)] == ["offline"]
    assert outcome.documents["mapper/m1"] is None
    restarted.message(Channel.STATE_UPDATE.topic(ID), b'{"state":"online"}')
    assert restarted.message(topic, will, retained=True).publications == []
    assert restarted.fleet.twins[ID].state == "online"


def test_mappers_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept({}, {f"m{n}": () for n in range(MAX_MAPPERS)})
    driver = Driver(model(), device(), kept=kept)
    outcome = driver.message(mapper_state_topic("one-more"), MapperState("", 0, "online", (ID,)).encode())
    assert outcome.documents == {}
    assert "too many mappers" in caplog.text


def test_of_many_readings_in_one_outcome_the_last_is_reported() -> None:
    driver = Driver(model(), device())
    outcome = Outcome()
    for value in ("1", "2", "3"):
        payload = json.dumps({"event_id": value, "twin": {"temperature": {"actual": {"value": value}}}}).encode()
        driver.fleet.take_message(Channel.TWIN_UPDATE.topic(ID), payload, moment(), outcome)
    driver.fleet.seal(outcome)
    (report,) = outcome.reports
    assert (report.field, json.loads(report.value)["value"]) == ("property/temperature", "3")
    assert list(outcome.documents) == ["twin/default/thermo-1/temperature"]
    assert [json.loads(each.payload)["event_id"] for each in outcome.not_stored(5, "full")] == ["1", "2", "3"]


def test_a_message_that_nobody_waits_for_is_counted() -> None:
    driver = Driver(model(), device())
    assert driver.message("$hw/events/device/default/thermo-1/twin/nonsense", b"").publications == []
    assert driver.fleet.ignored == 1


# --- what a mapper that starts late finds


def currents(driver: Driver, now_ms: int = 1000) -> dict[str, Any]:
    """The current twins published from then on, until there are none left, by topic."""
    found: dict[str, Any] = {}
    while True:
        some = driver.fleet.current(moment(now_ms))
        if not some:
            return found
        assert all(each.retain for each in some)
        assert len(some) <= CURRENT_PER_TURN
        found |= {each.topic: json.loads(each.payload) for each in some}
        now_ms += 1000


def test_the_current_twin_is_retained_with_all_that_a_late_mapper_must_know() -> None:
    driver = Driver(model(), device(setpoint="22"))
    driver.message(Channel.STATE_UPDATE.topic(ID), b'{"state":"online"}')
    driver.message(Channel.TWIN_UPDATE.topic(ID), b'{"twin":{"temperature":{"actual":{"value":"21"}}}}')
    ((topic, payload),) = currents(driver).items()
    assert topic == "$hw/events/device/default/thermo-1/twin"
    assert (payload["state"], payload["delta"]) == ("online", {"setpoint": "22"})
    assert payload["twin"]["temperature"]["actual"]["value"] == "21"
    assert payload["twin"]["setpoint"]["expected_version"] == {"cloud": 1, "edge": 0}
    assert currents(driver, 2000) == {}
    # An equal report changes nothing, a connection to a broker that may have forgotten everything does.
    driver.message(Channel.TWIN_UPDATE.topic(ID), b'{"twin":{"temperature":{"actual":{"value":"21"}}}}')
    assert currents(driver, 2000) == {}
    driver.online()
    assert list(currents(driver, 2000)) == [topic]


def test_current_twins_come_at_a_bounded_rate_the_last_state_of_each() -> None:
    driver = Driver(model(), *(device(f"d{n}") for n in range(30)))
    started = driver.fleet.current(moment(1000))
    assert len(started) == CURRENT_PER_TURN
    assert driver.fleet.current(moment(1000)) == []
    assert driver.fleet.next_deadline_ms() == 1000 + CURRENT_PER_TURN * 1000 // CURRENT_PER_S
    for value in range(50):
        report = f'{{"twin":{{"temperature":{{"actual":{{"value":"{value}"}}}}}}}}'.encode()
        driver.message(Channel.TWIN_UPDATE.topic(DeviceId("default", "d29")), report)
    found = currents(driver, 2000)
    assert len(found) == 20
    assert found["$hw/events/device/default/d29/twin"]["twin"]["temperature"]["actual"]["value"] == "49"


def test_a_device_that_goes_leaves_nothing_retained() -> None:
    driver = Driver(model(), device())
    outcome = driver.change(change(device(), EventType.DELETED))
    gone = {each.topic for each in outcome.publications if each.retain and not each.payload}
    assert gone == {Channel.CONFIG.topic(ID), Channel.TWIN.topic(ID)}
    assert currents(driver) == {}


def test_a_twin_too_long_for_a_message_says_so_instead() -> None:
    driver = Driver(model(), device())
    for number in range(17):
        text = json.dumps({"twin": {f"t{number}": {"actual": {"value": "x" * 16384}}}}).encode()
        driver.message(Channel.TWIN_UPDATE.topic(ID), text)
    (payload,) = currents(driver).values()
    assert payload["code"] == 413


# --- time


def cycled(report_cycle_ms: int) -> Object:
    return from_json(
        DEVICES,
        {
            "metadata": {"name": "thermo-1", "namespace": "default", "uid": "u"},
            "spec": {
                "deviceModelRef": {"name": "thermostat"},
                "properties": [{"name": "temperature", "reportCycle": report_cycle_ms}],
            },
        },
    )


def pass_time(driver: Driver, now_ms: int) -> Outcome:
    outcome = Outcome()
    driver.fleet.take_time(moment(now_ms), outcome)
    return driver.seal(outcome)


REPORT = b'{"twin":{"temperature":{"actual":{"value":"21"}}}}'


@pytest.mark.parametrize(("report_cycle_ms", "after_ms"), [(0, 180_000), (1000, 180_000), (100_000, 300_000)])
def test_a_reading_is_stale_after_three_cycles_and_not_before_three_minutes(
    report_cycle_ms: int, after_ms: int
) -> None:
    driver = Driver(model(), cycled(report_cycle_ms))
    driver.message(Channel.TWIN_UPDATE.topic(ID), REPORT)
    currents(driver)
    assert driver.fleet.next_deadline_ms() == 1000 + after_ms
    assert pass_time(driver, 999 + after_ms).reports == []
    outcome = pass_time(driver, 1000 + after_ms)
    assert [json.loads(each.value)["stale"] for each in outcome.reports] == [True]
    assert outcome.samples == {(key_of(ID), "temperature"): (1000 + after_ms, None)}
    assert pass_time(driver, 10**9).reports == []
    (payload,) = currents(driver, 10**9).values()
    assert payload["twin"]["temperature"]["actual"]["metadata"] == {"timestamp": 1000, "stale": True}
    assert driver.fleet.next_deadline_ms() is None


def test_reports_move_the_deadline_without_touching_it() -> None:
    driver = Driver(model(), device())
    for now_ms in range(1000, 400_000, 1000):
        driver.message(Channel.TWIN_UPDATE.topic(ID), REPORT, now_ms)
        assert pass_time(driver, now_ms).reports == []
    currents(driver)
    deadline = driver.fleet.next_deadline_ms()
    assert deadline is not None
    assert deadline <= 399_000 + 180_000
    assert pass_time(driver, 399_000 + 180_000 - 1).reports == []
    assert len(pass_time(driver, 399_000 + 180_000).reports) == 1


def test_a_clock_that_is_set_makes_nothing_stale() -> None:
    driver = Driver(model(), device())
    driver.message(Channel.TWIN_UPDATE.topic(ID), REPORT)
    driver.fleet.clock_jumped(10**12)
    assert pass_time(driver, 10**12).reports == []
    assert len(pass_time(driver, 10**12 + 180_000).reports) == 1


def test_news_that_waits_for_its_report_cycle_has_a_deadline_that_outlives_a_clock_set_back() -> None:
    driver = Driver(model(), cycled(10_000))
    topic = Channel.TWIN_UPDATE.topic(ID)
    assert len(driver.message(topic, REPORT, 50_000).reports) == 1
    assert driver.message(topic, REPORT.replace(b"21", b"22"), 51_000).reports == []
    currents(driver, 51_000)
    assert driver.fleet.next_deadline_ms() == 60_000
    assert pass_time(driver, 59_999).reports == []
    assert [json.loads(each.value)["value"] for each in pass_time(driver, 60_000).reports] == ["22"]

    assert driver.message(topic, REPORT, 61_000).reports == []
    driver.fleet.clock_jumped(1000)
    assert [json.loads(each.value)["value"] for each in pass_time(driver, 1000).reports] == ["21"]


# --- mappers and Events


def test_two_mappers_at_one_device_are_served_and_told_and_the_end_of_one_turns_nothing_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = Driver(model(), device())
    driver.message(Channel.STATE_UPDATE.topic(ID), b'{"state":"online"}')
    first, second = (MapperState("", 0, "online", (ID,)).encode() for _ in "12")
    driver.message(mapper_state_topic("m1"), first)
    outcome = driver.message(mapper_state_topic("m2"), second)
    assert "a mapper claims devices that another one serves" in caplog.text
    assert "m1 and m2" in json.loads(outcome.reports[0].value)["problem"]
    assert list(driver.fleet.claims.contested) == [ID]
    assert [each.reason for each in pass_time(driver, 1000).events] == ["TwoMappers"]
    driver.message(mapper_state_topic("m1"), MapperState("", 0, "offline").encode())
    assert driver.fleet.twins[ID].state == "online"
    assert list(driver.fleet.claims.contested) == []
    driver.message(mapper_state_topic("m2"), MapperState("", 0, "offline").encode())
    assert driver.fleet.twins[ID].state == "offline"
    (event,) = pass_time(driver, 1001).events
    assert (event.reason, event.uid, event.about.name) == ("MapperGone", "u", "thermo-1")
    assert "m2" in event.message


def test_lost_updates_are_counted_and_told() -> None:
    driver = Driver(model(), device())
    for number in (1, 2, 7):
        report = f'{{"sequence":{number},"twin":{{"temperature":{{"actual":{{"value":"1"}}}}}}}}'.encode()
        driver.message(Channel.TWIN_UPDATE.topic(ID), report)
    assert driver.fleet.missed == 4
    (event,) = pass_time(driver, 1000).events
    assert (event.reason, event.message) == ("SequenceGap", "updates 3 to 6 of the mapper never came")
    outcome = driver.message(Channel.TWIN_UPDATE.topic(ID), b'{"event_id":"e","sequence":"8","twin":{}}')
    assert said(outcome, Channel.TWIN_UPDATE_RESULT)[0]["code"] == 400
