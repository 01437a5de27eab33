"""
Samples in Redis: a sorted set for each device, scored by time, as KubeEdge's mappers have it.

    ZRANGEBYSCORE default/room 1795423700000 +inf

A member is the sample as JSON, its time included, so that one written twice is there once. What is too old is removed
by whoever wants it gone: ZREMRANGEBYSCORE.

The home of redis-py, which is imported when a Device asks for it.
"""

from collections.abc import Sequence

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from componentbase.aside import aside
from componentbase.endpoints import Endpoint
from mappers.points import Point, PointsRefused, encode_json
from mappers.pushmethod import RedisPlace

PORT = 6379
TIMEOUT_S = 10.0


class RedisStore:
    """One database of one server."""

    def __init__(self, place: RedisPlace, username: str | None, password: str | None) -> None:
        """Raises ValueError for an address that is none."""
        where = Endpoint.parse(place.address, PORT)
        self._name = place.address
        self._client = redis.Redis(
            host=where.host,
            port=where.port,
            db=place.db,
            username=username,
            password=password,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # the backlog tries again, and says so
        )

    async def write(self, points: Sequence[Point]) -> None:
        await aside(lambda: self._write(points), f"push[redis {self._name}]")

    def close(self) -> None:
        self._client.close()

    def _write(self, points: Sequence[Point]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for point in points:
            pipeline.zadd(point.device, {encode_json(point): point.at_ms})
        try:
            pipeline.execute()
        except redis.RedisError as exc:
            # A key of another type is the user's; full, loading, read-only pass.
            if "WRONGTYPE" in str(exc):
                raise PointsRefused(str(exc)) from exc
            raise ConnectionError(str(exc)) from exc
