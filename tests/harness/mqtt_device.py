"""
Devices that speak MQTT in their own way: `python -m tests.harness.mqtt_device KIND PORT`, on a broker on loopback.

    tasmota     a plug that measures, as of Tasmota's documentation, "MQTT": cmnd/plug/..., stat/plug/..., tele/plug/...
    zigbee      a lamp behind Zigbee2MQTT, as of its documentation, "MQTT Topics and Messages": zigbee2mqtt/lamp...
    sensor      tells plain texts on room/...: what is sent to room/say/TOPIC it says on room/TOPIC

kill -9 leaves the last will to speak, where there is one.
"""

import json
import sys
import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

TELE_S = 0.2
"""Tasmota's own is 300 s."""


class Device:
    """What they have in common."""

    will: tuple[str, str] | None = None
    listens_to: tuple[str, ...] = ()

    def __init__(self, port: int) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=type(self).__name__)
        if self.will is not None:
            self.client.will_set(*self.will, qos=1, retain=True)
        self.client.on_connect = self.subscribe
        self.client.on_subscribe = lambda *_: self.begin()
        self.client.on_message = lambda _client, _data, message: self.hear(message.topic, message.payload.decode())
        self.client.connect("127.0.0.1", port)

    def subscribe(self, *_: object) -> None:
        self.client.subscribe([(topic, 1) for topic in self.listens_to])

    def say(self, topic: str, payload: object, *, retain: bool = False) -> None:
        text = payload if isinstance(payload, str) else json.dumps(payload)
        self.client.publish(topic, text, qos=1, retain=retain)

    def begin(self) -> None:
        print("ready 0", flush=True)

    def hear(self, topic: str, text: str) -> None: ...

    def tell(self) -> None: ...


class Tasmota(Device):
    will = ("tele/plug/LWT", "Offline")
    listens_to = ("cmnd/plug/+",)

    power = "OFF"
    dimmer = 30
    watts = 12.5

    def begin(self) -> None:
        self.say("tele/plug/LWT", "Online", retain=True)
        self.say("tele/plug/STATE", self.state())
        super().begin()

    def state(self) -> dict[str, Any]:
        return {"Time": "2023-11-14T22:13:20", "POWER": self.power, "Dimmer": self.dimmer, "Wifi": {"RSSI": 90}}

    def hear(self, topic: str, text: str) -> None:
        match topic.rpartition("/")[2].upper(), text.upper():
            case "POWER", "ON" | "OFF" as word:
                self.power = word
                self.say("stat/plug/RESULT", {"POWER": self.power})
                self.say("stat/plug/POWER", self.power)
            case "DIMMER", number if number.isdigit() and int(number) <= 100:
                self.dimmer, self.power = int(number), "ON"
                self.say("stat/plug/RESULT", {"POWER": self.power, "Dimmer": self.dimmer})
            case "STATE", _:
                self.say("stat/plug/RESULT", self.state())
            case _:
                self.say("stat/plug/RESULT", {"Command": "Unknown"})

    def tell(self) -> None:
        self.watts += 0.5
        self.say("tele/plug/SENSOR", {"Time": "2023-11-14T22:13:20", "ENERGY": {"Power": self.watts}})


class Zigbee(Device):
    will = ("zigbee2mqtt/bridge/state", '{"state":"offline"}')
    listens_to = ("zigbee2mqtt/lamp/set", "zigbee2mqtt/lamp/get", "zigbee2mqtt/lamp/unplug")

    def begin(self) -> None:
        self.now: dict[str, Any] = {"state": "OFF", "brightness": 100, "last_seen": 1_700_000_000_000, "effect": None}
        self.say("zigbee2mqtt/bridge/state", {"state": "online"}, retain=True)
        self.say("zigbee2mqtt/lamp/availability", {"state": "online"}, retain=True)
        super().begin()

    def hear(self, topic: str, text: str) -> None:
        match topic.rpartition("/")[2]:
            case "set":
                self.now |= json.loads(text)
                self.now["brightness"] = min(self.now["brightness"], 254)
                self.say("zigbee2mqtt/lamp", self.now)
            case "get":
                assert json.loads(text) == {"state": ""}
                self.say("zigbee2mqtt/lamp", self.now)
            case "unplug":
                self.say("zigbee2mqtt/lamp/availability", {"state": "offline"}, retain=True)


class Sensor(Device):
    listens_to = ("room/say/+",)

    def begin(self) -> None:
        self.say("room/temperature", "21.5\n", retain=True)
        super().begin()

    def hear(self, topic: str, text: str) -> None:
        self.say(f"room/{topic.rpartition('/')[2]}", text)


def main() -> None:
    kinds = {"tasmota": Tasmota, "zigbee": Zigbee, "sensor": Sensor}
    device = kinds[sys.argv[1]](int(sys.argv[2]))
    device.client.loop_start()
    while not threading.Event().wait(TELE_S):
        device.tell()


if __name__ == "__main__":
    main()
