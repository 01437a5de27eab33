"""
A running node: its parts are made here, handed what they need, and run in one TaskGroup.

What is heavy is imported where it is used, because on the edge every import costs memory for as long as the process
lives; so what only some configurations need, as the local API, is not imported by the others.
"""

import asyncio
import contextlib
import gc
import logging
import random
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apimachinery.keys import Node
from componentbase import cli
from componentbase.files import lock_dir, open_private_dir
from componentbase.proxies import Proxy, proxy_for
from componentbase.release import VERSION
from componentbase.tls import LiveContext, read_little_at_a_time
from edgecore.broker import client_id, open_broker
from edgecore.certificates import api_context, link_context, renewal, show
from edgecore.joints import CloudLink, CloudNews, Outbox
from edgecore.reporting import report_node_info, report_rebuild
from edgecore.settings import QUIC_NAME, SOCKET_NAME, STORE_NAME, CloudConfig, EdgeConfig, TransportMode
from edgecore.statuspage import NodeStatus
from link.frames import Batch, Refusal

if TYPE_CHECKING:
    from devicetwin.bus import Bus
    from devicetwin.service import TwinService
    from edgehub.connector import Connector, Hubs, LinkStatus
    from edgehub.quicchoice import QuicChoice
    from metamanager.api import ApiLink
    from metamanager.store import Store

SWITCH_S = 0.0005
"""
How long a thread that works keeps the interpreter from one that wants it. SQLite gives it up for each row: with
Python's own 5 ms the thread that commits a pod would wait that long, ten times over, for a loop busy with devices.
"""


logger = logging.getLogger(__name__)


async def serve(settings: EdgeConfig, data_dir: Path) -> None:
    """Everything an edge node does, until cancelled."""
    open_private_dir(data_dir)
    read_little_at_a_time()
    from edgehub.renewal import settle

    with lock_dir(data_dir):
        settle(data_dir)
        context = link_context(settings.cloud)
        async with contextlib.AsyncExitStack() as stack:
            await _compose(settings, data_dir, context, stack)


async def _compose(
    settings: EdgeConfig, data_dir: Path, context: ssl.SSLContext, stack: contextlib.AsyncExitStack
) -> None:
    """Make the parts, join them, run them in one TaskGroup."""
    from componentbase.allocator import keep_large_blocks_apart
    from devicetwin.bus import Bus
    from devicetwin.wire import subscriptions
    from edgehub.connector import Hubs, LinkStatus

    node = Node(settings.node)
    store = await _open_store(settings, data_dir)
    stack.push_async_callback(store.close)
    address, broker = await open_broker(settings.mqtt, node, stack)
    bus = Bus(address, client_id(node), subscriptions(node), broker.dial_inside if broker is not None else None)
    link = LinkStatus()
    hub = CloudLink(link)
    local = _api_link(settings, store, hub)
    proxy = _proxy(settings.cloud)
    quic = _quic(settings.cloud, data_dir) if proxy is None else None
    hubs = Hubs(settings.cloud.link.host, settings.cloud.link.port, context, quic, proxy)
    news = CloudNews(asyncio.get_running_loop().time)
    connector = hub.connector = _connector(settings, hubs, store, link, local, news)
    if local is not None:
        # Before the first connection: what is not wanted then is taken away.
        await _load(local)
    outbox = Outbox(store, connector.reports_waiting)
    twins = _twins(settings, store, outbox, bus, news)
    served = api_context(settings) if settings.api.enabled and settings.api.tls else None

    def renewed() -> None:
        connector.show(link_context(settings.cloud))
        if served is not None:
            show(served, settings)

    renewing = renewal(settings, data_dir, link, renewed)
    status = NodeStatus(settings, store, link, twins, connector.resync, broker, renewing)
    await _serve_status(status, data_dir, stack)
    if local is not None:
        status.local = local
        status.api = await _serve_api(settings, store, hub, local, twins, status, served, stack)
    # What was imported stays; left in, every full collection would walk it, and stop everything for 46 ms.
    gc.freeze()
    keep_large_blocks_apart()  # else what 3 MiB took on their way through is never given back
    sys.setswitchinterval(SWITCH_S)
    async with asyncio.TaskGroup() as tasks:
        if broker is not None:
            tasks.create_task(broker.run(), name="broker")
        tasks.create_task(report_node_info(store, outbox, node, settings.cloud.link), name="node-info")
        tasks.create_task(report_rebuild(store, node, connector.reports_waiting), name="rebuild")
        tasks.create_task(twins.run(), name="twins")
        tasks.create_task(connector.run(), name="link")
        if renewing is not None:
            tasks.create_task(renewing.run(), name="renewal")
        tasks.create_task(status.keep(), name="status")
        if local is not None:
            tasks.create_task(local.run(), name="local-api")
        tasks.create_task(_damage(store), name="store-damage")


async def _open_store(settings: EdgeConfig, data_dir: Path) -> "Store":
    from metamanager.errors import StoreError
    from metamanager.secretkeys import keys_of, place_of
    from metamanager.store import Store

    keys = keys_of(place_of(data_dir, settings.secrets.key_file))
    try:
        return await Store.open(data_dir / STORE_NAME, keys=keys, history_rows=settings.devices.history_rows)
    except StoreError as exc:
        raise cli.CommandError(str(exc)) from exc


def _api_link(settings: EdgeConfig, store: "Store", hub: CloudLink) -> "ApiLink | None":
    """What the local API has of the cloud; None where there is none."""
    if not settings.api.enabled:
        return None
    from metamanager.api import ApiLink

    return ApiLink.over(store, hub, Node(settings.node), settings.api.interest_idle_s)


def _proxy(cloud: CloudConfig) -> Proxy | None:
    """
    What the link goes through. Raises CommandError.

    Nothing of UDP passes an HTTP proxy; who asks for nothing but QUIC has another way.
    """
    hub = cloud.link
    try:
        found = proxy_for(hub.host, hub.port)
    except ValueError as exc:
        raise cli.CommandError(str(exc)) from exc
    if found is None:
        return None
    told = {"proxy": str(found.endpoint)}
    if cloud.transport is TransportMode.QUIC:
        logger.info("the link over QUIC passes the proxy by: UDP is dialled directly", extra=told)
        return None
    logger.info("the hub is reached through a proxy, by websocket", extra=told)
    return found


def _quic(cloud: CloudConfig, data_dir: Path) -> "QuicChoice | None":
    """None where it is not to be tried. Raises CommandError."""
    if cloud.transport is TransportMode.WEBSOCKET:
        return None
    from edgehub.quicchoice import Files, QuicChoice, is_installed

    is_only = cloud.transport is TransportMode.QUIC
    if is_only and not is_installed():
        raise cli.CommandError("the transport quic needs aioquic: install fairlead[edge,quic], or choose websocket")
    files = Files(cloud.certificate_authority, cloud.certificate, cloud.key)
    return QuicChoice(cloud.quic_port, files, is_only=is_only, memory=data_dir / QUIC_NAME, draw=random.random)


def _connector(
    settings: EdgeConfig,
    hubs: "Hubs",
    store: "Store",
    link: "LinkStatus",
    local: "ApiLink | None",
    news: CloudNews,
) -> "Connector":
    from edgehub.connector import Connector
    from metamanager.errors import StoreError
    from metamanager.intake import prepared

    async def commit(batches: Sequence[Batch]) -> Mapping[int, Sequence[Refusal]]:
        news.came(batches)
        return (await store.apply(batches)).refusals

    return Connector(
        Node(settings.node),
        hubs,
        store,
        commit,
        agent=f"fairlead/{VERSION}",
        draw=random.random,
        status=link,
        selections=None if local is None else local.interests,
        store_errors=(StoreError,),
        unfold=prepared,
    )


async def _load(local: "ApiLink") -> None:
    from metamanager.errors import StoreError

    try:
        await local.load()
    except StoreError as exc:
        raise cli.CommandError(str(exc)) from exc


def _twins(settings: EdgeConfig, store: "Store", outbox: Outbox, bus: "Bus", news: CloudNews) -> "TwinService":
    from devicetwin.feed import StoreFeed
    from devicetwin.service import TwinService
    from metamanager.errors import StoreError

    return TwinService(
        Node(settings.node),
        outbox,
        StoreFeed(store),
        bus,
        store_errors=(StoreError,),
        stale_after_ms=settings.devices.stale_after_s * 1000,
        yields=news.is_coming,
    )


async def _serve_status(status: NodeStatus, data_dir: Path, stack: contextlib.AsyncExitStack) -> None:
    from apiserver.http import ListenError, serve

    try:
        await stack.enter_async_context(serve(status.answer, unix_path=data_dir / SOCKET_NAME))
    except ListenError as exc:
        raise cli.CommandError(f"the status socket: {exc}") from exc


async def _serve_api(
    settings: EdgeConfig,
    store: "Store",
    hub: CloudLink,
    local: "ApiLink",
    twins: "TwinService",
    status: NodeStatus,
    served: LiveContext | None,
    stack: contextlib.AsyncExitStack,
) -> str:
    """Where it listens."""
    from apiserver.http import ListenError
    from metamanager.access import Access
    from metamanager.api import serve_local_api

    try:
        api = serve_local_api(
            store,
            host=settings.api.listen.host,
            port=settings.api.listen.port,
            link_state=status.link_state,
            version=VERSION,
            twins=twins,
            link=local,
            access=None if served is None else Access(store, hub, Node(settings.node)),
            context=None if served is None else served.context,
        )
        return (await stack.enter_async_context(api)).endpoint
    except ListenError as exc:
        raise cli.CommandError(f"the local API: {exc}; choose another with --api") from exc


async def _damage(store: "Store") -> None:
    """A damaged database is set aside and built anew at the next start; until then nothing it says is to be trusted."""
    await store.wait_damaged()
    raise cli.CommandError(f"the store {store.path} is damaged; start again, and it is set aside and built anew")
