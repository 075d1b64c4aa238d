"""How engines are asked: in an order, within their time, and whatever a client does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from cos_controllers.api.status import GateName
from cos_controllers.observation import CheckResult, CheckTarget, Expectation, Facts, Outcome, RouteTarget
from cos_operator.asking import FRESH_SECONDS, Asker, examine
from cos_operator.engines.base import CHECK_SECONDS, EXAMINE_SECONDS

ROUTES = (RouteTarget("search", "", "/", "elasticsearch"), RouteTarget("app", "", "/app", ""))


class Client:
    """Answers after `seconds`, and takes `ends` more to be cancelled."""

    def __init__(self, seconds: float = 0, ends: float = 0, error: Exception | None = None) -> None:
        self.seconds, self.ends, self.error = seconds, ends, error
        self.checks = 0
        self.examined: list[tuple[float, CheckTarget]] = []

    async def _answer(self) -> None:
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(self.ends)
            raise
        if self.error:
            raise self.error

    async def check(self, _: CheckTarget) -> CheckResult:
        self.checks += 1
        await self._answer()
        return CheckResult(Outcome.SERVING)

    async def examine(self, target: CheckTarget) -> Facts:
        self.examined.append((asyncio.get_running_loop().time(), target))
        await self._answer()
        return Facts(serving="", routes={route.name: "" for route in target.expected.routes})

    async def tidy(self, target: CheckTarget) -> None:
        raise AssertionError(f"{target} is only asked")

    async def provision(self, target: CheckTarget) -> None:
        raise AssertionError(target)


def target(engine: str, *routes: RouteTarget) -> CheckTarget:
    return CheckTarget(
        engine, engine, "10.0.0.1", 1, expected=Expectation((GateName.SERVING,), routes=routes)
    )


def test_stores_come_before_the_proxy_and_no_route_is_tried_to_one_that_does_not_serve(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        clients = {"elasticsearch": Client(seconds=2), "traefik": Client()}
        targets = [target("traefik", *ROUTES), target("elasticsearch")]
        found = await examine(targets, {"traefik", "elasticsearch"}, clients)
        ((store, _),), ((proxy, asked),) = (client.examined for client in clients.values())
        assert proxy - store == 2
        assert asked.expected.routes == ROUTES
        assert found["traefik"].routes == {"search": "", "app": ""}
        found = await examine(targets, {"traefik"}, clients)
        assert set(found) == {"traefik"}
        assert found["traefik"].routes == {"search": None, "app": ""}

    virtual_time(main)


def test_a_question_ends_in_time_though_its_client_does_not(virtual_time: Callable[..., object]) -> None:
    async def main() -> None:
        clients = {"redis": Client(seconds=100, ends=13)}
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = (await Asker(clients).ask([target("redis")]))["redis"]
        assert loop.time() - began == CHECK_SECONDS
        assert (answer.outcome, answer.message) == (Outcome.NOT_ANSWERING, "no answer within 3 s")
        began = loop.time()
        found = (await examine([target("redis")], {"redis"}, clients))["redis"]
        assert loop.time() - began == EXAMINE_SECONDS
        assert found == Facts(unknown="no answer within 10 s")
        await asyncio.sleep(20)
        assert len(asyncio.all_tasks()) == 1, "what was left has ended"

    virtual_time(main)


def test_an_engine_is_asked_one_question_at_a_time_whoever_wants_to_know(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        client = Client(seconds=2)
        asker = Asker({"redis": client})
        first = asyncio.create_task(asker.ask([target("redis")]))
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        second = asyncio.create_task(asker.ask([target("redis")]))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second)["redis"].outcome is Outcome.SERVING
        assert loop.time() - began == 1, "it need not begin anew, nor ends it with who began it"
        await asker.ask([target("redis")])
        assert loop.time() - began == 1, "the answer is fresh"
        assert client.checks == 1
        await asker.ask([replace(target("redis"), pods={"another": "10.0.0.1"})])
        assert client.checks == 2, "another pod is another engine"
        await asyncio.sleep(FRESH_SECONDS)
        await asker.ask([target("redis")])
        assert client.checks == 3
        await asyncio.sleep(2 * FRESH_SECONDS)
        assert not asker._answers

    virtual_time(main)


def test_a_client_that_breaks_its_promise_is_no_answer(virtual_time: Callable[..., object]) -> None:
    async def main() -> None:
        clients = {"redis": Client(error=ValueError("no"))}
        answer = (await Asker(clients).ask([target("redis")]))["redis"]
        assert (answer.outcome, answer.message) == (Outcome.NOT_ANSWERING, "the check failed: ValueError")
        found = (await examine([target("redis")], {"redis"}, clients))["redis"]
        assert found == Facts(unknown="the examination failed: ValueError")

    virtual_time(main)
