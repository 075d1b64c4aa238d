"""Postgres: a query as the application; all else by SQL as the administrator, over the reserved connections."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any, NamedTuple

from psycopg import AsyncConnection, Error, errors, sql

from cos_controllers.components.postgres.config import MARKER
from cos_controllers.credentials import Login
from cos_controllers.observation import CheckResult, CheckTarget, Facts, Outcome, Usage
from cos_operator.engines.base import (
    CHECK_SECONDS,
    NOT_WRITTEN,
    PROVISION_SECONDS,
    EngineError,
    is_nearly_full,
)
from cos_operator.engines.places import POSTGRES_DATABASE, POSTGRES_SCHEMA

#: Database that the administrator connects to; it exists on every server.
_MAINTENANCE = "postgres"

#: Database of the one row that is written, read back and deleted: the operator makes it when it needs it, so that a
#: server of before has it too.
GATE_DATABASE = "cos_gate"
_GATE = (
    # Not in `public`: that belongs to pg_database_owner, of which a session over a reserved connection is no member.
    # (The server looks at its roles before it knows the database, and keeps what it found.)
    "CREATE SCHEMA IF NOT EXISTS cos",
    "CREATE TABLE IF NOT EXISTS cos.gate (id integer PRIMARY KEY, nonce text NOT NULL)",
    "INSERT INTO cos.gate VALUES (1, %s) ON CONFLICT (id) DO UPDATE SET nonce = excluded.nonce",
    "SELECT nonce FROM cos.gate WHERE id = 1",
    "DELETE FROM cos.gate",
)
#: SQLSTATE classes that tell of the gate's own place, and not of the server: no such database or schema, no such table
#: or no right to it.
_OWN = ("3D", "3F", "42")

#: What the server says of itself: the marker of its configuration; connections of others (seen only by members of
#: pg_monitor, which `accounts_sql` makes the operator at the next start of a server of before), of how many.
_STATE = """
SELECT current_setting(%(marker)s, true) AS marker,
       pg_has_role('pg_monitor', 'USAGE') AS sees_all,
       (SELECT count(*) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM current_user) AS connections,
       current_setting('max_connections')::int - current_setting('reserved_connections')::int
         - current_setting('superuser_reserved_connections')::int AS most,
       pg_is_in_recovery() AS recovers
"""
#: What is wrong by the server's own account. Of transaction ids it gives out no more at 2^31 less 3 million; at 1e9,
#: five times autovacuum's default, nothing freezes them any more.
_TROUBLES = """
SELECT 'database ' || datname || ' holds rows of more than 1,000,000,000 transactions ago: vacuum it'
  FROM pg_database WHERE age(datfrozenxid) > 1000000000
UNION ALL
SELECT 'a page of ' || coalesce('database ' || datname, 'the shared catalogs')
       || ' failed its checksum within the last week: the disk returns other data than was written'
  FROM pg_stat_database WHERE checksum_last_failure > now() - interval '7 days'
UNION ALL
SELECT 'replication slot ' || slot_name || ' keeps more of the log than max_wal_size, and nobody reads it'
  FROM pg_replication_slots WHERE NOT active AND wal_status IN ('extended', 'unreserved')
ORDER BY 1
"""
#: The oldest part of the log that waits to be sent, if it has for so many seconds: within them it may be tried again
#: and again. None while the log is kept nowhere else.
_ARCHIVE = """
SELECT current_setting('archive_mode') = 'on',
       (SELECT extract(epoch FROM now() - min(modification))::bigint
          FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
       (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
       (SELECT last_failed_wal FROM pg_stat_archiver
         WHERE last_failed_time > coalesce(last_archived_time, '-infinity'))
"""
_ARCHIVE_SECONDS = 300
#: Bytes of every database and of the log. Looks at each file: slow with very many tables.
_SIZE = """
SELECT (SELECT coalesce(sum(pg_database_size(oid)), 0) FROM pg_database)::bigint
       + (SELECT coalesce(sum(size), 0) FROM pg_ls_waldir())::bigint
"""
_SIZE_SECONDS = 3

# The library gives no SQLSTATE for a connection that the server refuses, only the server's text (in English:
# the operator owns `lc_messages`).
_REFUSED = (
    "password authentication failed",  # also what a role that does not exist gets
    "is not permitted to log in",
    "no pg_hba.conf entry",
    "permission denied for database",
)
_FULL = ("too many clients already", "connection slots are reserved", "too many connections for")


async def _connect(target: CheckTarget, login: Login, database: str) -> AsyncConnection:
    """A connection to where the target says, whatever PG* variables are set; the caller bounds the time."""
    return await AsyncConnection.connect(
        host=target.host,
        hostaddr=target.host,
        port=target.port,
        user=login.username,
        password=login.password,
        dbname=database,
        sslmode="disable",
        gssencmode="disable",
        application_name="cos-operator",
        options="-c statement_timeout=10s -c lock_timeout=5s",
        target_session_attrs="any",
        autocommit=True,
    )


def _sentence(error: BaseException) -> str:
    """The error in one line. Statements, which may hold a password's verifier, are not part of it."""
    if isinstance(error, Error) and error.diag.message_primary:
        return error.diag.message_primary
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.rpartition("FATAL:  ")[2]


def _judge(error: Error) -> CheckResult:
    text = _sentence(error)
    if any(part in text for part in _REFUSED) or ("database" in text and "does not exist" in text):
        return CheckResult(Outcome.CREDENTIALS_REFUSED, text)
    if any(part in text for part in _FULL):
        return CheckResult(Outcome.SERVING, text)
    return CheckResult(Outcome.NOT_ANSWERING, text)


class _State(NamedTuple):
    """A row of `_STATE`."""

    marker: str | None
    sees_all: bool
    connections: int
    most: int
    recovers: bool


class PostgresClient:
    """See `base.EngineClient`."""

    async def check(self, target: CheckTarget) -> CheckResult:
        """Ask whether transactions may write. With all connections taken it serves those that hold them."""
        assert target.credentials  # noqa: S101 - Postgres has accounts
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                connection = await _connect(target, target.credentials.app, target.database)
                async with connection:
                    cursor = await connection.execute("SHOW transaction_read_only")
                    row = await cursor.fetchone()
        except TimeoutError:
            return CheckResult(Outcome.NOT_ANSWERING, f"no answer within {CHECK_SECONDS:g} s")
        except Error as error:
            return _judge(error)
        except OSError as error:
            return CheckResult(Outcome.NOT_ANSWERING, _sentence(error))
        if row != ("off",):
            return CheckResult(Outcome.READ_ONLY, "transactions are read-only")
        return CheckResult(Outcome.SERVING)

    async def examine(self, target: CheckTarget) -> Facts:
        """What the server says of itself, and a row in a database of the operator's own."""
        assert target.credentials  # noqa: S101 - Postgres has accounts
        admin = target.credentials.admin
        try:
            connection = await _connect(target, admin, _MAINTENANCE)
            async with connection:
                state = await _state(connection)
                found = [str(text) for (text,) in await _rows(connection, _TROUBLES)]
                storage = await _storage(connection, target.expected.capacity) if state.sees_all else None
                archive = await _archive(connection) if state.sees_all else None
                full = is_nearly_full(storage)
                if storage and not full:
                    await _ensure_gate(connection)
            if archive:
                # Each write would be another part of the log that the volume has to keep.
                serving, unknown = None, f"nothing was written: {archive}"
            else:
                serving, unknown = (None, NOT_WRITTEN) if full else await _written(target, admin)
        except (Error, OSError) as error:
            return Facts(unknown=f"not examined: {_sentence(error)}")
        if not state.sees_all:
            unknown = unknown or "the operator gets the right to know with the pod's next restart"
        return Facts(
            serving=serving,
            troubles=(
                *(["the server replays its log and takes no writes"] if state.recovers else []),
                *found,
            ),
            configuration={MARKER: state.marker or "not set"},
            connections=Usage(state.connections, state.most) if state.sees_all else None,
            storage=storage,
            archive=archive,
            unknown=unknown,
        )

    async def provision(self, target: CheckTarget) -> None:
        """Make the application's role and database, and set the role's password."""
        assert target.credentials  # noqa: S101 - Postgres has accounts
        app = target.credentials.app
        try:
            async with asyncio.timeout(PROVISION_SECONDS):
                connection = await _connect(target, target.credentials.admin, _MAINTENANCE)
                async with connection:
                    await _ensure_role(connection, app)
                    await _ensure_database(connection, app.username, target.database)
        except TimeoutError:
            raise EngineError(f"no answer within {PROVISION_SECONDS:g} s") from None
        except (Error, OSError) as error:
            raise EngineError(f"the account of {app.username} cannot be made: {_sentence(error)}") from error

    async def admit_backup(self, target: CheckTarget) -> None:
        """Log in as the backup user, and ask whether the server keeps its log: both come with the restart for it."""
        assert target.credentials  # noqa: S101 - Postgres has accounts
        if target.credentials.backup is None:
            raise EngineError("there is no backup user: its log is kept nowhere else")
        try:
            async with asyncio.timeout(PROVISION_SECONDS):
                connection = await _connect(target, target.credentials.backup, _MAINTENANCE)
                async with connection:
                    found = await _rows(connection, "SHOW archive_mode")
        except TimeoutError:
            raise EngineError(f"no answer within {PROVISION_SECONDS:g} s") from None
        except (Error, OSError) as error:
            raise EngineError(f"the backup user could not log in: {_sentence(error)}") from error
        if found != [("on",)]:
            raise EngineError("it does not keep its log elsewhere yet: it restarts for that")

    async def tidy(self, target: CheckTarget) -> None:
        """The schema, in a database that is made once and kept: to drop one forces a checkpoint."""
        assert target.credentials  # noqa: S101 - Postgres has accounts
        admin, owner = target.credentials.admin, target.credentials.app.username
        try:
            connection = await _connect(target, admin, _MAINTENANCE)
            async with connection:
                await _ensure_database(connection, owner, POSTGRES_DATABASE)
            connection = await _connect(target, admin, POSTGRES_DATABASE)
            async with connection:
                await connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))
                drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE")
                await connection.execute(drop.format(sql.Identifier(POSTGRES_SCHEMA)))
        except (Error, OSError) as error:
            raise EngineError(f"database {POSTGRES_DATABASE} was not cleared: {_sentence(error)}") from error


async def _rows(connection: AsyncConnection, query: str, values: Any = None) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(query, values)
    return await cursor.fetchall()


async def _state(connection: AsyncConnection) -> _State:
    (row,) = await _rows(connection, _STATE, {"marker": MARKER})
    return _State(*row)


async def _archive(connection: AsyncConnection) -> str | None:
    """Whether the log reaches its repository in time; None if it is not to."""
    ((kept, seconds, count, failed),) = await _rows(connection, _ARCHIVE)
    if not kept:
        return None
    if not seconds or seconds < _ARCHIVE_SECONDS:
        return ""
    why = f"; {failed} was tried last: its own log says why it failed" if failed else ""
    return f"its log has not reached its repository for {seconds // 60} min: {count} files wait{why}"


async def _storage(connection: AsyncConnection, capacity: int | None) -> Usage | None:
    """What databases and log take of the volume; None if the server needs too long to say, or may not."""
    if capacity is None:
        return None
    try:
        await connection.execute(f"SET statement_timeout = '{_SIZE_SECONDS}s'")
        ((size,),) = await _rows(connection, _SIZE)
    except (errors.QueryCanceled, errors.InsufficientPrivilege):
        return None
    return Usage(int(size), capacity)


async def _ensure_gate(connection: AsyncConnection) -> None:
    """The gate's database, closed to others. What keeps it from being made is told by the write that misses it.

    It is made only where it is known that there is room: it takes several MB, and as much of the log.
    """
    name = sql.Identifier(GATE_DATABASE)
    with contextlib.suppress(Error):
        await connection.execute("SET statement_timeout = '10s'")
        if not await _exists(connection, "SELECT FROM pg_database WHERE datname = %s", GATE_DATABASE):
            await connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
        untouched = "SELECT FROM pg_database WHERE datname = %s AND datacl IS NULL"
        if await _exists(connection, untouched, GATE_DATABASE):
            await connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))


async def _written(target: CheckTarget, admin: Login) -> tuple[str | None, str]:
    """Write, read back and delete: "" or what the server said; None, and why, if that says nothing of applications."""
    nonce = secrets.token_hex(8)
    schema, table, write, read, delete = _GATE
    try:
        connection = await _connect(target, admin, GATE_DATABASE)
        async with connection:
            # A failure to keep what was acknowledged is one to serve, whatever the application's own setting.
            await connection.execute("SET synchronous_commit = on")
            await connection.execute(schema)
            await connection.execute(table)
            await connection.execute(write, (nonce,))
            found = await _rows(connection, read)
            await connection.execute(delete)
    except Error as error:
        if error.sqlstate is None or error.sqlstate.startswith(_OWN):
            return None, f"not written to database {GATE_DATABASE}: {_sentence(error)}"
        return _sentence(error), ""
    return ("" if found == [(nonce,)] else "what was written is not what was read back"), ""


async def _ensure_role(connection: AsyncConnection, app: Login) -> None:
    """The role with its password, which leaves this process only as a SCRAM verifier."""
    verifier = connection.pgconn.encrypt_password(
        app.password.encode(), app.username.encode(), b"scram-sha-256"
    ).decode()
    role = sql.Identifier(app.username)
    if not await _exists(connection, "SELECT FROM pg_roles WHERE rolname = %s", app.username):
        await connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    statement = "ALTER ROLE {} LOGIN NOCREATEDB NOCREATEROLE PASSWORD {}"
    await connection.execute(sql.SQL(statement).format(role, sql.Literal(verifier)))
    # To own a database in the role's name takes the right to act as the role.
    await connection.execute(sql.SQL("GRANT {} TO CURRENT_USER WITH SET TRUE, INHERIT FALSE").format(role))


async def _ensure_database(connection: AsyncConnection, owner: str, database: str) -> None:
    """The database, owned by the application and closed to other roles (while nobody has granted anything)."""
    name, role = sql.Identifier(database), sql.Identifier(owner)
    if not await _exists(connection, "SELECT FROM pg_database WHERE datname = %s", database):
        create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(name, role)
        with contextlib.suppress(errors.DuplicateDatabase):
            await connection.execute(create)
    untouched = "SELECT FROM pg_database WHERE datname = %s AND datacl IS NULL"
    if await _exists(connection, untouched, database):
        await connection.execute(sql.SQL("SET ROLE {}").format(role))
        await connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        await connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO SESSION_USER").format(name))
        await connection.execute("RESET ROLE")


async def _exists(connection: AsyncConnection, query: str, value: str) -> bool:
    cursor = await connection.execute(query, (value,))
    return await cursor.fetchone() is not None
