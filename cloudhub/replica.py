"""
One hub process: its parts made, handed what they need, and run in one TaskGroup.

cloudcore.py starts it, once, or several of them as workers (cloudhub/supervisor.py). A process keeps nothing
that a restart could lose, and shares nothing with another: the CA and the tokens are Secrets of the apiserver,
what nodes hold the nodes know, and what they should hold is watched.
"""

import asyncio
import contextlib
import datetime
import gc
import logging
import secrets
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from apimachinery.errors import ApiError, NotFound, Unavailable
from apimachinery.events import Change
from apimachinery.keys import Node, Resource
from apimachinery.resources import (
    BUILT_IN,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEVICE_MODELS,
    DEVICES,
    LEASES,
    NODE_LEASE_NAMESPACE,
)
from apimachinery.watchcache import WatchCache
from apiserver.http import ListenError, serve
from cloudhub.access import Access
from cloudhub.announcer import Announcer
from cloudhub.apiclient import ApiClient, ObjectsByName
from cloudhub.authority import Authority, CaLapsed, ServerIdentity, server_names
from cloudhub.calls import Calls
from cloudhub.clientcas import ClientCas
from cloudhub.clustersigner import ClusterSigner, Policy
from cloudhub.conflation import Conflation
from cloudhub.credentials import refusal
from cloudhub.demand import Advanced, Demand, Watched
from cloudhub.doorkeeper import Doorkeeper
from cloudhub.fences import Fences
from cloudhub.horizon import Advance
from cloudhub.join import IDLE_S, MAX_BODY_BYTES, MAX_CONNECTIONS_EACH, JoinEndpoint
from cloudhub.listening import serve_metrics, serve_status
from cloudhub.nodes import NodeLifecycle
from cloudhub.placement import STANDARD_RULES, Placement, Rule, with_definitions
from cloudhub.presence import Presence
from cloudhub.projection import Look, Projection
from cloudhub.reflector import EVERYTHING, Reflector, Selection
from cloudhub.requests import Link
from cloudhub.roster import Roster
from cloudhub.server import HubServer
from cloudhub.session import Session
from cloudhub.settings import SOCKET_NAME, CloudConfig, OnClone, SignedBy
from cloudhub.statuspage import StatusPage
from cloudhub.statuswriter import StatusWriter
from cloudhub.tokens import REPEAT_S, WAITING_REPEAT_S, Tokens
from cloudhub.vault import Vault
from cloudhub.worker import has_terminal
from componentbase import cli
from componentbase.allocator import keep_large_blocks_apart
from componentbase.descriptors import allow_many_files
from componentbase.endpoints import Endpoint, why_not_listening
from componentbase.files import write_atomic
from componentbase.lately import Lately
from link.frames import ReportAck, Traffic, traffic_of
from link.websocket import Listener

if TYPE_CHECKING:
    from link.quic import LiveCredentials
    from link.quicserver import Listener as QuicListener

logger = logging.getLogger(__name__)

PRUNE_S = 3600.0
RESET_KEY_NAME, RESET_KEY_BYTES = "quic-reset.key", 32
RETRY_S = 2.0

_KNOWN = {resource.collection: resource for resource in (*BUILT_IN, DEVICES, DEVICE_MODELS)}

T = TypeVar("T")


def _log_serving(where: Mapping[str, str]) -> None:
    logger.info("serving", extra=dict(where))


class Replica:
    """One hub process: its parts, and how they are joined."""

    def __init__(
        self,
        settings: CloudConfig,
        client: ApiClient,
        data_dir: Path,
        *,
        worker: int = 0,
        serving: Callable[[Mapping[str, str]], None] = _log_serving,
    ) -> None:
        """
        worker: its number where it is one of several that share ports; 0 where it is alone.
        serving: called once, with where it listens: link, join, apiserver.
        """
        self._settings = settings
        self._client = client
        self._data_dir = data_dir
        self._worker = worker
        self._serving = serving
        self._cache = WatchCache(window=1)  # nobody asks it for what was: a node is sent what is
        self._announcer = Announcer(client)
        fences = Fences(f"{socket.gethostname()}-{secrets.token_hex(4)}")
        self._vault = Vault(ObjectsByName(client))
        by_cluster = settings.join.signer is SignedBy.KUBERNETES
        self._client_cas = ClientCas(client, settings.join.client_ca) if by_cluster else None
        self._roster = Roster(ObjectsByName(client), requires_key=by_cluster)
        self._door = Doorkeeper(
            self._cache,
            self._roster.ban,
            self._announcer.say,
            bans_clones=settings.nodes.on_clone is OnClone.BAN,
            requires_key=by_cluster,
        )
        presence = Presence(renew_s=settings.nodes.renew_s, grace_s=settings.nodes.grace_s)
        self._nodes = NodeLifecycle(client, presence, fences, self._overtaken, labels=self._roster.labels)
        self._lately = Lately(asyncio.get_running_loop().time)
        """Whether the cluster changes something that is no device."""
        self._writer: StatusWriter[Session] = StatusWriter(
            client,
            self._cache,
            self._reported,
            fences,
            self._nodes.confirm,
            announce=self._announcer.say,
            min_interval_s=settings.reports.min_interval_s,
            yields=self._lately.is_so,
        )
        self._server: HubServer | None = None
        self._look: Look | None = None
        self._following: dict[Resource, asyncio.Task[None]] = {}
        self._demand: Demand | None = None
        self._access: Access | None = None
        self._calls: Calls | None = None
        self._page = StatusPage(client, self._cache, self._announcer, self._writer, self._door, worker)
        self._reflectors = self._page.reflectors

    async def run(self) -> None:
        """Serve until cancelled."""
        # The status first: it is what tells that the apiserver is not there.
        async with contextlib.AsyncExitStack() as stack:
            await serve_status(stack, self._data_dir / SOCKET_NAME, self._page.answer)
            await self._run(stack)

    async def _run(self, stack: contextlib.AsyncExitStack) -> None:
        authority = await self._patiently("the certificate authority", self._load_authority)
        placement = await self._patiently("the resources to be placed", self._placement)
        self._look = placement.look
        if self._settings.interest.enabled:
            self._serve_interest(placement)
        self._server = self._made_server(placement)
        for resource in placement.resources():
            self._reflectors[resource] = self._reflector(resource, _selection(resource), self._advanced)
        quic = self._quic_credentials()
        identity = self._identity(authority, quic)
        async with asyncio.TaskGroup() as tasks:
            for resource, reflector in self._reflectors.items():
                name = f"reflector[{resource.collection}]"
                self._following[resource] = tasks.create_task(reflector.run(), name=name)
            # Nobody is let in before everything is known: to a node, "none" would mean "delete yours".
            for reflector in self._reflectors.values():
                await reflector.wait_synced()
            # What was imported stays; left in, every full collection would walk it, and stop everything for 37 ms.
            gc.freeze()
            keep_large_blocks_apart()
            allow_many_files()
            if self._access is not None and self._calls is not None:
                tasks.create_task(self._access.run(), name="access")
                tasks.create_task(self._calls.run(), name="calls")
            listeners = await self._listen_for_nodes(identity, quic)
            port = listeners[-1].port
            if self._settings.metrics is not None:
                await serve_metrics(stack, self._settings.metrics, self._page.scraped)
            window_s = self._settings.join.renewal_window_s
            signer, tokens = self._signer(), self._tokens()
            endpoint = JoinEndpoint(authority, tokens, self._roster, Link(port), signer=signer, window_s=window_s)
            self._page.joins = endpoint.counts
            if signer is not None:
                self._page.signer = f"kubernetes ({self._settings.join.signer_name})"
                tasks.create_task(_check_rights(signer), name="signer-rights")
            joining = await self._serve_join(stack, self._settings.join.listen, endpoint, identity)
            self._page.endpoints = (str(Endpoint(self._settings.link.listen.host, port)), joining)
            tasks.create_task(self._server.run(*listeners), name="hub")
            tasks.create_task(self._writer.run(), name="status-writer")
            tasks.create_task(self._announcer.run(), name="announcer")
            tasks.create_task(self._door.run(), name="door")
            tasks.create_task(self._nodes.run(), name="nodes")
            keeping = identity.keep_fresh(self._vault, self._settings.join.reload_s, _hangups())
            tasks.create_task(keeping, name="certificate")
            tasks.create_task(_prune(self._tokens()), name="tokens")
            told = {"link": self._page.endpoints[0], "join": joining, "quic": self._page.quic}
            told |= {"signer": self._page.signer, "apiserver": self._client.server}
            self._serving({name: fact for name, fact in told.items() if fact})

    def _identity(self, authority: Authority, quic: "LiveCredentials | None") -> ServerIdentity:
        """What this process shows to nodes. quic: where it is shown over QUIC. Raises CommandError."""
        asked = (self._settings.link.listen, self._settings.join.listen, self._settings.link.quic_listen)
        names = server_names([each.host for each in asked if each is not None], self._settings.join.advertise)
        try:
            return authority.server(names, self._settings.link.tls_min, show=None if quic is None else quic.replace)
        except CaLapsed as exc:
            raise cli.CommandError(str(exc)) from exc
        except ssl.SSLError as exc:  # our own were used once when they were read
            raise cli.CommandError(f"the CA of the cluster's clients cannot be used: {exc.reason or exc}") from exc

    async def _listen_for_nodes(
        self, identity: ServerIdentity, quic: "LiveCredentials | None"
    ) -> "list[Listener | QuicListener]":
        """Where nodes can come from now on, the websocket last."""
        listeners: list[Listener | QuicListener] = []
        # QUIC first: an edge that finds TCP and no QUIC takes the websocket, and keeps it.
        if quic is not None and (asked := self._settings.link.quic_listen) is not None:
            listeners.append(await self._listen_quic(quic))
            self._page.quic = str(Endpoint(asked.host, listeners[-1].port))
        listeners.append(await self._listen(self._settings.link.listen, identity.link_context))
        self._page.listeners = listeners
        return listeners

    def _made_server(self, placement: Placement) -> HubServer:
        """What nodes will connect to; it lets nobody in yet."""
        server = HubServer(
            self._cache,
            placement,
            self._writer,
            self._nodes,
            access=self._access,
            calls=self._calls,
            door=self._door,
            heartbeat_s=self._settings.link.heartbeat_s,
            grace_s=self._settings.link.grace_s,
        )
        self._page.hub = server.hub
        return server

    async def _patiently(self, what: str, attempt: Callable[[], Coroutine[None, None, T]]) -> T:
        """Try until the apiserver is there; whatever else it answers ends the command."""
        while True:
            try:
                result = await attempt()
            except Unavailable as exc:
                if not self._page.problem:
                    logger.warning("waiting for the apiserver", extra={"for": what, "problem": refusal(exc)})
                self._page.problem = f"waiting for {what}: {refusal(exc)}"
                await asyncio.sleep(RETRY_S)
            except ApiError as exc:
                raise cli.CommandError(f"{what}: {refusal(exc)}") from exc
            else:
                self._page.problem = ""
                return result

    async def _load_authority(self) -> Authority:
        try:
            return await Authority.load(self._vault, self._settings.join.certificate_s, others=self._client_cas)
        except OSError as exc:
            raise cli.CommandError(f"--client-ca {self._settings.join.client_ca}: {exc.strerror}") from exc

    def _signer(self) -> ClusterSigner | None:
        """Of nodes; None for our own CA."""
        if self._client_cas is None:
            return None
        join = self._settings.join
        return ClusterSigner(self._client, self._client_cas, Policy(join.signer_name, join.approve, join.certificate_s))

    def _tokens(self) -> Tokens:
        return Tokens(self._vault, REPEAT_S if self._client_cas is None else WAITING_REPEAT_S)

    async def _placement(self) -> Placement:
        rules = [
            Rule(
                await self._resource(rule.resource),
                rule.by,
                rule.path,
                rule.namespace,
                frozenset(rule.names),
                await self._resource(rule.referrer) if rule.referrer else None,
            )
            for rule in self._settings.placement
        ]
        return Placement(with_definitions((*STANDARD_RULES, *rules)))

    async def _resource(self, collection: str) -> Resource:
        if collection in _KNOWN:
            return _KNOWN[collection]
        try:
            return await self._client.discover(collection)
        except NotFound as exc:
            raise cli.CommandError(
                f'placement: the apiserver has no resource "{collection}"; apply its definition, or correct the name'
            ) from exc

    def _serve_interest(self, placement: Placement) -> None:
        """Let nodes have what they are interested in, and ask."""
        settings = self._settings.interest
        self._demand = demand = Demand(
            self._client,
            self._cache,
            self,
            [Watched(resource, _selection(resource).namespace) for resource in placement.resources()],
            advanced=self._advanced,
            changed=self._demand_changed,
            widen=self._widen,
            idle_s=settings.idle_s,
            most=settings.max_resources,
        )
        self._access = Access(
            self._client, placement, self._cache, demand, decided=self._decided, recheck_s=settings.recheck_s
        )
        self._calls = Calls(self._client, placement, self._cache, demand.resource, at_once=settings.max_calls)
        self._page.demand, self._page.access, self._page.calls = demand, self._access, self._calls

    def _demand_changed(self, collection: str) -> None:
        assert self._access is not None, "it is made with the demand"
        self._access.changed(collection)

    def _decided(self, node: Node) -> None:
        assert self._server is not None, "nodes come after the hub was made"
        self._server.hub.decided(node)

    def _widen(self, resource: Resource, advanced: Advanced) -> Reflector:
        """Follow all of a resource that is followed in part."""
        self._following.pop(resource).cancel()
        made = self._reflectors[resource] = self._reflector(resource, EVERYTHING, advanced)
        return made

    def _reflector(self, resource: Resource, select: Selection, advanced: Advanced) -> Reflector:
        return Reflector(
            self._client,
            resource,
            self._cache,
            self,
            projection=Projection(resource, self._look),
            advanced=advanced,
            observe={DEVICES: self._writer.observe, LEASES: self._nodes.observe_lease}.get(resource, lambda _: None),
            select=select,
            conflation=Conflation(asyncio.get_running_loop().time()) if resource == DEVICES else None,
        )

    def changed(self, changes: list[Change]) -> None:
        """From every reflector: the hub places and pushes, the writers look whether a status must change."""
        assert self._server is not None, "reflectors run after the hub was made"
        if any(traffic_of(change.object.key) is not Traffic.DEVICES for change in changes):
            self._lately.happened()
        self._server.hub.changed(changes)
        for node in self._door.changed(changes):
            self._server.hub.recheck(node)
        self._writer.changed(changes)
        self._nodes.changed(changes)
        for change in changes:
            if change.object.key.resource == CUSTOM_RESOURCE_DEFINITIONS:
                for resource, reflector in self._reflectors.items():
                    if resource.collection == change.object.key.name:
                        reflector.wake()
                if self._demand is not None:
                    self._demand.wake(change.object.key.name)

    def _advanced(self, resource: Resource, advance: Advance) -> None:
        assert self._server is not None, "reflectors run after the hub was made"
        self._server.hub.advanced(resource, advance)

    def _reported(self, session: Session, ack: ReportAck) -> None:
        assert self._server is not None, "reports come after the hub was made"
        self._server.hub.reported(session, ack)

    def _overtaken(self, node: Node, term: int, newest: int, was_last: bool) -> None:
        assert self._server is not None, "who is overtaken has had a session"
        self._server.hub.overtaken(node, term, newest, was_last=was_last)

    async def _listen(self, endpoint: Endpoint, context: ssl.SSLContext) -> Listener:
        assert self._server is not None, "the hub is made before it listens"
        try:
            return await self._server.listen(endpoint.host, endpoint.port, context, reuse_port=bool(self._worker))
        except OSError as exc:
            raise cli.CommandError(
                f"the link: {why_not_listening(endpoint.host, endpoint.port, exc)}; choose another with --listen"
            ) from exc

    def _quic_credentials(self) -> "LiveCredentials | None":
        """Raises CommandError where QUIC is asked for and not installed."""
        if self._settings.link.quic_listen is None:
            return None
        try:
            from link.quic import LiveCredentials
        except ImportError as exc:
            raise cli.CommandError(f"--quic-listen: {exc}; install fairlead[cloud,quic], or leave it out") from exc
        return LiveCredentials()

    async def _listen_quic(self, credentials: "LiveCredentials") -> "QuicListener":
        endpoint = self._settings.link.quic_listen
        assert self._server is not None, "the hub is made before it listens"
        assert endpoint is not None, "it is to"
        try:
            key = _reset_key(self._data_dir / RESET_KEY_NAME)
            return await self._server.listen_quic(endpoint.host, endpoint.port, credentials, key)
        except OSError as exc:
            why = why_not_listening(endpoint.host, endpoint.port, exc)
            raise cli.CommandError(f"the link over QUIC: {why}; choose another with --quic-listen") from exc

    async def _serve_join(
        self, stack: contextlib.AsyncExitStack, endpoint: Endpoint, handler: JoinEndpoint, identity: ServerIdentity
    ) -> str:
        try:
            server = await stack.enter_async_context(
                serve(
                    handler,
                    host=endpoint.host or None,
                    port=endpoint.port,
                    ssl_context=identity.join_context,
                    max_body=MAX_BODY_BYTES,
                    max_each=MAX_CONNECTIONS_EACH,
                    idle_s=IDLE_S,
                    reuse_port=bool(self._worker),
                )
            )
        except ListenError as exc:
            raise cli.CommandError(f"the join endpoint: {exc}; choose another with --join-listen") from exc
        return server.endpoint


def _reset_key(path: Path) -> bytes:
    """This process's, and of those after it in this directory. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if len(key := path.read_bytes()) == RESET_KEY_BYTES:
            return key
    key = secrets.token_bytes(RESET_KEY_BYTES)
    write_atomic(path, key)
    return key


def _selection(resource: Resource) -> Selection:
    """Which objects of a resource are watched in any case."""
    return Selection(namespace=NODE_LEASE_NAMESPACE) if resource == LEASES else EVERYTHING


def _hangups() -> asyncio.Event:
    """Set by SIGHUP, by which a service manager says "look again"; where a terminal says it, it is left alone."""
    asked = asyncio.Event()
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL and not has_terminal():  # it is ignored under nohup
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    return asked


async def _check_rights(signer: ClusterSigner) -> None:
    try:
        await signer.tell_missing_rights()
    except ApiError as exc:
        logger.info("rights to have nodes signed not known", extra={"problem": str(exc)})


async def _prune(tokens: Tokens) -> None:
    """Expired tokens are deleted now and then, so that Secrets do not pile up."""
    while True:
        try:
            if count := await tokens.prune(datetime.datetime.now(datetime.UTC)):
                logger.info("expired tokens deleted", extra={"count": count})
        except ApiError as exc:
            logger.info("expired tokens not deleted", extra={"problem": str(exc)})
        await asyncio.sleep(PRUNE_S)
