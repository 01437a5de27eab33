"""One device's task, with a real broker and drivers that behave as badly as devices do."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest

from apimachinery.devices import PropertyModel, PropertyType
from componentbase.brokers import BrokerAddress
from componentbase.endpoints import Endpoint
from devicetwin.messages import Channel, DeviceId, ErrorReply
from mappers.attendant import HEAR_S, Attendant
from mappers.dialogue import CHANNELS
from mappers.driver import (
    BadConfig,
    Device,
    DeviceSilent,
    DriverFactory,
    Property,
    Reading,
    Sink,
    Value,
    WriteRefused,
)
from mappers.mqtt import Connection, Message, connect
from tests.harness.mosquitto import Mosquitto
from tests.harness.mqtt_edge import MqttEdge

ID = DeviceId("default", "lamp")


@pytest.fixture(scope="module")
def shared() -> Iterator[Mosquitto]:
    with Mosquitto() as one:
        yield one


@pytest.fixture
def edge(shared: Mosquitto) -> Iterator[MqttEdge]:
    with MqttEdge(shared.port) as one:
        yield one


class Lamp:
    """A driver and its device."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {"brightness": 0, "watt": 0.5}
        self.calls: list[str] = []
        self.called_at: list[float] = []
        self.device: Device | None = None
        self.trouble: dict[str, Exception] = {}
        """What a method raises."""
        self.troubled_once = False
        """It raises it only once."""
        self.hangs = False

    def __call__(self, device: Device) -> "Lamp":
        self._do("make")
        self.device = device
        return self

    async def connect(self) -> None:
        self._do("connect")

    async def read(self, names: Collection[str]) -> Mapping[str, Reading]:
        self._do("read")
        if self.hangs:
            await asyncio.Event().wait()
        return {name: Reading(self.values[name]) for name in names if name in self.values}

    async def write(self, name: str, value: Value) -> None:
        self._do(f"write {name} {value!r}")
        self.values[name] = value

    async def close(self) -> None:
        self._do("close")

    def count(self, call: str) -> int:
        return self.calls.count(call)

    def _do(self, call: str) -> None:
        self.calls.append(call)
        self.called_at.append(time.monotonic())
        method = call.partition(" ")[0]
        if (problem := self.trouble.get(method)) is not None:
            if self.troubled_once:
                del self.trouble[method]
            raise problem


class SpeakingLamp(Lamp):
    """It tells of its brightness by itself; its power has to be asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.sinks: list[Sink] = []
        self.is_away = False

    async def subscribe(self, sink: Sink) -> Collection[str]:
        self._do("subscribe")
        self.sinks.append(sink)
        if self.is_away:
            sink.away("not heard of yet")
        return ["brightness"]

    def say(self, **values: Value) -> None:
        self.values.update(values)
        self.sinks[-1].heard({name: Reading(value, 1234) for name, value in values.items()})


def a_device(collect_s: float = 0.05, **settings: object) -> Device:
    brightness = PropertyModel("brightness", PropertyType.INT, True, "0", "100", "%")
    watt = PropertyModel("watt", PropertyType.FLOAT, False, "", "", "W")
    return Device(
        str(ID), settings, {each.name: Property(each, {}, collect_s, 60.0, True, 0.0) for each in (brightness, watt)}
    )


@asynccontextmanager
async def attended(
    edge: MqttEdge,
    factory: DriverFactory,
    device: Device | None = None,
    push: Callable[[Device, Mapping[str, Reading]], None] = lambda device, readings: None,
) -> AsyncIterator[Attendant]:
    """An attendant on a connection of its own, fed as the runtime does it."""
    attendant = Attendant(device or a_device(), factory, push)

    async def feed(connection: Connection) -> None:
        while True:
            message = await connection.receive()
            channel = next(each for each in CHANNELS if each.topic(ID) == message.topic)
            attendant.take(channel, message.payload)

    broker = BrokerAddress(Endpoint("127.0.0.1", edge._port))
    async with connect(broker, "mapper-test", Message("wills/test", b"")) as connection:
        connection.subscribe([channel.topic(ID) for channel in CHANNELS])
        attendant.attach(connection)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(feed(connection), name="feed"),
                group.create_task(attendant.run(), name="attendant"),
            ]
            yield attendant
            tasks[1].cancel()
            await asyncio.wait(tasks[1:])
            tasks[0].cancel()


async def test_it_comes_online_reports_and_obeys(edge: MqttEdge) -> None:
    lamp = Lamp()
    async with attended(edge, lamp):
        await edge.until(lambda: edge.reported(ID) == {"brightness": "0", "watt": "0.5"}, "the first report")
        assert edge.states_of(ID) == ["online"]
        edge.desire(ID, 4, brightness="70")
        await edge.until(lambda: edge.reported(ID)["brightness"] == "70", "the answer")
        assert edge.answered(ID, "brightness") == 4
        lamp.values["watt"] = 8.0
        await edge.until(lambda: edge.reported(ID)["watt"] == "8.0", "a change")
    assert lamp.count("write brightness 70") == 1
    assert (lamp.count("connect"), lamp.count("close")) == (1, 1)
    await edge.until(lambda: edge.states_of(ID) == ["online", "offline"], "its last word")


async def test_it_knows_what_was_desired_before_it_started(edge: MqttEdge) -> None:
    edge.desire(ID, 4, brightness="70")
    lamp = Lamp()
    async with attended(edge, lamp):
        await edge.until(lambda: edge.reported(ID).get("brightness") == "70", "the answer")
    assert lamp.count("write brightness 70") == 1


async def test_the_same_delta_over_and_over_is_written_once(edge: MqttEdge) -> None:
    lamp = Lamp()
    async with attended(edge, lamp):
        await edge.until(lambda: edge.reported(ID), "the first report")
        for _ in range(50):
            edge.desire(ID, 4, brightness="70")
            await asyncio.sleep(0.01)
        await edge.until(lambda: edge.reported(ID).get("brightness") == "70", "the answer")
    assert lamp.count("write brightness 70") == 1
    assert len([heard for heard in edge.updates if "brightness" in heard.update.twin]) == 2


@pytest.mark.parametrize("problem", [DeviceSilent("no answer"), TimeoutError(), ConnectionResetError("gone")])
async def test_a_silent_device_is_offline_until_it_answers(edge: MqttEdge, problem: Exception) -> None:
    lamp = Lamp()
    async with attended(edge, lamp):
        await edge.until(lambda: edge.states_of(ID) == ["online"], "online")
        lamp.trouble["read"] = problem
        await edge.until(lambda: edge.states_of(ID) == ["online", "offline"], "offline")
        heard = len(edge.updates)
        lamp.values["watt"] = 9.0
        del lamp.trouble["read"]
        await edge.until(lambda: edge.states_of(ID) == ["online", "offline", "online"], "online again")
        await edge.until(lambda: edge.reported(ID)["watt"] == "9.0", "a fresh report")
        assert all("watt" in update.twin for _, update in edge.updates[heard : heard + 1])
    assert lamp.count("connect") == lamp.count("close")


async def test_one_lost_answer_does_not_turn_it_offline(edge: MqttEdge) -> None:
    lamp = Lamp()
    async with attended(edge, lamp):
        await edge.until(lambda: edge.states_of(ID) == ["online"], "online")
        lamp.troubled_once = True
        lamp.trouble["read"] = DeviceSilent("noise")
        await edge.until(lambda: lamp.count("close"), "the miss")
        lamp.values["watt"] = 7.0
        await edge.until(lambda: edge.reported(ID)["watt"] == "7.0", "the next report")
        assert edge.states_of(ID) == ["online"]


async def test_tries_at_a_device_that_is_not_there_are_few(edge: MqttEdge) -> None:
    lamp = Lamp()
    lamp.trouble["connect"] = OSError("no route")
    async with attended(edge, lamp):
        await edge.until(lambda: edge.states_of(ID) == ["offline"], "offline")
        await edge.until(lambda: lamp.count("connect") >= 3, "a third try")
        _, second, third, *_ = (at for at, call in zip(lamp.called_at, lamp.calls, strict=True) if call == "connect")
        assert third - second > 1.5
        assert edge.updates == []


async def test_a_device_that_hangs_is_given_up_in_time(edge: MqttEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mappers.attendant.CALL_TIMEOUT_S", 0.1)
    lamp = Lamp()
    lamp.hangs = True
    async with attended(edge, lamp):
        await edge.until(lambda: edge.states_of(ID) == ["offline"], "offline")


async def test_a_refused_value_is_answered_with_what_is(edge: MqttEdge, caplog: pytest.LogCaptureFixture) -> None:
    lamp = Lamp()
    lamp.trouble["write"] = WriteRefused("child lock")
    async with attended(edge, lamp):
        await edge.until(lambda: edge.reported(ID), "the first report")
        edge.desire(ID, 4, brightness="70")
        await edge.until(lambda: edge.answered(ID, "brightness") == 4, "the answer")
        assert edge.reported(ID)["brightness"] == "0"
        assert edge.refused(ID, "brightness") == "child lock"
        edge.desire(ID, 4, brightness="70")
        lamp.values["watt"] = 1.0
        await edge.until(lambda: edge.reported(ID)["watt"] == "1.0", "a round")
    assert lamp.count("write brightness 70") == 1
    (record,) = [each for each in caplog.records if each.message == "device refuses the desired value"]
    assert vars(record)["reason"] == "child lock"


async def test_a_wish_for_a_device_that_is_offline_waits_for_it(edge: MqttEdge) -> None:
    lamp = Lamp()
    lamp.trouble["connect"] = DeviceSilent("unplugged")
    async with attended(edge, lamp):
        await edge.until(lambda: edge.states_of(ID) == ["offline"], "offline")
        edge.desire(ID, 4, brightness="70")
        lamp.trouble.clear()
        await edge.until(lambda: edge.reported(ID).get("brightness") == "70", "the answer")


@pytest.mark.parametrize("where", ["make", "connect", "read"])
async def test_a_configuration_that_cannot_work_is_unhealthy_until_it_changes(edge: MqttEdge, where: str) -> None:
    lamp = Lamp()
    lamp.trouble[where] = BadConfig("protocol.configData.port must be a number")
    async with attended(edge, lamp) as attendant:
        await edge.until(lambda: edge.states_of(ID) == ["unhealthy"], "unhealthy")
        tries = lamp.count(where)
        await asyncio.sleep(0.05)
        assert lamp.count(where) == tries
        lamp.trouble.clear()
        attendant.adopt(a_device(port=502))
        await edge.until(lambda: edge.states_of(ID) == ["unhealthy", "online"], "online")
        assert lamp.device is not None
        assert lamp.device.settings == {"port": 502}


async def test_a_bug_in_a_driver_is_told_in_full_and_survived(edge: MqttEdge, caplog: pytest.LogCaptureFixture) -> None:
    lamp = Lamp()
    lamp.trouble["read"] = KeyError("oops")
    async with attended(edge, lamp):
        await edge.until(lambda: edge.states_of(ID) == ["offline"], "offline")
        lamp.trouble.clear()
        await edge.until(lambda: edge.states_of(ID) == ["offline", "online"], "online")
    records = [each for each in caplog.records if each.message == "driver failed"]
    assert records
    assert all(each.exc_info for each in records)


async def test_a_driver_that_cannot_close_is_let_go_of(edge: MqttEdge, caplog: pytest.LogCaptureFixture) -> None:
    lamp = Lamp()
    lamp.trouble["close"] = OSError("stuck")
    async with attended(edge, lamp):
        await edge.until(lambda: edge.states_of(ID) == ["online"], "online")
    assert "driver did not close" in [each.message for each in caplog.records]


async def test_a_changed_cycle_counts_and_keeps_the_driver(edge: MqttEdge) -> None:
    lamp = Lamp()
    async with attended(edge, lamp, a_device(collect_s=3600)) as attendant:
        await edge.until(lambda: edge.reported(ID), "the first report")
        reads = lamp.count("read")
        attendant.adopt(a_device(collect_s=0.05))
        await edge.until(lambda: lamp.count("read") > reads + 3, "more readings")
        assert lamp.count("make") == lamp.count("connect") == 1


async def test_changed_settings_make_a_new_driver(edge: MqttEdge) -> None:
    lamp = Lamp()
    async with attended(edge, lamp) as attendant:
        await edge.until(lambda: edge.reported(ID), "the first report")
        attendant.adopt(a_device(port=502))
        await edge.until(lambda: lamp.count("connect") == 2, "a new driver")
        assert lamp.calls.index("close") < len(lamp.calls) - 1 - lamp.calls[::-1].index("make")
        assert edge.states_of(ID) == ["online"]


async def test_without_a_connection_the_device_is_left_alone_and_then_told_anew(edge: MqttEdge) -> None:
    lamp = Lamp()
    async with attended(edge, lamp) as attendant:
        await edge.until(lambda: edge.reported(ID), "the first report")
        connection = attendant._connection
        assert connection is not None
        attendant.detach()
        await edge.until(lambda: attendant._connection is None, "the task to notice")
        reads, heard = lamp.count("read"), len(edge.updates)
        await asyncio.sleep(0.05)
        assert lamp.count("read") <= reads + 1
        attendant.attach(connection)
        await edge.until(lambda: len(edge.updates) > heard, "a report")
        await edge.until(lambda: edge.states_of(ID) == ["online", "online"], "its state")
        assert lamp.count("connect") == 1


async def test_what_the_edge_refuses_is_logged_and_not_repeated_at_once(
    edge: MqttEdge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.refusal = ErrorReply("", 0, 404, "no such device")
    lamp = Lamp()
    async with attended(edge, lamp):
        await edge.until(lambda: "trouble with the edge" in caplog.messages, "the answer to the first report")
        reads = lamp.count("read")
        await edge.until(lambda: lamp.count("read") > reads + 5, "some rounds")
        assert len(edge.updates) == 1
    records = [each for each in caplog.records if each.message == "trouble with the edge"]
    assert [vars(each)["reason"] for each in records] == ["no such device"]


async def test_rubbish_is_logged_and_ignored(edge: MqttEdge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    lamp = Lamp()
    async with attended(edge, lamp):
        await edge.until(lambda: edge.reported(ID), "the first report")
        for payload in (b"", b"\xff", b"[]", b'{"delta":{"brightness":70}}', b'{"delta":{"brightness":"1e999"}}'):
            edge.publish(Channel.TWIN_DELTA.topic(ID), payload)
        edge.publish(Channel.TWIN_UPDATE_RESULT.topic(ID), b"nonsense")
        edge.desire(ID, 1, brightness="5")
        await edge.until(lambda: edge.reported(ID).get("brightness") == "5", "the answer")
    assert "trouble with the edge" in [each.message for each in caplog.records]


async def test_a_device_that_is_gone_has_no_last_word(edge: MqttEdge) -> None:
    lamp = Lamp()
    async with attended(edge, lamp) as attendant:
        await edge.until(lambda: edge.states_of(ID) == ["online"], "online")
        attendant.forget()
    await asyncio.sleep(0.05)
    assert edge.states_of(ID) == ["online"]
    assert lamp.count("close") == 1


# --- a device that speaks for itself


async def test_what_a_device_says_is_reported_and_not_polled(edge: MqttEdge) -> None:
    lamp = SpeakingLamp()
    async with attended(edge, lamp, a_device(collect_s=3600)):
        await edge.until(lambda: edge.reported(ID) == {"brightness": "0", "watt": "0.5"}, "the first report")
        lamp.say(brightness=40)
        await edge.until(lambda: edge.reported(ID)["brightness"] == "40", "its word")
        said = edge.updates[-1].update.twin["brightness"]
        assert said is not None
        assert said.actual is not None
        assert said.actual.timestamp_ms == 1234
        assert lamp.calls[:4] == ["make", "connect", "subscribe", "read"]
        assert lamp.count("read") == 1


async def test_samples_are_pushed_whether_they_were_read_or_said(edge: MqttEdge) -> None:
    lamp = SpeakingLamp()
    pushed: list[tuple[str, Value | None]] = []

    def push(device: Device, readings: Mapping[str, Reading]) -> None:
        pushed.extend((name, reading.value) for name, reading in readings.items())

    async with attended(edge, lamp, a_device(collect_s=3600), push):
        await edge.until(lambda: ("watt", 0.5) in pushed, "what was read")
        lamp.say(brightness=40)
        await edge.until(lambda: pushed[-1] == ("brightness", 40), "what was said")
        lamp.sinks[-1].heard({"brightness": None})
        lamp.say(watt=2.0)
        await edge.until(lambda: pushed[-1] == ("watt", 2.0), "a word after one without a value")
        assert ("brightness", None) not in pushed


async def test_a_flood_of_words_ends_in_few_reports_and_the_last_value(edge: MqttEdge) -> None:
    lamp = SpeakingLamp()
    async with attended(edge, lamp, a_device(collect_s=3600)):
        await edge.until(lambda: edge.reported(ID), "the first report")
        began = time.monotonic()
        for number in range(3000):
            lamp.say(brightness=number % 100)
            if number % 10 == 0:
                await asyncio.sleep(0)
        lamp.say(brightness=77)
        await edge.until(lambda: edge.reported(ID)["brightness"] == "77", "the last word")
        assert len(edge.updates) <= 3 + (time.monotonic() - began) / HEAR_S


async def test_a_speaking_device_is_written_to_once_and_answers_by_its_word(edge: MqttEdge) -> None:
    lamp = SpeakingLamp()
    async with attended(edge, lamp, a_device(collect_s=3600)):
        await edge.until(lambda: edge.reported(ID), "the first report")
        edge.desire(ID, 4, brightness="70")
        await edge.until(lambda: lamp.count("write brightness 70"), "the write")
        assert edge.answered(ID, "brightness") is None
        lamp.say(brightness=70)
        await edge.until(lambda: edge.answered(ID, "brightness") == 4, "the answer")
        assert edge.reported(ID)["brightness"] == "70"
    assert lamp.count("write brightness 70") == 1


async def test_a_device_that_says_goodbye_is_offline_and_left_alone_until_it_is_back(edge: MqttEdge) -> None:
    lamp = SpeakingLamp()
    async with attended(edge, lamp):
        await edge.until(lambda: edge.states_of(ID) == ["online"], "online")
        lamp.sinks[-1].away("its last will says offline")
        await edge.until(lambda: edge.states_of(ID) == ["online", "offline"], "offline")
        reads = lamp.count("read")
        edge.desire(ID, 4, brightness="70")
        await asyncio.sleep(0.05)
        assert lamp.count("read") == reads
        assert lamp.count("write brightness 70") == 0
        lamp.say()
        await edge.until(lambda: edge.states_of(ID) == ["online", "offline", "online"], "online again")
        await edge.until(lambda: lamp.count("write brightness 70"), "what was desired meanwhile")
        assert lamp.count("connect") == 1


async def test_a_device_not_heard_of_yet_is_never_said_to_be_online(edge: MqttEdge) -> None:
    lamp = SpeakingLamp()
    lamp.is_away = True
    async with attended(edge, lamp):
        await edge.until(lambda: edge.states_of(ID) == ["offline"], "offline")
        assert lamp.count("read") == 0
        lamp.say(brightness=5)
        await edge.until(lambda: edge.states_of(ID) == ["offline", "online"], "online")
        await edge.until(lambda: edge.reported(ID).get("brightness") == "5", "its word")


async def test_a_lost_subscription_is_made_again_and_the_old_one_says_nothing(edge: MqttEdge) -> None:
    lamp = SpeakingLamp()
    async with attended(edge, lamp, a_device(collect_s=3600)):
        await edge.until(lambda: edge.reported(ID), "the first report")
        lamp.sinks[-1].lost(DeviceSilent("no keep-alive"))
        await edge.until(lambda: lamp.count("subscribe") == 2, "a second subscription")
        lamp.sinks[0].heard({"brightness": Reading(13)})
        lamp.say(brightness=60)
        await edge.until(lambda: edge.reported(ID)["brightness"] == "60", "its word")
        values = [entry.actual for _, update in edge.updates if (entry := update.twin.get("brightness")) is not None]
        assert "13" not in [value.value for value in values if value is not None]
        assert (lamp.count("connect"), lamp.count("close")) == (2, 1)


async def test_a_lost_subscription_to_a_bad_configuration_is_unhealthy(edge: MqttEdge) -> None:
    lamp = SpeakingLamp()
    async with attended(edge, lamp, a_device(collect_s=3600)):
        await edge.until(lambda: edge.states_of(ID) == ["online"], "online")
        lamp.sinks[-1].lost(BadConfig("there is no such topic"))
        await edge.until(lambda: edge.states_of(ID) == ["online", "unhealthy"], "unhealthy")


async def test_another_pace_makes_another_subscription(edge: MqttEdge) -> None:
    lamp = SpeakingLamp()
    async with attended(edge, lamp, a_device(collect_s=3600)) as attendant:
        await edge.until(lambda: edge.reported(ID), "the first report")
        attendant.adopt(a_device(collect_s=60))
        await edge.until(lambda: lamp.count("subscribe") == 2, "a new subscription")
        assert lamp.count("make") == 2
