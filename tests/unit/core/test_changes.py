"""What is written, and what a new version of the operator leaves alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from world import World

from cos_controllers.components import redis, traefik
from cos_controllers.components.base import Blueprint, Context
from cos_controllers.conditions import refusal
from cos_controllers.observation import Ref, ref_of

SPEC: dict[str, Any] = {"redis": {}, "traefik": {}}
CLAIM = Ref("PersistentVolumeClaim", "cos-redis-data-0")


def ready_world() -> World:
    world = World(SPEC)
    world.converge()
    return world


def upgrade_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that renders other pods, and other files for them, from the same spec."""
    for engine in (redis.Redis, traefik.Traefik):

        def render(self: Any, context: Context, _old: Any = engine.render) -> Blueprint:
            blueprint: Blueprint = _old(self, context)
            return replace(blueprint, grace_seconds=77, config={**blueprint.config, "new": "file"})

        monkeypatch.setattr(engine, "render", render)


def test_a_new_version_of_the_operator_restarts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ready_world()
    pods = world.pods()
    upgrade_operator(monkeypatch)
    world.converge()
    assert world.pods() == pods
    assert world.condition("Ready")["status"] == "True"
    stateful = world.objects[Ref("StatefulSet", "cos-redis")]["spec"]
    assert stateful["template"]["spec"]["terminationGracePeriodSeconds"] == 77
    assert world.objects[Ref("Deployment", "cos-traefik")]["spec"]["paused"] is True
    # With the next change it comes into force.
    world.spec = {**SPEC, "traefik": {"resources": {"limits": {"memory": "300Mi"}}}}
    world.converge()
    assert world.condition("Ready")["status"] == "True"
    assert "paused" not in world.objects[Ref("Deployment", "cos-traefik")]["spec"]
    changed = [name for name, uid in world.pods().items() if pods.get(name) != uid]
    assert [name.rpartition("-")[0][:11] for name in changed] == ["cos-traefik"]


@pytest.mark.parametrize(
    ("kind", "name", "field", "value"),
    [
        ("StatefulSet", "cos-redis", "podManagementPolicy", "OrderedReady"),
        ("StatefulSet", "cos-redis", "serviceName", "other"),
        ("StatefulSet", "cos-redis", "selector", {"matchLabels": {"app": "redis"}}),
    ],
)
def test_what_cannot_be_changed_is_made_anew_around_its_pods(
    kind: str, name: str, field: str, value: Any
) -> None:
    world = ready_world()
    pods = world.pods()
    workload = world.objects[Ref(kind, name)]
    uid, wanted = workload["metadata"]["uid"], workload["spec"][field]
    workload["spec"][field] = value
    decided = world.step()
    assert [(item.ref, item.orphan) for item in decided.deletes] == [(Ref(kind, name), True)]
    assert decided.applies == ()
    world.converge()
    assert world.objects[Ref(kind, name)]["spec"][field] == wanted
    assert world.objects[Ref(kind, name)]["metadata"]["uid"] != uid
    assert world.pods() == pods
    assert world.condition("Ready")["status"] == "True"


def test_a_volume_that_grows_is_said_until_it_has_grown() -> None:
    world = ready_world()
    world.spec = {**SPEC, "redis": {"storage": {"size": "2Gi"}}}
    world.step()
    claim = world.objects[CLAIM]
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
    waiting = {"type": "FileSystemResizePending", "status": "True", "message": "waiting for the node"}
    claim["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}, "conditions": [waiting]}
    world.step()
    row = world.row("redis")
    assert (row["reason"], row["ready"]) == ("VolumeResizing", False)
    assert "grows from 1Gi to 2Gi: waiting for the node" in row["message"]
    assert world.condition("Available")["status"] == "True"
    assert world.condition("Stalled")["status"] == "False"
    claim["status"] = {"phase": "Bound", "capacity": {"storage": "2048Mi"}}
    world.step()
    assert world.row("redis")["reason"] == "Serving"


def test_a_volume_that_may_not_grow_is_told_from_other_refusals() -> None:
    words = (
        'persistentvolumeclaims "x" is forbidden: only dynamically provisioned pvc can be resized and the '
        "storageclass that provisions the pvc must support resize"
    )
    assert refusal(CLAIM, words).reason == "GrowthRefused"
    assert "write the old storage.size back" in refusal(CLAIM, words).message
    assert refusal(CLAIM, "exceeded quota").reason == "ApplyRefused"
    assert refusal(Ref("Secret", "x"), words).reason == "ApplyRefused"


def test_a_refused_growth_holds_nothing_else_back() -> None:
    world = ready_world()
    world.spec = {**SPEC, "redis": {"storage": {"size": "2Gi"}, "maxClients": 60}}
    applies = world.decide().applies
    assert {item.obj["kind"]: item.vital for item in applies} == {
        "ControllerRevision": False,
        "ConfigMap": True,
        "PersistentVolumeClaim": False,
        "StatefulSet": True,
    }
    for apply in applies:
        if apply.obj["kind"] != "PersistentVolumeClaim":
            world.perform(apply)
    world.settle()
    decided = world.decide()
    assert [ref_of(item.obj) for item in decided.applies] == [CLAIM], "tried again"
    assert [item.ref for item in decided.deletes] == [Ref("Pod", "cos-redis-0")]
