"""
Makes the requests that nodes call for, as whoever asks, and hands the apiserver's answers back.

Nodes share one hub and its connections: at most AT_ONCE requests are under way, the others wait; and what all calls
of all nodes keep in memory, asked or answered, is within MAX_BYTES, of one node's within NODE_BYTES, so that one which
takes no answers leaves room for the others. What there is no room for is answered with 429 at once.
A call whose node has gone, or cancelled it, is given up; the apiserver may have done it by then.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from apimachinery.errors import ApiError, BadRequest, Forbidden, InternalError, Timeout, TooManyRequests, Unavailable
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON
from apimachinery.watchcache import WatchCache
from cloudhub.apiclient import RawAnswer
from cloudhub.identities import Identity, identity_of, refused
from cloudhub.interests import AT_ONCE
from cloudhub.passing import Target, amended, checked, failure, object_key, revision_of_answer, verb_of, warnings_in
from cloudhub.placement import Placement
from cloudhub.session import Session
from link.exchange import Whole
from link.frames import CALL_S, MAX_CALL_BYTES, AnswerHead, CallHead

logger = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
NODE_BYTES = 8 << 20  # two of the largest answers and a bit: on a slow line the next large one is asked for again


class Passing(Protocol):
    """The requests that this needs; cloudhub.apiclient.ApiClient has them."""

    async def get(self, key: ObjectKey) -> dict[str, JSON]: ...

    async def may(
        self,
        user: str,
        groups: Sequence[str],
        verb: str,
        resource: Resource,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
    ) -> bool: ...

    async def pass_on(
        self,
        method: str,
        target: str,
        *,
        user: str,
        groups: Sequence[str],
        headers: Mapping[str, str],
        body: bytes,
        room: Callable[[int], bool],
    ) -> RawAnswer: ...


class Calls:
    """Is a cloudhub.session.CallSink. run() must be going before the first node is let in."""

    def __init__(
        self,
        client: Passing,
        placement: Placement,
        cache: WatchCache,
        resource: Callable[[str], Resource | None],
        *,
        at_once: int = AT_ONCE,
        max_bytes: int = MAX_BYTES,
        node_bytes: int = NODE_BYTES,
        call_s: float = CALL_S,
    ) -> None:
        """resource: a collection's, as nodes hold it; None where they do not."""
        self._client = client
        self._placement = placement
        self._cache = cache
        self._resource = resource
        self._at_once = asyncio.Semaphore(at_once)
        self._max_bytes = max_bytes
        self._node_bytes = node_bytes
        self._call_s = call_s
        self._tasks: asyncio.TaskGroup | None = None
        self._under_way: dict[Session, dict[int, asyncio.Task[None]]] = {}
        self._busy: dict[Session, None] = {}
        """Who may keep something of a call, or of an answer, in memory."""
        self._bytes = 0
        """Of bodies that are being asked with, or read."""
        self.answers: dict[int, int] = {}
        """How many, by status."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.get_running_loop().create_future()

    # For the hub

    def has_room(self, session: Session) -> bool:
        for idle in [each for each in self._busy if not each.call_bytes]:
            del self._busy[idle]
        self._busy[session] = None
        if session.call_bytes >= self._node_bytes:
            return False
        return self._bytes + sum(each.call_bytes for each in self._busy) < self._max_bytes

    def begin(self, session: Session, call: Whole[CallHead]) -> None:
        assert self._tasks is not None, "run() is going"
        task = self._tasks.create_task(self._serve(session, call), name=f"call[{session.node}]")
        tasks = self._under_way.setdefault(session, {})
        tasks[call.number] = task
        task.add_done_callback(lambda _: self._forget(session, call.number))

    def refuse(self, session: Session, number: int) -> None:
        told = "too many requests are on their way to the cluster, please try again later"
        self._answer(session, number, *failure(TooManyRequests(told, retry_after_s=1)))

    def cancel(self, session: Session, number: int) -> None:
        if (task := self._under_way.get(session, {}).get(number)) is not None:
            task.cancel()

    def session_closed(self, session: Session) -> None:
        self._busy.pop(session, None)
        for task in self._under_way.get(session, {}).values():
            task.cancel()

    def _forget(self, session: Session, number: int) -> None:
        tasks = self._under_way[session]
        del tasks[number]
        if not tasks:
            del self._under_way[session]

    # The work

    async def _serve(self, session: Session, call: Whole[CallHead]) -> None:
        self._bytes += len(call.body)
        try:
            async with asyncio.timeout(self._call_s), self._at_once:
                head, body = await self._made(session, call)
        except ApiError as error:
            if isinstance(error, Forbidden):
                logger.info("a call is refused", extra={"node": session.node, "reason": str(error)})
            head, body = failure(error)
        except TimeoutError:
            told = "the apiserver did not answer in time; what was asked for may have been done"
            head, body = failure(Timeout(told))
        except Exception:
            # Whatever it is that a caller at one node found out to say: the others have nothing to do with it.
            logger.exception("a call failed", extra={"node": session.node})
            head, body = failure(InternalError("the hub could not make this request; its log says why"))
        finally:
            self._bytes -= len(call.body)
        self._answer(session, call.number, head, body)

    def _answer(self, session: Session, number: int, head: AnswerHead, body: bytes) -> None:
        if session.call_bytes + len(body) > self._node_bytes:
            told = "this node has not taken the answers that it has, please try again later"
            head, body = failure(TooManyRequests(told, retry_after_s=1))
        self.answers[head.status] = self.answers.get(head.status, 0) + 1
        self._busy[session] = None
        session.answer(number, head, body)

    async def _judge(self, identity: Identity, head: CallHead, target: Target, resource: Resource) -> None:
        """
        Raises Forbidden where whoever asks may not do what he asks for.

        The apiserver would say so as well, but the hub reads the object with rights of its own before: whoever may do
        nothing must not learn from that whether there is one, or what it is like.
        """
        verb, (_, _, namespace, _, name, subresource) = verb_of(head), target
        if not await self._client.may(identity.user, identity.groups, verb, resource, namespace, name, subresource):
            raise Forbidden(refused(identity, verb, resource, namespace, name, subresource))

    async def _made(self, session: Session, call: Whole[CallHead]) -> tuple[AnswerHead, bytes]:
        head, body = call.head, call.body
        target = checked(head)
        identity = identity_of(session.node, head.user, self._placement, self._cache)
        collection = "" if target is None else f"{target.plural}.{target.group}" if target.group else target.plural
        resource = self._resource(collection)
        if head.base:
            if target is None or not target.name:
                raise BadRequest("what has a base is one object")
            if resource is None:
                # The node holds it, by what this hub, or the one before it, has told it.
                raise Unavailable(f"{collection} is not known here yet, please try again", retry_after_s=1)
            await self._judge(identity, head, target, resource)
            body = amended(head, body, target, await self._client.get(object_key(target, resource)), resource)
        kept = 0

        def room(size: int) -> bool:
            nonlocal kept
            self._bytes += size - kept
            kept = size
            return size <= MAX_CALL_BYTES and self._bytes <= self._max_bytes

        headers = {"Content-Type": head.content_type, "Accept": head.accept, "User-Agent": head.agent}
        try:
            answer = await self._client.pass_on(
                head.method,
                head.target,
                user=identity.user,
                groups=identity.impersonated_groups,
                headers=headers,
                body=body,
                room=room,
            )
        finally:
            self._bytes -= kept
        retry_after = answer.headers.get("retry-after", "")
        return (
            AnswerHead(
                answer.status,
                answer.headers.get("content-type", ""),
                float(retry_after) if retry_after.isdecimal() and len(retry_after) < 6 else 0.0,
                warnings_in(list(answer.warnings)),
                revision_of_answer(head, target, answer.body, resource) if 200 <= answer.status < 300 else "",
            ),
            answer.body,
        )
