"""Traefik: GET /ping at a pod's operations port; of every pod what it has read, and each route through one of them."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from cos_controllers.components.traefik.config import MARKER, MARKER_PATH, WEB_PORT
from cos_controllers.observation import CheckResult, CheckTarget, Facts, Outcome, RouteTarget
from cos_operator.engines.base import CHECK_SECONDS, EngineError

#: Seconds for a route to answer: longer than Traefik itself tries to reach a backend.
ROUTE_SECONDS = 4.0
#: What Traefik answers for a backend that it cannot reach, that does not answer, or that it has none of.
_UNREACHABLE = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
#: The host asked for at a route without one.
_ANY_HOST = "cos-gate.invalid"


class TraefikClient:
    """See `base.EngineClient`."""

    async def check(self, target: CheckTarget) -> CheckResult:
        """GET /ping: 200 while it serves, 503 while it drains."""
        timeout = ClientTimeout(total=CHECK_SECONDS)
        url = f"http://{_authority(target.host, target.port)}/ping"
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

    async def examine(self, target: CheckTarget) -> Facts:
        """Whether every pod answers, and has read the routes; then each route, by the address of one pod.

        A route that answers anything but 502, 503 and 504 has a backend: 401, 404 and 500 are its own affair.
        """
        marker = target.expected.configuration.get(MARKER, "")
        pods = [address for address in target.pods.values() if address]
        # All at once: waiting for a connection would count against the time of a route.
        async with ClientSession(
            timeout=ClientTimeout(total=ROUTE_SECONDS), connector=TCPConnector(limit=0)
        ) as session:

            async def ops(path: str) -> list[int | str]:
                return await asyncio.gather(
                    *(_status(session, f"http://{_authority(pod, target.port)}{path}") for pod in pods)
                )

            pings, read = await asyncio.gather(ops("/ping"), ops(MARKER_PATH + marker))
            # A pod that has other routes would answer for them.
            current = [pod for pod, status in zip(pods, read, strict=True) if status == HTTPStatus.OK]
            tried = target.expected.routes if current else ()
            routes = await asyncio.gather(*(_route(session, current[0], route) for route in tried))
        silent = sum(ping != HTTPStatus.OK for ping in pings)
        return Facts(
            serving=f"{silent} of {len(pods)} pods do not answer" if silent else "",
            configuration={MARKER: marker if len(current) == len(pods) else "others"},
            routes={route.name: said for route, said in zip(tried, routes, strict=True)},
        )

    async def provision(self, target: CheckTarget) -> None:
        """There is nothing to make."""
        raise EngineError(f"{target.component} has no accounts")

    async def tidy(self, target: CheckTarget) -> None:
        """A proxy keeps nothing."""


async def _status(session: ClientSession, url: str, host: str = "") -> int | str:
    """The status of the answer to GET, redirects not followed and content not read; or why there is none."""
    headers = {"Host": host} if host else {}
    try:
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            return response.status
    except TimeoutError:
        return f"no answer within {ROUTE_SECONDS:g} s"
    except (ClientError, OSError) as error:
        return f"no answer: {type(error).__name__}"


async def _route(session: ClientSession, pod: str, route: RouteTarget) -> str:
    status = await _status(
        session, f"http://{_authority(pod, WEB_PORT)}{route.path}", route.host or _ANY_HOST
    )
    if isinstance(status, str):
        return status
    return f"HTTP {status}" if status in _UNREACHABLE else ""


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
