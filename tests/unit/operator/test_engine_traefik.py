"""Traefik's client against a small real HTTP server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from cos_controllers.observation import CheckTarget, Outcome
from cos_operator.engines import traefik
from cos_operator.engines.base import EngineError
from cos_operator.engines.traefik import TraefikClient

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[CheckTarget]:
    application = web.Application()
    application.router.add_get("/ping", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield CheckTarget("traefik", "traefik", "127.0.0.1", runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("status", "outcome"), [(200, Outcome.SERVING), (503, Outcome.NOT_ANSWERING)])
async def test_the_status_of_ping_decides(status: int, outcome: Outcome) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serving(answer) as target:
        result = await TraefikClient().check(target)
    assert result.outcome is outcome
    assert (str(status) in result.message) == (outcome is not Outcome.SERVING)


async def test_a_hang_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traefik, "CHECK_SECONDS", 0.3)

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async with serving(hang) as target:
        start = time.monotonic()
        result = await TraefikClient().check(target)
        assert time.monotonic() - start < 1
    assert (result.outcome, result.message) == (Outcome.NOT_ANSWERING, "no answer within 0.3 s")


async def test_a_closed_port_is_no_answer() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    async with serving(answer) as target:
        pass
    result = await TraefikClient().check(target)
    assert result.outcome is Outcome.NOT_ANSWERING
    assert result.message


async def test_there_is_no_account_to_make() -> None:
    with pytest.raises(EngineError, match="traefik has no accounts"):
        await TraefikClient().provision(CheckTarget("traefik", "traefik", "::1", 9000))
