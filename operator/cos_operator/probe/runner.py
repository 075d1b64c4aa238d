"""One run: every check of the order, one after the other, and the report. Progress goes to standard output."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cos_controllers.credentials import Login
from cos_controllers.probes.order import BINDINGS, Check, Order, Subject
from cos_controllers.probes.results import Figures, Report, Taken, encode
from cos_operator.probe.base import Amounts, Driver, Target
from cos_operator.probe.elasticsearch import ElasticsearchDriver
from cos_operator.probe.load import Broken, Measured, make_load, percentiles, said
from cos_operator.probe.neo4j import Neo4jDriver
from cos_operator.probe.postgres import PostgresDriver
from cos_operator.probe.redis import RedisDriver
from cos_operator.probe.traefik import TraefikDriver

#: What Kubernetes shows of a container that has ended.
TERMINATION_LOG = Path("/dev/termination-log")

DRIVERS: Mapping[str, Driver] = {
    "redis": RedisDriver(),
    "postgres": PostgresDriver(),
    "elasticsearch": ElasticsearchDriver(),
    "neo4j": Neo4jDriver(),
    "traefik": TraefikDriver(),
}


def run(order: Order, bindings: Path = Path(BINDINGS), report: Path = TERMINATION_LOG) -> None:
    """Carry out the order and write the report. SIGTERM ends it early, without one."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    found = Runner(order, bindings, stop).run()
    if stop.is_set():
        raise SystemExit("it was stopped before it had ended")
    report.write_text(encode(found))


class Runner:
    """Carries out one order.

    `bindings` has a folder for each component with accounts, in the layout of Service Binding. `stop` ends it early;
    `tell` gets a line for each check.
    """

    def __init__(
        self,
        order: Order,
        bindings: Path,
        stop: threading.Event,
        drivers: Mapping[str, Driver] | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._order = order
        self._bindings = bindings
        self._stop = stop
        self._drivers = DRIVERS if drivers is None else drivers
        self._tell = tell
        self._end = time.monotonic() + order.limit

    def run(self) -> Report:
        """All checks, also those that can no longer be made: each says why."""
        figures: list[Figures] = []
        taken: list[Taken] = []
        total = sum(len(subject.checks) for subject in self._order.subjects)
        for subject in self._order.subjects:
            driver = self._drivers[subject.engine]
            target, broken = self._prepared(subject, driver)
            before = _amounts(driver, target)
            for check in subject.checks:
                found = self._check(subject, check, driver, target, broken)
                figures.append(found)
                self._tell(f"[{len(figures)}/{total}] {_line(found)}")
            taken.append(_taken(subject.component, before, _amounts(driver, target)))
        return Report(tuple(figures), tuple(taken), round(time.process_time() * 1000))

    def _prepared(self, subject: Subject, driver: Driver) -> tuple[Target | None, str]:
        """Where to send requests, with its data in place; None, and why, if that cannot be."""
        if self._late():
            return None, "the time of the whole run was over before it"
        try:
            target = Target(subject.host, subject.port, self._login(subject.component), subject.reserved)
            driver.prepare(target)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the other components are tried
            return None, f"its data was not written: {said(error)}"
        return target, ""

    def _login(self, component: str) -> Login | None:
        folder = self._bindings / component
        if not folder.is_dir():
            return None
        return Login((folder / "username").read_text(), (folder / "password").read_text())

    def _late(self) -> bool:
        return self._stop.is_set() or time.monotonic() >= self._end

    def _check(
        self, subject: Subject, check: Check, driver: Driver, target: Target | None, broken: str
    ) -> Figures:
        name = check.name(subject.component)
        if target is None or self._late():
            return Figures(name, broken=broken or "the time of the whole run was over before it")
        try:
            measured = make_load(
                driver.connector(target, check),
                rate=check.rate,
                connections=check.connections,
                seconds=self._order.seconds,
                stop=self._stop,
            )
        except Broken as error:
            return Figures(name, broken=str(error))
        return _figures(name, measured)


def _amounts(driver: Driver, target: Target | None) -> Amounts:
    """What the engine takes; nothing if it does not say."""
    if target:
        with contextlib.suppress(Exception):
            return driver.amounts(target)
    return Amounts()


def _taken(component: str, before: Amounts, after: Amounts) -> Taken:
    known = before.cpu is not None and after.cpu is not None
    grown = before.memory is not None and after.memory is not None
    return Taken(
        component,
        cpu=round((after.cpu - before.cpu) * 1000) if known else None,  # type: ignore[operator]
        memory_growth=after.memory - before.memory if grown else None,  # type: ignore[operator]
        connections=after.connections,
        connections_limit=after.connections_limit,
    )


def _figures(name: str, seen: Measured) -> Figures:
    lags = [found.p95 for found in map(percentiles, (seen.lag, seen.pulse)) if found]
    return Figures(
        name,
        latency=percentiles(seen.due),
        service=percentiles(seen.sent),
        operations=len(seen.sent),
        errors=seen.errors,
        missed=seen.missed,
        elapsed=round(seen.elapsed * 1000),
        client_cpu=round(seen.client_cpu * 1000),
        lag=max(lags, default=0),
        message=seen.first_error,
    )


def _line(found: Figures) -> str:
    """A check in one line, for a person."""
    if found.broken or found.latency is None:
        return f"{found.name}: {found.broken or found.message or 'no answer'}"
    milliseconds = "/".join(f"{value / 1000:.2f}" for value in found.latency)
    rate = found.operations * 1000 / found.elapsed
    return (
        f"{found.name}: p50/p95/p99/max {milliseconds} ms, {rate:.0f}/s, {found.errors} errors, "
        f"{found.missed} missed"
    )
