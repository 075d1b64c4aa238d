"""The health endpoint as the kubelet and Prometheus see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from cos_operator import server
from cos_operator.server import Check, HealthServer, Verdict


def says(ok: bool, message: str = "") -> Check:  # noqa: FBT001
    async def check() -> Verdict:
        return Verdict(ok, message)

    return check


@asynccontextmanager
async def serving(*, leader: bool = False, **checks: dict[str, Check]) -> AsyncIterator[str]:
    registry = CollectorRegistry()
    Counter("cos_operator_test", "For this test.", registry=registry).inc(3)
    live, ready = checks.get("live", {}), checks.get("ready", {})
    health = HealthServer("127.0.0.1", 0, live=live, ready=ready, leader=lambda: leader, registry=registry)
    async with health:
        yield f"http://127.0.0.1:{health.port}"


async def get(url: str) -> tuple[int, dict[str, object]]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.json()


async def test_ready_names_every_check_and_the_role() -> None:
    ready = {"watches": says(ok=True, message="fresh"), "api": says(ok=False, message="connection refused")}
    async with serving(leader=True, ready=ready, live={"queue": says(ok=True)}) as url:
        assert await get(f"{url}/readyz") == (
            503,
            {
                "ok": False,
                "role": "leader",
                "checks": {
                    "watches": {"ok": True, "message": "fresh"},
                    "api": {"ok": False, "message": "connection refused"},
                },
            },
        )
        status, body = await get(f"{url}/healthz")
        assert (status, body["ok"]) == (200, True), "what only concerns readiness restarts nothing"


async def test_a_standby_is_ready() -> None:
    async with serving(ready={"watches": says(ok=True)}) as url:
        status, body = await get(f"{url}/readyz")
        assert (status, body["role"]) == (200, "standby")


async def test_a_check_that_hangs_or_raises_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CHECK_LIMIT", 0.1)

    async def hangs() -> Verdict:
        await asyncio.sleep(60)
        return Verdict(ok=True, message="")

    async def raises() -> Verdict:
        raise ConnectionError("gone")

    async with serving(live={"hangs": hangs, "raises": raises}) as url:
        status, body = await get(f"{url}/healthz")
    assert status == 503
    assert body["checks"] == {
        "hangs": {"ok": False, "message": "no answer within 0.1 s"},
        "raises": {"ok": False, "message": "ConnectionError: gone"},
    }


async def test_metrics_in_the_format_that_was_asked_for() -> None:
    async with serving() as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain")
            (family,) = (
                family
                for family in text_string_to_metric_families(await response.text())
                if family.name == "cos_operator_test"
            )
            assert [sample.value for sample in family.samples if sample.name.endswith("_total")] == [3]
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with session.get(f"{url}/metrics", headers=accept) as response:
            assert response.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await response.text()).endswith("# EOF\n")


async def test_an_occupied_port_is_an_error() -> None:
    async with serving() as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            async with HealthServer("127.0.0.1", port, live={}, ready={}, leader=bool):
                pytest.fail("two servers on one port")
