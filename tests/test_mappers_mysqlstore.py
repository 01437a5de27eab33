"""Samples in a real MariaDB."""

from pathlib import Path

import pymysql
import pytest

from apimachinery.devices import PropertyType
from mappers.mysqlstore import MysqlStore
from mappers.points import PointsRefused
from mappers.pushmethod import MysqlPlace, Target
from tests.harness.databases import PASSWORD, MariaDb
from tests.test_mappers_points import AT_MS, point


def rows(server: MariaDb) -> list[tuple[str, str, str, str]]:
    with (
        pymysql.connect(
            host="127.0.0.1", port=server.port, user="mapper", password=PASSWORD, database="edge"
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT device, property, CAST(at AS CHAR), value FROM fairlead_samples ORDER BY at")
        return list(cursor.fetchall())


@pytest.mark.timeout(120)
async def test_samples_are_there_once_and_survive_the_server(tmp_path: Path) -> None:
    with MariaDb(tmp_path) as server:
        place = MysqlPlace(f"127.0.0.1:{server.port}", "edge", "mapper")
        target = Target(place)
        store = MysqlStore(place, PASSWORD)
        points = [point("1.5", target=target), point("grün 🌱", PropertyType.STRING, name="mode", at_ms=AT_MS + 1)]
        await store.write(points)
        await store.write(points)  # as after an answer that was lost
        server.kill()
        with pytest.raises(OSError, match=r"(?i)lost connection|gone away"):
            await store.write(points)
        with pytest.raises(OSError, match="connect"):
            await store.write(points)
        server.start()
        await store.write([point("3.5", target=target, at_ms=AT_MS + 2)])
        assert rows(server) == [
            ("default/room", "temperature", "2026-11-23 08:47:43.522", "1.5"),
            ("default/room", "mode", "2026-11-23 08:47:43.523", "grün 🌱"),
            ("default/room", "temperature", "2026-11-23 08:47:43.524", "3.5"),
        ]
        with pytest.raises(PointsRefused, match="too long"):
            await store.write([point("x" * 70_000, PropertyType.STRING, name="mode")])
        store.close()
        for password in ("wrong", None):
            stranger = MysqlStore(place, password)
            with pytest.raises(OSError, match="Access denied") as caught:
                await stranger.write(points)
            assert "wrong" not in str(caught.value)
            stranger.close()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        MysqlStore(MysqlPlace("h:x", "d", "u"), None)
