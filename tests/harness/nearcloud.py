"""
A cloud without a line to it: the embedded apiserver in this process, and what a hub does with it, to test the edge.

It pushes what interests select and what is placed on the node, answers calls, and can be away. The real hub over a real
line does the same in the tests of whole sites.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apimachinery.errors import ApiError, TooLarge
from apimachinery.keys import Node, ObjectKey
from apimachinery.objects import JSON
from apiserver.discovery import About
from apiserver.handlers import Api
from apiserver.messages import Request, error_response
from apiserver.reviews import Reviews
from apiserver.storage import Storage
from apiserver.users import ADMIN
from apiserver.writes import PlannedWrites
from cloudhub.placement import Placement, with_definitions
from cloudhub.projection import project
from link.errors import CallLost, LinkClosed
from link.frames import CALL_S, MAX_CALL_BYTES, AnswerHead, Batch, CallHead, Cursor, Delta, Interest, RefusedInterest
from metamanager.api import ApiLink
from metamanager.store import Store
from tests.harness.cluster import Cluster

NODE = Node("edge-1")


class Answered(NamedTuple):
    head: AnswerHead
    body: bytes


class NearCloud:
    """Is metamanager.cloud.Cloud. `link` is told what becomes of interests."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.cluster = Cluster(storage, {})
        reviews = Reviews(self.cluster.authorizer, self.cluster.authentication, self.cluster.accounts.issue)
        self.api = Api(storage, PlannedWrites(storage, asked=reviews), about=About("near", "0"))
        self.connected = True
        self.loses_answers = False
        """Whether calls are carried out and their answers lost."""
        self.hangs = False
        """Whether nothing comes back: the link went away unheard."""
        self.answers_with = 0
        """A status that every call is answered with, instead of being carried out."""
        self.holds_back = False
        """Whether pushes wait."""
        self.refusals: dict[Interest, tuple[int, str]] = {}
        self.calls: list[CallHead] = []
        self.interests: tuple[Interest, ...] = ()
        self.link: ApiLink
        self.store: Store
        self._seq = 0
        self._changed = asyncio.Event()

    def is_connected(self) -> bool:
        return self.connected

    def go(self) -> None:
        self.connected = False

    def come_back(self) -> None:
        self.connected = True
        self._changed.set()

    def want(self, interests: Sequence[Interest]) -> None:
        self.interests = tuple(interests)
        self._changed.set()

    async def call(self, head: CallHead, body: bytes = b"", timeout_s: float = CALL_S) -> Answered:
        if not self.connected:
            raise LinkClosed("it was cut")
        if len(body) > MAX_CALL_BYTES:
            raise TooLarge("as the link has it")
        self.calls.append(head)
        if self.hangs:
            await asyncio.sleep(timeout_s)
            raise CallLost("no answer in time")
        if self.answers_with:
            return Answered(AnswerHead(self.answers_with, "application/json"), b"{}")
        answer = await self._answer(head, body)
        if self.loses_answers:
            raise CallLost("it was cut")
        return answer

    async def ask(self, method: str, target: str, body: JSON = None, content_type: str = "application/json") -> Any:
        """As somebody at the cluster."""
        data = b"" if body is None else json.dumps(body).encode()
        answer = await self._answer(CallHead(method, target, content_type=content_type), data)
        assert answer.head.status < 300, answer.body
        return json.loads(answer.body)

    async def _answer(self, head: CallHead, body: bytes) -> Answered:
        headers = {"content-type": head.content_type, "accept": head.accept, "user-agent": head.agent}
        if head.base:
            body = self._with_version(head, body)
        try:
            response = self.cluster.accounts.document(head.target) or await self.api(
                Request(head.method, head.target, headers, body, user=ADMIN)
            )
        except ApiError as exc:
            response = error_response(exc)
        assert isinstance(response.body, bytes)
        told = dict(response.headers)
        warnings = tuple(text[7:-1].replace('\\"', '"') for name, text in response.headers if name == "warning")
        retry_after_s = float(told.get("retry-after", 0))
        revision = self._revision(response.body) if response.status < 300 else ""
        return Answered(
            AnswerHead(response.status, told.get("content-type", ""), retry_after_s, warnings, revision), response.body
        )

    def _with_version(self, head: CallHead, body: bytes) -> bytes:
        asked = self.api.asked(Request(head.method, head.target))
        found = self.storage.view().get(asked.key)
        version = "1"  # of nothing that is: a conflict
        if found is not None and project(found).version.revision == head.base:
            version = found.parse()["metadata"]["resourceVersion"]
        value = json.loads(body)
        if isinstance(value, list):
            value.insert(0, {"op": "test", "path": "/metadata/resourceVersion", "value": version})
        else:
            value.setdefault("preconditions" if head.method == "DELETE" else "metadata", {})["resourceVersion"] = (
                version
            )
        return json.dumps(value).encode()

    def _revision(self, body: bytes) -> str:
        value = json.loads(body)
        metadata = value.get("metadata") or {}
        for definition in self.storage.catalogue():
            resource = definition.resource
            if (resource.api_version, resource.kind) == (value.get("apiVersion"), value.get("kind")):
                key = ObjectKey(resource, metadata.get("namespace", ""), metadata.get("name", ""))
                found = self.storage.view().get(key)
                return "" if found is None else project(found).version.revision
        return ""

    async def run(self) -> None:
        """Push what the node is to hold, whenever that changes."""
        while True:
            revision = self.storage.revision
            self._changed.clear()
            if self.connected and not self.holds_back:
                await self.push()
            watching = asyncio.create_task(self.storage.wait(revision), name="storage")
            wanting = asyncio.create_task(self._changed.wait(), name="wanted")
            try:
                await asyncio.wait((watching, wanting), return_when=asyncio.FIRST_COMPLETED)
            finally:
                watching.cancel()
                wanting.cancel()

    async def push(self) -> None:
        interests = self.interests
        refused = [RefusedInterest(each, *self.refusals[each]) for each in interests if each in self.refusals]
        granted = [each for each in interests if each not in self.refusals]
        self.link.interests.decided(interests, refused, [each.resource for each in granted])
        placement = Placement(with_definitions(Placement().rules))
        objects = {}
        for definition in self.storage.catalogue():
            for item in self.storage.view().all_of(definition.resource):
                objects[item.key] = item
        for change in self.storage.since(0):
            placement.observe(change)
        wanted = {
            key: project(item)
            for key, item in objects.items()
            if placement.is_placed(NODE, key) or any(_selects(each, key) for each in granted)
        }
        held = {each.key: each.version for each in await self.store.held()}
        deltas = [Delta(key, each.version, each.body) for key, each in wanted.items() if held.get(key) != each.version]
        deltas += [Delta(key, None, b"") for key in held if key not in wanted]
        self._seq += 1
        await self.store.apply([Batch(Cursor("near", self._seq), tuple(deltas), True)])
        self.link.interests.completed(granted)


def _selects(interest: Interest, key: ObjectKey) -> bool:
    return (
        interest.resource == key.resource
        and interest.namespace in ("", key.namespace)
        and interest.name in ("", key.name)
    )


@contextlib.asynccontextmanager
async def near_cloud(directory: Path) -> AsyncIterator[NearCloud]:
    """An apiserver that has a namespace "default"."""
    async with Storage.open(f"sqlite:///{directory / 'cluster.db'}") as storage:
        cloud = NearCloud(storage)
        await cloud.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
        yield cloud
