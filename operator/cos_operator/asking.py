"""Asking engines by their own protocols: whether they serve, and what they are like. Bounded, and never raises."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import structlog

from cos_controllers.credentials import Credentials
from cos_controllers.observation import CheckResult, CheckTarget, Facts, Outcome, RouteTarget
from cos_operator import tracing
from cos_operator.engines.base import CHECK_SECONDS, EXAMINE_SECONDS, Asked, EngineClient

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

#: Questions whose time is up and that have not ended yet: some libraries take long to give up.
_left: set[asyncio.Task[Any]] = set()

#: For so many seconds an answer is one to whoever asks next: who is woken by it need not wait for another.
FRESH_SECONDS = 0.5


class _Subject(NamedTuple):
    """Whom a question is about: an address, and the pods behind it."""

    component: str
    host: str
    port: int
    pods: frozenset[str]
    credentials: Credentials | None


class Asker:
    """Asks engines whether they serve, each by one question at a time, whoever wants to know."""

    def __init__(self, clients: Mapping[str, Asked]) -> None:
        self._clients = clients
        self._answers: dict[_Subject, asyncio.Task[CheckResult]] = {}

    async def ask(self, targets: Iterable[CheckTarget]) -> dict[str, CheckResult]:
        """Whether each engine serves, by component. Ends within `CHECK_SECONDS`, and never raises."""
        asked = list(targets)
        results = await asyncio.gather(*map(self._told, asked))
        return {target.component: found for target, found in zip(asked, results, strict=True)}

    async def _told(self, target: CheckTarget) -> CheckResult:
        answer = self._answer(target)
        # Whoever waits has a span of it, also for an answer that somebody else has asked for.
        with tracing.step("check", component=target.component) as span:
            # Shielded: somebody else may wait for the same answer.
            found = await asyncio.shield(answer)
            span.set_attribute("cos.outcome", found.outcome.value)
            return found

    def _answer(self, target: CheckTarget) -> asyncio.Task[CheckResult]:
        """The question under way, the answer that has just come, or a new question."""
        pods = frozenset(target.pods)
        subject = _Subject(target.component, target.host, target.port, pods, target.credentials)
        if task := self._answers.get(subject):
            return task
        task = self._answers[subject] = asyncio.create_task(_check(self._clients[target.engine], target))
        loop = asyncio.get_running_loop()
        task.add_done_callback(lambda _: loop.call_later(FRESH_SECONDS, self._answers.pop, subject, None))
        return task


async def examine(
    targets: Iterable[CheckTarget], serving: Collection[str], clients: Mapping[str, EngineClient]
) -> dict[str, Facts]:
    """What the engines of the components that are `serving` are like, by component.

    Stores before the proxy, and no route is tried to one that does not serve. Ends within twice `EXAMINE_SECONDS`.
    """
    due = [target for target in targets if target.component in serving]
    found: dict[str, Facts] = {}
    for group in (
        [target for target in due if not target.expected.routes],
        [target for target in due if target.expected.routes],
    ):
        facts = await asyncio.gather(*(_examine(clients[target.engine], target, serving) for target in group))
        found |= {target.component: item for target, item in zip(group, facts, strict=True)}
    return found


async def _check(client: Asked, target: CheckTarget) -> CheckResult:
    try:
        return await _within(CHECK_SECONDS, client.check(target))
    except TimeoutError:
        return CheckResult(Outcome.NOT_ANSWERING, f"no answer within {CHECK_SECONDS:g} s")
    except Exception as error:
        # A client that breaks its promise must not keep the other components from being looked at.
        log.exception("check failed", component=target.component)
        return CheckResult(Outcome.NOT_ANSWERING, f"the check failed: {type(error).__name__}")


async def _examine(client: EngineClient, target: CheckTarget, serving: Collection[str]) -> Facts:
    def waits(route: RouteTarget) -> bool:
        return bool(route.component) and route.component not in serving

    routes = target.expected.routes
    tried = tuple(route for route in routes if not waits(route))
    try:
        found = await _within(
            EXAMINE_SECONDS,
            client.examine(replace(target, expected=replace(target.expected, routes=tried))),
        )
    except TimeoutError:
        return Facts(unknown=f"no answer within {EXAMINE_SECONDS:g} s")
    except Exception as error:
        log.exception("examination failed", component=target.component)
        return Facts(unknown=f"the examination failed: {type(error).__name__}")
    if len(tried) == len(routes):
        return found
    return replace(found, routes={**(found.routes or {}), **{r.name: None for r in routes if waits(r)}})


async def _within(seconds: float, question: Coroutine[Any, Any, T]) -> T:
    """The answer, or `TimeoutError` as soon as the time is up.

    Whatever the question needs to end: psycopg, cancelled in the middle of a statement, has taken 13 s.
    """
    task = asyncio.create_task(question)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            _left.add(task)
            task.add_done_callback(_forget)
    if not done:
        raise TimeoutError
    return task.result()


def _forget(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that nobody is told that it was not
