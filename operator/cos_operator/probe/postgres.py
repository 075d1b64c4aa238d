"""Postgres: reads and updates of rows in a database of the prober's own."""

from __future__ import annotations

import random
from collections.abc import Callable

from psycopg import Connection as Session
from psycopg import sql

from cos_controllers.probes.order import Check
from cos_operator.engines.places import POSTGRES_DATABASE, POSTGRES_SCHEMA
from cos_operator.probe.base import REQUEST_SECONDS, Amounts, Target, in_parts
from cos_operator.probe.load import Connection

#: As many as pgbench has at a tenth of its smallest scale.
ROWS = 10_000
_TABLE = sql.Identifier(POSTGRES_SCHEMA, "account")
_CREATE = sql.SQL("CREATE TABLE {} (id integer PRIMARY KEY, balance integer NOT NULL, filler text)").format(
    _TABLE
)
_FILL = sql.SQL(
    "INSERT INTO {} SELECT id, 0, repeat('x', 80) FROM generate_series(%s::integer, %s::integer) AS id"
).format(_TABLE)
_ANALYZE = sql.SQL("ANALYZE {}").format(_TABLE)
_READ = sql.SQL("SELECT balance FROM {} WHERE id = %s").format(_TABLE)
_UPDATE = sql.SQL("UPDATE {} SET balance = balance + 1 WHERE id = %s").format(_TABLE)
_USED = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL),
       current_setting('max_connections')::int
"""


def _connect(target: Target) -> Session:
    return Session.connect(
        host=target.host,
        port=target.port,
        user=target.user.username,
        password=target.user.password,
        dbname=POSTGRES_DATABASE,
        connect_timeout=int(REQUEST_SECONDS),
        application_name="cos-probe",
        options=f"-c statement_timeout={int(REQUEST_SECONDS)}s",
        autocommit=True,
    )


class PostgresDriver:
    """See `base.Driver`."""

    def prepare(self, target: Target) -> None:
        """A table of 10,000 rows."""
        with _connect(target) as session:
            session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(POSTGRES_SCHEMA)))
            session.execute(_CREATE)
            for start, end in in_parts(ROWS):
                session.execute(_FILL, (start + 1, end))
            session.execute(_ANALYZE)

    def amounts(self, target: Target) -> Amounts:
        """Connections; of CPU and memory the server says nothing."""
        with _connect(target) as session:
            row = session.execute(_USED).fetchone()
        assert row  # noqa: S101 - a SELECT without FROM
        return Amounts(connections=int(row[0]), connections_limit=int(row[1]) - target.reserved)

    def connector(self, target: Target, check: Check) -> Callable[[], Connection]:  # noqa: ARG002 - there is one
        """Reads and updates in turn."""
        return lambda: _Mixed(target)


class _Mixed:
    """A row is read, another one updated, in turn."""

    def __init__(self, target: Target) -> None:
        self._session = _connect(target)
        self._dice = random.Random(0)  # noqa: S311 - not a secret

    def request(self, number: int) -> None:
        row = self._dice.randint(1, ROWS)
        if number % 2:
            self._session.execute(_READ, (row,)).fetchone()
        else:
            self._session.execute(_UPDATE, (row,))

    def close(self) -> None:
        self._session.close()
