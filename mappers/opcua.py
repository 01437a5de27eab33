"""
The driver `opcua`: a device with an OPC UA server, which tells of changes by itself. asyncua's home.

Each device has a session of its own with one subscription in it, and in that a monitored item for each property,
sampled by the server at the property's collectCycle. So nothing is polled: what does not change costs a keep-alive now
and then. What the server does not let us subscribe to is read by its cycle.

A connection is used once: when it is lost that is told, and the runtime makes another. asyncua's own reconnecting is
off, since two of them would fight.

Invariants
    a node whose status is bad has no value: the last good one is not repeated

Settings (`protocol.configData`, KubeEdge's names): docs/mappers.md.
"""

import asyncio
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.common.subscription import DataChangeNotif
from asyncua.crypto import security_policies
from asyncua.crypto.uacrypto import load_certificate
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from mappers.credentials import Unusable, read_secret
from mappers.driver import BadConfig, Device, DeviceSilent, Reading, Sink, Value, WriteRefused
from mappers.faults import Faults
from mappers.opcendpoint import Endpoint, Security
from mappers.settings import Settings
from mappers.variants import from_node, to_node

NODES_PER_REQUEST = 100
"""Servers have limits (OperationLimits), small ones of a few hundred."""
GOODBYE_S = 0.5
SESSION_TIMEOUT_S = 60
"""How long the server holds the session of a mapper that was killed; it has few."""
_LOGIN_REFUSED = (
    StatusCodes.BadIdentityTokenInvalid,
    StatusCodes.BadIdentityTokenRejected,
    StatusCodes.BadUserAccessDenied,
)
_CONNECTION_LOST = (
    StatusCodes.BadCommunicationError,
    StatusCodes.BadConnectionClosed,
    StatusCodes.BadSecureChannelClosed,
    StatusCodes.BadSecureChannelIdInvalid,
    StatusCodes.BadServerHalted,
    StatusCodes.BadSessionClosed,
    StatusCodes.BadSessionIdInvalid,
    StatusCodes.BadSessionNotActivated,
    StatusCodes.BadShutdown,
    StatusCodes.BadTimeout,
)
_ALTERNATIVE_NAME = "2.5.29.17"


class OpcUa:
    """One server, or the part of it that is one device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._endpoint = Endpoint.of_device(device)
        self._nodes = {name: _node_id(device, name) for name in device.properties}
        self._names = {node_id: name for name, node_id in self._nodes.items()}
        self._types: dict[str, str] = {}
        """The standard's word for the type that each node's value had last."""
        self._faults = Faults(device.id, device.properties)
        self._client: Client | None = None
        self._sink: Sink | None = None
        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            # What it says, we say with the device's name; and it shows values and messages in full.
            logging.getLogger("asyncua").setLevel(logging.CRITICAL)

    async def connect(self) -> None:
        """Open a session."""
        end = self._endpoint
        self._client = client = Client(end.url, timeout=end.timeout_s, watchdog_intervall=end.timeout_s)
        client.name = client.description = f"fairlead {self._device.id}"
        client.connection_lost_callback = self._on_lost
        client.session_timeout = 1000 * SESSION_TIMEOUT_S
        if end.password_file:
            client.set_user(end.user)
            try:
                client.set_password(await asyncio.to_thread(read_secret, end.password_file, "password"))
            except Unusable as exc:
                raise DeviceSilent(str(exc)) from exc
        with self._silence("cannot be used"):
            if end.security is not None:
                await _secure(client, end.security)
            await client.connect()

    async def subscribe(self, sink: Sink) -> Collection[str]:
        """Have the server tell of every property, each at its own pace."""
        assert self._client, "the runtime connects first"
        self._sink = sink
        paces: dict[float, list[str]] = {}
        for name, each in self._device.properties.items():
            paces.setdefault(each.collect_s, []).append(name)
        if not paces:
            return []
        told: list[str] = []
        with self._silence("takes no subscription"):
            subscription = await self._client.create_subscription(self._terms(min(paces)), self)
            for pace_s, names in paces.items():
                for some in _portions(names):
                    nodes = [self._client.get_node(self._nodes[name]) for name in some]
                    results = await subscription.subscribe_data_change(
                        nodes, queuesize=1, sampling_interval=ua.Double(1000 * pace_s)
                    )
                    told += [name for name, result in zip(some, results, strict=True) if isinstance(result, int)]
        return told

    async def read(self, names: Collection[str]) -> Mapping[str, Reading]:
        """What these properties' nodes hold."""
        assert self._client, "the runtime connects first"
        readings: dict[str, Reading] = {}
        with self._silence("cannot be read"):
            for some in _portions(list(names)):
                node_ids = [self._nodes[name] for name in some]
                values = await self._client.uaclient.read_attributes(node_ids, AttributeIds.Value)
                for name, value in zip(some, values, strict=True):
                    if (reading := self._reading(name, value)) is not None:
                        readings[name] = reading
        if (silence := self._faults.silence()) is not None:
            raise silence
        return readings

    async def write(self, name: str, value: Value) -> None:
        """Set a node's value."""
        assert self._client, "the runtime connects first"
        node = self._client.get_node(self._nodes[name])
        try:
            if (type_ := self._types.get(name)) is None:  # it has no value yet
                type_ = (await node.read_data_type_as_variant_type()).name
            variant = ua.Variant(_foreign(type_, to_node(name, type_, value)), ua.VariantType[type_])
            # Without timestamps: many servers refuse to have theirs written.
            await node.write_attribute(AttributeIds.Value, ua.DataValue(variant))
        except UaStatusCodeError as exc:
            if exc.code in _CONNECTION_LOST:
                raise DeviceSilent(f"{self._endpoint.url}: {_status(exc.code)}") from exc
            node_id = self._nodes[name].to_string()
            raise WriteRefused(
                f"{name}: {self._endpoint.url} refuses {value!r} for {node_id}: {_status(exc.code)}"
            ) from exc

    async def close(self) -> None:
        """End the session; what has gone already is not waited for."""
        client, self._client, self._sink = self._client, None, None
        if client is None:
            return
        try:
            with suppress(UaError, OSError):
                async with asyncio.timeout(GOODBYE_S):
                    await client.disconnect()
        finally:
            client.disconnect_socket()

    def _terms(self, pace_s: float) -> ua.CreateSubscriptionParameters:
        """Of a subscription: asyncua makes one anew that says nothing for one and a half keep-alives."""
        keep_alives = max(1, math.ceil(self._endpoint.timeout_s / pace_s))
        return ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=ua.Double(1000 * pace_s),
            RequestedMaxKeepAliveCount=ua.UInt32(keep_alives),
            RequestedLifetimeCount=ua.UInt32(10 * keep_alives),  # at least 3 times, Part 4, 5.13.2
            PublishingEnabled=True,
        )

    # --- what asyncua calls

    def datachange_notification(self, node: Node, _value: object, data: DataChangeNotif) -> None:
        """A node changed, or its status did."""
        name = self._names.get(node.nodeid)
        if self._sink is not None and name is not None:
            self._sink.heard({name: self._reading(name, data.monitored_item.Value)})

    def status_change_notification(self, status: ua.StatusChangeNotification) -> None:
        """The server gave the subscription up."""
        if self._sink is not None:
            self._sink.lost(
                DeviceSilent(f"{self._endpoint.url} ended the subscription: {_status(status.Status.value)}")
            )

    async def _on_lost(self, problem: Exception) -> None:
        if self._sink is not None:
            reason = str(problem) or type(problem).__name__
            self._sink.lost(DeviceSilent(f"{self._endpoint.url}: the connection is lost ({reason})"))

    # --- values

    def _reading(self, name: str, found: ua.DataValue) -> Reading | None:
        status = found.StatusCode
        if status is not None and status.is_bad():
            self._faults.found(name, f"{self._nodes[name].to_string()} has no value: {_status(status.value)}")
            return None
        self._faults.over(name)
        if found.Value is None:
            return None
        type_ = found.Value.VariantType.name
        value = from_node(self._device.properties[name].model.type, type_, found.Value.Value)
        if value is None:
            return None
        self._types[name] = type_
        at = found.SourceTimestamp
        return Reading(value, None if at is None else round(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000))

    @contextmanager
    def _silence(self, what: str) -> Iterator[None]:
        """Translate asyncua's errors; what it raises of OSErrors counts as silence anyway."""
        try:
            yield
        except UaStatusCodeError as exc:
            if exc.code in _LOGIN_REFUSED:
                raise BadConfig(
                    f"{self._endpoint.url} refuses the login of {self._endpoint.user or 'nobody'}: {_status(exc.code)}"
                ) from exc
            raise DeviceSilent(f"{self._endpoint.url} {what}: {_status(exc.code)}") from exc
        except (UaError, TimeoutError) as exc:
            raise DeviceSilent(f"{self._endpoint.url} {what}: {str(exc) or 'no answer in time'}") from exc


# --- asyncua


def _node_id(device: Device, name: str) -> ua.NodeId:
    settings = Settings.of_property(device, name)
    text = settings.text("nodeID")
    settings.text("browseName", "")  # KubeEdge's; it says nothing that the id does not
    settings.done()
    try:
        # KubeEdge's own example has a comma for the semicolon.
        return ua.NodeId.from_string(text.replace(",", ";", 1) if ";" not in text else text)
    except (UaError, ValueError) as exc:
        raise settings.bad("nodeID", f"must be as in ns=2;s=Boiler.Temperature or ns=2;i=1005, not {text}") from exc


async def _secure(client: Client, security: Security) -> None:
    """Sign and encrypt. Raises OSError or BadConfig when a file is not there or not what it should be."""
    try:
        certificate = await load_certificate(security.certificate)
        # The server compares it with the certificate's (Part 4, 5.6.2).
        client.application_uri = _application_uri(certificate) or client.application_uri
        await client.set_security(
            getattr(security_policies, f"SecurityPolicy{security.policy}"),
            str(security.certificate),
            str(security.private_key),
            server_certificate=str(security.remote_certificate),
            mode=ua.MessageSecurityMode[security.mode if security.mode == "Sign" else "SignAndEncrypt"],
        )
    except (ValueError, TypeError) as exc:
        raise BadConfig(
            f"protocol.configData: certificate, privateKey or remoteCertificate is of no use: {exc}"
        ) from exc


def _application_uri(certificate: object) -> str | None:
    for extension in getattr(certificate, "extensions", ()):
        if extension.oid.dotted_string == _ALTERNATIVE_NAME:
            for name in extension.value:
                if type(name).__name__ == "UniformResourceIdentifier":
                    return str(name.value)
    return None


def _foreign(type_: str, value: object) -> object:
    """Where asyncua wants a class of its own."""
    if isinstance(value, str):
        if type_ == "LocalizedText":
            return ua.LocalizedText(value)
        if type_ == "Guid":
            return ua.Guid(value)
    return value


def _status(code: int) -> str:
    status = ua.StatusCode(ua.UInt32(code))
    return f"{status.name}, {status.doc}"


def _portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), NODES_PER_REQUEST):
        yield names[start : start + NODES_PER_REQUEST]
