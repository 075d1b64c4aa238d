"""Postgres' client against a server that speaks the start of its protocol (version 3) on a real socket."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest

from cos_controllers.credentials import Credentials, Login
from cos_controllers.observation import CheckTarget, Outcome
from cos_operator.engines import postgres
from cos_operator.engines.base import EngineError
from cos_operator.engines.postgres import PostgresClient

CREDENTIALS = Credentials(
    admin=Login("cos_admin", "admin-secret"), app=Login("app", "app-secret"), probe=Login("cos_probe", "x")
)
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def error(code: str, text: str, severity: str = "FATAL") -> bytes:
    fields = {"S": severity, "V": severity, "C": code, "M": text}
    return message(b"E", b"".join(k.encode() + v.encode() + b"\0" for k, v in fields.items()) + b"\0")


READY = message(b"Z", b"I")
WELCOME = message(b"R", struct.pack("!i", 0)) + READY


def row(value: str) -> bytes:
    described = struct.pack("!h", 1) + b"v\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
    data = struct.pack("!hi", 1, len(value)) + value.encode()
    return message(b"T", described) + message(b"D", data) + message(b"C", b"SHOW\0") + READY


def refuse(code: str, text: str) -> Behaviour:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(error(code, text))

    return behave


def answer(reply: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WELCOME)
        while header := await reader.read(5):
            kind, length = struct.unpack("!ci", header)
            await reader.readexactly(length - 4)
            if kind != b"Q":
                return
            writer.write(reply)

    return behave


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


@asynccontextmanager
async def serving(behave: Behaviour) -> AsyncIterator[CheckTarget]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (length,) = struct.unpack("!i", await reader.readexactly(4))
            start = await reader.readexactly(length - 4)
            assert start.startswith(struct.pack("!i", 3 << 16)), "neither TLS nor GSS is asked for"
            await behave(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield CheckTarget("postgres-prod", "postgres", "127.0.0.1", port, CREDENTIALS, "app")
    finally:
        server.close()


@pytest.mark.parametrize(
    ("behave", "outcome"),
    [
        (refuse("28P01", 'password authentication failed for user "app"'), Outcome.CREDENTIALS_REFUSED),
        (refuse("28000", 'role "app" is not permitted to log in'), Outcome.CREDENTIALS_REFUSED),
        (refuse("3D000", 'database "app" does not exist'), Outcome.CREDENTIALS_REFUSED),
        (refuse("42501", 'permission denied for database "app"'), Outcome.CREDENTIALS_REFUSED),
        (refuse("53300", "sorry, too many clients already"), Outcome.SERVING),
        (refuse("53300", "remaining connection slots are reserved for roles with …"), Outcome.SERVING),
        (refuse("53300", 'too many connections for role "app"'), Outcome.SERVING),
        (refuse("57P03", "the database system is starting up"), Outcome.NOT_ANSWERING),
        (refuse("57P03", "the database system is shutting down"), Outcome.NOT_ANSWERING),
        (answer(row("off")), Outcome.SERVING),
        (answer(row("on")), Outcome.READ_ONLY),
        (answer(error("57014", "canceling statement", "ERROR") + READY), Outcome.NOT_ANSWERING),
    ],
)
async def test_an_answer_has_an_outcome(behave: Behaviour, outcome: Outcome) -> None:
    async with serving(behave) as target:
        result = await PostgresClient().check(target)
    assert result.outcome is outcome, result
    assert "secret" not in result.message
    assert not result.message.startswith("connection failed"), "the server's own words"


async def test_a_hang_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(postgres, "PROVISION_SECONDS", 0.3)
    async with serving(hang) as target:
        start = time.monotonic()
        result = await PostgresClient().check(target)
        with pytest.raises(EngineError, match=r"no answer within 0.3 s"):
            await PostgresClient().provision(target)
        assert time.monotonic() - start < 2
    assert (result.outcome, result.message) == (Outcome.NOT_ANSWERING, "no answer within 0.3 s")


async def test_what_is_not_postgres_is_no_answer() -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(speak) as target:
        assert (await PostgresClient().check(target)).outcome is Outcome.NOT_ANSWERING


async def test_a_closed_port_is_no_answer() -> None:
    async with serving(hang) as target:
        pass
    result = await PostgresClient().check(target)
    assert result.outcome is Outcome.NOT_ANSWERING
    assert result.message


async def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGHOSTADDR": "192.0.2.1", "PGSSLMODE": "require", "PGPORT": "1"}.items():
        monkeypatch.setenv(name, value)
    async with serving(answer(row("off"))) as target:
        assert (await PostgresClient().check(target)).outcome is Outcome.SERVING


async def test_a_refused_administrator_is_named() -> None:
    async with serving(refuse("28P01", 'password authentication failed for user "cos_admin"')) as target:
        with pytest.raises(EngineError, match=r'account of app .* failed for user "cos_admin"') as caught:
            await PostgresClient().provision(target)
    assert "secret" not in str(caught.value)


WITH_BACKUP = replace(CREDENTIALS, backup=Login("cos_backup", "backup-secret"))


@pytest.mark.parametrize(
    ("behave", "says"),
    [
        (answer(row("on")), ""),
        (answer(row("off")), "it restarts for that"),
        (refuse("28P01", "password authentication failed for user"), "the backup user could not log in"),
    ],
)
async def test_copies_are_made_of_a_server_that_keeps_its_log(behave: Behaviour, says: str) -> None:
    async with serving(behave) as target:
        known = replace(target, credentials=WITH_BACKUP)
        if not says:
            await PostgresClient().admit_backup(known)
            return
        with pytest.raises(EngineError, match=says) as told:
            await PostgresClient().admit_backup(known)
    assert "backup-secret" not in str(told.value)


async def test_without_an_archive_there_is_no_backup_user() -> None:
    async with serving(hang) as target:
        with pytest.raises(EngineError, match="kept nowhere else"):
            await PostgresClient().admit_backup(target)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ((False, 900, 4, None), None),
        ((True, None, 0, None), ""),
        ((True, 299, 3, "00000001000000000000000A"), ""),
        ((True, 300, 3, None), "its log has not reached its repository for 5 min: 3 files wait"),
        (
            (True, 700, 9, "0A"),
            "its log has not reached its repository for 11 min: 9 files wait; 0A was tried last",
        ),
    ],
)
async def test_a_log_that_is_kept_back_is_told_after_five_minutes(
    found: tuple[object, ...], says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rows(*_: object) -> list[tuple[object, ...]]:
        return [found]

    monkeypatch.setattr(postgres, "_rows", rows)
    told = await postgres._archive(cast("postgres.AsyncConnection", None))
    assert told == says if not says else (told or "").startswith(says)
