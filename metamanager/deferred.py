"""
What was written on the node while the cloud was away, on its way up.

One write after the other, oldest first, each as a request of whoever made it; it leaves the store once the apiserver
has taken it, or has said that it never will. The cloud's newer truth wins where two could have decided: a Lease is only
renewed if it is still what the node holds, an object that is another one by now gets nothing of the old one's, and an
Event that is there is not made again. Of a status only what the node changed is sent.

Invariants
    a write goes from the store only after the apiserver's answer, and after its object came back where the store
    holds it: clients see no step back
    one write that the apiserver cannot take now does not hold up the others
"""

import asyncio
import contextlib
import json
import logging
from urllib.parse import quote

from apimachinery.errors import ApiError
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, canonical
from apimachinery.resources import LEASES
from link.frames import CallHead, RefusedReport
from metamanager.cloud import JSON_TYPE, Cloud, ask
from metamanager.errors import StoreError
from metamanager.feed import FeedClosed
from metamanager.overlay import LocalWrite
from metamanager.store import Store

logger = logging.getLogger(__name__)

LOOK_S = 1.0  # whether the cloud is back, while something waits
RETRY_S = 5.0  # between two tries of a write that the apiserver did not take
COME_BACK_S = 2.0  # until the store holds what was taken
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


class Deferred:
    """The way up of local writes."""

    def __init__(self, store: Store, cloud: Cloud) -> None:
        self._store = store
        self._cloud = cloud
        self._waiting = asyncio.Event()
        self._waiting.set()
        self._settled = asyncio.Event()
        self._not_before: dict[int, float] = {}

    def added(self) -> None:
        """There is one more write in the store."""
        self._waiting.set()

    async def drained(self, key: ObjectKey, within_s: float) -> bool:
        """Whether no write of this object waits any more, after some time at most."""
        ends_at = asyncio.get_running_loop().time() + within_s
        while (await self._store.look(key)).writes:
            self._waiting.set()
            settled = self._settled
            try:
                async with asyncio.timeout_at(ends_at):
                    await settled.wait()
            except TimeoutError:
                return False
        return True

    async def run(self) -> None:
        """Send what waits whenever the cloud is there, until cancelled."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while await self._round():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._waiting.wait()
                self._waiting.clear()

    async def _round(self) -> bool:
        """Try each write once; returns whether any waits."""
        try:
            writes = await self._store.local_writes()
            if not self._cloud.is_connected():
                return bool(writes)
            now = asyncio.get_running_loop().time()
            for write in writes:
                if self._not_before.get(write.seq, 0.0) <= now and not await self._send(write):
                    break
            writes = await self._store.local_writes()
        except StoreError as exc:
            logger.warning("local writes wait: the store cannot be read", extra={"reason": str(exc)})
            return True
        self._not_before = {seq: at for seq, at in self._not_before.items() if seq in {each.seq for each in writes}}
        return bool(writes)

    async def _send(self, write: LocalWrite) -> bool:
        """One write; returns whether the cloud is still there."""
        head, body = await self._request(write)
        try:
            answer = await ask(self._cloud, head, body)
        except ApiError as exc:
            logger.info("local write waits", extra={"key": str(write.key), "reason": str(exc)})
            return False
        status = answer.head.status
        if status == 429 or status >= 500:
            wait_s = max(RETRY_S, answer.head.retry_after_s)
            self._not_before[write.seq] = asyncio.get_running_loop().time() + wait_s
            logger.info("local write not taken yet", extra={"key": str(write.key), "status": status})
            return True
        if status < 300:
            await self._come_back(write.key, answer.head.revision)
        elif not (write.creates and status == 409):  # an Event that is there already went up before the link was lost
            await self._refused(write, status, answer.body)
        await self._store.settle_locally(write.seq)
        settled, self._settled = self._settled, asyncio.Event()
        settled.set()
        return True

    async def _request(self, write: LocalWrite) -> tuple[CallHead, bytes]:
        key, value = write.key, json.loads(write.value)
        path = key.resource.path(quote(key.namespace, safe=""), "" if write.creates else quote(key.name, safe=""))
        if write.creates:
            metadata = value["metadata"]
            for name in ("uid", "creationTimestamp"):  # the cluster's to give
                metadata.pop(name, None)
            head = CallHead("POST", path, write.user, JSON_TYPE, JSON_TYPE)
        else:
            # With the uid it is a change of that very object, or none.
            value["metadata"] = (value.get("metadata") or {}) | {"uid": write.uid}
            base = ""
            if key.resource == LEASES and (held := (await self._store.look(key)).held) is not None:
                base = held.object.version.revision
            target = f"{path}/{write.subresource}" if write.subresource else path
            head = CallHead("PATCH", target, write.user, STRATEGIC_PATCH, JSON_TYPE, base)
        return head, canonical(
            value
        )  # no larger than it is kept, which the link takes; escaped it would be thrice that

    async def _come_back(self, key: ObjectKey, revision: str) -> None:
        """Wait until the store holds what the apiserver has now, so that clients do not see the old state again."""
        if not revision:
            return
        with contextlib.suppress(TimeoutError, FeedClosed):
            async with asyncio.timeout(COME_BACK_S):
                while True:
                    at = self._store.feed.revision
                    held = (await self._store.look(key)).held
                    if held is None or held.object.version.revision == revision:
                        return
                    await self._store.feed.wait(at)

    async def _refused(self, write: LocalWrite, status: int, body: bytes) -> None:
        reason = _reason(body) or f"the apiserver answered {status}"
        field = write.subresource or "object"
        logger.warning("local write refused by the cloud", extra={"key": str(write.key), "reason": reason})
        await self._store.settle_reports((), [RefusedReport(write.key, field, reason[:256])])


def _reason(body: bytes) -> str:
    try:
        value: JSON = json.loads(body)
    except ValueError:
        return ""
    return str(value.get("message") or "") if isinstance(value, dict) else ""
