"""
What a running edgecore tells of itself: GET /statusz, GET /metrics, and what its own commands ask of it.

Also how old what it holds is, for the local API's header and for the note of it in the store, which is all that tells
so after a restart.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from apimachinery.errors import BadRequest, NotFound
from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from componentbase import metrics
from componentbase.endpoints import Endpoint
from componentbase.release import VERSION
from componentbase.words import rfc3339
from edgecore.settings import EdgeConfig, TransportMode

if TYPE_CHECKING:
    from apiserver.messages import Request, Response
    from devicetwin.broker.server import BrokerServer
    from devicetwin.service import TwinService
    from edgehub.connector import LinkStatus
    from edgehub.renewal import Renewal
    from metamanager.api import ApiLink, LinkState
    from metamanager.store import Store

SILENT_S = 30.0  # an idle link is heard every heartbeat, which is 20 s; a hub that hangs is given up after 50
NOTE_SYNC_S = 30.0  # a write of a few bytes to the card; how stale the store is after a restart is known this exactly


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
        from edgecore.historycommand import twin_prefix

        found = await self._store.documents(twin_prefix(device))
        recorded = await self._store.history(device, name, since_ms)
        return history_facts(device, name, recorded.samples, recorded.properties, found)

    def _hub(self) -> Endpoint:
        """Where the link is, or is tried."""
        cloud = self._settings.cloud
        is_only = cloud.transport is TransportMode.QUIC
        is_quic = self._link.transport == "quic" if self._link.connected else is_only
        return Endpoint(cloud.link.host, cloud.quic_port) if is_quic else cloud.link

    async def _facts(self) -> dict[str, object]:
        twins = self._twins.status()
        parked = await self._store.parked()
        return {
            "node": self._settings.node,
            "version": VERSION,
            "hub": str(self._hub()),
            "connected": self._link.connected,
            "transport": self._link.transport,
            "inSync": self._link.synced,
            "failures": self._link.attempts,
            "certificateUntil": None if self._renewal is None else rfc3339(self._renewal.validity.lapses),
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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
