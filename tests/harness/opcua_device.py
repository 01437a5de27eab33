"""
A device with an OPC UA server as a process of its own: python -m tests.harness.opcua_device PORT [DIRECTORY].

With a directory it takes only encrypted sessions of the user "operator" with the password "s3cret"; its certificate and
key are in there (server.der, server.pem). Without one it takes everybody.

Nodes ns=2;s=NAME. counter grows twenty times a second. What is written to command is done: "break NAME" gives the node
a bad status, "mend NAME" its value back, "delete NAME" removes it, "end" makes the server end all subscriptions.
"""

import asyncio
import logging
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.common.node import Node
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.server import Server

USER, PASSWORD = "operator", "s3cret"
TICK_S = 0.05
VALUES: dict[str, tuple[Any, ua.VariantType]] = {
    "temperature": (21.5, ua.VariantType.Double),
    "counter": (0, ua.VariantType.Int32),
    "speed": (5, ua.VariantType.UInt16),
    "single": (21.3, ua.VariantType.Float),
    "name": ("Fairlead", ua.VariantType.String),
    "pump": (True, ua.VariantType.Boolean),
    "label": (ua.LocalizedText("Kessel"), ua.VariantType.LocalizedText),
    "moment": (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), ua.VariantType.DateTime),
    "blob": (b"\x01\x02", ua.VariantType.ByteString),
    "list": ([1, 2, 3], ua.VariantType.Int32),
    "serial": (uuid.UUID(int=7), ua.VariantType.Guid),
    "locked": (1, ua.VariantType.Int32),
    "command": ("", ua.VariantType.String),
}
READ_ONLY = ("counter", "locked")


class Operators:
    """Who may have a session."""

    def get_user(
        self, _server: object, username: str | None = None, password: str | None = None, **_: object
    ) -> User | None:
        return User(role=UserRole.User) if (username, password) == (USER, PASSWORD) else None


async def obey(server: Server, nodes: dict[str, Node], command: str) -> None:
    verb, _, name = command.partition(" ")
    match verb:
        case "break":
            status = ua.StatusCode(ua.UInt32(ua.status_codes.StatusCodes.BadSensorFailure))
            await nodes[name].write_value(ua.DataValue(ua.Variant(*VALUES[name]), status))
        case "mend":
            await nodes[name].write_value(ua.DataValue(ua.Variant(*VALUES[name])))
        case "delete":
            await server.delete_nodes([nodes[name]])
        case "end":
            service = server.iserver.subscription_service
            await service.delete_subscriptions(list(service.subscriptions))


async def serve(port: int, directory: Path | None) -> None:
    server = Server(user_manager=None if directory is None else Operators())  # type: ignore[arg-type]
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/device")
    if directory is not None:
        await server.load_certificate(directory / "server.der")
        await server.load_private_key(directory / "server.pem")
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        server.set_identity_tokens([ua.UserNameIdentityToken])
    else:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    assert await server.register_namespace("urn:device") == 2
    parent = await server.nodes.objects.add_object(ua.NodeId.from_string("ns=2;s=device"), "device")
    nodes: dict[str, Node] = {}
    for name, (value, kind) in VALUES.items():
        nodes[name] = await parent.add_variable(ua.NodeId.from_string(f"ns=2;s={name}"), name, value, kind)
        if name not in READ_ONLY:
            await nodes[name].set_writable()
    async with server:
        assert server.bserver is not None
        assert isinstance(server.bserver._server, asyncio.Server)
        where = server.bserver._server.sockets[0].getsockname()[1]
        print("ready", where, flush=True)
        done, count = "", 0
        while True:
            await asyncio.sleep(TICK_S)
            count += 1
            await nodes["counter"].write_value(ua.Variant(count, ua.VariantType.Int32))
            command = await nodes["command"].read_value()
            if command != done:
                await obey(server, nodes, command)
                done = command


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
