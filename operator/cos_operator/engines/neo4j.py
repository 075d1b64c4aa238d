"""Neo4j: a write as the application, rolled back; another that is read back; CREATE USER as the administrator."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, LiteralString

from neo4j import AsyncDriver, AsyncGraphDatabase, AsyncSession, NotificationMinimumSeverity, Query
from neo4j.exceptions import AuthError, DriverError, Neo4jError

from cos_controllers.credentials import Login
from cos_controllers.observation import CheckResult, CheckTarget, Facts, Outcome
from cos_operator.engines.base import (
    CHECK_SECONDS,
    EXAMINE_SECONDS,
    PROVISION_SECONDS,
    TIDY_SECONDS,
    EngineError,
)
from cos_operator.engines.places import NEO4J_INDEX, NEO4J_LABEL

#: A node without a label: rolled back, it leaves nothing, not even the name of a label.
WRITE = "CREATE ()"
USER = "CREATE OR REPLACE USER $name SET PASSWORD $password CHANGE NOT REQUIRED"

#: A node that is written and read back in one transaction, which is rolled back. Community does not know how much room
#: its disk has, and refuses every transaction after a commit that failed, until a restart: it must not be the gate's.
GATE_WRITE = "CREATE (gate) RETURN elementId(gate)"
GATE_READ = "MATCH (gate) WHERE elementId(gate) = $id RETURN count(gate)"

#: What probes leave.
CLEAR: LiteralString = f"MATCH (n:{NEO4J_LABEL}) CALL (n) {{ DETACH DELETE n }} IN TRANSACTIONS OF 1000 ROWS"
DROP: LiteralString = f"DROP INDEX {NEO4J_INDEX} IF EXISTS"

DATABASES = "SHOW DATABASES YIELD name, currentStatus"
OPTIONS = "SHOW SETTINGS 'server.jvm.additional' YIELD value"

SECURITY = "Neo.ClientError.Security."
NO_DATABASE = "Neo.ClientError.Database.DatabaseNotFound"
READ_ONLY = (
    "Neo.ClientError.General.WriteOnReadOnlyAccessDatabase",
    "Neo.ClientError.General.ForbiddenOnReadOnlyDatabase",
)
#: All of Bolt's worker threads are at work: the server serves the clients that it has.
SATURATED = "Neo.TransientError.Request.NoThreadsAvailable"


def _driver(target: CheckTarget, login: Login, seconds: float) -> AsyncDriver:
    """A driver of one connection to the address given: ``bolt`` asks for no routing table."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    return AsyncGraphDatabase.driver(
        f"bolt://{host}:{target.port}",
        auth=(login.username, login.password),
        connection_timeout=seconds,
        connection_acquisition_timeout=seconds,
        max_connection_pool_size=1,
        notifications_min_severity=NotificationMinimumSeverity.OFF,
        telemetry_disabled=True,
    )


def _said(error: DriverError | OSError, seconds: float) -> str:
    """One line; a time limit that passed says nothing itself."""
    return " ".join(str(error).split()) or f"no answer within {seconds:g} s"


def judge(error: Neo4jError) -> CheckResult:
    """The outcome of an error that the server answered with, by Neo4j's status codes."""
    code = error.code or ""
    if isinstance(error, AuthError) or code.startswith(SECURITY) or code == NO_DATABASE:
        outcome = Outcome.CREDENTIALS_REFUSED
    elif code in READ_ONLY:
        outcome = Outcome.READ_ONLY
    else:
        outcome = Outcome.SERVING if code == SATURATED else Outcome.NOT_ANSWERING
    return CheckResult(outcome, error.message or code)


def troubles(databases: Mapping[str, str]) -> tuple[str, ...]:
    """What is wrong by the status of each database."""
    return tuple(
        f"database {name} is {status}" for name, status in sorted(databases.items()) if status != "online"
    )


def properties(options: str) -> dict[str, str]:
    """The system properties among the options of the JVM."""
    return dict(re.findall(r"-D([^=\s]+)=(\S*)", options))


async def _rows(session: AsyncSession, text: LiteralString) -> list[list[Any]]:
    result = await session.run(Query(text, timeout=CHECK_SECONDS))
    return await result.values()


async def _written(session: AsyncSession) -> str:
    """Write, read back and roll back; "" or what the server said."""
    try:
        async with await session.begin_transaction(timeout=CHECK_SECONDS) as transaction:
            ((identifier,),) = await (await transaction.run(GATE_WRITE)).values()
            found = await (await transaction.run(GATE_READ, {"id": identifier})).values()
            await transaction.rollback()
    except Neo4jError as error:
        return error.message or error.code or "an error without a message"
    return "" if found == [[1]] else "what was written is not what was read back"


class Neo4jClient:
    """See `base.EngineClient`."""

    async def check(self, target: CheckTarget) -> CheckResult:
        """A write that is rolled back: the truth about transactions, which the reported state is not.

        After a failed write (a full disk) a database refuses every transaction until a restart, and reports
        itself online and read-write.
        """
        assert target.credentials  # noqa: S101 - Neo4j has accounts
        try:
            async with (
                asyncio.timeout(CHECK_SECONDS),
                _driver(target, target.credentials.app, CHECK_SECONDS) as driver,
                driver.session(database=target.database) as session,
                await session.begin_transaction(timeout=CHECK_SECONDS) as transaction,
            ):
                await (await transaction.run(WRITE)).consume()
                await transaction.rollback()
        except Neo4jError as error:
            return judge(error)
        except (DriverError, OSError) as error:
            return CheckResult(Outcome.NOT_ANSWERING, _said(error, CHECK_SECONDS))
        return CheckResult(Outcome.SERVING)

    async def examine(self, target: CheckTarget) -> Facts:
        """The state of every database, the options of the JVM, and a write that is read back and rolled back.

        Community knows neither how much room its disk has nor a limit of connections.
        """
        assert target.credentials  # noqa: S101 - Neo4j has accounts
        try:
            async with (
                _driver(target, target.credentials.admin, EXAMINE_SECONDS / 4) as driver,
                driver.session(database="system") as session,
            ):
                databases = await _rows(session, DATABASES)
                options = await _rows(session, OPTIONS)
            async with (
                _driver(target, target.credentials.app, EXAMINE_SECONDS / 4) as driver,
                driver.session(database=target.database) as session,
            ):
                serving = await _written(session)
        except Neo4jError as error:
            return Facts(unknown=f"not examined: {error.message or error.code}")
        except (DriverError, OSError) as error:
            return Facts(unknown=f"not examined: {_said(error, EXAMINE_SECONDS / 4)}")
        return Facts(
            serving=serving,
            troubles=troubles({str(name): str(status) for name, status in databases}),
            configuration=properties("\n".join(str(value) for (value,) in options)),
        )

    async def provision(self, target: CheckTarget) -> None:
        """Make the application's user and the probe's anew, with the passwords wanted."""
        assert target.credentials  # noqa: S101 - Neo4j has accounts
        try:
            async with (
                asyncio.timeout(PROVISION_SECONDS),
                _driver(target, target.credentials.admin, PROVISION_SECONDS) as driver,
                driver.session(database="system") as session,
            ):
                for login in (target.credentials.app, target.credentials.probe):
                    values = {"name": login.username, "password": login.password}
                    await (await session.run(Query(USER, timeout=PROVISION_SECONDS), values)).consume()
        except Neo4jError as error:
            raise EngineError(f"CREATE USER failed: {error.message}") from error
        except (DriverError, OSError) as error:
            raise EngineError(f"CREATE USER failed: {_said(error, PROVISION_SECONDS)}") from error

    async def tidy(self, target: CheckTarget) -> None:
        """The nodes, in transactions of a thousand, and their index."""
        assert target.credentials  # noqa: S101 - Neo4j has accounts
        try:
            async with (
                _driver(target, target.credentials.app, TIDY_SECONDS) as driver,
                driver.session(database=target.database) as session,
            ):
                for statement in (CLEAR, DROP):
                    await (await session.run(Query(statement, timeout=TIDY_SECONDS))).consume()
        except Neo4jError as error:
            raise EngineError(f"nodes {NEO4J_LABEL} were not deleted: {error.message}") from error
        except (DriverError, OSError) as error:
            raise EngineError(
                f"nodes {NEO4J_LABEL} were not deleted: {_said(error, TIDY_SECONDS)}"
            ) from error
