"""
One device's task: it keeps a driver connected, polls it, obeys and reports, and never disturbs the others.

What to do when is decided in mappers/polling.py, what to say in mappers/dialogue.py; here it is done. The
runtime drops what came for the device into a mailbox and rings; the task empties it between two rounds. So
poller and driver have one owner, and a device that takes ten seconds to answer delays only itself.

Invariants
    the mailbox is bounded: of deltas and configurations the last one counts, both being complete in themselves
    a device that speaks for itself is heard at most every HEAR_S, its last word of each property
    the driver is called from this task only, one call at a time, and closed once for each connect
    nothing is reported of a device that is offline
    whatever a driver raises, this task goes on; only cancellation ends it, with "offline" as its last word
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import NoReturn, TypeVar

from devicetwin.messages import OFFLINE, Channel, DeviceId
from mappers.dialogue import STATE_S, Complaint, Dialogue, Saying
from mappers.driver import (
    CALL_TIMEOUT_S,
    BadConfig,
    Device,
    DeviceSilent,
    Driver,
    DriverFactory,
    Reading,
    Sink,
    SubscribingDriver,
    WriteRefused,
)
from mappers.membership import SHORTEST_COLLECT_S, has_new_cycles, needs_new_driver
from mappers.mqtt import Connection, Message, MqttError
from mappers.polling import Order, Poller, Pulse

ONLINE = "online"
UNHEALTHY = "unhealthy"
"""KubeEdge's word for a device that is there and cannot be used; here: as it is configured."""
BUSY_S = 0.25
"""When to come again while the connection takes no more messages."""
AFTER_BUG_S = 1.0
HEAR_S = SHORTEST_COLLECT_S  # being told is no reason to be faster than asking
CLOSE_TIMEOUT_S = 1.0
ANSWERS_LIMIT = 16
"""One report and one question are open at a time; more answers than this are somebody else's, and may be lost."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Attendant:
    """Attends one device. adopt, attach, detach and take may be called at any time from the same event loop."""

    def __init__(
        self,
        device: Device,
        factory: DriverFactory,
        push: Callable[[Device, Mapping[str, Reading]], None] = lambda device, readings: None,
    ) -> None:
        """push: takes every sample as it was collected; must not wait."""
        self._push = push
        self.id = DeviceId.parse(device.id)
        self._factory = factory
        # The mailbox.
        self._bell = asyncio.Event()
        self._next_device: Device | None = None
        self._next_connection: Connection | None = None
        self._delta: bytes | None = None
        self._answers: deque[tuple[Channel, bytes]] = deque(maxlen=ANSWERS_LIMIT)
        # The task's own.
        self._device = device
        self._driver: Driver | None = None
        self._is_connected = False
        self._sink: Sink | None = None
        """Of a driver that subscribes, while it is connected."""
        self._hear_at = 0.0
        self._problem: str | None = None
        """Why the device cannot be used as it is configured; nothing is tried until that changes."""
        self._pulse = Pulse()
        self._poller = Poller(device, time.monotonic())
        self._dialogue = Dialogue(self.id, self._poller, secrets.token_hex(3))
        self._connection: Connection | None = None

    # --- the mailbox

    def adopt(self, device: Device) -> None:
        """The device's configuration changed."""
        self._next_device = device
        self._bell.set()

    def attach(self, connection: Connection) -> None:
        """There is a new connection, with this device's channels subscribed."""
        self._next_connection = connection
        self._delta = None
        self._answers.clear()
        self._bell.set()

    def detach(self) -> None:
        """The connection is lost."""
        self._next_connection = None
        self._bell.set()

    def forget(self) -> None:
        """The device is gone from the edge: its task, which is about to be cancelled, has no last word to say."""
        self._connection = self._next_connection = None

    def take(self, channel: Channel, payload: bytes) -> None:
        """A message came on one of the dialogue's channels."""
        if channel is Channel.TWIN_DELTA:
            self._delta = payload
        else:
            self._answers.append((channel, payload))
        self._bell.set()

    # --- the task

    async def run(self) -> NoReturn:
        """Attend the device until cancelled."""
        try:
            while True:
                self._bell.clear()
                wake_at = await self._round()
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, wake_at - time.monotonic())):
                        await self._bell.wait()
        finally:
            with suppress(MqttError):
                self._say([self._dialogue.state(OFFLINE, _now_ms())])
            await self._let_go()

    async def _round(self) -> float:
        """Do all that is due; when to come again."""
        try:
            self._open_mail()
            await self._take_device()
            if self._connection is None:
                return time.monotonic() + STATE_S  # nobody to report to; attach() rings
            await self._attend()
            return self._speak(self._connection)
        except MqttError:
            return time.monotonic() + STATE_S  # the runtime finds out as well; detach() rings
        except Exception:
            # The driver may be anybody's code and other devices live in this process, so this is the root of a
            # task for what it raises: it is told in full, and this device begins anew.
            logger.exception("driver failed", extra={"device": str(self.id)})
            await self._miss("the driver failed")
            self._driver = None
            return time.monotonic() + AFTER_BUG_S

    async def _attend(self) -> None:
        if self._problem is not None:
            return
        try:
            self._hear()
            if time.monotonic() >= self._pulse.retry_at:
                await self._poll()
        except BadConfig as exc:
            self._problem = str(exc)
            logger.error("device not usable as configured", extra={"device": str(self.id), "problem": self._problem})
            await self._let_go()
            self._driver = None
        except (DeviceSilent, OSError) as exc:
            await self._miss(str(exc) or type(exc).__name__)

    def _hear(self) -> None:
        """Take over what the device said by itself. Raises what its driver says is the matter."""
        now = time.monotonic()
        if self._sink is None or not self._sink.has_word() or now < self._hear_at:
            return
        word = self._sink.collect()
        self._hear_at = now + HEAR_S
        if word.away is not None:
            if self._pulse.left():
                logger.warning("device offline", extra={"device": str(self.id), "reason": word.away})
            return
        if self._pulse.is_away():
            self._poller.renew(now)
        self._push(self._device, {name: reading for name, reading in word.readings.items() if reading is not None})
        self._note(self._poller.heard(word.readings))
        self._answered()

    async def _poll(self) -> None:
        """Read what is due, write what is wished, and read back what was written."""
        driver = await self._connected()
        if self._pulse.is_away():
            return
        # Twice, because what was written is due again at once. What takes longer has its turn in the next round.
        for _ in range(2):
            if names := self._poller.due(time.monotonic()):
                readings = await _in_time(driver.read(names))
                self._push(self._device, readings)
                self._note(self._poller.took(names, readings, time.monotonic()))
            self._answered()
            for order in self._poller.orders(time.monotonic()):
                await self._obey(driver, order)

    def _note(self, problems: Iterable[str]) -> None:
        for problem in problems:
            logger.warning("unusable reading", extra={"device": str(self.id), "problem": problem})

    def _answered(self) -> None:
        if self._pulse.answered():
            logger.info("device online", extra={"device": str(self.id)})

    async def _obey(self, driver: Driver, order: Order) -> None:
        about = {"device": str(self.id), "property": order.name}
        try:
            await _in_time(driver.write(order.name, order.value))
        except WriteRefused as exc:
            self._poller.refuse(order.name, order.wish, str(exc), time.monotonic())
            logger.warning("device refuses the desired value", extra={**about, "reason": str(exc)})
        else:
            self._poller.wrote(order, time.monotonic())
            logger.info("desired value written", extra={**about, "version": order.wish.version})

    # --- the driver

    async def _connected(self) -> Driver:
        if self._driver is None:
            self._driver = self._factory(self._device)
        if not self._is_connected:
            self._is_connected = True  # a connect that fails half-way is to be closed as well
            await _in_time(self._driver.connect())
            if isinstance(self._driver, SubscribingDriver):
                self._sink, self._hear_at = Sink(self._device.properties, self._bell.set), 0.0
                self._poller.subscribed(await _in_time(self._driver.subscribe(self._sink)))
            self._poller.renew(time.monotonic())
            self._hear()
        return self._driver

    async def _let_go(self) -> None:
        """Close the driver, whatever it says to that."""
        if self._driver is None or not self._is_connected:
            return
        self._is_connected = False
        if self._sink is not None:
            self._sink.close()
            self._sink = None
            self._poller.subscribed(())
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._driver.close()
        except Exception as exc:
            # It counts as closed in any case; there is nothing more that anybody could do.
            logger.warning("driver did not close", extra={"device": str(self.id), "reason": str(exc)})

    async def _miss(self, reason: str) -> None:
        if self._pulse.missed(time.monotonic()):
            logger.warning("device offline", extra={"device": str(self.id), "reason": reason})
        await self._let_go()

    async def _take_device(self) -> None:
        device, self._next_device = self._next_device, None
        if device is None:
            return
        if needs_new_driver(self._device, device) or (
            isinstance(self._driver, SubscribingDriver) and has_new_cycles(self._device, device)
        ):
            await self._let_go()
            self._driver = self._problem = None
            self._pulse.hurry()
        self._device = device
        self._poller.adopt(device, time.monotonic())
        logger.info("device configuration changed", extra={"device": str(self.id)})

    # --- the edge

    def _open_mail(self) -> None:
        now = time.monotonic()
        if self._next_connection is not self._connection:
            self._connection = self._next_connection
            if self._connection is not None:
                self._dialogue.begin(now)
        while self._answers:
            channel, payload = self._answers.popleft()
            self._complain(self._dialogue.hear(channel, payload, now))
        delta, self._delta = self._delta, None
        if delta is not None:
            self._complain(self._dialogue.hear(Channel.TWIN_DELTA, delta, now))

    def _speak(self, connection: Connection) -> float:
        """Say all there is to say; when to come again. Raises ConnectionLost."""
        now = time.monotonic()
        self._complain(self._dialogue.expire(now))
        if not connection.has_room():
            return now + BUSY_S
        is_up = bool(self._pulse.is_online) and self._problem is None
        self._say(self._dialogue.speak(self._state(), now, _now_ms(), with_report=is_up))
        wake_at = now + STATE_S
        if (said_at := self._dialogue.wake_at()) is not None:
            wake_at = min(wake_at, said_at)
        if self._problem is None:
            wake_at = min(wake_at, max(self._poller.wake_at(), self._pulse.retry_at))
        if self._sink is not None and self._sink.has_word():
            wake_at = min(wake_at, self._hear_at)
        return wake_at

    def _say(self, sayings: Iterable[Saying]) -> None:
        for channel, payload in sayings:
            if self._connection is not None:
                self._connection.publish(Message(channel.topic(self.id), payload))

    def _state(self) -> str | None:
        if self._problem is not None:
            return UNHEALTHY
        if self._pulse.is_online is None:
            return None
        return ONLINE if self._pulse.is_online else OFFLINE

    def _complain(self, complaints: Iterable[Complaint]) -> None:
        for text, facts in complaints:
            logger.warning("trouble with the edge", extra={"device": str(self.id), "problem": text, **facts})


async def _in_time(call: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return await call
    except TimeoutError as exc:
        raise DeviceSilent(f"no answer within {CALL_TIMEOUT_S:g} s") from exc


def _now_ms() -> int:
    return round(time.time() * 1000)
