"""The HTTP endpoint of the operator's own health and metrics.

`/healthz` is for the kubelet's liveness probe and says only whether this process works: a restart repairs no API
server. `/readyz` says whether it sees the cluster. Kopf's endpoint is not used, it answers 200 with the API gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from cos_operator.metrics import REGISTRY

log = structlog.stdlib.get_logger(__name__)

#: Seconds for all checks of one answer together; a probe's own time limit should be longer.
CHECK_LIMIT = 3.0
#: Seconds for open answers when the server stops.
_STOP_LIMIT = 2.0


class Verdict(NamedTuple):
    """What a check found; the message is for a person."""

    ok: bool
    message: str


#: A named question about this process or its surroundings. One that raises, or takes too long, has failed.
Check = Callable[[], Awaitable[Verdict]]


class HealthServer:
    """Serves on `host` ("" for all addresses) and `port` (0 for any; see the attribute) inside ``async with``.

    `live` and `ready` are the checks by name; `leader` tells whether this process leads, for information.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        live: Mapping[str, Check],
        ready: Mapping[str, Check],
        leader: Callable[[], bool],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self.port = port
        self._host = host
        self._live = live
        self._ready = ready
        self._leader = leader
        self._registry = registry
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_LIMIT)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host or None, self.port, reuse_address=True)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        log.info("health and metrics are served", address=self._host or "*", port=self.port)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return await self._answer(self._live)

    async def _readyz(self, _: web.Request) -> web.Response:
        return await self._answer(self._ready)

    async def _answer(self, checks: Mapping[str, Check]) -> web.Response:
        verdicts = await asyncio.gather(*(_judge(check) for check in checks.values()))
        ok = all(verdict.ok for verdict in verdicts)
        body = {
            "ok": ok,
            "role": "leader" if self._leader() else "standby",
            "checks": {name: verdict._asdict() for name, verdict in zip(checks, verdicts, strict=True)},
        }
        return web.json_response(body, status=200 if ok else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})


async def _judge(check: Check) -> Verdict:
    try:
        async with asyncio.timeout(CHECK_LIMIT):
            return await check()
    except TimeoutError:
        return Verdict(ok=False, message=f"no answer within {CHECK_LIMIT:g} s")
    except Exception as error:  # noqa: BLE001 a check that fails in any way is an answer, not a failure of ours
        return Verdict(ok=False, message=f"{type(error).__name__}: {error}")
