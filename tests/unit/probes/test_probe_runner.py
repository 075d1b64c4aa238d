"""A run of an order: every check has its figures or says why not, whatever engines do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cos_controllers.probes.order import Check, CheckName, Order, Subject
from cos_controllers.probes.results import Report, decode
from cos_operator.probe import runner
from cos_operator.probe.base import Amounts, Driver, Target
from cos_operator.probe.load import Connection
from cos_operator.probe.runner import Runner


@dataclass
class Recorder:
    """A driver that notes who logs in, and breaks where a test says."""

    broken: str = ""
    logins: list[Target] = field(default_factory=list)
    memory: int = 1000

    def prepare(self, target: Target) -> None:
        if self.broken == "prepare":
            raise ConnectionError("refused")
        self.logins.append(target)

    def amounts(self, target: Target) -> Amounts:
        assert target
        if self.broken == "amounts":
            raise KeyError("used_memory")
        self.memory += 24
        return Amounts(cpu=self.memory / 1000, memory=self.memory, connections=3, connections_limit=100)

    def connector(self, target: Target, check: Check) -> Callable[[], Connection]:
        assert target in self.logins
        assert check.rate
        return Idle


class Idle:
    def request(self, number: int) -> None:
        assert number is not None

    def close(self) -> None:
        return


def subject(component: str, engine: str = "redis") -> Subject:
    checks = (Check(kind=CheckName.LATENCY, rate=100, connections=1),)
    return Subject(component=component, engine=engine, host="cos-x", port=6379, checks=checks)


def bindings(folder: Path, component: str) -> None:
    (folder / component).mkdir()
    (folder / component / "username").write_text("app")
    (folder / component / "password").write_text("secret")


def run(order: Order, folder: Path, driver: Driver, stop: threading.Event | None = None) -> Report:
    lines: list[str] = []
    told = Runner(order, folder, stop or threading.Event(), {"redis": driver}, lines.append).run()
    assert len(lines) == len(told.figures)
    return told


def test_every_check_has_figures_and_every_component_what_it_took(tmp_path: Path) -> None:
    bindings(tmp_path, "redis")
    driver = Recorder()
    order = Order(subjects=(subject("redis"), subject("other")), seconds=1, limit=60)
    report = run(order, tmp_path, driver)
    assert [item.name for item in report.figures] == ["redis/Latency", "other/Latency"]
    assert all(item.operations == 100 and item.latency and not item.broken for item in report.figures)
    assert [(item.component, item.cpu, item.memory_growth) for item in report.taken] == [
        ("redis", 24, 24),
        ("other", 24, 24),
    ]
    login, nobody = (target.login for target in driver.logins)
    assert (login and (login.username, login.password), nobody) == (("app", "secret"), None)


def test_an_engine_that_takes_no_data_is_told_and_the_next_one_is_tried(tmp_path: Path) -> None:
    order = Order(subjects=(subject("redis"),), seconds=1, limit=60)
    (figures,) = run(order, tmp_path, Recorder(broken="prepare")).figures
    assert figures.broken == "its data was not written: refused"


def test_what_an_engine_does_not_tell_of_itself_is_not_known(tmp_path: Path) -> None:
    order = Order(subjects=(subject("redis"),), seconds=1, limit=60)
    report = run(order, tmp_path, Recorder(broken="amounts"))
    assert (report.taken[0].cpu, report.taken[0].memory_growth) == (None, None)
    assert report.figures[0].operations == 100


def test_what_is_left_when_the_time_is_over_says_so(tmp_path: Path) -> None:
    order = Order(subjects=(subject("redis"), subject("other")), seconds=1, limit=0)
    report = run(order, tmp_path, Recorder())
    assert {item.broken for item in report.figures} == {"the time of the whole run was over before it"}


def test_the_report_is_written_where_kubernetes_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "DRIVERS", {"redis": Recorder()})
    monkeypatch.setattr(runner.signal, "signal", lambda *_: None)
    order = Order(subjects=(subject("redis"),), seconds=1, limit=60)
    runner.run(order, tmp_path, tmp_path / "log")
    assert [item.name for item in decode((tmp_path / "log").read_text()).figures] == ["redis/Latency"]


def test_a_run_that_is_stopped_ends_soon_and_reports_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    order = Order(subjects=(subject("redis"), subject("other")), seconds=30, limit=60)
    report = run(order, tmp_path, Recorder(), stop)
    assert time.monotonic() - began < 5
    assert report.figures[1].broken


def test_the_prober_loads_no_kubernetes_client() -> None:
    """Of the CPU that a probe takes its own start is a large part."""
    code = "import sys, cos_operator.probe.runner; sys.exit('kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
