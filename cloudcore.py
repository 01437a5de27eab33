"""
cloudcore: the hub beside Kubernetes. One of the two composition roots: configuration in, one TaskGroup out.

Everything is made here and handed what it needs; nothing imports this module. A process keeps nothing
that a restart could lose: the CA and the tokens are Secrets of the apiserver, what nodes hold the nodes
know, and what they should hold is watched.
"""

import argparse
import asyncio
import contextlib
import datetime
import gc
import json
import logging
import secrets
import socket
import ssl
import sys
import urllib.parse
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from apimachinery.errors import ApiError, NotFound, Unauthorized, Unavailable
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
from apiserver.messages import Handler, Request, Response, json_response
from cloudhub import crds, tokencommand
from cloudhub.access import RECHECK_S, Access
from cloudhub.announcer import Announcer
from cloudhub.apiclient import ApiClient, ApiUnreachable, KubeconfigError, ObjectsByName
from cloudhub.authority import Authority, ServerIdentity, server_names
from cloudhub.calls import AT_ONCE, Calls
from cloudhub.demand import IDLE_S, MOST_RESOURCES, Advanced, Demand, Watched
from cloudhub.fences import Fences
from cloudhub.horizon import Advance
from cloudhub.join import MAX_BODY_BYTES, JoinEndpoint, Link
from cloudhub.nodes import NodeLifecycle
from cloudhub.placement import STANDARD_RULES, By, Placement, Rule, with_definitions
from cloudhub.presence import NODE_GRACE_S, Presence
from cloudhub.projection import project
from cloudhub.reflector import EVERYTHING, Reflector, ReflectorStatus, Selection
from cloudhub.reports import MIN_INTERVAL_S
from cloudhub.roster import Roster
from cloudhub.server import HubServer
from cloudhub.sessions import GRACE_S, Session
from cloudhub.statuswriter import StatusWriter
from cloudhub.tokens import Tokens
from cloudhub.vault import Vault
from componentbase import cli, config, metrics, statusz
from componentbase.config import setting
from componentbase.endpoints import Endpoint, why_not_listening
from componentbase.files import lock_dir, open_private_dir
from componentbase.logs import one_line
from componentbase.metrics import Metric
from componentbase.release import VERSION
from link.frames import RefusedReport
from link.peer import HEARTBEAT_S
from link.websocket import Listener

logger = logging.getLogger(__name__)

PROG = "cloudcore"
SOCKET_NAME = "cloudcore.sock"
LAST_REFUSED = 5  # lines of `cloudcore status`; with -o json all that are kept
PRUNE_S = 3600.0
RETRY_S = 2.0

_KNOWN = {resource.collection: resource for resource in (*BUILT_IN, DEVICES, DEVICE_MODELS)}

T = TypeVar("T")


@dataclass(frozen=True)
class LinkConfig:
    """The link that edge nodes connect to."""

    listen: Endpoint = setting(Endpoint("", 10000), "HOST:PORT; an empty host is every address of this machine.")
    heartbeat_s: float = setting(
        HEARTBEAT_S, "How often an idle node shows that it is there; 2.5 of them is gone.", at_least=1, at_most=3600
    )
    grace_s: float = setting(
        GRACE_S, "How long what a node has is remembered after it left; then its digest tells.", at_least=0
    )


@dataclass(frozen=True)
class JoinConfig:
    """Where new nodes get their certificates."""

    listen: Endpoint = setting(Endpoint("", 10002), "HOST:PORT; an empty host is every address of this machine.")
    advertise: tuple[str, ...] = setting(
        (), "Names and addresses that nodes reach this hub under, besides those of this machine."
    )


@dataclass(frozen=True)
class NodesConfig:
    """The Node objects of connected nodes."""

    grace_s: float = setting(NODE_GRACE_S, "Without a word for this long a node's Ready becomes Unknown.", at_least=1)


@dataclass(frozen=True)
class ReportsConfig:
    """What nodes report, on its way into the status of objects."""

    min_interval_s: float = setting(
        MIN_INTERVAL_S, "Between two writes of one object's status; the last value always arrives.", at_least=0
    )


@dataclass(frozen=True)
class InterestConfig:
    """What nodes may have besides what is placed on them: objects that are read there, requests to the apiserver."""

    enabled: bool = setting(True, "Needs the rights that docs/operations.md lists; without them all of it is refused.")
    max_resources: int = setting(
        MOST_RESOURCES, "Kinds watched for nodes beside those of the rules.", at_least=0, at_most=48
    )
    idle_s: float = setting(IDLE_S, "How long such a kind is watched after the last node lost interest.", at_least=0)
    recheck_s: float = setting(RECHECK_S, "How long a right that was taken back may still count.", at_least=1)
    max_calls: int = setting(AT_ONCE, "Requests of nodes under way to the apiserver at once.", at_least=1, at_most=48)


@dataclass(frozen=True)
class RuleConfig:
    """One further kind of object for the nodes."""

    resource: str = setting("", "PLURAL.GROUP, or PLURAL for the core group, as kubectl names it.")
    by: By = setting(
        By.ALL_NODES, "allNodes, field (path names the node), label (path is its key), reference (from, path)."
    )
    path: str = setting("", "The field's path, such as spec.nodeName, or the label's key.")
    namespace: str = setting("", "Only objects of this namespace.")
    names: tuple[str, ...] = setting((), "Only objects of these names.")
    referrer: str = setting("", "For reference: the resource whose objects name these at `path`.")

    def __post_init__(self) -> None:
        if not self.resource:
            raise ValueError("a rule needs resource: PLURAL.GROUP, as kubectl names it")
        if self.by is not By.ALL_NODES and not self.path:
            raise ValueError(f"a rule by {self.by.value} needs path, or it places nothing")
        if self.by is By.REFERENCE and not self.referrer:
            raise ValueError("a rule by reference needs referrer: the resource whose objects name these at path")


@dataclass(frozen=True)
class CloudConfig:
    """Configuration of cloudcore. Relative paths are taken from the directory of this file."""

    kubeconfig: Path | None = setting(None, "The apiserver; none takes $KUBECONFIG or a pod's service account.")
    link: LinkConfig = LinkConfig()
    join: JoinConfig = JoinConfig()
    nodes: NodesConfig = NodesConfig()
    reports: ReportsConfig = ReportsConfig()
    interest: InterestConfig = InterestConfig()
    metrics: Endpoint | None = setting(None, "HOST:PORT for Prometheus; they are on the status socket in any case.")
    placement: tuple[RuleConfig, ...] = setting(
        (), "Rules beside the standard ones: pods with what they refer to, devices with their models, Node, Lease."
    )


def main() -> None:
    """The console script."""
    args = _parser().parse_args()
    cli.configure_logs(args)
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": _run,
        "crds": _crds,
        "token": _token,
        "status": _status,
        "resync": _resync,
        "config": _config,
    }
    sys.exit(commands[args.command](args))


def _parser() -> argparse.ArgumentParser:
    parser = cli.new_parser(
        PROG,
        "The hub beside Kubernetes: watches an apiserver, pushes to edge nodes, writes their reports back.",
        "cloudcore crds | kubectl apply -f -\ncloudcore run --kubeconfig kubeconfig --data-dir /var/lib/cloudcore",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = cli.add_command(
        commands,
        "run",
        "Run the hub until it is stopped.",
        "cloudcore run --kubeconfig kubeconfig --data-dir /var/lib/cloudcore --listen :10000 --join-listen :10002",
    )
    _add_kubeconfig(run)
    run.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="for the status socket and the lock")
    run.add_argument("--config", type=Path, metavar="FILE", help="see `cloudcore config`")
    run.add_argument("--listen", type=cli.endpoint, metavar="HOST:PORT", help="the link; :10000 by default")
    run.add_argument("--join-listen", type=cli.endpoint, metavar="HOST:PORT", help="the join endpoint; :10002")
    run.add_argument(
        "--advertise", action="append", metavar="NAME", help="a name nodes reach this hub under; repeatable"
    )

    cli.add_log_flags(
        cli.add_command(
            commands,
            "crds",
            "Print the definitions of Device, DeviceModel and DeviceStatus.",
            "cloudcore crds | kubectl apply -f -",
        )
    )

    for each in tokencommand.add_parser(commands):
        _add_kubeconfig(each)
        cli.add_log_flags(each)

    status = cli.add_command(
        commands, "status", "Say in a few lines how things stand.", "cloudcore status --data-dir /var/lib/cloudcore"
    )
    status.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="the one given to `cloudcore run`")
    status.add_argument("--output", "-o", choices=("text", "json"), default="text", help="text by default")
    resync = cli.add_command(
        commands,
        "resync",
        "Compare everything a node holds with what it should. Happens by itself; for peace of mind.",
        "cloudcore resync edge-1 --data-dir /var/lib/cloudcore",
    )
    resync.add_argument("node", metavar="NODE", help="the node's name")
    resync.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="the one given to `cloudcore run`")
    show = cli.add_command(
        commands,
        "config",
        "Print a configuration, every default with its meaning.",
        "cloudcore config > cloudcore.yaml",
    )
    show.add_argument("--config", type=Path, metavar="FILE", help="print this one completed, rather than the defaults")
    for each in (run, status, resync, show):
        cli.add_log_flags(each)
    return parser


def _add_kubeconfig(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="$KUBECONFIG or a pod's service account by default"
    )


# ---- crds, config, token


def _crds(_: argparse.Namespace) -> int:
    return cli.guard(PROG, lambda: print(crds.text(), end=""))


def _config(args: argparse.Namespace) -> int:
    def command() -> None:
        print(config.dump(_load(args.config)), end="")

    return cli.guard(PROG, command)


def _load(path: Path | None) -> CloudConfig:
    return CloudConfig() if path is None else config.load(CloudConfig, path)


def _client(kubeconfig: Path | None) -> ApiClient:
    try:
        return ApiClient.from_kubeconfig(kubeconfig)
    except KubeconfigError as exc:
        advice = "; name one with --kubeconfig" if kubeconfig is None else ""
        raise cli.CommandError(f"{exc}{advice}") from exc


def _refusal(exc: ApiError) -> str:
    """What the apiserver said, for the person who chose the kubeconfig."""
    if isinstance(exc, Unauthorized):
        return (
            f"the apiserver does not accept the credentials in the kubeconfig ({exc}); name another with --kubeconfig"
        )
    return str(exc) if isinstance(exc, ApiUnreachable) else f"the apiserver answers: {exc}"


def _token(args: argparse.Namespace) -> int:
    async def command() -> None:
        async with _client(args.kubeconfig) as client:
            try:
                await tokencommand.run(args, ObjectsByName(client))
            except Unauthorized as exc:
                raise cli.CommandError(_refusal(exc)) from exc
            except ApiError as exc:
                raise cli.CommandError(str(exc)) from exc

    return cli.run(command(), prog=PROG)


# ---- run


def _run(args: argparse.Namespace) -> int:
    async def command() -> None:
        settings = config.override(
            _load(args.config),
            {
                "kubeconfig": args.kubeconfig,
                "link.listen": args.listen,
                "join.listen": args.join_listen,
                "join.advertise": None if args.advertise is None else tuple(args.advertise),
            },
        )
        open_private_dir(args.data_dir)
        with lock_dir(args.data_dir):
            async with _client(settings.kubeconfig) as client:
                await Cloudcore(settings, client, args.data_dir).run()

    return cli.run(command(), prog=PROG, loop_factory=_loop_factory())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: a third less CPU per pushed frame with TLS, and a tenth of the memory per node."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class Cloudcore:
    """One hub process: its parts, and how they are joined."""

    def __init__(self, settings: CloudConfig, client: ApiClient, data_dir: Path) -> None:
        self._settings = settings
        self._client = client
        self._data_dir = data_dir
        self._cache = WatchCache()
        self._announcer = Announcer(client)
        fences = Fences(f"{socket.gethostname()}-{secrets.token_hex(4)}")
        self._roster = Roster(ObjectsByName(client))
        presence = Presence(grace_s=settings.nodes.grace_s)
        self._nodes = NodeLifecycle(client, presence, fences, self._overtaken, labels=self._roster.labels)
        self._writer: StatusWriter[Session] = StatusWriter(
            client,
            self._cache,
            self._taken,
            fences,
            self._nodes.confirm,
            announce=self._announcer.say,
            min_interval_s=settings.reports.min_interval_s,
        )
        self._server: HubServer | None = None
        self._reflectors: dict[Resource, Reflector] = {}
        self._following: dict[Resource, asyncio.Task[None]] = {}
        self._demand: Demand | None = None
        self._access: Access | None = None
        self._calls: Calls | None = None
        self._endpoints = ("", "")
        self._problem = ""
        """What keeps it from beginning."""

    async def run(self) -> None:
        """Serve until cancelled."""
        # The status first: it is what tells that the apiserver is not there.
        async with contextlib.AsyncExitStack() as stack:
            await _serve_status(stack, self._data_dir / SOCKET_NAME, self._answer)
            await self._run(stack)

    async def _run(self, stack: contextlib.AsyncExitStack) -> None:
        vault = Vault(ObjectsByName(self._client))
        authority = await self._patiently("the certificate authority", lambda: Authority.load(vault))
        placement = await self._patiently("the resources to be placed", self._placement)
        if self._settings.interest.enabled:
            self._serve_interest(placement)
        self._server = HubServer(
            self._cache,
            placement,
            self._writer,
            self._nodes,
            access=self._access,
            calls=self._calls,
            heartbeat_s=self._settings.link.heartbeat_s,
            grace_s=self._settings.link.grace_s,
        )
        for resource in placement.resources():
            self._reflectors[resource] = self._reflector(resource, _selection(resource), self._advanced)
        link, join = self._settings.link.listen, self._settings.join.listen
        identity = authority.server(server_names([link.host, join.host], self._settings.join.advertise))
        async with asyncio.TaskGroup() as tasks:
            for resource, reflector in self._reflectors.items():
                name = f"reflector[{resource.collection}]"
                self._following[resource] = tasks.create_task(reflector.run(), name=name)
            # Nobody is let in before everything is known: to a node, "none" would mean "delete yours".
            for reflector in self._reflectors.values():
                await reflector.wait_synced()
            # What was imported stays; left in, every full collection would walk it, and stop everything for 37 ms.
            gc.freeze()
            if self._access is not None and self._calls is not None:
                tasks.create_task(self._access.run(), name="access")
                tasks.create_task(self._calls.run(), name="calls")
            listener = await self._listen(link, identity.link_context)
            if self._settings.metrics is not None:
                await _serve_metrics(stack, self._settings.metrics, self._scraped)
            endpoint = JoinEndpoint(authority, Tokens(vault), self._roster, Link(listener.port))
            joining = await self._serve_join(stack, join, endpoint, identity)
            self._endpoints = (str(Endpoint(link.host, listener.port)), joining)
            tasks.create_task(self._server.run(listener), name="hub")
            tasks.create_task(self._writer.run(), name="status-writer")
            tasks.create_task(self._announcer.run(), name="announcer")
            tasks.create_task(self._nodes.run(), name="nodes")
            tasks.create_task(identity.keep_fresh(), name="certificate")
            tasks.create_task(_prune(Tokens(vault)), name="tokens")
            logger.info(
                "serving",
                extra={"link": self._endpoints[0], "join": joining, "apiserver": self._client.server},
            )

    async def _patiently(self, what: str, attempt: Callable[[], Coroutine[None, None, T]]) -> T:
        """Try until the apiserver is there; whatever else it answers ends the command."""
        while True:
            try:
                result = await attempt()
            except Unavailable as exc:
                if not self._problem:
                    logger.warning("waiting for the apiserver", extra={"for": what, "problem": _refusal(exc)})
                self._problem = f"waiting for {what}: {_refusal(exc)}"
                await asyncio.sleep(RETRY_S)
            except ApiError as exc:
                raise cli.CommandError(f"{what}: {_refusal(exc)}") from exc
            else:
                self._problem = ""
                return result

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
        self._access = Access(self._client, placement, demand, decided=self._decided, recheck_s=settings.recheck_s)
        self._calls = Calls(self._client, placement, demand.resource, at_once=settings.max_calls)

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
            project=project,
            advanced=advanced,
            observe={DEVICES: self._writer.observe, LEASES: self._nodes.observe_lease}.get(resource, lambda _: None),
            select=select,
        )

    def changed(self, changes: list[Change]) -> None:
        """From every reflector: the hub places and pushes, the writers look whether a status must change."""
        assert self._server is not None, "reflectors run after the hub was made"
        self._server.hub.changed(changes)
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

    def _taken(self, session: Session, seq: int, refused: tuple[RefusedReport, ...]) -> None:
        assert self._server is not None, "reports come after the hub was made"
        self._server.hub.reports_taken(session, seq, refused)

    def _overtaken(self, node: Node, term: int, newest: int, was_last: bool) -> None:
        assert self._server is not None, "who is overtaken has had a session"
        self._server.hub.overtaken(node, term, newest, was_last=was_last)

    async def _listen(self, endpoint: Endpoint, context: ssl.SSLContext) -> Listener:
        assert self._server is not None, "the hub is made before it listens"
        try:
            return await self._server.listen(endpoint.host, endpoint.port, context)
        except OSError as exc:
            raise cli.CommandError(
                f"the link: {why_not_listening(endpoint.host, endpoint.port, exc)}; choose another with --listen"
            ) from exc

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
                )
            )
        except ListenError as exc:
            raise cli.CommandError(f"the join endpoint: {exc}; choose another with --join-listen") from exc
        return server.endpoint

    async def _answer(self, request: Request) -> Response:
        """The status socket: /statusz, /metrics, and what `cloudcore resync` asks."""
        match request.method, request.path:
            case "GET", "/statusz":
                return json_response(200, self._facts())
            case "GET", "/metrics":
                return Response(200, [("content-type", metrics.CONTENT_TYPE)], metrics.render(self._metrics()))
            case "POST", "/resync":
                node = Node(dict(request.query).get("node", ""))
                if self._server is None or node not in {status.node for status in self._server.hub.statuses()}:
                    raise NotFound(f'no node "{node}" has been here lately')
                return json_response(200, {"connected": self._server.hub.resync(node)})
            case _:
                raise NotFound(f"{request.method} {request.path} is not served here")

    async def _scraped(self, request: Request) -> Response:
        """The metrics port: figures and nothing else."""
        if (request.method, request.path) != ("GET", "/metrics"):
            raise NotFound("only GET /metrics is served here")
        return await self._answer(request)

    def _metrics(self) -> Iterator[Metric]:
        if self._server is not None:
            statuses = self._server.hub.statuses()
            yield Metric("hub_nodes_connected", "Nodes with a live session.", sum(each.connected for each in statuses))
            yield Metric(
                "hub_nodes_in_sync", "Nodes that hold what they should.", sum(each.synced for each in statuses)
            )
            yield Metric("hub_dirty_keys", "Objects that may have to be sent.", sum(each.dirty for each in statuses))
            for field in fields(self._server.hub.counters):
                value = getattr(self._server.hub.counters, field.name)
                yield Metric(f"hub_{field.name}_total", f"{field.name.replace('_', ' ')} since the start.", value)
        yield Metric("hub_events_dropped_total", "Events of the hub's own not told.", self._announcer.dropped)
        yield Metric("hub_objects", "Objects in the watch cache.", len(self._cache))
        for cause, count in self._writer.refused().items():
            told = "Reported values that will never be written, by the apiserver's reason or ours."
            yield Metric("hub_reports_refused_total", told, count, {"reason": cause})
        for name, count in self._writer.counters().items():
            if name != "reports_refused":
                text = f"{name.replace('_', ' ')} of the status writer since the start."
                yield Metric(f"hub_{name if name.startswith('reports') else f'status_{name}'}_total", text, count)
        if self._server is not None and self._access is not None and self._calls is not None:
            statuses = self._server.hub.statuses()
            yield Metric("hub_interests", "Selections that nodes have.", sum(each.interests for each in statuses))
            refused = sum(each.interests_refused for each in statuses)
            yield Metric("hub_interests_refused", "... that are not granted, or not known yet.", refused)
            yield Metric("hub_access_reviews_total", "SubjectAccessReviews made for nodes.", self._access.reviews)
            for code, count in sorted(self._calls.answers.items()):
                yield Metric("hub_call_answers_total", "Answers to nodes' calls.", count, {"code": str(code)})
        for status in self._watches():
            labels = {"resource": status.resource.collection}
            yield Metric("hub_reflector_lists_total", "Lists asked of the apiserver.", status.lists, labels)
        for status in self._watches():
            labels = {"resource": status.resource.collection}
            yield Metric("hub_reflector_watches_total", "Watches opened.", status.watches, labels)

    def _watches(self) -> Iterator[ReflectorStatus]:
        """Every reflector's status, those that nodes asked for included; each resource once."""
        own = {made.resource: made.status() for made in self._reflectors.values()}
        asked = [] if self._demand is None else self._demand.statuses()
        yield from {**own, **{status.resource: status for status in asked}}.values()

    def _facts(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "apiserver": self._client.server,
            "problem": self._problem,
            "link": self._endpoints[0],
            "join": self._endpoints[1],
            "objects": len(self._cache),
            "resources": [
                {
                    "resource": status.resource.collection,
                    "phase": status.phase.value,
                    "synced": status.synced,
                    "problem": status.problem,
                    "lists": status.lists,
                    "watches": status.watches,
                    "asked": status.resource not in self._reflectors,
                }
                for status in self._watches()
            ],
            "calls": {str(code): count for code, count in sorted(self._calls.answers.items())} if self._calls else {},
            "reports": self._writer.counters(),
            "lastRefused": [{**each._asdict(), "key": str(each.key)} for each in self._writer.refusals()],
            "nodes": [status._asdict() for status in self._server.hub.statuses()] if self._server is not None else [],
        }


def _selection(resource: Resource) -> Selection:
    """Which objects of a resource are watched in any case."""
    return Selection(namespace=NODE_LEASE_NAMESPACE) if resource == LEASES else EVERYTHING


async def _serve_status(stack: contextlib.AsyncExitStack, path: Path, handler: Handler) -> None:
    try:
        await stack.enter_async_context(serve(handler, unix_path=path))
    except ListenError as exc:
        raise cli.CommandError(f"the status socket: {exc}") from exc


async def _serve_metrics(stack: contextlib.AsyncExitStack, endpoint: Endpoint, handler: Handler) -> None:
    try:
        await stack.enter_async_context(serve(handler, host=endpoint.host or None, port=endpoint.port))
    except ListenError as exc:
        raise cli.CommandError(f"the metrics: {exc}; choose another under metrics in the configuration") from exc


async def _prune(tokens: Tokens) -> None:
    """Expired tokens are deleted now and then, so that Secrets do not pile up."""
    while True:
        try:
            if count := await tokens.prune(datetime.datetime.now(datetime.UTC)):
                logger.info("expired tokens deleted", extra={"count": count})
        except ApiError as exc:
            logger.info("expired tokens not deleted", extra={"problem": str(exc)})
        await asyncio.sleep(PRUNE_S)


# ---- status


def _resync(args: argparse.Namespace) -> int:
    def command() -> None:
        query = urllib.parse.urlencode({"node": args.node})
        answer = statusz.ask(args.data_dir / SOCKET_NAME, PROG, f"POST /resync?{query}")
        when = "now" if answer["connected"] else "as soon as it connects"
        print(f"what {args.node} holds is compared {when}")

    return cli.guard(PROG, command)


def _status(args: argparse.Namespace) -> int:
    def command() -> None:
        facts = statusz.ask(args.data_dir / SOCKET_NAME, PROG)
        print(json.dumps(facts, indent=2) if args.output == "json" else "\n".join(_told(facts)))

    return cli.guard(PROG, command)


def _told(facts: Mapping[str, Any]) -> list[str]:
    """A few lines for a person."""
    nodes: Sequence[Mapping[str, Any]] = facts["nodes"]
    connected = [node for node in nodes if node["connected"]]
    waiting = [each for each in facts["resources"] if not each["synced"] or each["problem"]]
    lines = [
        f"cloudcore  fairlead {facts['version']}",
        f"apiserver  {facts['apiserver']}, {facts['objects']} objects of {len(facts['resources'])} resources",
        f"link       {facts['link'] or 'not listening: the apiserver is not fully known yet'}",
        f"join       {facts['join'] or 'not listening'}",
        f"reports    {facts['reports']['reports_taken']} taken, {facts['reports']['reports_refused']} refused",
        f"nodes      {len(connected)} connected, {sum(bool(node['synced']) for node in connected)} in sync",
    ]
    interests = sum(node["interests"] for node in nodes)
    if interests or facts["calls"]:
        asked = [each["resource"] for each in facts["resources"] if each["asked"]]
        refused = sum(node["interests_refused"] for node in nodes)
        lines.append(
            f"interest   {interests} selections, {refused} not granted"
            + (f"; watched for nodes: {', '.join(asked)}" if asked else "")
        )
        codes = ", ".join(f"{count} x {code}" for code, count in facts["calls"].items())
        lines.append(f"calls      {codes or 'none'}")
    if facts["problem"]:
        lines.append(f"problem    {facts['problem']}")
    lines += [f"problem    {each['resource']}: {each['phase']} {each['problem']}".rstrip() for each in waiting]
    for each in facts["lastRefused"][: -LAST_REFUSED - 1 : -1]:
        told = f"refused    {each['key']} {each['field']} of {each['node']}: {each['reason']}"
        lines.append(one_line(told))  # a node chose these names
    for node in nodes:
        state = "in sync" if node["synced"] else f"{node['dirty']} to send"
        where = f"{node['remote']}, {state}" if node["connected"] else "away"
        refused = f", refused {node['refused']} objects" if node["refused"] else ""
        lines.append(f"  {Node(node['node']):<20} {where}{refused}")
    return lines


if __name__ == "__main__":
    main()
