"""
edgecore: the agent on an edge node. One of the two composition roots: configuration in, one TaskGroup out.

Everything is made here and handed what it needs; nothing imports this module. What is heavy is imported
where it is used, because on the edge every import costs memory for as long as the process lives.
"""

import argparse
import asyncio
import contextlib
import gc
import glob
import json
import logging
import random
import shutil
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from apimachinery.devices import NODE_INFO_FIELD
from apimachinery.errors import BadRequest, NotFound
from apimachinery.keys import Node, ObjectKey
from apimachinery.resources import DEVICES, NODES
from componentbase import cli, config, metrics, statusz
from componentbase.config import setting
from componentbase.endpoints import Endpoint
from componentbase.files import lock_dir, open_private_dir
from componentbase.release import VERSION
from componentbase.tls import LiveContext, TlsMin, server_context
from devicetwin.broker import usercommand
from edgehub import swarmcommand
from link.frames import CALL_S, Batch, CallHead, Interest, Refusal, ReportEntry

if TYPE_CHECKING:
    from apimachinery.kubeevents import KubeEvent
    from apiserver.messages import Request, Response
    from componentbase.brokers import BrokerAddress
    from devicetwin.broker.server import BrokerServer
    from devicetwin.service import TwinService
    from edgehub.connector import Connector, LinkStatus
    from edgehub.renewal import Renewal
    from edgehub.session import Answered
    from metamanager.api import ApiLink, LinkState
    from metamanager.history import Samples
    from metamanager.store import Store

logger = logging.getLogger(__name__)

PROG = "edgecore"
CONFIG_NAME = "edgecore.yaml"
SOCKET_NAME = "edgecore.sock"
STORE_NAME = "edge.db"
EMBEDDED = "embedded"
TOKEN_LINE = 1000  # characters of a token's file that are looked at; a token has 121
LAST_REFUSED = 5  # lines of `edgecore status`; with -o json all that are kept
SILENT_S = 30.0  # an idle link is heard every heartbeat, which is 20 s; a hub that hangs is given up after 50
NOTE_SYNC_S = 30.0  # a write of a few bytes to the card; how stale the store is after a restart is known this exactly


@dataclass(frozen=True)
class CloudConfig:
    """The hub this node belongs to; `edgecore join` writes it."""

    link: Endpoint = setting(Endpoint("", 10000), "HOST:PORT of cloudcore's link.")
    join: Endpoint = setting(
        Endpoint("", 10002),
        "HOST:PORT of cloudcore's join endpoint, where certificates are renewed; an empty host is the link's.",
    )
    certificate_authority: Path = setting(Path("pki/ca.crt"), "The CA that signed the hub's certificate.")
    certificate: Path = setting(Path("pki/edge.crt"), "This node's certificate; its name is this node's identity.")
    key: Path = setting(Path("pki/edge.key"), "The private key; it never leaves this machine.")
    tls_min: TlsMin = setting(TlsMin.TLS_1_3, "The oldest TLS that is spoken with cloudcore: 1.3 or 1.2.")


@dataclass(frozen=True)
class MqttConfig:
    """Where devices and mappers speak with this node."""

    broker: str = setting(EMBEDDED, '"embedded" for a broker inside edgecore, or mqtt[s]://[USER@]HOST:PORT.')
    listen: Endpoint = setting(Endpoint("127.0.0.1", 1883), "Where the embedded broker listens.")
    anonymous: bool = setting(True, "Whether the embedded broker takes clients without a name and a password.")
    users: Path = setting(Path("mqtt-users.json"), "The embedded broker's users; `edgecore mqtt user` writes it.")
    certificate: Path | None = setting(
        None, "What the embedded broker shows, so that it speaks TLS; to another broker: ours, if it asks for one."
    )
    key: Path | None = setting(None, "The certificate's key, where that is not in the same file.")
    certificate_authority: Path | None = setting(
        None, "The CA that an mqtts:// broker's certificate must be from; the system's by default."
    )
    password_file: Path | None = setting(
        None, "USER's password at another broker, in its first line; or systemd's credential mqtt-password."
    )


@dataclass(frozen=True)
class DevicesConfig:
    """The twins of this node's devices."""

    stale_after_s: int = setting(
        180,
        "How long a reading counts if nobody repeats it; three reportCycles where that is longer; 0: for ever.",
        at_least=0,
    )
    history_rows: int = setting(
        50_000,
        "How many readings are remembered for `edgecore device history`, of all devices together: some 40 bytes each, "
        "one per property in ten seconds at most; 0: none.",
        at_least=0,
        at_most=5_000_000,
    )


@dataclass(frozen=True)
class ApiConfig:
    """The local Kubernetes API, served from this node's own store."""

    enabled: bool = setting(True, "Whether to serve it.")
    listen: Endpoint = setting(
        Endpoint("127.0.0.1", 10550),
        "Where; without TLS whoever can connect from this machine is the node, Secrets included.",
    )
    tls: bool = setting(
        False,
        "Serve it with TLS, to this node's certificate and ServiceAccount tokens; then it may listen on any address.",
    )
    certificate: Path = setting(Path("pki/api.crt"), "What it shows with TLS; joining made it.")
    key: Path = setting(Path("pki/api.key"), "The certificate's key.")
    interest_idle_s: int = setting(
        7 * 86_400,
        "What a client asked for beyond this node's own is kept up to date until nobody has read it for so long.",
        at_least=60,
    )


@dataclass(frozen=True)
class SecretsConfig:
    """Secrets are encrypted on this node's disk."""

    key_file: Path | None = setting(
        None,
        "The key, made where it is missing; by default systemd's credential secrets-key, or a file beside the data "
        "directory: DIR.secrets-key.",
    )


@dataclass(frozen=True)
class EdgeConfig:
    """Configuration of edgecore. Relative paths are taken from the directory of this file."""

    node: str = setting("", "The node's name in Kubernetes; must be the one in the certificate.")
    cloud: CloudConfig = CloudConfig()
    mqtt: MqttConfig = MqttConfig()
    devices: DevicesConfig = DevicesConfig()
    api: ApiConfig = ApiConfig()
    secrets: SecretsConfig = SecretsConfig()


def main() -> None:
    """The console script."""
    parser = _parser()
    args = parser.parse_args()
    cli.configure_logs(args)
    commands = {
        "run": _run,
        "join": _join,
        "status": _status,
        "resync": _resync,
        "renew": _renew,
        "rotate-secrets-key": _rotate,
        "purge": _purge,
        "device": _history,
        "mqtt": _mqtt,
        "swarm": _swarm,
        "config": _config,
    }
    sys.exit(commands[args.command](args))


def _parser() -> argparse.ArgumentParser:
    parser = cli.new_parser(
        PROG,
        "The agent on an edge node: keeps its part of Kubernetes here, serves it locally, twins its devices.",
        "edgecore join --cloud hub.example:10002 --token TOKEN --node edge-1 --data-dir /var/lib/edgecore\n"
        "edgecore run --data-dir /var/lib/edgecore",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = cli.add_command(
        commands,
        "run",
        "Run the agent until it is stopped.",
        "edgecore run --data-dir /var/lib/edgecore --mqtt embedded",
    )
    _add_data_dir(run)
    run.add_argument("--config", type=Path, metavar="FILE", help=f"DIR/{CONFIG_NAME} by default")
    run.add_argument("--mqtt", metavar="embedded|URL", help="the MQTT broker: embedded, or mqtt[s]://[USER@]HOST:PORT")
    run.add_argument("--mqtt-listen", type=cli.endpoint, metavar="HOST:PORT", help="where the embedded broker listens")
    run.add_argument("--api", type=cli.endpoint, metavar="HOST:PORT", help="where the local API listens")
    _add_secrets_key(run)
    run.add_argument("--api-tls", action="store_const", const=True, help="serve it with TLS, to tokens of the cluster")

    join = cli.add_command(
        commands,
        "join",
        "Make this machine a node: get a certificate and write the configuration.",
        "edgecore join --cloud hub.example:10002 --token TOKEN --node edge-1 --data-dir /var/lib/edgecore --check\n"
        "edgecore join --cloud hub.example:10002 --token TOKEN --node edge-1 --data-dir /var/lib/edgecore",
    )
    _add_data_dir(join)
    join.add_argument(
        "--cloud", type=cli.endpoint_with(10002), required=True, metavar="HOST:PORT", help="cloudcore's join endpoint"
    )
    token = join.add_mutually_exclusive_group(required=True)
    token.add_argument("--token", help="from `cloudcore token create`; - reads it from standard input")
    token.add_argument(
        "--token-file", type=Path, metavar="FILE", help="the token's; removed once the machine has joined"
    )
    join.add_argument("--node", required=True, metavar="NAME", help="the node's name in Kubernetes")
    join.add_argument("--force", action="store_true", help="take the place of what joined in this directory before")
    join.add_argument("--check", action="store_true", help="say what would work and what would not, and change nothing")

    status = cli.add_command(
        commands, "status", "Say in a few lines how things stand.", "edgecore status --data-dir /var/lib/edgecore"
    )
    _add_data_dir(status)
    status.add_argument("--output", "-o", choices=("text", "json"), default="text", help="text by default")

    resync = cli.add_command(
        commands,
        "resync",
        "Have everything this node holds compared with what it should hold. Happens by itself; for peace of mind.",
        "edgecore resync --data-dir /var/lib/edgecore",
    )
    _add_data_dir(resync)

    renew = cli.add_command(
        commands,
        "renew",
        "Get this node's next certificate now. Happens by itself in time, and when the hub's CA is replaced.",
        "edgecore renew --data-dir /var/lib/edgecore",
    )
    _add_data_dir(renew)

    rotate = cli.add_command(
        commands,
        "rotate-secrets-key",
        "Encrypt this node's Secrets with a new key, while edgecore is stopped, and forget the old one.",
        "systemctl stop edgecore\nedgecore rotate-secrets-key --data-dir /var/lib/edgecore\nsystemctl start edgecore",
    )
    _add_data_dir(rotate)
    _add_secrets_key(rotate)

    purge = cli.add_command(
        commands,
        "purge",
        "Remove all that edgecore made here: key and certificates, Secrets, what is held and what waits to go up.",
        "edgecore purge --data-dir /var/lib/edgecore --dry-run\nedgecore purge --data-dir /var/lib/edgecore",
    )
    _add_data_dir(purge)
    _add_secrets_key(purge)
    purge.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    purge.add_argument("--yes", action="store_true", help="do not ask")

    device = cli.add_command(
        commands,
        "device",
        "Look at one device.",
        "edgecore device history thermo-1 temperature --since 6h --data-dir /var/lib/edgecore",
    )
    history = cli.add_command(
        device.add_subparsers(dest="device_command", required=True, metavar="COMMAND"),
        "history",
        "Plot what a property was in the last hours, from this node's own memory, whether edgecore runs or not.",
        "edgecore device history thermo-1 temperature --since 6h --data-dir /var/lib/edgecore",
    )
    history.add_argument("name", metavar="NAME", help="the Device")
    history.add_argument("property", metavar="PROPERTY", help="one of its properties")
    history.add_argument("--namespace", "-n", default="default", metavar="NAMESPACE", help="of the Device; default")
    history.add_argument(
        "--since", type=cli.duration, default=timedelta(hours=3), metavar="TIME", help="30m, 6h, 2d; 3h by default"
    )
    history.add_argument("--output", "-o", choices=("text", "json"), default="text", help="text by default")
    _add_data_dir(history)

    show = cli.add_command(
        commands,
        "config",
        "Print the configuration in force, or every default.",
        "edgecore config > edgecore.yaml\nedgecore config --data-dir /var/lib/edgecore",
    )
    show.add_argument("--data-dir", type=Path, metavar="DIR", help="print DIR's configuration rather than the defaults")
    users = usercommand.add_parser(commands)
    swarm = swarmcommand.add_parser(commands)
    for each in users:
        _add_data_dir(each)
    for each in (run, join, status, resync, renew, rotate, purge, history, show, swarm, *users):
        cli.add_log_flags(each)
    return parser


def _add_secrets_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--secrets-key", type=Path, metavar="FILE", help="the key that Secrets are encrypted with on this node's disk"
    )


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="where this node keeps its state")


# ---- join, config


def _join(args: argparse.Namespace) -> int:
    from edgehub.join import Joined, join

    def command() -> None:
        def configuration(joined: Joined) -> str:
            return config.dump(EdgeConfig(node=joined.node, cloud=CloudConfig(link=joined.link, join=args.cloud)))

        token = _token(args)
        if args.check:
            _check_join(args, token)
            return
        joined = join(args.cloud, token, Node(args.node), args.data_dir, configuration, replace=args.force)
        if args.token_file is not None:
            _wipe(args.token_file)
        print(f"{joined.node} has joined; start it with: {PROG} run --data-dir {args.data_dir}")

    return cli.guard(PROG, command)


def _token(args: argparse.Namespace) -> str:
    if args.token_file is None:
        return str(sys.stdin.readline().strip() if args.token == "-" else args.token)  # noqa: S105 - the flag, no secret
    try:
        with args.token_file.open() as file:
            return str(file.readline(TOKEN_LINE).strip())
    except (OSError, UnicodeDecodeError) as exc:
        raise cli.CommandError(f"cannot read {args.token_file}: {getattr(exc, 'strerror', None) or 'no text'}") from exc


def _wipe(token_file: Path) -> None:
    """The token has done its work; nobody is to find it here. The node is one by now, so this is not to fail."""
    try:
        token_file.unlink()
    except OSError as exc:
        logger.warning(
            "the token's file is still there, remove it", extra={"file": token_file, "problem": exc.strerror}
        )


def _check_join(args: argparse.Namespace, token: str) -> None:
    from edgehub.joincheck import Verdict, check

    failed = 0
    for finding in check(args.cloud, token, Node(args.node), args.data_dir, replace=args.force):
        print(finding, flush=True)
        failed += finding.verdict is Verdict.FAIL
    if failed:
        raise cli.CommandError(f"{args.node} cannot join yet: {failed} of these failed, see what they say")
    print(f"{args.node} can join")


def _config(args: argparse.Namespace) -> int:
    def command() -> None:
        settings = EdgeConfig() if args.data_dir is None else _load(args.data_dir / CONFIG_NAME)
        print(config.dump(settings), end="")

    return cli.guard(PROG, command)


def _mqtt(args: argparse.Namespace) -> int:
    return cli.guard(PROG, lambda: usercommand.run(args, _load(args.data_dir / CONFIG_NAME).mqtt.users))


def _swarm(args: argparse.Namespace) -> int:
    from metamanager.intake import intake

    return cli.guard(PROG, lambda: swarmcommand.run(args, intake, f"swarm/{VERSION}"))


def _load(path: Path) -> EdgeConfig:
    if path.name == CONFIG_NAME and not path.exists():
        raise cli.CommandError(
            f"{path.parent} is not a node's directory: there is no {path.name}; run `{PROG} join` first"
        )
    settings = config.load(EdgeConfig, path)
    if not settings.node:
        raise config.ConfigError(str(path), None, "node is missing: the name that this machine joined as")
    if not settings.cloud.link.host:
        raise config.ConfigError(str(path), None, "cloud.link is missing: HOST:PORT of cloudcore's link")
    return settings


# ---- run


def _run(args: argparse.Namespace) -> int:
    def prepared() -> EdgeConfig:
        if args.mqtt is not None and _has_password(args.mqtt):
            raise cli.CommandError(
                "--mqtt: a password on the command line can be read by all; write it into a file, and that into "
                f"mqtt.passwordFile of {CONFIG_NAME}"
            )
        settings = _load(args.config or args.data_dir / CONFIG_NAME)
        return config.override(
            settings,
            {
                "mqtt.broker": args.mqtt,
                "mqtt.listen": args.mqtt_listen,
                "api.listen": args.api,
                "api.tls": args.api_tls,
                "secrets.key_file": args.secrets_key and args.secrets_key.absolute(),
            },
        )

    async def run() -> None:
        await serve(prepared(), args.data_dir)

    return cli.run(run(), prog=PROG)


def _link_context(cloud: CloudConfig) -> ssl.SSLContext:
    from edgehub.connector import hub_context

    for path in (cloud.certificate_authority, cloud.certificate, cloud.key):
        try:
            path.open("rb").close()
        except OSError as exc:  # ssl's own errors do not say which file
            raise cli.CommandError(
                f"cannot read {path}: {exc.strerror}; put it back, or join again with --force"
            ) from exc
    try:
        return hub_context(cloud.certificate_authority, cloud.certificate, cloud.key, cloud.tls_min)
    except OSError as exc:  # ssl.SSLError is one
        names = f"{cloud.certificate_authority}, {cloud.certificate}, {cloud.key}"
        raise cli.CommandError(
            f"this node's certificates cannot be used ({names}): {exc}; join again with --force"
        ) from exc


async def serve(settings: EdgeConfig, data_dir: Path) -> None:
    """Everything an edge node does, until cancelled."""
    open_private_dir(data_dir)
    from edgehub.renewal import settle

    with lock_dir(data_dir):
        settle(data_dir)
        context = _link_context(settings.cloud)
        async with contextlib.AsyncExitStack() as stack:
            await _compose(settings, data_dir, context, stack)


async def _compose(
    settings: EdgeConfig, data_dir: Path, context: ssl.SSLContext, stack: contextlib.AsyncExitStack
) -> None:
    """Make the parts, join them, run them in one TaskGroup."""
    from apiserver.http import ListenError, serve
    from devicetwin.bus import Bus
    from devicetwin.feed import StoreFeed
    from devicetwin.service import TwinService
    from devicetwin.wire import subscriptions
    from edgehub.connector import Connector, Hubs, LinkStatus
    from metamanager.errors import StoreError
    from metamanager.secretkeys import keys_of, place_of
    from metamanager.store import Store

    node = Node(settings.node)
    keys = keys_of(place_of(data_dir, settings.secrets.key_file))
    try:
        store = await Store.open(data_dir / STORE_NAME, keys=keys, history_rows=settings.devices.history_rows)
    except StoreError as exc:
        raise cli.CommandError(str(exc)) from exc
    stack.push_async_callback(store.close)
    address, broker = await _broker(settings.mqtt, node, stack)
    bus = Bus(address, _client_id(node), subscriptions(node), broker.dial_inside if broker is not None else None)
    link = LinkStatus()

    async def commit(batches: Sequence[Batch]) -> Mapping[int, Sequence[Refusal]]:
        return (await store.apply(batches)).refusals

    hub = CloudLink(link)
    local: "ApiLink | None" = None  # noqa: UP037 - imported for the type checker only
    if settings.api.enabled:
        from metamanager import api as local_api

        local = local_api.ApiLink.over(store, hub, node, settings.api.interest_idle_s)
    connector = Connector(
        node,
        Hubs(settings.cloud.link.host, settings.cloud.link.port, context),
        store,
        commit,
        agent=f"fairlead/{VERSION}",
        draw=random.random,
        status=link,
        selections=None if local is None else local.interests,
        store_errors=(StoreError,),
    )
    hub.connector = connector
    if local is not None:
        # Before the first connection: what is not wanted then is taken away.
        try:
            await local.load()
        except StoreError as exc:
            raise cli.CommandError(str(exc)) from exc
    outbox = Outbox(store, connector.reports_waiting)
    twins = TwinService(
        node,
        outbox,
        StoreFeed(store),
        bus,
        store_errors=(StoreError,),
        stale_after_ms=settings.devices.stale_after_s * 1000,
    )
    served = _api_context(settings) if settings.api.enabled and settings.api.tls else None

    def renewed() -> None:
        connector.show(_link_context(settings.cloud))
        if served is not None:
            _show(served, settings)

    renewal = _renewal(settings, data_dir, link, renewed)
    status = NodeStatus(settings, store, link, twins, connector.resync, broker, renewal)
    try:
        await stack.enter_async_context(serve(status.answer, unix_path=data_dir / SOCKET_NAME))
    except ListenError as exc:
        raise cli.CommandError(f"the status socket: {exc}") from exc
    try:
        status.local = local
        if local is not None:
            from metamanager import api as local_api
            from metamanager.access import Access

            api = local_api.serve_local_api(
                store,
                host=settings.api.listen.host,
                port=settings.api.listen.port,
                link_state=status.link_state,
                version=VERSION,
                twins=twins,
                link=local,
                access=None if served is None else Access(store, hub, node),
                context=None if served is None else served.context,
            )
            status.api = (await stack.enter_async_context(api)).endpoint
    except ListenError as exc:
        raise cli.CommandError(f"the local API: {exc}; choose another with --api") from exc
    # What was imported stays; left in, every full collection would walk it, and stop everything for 46 ms.
    gc.freeze()
    async with asyncio.TaskGroup() as tasks:
        if broker is not None:
            tasks.create_task(broker.run(), name="broker")
        tasks.create_task(_report_node_info(store, outbox, node, settings.cloud.link), name="node-info")
        tasks.create_task(_report_rebuild(store, node, connector.reports_waiting), name="rebuild")
        tasks.create_task(twins.run(), name="twins")
        tasks.create_task(connector.run(), name="link")
        if renewal is not None:
            tasks.create_task(renewal.run(), name="renewal")
        tasks.create_task(status.keep(), name="status")
        if local is not None:
            tasks.create_task(local.run(), name="local-api")
        tasks.create_task(_damage(store), name="store-damage")


async def _broker(
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
        host=mqtt.listen.host, port=mqtt.listen.port, durable_client_id=_client_id(node), durable_filters=filters
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


def _api_context(settings: EdgeConfig) -> LiveContext:
    """What the local API shows, and whose client certificates it looks at: those of the join CA."""
    made = LiveContext(server_context(TlsMin.TLS_1_2), ssl.CERT_OPTIONAL)
    try:
        _show(made, settings)
    except OSError as exc:  # ssl.SSLError is one
        names = f"{settings.api.certificate}, {settings.api.key}"
        raise cli.CommandError(
            f"the local API's certificate and key cannot be used ({names}): {exc}; join again with --force to get them"
        ) from exc
    return made


def _show(served: LiveContext, settings: EdgeConfig) -> None:
    """Raises OSError."""
    trusted = settings.cloud.certificate_authority.read_text()
    served.replace(str(settings.api.certificate), trusted, str(settings.api.key))


def _renewal(settings: EdgeConfig, data_dir: Path, link: "LinkStatus", renewed: Callable[[], None]) -> "Renewal | None":
    """None where the certificates are somebody else's to renew."""
    from edgehub.renewal import Renewal

    cloud = settings.cloud
    if not _are_joined(cloud, data_dir):
        logger.info("certificates outside of the data directory are not renewed", extra={"file": cloud.certificate})
        return None
    try:
        return Renewal(
            data_dir, Node(settings.node), _join_endpoint(cloud), link, renewed, random.random, cloud.tls_min
        )
    except (OSError, ValueError) as exc:
        logger.warning("this node's certificate cannot be renewed", extra={"reason": str(exc)})
        return None


def _are_joined(cloud: CloudConfig, data_dir: Path) -> bool:
    """Whether the files are where `edgecore join` put them."""
    home = (data_dir / "pki").resolve()
    expected = [home / "ca.crt", home / "edge.crt", home / "edge.key"]
    return [path.resolve() for path in (cloud.certificate_authority, cloud.certificate, cloud.key)] == expected


def _join_endpoint(cloud: CloudConfig) -> Endpoint:
    return cloud.join if cloud.join.host else Endpoint(cloud.link.host, cloud.join.port)


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_password(url: str) -> bool:
    return ":" in url.partition("://")[2].rpartition("@")[0]


async def _damage(store: "Store") -> None:
    """A damaged database is set aside and built anew at the next start; until then nothing it says is to be trusted."""
    await store.wait_damaged()
    raise cli.CommandError(f"the store {store.path} is damaged; start again, and it is set aside and built anew")


def _client_id(node: Node) -> str:
    """Names this node's session at the broker, the same at each start; two nodes may share one broker."""
    return f"fairlead-{node}"


async def _report_node_info(store: "Store", outbox: "Outbox", node: Node, link: Endpoint) -> None:
    """Tell the cloud what machine this is, once and whenever that has changed."""
    from componentbase.aside import aside
    from edgehub.nodeinfo import node_info, outgoing_address
    from metamanager.errors import StoreError

    address = await aside(lambda: outgoing_address(link.host, link.port), "node-info")
    told = node_info(f"fairlead-{VERSION}", address)
    document = "edgecore/nodeInfo"
    try:
        if (await store.documents(document)).get(document) != told:
            await outbox.save({document: told}, [ReportEntry(ObjectKey(NODES, "", node), NODE_INFO_FIELD, told)])
    except StoreError as exc:
        logger.warning("node info not reported", extra={"reason": str(exc)})


async def _report_rebuild(store: "Store", node: Node, saved: Callable[[], None]) -> None:
    """Tell the cloud, once, that the store was damaged and begun anew."""
    from metamanager.errors import StoreError
    from metamanager.rebuilt import tell_rebuilt

    try:
        if await tell_rebuilt(store, node):
            saved()
    except StoreError as exc:
        logger.warning("the rebuild of the store is not reported yet", extra={"reason": str(exc)})


class CloudLink:
    """The link as the local API sees it."""

    def __init__(self, status: "LinkStatus") -> None:
        self.connector: Connector
        self._status = status

    def is_connected(self) -> bool:
        return self._status.connected

    def want(self, interests: Sequence[Interest]) -> None:
        self.connector.want(interests)

    async def call(self, head: CallHead, body: bytes = b"", timeout_s: float = CALL_S) -> "Answered":
        return await self.connector.call(head, body, timeout_s)


class Outbox:
    """The store as the twins see it: what they save may have to go up, so the link is told."""

    def __init__(self, store: "Store", saved: Callable[[], None]) -> None:
        self._store = store
        self._saved = saved

    async def documents(self, prefix: str = "") -> dict[str, bytes]:
        return await self._store.documents(prefix)

    async def save(
        self,
        documents: Mapping[str, bytes | None],
        reports: Sequence[ReportEntry],
        events: "Sequence[KubeEvent]" = (),
        samples: "Samples" = MappingProxyType({}),
        gone: Sequence[ObjectKey] = (),
    ) -> None:
        await self._store.save(documents, reports, events, samples, gone)
        if reports or events:
            self._saved()


# ---- status


class NodeStatus:
    """How this node stands, for `edgecore status`, the local API's header and the store's note of being in sync."""

    def __init__(
        self,
        settings: EdgeConfig,
        store: "Store",
        link: "LinkStatus",
        twins: "TwinService",
        resync: Callable[[], bool],
        broker: "BrokerServer | None" = None,
        renewal: "Renewal | None" = None,
    ) -> None:
        self.api = ""
        self.local: ApiLink | None = None
        """What the local API has of the cloud."""
        self._broker = broker
        self._renewal = renewal
        self._resync = resync
        self._settings = settings
        self._store = store
        self._link = link
        self._twins = twins
        self._left_sync_at_ms: int | None = None
        self._was_in_sync = False
        self._noted_at = 0.0

    def link_state(self) -> "LinkState":
        from metamanager.api import LinkState

        synced = self._link.synced
        if (synced and self._link.silent_s() > SILENT_S) or (not synced and self._was_in_sync):
            # It has fallen silent, or its loss was not looked at yet: in sync it was when it was heard last.
            return LinkState(False, self._heard_at_ms())
        return LinkState(synced, self._left_sync_at_ms)

    def _heard_at_ms(self) -> int:
        return _now_ms() - round(self._link.silent_s() * 1000)

    async def keep(self) -> None:
        """Note now and then that the node is in sync: after a restart that is all that tells how old the state is."""
        try:
            while True:
                await asyncio.sleep(1.0)
                await self._look()
        finally:
            if self._was_in_sync:
                await self._note()

    async def _look(self) -> None:
        if self._link.synced:
            if not self._was_in_sync or time.monotonic() - self._noted_at > NOTE_SYNC_S:
                self._was_in_sync = True
                await self._note()
        elif self._was_in_sync:
            self._was_in_sync = False
            self._left_sync_at_ms = self._heard_at_ms()
            await self._note()

    async def _note(self) -> None:
        from metamanager.errors import StoreError

        self._noted_at = time.monotonic()
        with contextlib.suppress(StoreError):  # a full disk; the time noted before stands, and is too old, not too new
            await self._store.note_in_sync(self._heard_at_ms())

    async def answer(self, request: "Request") -> "Response":
        """The status socket: /statusz, /metrics, and what `edgecore resync` asks."""
        from apiserver.messages import Response, json_response

        match request.method, request.path:
            case "GET", "/statusz":
                return json_response(200, await self._facts())
            case "GET", "/metrics":
                page = metrics.render(_metrics(await self._facts()))
                return Response(200, [("content-type", metrics.CONTENT_TYPE)], page)
            case "GET", "/history":
                return json_response(200, await self._history(dict(request.query)))
            case "POST", "/resync":
                return json_response(200, {"connected": self._resync()})
            case "POST", "/renew" if self._renewal is not None:
                self._renewal.ask()
                return json_response(200, {})
            case _:
                raise NotFound(f"{request.method} {request.path} is not served here")

    async def _history(self, asked: Mapping[str, str]) -> dict[str, object]:
        try:
            device = ObjectKey(DEVICES, asked["namespace"], asked["name"])
            name, since_ms = asked["property"], int(asked["since"])
        except (KeyError, ValueError) as exc:
            raise BadRequest(f"/history needs namespace, name, property and since: {exc}") from None
        from devicetwin.drawing import history_facts

        found = await self._store.documents(_twin_prefix(device))
        recorded = await self._store.history(device, name, since_ms)
        return history_facts(device, name, recorded.samples, recorded.properties, found)

    async def _facts(self) -> dict[str, object]:
        twins = self._twins.status()
        parked = await self._store.parked()
        return {
            "node": self._settings.node,
            "version": VERSION,
            "hub": str(self._settings.cloud.link),
            "connected": self._link.connected,
            "inSync": self._link.synced,
            "failures": self._link.attempts,
            "certificateUntil": None if self._renewal is None else self._renewal.validity.lapses.isoformat(),
            "certificateProblem": "" if self._renewal is None else self._renewal.problem,
            "problem": self._link.last_error,
            "lastSyncedAtMs": await self._store.last_synced_at_ms(),
            "objects": await self._store.object_count(),
            "secretsLost": await self._store.lost_count(),
            "reportsWaiting": await self._store.report_count(),
            "reportsRefused": parked.total,
            "lastRefused": [each._asdict() for each in parked.last],
            "eventsWaiting": await self._store.event_count(),
            "eventsDropped": await self._store.events_dropped() + twins.events_dropped,
            "api": self.api,
            "interests": 0 if self.local is None else len(self.local.interests.selections),
            "writesWaiting": len(await self._store.local_writes()),
            "mqtt": str(twins.bus.address),
            "mqttConnected": twins.bus.connected,
            "mqttProblem": twins.bus.problem,
            "mqttIgnored": twins.ignored,
            "mqttDenied": self._broker.denied if self._broker is not None else 0,
            "mqttLoginsRefused": self._broker.logins_refused if self._broker is not None else 0,
            "mqttMissed": twins.missed,
            "devices": twins.devices,
            "devicesContested": twins.contested_count,
            "contested": twins.contested,
            "openWishes": twins.open_wishes,
            "storeProblem": twins.store_problem,
        }


def _metrics(facts: Mapping[str, Any]) -> Iterator[metrics.Metric]:
    for name, text, key in (
        ("edge_connected", "Whether the link is up.", "connected"),
        ("edge_in_sync", "Whether all that the hub had is committed.", "inSync"),
        ("edge_objects", "Objects held.", "objects"),
        ("edge_secrets_lost", "Secrets that cannot be read, because their key is gone.", "secretsLost"),
        ("edge_reports_waiting", "Reports that the apiserver does not have yet.", "reportsWaiting"),
        ("edge_reports_refused_total", "Reports that the apiserver will never take.", "reportsRefused"),
        ("edge_events_waiting", "Kubernetes Events that the apiserver does not have yet.", "eventsWaiting"),
        ("edge_events_dropped_total", "Kubernetes Events given up for later ones.", "eventsDropped"),
        ("edge_interests", "Selections that clients of the local API asked for.", "interests"),
        ("edge_writes_waiting", "Writes at the local API that the apiserver does not have yet.", "writesWaiting"),
        ("edge_mqtt_connected", "Whether the MQTT broker is there.", "mqttConnected"),
        ("edge_mqtt_denied_total", "Publications at the embedded broker without the right to them.", "mqttDenied"),
        ("edge_mqtt_logins_refused_total", "Clients that the embedded broker refused.", "mqttLoginsRefused"),
        ("edge_devices", "Devices of this node.", "devices"),
        ("edge_open_wishes", "Desired values that are not met.", "openWishes"),
        ("edge_mqtt_updates_missed_total", "Updates that their mappers numbered and that never came.", "mqttMissed"),
        ("edge_devices_contested", "Devices that more than one mapper claims.", "devicesContested"),
    ):
        yield metrics.Metric(name, text, float(facts[key]))
    yield metrics.Metric("edge_tasks", "Tasks of the event loop.", len(asyncio.all_tasks()))
    if facts["certificateUntil"] is not None:
        left_s = datetime.fromisoformat(facts["certificateUntil"]).timestamp() - time.time()
        yield metrics.Metric("edge_certificate_seconds", "Until this node's certificate lapses.", left_s)
    if (synced_at := facts["lastSyncedAtMs"]) is not None:
        stale = 0.0 if facts["inSync"] else max(0, _now_ms() - synced_at) / 1000
        yield metrics.Metric("edge_stale_seconds", "How old what is held may be; absent before the first sync.", stale)


def _resync(args: argparse.Namespace) -> int:
    def command() -> None:
        answer = statusz.ask(args.data_dir / SOCKET_NAME, PROG, "POST /resync")
        print(f"what this node holds is compared {'now' if answer['connected'] else 'as soon as the hub is there'}")

    return cli.guard(PROG, command)


def _renew(args: argparse.Namespace) -> int:
    from componentbase.files import Locked

    def command() -> None:
        settings = _load(args.data_dir / CONFIG_NAME)
        if not _are_joined(settings.cloud, args.data_dir):
            raise cli.CommandError(f"{settings.cloud.certificate} is not what `{PROG} join` made: renew it yourself")
        try:
            with lock_dir(args.data_dir):
                _renew_here(settings, args.data_dir)
        except Locked:
            statusz.ask(args.data_dir / SOCKET_NAME, PROG, "POST /renew")
            print(f"the running {PROG} gets another certificate now; `{PROG} status` and its log say how it went")

    return cli.guard(PROG, command)


def _renew_here(settings: EdgeConfig, data_dir: Path) -> None:
    from componentbase.certificates import validity
    from edgehub.renewal import settle
    from edgehub.renewing import prepare

    cloud = settings.cloud
    try:
        settle(data_dir)
        prepare(data_dir, Node(settings.node), _join_endpoint(cloud), at_once=True, tls_min=cloud.tls_min)
        settle(data_dir)
        until = validity(cloud.certificate.read_bytes()).lapses
    except (OSError, ValueError) as exc:
        raise cli.CommandError(f"the certificates in {data_dir / 'pki'} cannot be used: {exc}") from exc
    print(f"{settings.node} has a certificate until {until:%Y-%m-%d %H:%M:%S} UTC")


def _rotate(args: argparse.Namespace) -> int:
    def command() -> None:
        from metamanager.errors import StoreError
        from metamanager.opening import rotate
        from metamanager.secretkeys import place_of

        settings = _load(args.data_dir / CONFIG_NAME)
        place = place_of(args.data_dir, args.secrets_key or settings.secrets.key_file)
        with lock_dir(args.data_dir):
            try:
                rotate(args.data_dir / STORE_NAME, place)
            except StoreError as exc:
                raise cli.CommandError(str(exc)) from exc
        print(f"Secrets are encrypted with a new key, in {place.path}; the old one is forgotten")

    return cli.guard(PROG, command)


# ---- purge


def _purge(args: argparse.Namespace) -> int:
    from componentbase.purging import Purge, purge
    from edgehub.join import STAGED

    def command() -> None:
        data_dir = args.data_dir.absolute()
        traces = (CONFIG_NAME, STORE_NAME, STAGED)
        if not any((data_dir / name).exists() for name in traces):
            raise cli.CommandError(f"{data_dir} is not a node's directory: there is none of {', '.join(traces)} in it")
        node, key_file = _known_to(data_dir)
        plan = Purge(data_dir, _ours(data_dir, args.secrets_key or key_file))
        if not purge(plan, dry_run=args.dry_run, yes=args.yes, ask=input if sys.stdin.isatty() else None):
            return
        print(
            f"in the cloud, `kubectl delete node {node}` takes the node away, and `kubectl --namespace fairlead-system "
            f"delete secret node-{node}` gives its name free. Who has a copy of its key can use its "
            "certificate until that expires: where there may be one, ban the node there."
        )

    return cli.guard(PROG, command)


def _known_to(data_dir: Path) -> tuple[str, Path | None]:
    """The node's name and its configured key file; what a configuration that cannot be read says is not known."""
    try:
        settings = _load(data_dir / CONFIG_NAME)
    except cli.CommandError as exc:
        logger.warning("the configuration cannot be read; what it names elsewhere stays", extra={"reason": str(exc)})
        return "NAME", None
    return settings.node, settings.secrets.key_file


def _ours(data_dir: Path, key_file: Path | None) -> list[tuple[Path, str]]:
    """Where edgecore's files are, as a directory and a pattern of names, in the order in which they should go."""
    from edgehub import join
    from metamanager.opening import FILES
    from metamanager.secretkeys import place_of

    place = place_of(data_dir, key_file)
    # The keys first: what is left of a purge that was interrupted is of no use to anybody.
    name = glob.escape(place.path.name)
    keys = [(place.path.parent, pattern) for pattern in (name, f".{name}.*.part")] if place.is_ours else []
    store = [STORE_NAME + pattern for pattern in FILES]
    rest = (f"{join.PKI}/*.key", join.PKI, *store, EdgeConfig().mqtt.users.name, SOCKET_NAME, CONFIG_NAME)
    return [*keys, *((data_dir, pattern) for pattern in rest)]


# ---- the history of a device


def _twin_prefix(device: ObjectKey) -> str:
    from devicetwin.documents import twin_name
    from devicetwin.wire import id_of

    return twin_name(id_of(device))


def _history(args: argparse.Namespace) -> int:
    def command() -> None:
        from componentbase.files import Locked
        from devicetwin.drawing import history_lines

        now_ms = _now_ms()
        since_ms = now_ms - round(args.since.total_seconds() * 1000)
        device = ObjectKey(DEVICES, args.namespace, args.name)
        try:
            if not (args.data_dir / STORE_NAME).exists():
                raise cli.CommandError(f"{args.data_dir} is not a node's directory: there is no {STORE_NAME}")
            with lock_dir(args.data_dir):
                facts = _history_in_file(args.data_dir / STORE_NAME, device, args.property, since_ms)
        except Locked:
            asked = {"namespace": args.namespace, "name": args.name, "property": args.property, "since": since_ms}
            facts = statusz.ask(args.data_dir / SOCKET_NAME, PROG, f"GET /history?{urlencode(asked)}")
        if args.output == "json":
            print(json.dumps(facts, indent=2))
        else:
            size = shutil.get_terminal_size((80, 24))
            print("\n".join(history_lines(facts, since_ms, now_ms, size.columns, sys.stdout.encoding or "")))

    return cli.guard(PROG, command)


def _history_in_file(path: Path, device: ObjectKey, name: str, since_ms: int) -> Mapping[str, Any]:
    from devicetwin.drawing import history_facts
    from metamanager.errors import StoreError
    from metamanager.history import read_file

    try:
        recorded, documents = read_file(path, device, name, since_ms, _twin_prefix(device))
    except StoreError as exc:
        raise cli.CommandError(str(exc)) from exc
    return history_facts(device, name, recorded.samples, recorded.properties, documents)


def _status(args: argparse.Namespace) -> int:
    def command() -> None:
        facts = statusz.ask(args.data_dir / SOCKET_NAME, PROG)
        print(json.dumps(facts, indent=2) if args.output == "json" else "\n".join(_told(facts)))

    return cli.guard(PROG, command)


def _told(facts: Mapping[str, Any]) -> list[str]:
    """A few lines for a person."""
    if facts["connected"]:
        link = f"connected to {facts['hub']}, " + ("in sync" if facts["inSync"] else "catching up")
    else:
        link = f"not connected to {facts['hub']} ({facts['problem'] or 'dialling'})"
    synced_at = facts["lastSyncedAtMs"]
    if synced_at is None:
        age = "never was in sync: the local API answers 503"
    elif facts["inSync"]:
        age = "up to date"
    else:
        age = f"as of {max(0, _now_ms() - synced_at) // 1000} s ago"
    mqtt = f"{facts['mqtt']} {'connected' if facts['mqttConnected'] else 'not connected'}"
    if facts["mqttProblem"] and not facts["mqttConnected"]:
        mqtt += f" ({facts['mqttProblem']})"
    if facts["mqttIgnored"]:
        mqtt += f", {facts['mqttIgnored']} messages ignored (--log-level debug says why)"
    if facts["mqttDenied"] or facts["mqttLoginsRefused"]:
        mqtt += f", {facts['mqttDenied']} publications and {facts['mqttLoginsRefused']} logins refused (see the log)"
    if facts["mqttMissed"]:
        mqtt += f", {facts['mqttMissed']} numbered updates never came"
    lines = [
        f"node     {facts['node']} (fairlead {facts['version']})",
        f"link     {link}",
        f"store    {facts['objects']} objects, {age}",
        f"reports  {facts['reportsWaiting']} waiting, {facts['reportsRefused']} refused by the cloud",
        f"mqtt     {mqtt}",
        f"devices  {facts['devices']}, {facts['openWishes']} with a desired value that is not met",
        f"api      {facts['api'] or 'off'}",
    ]
    if facts["interests"] or facts["writesWaiting"]:
        lines.append(
            f"clients  read {facts['interests']} selections of the cluster, "
            f"{facts['writesWaiting']} writes wait to go up"
        )
    if facts["secretsLost"]:
        lines.append(
            f"secrets  {facts['secretsLost']} cannot be read: the key that they were encrypted with is gone; "
            "they are asked of the cloud"
        )
    if facts["eventsWaiting"] or facts["eventsDropped"]:
        lines.append(f"events   {facts['eventsWaiting']} waiting, {facts['eventsDropped']} dropped for later ones")
    lines += [f"contest  {each} (several mappers claim it, the last word counts)" for each in facts["contested"]]
    if (more := facts["devicesContested"] - len(facts["contested"])) > 0:
        lines.append(f"contest  and {more} more")
    for each in reversed(facts["lastRefused"][-LAST_REFUSED:]):
        age_s = max(0, _now_ms() - each["at_ms"]) // 1000
        lines.append(f"refused  {each['key']} {each['field']}, {age_s} s ago: {each['reason']}")
    if facts["certificateProblem"]:
        until = facts["certificateUntil"]
        lines.append(f"problem  the certificate (until {until}) is not renewed: {facts['certificateProblem']}")
    if facts["storeProblem"]:
        lines.append(f"problem  {facts['storeProblem']}")
    return lines


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
