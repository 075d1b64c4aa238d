"""A component whose volume is exchanged: one that is being filled is nobody's, and none is given up unasked."""

from __future__ import annotations

from typing import Any

import pytest
from world import World, copied

from cos_controllers.names import ANNOTATION_CANDIDATE
from cos_controllers.observation import Ref

OLD, NEW = Ref("PersistentVolumeClaim", "cos-redis-data-0"), Ref("PersistentVolumeClaim", "cos-redis-data-1")
POD = Ref("Pod", "cos-redis-0")


def with_candidate() -> World:
    world = World({"redis": {}})
    world.converge()
    claim = copied(world.objects[OLD])
    claim["metadata"] |= {"name": NEW.name, "uid": "new", "annotations": {ANNOTATION_CANDIDATE: "restore"}}
    world.objects[NEW] = claim
    return world


def taken(world: World) -> World:
    world.objects[NEW]["metadata"]["annotations"] = {}
    world.converge()
    return world


def mounted(world: World) -> Any:
    return world.objects[POD]["spec"]["volumes"]


def claims(world: World) -> list[str]:
    return [v["persistentVolumeClaim"]["claimName"] for v in mounted(world) if "persistentVolumeClaim" in v]


def retained(world: World) -> list[str]:
    return [row["claim"] for row in world.status.get("retained") or []]


def test_a_volume_that_is_being_filled_changes_nothing() -> None:
    world = with_candidate()
    before = world.pods()
    world.converge()
    assert (world.pods(), claims(world)) == (before, [OLD.name])
    assert retained(world) == [NEW.name], "it is told of, and left alone"


def test_one_that_is_taken_replaces_the_pod_once_and_the_old_one_is_kept() -> None:
    world = with_candidate()
    before = world.pods()
    taken(world)
    assert world.pods() != before
    assert claims(world) == [NEW.name]
    assert world.condition("Ready")["status"] == "True"
    assert (OLD in world.objects, retained(world)) == (True, [OLD.name])
    assert world.row("redis").get("failedRevision") is None, "no change of the spec has failed"


def test_the_way_back_is_the_same() -> None:
    world = taken(with_candidate())
    world.objects[NEW]["metadata"]["annotations"] |= {ANNOTATION_CANDIDATE: "restore"}
    world.converge()
    assert claims(world) == [OLD.name]
    assert world.condition("Ready")["status"] == "True"


def test_a_lost_volume_is_not_silently_replaced_by_the_one_before_it() -> None:
    world = taken(with_candidate())
    del world.objects[NEW]
    for _ in range(3):
        world.step()
    row = world.row("redis")
    assert row["reason"] == "VolumeLost"
    assert f"volume {NEW.name} is gone" in row["message"]
    assert f"to begin with volume {OLD.name}, which was there before it" in row["message"]


@pytest.mark.parametrize("filled", [False, True])
def test_a_lost_volume_is_replaced_by_one_that_was_restored(filled: bool) -> None:  # noqa: FBT001
    world = with_candidate()
    del world.objects[OLD]
    del world.objects[POD]
    if filled:
        world.objects[NEW]["metadata"]["annotations"] = {}
        world.converge()
        assert claims(world) == [NEW.name]
    else:
        world.step()
        assert world.row("redis")["reason"] == "VolumeLost"


def test_a_volume_that_goes_with_its_pod_is_not_given_up_for_another() -> None:
    world = with_candidate()
    world.objects[OLD]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.objects[NEW]["metadata"]["annotations"] = {}
    before = world.pods()
    for _ in range(4):
        world.step()
        world.settle()
    assert world.pods() == before
    assert world.row("redis")["reason"] == "VolumeTerminating"


def test_what_is_there_is_not_said_to_be_gone() -> None:
    world = taken(with_candidate())
    world.objects[NEW]["metadata"]["annotations"] |= {ANNOTATION_CANDIDATE: "restore"}
    del world.objects[OLD]
    world.step()
    row = world.row("redis")
    assert row["reason"] == "VolumeLost"
    assert f"volume {OLD.name} is gone, and {NEW.name} is of a restore that failed" in row["message"]
