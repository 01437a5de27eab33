"""
What a hub process tells of itself: GET /statusz, GET /metrics, and what `cloudcore resync` asks of it.

The page is there before the hub is: that the apiserver does not answer is the first thing that somebody asks.
Whoever makes a part hands it to the page.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Protocol

from apimachinery.errors import NotFound
from apimachinery.keys import Node, Resource
from apimachinery.watchcache import WatchCache
from apiserver.http import Request, Response, json_response
from cloudhub.access import Access
from cloudhub.announcer import Announcer
from cloudhub.apiclient import ApiClient
from cloudhub.calls import Calls
from cloudhub.demand import Demand
from cloudhub.doorkeeper import Doorkeeper
from cloudhub.joincounts import JoinCounts
from cloudhub.reflector import Reflector, ReflectorStatus
from cloudhub.session import Session
from cloudhub.sessions import Hub
from cloudhub.statuswriter import StatusWriter
from componentbase import metrics
from componentbase.metrics import Metric
from componentbase.release import VERSION
from link.transports import KINDS


class Listening(Protocol):
    """Where the link listens; link.websocket.Listener and link.quicserver.Listener are such."""

    @property
    def kind(self) -> str:
        """One of link.transports.KINDS."""
        ...

    @property
    def refusals(self) -> Mapping[str, int]:
        """Handshakes that came to nothing, by reason."""
        ...


class StatusPage:
    """One process's page; its attributes are set as the parts are made."""

    def __init__(
        self,
        client: ApiClient,
        cache: WatchCache,
        announcer: Announcer,
        writer: StatusWriter[Session],
        door: Doorkeeper,
        worker: int = 0,
    ) -> None:
        """worker: its number, a label of every figure; 0 for a process that is alone, and no label."""
        self._client = client
        self._cache = cache
        self._announcer = announcer
        self._writer = writer
        self._door = door
        self._labels = {"worker": str(worker)} if worker else {}
        self.hub: Hub | None = None
        self.access: Access | None = None
        self.calls: Calls | None = None
        self.demand: Demand | None = None
        self.joins: JoinCounts | None = None
        self.reflectors: dict[Resource, Reflector] = {}
        self.listeners: Sequence[Listening] = ()
        self.endpoints = ("", "")
        """Where the link and the join endpoint listen; "" while they do not."""
        self.quic = ""
        """Where the link listens for QUIC."""
        self.signer = ""
        """Who signs nodes, where it is the cluster."""
        self.problem = ""
        """What keeps it from beginning."""

    async def answer(self, request: Request) -> Response:
        """The status socket: /statusz, /metrics, and what `cloudcore resync` asks."""
        match request.method, request.path:
            case "GET", "/statusz":
                return json_response(200, self._facts())
            case "GET", "/metrics":
                return Response(
                    200, [("content-type", metrics.CONTENT_TYPE)], metrics.render(self._metrics(), self._labels)
                )
            case "POST", "/resync":
                node = Node(dict(request.query).get("node", ""))
                is_known = self.hub is not None and node in {status.node for status in self.hub.statuses()}
                # A worker is told of nodes that are with another one: they may come back to this one.
                if self.hub is None or not (is_known or self._labels):
                    raise NotFound(f'no node "{node}" has been here lately')
                return json_response(200, {"connected": self.hub.resync(node)})
            case _:
                raise NotFound(f"{request.method} {request.path} is not served here")

    async def scraped(self, request: Request) -> Response:
        """The metrics port: figures and nothing else."""
        if (request.method, request.path) != ("GET", "/metrics"):
            raise NotFound("only GET /metrics is served here")
        return await self.answer(request)

    def _metrics(self) -> Iterator[Metric]:
        if self.hub is not None:
            statuses = self.hub.statuses()
            yield Metric("hub_nodes_connected", "Nodes with a live session.", sum(each.connected for each in statuses))
            for kind in KINDS:
                told, count = "... by what carries their link.", sum(each.transport == kind for each in statuses)
                yield Metric("hub_nodes_connected_by", told, count, {"transport": kind})
            yield Metric(
                "hub_nodes_in_sync", "Nodes that hold what they should.", sum(each.synced for each in statuses)
            )
            yield Metric("hub_dirty_keys", "Objects that may have to be sent.", sum(each.dirty for each in statuses))
            for field in fields(self.hub.counters):
                value = getattr(self.hub.counters, field.name)
                yield Metric(f"hub_{field.name}_total", f"{field.name.replace('_', ' ')} since the start.", value)
        for listener in self.listeners:
            for reason, count in listener.refusals.items():
                told = "TLS and QUIC handshakes that came to nothing, by why."
                labels = {"transport": listener.kind, "reason": reason}
                yield Metric("hub_handshakes_refused_total", told, count, labels)
        if self.joins is not None:
            yield from self.joins.metrics()
        yield Metric("hub_nodes_banned", "Names that nobody may have.", len(self._door.gate.bans()))
        yield Metric("hub_events_dropped_total", "Events of the hub's own not told.", self._announcer.dropped)
        yield Metric("hub_objects", "Objects in the watch cache.", len(self._cache))
        yield Metric("hub_tasks", "Tasks of the event loop.", len(asyncio.all_tasks()))
        for cause, count in self._writer.refused().items():
            told = "Reported values that will never be written, by the apiserver's reason or ours."
            yield Metric("hub_reports_refused_total", told, count, {"reason": cause})
        for name, count in self._writer.counters().items():
            if name != "reports_refused":
                text = f"{name.replace('_', ' ')} of the status writer since the start."
                yield Metric(f"hub_{name if name.startswith('reports') else f'status_{name}'}_total", text, count)
        if self.hub is not None and self.access is not None and self.calls is not None:
            statuses = self.hub.statuses()
            yield Metric("hub_interests", "Selections that nodes have.", sum(each.interests for each in statuses))
            refused = sum(each.interests_refused for each in statuses)
            yield Metric("hub_interests_refused", "... that are not granted, or not known yet.", refused)
            yield Metric("hub_access_reviews_total", "SubjectAccessReviews made for nodes.", self.access.reviews)
            for code, count in sorted(self.calls.answers.items()):
                yield Metric("hub_call_answers_total", "Answers to nodes' calls.", count, {"code": str(code)})
        for status in self._watches():
            labels = {"resource": status.resource.collection}
            yield Metric("hub_reflector_lists_total", "Lists asked of the apiserver.", status.lists, labels)
        for status in self._watches():
            labels = {"resource": status.resource.collection}
            yield Metric("hub_reflector_watches_total", "Watches opened.", status.watches, labels)

    def _watches(self) -> Iterator[ReflectorStatus]:
        """Every reflector's status, those that nodes asked for included; each resource once."""
        own = {made.resource: made.status() for made in self.reflectors.values()}
        asked = [] if self.demand is None else self.demand.statuses()
        yield from {**own, **{status.resource: status for status in asked}}.values()

    def _facts(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "apiserver": self._client.server,
            "problem": self.problem,
            "link": self.endpoints[0],
            "quic": self.quic,
            "join": self.endpoints[1],
            "signer": self.signer,
            "objects": len(self._cache),
            "resources": [
                {
                    "resource": status.resource.collection,
                    "phase": status.phase.value,
                    "synced": status.synced,
                    "problem": status.problem,
                    "lists": status.lists,
                    "watches": status.watches,
                    "asked": status.resource not in self.reflectors,
                }
                for status in self._watches()
            ],
            "calls": {str(code): count for code, count in sorted(self.calls.answers.items())} if self.calls else {},
            "reports": self._writer.counters(),
            "joins": (self.joins or JoinCounts()).facts(),
            "lastRefused": [{**each._asdict(), "key": str(each.key)} for each in self._writer.refusals()],
            "banned": [{"node": node, **ban._asdict()} for node, ban in self._door.gate.bans()],
            "clones": [clone._asdict() for clone in self._door.clones.proven()],
            "nodes": [status._asdict() for status in self.hub.statuses()] if self.hub is not None else [],
        }
