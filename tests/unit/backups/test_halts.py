"""A component that is stopped while it is read: when, for how long, and that it always starts again."""

from __future__ import annotations

from typing import Any

import pytest
from backup_world import SPEC, World, report

from cos_controllers.api.backup import BackupPhase
from cos_controllers.backups.job import DUMP
from cos_controllers.k8s import Manifest
from cos_controllers.names import LABEL_SCHEDULE

JOB = "cos-neo4j-backup"


def graph(**spec: Any) -> World:
    found = World(spec={"neo4j": {}, "backup": SPEC["backup"], **spec}, component="neo4j")
    found.create("b", allowDowntime=True)
    return found


def halted(world: World) -> World:
    """A stack that has heard that its component is to be stopped."""
    world.step()
    assert world.row("b", "neo4j").halt_time
    assert not world.jobs, "not while it may write"
    world.obey()
    return world


def reading(world: World) -> World:
    halted(world).step()
    assert world.jobs
    world.step()
    world.obey()
    assert world.message("b") == "neo4j: is stopped while it is read"
    return world


def read(world: World) -> None:
    world.end("", container=DUMP, name=JOB)


def test_it_is_stopped_for_as_long_as_it_is_read_and_no_longer() -> None:
    world = reading(graph())
    assert not world.there
    assert world.phase("b") is BackupPhase.RUNNING
    read(world)
    world.step()
    world.obey()
    assert world.there, "while it is stored"
    row = world.row("b", "neo4j")
    assert row.resume_time
    assert row.phase is BackupPhase.RUNNING
    world.end(report(), name=JOB)
    world.step()
    row = world.row("b", "neo4j")
    assert row.phase is BackupPhase.SUCCEEDED
    assert (row.halt_time or "") < (row.resume_time or "") <= (row.completion_time or "")
    world.step()
    assert not world.jobs
    assert world.step().again is None


def test_its_job_writes_its_locks_to_the_volume_and_logs_in_nowhere() -> None:
    world = reading(graph())
    pod: Manifest = world.jobs[JOB]["spec"]["template"]["spec"]
    (dump,) = pod["initContainers"]
    source = next(item for item in pod["volumes"] if item["name"] == "source")
    assert source["persistentVolumeClaim"] == {"claimName": "cos-neo4j-data-0"}
    assert {item["name"]: item.get("readOnly") for item in dump["volumeMounts"]}["source"] is None
    assert "login" not in {item["name"] for item in (*pod["volumes"], *dump["volumeMounts"])}
    assert dump["securityContext"]["runAsUser"] == 7474
    assert "podAffinity" not in pod.get("affinity", {}), "nobody is there to be near to"


@pytest.mark.parametrize(
    ("spec", "components", "says"),
    [
        ({"neo4j": {}}, ["neo4j"], "spec.components: neo4j can only be copied while it is stopped: write"),
        ({"neo4j": {}}, [], "neo4j can only be copied while it is stopped: write allowDowntime: true"),
        ({"neo4j": {}, "redis": {}}, [], "allowDowntime: true, or name the components without it: redis"),
    ],
)
def test_nothing_is_stopped_that_nobody_has_allowed(spec: Manifest, components: list[str], says: str) -> None:
    world = World(spec={**spec, "backup": SPEC["backup"]}, component="neo4j")
    world.create("b", components=components)
    world.step()
    assert world.phase("b") is BackupPhase.FAILED, "no part of a set passes for the whole"
    assert says in world.message("b")


def test_components_that_need_no_stop_need_no_word() -> None:
    world = World(spec={"neo4j": {}, "redis": {}, "backup": SPEC["backup"]})
    world.create("b", components=["redis"])
    world.step()
    world.step()
    assert world.phase("b") is BackupPhase.RUNNING


@pytest.mark.parametrize("change", ["serves", "ready", "image"])
def test_it_is_not_stopped_before_all_else_is_as_it_must_be(change: str) -> None:
    world = graph()
    setattr(world, change, "" if change == "image" else False)
    world.step()
    assert not any(row.halt_time for row in world.status("b").components)


def test_in_a_paused_stack_nothing_is_stopped() -> None:
    world = graph(paused=True)
    world.step()
    assert not world.row("b", "neo4j").halt_time
    assert "spec.paused" in world.message("b")


def test_a_pod_that_does_not_go_ends_the_copy() -> None:
    world = graph()
    world.clings = True
    halted(world)
    world.step(100)
    assert world.message("b") == "neo4j: neo4j is being stopped"
    world.step(100)
    assert world.phase("b") is BackupPhase.FAILED
    assert "not stopped and read from within 150 s" in world.message("b")
    world.obey()
    assert not world.halted


def test_what_cannot_be_read_in_time_starts_again() -> None:
    world = reading(graph())
    world.step(3600)
    world.obey()
    assert world.halted
    world.step(200)
    assert world.phase("b") is BackupPhase.FAILED
    assert "not read within 3780 s" in world.message("b")
    world.obey()
    assert world.halted, "as long as its Job holds the locks"
    world.step()
    assert not world.jobs
    world.obey()
    assert world.there


def test_a_dump_that_fails_ends_the_stop() -> None:
    world = reading(graph())
    world.end("the server has not ended in order", code=1, container=DUMP, name=JOB)
    world.step(10)
    world.obey()
    assert world.there
    assert world.phase("b") is BackupPhase.FAILED
    assert "the server has not ended in order" in world.message("b")


def test_another_backup_and_a_restore_wait_for_one_that_stops() -> None:
    world = halted(graph())
    world.create("other", allowDowntime=True)
    world.step(0)
    assert "waits until b has " in world.message("other")
    assert [row.halt_time for row in world.status("other").components] == [None]


@pytest.mark.parametrize("calls", range(3))
def test_an_operator_that_dies_between_any_two_calls_goes_on(calls: int) -> None:
    world = graph()
    ended = False
    for _ in range(14):
        world.step(die_after=calls)
        world.obey()
        world.step()
        world.obey()
        if world.jobs and not ended:
            read(world)
            world.end(report(), name=JOB)
            ended = True
    assert world.phase("b") is BackupPhase.SUCCEEDED
    assert not world.jobs
    assert world.there


@pytest.mark.parametrize("steps", range(6))
def test_a_backup_that_is_deleted_at_any_step_leaves_it_running(steps: int) -> None:
    world = graph()
    for step in range(steps):
        world.step()
        world.obey()
        if step == 3:
            read(world)
    del world.backups["b"]
    for _ in range(3):
        world.step()
        world.obey()
    assert world.there
    assert not world.jobs


def test_a_schedule_passes_it_on() -> None:
    schedule = {"name": "nightly", "schedule": "0 3 * * *", "keep": {"last": 1}, "allowDowntime": True}
    world = World(
        spec={"neo4j": {}, "backup": {**SPEC["backup"], "schedules": [schedule]}}, component="neo4j"
    )
    world.step(3 * 3600 + 60)
    (made,) = world.backups.values()
    assert made["metadata"]["labels"][LABEL_SCHEDULE] == "nightly"
    assert made["spec"]["allowDowntime"] is True
