"""Traefik: GET /ping at a pod's operations port."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import ClientError, ClientSession, ClientTimeout

from cos_controllers.observation import CheckResult, CheckTarget, Outcome
from cos_operator.engines.base import CHECK_SECONDS, EngineError


class TraefikClient:
    """See `base.EngineClient`."""

    async def check(self, target: CheckTarget) -> CheckResult:
        """GET /ping: 200 while it serves, 503 while it drains."""
        timeout = ClientTimeout(total=CHECK_SECONDS)
        url = f"http://{_authority(target)}/ping"
        try:
            async with ClientSession(timeout=timeout) as session, session.get(url) as response:
                status = response.status
        except TimeoutError:
            return CheckResult(Outcome.NOT_ANSWERING, f"no answer within {CHECK_SECONDS:g} s")
        except (ClientError, OSError) as error:
            return CheckResult(Outcome.NOT_ANSWERING, str(error) or type(error).__name__)
        if status != HTTPStatus.OK:
            return CheckResult(Outcome.NOT_ANSWERING, f"GET /ping answers {status}")
        return CheckResult(Outcome.SERVING)

    async def provision(self, target: CheckTarget) -> None:
        """There is nothing to make."""
        raise EngineError(f"{target.component} has no accounts")


def _authority(target: CheckTarget) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{host}:{target.port}"
