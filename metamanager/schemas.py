"""
The cluster's OpenAPI documents: passed through the link, and remembered for when the cloud is away.

`kubectl explain` and its validation ask for them. They are large and rarely change, so each is kept compressed; when
there is no room for one more, all are forgotten, for what is asked for again is fetched again.

Invariants
    at most MAX_BYTES are kept, compressed
    what the cluster said last is what is answered offline
"""

import json
import logging
import zlib

from apimachinery.errors import ApiError
from apiserver.messages import Request, Response
from link.frames import CallHead
from metamanager.cloud import JSON_TYPE, Cloud, ask
from metamanager.errors import StoreError
from metamanager.store import Store

logger = logging.getLogger(__name__)

PREFIX = "metamanager/openapi "
MAX_BYTES = 2 << 20
FETCH_S = 10.0


class OpenApiDocuments:
    """What is under /openapi in the cluster."""

    def __init__(self, store: Store, cloud: Cloud) -> None:
        self._store = store
        self._cloud = cloud
        self._sizes: dict[str, int] | None = None
        """Of what is kept, by document; None before it was looked up."""

    async def answer(self, request: Request) -> Response | None:
        """The cluster's document, as it is now or was; None where it was never had."""
        accept = request.headers.get("accept", "") or JSON_TYPE
        name = f"{PREFIX}{request.target} {accept}"
        if self._cloud.is_connected():
            try:
                answer = await ask(self._cloud, CallHead("GET", request.target, accept=accept), timeout_s=FETCH_S)
            except ApiError as exc:
                logger.info("OpenAPI document not fetched", extra={"path": request.path, "reason": str(exc)})
            else:
                if answer.head.status == 200:
                    await self._remember(name, answer.head.content_type, answer.body)
                    return Response(200, [("content-type", answer.head.content_type)], answer.body)
                if answer.head.status == 404:
                    return None
        kept = (await self._store.documents(name)).get(name)
        if kept is None:
            return None
        content_type, _, body = zlib.decompress(kept).partition(b"\n")
        return Response(200, [("content-type", json.loads(content_type))], body)

    async def _remember(self, name: str, content_type: str, body: bytes) -> None:
        document = zlib.compress(json.dumps(content_type).encode() + b"\n" + body)
        try:
            if self._sizes is None:
                self._sizes = {each: len(value) for each, value in (await self._store.documents(PREFIX)).items()}
            if self._sizes.get(name) == len(
                document
            ):  # most likely the same: a change of content changes what it compresses to
                return
            gone: dict[str, bytes | None] = {}
            if sum(self._sizes.values()) + len(document) > MAX_BYTES:
                gone, self._sizes = dict.fromkeys(self._sizes), {}
            if len(document) > MAX_BYTES:
                return
            await self._store.save({**gone, name: document}, ())
            self._sizes[name] = len(document)
        except StoreError as exc:
            logger.warning("OpenAPI document not remembered", extra={"path": name, "reason": str(exc)})
