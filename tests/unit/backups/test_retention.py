"""What is kept of the backups of a schedule, and how the rest goes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from backup_world import LINEAGE, PLACE, SPEC, START, World, report
from hypothesis import given
from hypothesis import strategies as st

from cos_controllers.api.backup import BackupPhase
from cos_controllers.backups.job import TIDIER, told
from cos_controllers.backups.order import Tidy
from cos_controllers.backups.report import Tidied
from cos_controllers.backups.retention import expired
from cos_controllers.conditions import timestamp
from cos_controllers.k8s import Manifest

#: None of which is due any more once the tests have begun.
YEARLY = "0 3 1 1 *"


def kept_by(keep: Manifest, **schedule: Any) -> World:
    nightly = {"name": "nightly", "schedule": "0 3 * * *", "keep": keep, **schedule}
    return World(spec=SPEC | {"backup": SPEC["backup"] | {"schedules": [nightly]}})


def tidied_by(world: World, name: str = "cos-redis-backup") -> str:
    """What the container says that does all it was told to."""
    order = told(world.jobs[name], Tidy)
    assert order
    return Tidied(checked=order.maintain, removed=order.remove).model_dump_json()


def add(world: World, name: str, at: datetime, phase: str = "Succeeded", **row: Any) -> None:
    """A backup of the schedule that has ended."""
    world.now = at
    world.create(name)
    world.backups[name]["metadata"]["labels"] = {"cos.dev/backup-schedule": "nightly"}
    copy = {
        "name": "redis",
        "phase": phase,
        "snapshot": f"id-{name}",
        "place": PLACE,
        "path": "cos/cos/redis",
    }
    copy |= {
        "lineage": LINEAGE,
        "pointInTime": timestamp(at),
        "completionTime": timestamp(at),
        "sha256": "a" * 64,
    }
    world.backups[name]["status"] = {
        "phase": phase,
        "repository": "main",
        "completionTime": timestamp(at),
        "components": [{**copy, **row}],
    }


def gone(world: World) -> list[str]:
    return sorted(item.metadata.name for item in expired(world.seen()))


def copying(world: World, name: str) -> Tidy | None:
    """A backup by hand whose Job is made, and what that is told to do besides."""
    world.create(name)
    for _ in range(2):
        world.step()
    return told(world.jobs["cos-redis-backup"], Tidy)


def daily(world: World, days: int) -> None:
    for number in range(days):
        add(world, f"d{number:02}", START + timedelta(days=number, hours=3))


@pytest.mark.parametrize(
    ("keep", "stays"),
    [
        ({"last": 3}, ["d37", "d38", "d39"]),
        ({"daily": 2}, ["d38", "d39"]),
        # 2026-01-01 is a Thursday: Sundays are d03, d10 …, and d39 begins a week.
        ({"weekly": 3}, ["d31", "d38", "d39"]),
        ({"monthly": 2}, ["d30", "d39"]),
        ({"last": 1, "monthly": 9}, ["d30", "d39"]),
    ],
)
def test_of_each_period_the_last_one_is_kept(keep: Manifest, stays: list[str]) -> None:
    world = kept_by(keep)
    daily(world, 40)
    assert sorted(set(world.backups) - set(gone(world))) == stays


def test_a_day_is_one_of_the_time_zone() -> None:
    world = kept_by({"daily": 2}, timeZone="America/New_York")
    add(world, "evening", datetime.fromisoformat("2026-01-02T03:00:00Z"))
    add(world, "night", datetime.fromisoformat("2026-01-02T04:00:00Z"))
    add(world, "day", datetime.fromisoformat("2026-01-02T15:00:00Z"))
    assert gone(world) == ["evening"], "night is the last one of New York's first of January"


def test_what_a_person_made_and_what_is_suspended_stays() -> None:
    world = kept_by({"last": 1})
    daily(world, 3)
    del world.backups["d00"]["metadata"]["labels"]
    assert gone(world) == ["d01"]
    world.spec["backup"]["schedules"][0]["suspend"] = True
    assert gone(world) == []


def test_what_a_restore_needs_stays() -> None:
    world = kept_by({"last": 1})
    daily(world, 3)
    world.restore("r", backup="d00", existingData="SetAside")
    assert gone(world) == ["d01"]


def test_the_newest_good_copy_of_a_component_stays_whatever_it_belongs_to() -> None:
    world = kept_by({"last": 1})
    add(world, "half", START, "Failed")
    world.backups["half"]["status"]["components"][0]["phase"] = "Succeeded"
    for number in range(1, 6):
        add(world, f"f{number}", START + timedelta(days=number), "Failed", snapshot="")
    assert gone(world) == ["f1", "f2"], "three failed ones are kept to be read, and what holds the only copy"


@given(
    st.lists(st.tuples(st.integers(0, 400), st.booleans()), min_size=1, max_size=30),
    st.fixed_dictionaries({name: st.integers(0, 3) for name in ("last", "daily", "weekly", "monthly")}),
)
def test_no_setting_takes_the_newest_good_one_or_leaves_more_than_it_asks(
    ends: list[tuple[int, bool]], keep: dict[str, int]
) -> None:
    if not any(keep.values()):
        keep["last"] = 1
    world = kept_by(keep)
    for number, (hours, good) in enumerate(ends):
        add(world, f"b{number}", START + timedelta(hours=hours), "Succeeded" if good else "Failed")
    left = {name: world.backups[name] for name in set(world.backups) - set(gone(world))}
    good_ones = [item for item in world.backups.values() if item["status"]["phase"] == "Succeeded"]
    stays = [item for item in left.values() if item["status"]["phase"] == "Succeeded"]
    assert not good_ones or max(item["metadata"]["creationTimestamp"] for item in good_ones) in {
        item["metadata"]["creationTimestamp"] for item in stays
    }
    # And the one that holds the newest moment, which among those of one second may be another one.
    assert len(stays) <= sum(keep.values()) + 1


def test_what_is_kept_no_longer_is_said_so_then_removed_and_then_forgotten() -> None:
    world = kept_by({"last": 1})
    daily(world, 3)
    world.now = START + timedelta(days=3, hours=2)
    plan = world.step()
    assert sorted(plan.statuses) == ["d00", "d01"]
    assert world.phase("d00") is BackupPhase.EXPIRED
    assert not world.jobs, "nothing is removed but after a good copy"
    assert world.step().statuses == {}
    world.now = START + timedelta(days=3, hours=3)
    for _ in range(3):
        world.step()
    order = told(world.jobs["cos-redis-backup"], Tidy)
    assert order
    assert (order.remove, order.maintain) == (("id-d00", "id-d01"), False)
    world.end(report(world.now))
    world.step()
    (new,) = (name for name in world.backups if name.startswith("cos-nightly"))
    assert (world.phase(new), world.message(new)) == (
        BackupPhase.RUNNING,
        "redis: copied; older ones are removed",
    )
    assert world.row(new).snapshot == "5f0c9d2e"
    world.end(tidied_by(world), container=TIDIER)
    world.step()
    assert (world.phase(new), world.row(new).removed) == (BackupPhase.SUCCEEDED, 2)
    assert world.row("d00").phase is BackupPhase.EXPIRED
    world.step()
    assert sorted(world.backups) == [new, "d02"]
    world.step()
    assert world.phase("d02") is BackupPhase.EXPIRED, "the new one is kept in its place"


def test_a_copy_is_good_whatever_becomes_of_the_old_ones() -> None:
    world = kept_by({"last": 1}, schedule=YEARLY)
    daily(world, 2)
    world.now = START + timedelta(days=3)
    world.step()
    copying(world, "now")
    world.end(report(world.now))
    world.step()
    world.end("the repository is locked by somebody else", 1, TIDIER)
    world.step(11)
    row = world.row("now")
    assert (world.phase("now"), row.phase) == (BackupPhase.SUCCEEDED, BackupPhase.SUCCEEDED)
    assert "locked by somebody else" in row.maintenance_failure
    assert "d00" in world.backups, "it is still there, and said to be expired"
    world.step()
    order = copying(world, "again")
    assert order
    assert order.remove == ("id-d00",)


@pytest.mark.parametrize("gone_by", ["deletion", "kill"])
def test_a_stored_copy_is_good_though_its_job_is_lost(gone_by: str) -> None:
    world = kept_by({"last": 1}, schedule=YEARLY)
    daily(world, 2)
    world.step()
    copying(world, "now")
    world.end(report(world.now))
    world.step()
    if gone_by == "deletion":
        world.jobs.clear()
    else:
        world.end("", 137, TIDIER)
    world.step(11)
    assert world.phase("now") is BackupPhase.SUCCEEDED
    assert world.row("now").maintenance_failure


@pytest.mark.parametrize("calls", range(4))
def test_an_operator_that_dies_between_any_two_calls_leaves_nothing_behind(calls: int) -> None:
    world = kept_by({"last": 1})
    daily(world, 4)
    world.now = START + timedelta(days=4, hours=2, minutes=59)
    stored = tidied = False
    for _ in range(20):
        world.step(5, die_after=calls)
        world.step(5)
        if world.jobs and not stored:
            world.end(report(world.now))
            stored = True
        elif world.jobs and stored and not tidied:
            world.end(tidied_by(world), container=TIDIER)
            tidied = True
    assert any(name.startswith("cos-nightly-202601050300") for name in world.backups)
    assert not {"d00", "d01", "d02"} & set(world.backups)
    assert not world.jobs


def test_repositories_are_looked_after_once_at_their_time() -> None:
    world = kept_by({"last": 9}, suspend=True)
    world.spec["backup"]["maintenance"] = {"schedule": "0 4 * * 0", "readPercent": 20}
    # The first Sunday is the fourth of January.
    add(world, "first", datetime.fromisoformat("2026-01-03T03:00:00Z"))

    def copy(name: str, at: str) -> Tidy | None:
        world.now = datetime.fromisoformat(at)
        world.create(name)
        for _ in range(2):
            world.step()
        order = told(world.jobs["cos-redis-backup"], Tidy)
        world.end(report(world.now))
        world.step()
        if order:
            world.end(tidied_by(world), container=TIDIER)
        for _ in range(3):
            world.step()
        assert world.phase(name) is BackupPhase.SUCCEEDED
        return order

    assert copy("before", "2026-01-04T03:00:00Z") is None
    order = copy("after", "2026-01-04T05:00:00Z")
    assert order
    assert (order.maintain, order.part, order.parts, order.limit, order.remove) == (True, 1, 5, 3600, ())
    assert world.row("after").maintained
    assert copy("monday", "2026-01-05T05:00:00Z") is None
    assert world.row("monday").maintained == world.row("after").maintained, "what is known is handed on"
    assert world.row("monday").read_part == 1
    del world.backups["after"]
    assert copy("saturday", "2026-01-10T05:00:00Z") is None
    order = copy("sunday", "2026-01-11T05:00:00Z")
    assert order
    assert order.part == 2, "in time all of it is read"


def test_nothing_is_removed_from_a_repository_that_was_not_found_whole_until_it_is() -> None:
    world = kept_by({"last": 1}, schedule=YEARLY)
    daily(world, 5)
    failed = world.backups["d04"]["status"]["components"][0]
    failed |= {
        "maintenanceFailure": "repository contains errors",
        "readPart": 3,
        "maintained": failed["completionTime"],
    }
    world.step()
    order = copying(world, "now")
    assert order
    assert order.maintain, "the check comes first, though its time has not come again"
    assert (order.part, order.parts) == (4, 20), "and of the same part: the one after the last that was whole"
    assert len(order.remove) == 4


def test_a_stack_that_came_back_empty_does_not_push_out_what_was_lost() -> None:
    world = kept_by({"last": 2})
    for number in range(3):
        add(world, f"old{number}", START + timedelta(days=number), lineage="lost", entries=1_000_000)
    for number in range(3, 9):
        add(world, f"new{number}", START + timedelta(days=number), entries=0)
    assert "old2" not in gone(world)


def test_what_the_next_copies_cannot_remove_is_left_as_it_is() -> None:
    world = kept_by({"last": 1})
    daily(world, 3)
    world.backups["d00"]["status"]["components"][0]["place"] = "elsewhere"
    assert gone(world) == ["d01"]


@pytest.mark.parametrize("source", [{}, {"backup": "d00"}])
def test_nothing_is_removed_while_a_restore_looks_for_its_copy(source: Manifest) -> None:
    world = kept_by({"last": 1})
    daily(world, 3)
    world.step()
    assert world.phase("d00") is BackupPhase.EXPIRED
    add(world, "d03", START + timedelta(days=3))
    world.spec["paused"] = True
    world.restore("r", source=source, existingData="SetAside")
    assert gone(world) == []
    assert copying(world, "now") is None


def test_of_a_schedule_that_is_suspended_nothing_more_is_removed() -> None:
    world = kept_by({"last": 1}, schedule=YEARLY)
    daily(world, 3)
    world.step()
    world.spec["backup"]["schedules"][0]["suspend"] = True
    assert copying(world, "now") is None


def test_a_backup_that_is_being_removed_is_not_restored() -> None:
    world = kept_by({"last": 1})
    daily(world, 2)
    world.step()
    world.restore("r", backup="d00", existingData="SetAside")
    world.step()
    assert "is kept no longer" in world.restored().message
