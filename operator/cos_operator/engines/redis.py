"""Redis: PING and its role as the application; INFO, CONFIG GET, a key of its own and ACL LOAD as the administrator."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Mapping
from typing import Any, cast

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cos_controllers.components.redis.config import RESERVED_CLIENTS
from cos_controllers.credentials import Login
from cos_controllers.observation import CheckResult, CheckTarget, Facts, Outcome, Usage
from cos_operator.engines.base import (
    CHECK_SECONDS,
    EXAMINE_SECONDS,
    NOT_WRITTEN,
    PROVISION_SECONDS,
    TIDY_SECONDS,
    EngineError,
    is_nearly_full,
)
from cos_operator.engines.places import REDIS_KEYS, redis_key

#: The key that is written, read back and deleted. Whatever happens it is gone after a minute.
GATE_KEY = "cos:gate"
_GATE_KEY_SECONDS = 60

#: Of a server that was made a replica (`REPLICAOF`) behind the operator's back.
FOLLOWS = "it follows another server and takes no writes: REPLICAOF NO ONE, by the administrator, ends that"

_FULL = "max number of clients reached"


def _client(target: CheckTarget, login: Login, seconds: float) -> Redis:
    return Redis(
        host=target.host,
        port=target.port,
        username=login.username,
        password=login.password,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        single_connection_client=True,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
    )


def _is_full(error: exceptions.RedisError | OSError) -> bool:
    """Whether every connection is taken."""
    return isinstance(error, exceptions.MaxConnectionsError) or _FULL in str(error)


def judge(error: exceptions.RedisError | OSError) -> CheckResult:
    """The outcome of an error that the server answered with, or of none."""
    text = str(error)
    outcome = Outcome.NOT_ANSWERING
    if isinstance(error, exceptions.AuthenticationError):
        outcome = Outcome.CREDENTIALS_REFUSED
    elif _is_full(error):
        outcome = Outcome.SERVING
    elif isinstance(error, exceptions.ResponseError) and text.startswith("MISCONF"):
        outcome = Outcome.READ_ONLY
    return CheckResult(outcome, text)


class RedisClient:
    """See `base.EngineClient`."""

    async def check(self, target: CheckTarget) -> CheckResult:
        """PING, and the role. At its client limit Redis still serves the clients it has, and counts as serving."""
        assert target.credentials  # noqa: S101 - Redis has accounts
        try:
            async with _client(target, target.credentials.app, CHECK_SECONDS / 2) as client:
                await cast("Awaitable[bool]", client.ping())
                role = (await client.info("replication")).get("role")
        except (exceptions.RedisError, OSError) as error:
            return judge(error)
        if role != "master":
            return CheckResult(Outcome.READ_ONLY, FOLLOWS)
        return CheckResult(Outcome.SERVING)

    async def examine(self, target: CheckTarget) -> Facts:
        """INFO and CONFIG GET, then the key; with all connections taken, the operator's too, that alone is known."""
        assert target.credentials  # noqa: S101 - Redis has accounts
        try:
            async with _client(target, target.credentials.admin, EXAMINE_SECONDS / 4) as client:
                info = await client.info()
                found = await _configuration(client, target.expected.configuration)
                storage = storage_of(info, found or {}, target.expected.capacity)
                wrong, serving, unknown = troubles(info), None, ""
                if is_nearly_full(storage):
                    unknown = NOT_WRITTEN
                elif wrong:
                    # What cannot keep what it takes is not given more; that it cannot is told already.
                    unknown = "nothing was written: it is not in health"
                else:
                    serving = await _written(client)
                return Facts(
                    serving=serving,
                    troubles=wrong,
                    configuration=found,
                    connections=connections(info, found or target.expected.configuration),
                    storage=storage,
                    unknown=unknown,
                )
        except (exceptions.RedisError, OSError) as error:
            if _is_full(error):
                most = int(target.expected.configuration.get("maxclients", RESERVED_CLIENTS + 1))
                limit = most - RESERVED_CLIENTS
                return Facts(connections=Usage(most, limit), unknown="every connection is taken")
            return Facts(unknown=f"not examined: {error}")

    async def provision(self, target: CheckTarget) -> None:
        """Let the server read its mounted ACL file again; a bad file is refused and the old rules stay."""
        assert target.credentials  # noqa: S101 - Redis has accounts
        try:
            async with _client(target, target.credentials.admin, PROVISION_SECONDS / 4) as client:
                await client.acl_load()
        except (exceptions.RedisError, OSError) as error:
            raise EngineError(f"ACL LOAD failed: {error}") from error

    async def admit_backup(self, target: CheckTarget) -> None:
        """Log in as the backup user; one that is not known yet is, once the server has read its ACL file again."""
        assert target.credentials  # noqa: S101 - Redis has accounts
        if target.credentials.backup is None:
            raise EngineError("there is no backup user: the stack has no spec.backup")
        try:
            if await _is_known(target, target.credentials.backup):
                return
            await self.provision(target)
            if await _is_known(target, target.credentials.backup):
                return
        except (exceptions.RedisError, OSError) as error:
            raise EngineError(f"the backup user could not be tried: {error}") from error
        raise EngineError("the backup user is not in the mounted ACL file yet")

    async def tidy(self, target: CheckTarget) -> None:
        """The keys, whose names are known."""
        assert target.credentials  # noqa: S101 - Redis has accounts
        try:
            async with _client(target, target.credentials.admin, TIDY_SECONDS / 4) as client:
                await client.unlink(*map(redis_key, range(REDIS_KEYS)))
        except (exceptions.RedisError, OSError) as error:
            raise EngineError(f"UNLINK failed: {error}") from error


async def _is_known(target: CheckTarget, login: Login) -> bool:
    """Whether a user can log in who may do nothing that could be asked instead."""
    try:
        async with _client(target, login, PROVISION_SECONDS / 4):
            return True  # it has connected and logged in
    except exceptions.AuthenticationError:
        return False


async def _configuration(client: Redis, expected: Mapping[str, str]) -> dict[str, str] | None:
    try:
        found = await client.config_get(*expected, "save")
    except exceptions.ResponseError:
        return None
    return {str(name): str(value) for name, value in found.items()}


async def _written(client: Redis) -> str:
    """Write, read back and delete; "" or what the server said."""
    nonce = secrets.token_hex(8)
    try:
        await client.set(GATE_KEY, nonce, ex=_GATE_KEY_SECONDS)
        found = await client.get(GATE_KEY)
        await client.delete(GATE_KEY)
    except exceptions.ResponseError as error:
        return str(error)
    return "" if found == nonce else "what was written is not what was read back"


def troubles(info: Mapping[str, Any]) -> tuple[str, ...]:
    """What is wrong by ``INFO``."""
    found = []
    if info.get("role") != "master":
        found.append(FOLLOWS)
    for name, what in (
        ("aof_last_write_status", "the last write to the append-only file failed"),
        ("aof_last_bgrewrite_status", "the last rewrite of the append-only file failed"),
        ("rdb_last_bgsave_status", "the last snapshot failed"),
    ):
        if info.get(name, "ok") != "ok":
            found.append(what)
    return tuple(found)


def connections(info: Mapping[str, Any], configuration: Mapping[str, str]) -> Usage | None:
    """Those of others, against what the server takes less the reserve."""
    if "connected_clients" not in info or "maxclients" not in configuration:
        return None
    limit = int(configuration["maxclients"]) - RESERVED_CLIENTS
    return Usage(max(int(info["connected_clients"]) - 1, 0), limit)


def storage_of(
    info: Mapping[str, Any], configuration: Mapping[str, str], capacity: int | None
) -> Usage | None:
    """Bytes of the append-only file, and those that a rewrite needs beside it: about as many as the last one made.

    With save points as many again for the snapshot, and for the next one while it is made.
    """
    if capacity is None or "aof_current_size" not in info:
        return None
    copies = 3 if configuration.get("save") else 1
    return Usage(int(info["aof_current_size"]) + copies * int(info.get("aof_base_size", 0)), capacity)
