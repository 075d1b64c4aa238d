"""Restores of what a repository has: which copies are found, which are chosen, and what follows."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from backup_world import LINEAGE, PLACE, SPEC, START, World

from cos_controllers.api.restore import RestorePhase
from cos_controllers.backups.job import FINDER, LOAD, told
from cos_controllers.backups.order import Fetch, Find
from cos_controllers.backups.report import LIMIT, MOST_FOUND, Facts, FoundCopies, FoundCopy
from cos_controllers.backups.restoring import choice
from cos_controllers.conditions import timestamp
from cos_controllers.k8s import Manifest
from cos_operator.backup.files import CopyError
from cos_operator.backup.runner import chosen
from cos_operator.backup.with_restic import found_in as copy_of

LOADED = json.dumps({"entries": 3})


def copy(backup: str = "nightly", minute: int = 0, **changes: Any) -> FoundCopy:
    moment = int((START - timedelta(days=1)).timestamp()) + 60 * minute
    facts = Facts(entries=3, moment=moment, version="8.0.2", bytes=1000, sha256="a" * 64)
    made = {
        "snapshot": f"of-minute-{minute}",
        "backup": backup,
        "lineage": "lost",
        "facts": facts,
        "key": "00ff",
    }
    return FoundCopy(**{**made, **changes})


def found(*copies: FoundCopy) -> str:
    return FoundCopies(copies=copies).model_dump_json()


def searching(source: Manifest | None = None, **spec: Any) -> World:
    world = World()
    world.restore("r", source=source or {}, existingData="SetAside", **spec)
    for _ in range(2):
        world.step()
    return world


def test_what_a_repository_has_is_found_and_then_restored_as_any_other() -> None:
    world = searching()
    order = told(world.jobs["cos-redis-backup"], Find)
    assert order
    assert (order.repository, order.backup) == ("/repository/cos/cos/redis", "")
    assert order.before == int(START.timestamp()), (
        "no later than the restore: not what an empty stack has copied"
    )
    assert world.restored().phase is RestorePhase.PENDING
    assert "the newest copy is looked for" in world.restored().message
    world.end(found(copy(minute=5), copy("older")), container=FINDER)
    world.step()
    (row,) = world.restored().components
    assert row.source
    assert (row.source.snapshot, row.source.lineage, row.source.place) == ("of-minute-5", "lost", PLACE)
    assert row.message == "the copy of nightly is chosen"
    assert world.jobs, "its result is stored before it goes"
    for _ in range(5):
        world.step()
    fetch = told(world.jobs["cos-redis-backup"], Fetch)
    assert fetch
    assert (fetch.snapshot, fetch.repository) == ("of-minute-5", "/repository/cos/cos/redis")
    world.end(LOADED, container=LOAD)
    for _ in range(2):
        world.step()
    world.switch()
    for _ in range(2):
        world.step()
    assert world.restored().phase is RestorePhase.SUCCEEDED
    assert world.current() == "cos-redis-data-1"
    assert not world.jobs


def test_where_and_what_to_look_for_is_told_to_the_job() -> None:
    source = {"repository": "away", "namespace": "shop", "stack": "old", "backup": "b7"}
    world = searching(source | {"before": "2025-12-31T00:00:00Z"})
    order = told(world.jobs["cos-redis-backup"], Find)
    assert order
    assert order.repository.endswith("/backups/cos/prod/shop/old/redis")
    assert (order.backup, order.before) == ("b7", int(START.timestamp()) - 24 * 3600)
    assert world.restored().repository == "away"


@pytest.mark.parametrize("calls", range(3))
def test_an_operator_that_dies_between_any_two_calls_goes_on(calls: int) -> None:
    world = World()
    world.restore("r", source={}, existingData="SetAside")
    for _ in range(24):
        world.step(die_after=calls)
        world.step()
        for job in list(world.jobs.values()):
            if job.get("status"):
                continue
            is_search = told(job, Find) is not None
            world.end(found(copy()) if is_search else LOADED, container=FINDER if is_search else LOAD)
        world.switch()
    assert world.restored().phase is RestorePhase.SUCCEEDED
    assert sorted(world.claims) == ["cos-redis-backup-main", "cos-redis-data-0", "cos-redis-data-1"]
    assert not world.jobs


def test_a_search_that_fails_says_why_and_changes_nothing() -> None:
    world = searching()
    world.end("the repository has 0 copies of it, and none that is asked for", 1, FINDER)
    world.step(11)
    world.step()
    assert world.restored().phase is RestorePhase.FAILED
    assert "container find ended with Error (1): the repository has 0 copies" in world.restored().message
    assert sorted(world.claims) == ["cos-redis-backup-main", "cos-redis-data-0"]
    assert not world.jobs


@pytest.mark.parametrize("text", ["{}", "no JSON", '{"copies": []}'])
def test_a_report_that_is_none_finds_nothing(text: str) -> None:
    world = searching()
    world.end(text, container=FINDER)
    world.step()
    assert "its report cannot be read" in world.restored().message


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"source": {"repository": "other"}}, "the stack has no repository other"),
        ({"source": {}, "components": ["neo4j"]}, "the stack has no neo4j"),
    ],
)
def test_what_is_not_there_is_told_at_once(spec: Manifest, says: str) -> None:
    world = World()
    world.restore("r", **spec)
    world.step()
    assert says in world.restored().message
    assert world.restored().phase is RestorePhase.FAILED


def test_data_is_not_put_aside_unless_somebody_says_so() -> None:
    world = World()
    world.restore("r", source={})
    world.step()
    assert world.restored().phase is RestorePhase.FAILED
    assert "write existingData: SetAside" in world.restored().message
    assert not world.jobs
    assert sorted(world.claims) == ["cos-redis-backup-main", "cos-redis-data-0"]


def test_a_search_that_does_not_go_away_is_not_waited_for_for_ever() -> None:
    world = searching(startingDeadlineSeconds=60)
    world.end(found(copy()), container=FINDER)
    world.step()
    world.jobs["cos-redis-backup"]["metadata"]["deletionTimestamp"] = timestamp(world.now)
    world.step(30)
    assert "its copy is chosen" in world.restored().message
    world.step(60)
    assert world.restored().phase is RestorePhase.FAILED


def test_what_belongs_together_is_restored_together_or_not_at_all() -> None:
    world = World(spec=SPEC | {"redis": {}, "elasticsearch": {}})
    world.restore("r", source={}, existingData="SetAside", startingDeadlineSeconds=60)
    for _ in range(2):
        world.step()
    world.end(found(copy()), container=FINDER)
    world.step()
    rows = {row.name: row for row in world.restored().components}
    assert rows["redis"].source is None, "it waits for the other one"
    for _ in range(3):
        world.step(30)
    rows = {row.name: row for row in world.restored().components}
    assert "not begun within 60 s" in rows["elasticsearch"].message
    assert "not restored, since elasticsearch cannot be" in rows["redis"].message
    assert world.restored().phase is RestorePhase.FAILED
    assert sorted(world.claims) == ["cos-redis-backup-main", "cos-redis-data-0"]


def test_what_belongs_together_is_chosen_together() -> None:
    redis = (copy("by-hand", 9), copy("night", 5), copy("evening", 1))
    graph = (copy("night", 6), copy("evening", 2))
    assert {name: item.backup for name, item in choice({"redis": redis, "neo4j": graph}).items()} == {
        "redis": "night",
        "neo4j": "night",
    }
    apart = choice({"redis": redis[:1], "neo4j": graph[:1]})
    assert (apart["redis"].backup, apart["neo4j"].backup) == ("by-hand", "night")
    assert choice({"redis": redis})["redis"].backup == "by-hand"
    twice = (copy("upgrade", 9), copy("x", 5), copy("upgrade", 1))
    assert choice({"redis": twice})["redis"].facts.moment == twice[0].facts.moment, "of one name the newest"


def snapshot(number: int, moment: int = 0, **tags: str) -> Manifest:
    known = {"backup": f"b{number}", "engine": "redis", "lineage": LINEAGE, "key": "00ff", "entries": "3"}
    known |= {"moment": str(moment or 1000 + number), "version": "8.0.2", "bytes": "9", "sha256": "a" * 64}
    return {"id": f"{number:064}", "tags": [f"{name}={value}" for name, value in {**known, **tags}.items()]}


def found_in(snapshots: list[Manifest], order: Find) -> FoundCopies:
    return chosen(filter(None, map(copy_of, snapshots)), order)


def order(**what: Any) -> Find:
    return Find(repository="/r", limit=60, **what)


def test_the_newest_that_is_asked_for_comes_first_and_the_report_has_room() -> None:
    many = [snapshot(number, backup="b" * 63, lineage="l" * 63) for number in range(30)]
    copies = found_in(many, order())
    assert [item.facts.moment for item in copies.copies] == [1029 - back for back in range(MOST_FOUND)]
    assert len(copies.model_dump_json()) <= LIMIT
    assert found_in(many, order(before=1003)).copies[0].facts.moment == 1003
    assert [item.backup for item in found_in([snapshot(1), snapshot(2)], order(backup="b1")).copies] == ["b1"]


def test_what_nobody_can_tell_is_no_copy() -> None:
    strange: list[Manifest] = [
        {"id": "a" * 64},
        {"id": "b" * 64, "tags": ["mine"]},
        snapshot(1, sha256="short"),
    ]
    with pytest.raises(CopyError, match="has 0 copies of it"):
        found_in(strange, order())
    assert len(found_in([*strange, snapshot(2)], order()).copies) == 1
