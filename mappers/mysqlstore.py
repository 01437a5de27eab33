"""
Samples in MySQL or MariaDB: one table, made if it is missing.

    SELECT at, value FROM fairlead_samples WHERE device = 'default/room' AND property = 'temperature' ORDER BY at

One row a sample, keyed by device, property and time, so that one written twice is there once. KubeEdge's mappers make a
table for each property of each device, named with slashes; a thousand tables are nobody's friend.

The home of PyMySQL, which is imported when a Device asks for it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import pymysql

from componentbase.aside import aside
from componentbase.endpoints import Endpoint
from mappers.points import Point, PointsRefused
from mappers.pushmethod import MysqlPlace

PORT = 3306
TIMEOUT_S = 10
_TABLE = """
CREATE TABLE IF NOT EXISTS fairlead_samples (
    device VARCHAR(255) CHARACTER SET ascii NOT NULL,
    property VARCHAR(128) CHARACTER SET ascii NOT NULL,
    at DATETIME(3) NOT NULL,
    value TEXT CHARACTER SET utf8mb4 NOT NULL,
    PRIMARY KEY (device, property, at)
)"""
_INSERT = "REPLACE INTO fairlead_samples (device, property, at, value) VALUES (%s, %s, %s, %s)"


class MysqlStore:
    """One database of one server. Times are UTC."""

    def __init__(self, place: MysqlPlace, password: str | None) -> None:
        """Raises ValueError for an address that is none."""
        self._where = Endpoint.parse(place.address, PORT)
        self._place = place
        self._password = password or ""
        self._connection: pymysql.Connection[pymysql.cursors.Cursor] | None = None

    async def write(self, points: Sequence[Point]) -> None:
        await aside(lambda: self._write(points), f"push[mysql {self._place.address}]")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.open:
            connection.close()

    def _write(self, points: Sequence[Point]) -> None:
        rows = [(each.device, each.name, _time(each.at_ms), each.text) for each in points]
        try:
            if self._connection is None:
                self._connection = self._connected()
            with self._connection.cursor() as cursor:
                cursor.executemany(_INSERT, rows)
            self._connection.commit()
        except pymysql.DataError as exc:
            self.close()
            raise PointsRefused(_text(exc)) from exc
        except pymysql.MySQLError as exc:
            self.close()
            raise ConnectionError(_text(exc)) from exc

    def _connected(self) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        connection = pymysql.connect(
            host=self._where.host,
            port=self._where.port,
            user=self._place.user,
            password=self._password,
            database=self._place.database,
            charset="utf8mb4",
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            write_timeout=TIMEOUT_S,
        )
        with connection.cursor() as cursor:
            # Looked for first: CREATE needs a right that an existing table makes needless, and warns each time.
            cursor.execute("SHOW TABLES LIKE 'fairlead_samples'")
            if not cursor.fetchall():
                cursor.execute(_TABLE)
        return connection


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _text(error: Exception) -> str:
    return str(error.args[-1]) if error.args else type(error).__name__
