"""Traefik's client against a small real HTTP server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from cos_controllers.observation import CheckTarget, Expectation, Outcome, RouteTarget
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


@asynccontextmanager
async def proxy(
    monkeypatch: pytest.MonkeyPatch, *routes: RouteTarget, marker: str
) -> AsyncIterator[CheckTarget]:
    """Both entry points on one port, with routes that answer as their paths say."""

    async def ok(_: web.Request) -> web.Response:
        return web.Response()

    async def missing(_: web.Request) -> web.Response:
        return web.Response(status=404)

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/hangs":
            await asyncio.sleep(5)
        if request.path == "/moved":
            raise web.HTTPFound("/502")
        if request.path == "/host":
            return web.Response(status=200 if request.host == "app.example.com" else 502)
        return web.Response(status=int(request.path.strip("/")))

    application = web.Application()
    application.router.add_get("/ping", ok)
    application.router.add_get("/cos/routes/new", ok)
    application.router.add_get("/cos/{path:.*}", missing)
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setattr(traefik, "WEB_PORT", port)
    try:
        yield CheckTarget(
            "traefik",
            "traefik",
            "127.0.0.1",
            port,
            pods={"uid": "127.0.0.1"},
            expected=Expectation(configuration={"routes": marker}, routes=routes),
        )
    finally:
        await runner.cleanup()


async def test_each_route_is_tried_and_only_what_traefik_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traefik, "ROUTE_SECONDS", 0.3)
    names = ("200", "401", "404", "500", "502", "503", "504", "moved", "hangs")
    routes = [RouteTarget(name, "", f"/{name}", "") for name in names]
    routes.append(RouteTarget("host", "app.example.com", "/host", ""))
    async with proxy(monkeypatch, *routes, marker="new") as target:
        found = await TraefikClient().examine(target)
    assert found.serving == ""
    assert found.configuration == {"routes": "new"}
    assert found.routes is not None
    assert {name: said for name, said in found.routes.items() if said} == {
        "502": "HTTP 502",
        "503": "HTTP 503",
        "504": "HTTP 504",
        "hangs": "no answer within 0.3 s",
    }


async def test_routes_that_are_not_read_yet_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy(monkeypatch, RouteTarget("200", "", "/200", ""), marker="newer") as target:
        found = await TraefikClient().examine(target)
    assert found.configuration == {"routes": "others"}
    assert found.routes == {}, "others would answer for them"


async def test_every_pod_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy(monkeypatch, marker="new") as target:
        # Nobody listens at the other address.
        found = await TraefikClient().examine(replace(target, pods={"a": "127.0.0.1", "b": "127.0.0.2"}))
    assert found.serving == "1 of 2 pods do not answer"
    assert found.configuration == {"routes": "others"}
