"""
Keeps the edge connected: dial, serve the session, wait, dial again.

One connection at a time. Everything a session started has ended before the next Hello is built, because
the Hello says what is committed, and nothing may commit after that but what the new session brings.

Three tasks serve a session: one commits what comes down and acknowledges it, one sends what waits to go up, and one has
large deltas unpacked in a thread, for the loop is everybody's and the store's thread is the pods'. Calls are their
callers' tasks; how many may wait, and how long, is decided here.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from apimachinery.errors import BadRequest, TooLarge, TooManyRequests
from apimachinery.keys import Node, Resource
from apimachinery.objects import Object
from componentbase.aside import aside
from componentbase.endpoints import Endpoint
from componentbase.proxies import Proxy
from componentbase.tls import TlsMin, client_context
from edgehub.backlog import Backlog
from edgehub.redial import delay_s
from edgehub.session import Answered, EdgeSession, Reported, Unanswered
from link.errors import CallLost, LinkClosed, LinkError, RemoteProtocolError
from link.frames import (
    CALL_S,
    MAX_CALL_BYTES,
    MAX_CALLS,
    MAX_INTERESTS,
    MAX_TARGET_BYTES,
    MAX_USER_BYTES,
    Batch,
    CallHead,
    Cursor,
    Delta,
    GoodbyeCode,
    Held,
    Interest,
    Position,
    Refusal,
    RefusedInterest,
    RefusedReport,
    ReportEntry,
    Traffic,
)
from link.peer import DEAD_AFTER
from link.pushcodec import decode_delta
from link.websocket import dial

if TYPE_CHECKING:
    from edgehub.quicchoice import QuicChoice

logger = logging.getLogger(__name__)

CHECK_S = 600.0  # one small frame; what it guards against should never happen
REPORT_BYTES = 16 << 10  # per frame: 0.13 s at 1 Mbit/s, and a quarter of the window
SETTLE_S = 0.2  # rows are deleted together: each is acknowledged by itself, and a card is asked to flush at a time
SETTLE_SHARE = 9  # times as long as the last time took it pauses: a slow card has pods to write
SETTLE_MOST_S = 2.0  # what is not deleted is sent once more by the next session
MAX_WAITING = 64  # calls beyond those under way; each is a client that could as well wait by itself


class Store(Protocol):
    """What a connector needs of the edge's store; metamanager.store.Store satisfies it."""

    async def cursor(self) -> Cursor | None: ...

    async def digest(self) -> bytes: ...

    async def horizon(self) -> tuple[Position, ...]: ...

    async def next_term(self, above: int, *, is_reset: bool) -> int: ...

    async def held(self) -> list[Held]: ...

    async def pending_reports(
        self, after: int, limit_bytes: int, traffic: Traffic
    ) -> list[tuple[int, ReportEntry]]: ...

    async def put_ahead(self, item: Object, goes_on: Callable[[], bool]) -> None:
        """Write what can be written of a large object before its batch comes; where goes_on() says no it ends."""

    async def settle_reports(self, rows: Sequence[int], refused: Sequence[RefusedReport]) -> None: ...


class Committing(Protocol):
    """Makes batches durable in one transaction; returns what was refused, by the number of the Push."""

    async def __call__(self, batches: Sequence[Batch]) -> Mapping[int, Sequence[Refusal]]: ...


class Selections(Protocol):
    """Who wants interests, and keeps book of them; what is said here is said in the connector's task, in order."""

    def decided(
        self, interests: Sequence[Interest], refused: Sequence[RefusedInterest], resources: Sequence[Resource]
    ) -> None:
        """
        The hub has decided upon all that was wanted last: granted but for what is refused.

        A refusal with code 503 is none yet: it stays as it is, and this is called again. Of what is refused otherwise
        the objects leave the store (they come in a batch like any other change). resources: of what is granted, as
        keys in the store have them, in the version the apiserver prefers.
        """

    def completed(self, interests: Sequence[Interest]) -> None:
        """The store holds all of these as the hub knew them after it decided: none is an answer now."""


class Hubs(NamedTuple):
    """Where the hub is and how to trust it."""

    host: str
    port: int
    context: ssl.SSLContext
    quic: "QuicChoice | None" = None
    """None where it is not to be tried."""
    proxy: Proxy | None = None
    """What a websocket goes through."""


def hub_context(authority: Path, certificate: Path, key: Path, tls_min: TlsMin = TlsMin.TLS_1_3) -> ssl.SSLContext:
    """
    What a node dials a hub with: trusts the join CA and nothing else, for the system's would cost 2.5 MB and trust the
    world. Raises OSError, of which ssl.SSLError is one.
    """
    context = client_context(tls_min)
    context.load_verify_locations(cafile=authority)
    context.load_cert_chain(certificate, key)
    return context


class LinkStatus:
    """How the link stands; read by the local API, the status socket and the log."""

    def __init__(self) -> None:
        self.connected = False
        self.synced = False
        """Connected, and everything the hub had is committed."""
        self.attempts = 0
        """Failures in a row."""
        self.sessions = 0
        """How often it came up."""
        self.transport = ""
        """What carries it, or did last."""
        self.last_error = ""
        self.refused_reports = 0
        self.silent_s: Callable[[], float] = lambda: 0.0
        """Seconds since anything was heard of the hub; once the link is lost, those that there were by then."""


class Connector:
    """The edge's end of the link, for as long as edgecore runs."""

    def __init__(
        self,
        node: Node,
        hub: Hubs,
        store: Store,
        commit: Committing,
        *,
        agent: str,
        draw: Callable[[], float],
        status: LinkStatus,
        selections: Selections | None = None,
        store_errors: tuple[type[Exception], ...] = (OSError,),
        check_s: float = CHECK_S,
        unfold: Callable[[Delta], Delta] = lambda delta: delta,
    ) -> None:
        """
        selections: told what becomes of what want() asks for.
        check_s: how often what is held is compared with what the hub thinks, at rest.
        commit: makes batches durable. draw: uniform in [0, 1), for the waiting times.
        store_errors: what store and commit raise when they cannot now but may later, as on a full disk.
        unfold: does what can be done of a large delta before it is committed. It is called in a thread of its own, and
        raises nothing.
        """
        self._node = node
        self._hub = hub
        self._store = store
        self._commit = commit
        self._agent = agent
        self._draw = draw
        self.status = status
        self._store_errors = store_errors
        self._check_s = check_s
        self._selections = selections
        self._unfold = unfold
        self._interests: tuple[Interest, ...] = ()
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._calls_waiting = 0
        self._session: EdgeSession | None = None
        self._known_term = 0
        """The highest term that a hub has told us of."""
        self._is_ahead = False
        """A hub said that our terms are of the future: they go on from there."""
        self._was_synced = False
        """Whether the present link, or the last, has brought everything once."""
        self._is_superseded = False
        """Another connected in our name while we were connected, and no hub has been told."""
        self._survey = False
        """Whether the next Hello is to end in an inventory, whatever is held."""
        self._reports = asyncio.Event()
        self._reports.set()
        self._has_put = False
        """Whether something was put into the durable outbox that was not looked for yet."""
        self._redial = asyncio.Event()

    def reports_waiting(self) -> None:
        """Something was put into the durable outbox."""
        self._has_put = True
        self._reports.set()

    def show(self, context: ssl.SSLContext) -> None:
        """Dial with this from now on, and now where there is no link; the one that there is goes on."""
        self._hub = self._hub._replace(context=context)
        self._redial.set()

    def resync(self) -> bool:
        """Have everything that is held compared by the hub, now or once it is there; returns whether it is there."""
        self._survey = True
        session = self._session
        if session is None or session.error is not None:
            return False
        session.pump.close(GoodbyeCode.RESYNC, "somebody asked for a comparison")
        return True

    def want(self, interests: Sequence[Interest]) -> None:
        """
        Have these selections held, too, from now on; what was wanted before and is not among them leaves the store.

        Say what is remembered before run(): what is not wanted when the link comes up is taken away. May be called at
        any time, from the loop's thread; what comes of it is told to the Selections. Raises ValueError for more than
        MAX_INTERESTS.
        """
        wanted = tuple(sorted(set(interests)))
        if len(wanted) > MAX_INTERESTS:
            raise ValueError(f"{len(wanted)} interests: a node may have {MAX_INTERESTS}")
        self._interests = wanted
        if self._session is not None:
            self._session.want(wanted)

    async def call(self, head: CallHead, body: bytes = b"", timeout_s: float = CALL_S) -> Answered:
        """
        One request to the apiserver, made by the hub on behalf of head.user; its answer, whatever its status.

        Of one node MAX_CALLS are under way and MAX_WAITING wait. Raises
            LinkClosed        there is no link: nothing was asked
            CallLost          the link was lost, or `timeout_s` passed, after the hub had it all: it may have been done
            TimeoutError      `timeout_s` passed before that: nothing was done
            TooManyRequests   too many wait
            TooLarge          the body is over MAX_CALL_BYTES, or the target over MAX_TARGET_BYTES
            BadRequest        nobody can be called what head.user says
        Cancelled, it tells the hub that nobody waits any more.
        """
        if len(body) > MAX_CALL_BYTES:
            raise TooLarge(f"the request body is {len(body)} bytes; the limit is {MAX_CALL_BYTES}")
        # A hub ends the connection over a call that no edge may make, and callers here are not the edge.
        if len(head.target.encode()) > MAX_TARGET_BYTES:
            raise TooLarge(f"the request's path and query are over {MAX_TARGET_BYTES} bytes, which the link takes")
        if len(head.user) > MAX_USER_BYTES or not head.user.isascii():
            raise BadRequest("nobody has such a name")
        self._linked()
        if self._calls_waiting >= MAX_WAITING:
            raise TooManyRequests("too many requests wait for the cloud, please try again later", retry_after_s=1)
        self._calls_waiting += 1
        try:
            async with asyncio.timeout(timeout_s) as limit:
                await self._calls.acquire()
        finally:
            self._calls_waiting -= 1
        try:
            return await self._call(self._linked(), head, body, limit)
        finally:
            self._calls.release()

    async def _call(self, session: EdgeSession, head: CallHead, body: bytes, limit: asyncio.Timeout) -> Answered:
        answer: asyncio.Future[Answered | Unanswered] = asyncio.get_running_loop().create_future()

        def answered(told: Answered | Unanswered) -> None:
            if not answer.done():
                answer.set_result(told)

        number = session.call(head, body, answered)
        try:
            async with asyncio.timeout_at(limit.when()):
                told = await answer
        except TimeoutError:
            if session.cancel(number):
                raise CallLost("no answer in time") from None
            raise
        except asyncio.CancelledError:
            session.cancel(number)
            raise
        if isinstance(told, Answered):
            return told
        why = str(session.error)
        raise CallLost(why) if told.was_sent else LinkClosed(why)

    def _linked(self) -> EdgeSession:
        """The session, where there is one that a hub has welcomed. Raises LinkClosed."""
        session = self._session
        if session is None or session.error is not None or not session.is_welcome:
            raise LinkClosed(self.status.last_error or "not connected")
        return session

    async def run(self) -> None:
        """Dial and serve until cancelled."""
        try:
            await self._run()
        finally:
            if self._hub.quic is not None:
                self._hub.quic.close()

    async def _run(self) -> None:
        while True:
            error = await self._once()
            self.status.connected = self.status.synced = False
            self.status.attempts += 1
            self.status.last_error = str(error)
            wait = delay_s(error, self.status.attempts, self._draw())
            level = logging.WARNING if self.status.attempts == 1 else logging.INFO
            logger.log(level, "link lost", extra={"reason": str(error), "retry_in_s": round(wait, 1)})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._redial.wait()

    async def _once(self) -> LinkError:
        """One connection's life; returns what ended it."""
        changed, arrived = asyncio.Event(), asyncio.Event()

        def wake() -> None:
            changed.set()
            arrived.set()
            self._reports.set()

        self._redial.clear()
        loop = asyncio.get_running_loop()
        session = EdgeSession(self._node, agent=self._agent, clock=loop, wake=wake, unfolds=True)
        try:
            await self._dial(session)
        except LinkError as exc:
            return exc
        self._session = session
        peer = session.pump.peer
        opened_at, self._was_synced = loop.time(), False
        self.status.silent_s = lambda: loop.time() - peer.heard_at
        try:
            await self._greet(session)
        except self._store_errors as exc:
            session.pump.close(GoodbyeCode.SHUTDOWN, f"the store cannot be read: {exc}"[:200])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._guarded(session, self._down(session, changed)), name="link[down]")
            tasks.create_task(self._guarded(session, self._up(session)), name="link[up]")
            tasks.create_task(self._unfolding(session, arrived), name="link[unfold]")
        assert session.error is not None, "all tasks end when the link is lost"
        silent_s = loop.time() - peer.heard_at
        self.status.silent_s = lambda: silent_s
        self._is_superseded = self._is_superseded and not session.is_welcome
        if isinstance(session.error, LinkClosed):
            self._is_ahead = session.error.code is GoodbyeCode.AHEAD
            self._known_term = max(0 if self._is_ahead else self._known_term, session.error.term)
            self._is_superseded = self._is_superseded or session.error.code is GoodbyeCode.SUPERSEDED
            if (
                (quic := self._hub.quic) is not None
                and session.pump.transport.kind == "quic"
                and not session.error.code
            ):
                was_silent = silent_s >= DEAD_AFTER * peer.heartbeat_s
                after_s = loop.time() - opened_at
                await quic.ended(was_synced=self._was_synced, was_silent=was_silent, after_s=after_s)
        return session.error

    async def _dial(self, session: EdgeSession) -> None:
        """Raises LinkError."""
        host, port, context, quic, proxy = self._hub
        if quic is not None and await quic.dial(host, session.opened):
            return
        await dial(host, port, context, session.opened, proxy=proxy)
        if quic is not None:
            await quic.fell_back()

    async def _greet(self, session: EdgeSession) -> None:
        """Say Hello. A dial that failed has cost no write: the term is taken once somebody is there."""
        cursor, digest = await self._store.cursor(), await self._store.digest()
        if self._survey:
            # No cursor resumes and no digest is empty, so the hub asks for the inventory.
            cursor, digest = None, b""
        horizon = await self._store.horizon()
        term = await self._store.next_term(self._known_term, is_reset=self._is_ahead)
        session.greet(cursor, digest, term, horizon, self._interests, superseded=self._is_superseded)

    async def _guarded(self, session: EdgeSession, work: Coroutine[None, None, None]) -> None:
        """
        A store that cannot commit now ends this connection, and nothing else.

        Nothing is lost: what was not committed was not acknowledged, and the next Hello says how far it got.
        """
        try:
            await work
        except self._store_errors as exc:
            logger.error("store failed", extra={"reason": str(exc)})
            if session.error is None:
                session.pump.close(GoodbyeCode.SHUTDOWN, f"the store cannot commit: {exc}"[:200])

    async def _down(self, session: EdgeSession, changed: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        check_at = loop.time() + self._check_s
        while session.error is None:
            try:
                async with asyncio.timeout_at(check_at):
                    await changed.wait()
            except TimeoutError:
                check_at = loop.time() + self._check_s
                await self._check(session)
            changed.clear()
            if session.is_welcome and not self.status.connected:
                self.status.connected = True
                self.status.sessions += 1
                self.status.last_error = ""
                self.status.transport = session.pump.transport.kind
                quic = self._hub.quic if self.status.transport == "quic" else None
                where = Endpoint(self._hub.host, self._hub.port if quic is None else quic.port)
                told = {"hub": str(where), "transport": self.status.transport}
                logger.info("link up", extra=told)
            if session.wants_inventory:
                self._survey = False
                session.send_inventory(await self._store.held())
            self._tell_decided(session)
            batches = session.take_batches()
            if batches and session.error is None:
                refusals = await self._commit(batches)
                session.committed(batches, refusals)
                # Not at the Welcome: a node that connects but cannot commit (a full disk) would dial all the time.
                self.status.attempts = 0
                self.status.synced = session.is_synced and session.error is None
                self._was_synced = self._was_synced or session.is_synced
                self._tell_completed(session)

    async def _unfolding(self, session: EdgeSession, arrived: asyncio.Event) -> None:
        while session.error is None:
            await arrived.wait()
            arrived.clear()
            if (body := session.take_arrived()) is not None:
                made = await aside(partial(_unfolded, body, self._unfold), "unfold")
                if isinstance(made, Delta) and isinstance(made.taken, Object):
                    with contextlib.suppress(*self._store_errors):  # its commit meets it, too, and tells
                        await self._store.put_ahead(made.taken, lambda: session.error is None)
                session.unfolded(made)

    def _tell_decided(self, session: EdgeSession) -> None:
        for decided in session.take_decided():
            if self._selections is not None:
                self._selections.decided(*decided)

    def _tell_completed(self, session: EdgeSession) -> None:
        for interests in session.take_completed():
            if self._selections is not None and interests:
                self._selections.completed(interests)

    async def _check(self, session: EdgeSession) -> None:
        cursor, digest = await self._store.cursor(), await self._store.digest()
        # Nothing commits but this task, so the digest is of the cursor.
        if cursor is not None:
            session.check(cursor, digest)

    async def _up(self, session: EdgeSession) -> None:
        loop = asyncio.get_running_loop()
        backlogs = {traffic: Backlog() for traffic in Traffic}
        settle_at: float | None = None
        pause_s = SETTLE_S
        while session.error is None:
            looks = [due for backlog in backlogs.values() if (due := backlog.next_look()) is not None]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min([*looks, *([] if settle_at is None else [settle_at])], default=None)):
                    await self._reports.wait()
            self._reports.clear()
            now = loop.time()
            if settle_at is None and any(session.has_reported(traffic) for traffic in Traffic):
                settle_at = now + pause_s
            if settle_at is not None and now >= settle_at:
                settle_at = None
                for traffic, backlog in backlogs.items():
                    await self._settle(session.take_reported(traffic), backlog)
                pause_s = min(SETTLE_MOST_S, max(SETTLE_S, SETTLE_SHARE * (loop.time() - now)))
            if await self._report(session, backlogs, now):
                self._reports.set()  # a frame of each class at a time, and what became of others in between

    async def _settle(self, reported: Reported, backlog: Backlog) -> None:
        """Delete what the cloud has, and postpone what it cannot take now."""
        done, refused, later = reported
        if done:
            await self._store.settle_reports(done, refused)
            backlog.settle(done)
            self._tell_refused(refused)
        backlog.hand_back(later, asyncio.get_running_loop().time(), self._draw)

    async def _report(self, session: EdgeSession, backlogs: Mapping[Traffic, Backlog], now: float) -> bool:
        """Send a frame of each class that has something to send, and room; whether there was any."""
        has_sent = False
        if self._has_put:
            self._has_put = False
            for backlog in backlogs.values():
                backlog.is_read = False
        for traffic, backlog in backlogs.items():
            backlog.look(now)
            while not backlog.is_read and (room := session.report_room(traffic)):
                read = await self._store.pending_reports(backlog.after, min(room, REPORT_BYTES), traffic)
                if session.error is not None:
                    break
                if rows := backlog.choose(read, now):
                    session.report(rows, traffic)
                    has_sent = True
                    break
        return has_sent

    def _tell_refused(self, refused: Sequence[RefusedReport]) -> None:
        for report in refused:
            self.status.refused_reports += 1
            logger.warning(
                "report refused by the cloud",
                extra={"key": str(report.key), "field": report.field, "reason": report.reason},
            )


def _unfolded(body: bytearray, unfold: Callable[[Delta], Delta]) -> Delta | RemoteProtocolError:
    """In a thread."""
    try:
        delta = decode_delta(body)
    except RemoteProtocolError as error:
        return error
    body.clear()  # it is in the delta now; on a small node two megabytes are much
    return unfold(delta)
