"""Revisions: what is one, in which order they are, and what is learnt of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import World

from cos_controllers.api.common import Images
from cos_controllers.api.stack import EngineSpec
from cos_controllers.components.registry import ENGINES
from cos_controllers.history import component_revision, read_history
from cos_controllers.observation import Ref

SPECS: list[dict[str, Any]] = [{"redis": {"maxClients": number}} for number in (60, 61, 62, 63)]


def revisions(world: World) -> dict[int, dict[str, Any]]:
    return {obj["revision"]: obj for ref, obj in world.objects.items() if ref.kind == "ControllerRevision"}


def edited(world: World, spec: dict[str, Any]) -> None:
    world.spec = spec
    world.generation += 1
    world.converge()


def test_each_spec_becomes_a_revision_with_what_served() -> None:
    world = World(SPECS[0])
    world.converge()
    edited(world, SPECS[1])
    found = revisions(world)
    assert list(found) == [1, 2]
    assert world.status["revision"] == 2
    for number, maximum in ((1, 60), (2, 61)):
        assert found[number]["data"]["spec"]["redis"]["maxClients"] == maximum
        good = json.loads(found[number]["metadata"]["annotations"]["cos.dev/good"])
        assert good["redis"].startswith("redis@sha256:")
    row = world.row("redis")
    assert row["lastGoodRevision"] == row["desiredRevision"] == row["effectiveRevision"]
    assert row["desiredRevision"] == found[2]["data"]["components"]["redis"]


def test_a_spec_that_comes_back_is_the_newest_revision_again() -> None:
    world = World(SPECS[0])
    world.converge()
    first = revisions(world)[1]["metadata"]["name"]
    edited(world, SPECS[1])
    edited(world, SPECS[0])
    assert set(revisions(world)) == {2, 3}
    assert revisions(world)[3]["metadata"]["name"] == first


def test_how_a_stack_is_run_is_no_part_of_a_revision() -> None:
    world = World(SPECS[0])
    world.converge()
    conduct = {
        "deletionPolicy": "Delete",
        "progressDeadlineSeconds": 60,
        "rollback": {"mode": "Off"},
        "revisionHistoryLimit": 3,
        "probes": {"afterChange": True},
        "slo": {},
        "backup": {"repositories": [{"name": "main", "volume": {"size": "1Gi"}}]},
    }
    edited(world, SPECS[0] | conduct)
    assert set(revisions(world)) == {1}


def test_no_more_revisions_are_kept_than_asked_for() -> None:
    world = World(SPECS[0] | {"revisionHistoryLimit": 2})
    world.converge()
    for spec in SPECS[1:]:
        edited(world, spec | {"revisionHistoryLimit": 2})
    assert set(revisions(world)) == {2, 3, 4}


def test_the_revision_that_a_component_falls_back_to_is_kept() -> None:
    world = World(SPECS[0] | {"revisionHistoryLimit": 1, "rollback": {"mode": "Off"}})
    world.converge()
    world.unready.add("redis")
    for spec in SPECS[1:]:
        world.spec = spec | {"revisionHistoryLimit": 1, "rollback": {"mode": "Off"}}
        world.step()
        world.settle()
    assert set(revisions(world)) == {1, 3, 4}


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"redis": 1}', '{"redis": {"revision": "x"}}'])
def test_spoilt_annotations_are_as_none(text: str) -> None:
    world = World(SPECS[0])
    world.converge()
    obj = revisions(world)[1]
    obj["metadata"]["annotations"] = {"cos.dev/good": text, "cos.dev/failed": text}
    history = read_history(world.stack, world.snapshot())
    assert history.failure("redis") is None
    world.converge()
    annotations = revisions(world)[1]["metadata"]["annotations"]
    assert "redis" in json.loads(annotations["cos.dev/good"]), "what is learnt again is written again"


def test_someone_elses_revision_is_left_alone() -> None:
    world = World(SPECS[0])
    world.converge()
    name = revisions(world)[1]["metadata"]["name"]
    owner = {"kind": "StatefulSet", "name": "cos", "uid": "theirs", "controller": True}
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "uid": "x", "ownerReferences": [owner], "labels": {}},
        "revision": 7,
        "data": {"spec": {"template": {}}},
    }
    world.objects[Ref("ControllerRevision", name)] = theirs
    world.step()
    assert world.objects[Ref("ControllerRevision", name)] == theirs


def sections() -> list[tuple[str, EngineSpec]]:
    spec = {
        "postgres": [{"name": "prod"}],
        **{name: {} for name in ("redis", "elasticsearch", "neo4j", "traefik")},
    }
    stack = World(spec).stack.spec
    return [pair for engine in ENGINES for pair in engine.instances(stack).items()]


LIVE: dict[str, dict[str, Any]] = {
    "storage": {"storage": {"size": "77Gi"}},
    "authSecretRef": {"authSecretRef": {"name": "mine"}},
    "replicas": {"replicas": 3},
    "service": {"service": {"type": "NodePort"}},
    "routes": {"routes": [{"name": "a", "service": {"name": "web", "port": 80}}]},
}


@pytest.mark.parametrize(("component", "section"), sections(), ids=lambda value: str(value)[:20])
def test_live_fields_change_no_pod_and_no_revision(component: str, section: EngineSpec) -> None:
    """A field is live exactly if neither the revision nor the rendered template depends on it."""
    raw = section.model_dump(by_alias=True, mode="json", exclude_none=True)
    for change in LIVE.values():
        (name,) = change
        if name not in {field.alias for field in type(section).model_fields.values()}:
            continue
        changed = type(section).model_validate({**raw, **change})
        assert component_revision(changed, Images()) == component_revision(section, Images())
        world = World(_stack_of(component, raw))
        before = _template(world, component)
        world.spec = _stack_of(component, {**raw, **change})
        world.references["mine"] = {"data": {"password": "Y29ycmVjdC1ob3JzZQ=="}}
        assert _template(world, component) == before, name


def _stack_of(component: str, section: dict[str, Any]) -> dict[str, Any]:
    return {"postgres": [section]} if component.startswith("postgres") else {component: section}


def _template(world: World, component: str) -> Any:
    world.objects.clear()
    world.status = {}
    world.step()
    kind = "Deployment" if component == "traefik" else "StatefulSet"
    template = world.objects[Ref(kind, f"cos-{component}")]["spec"]["template"]
    return {**template, "metadata": {**template["metadata"], "annotations": None}}


@given(number=st.integers(min_value=1, max_value=10000))
def test_every_other_field_makes_a_revision(number: int) -> None:
    world = World({"redis": {}})
    spec = world.stack.spec.redis
    assert spec
    other = spec.model_copy(update={"max_clients": number})
    same = number == spec.max_clients
    assert (component_revision(other, Images()) == component_revision(spec, Images())) is same


def test_revisions_do_not_change_with_a_version_of_the_operator() -> None:
    """These are stored in clusters. A change here restarts every engine when the operator is upgraded."""
    assert {name: component_revision(section, Images()) for name, section in sections()} == RECORDED


RECORDED = {
    "postgres-prod": "94def9c055",
    "redis": "f2ed75e116",
    "elasticsearch": "ef4e7313ac",
    "neo4j": "57ea3875c5",
    "traefik": "c1af870117",
}
