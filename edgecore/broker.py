"""
The MQTT broker that this node's devices speak with: the embedded one, or where another one is.

The embedded one is imported only where it is used.
"""

import contextlib
import logging
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

from apimachinery.keys import Node
from componentbase import cli
from componentbase.endpoints import Endpoint
from edgecore.settings import EMBEDDED, MqttConfig

if TYPE_CHECKING:
    from componentbase.brokers import BrokerAddress
    from devicetwin.broker.server import BrokerServer

logger = logging.getLogger(__name__)


async def open_broker(
    mqtt: MqttConfig, node: Node, stack: contextlib.AsyncExitStack
) -> "tuple[BrokerAddress, BrokerServer | None]":
    """Where the broker is, and the broker when it is the embedded one, which is imported only then."""
    from componentbase.brokers import BrokerAddress
    from devicetwin.wire import subscriptions

    if mqtt.broker != EMBEDDED:
        try:
            address = BrokerAddress.parse(mqtt.broker)
        except ValueError as exc:
            raise cli.CommandError(f'mqtt.broker (--mqtt): {exc}, or "{EMBEDDED}"') from exc
        address = replace(
            address,
            password_file=mqtt.password_file,
            authority=mqtt.certificate_authority,
            certificate=mqtt.certificate,
            key=mqtt.key,
        )
        address.check()
        return address, None
    from devicetwin.broker.config import BrokerConfig
    from devicetwin.broker.server import ListenError, listen
    from devicetwin.broker.users import UserFile

    tls = _listener_context(mqtt)
    users = UserFile(mqtt.users, anonymous=mqtt.anonymous)
    if mqtt.anonymous and not _is_loopback(mqtt.listen.host):
        logger.warning(
            "the MQTT broker takes anybody who reaches it: add users and set mqtt.anonymous to false",
            extra={"listen": str(mqtt.listen), "users": len(users.access.users)},
        )
    elif not mqtt.anonymous and not users.access.users:
        logger.warning(
            "nobody can use the MQTT broker: it takes no anonymous clients and has no users, `edgecore mqtt user add`",
            extra={"users": str(mqtt.users)},
        )
    filters = tuple(topic for topic, quality in subscriptions(node) if quality)
    broker_config = BrokerConfig(
        host=mqtt.listen.host, port=mqtt.listen.port, durable_client_id=client_id(node), durable_filters=filters
    )
    try:
        server = await listen(broker_config, users, tls)
    except ListenError as exc:
        raise cli.CommandError(
            f"the embedded broker: {exc}; choose another with --mqtt-listen, or name a broker that runs with --mqtt"
        ) from exc
    stack.push_async_callback(server.close)
    return BrokerAddress(Endpoint(mqtt.listen.host or "127.0.0.1", server.port), tls is not None), server


def _listener_context(mqtt: MqttConfig) -> ssl.SSLContext | None:
    if mqtt.certificate is None:
        if mqtt.key is not None:
            raise cli.CommandError("mqtt.key is given without mqtt.certificate")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(mqtt.certificate, mqtt.key)
    except OSError as exc:  # ssl.SSLError is one
        names = ", ".join(str(each) for each in (mqtt.certificate, mqtt.key) if each)
        raise cli.CommandError(f"the embedded broker's certificate and key cannot be used ({names}): {exc}") from exc
    return context


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_id(node: Node) -> str:
    """Names this node's session at the broker, the same at each start; two nodes may share one broker."""
    return f"fairlead-{node}"
