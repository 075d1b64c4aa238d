"""Redis: PING as the application; ACL LOAD as the administrator."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cos_controllers.credentials import Login
from cos_controllers.observation import CheckResult, CheckTarget, Outcome
from cos_operator.engines.base import CHECK_SECONDS, PROVISION_SECONDS, EngineError


def _client(target: CheckTarget, login: Login, seconds: float) -> Redis:
    return Redis(
        host=target.host,
        port=target.port,
        username=login.username,
        password=login.password,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        single_connection_client=True,
        retry=Retry(NoBackoff(), 0),
    )


class RedisClient:
    """See `base.EngineClient`."""

    async def check(self, target: CheckTarget) -> CheckResult:
        """PING. At its client limit Redis still serves the clients it has, and counts as serving."""
        assert target.credentials  # noqa: S101 - Redis has accounts
        try:
            async with _client(target, target.credentials.app, CHECK_SECONDS / 2) as client:
                await cast("Awaitable[bool]", client.ping())
        except exceptions.AuthenticationError as error:
            return CheckResult(Outcome.CREDENTIALS_REFUSED, str(error))
        except exceptions.MaxConnectionsError as error:
            return CheckResult(Outcome.SERVING, str(error))
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            if "max number of clients reached" in str(error):
                return CheckResult(Outcome.SERVING, str(error))
            return CheckResult(Outcome.NOT_ANSWERING, str(error))
        except exceptions.ResponseError as error:
            outcome = Outcome.READ_ONLY if str(error).startswith("MISCONF") else Outcome.NOT_ANSWERING
            return CheckResult(outcome, str(error))
        return CheckResult(Outcome.SERVING)

    async def provision(self, target: CheckTarget) -> None:
        """Let the server read its mounted ACL file again; a bad file is refused and the old rules stay."""
        assert target.credentials  # noqa: S101 - Redis has accounts
        try:
            async with _client(target, target.credentials.admin, PROVISION_SECONDS / 4) as client:
                await client.acl_load()
        except (exceptions.RedisError, OSError) as error:
            raise EngineError(f"ACL LOAD failed: {error}") from error
