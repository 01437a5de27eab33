"""
The `mapper` process: it learns its devices from MQTT and keeps one task for each, with no file to edit.

Which devices: those whose protocol is named as the driver, from the retained configurations that the edge
publishes. They come, change and go while the mapper runs.

Who dies: a connection has one last will, a mapper many devices. So there is one connection for all of them,
and the mapper tells, retained, which devices it serves; its will says that it is offline, and the edge turns
the devices of the last list offline. The client id is the mapper's name and stable: a restarted mapper throws
out what is left of its predecessor, so that the old will comes before the new "online" and not after.

Invariants
    a device has at most one task at a time: the old one has ended before the next begins
    every task ends before the connection is closed, so that each device's "offline" is still sent
    without a broker nothing ends: devices keep what they have, and the connection is tried again for ever
"""

import argparse
import asyncio
import logging
import os
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, NoReturn

from componentbase import cli
from componentbase.brokers import BrokerAddress
from devicetwin.messages import (
    OFFLINE,
    Ask,
    Channel,
    DeviceConfig,
    DeviceId,
    DeviceTopic,
    MapperState,
    MembershipList,
    MembershipUpdate,
    MessageError,
    NodeChannel,
    NodeTopic,
    TopicError,
    mapper_state_topic,
    parse_topic,
)
from mappers.attendant import ONLINE, Attendant
from mappers.dialogue import CHANNELS
from mappers.driver import Device, DriverFactory
from mappers.membership import device_from
from mappers.mqtt import Connection, ConnectionLost, Message, MqttError, connect, reconnect_after_s
from mappers.registry import UnknownDriver, driver_names, find_driver, load_driver

HELD_S = 10.0
"""A connection that held this long was a good one: the next loss starts the waiting times anew."""
FAREWELL_S = 2.0
"""For the devices' tasks to end; the rest of the five seconds that SIGTERM may take is for the goodbye."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")

logger = logging.getLogger(__name__)


class Options(NamedTuple):
    """What a mapper is told on its command line."""

    protocol: str
    """Which devices are meant: their `protocolName`."""
    broker: BrokerAddress
    name: str
    """The mapper's own name: unique on the broker."""
    node: str | None = None
    """Serve only devices of this node; None for all that the broker knows."""
    devices: frozenset[DeviceId] = frozenset()
    """Serve only these; empty for all."""


class _Attended(NamedTuple):
    config: DeviceConfig
    attendant: Attendant
    task: "asyncio.Task[NoReturn]"


class Mapper:
    """All devices of one driver."""

    def __init__(self, options: Options, factory: DriverFactory) -> None:
        self._options = options
        self._factory = factory
        self._attended: dict[DeviceId, _Attended] = {}
        self._has_changed = False
        """The list of devices is to be told again."""
        self._event_count = 0

    async def run(self) -> NoReturn:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            await self._keep_connected(group)

    async def _keep_connected(self, group: asyncio.TaskGroup) -> NoReturn:
        attempt = 0
        about = {"broker": str(self._options.broker), "mapper": self._options.name}
        will = self._own_state(OFFLINE, told=False)
        while True:
            began = time.monotonic()
            try:
                async with connect(self._options.broker, f"mapper-{self._options.name}", will) as connection:
                    logger.info("connected", extra=about)
                    await self._converse(connection, group)
            except MqttError as exc:
                for each in self._attended.values():
                    each.attendant.detach()
                attempt = 1 if time.monotonic() - began > HELD_S else attempt + 1
                wait_s = reconnect_after_s(attempt, random.random())  # noqa: S311  spreads mappers out, hides nothing
                facts = {**about, "reason": str(exc), "retry_in_s": round(wait_s, 1)}
                if not isinstance(exc, ConnectionLost):
                    logger.warning("broker not reachable, trying again", extra=facts)
                elif attempt <= 2:
                    logger.warning("connection lost, trying again", extra=facts)
                else:
                    logger.warning("connection lost again at once: does another mapper use this name?", extra=facts)
                await asyncio.sleep(wait_s)

    async def _converse(self, connection: Connection, group: asyncio.TaskGroup) -> NoReturn:
        try:
            self._greet(connection)
            while True:
                if self._has_changed and not connection.has_messages():
                    # Not after each of a thousand retained configurations, but after the last.
                    connection.publish(self._own_state(ONLINE, told=True))
                    self._has_changed = False
                await self._take(await connection.receive(), connection, group)
        except asyncio.CancelledError:
            await self._say_farewell(connection)
            raise

    def _greet(self, connection: Connection) -> None:
        node = self._options.node or "+"
        connection.subscribe(
            [
                Channel.CONFIG.filter,
                NodeChannel.MEMBERSHIP_UPDATED.topic(node),
                NodeChannel.MEMBERSHIP_GET_RESULT.topic(node),
            ]
        )
        connection.publish(self._own_state(ONLINE, told=True))
        self._has_changed = False
        for each in self._attended.values():
            connection.subscribe(_topics(each.config.id))
            each.attendant.attach(connection)
        # What was deleted while there was no connection has left no retained message to tell of it.
        for known in sorted({each.config.node for each in self._attended.values()} - {""}):
            ask = Ask(self._event_id(), _now_ms())
            connection.publish(Message(NodeChannel.MEMBERSHIP_GET.topic(known), ask.encode()))

    async def _say_farewell(self, connection: Connection) -> None:
        tasks = [each.task for each in self._attended.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=FAREWELL_S)
        try:
            connection.publish(self._own_state(OFFLINE, told=False))
        except ConnectionLost:
            return  # then the will says the same

    # --- messages

    async def _take(self, message: Message, connection: Connection, group: asyncio.TaskGroup) -> None:
        try:
            match parse_topic(message.topic):
                case DeviceTopic(device, Channel.CONFIG):
                    await self._take_config(device, message.payload, connection, group)
                case DeviceTopic(device, channel):
                    if (attended := self._attended.get(device)) is not None and channel in CHANNELS:
                        attended.attendant.take(channel, message.payload)
                case NodeTopic(_, NodeChannel.MEMBERSHIP_UPDATED):
                    for member in MembershipUpdate.decode(message.payload).removed:
                        await self._stop(member.id, connection, is_gone=True)
                case NodeTopic(node, NodeChannel.MEMBERSHIP_GET_RESULT):
                    members = MembershipList.decode(message.payload)
                    if isinstance(members, MembershipList):
                        await self._keep_only(node, {member.id for member in members.devices}, connection)
                case _:
                    pass  # not subscribed to
        except (TopicError, MessageError) as exc:
            logger.warning("message ignored", extra={"topic": message.topic, "reason": str(exc)})

    async def _take_config(
        self, device: DeviceId, payload: bytes, connection: Connection, group: asyncio.TaskGroup
    ) -> None:
        if not payload:
            await self._stop(device, connection, is_gone=True)
            return
        config = DeviceConfig.decode(payload)
        if config.id != device:
            raise MessageError(f"it is about {config.id}")
        known = self._attended.get(device)
        if not self._is_ours(config):
            await self._stop(device, connection, is_gone=False)
        elif known is None:
            self._start(config, connection, group)
        elif known.config != config:
            self._attended[device] = known._replace(config=config)
            known.attendant.adopt(self._device_from(config))

    def _device_from(self, config: DeviceConfig) -> Device:
        device, problems = device_from(config)
        for problem in problems:
            logger.warning("configuration not complete", extra={"device": device.id, "problem": problem})
        return device

    async def _keep_only(self, node: str, members: set[DeviceId], connection: Connection) -> None:
        for device in [each.config.id for each in self._attended.values() if each.config.node == node]:
            if device not in members:
                await self._stop(device, connection, is_gone=True)

    def _is_ours(self, config: DeviceConfig) -> bool:
        return (
            config.protocol.name == self._options.protocol
            and self._options.node in (None, config.node)
            and (not self._options.devices or config.id in self._options.devices)
        )

    # --- devices

    def _start(self, config: DeviceConfig, connection: Connection, group: asyncio.TaskGroup) -> None:
        attendant = Attendant(self._device_from(config), self._factory)
        connection.subscribe(_topics(config.id))
        attendant.attach(connection)
        task = group.create_task(attendant.run(), name=f"device[{config.id}]")
        self._attended[config.id] = _Attended(config, attendant, task)
        self._has_changed = True
        logger.info("device added", extra={"device": str(config.id), "node": config.node})

    async def _stop(self, device: DeviceId, connection: Connection, *, is_gone: bool) -> None:
        attended = self._attended.pop(device, None)
        if attended is None:
            return
        self._has_changed = True
        if is_gone:
            attended.attendant.forget()
        attended.task.cancel()
        await asyncio.wait([attended.task])
        connection.unsubscribe(_topics(device))
        logger.info("device removed", extra={"device": str(device)})

    def _own_state(self, state: str, *, told: bool) -> Message:
        devices = tuple(sorted(self._attended)) if told else None
        payload = MapperState(self._event_id(), _now_ms(), state, devices).encode()
        return Message(mapper_state_topic(self._options.name), payload, retain=True)

    def _event_id(self) -> str:
        self._event_count += 1
        return f"{self._options.name}-{self._event_count}"


def _topics(device: DeviceId) -> list[str]:
    return [channel.topic(device) for channel in CHANNELS]


def _now_ms() -> int:
    return round(time.time() * 1000)


# --- the command line

_EXAMPLE = """\
mapper run simulated --mqtt mqtt://127.0.0.1:1883
mapper run host --mqtt mqtt://127.0.0.1:1883 --node edge-1
mapper run lamp --driver mydrivers:Lamp --mqtt mqtt://127.0.0.1:1883 --device default/lamp-1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script `mapper`."""
    parser = cli.new_parser(
        "mapper",
        "Connects devices to the edge: a driver's readings go up over MQTT, desired values come down.",
        _EXAMPLE,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = cli.add_command(
        commands,
        "run",
        "Serve every device of one protocol. The devices are learnt from the edge over MQTT; one that is added,\n"
        "changed or removed there is served, served anew or let go while the mapper runs.",
        _EXAMPLE,
    )
    run.add_argument("protocol", metavar="DRIVER", help=f"the devices' protocolName: {', '.join(driver_names())}")
    run.add_argument(
        "--mqtt", required=True, type=_broker, metavar="URL", help="the edge's broker, mqtt[s]://[USER@]HOST:PORT"
    )
    run.add_argument("--mqtt-password-file", type=Path, metavar="FILE", help="USER's password, in its first line")
    run.add_argument(
        "--mqtt-ca", type=Path, metavar="FILE", help="the CA to trust for mqtts://; the system's by default"
    )
    run.add_argument(
        "--mqtt-cert", type=Path, metavar="FILE", help="the mapper's certificate, if the broker asks for one"
    )
    run.add_argument("--mqtt-key", type=Path, metavar="FILE", help="its key, where that is not in the same file")
    run.add_argument("--driver", metavar="MODULE:CLASS", help="the class to serve them with, from here or installed")
    run.add_argument("--node", help="only devices of this node, where several share the broker")
    run.add_argument(
        "--device", type=_device, action="append", default=[], metavar="NAMESPACE/NAME", help="only this; repeatable"
    )
    run.add_argument(
        "--name", type=_name, help="the mapper's own name on the broker; USER, or else DRIVER-NODE or DRIVER-HOSTNAME"
    )
    cli.add_log_flags(run)
    cli.add_command(commands, "drivers", "List the drivers that are installed.", "mapper drivers")
    args = parser.parse_args(argv)
    if args.command == "drivers":
        return cli.guard("mapper", lambda: print("\n".join(driver_names())))
    cli.configure_logs(args)
    try:
        factory = _find(args.protocol, args.driver)
    except UnknownDriver as exc:
        run.error(str(exc))
    broker = replace(
        args.mqtt,
        password_file=args.mqtt_password_file,
        authority=args.mqtt_ca,
        certificate=args.mqtt_cert,
        key=args.mqtt_key,
    )
    # A broker lets a user speak for the mapper of its own name.
    name = args.name or broker.username or f"{args.protocol}-{args.node or os.uname().nodename}"
    name = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:100]

    async def serve() -> NoReturn:
        broker.check()
        await Mapper(Options(args.protocol, broker, name, args.node, frozenset(args.device)), factory).run()

    return cli.run(serve(), prog="mapper")


def _find(protocol: str, target: str | None) -> DriverFactory:
    if target is None:
        return find_driver(protocol)
    sys.path.insert(0, os.getcwd())  # as python -m does; a console script has only its own directory there
    return load_driver(target)


def _broker(text: str) -> BrokerAddress:
    try:
        broker = BrokerAddress.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    if broker.password is not None:
        raise argparse.ArgumentTypeError("a password on the command line can be read by all: use --mqtt-password-file")
    return broker


def _device(text: str) -> DeviceId:
    try:
        return DeviceId.parse(text)
    except TopicError as exc:
        raise argparse.ArgumentTypeError(f"{exc}, such as default/thermostat") from exc


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f'"{text}" must be up to 100 letters, digits, dots, hyphens or underscores')
    return text


if __name__ == "__main__":
    sys.exit(main())
