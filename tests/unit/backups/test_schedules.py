"""Backups that are made by themselves: when, once, and in time or not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from backup_world import SPEC, START, World, report
from hypothesis import given
from hypothesis import strategies as st

from cos_controllers.api.backup import BackupPhase
from cos_controllers.api.schedule import Times, is_cron, is_time_zone
from cos_controllers.backups.schedules import due, until_due
from cos_controllers.conditions import timestamp
from cos_controllers.cron import following, latest
from cos_controllers.k8s import Manifest
from cos_controllers.timetable import late

HOURLY: Manifest = {"name": "hourly", "schedule": "30 * * * *", "keep": {"last": 3}}


def scheduled(*schedules: Manifest, **fields: Any) -> World:
    backup = SPEC["backup"] | {"schedules": list(schedules or [HOURLY])}
    return World(spec=SPEC | {"backup": backup}, **fields)


def names(world: World, now: datetime | None = None) -> list[str]:
    """Without the mark at their ends."""
    return [item["metadata"]["name"].rpartition("-")[0] for item in due(world.seen(), now or world.now)]


def run(world: World, *, code: int = 0) -> None:
    """The backup that is under way ends."""
    for _ in range(3):
        world.step()
    world.end(report() if not code else "no", code)
    for _ in range(3):
        world.step(11)


def test_one_is_made_at_its_time_and_only_then() -> None:
    world = scheduled()
    assert world.step(29 * 60).create == ()
    assert world.step(30).again == 30, "the next look is at its time"
    world.step(30)
    (name,) = world.backups
    assert name.startswith("cos-hourly-202601010030-")
    spec = world.backups[name]["spec"]
    assert (spec["stackRef"], spec["components"]) == ({"name": "cos"}, [])
    assert (spec["startingDeadlineSeconds"], spec["activeDeadlineSeconds"]) == (3600, 3600)
    run(world)
    assert world.phase(name) is BackupPhase.SUCCEEDED
    assert world.step(60).create == ()
    world.now = START.replace(hour=1, minute=30)
    world.step(0)
    assert [item.rpartition("-")[0] for item in sorted(world.backups)] == [
        "cos-hourly-202601010030",
        "cos-hourly-202601010130",
    ]


def test_what_was_missed_is_made_up_for_once_within_its_deadline() -> None:
    world = scheduled(HOURLY | {"startingDeadlineSeconds": 600})
    assert names(world, START.replace(hour=7, minute=39)) == ["cos-hourly-202601010730"]
    assert names(world, START.replace(hour=7, minute=40)) == []


def test_a_new_stack_has_missed_nothing() -> None:
    world = scheduled()
    assert names(world, START + timedelta(minutes=1)) == []


def test_one_that_is_deleted_is_not_made_again() -> None:
    world = scheduled()
    world.step(30 * 60)
    world.backups.clear()
    assert world.step().create == ()
    assert names(world, START.replace(hour=1, minute=30)) == ["cos-hourly-202601010130"]


def test_one_waits_for_the_one_before_it_and_not_for_those_of_other_schedules() -> None:
    world = scheduled(HOURLY, {"name": "nightly", "schedule": "31 0 * * *", "keep": {"daily": 2}})
    world.step(30 * 60)
    world.step(60)
    assert [item.rpartition("-")[0] for item in sorted(world.backups)] == [
        "cos-hourly-202601010030",
        "cos-nightly-202601010031",
    ]
    assert names(world, START.replace(hour=1, minute=30)) == [], "it goes on"


@pytest.mark.parametrize("change", [{"suspend": True}, {"schedule": "30 5 * * *"}])
def test_none_is_made_of_one_that_is_suspended_or_not_due(change: Manifest) -> None:
    assert names(scheduled(HOURLY | change), START.replace(hour=2, minute=30)) == []


def test_without_schedules_there_is_no_look_ahead() -> None:
    assert World().step().again is None


def test_jitter_is_always_the_same_and_within_what_is_allowed() -> None:
    world = scheduled(HOURLY | {"jitterSeconds": 600})
    stack = world.seen().stack
    assert stack
    left = until_due(stack, START)
    assert left
    assert 30 * 60 <= left <= 40 * 60
    assert names(world, START + timedelta(seconds=left - 1)) == []
    assert len(names(world, START + timedelta(seconds=left))) == 1


def test_the_clock_of_a_time_zone_counts() -> None:
    berlin = {"name": "nightly", "schedule": "0 3 * * *", "timeZone": "Europe/Berlin", "keep": {"last": 1}}
    assert names(scheduled(berlin), datetime(2026, 7, 2, 1, 0, tzinfo=UTC)) == ["cos-nightly-202607020100"]
    assert names(scheduled(berlin), datetime(2026, 12, 2, 2, 0, tzinfo=UTC)) == ["cos-nightly-202612020200"]


def test_where_the_clock_is_put_back_a_daily_one_is_made_once() -> None:
    times = Times(schedule="30 2 * * *", time_zone="Europe/Berlin")
    moment, found = datetime(2026, 10, 24, 12, tzinfo=UTC), []
    for _ in range(2):
        following_one = following(times, moment)
        assert following_one
        moment = following_one
        found.append(moment)
    assert found[1] - found[0] >= timedelta(hours=24)
    assert [item.day for item in found] == [25, 26]


@given(
    st.sampled_from(["*/5 * * * *", "0 3 * * *", "30 2 * * 0", "0 0 1 * *", "15 2,14 * * 1-5"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia"]),
    st.integers(0, 5 * 365 * 24 * 3600).map(lambda seconds: START + timedelta(seconds=seconds)),
)
def test_the_newest_moment_is_the_one_before_the_next(expression: str, zone: str, now: datetime) -> None:
    times = Times(schedule=expression, time_zone=zone)
    before, after = latest(times, now), following(times, now)
    assert before
    assert after
    assert before <= now < after
    assert latest(times, after) == after


def test_who_has_not_succeeded_twice_in_time_is_late() -> None:
    world = scheduled()
    world.step(30 * 60)
    run(world)
    stack = world.seen().stack
    assert stack
    patience = timedelta(seconds=3 * 3600)
    second = START.replace(hour=2, minute=30) + patience
    backups = world.seen().backups
    assert late(stack, backups, [], second - timedelta(seconds=1)) == []
    ((name, since),) = late(stack, backups, [], second)
    assert (name, since) == ("hourly", START.replace(minute=30))


def test_one_that_never_succeeds_is_late_from_when_the_spec_was_touched_last() -> None:
    world = scheduled()
    touched = START + timedelta(days=5)
    world.touched = timestamp(touched)
    stack = world.seen().stack
    assert stack
    second = touched + timedelta(hours=1, minutes=30) + timedelta(hours=3)
    assert late(stack, [], [], second - timedelta(seconds=10)) == []
    assert [item.since for item in late(stack, [], [], second)] == [touched]
    world.now = touched + timedelta(minutes=29, seconds=59)
    world.step()
    run(world, code=1)
    (name,) = world.backups
    assert world.phase(name) is BackupPhase.FAILED
    assert late(stack, world.seen().backups, [], second)


def test_two_stacks_whose_names_run_into_each_other_make_two_names() -> None:
    def made(stack: str, schedule: str) -> str:
        world = scheduled(HOURLY | {"name": schedule})
        seen = world.seen()
        assert seen.stack
        metadata = seen.stack.metadata.model_copy(update={"name": stack, "uid": stack})
        named = replace(seen, stack=seen.stack.model_copy(update={"metadata": metadata}))
        (found,) = due(named, START + timedelta(minutes=30))
        return str(found["metadata"]["name"])

    assert made("a", "b-c") != made("a-b", "c")
    assert len(made("s" * 30, "n" * 14)) == 63


@pytest.mark.parametrize("text", ["0 3 * * *", "*/15 0-6 1,15 jan-jun MON,fri", "0 0 29 2 *"])
def test_what_cron_knows_is_a_schedule(text: str) -> None:
    assert is_cron(text)


@pytest.mark.parametrize(
    "text", ["", "@daily", "0 3 * *", "61 * * * *", "5-1 * * * *", "0 0 31 2 *", "0 3 * * *\n", "0 0 * * * *"]
)
def test_what_it_does_not_know_or_never_comes_is_none(text: str) -> None:
    assert not is_cron(text)


def test_time_zones_are_those_of_the_database() -> None:
    assert is_time_zone("Europe/Berlin")
    assert not any(map(is_time_zone, ["Mars/Base", "../etc/passwd", "/etc/localtime", "", "Local", "+02:00"]))
