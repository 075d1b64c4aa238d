"""Postgres: a query as the application; role and database by SQL as the administrator."""

from __future__ import annotations

import asyncio
import contextlib

from psycopg import AsyncConnection, Error, errors, sql

from cos_controllers.credentials import Login
from cos_controllers.observation import CheckResult, CheckTarget, Outcome
from cos_operator.engines.base import CHECK_SECONDS, PROVISION_SECONDS, EngineError

#: Database that the administrator connects to; it exists on every server.
_MAINTENANCE = "postgres"

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
