"""What the benchmark reads from an audit log, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from auditlog import AuditLog, LogLost
from figures import exponent, quantile, slope, spread
from report import _replace


def line(
    verb: str, resource: str, *, user: str = "operator", stage: str = "ResponseComplete", **ref: str
) -> str:
    event: dict[str, Any] = {
        "stage": stage,
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": resource, "namespace": "n", "name": "s-redis", **ref},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000100Z",
        "stageTimestamp": "2026-01-01T00:00:00.012100Z",
    }
    return json.dumps(event, separators=(",", ":")) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "audit.log"
    made.write_text(line("patch", "secrets"))
    return made


def append(path: Path, *lines: str) -> None:
    with path.open("a") as log:
        log.writelines(lines)


def test_only_what_follows_the_mark_counts(path: Path) -> None:
    log = AuditLog(path)
    mark = log.mark()
    append(path, line("create", "events"))
    assert [(w.verb, w.resource) for w in log.writes(mark)] == [("create", "events")]


def test_reads_leases_other_users_and_other_stages_do_not_count(path: Path) -> None:
    log = AuditLog(path)
    mark = log.mark()
    append(
        path,
        *(line(verb, "pods") for verb in ("get", "list", "watch")),
        line("update", "leases"),
        line("patch", "pods", stage="Panic"),
        line("patch", "pods", user="someone"),
        line("patch", "cosstacks", subresource="status"),
    )
    assert [w.resource for w in log.writes(mark, "operator")] == ["cosstacks/status"]


def test_a_write_has_the_stamps_of_its_arrival_and_its_answer(path: Path) -> None:
    log = AuditLog(path)
    mark = log.mark()
    append(path, line("patch", "configmaps"))
    (write,) = log.writes(mark)
    assert write.answered - write.received == pytest.approx(0.012, abs=1e-6)


def test_a_line_that_is_still_being_written_is_left_for_later(path: Path) -> None:
    log = AuditLog(path)
    mark = log.mark()
    whole = line("patch", "configmaps")
    append(path, whole[:-20])
    assert log.writes(mark) == []
    append(path, whole[-20:])
    assert len(log.writes(mark)) == 1


def test_one_rotation_loses_nothing_and_two_are_an_error(path: Path) -> None:
    log = AuditLog(path)
    mark = log.mark()
    append(path, line("patch", "configmaps"))
    older = path.with_name("audit-2026.log")
    path.rename(older)
    path.write_text(line("patch", "services"))
    assert [w.resource for w in log.writes(mark)] == ["configmaps", "services"]
    older.unlink()
    with pytest.raises(LogLost):
        log.writes(mark)


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([7.0], 0.5)) == (50, 99, 7)


def test_proportional_growth_has_the_exponent_one() -> None:
    assert exponent((100, 5), (1000, 50)) == pytest.approx(1)
    assert exponent((10, 1), (100, 100)) == pytest.approx(2)


def test_a_slope_is_the_rise_per_unit() -> None:
    assert slope([(0, 10), (1, 13), (2, 16)]) == pytest.approx(3)


def test_a_spread_is_shown_where_there_is_one() -> None:
    assert spread([2.0], ".1f") == "2.0"
    assert spread([3.0, 1.0, 2.0], ".1f") == "2.0 (1.0 to 3.0)"


def test_a_section_of_the_document_is_replaced_and_nothing_else() -> None:
    text = "a\n<!-- x: written by tests/bench/bench.py -->\nold\n<!-- end of x -->\nb\n"
    assert _replace(text, "x", "new") == text.replace("old", "new")
