"""Samples in a real Redis."""

import json
from pathlib import Path

import pytest
import redis

from mappers.points import PointsRefused
from mappers.pushmethod import RedisPlace, Target
from mappers.redisstore import RedisStore
from tests.harness.databases import PASSWORD, Redis
from tests.test_mappers_points import AT_MS, point


async def test_samples_are_there_once_by_time_and_survive_the_server(tmp_path: Path) -> None:
    with Redis(tmp_path) as server:
        place = RedisPlace(f"127.0.0.1:{server.port}", 2)
        target = Target(place)
        store = RedisStore(place, None, PASSWORD)
        points = [point("1.5", target=target), point("2.5", target=target, at_ms=AT_MS + 1)]
        await store.write(points)
        await store.write(points)  # as after an answer that was lost
        server.kill()
        with pytest.raises(OSError, match=r"refused|closed"):
            await store.write(points)
        server.start()
        await store.write([point("3.5", target=target, at_ms=AT_MS + 2)])
        store.close()
        with redis.Redis(port=server.port, db=2, password=PASSWORD) as reader:
            found = reader.zrangebyscore("default/room", AT_MS + 1, "+inf")
            assert [json.loads(each)["value"] for each in found] == [2.5, 3.5]
            assert reader.zcard("default/room") == 3
            reader.set("default/lamp", "something else")
        store = RedisStore(place, None, PASSWORD)
        with pytest.raises(PointsRefused, match="WRONGTYPE"):
            await store.write([point(target=target)._replace(device="default/lamp")])
        store.close()


async def test_a_wrong_password_is_an_outage_that_says_so(tmp_path: Path) -> None:
    with Redis(tmp_path) as server:
        for password, says in (("wrong", "WRONGPASS|invalid"), (None, "(?i)authenticat")):
            store = RedisStore(RedisPlace(f"127.0.0.1:{server.port}", 0), None, password)
            with pytest.raises(OSError, match=says) as caught:
                await store.write([point()])
            assert "wrong" not in str(caught.value)
            store.close()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        RedisStore(RedisPlace("h:x", 0), None, None)
