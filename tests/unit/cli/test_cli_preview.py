"""`kubectl cos plan`: what is foretold is what the operator then does, and no Secret is in it."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from world import World

from cos_controllers.api.stack import CosStack
from cos_controllers.observation import Ref, Snapshot
from cos_operator.cli.output import plain
from cos_operator.cli.preview import Preview, preview, preview_data, preview_lines

SPEC: dict[str, Any] = {"postgres": [{"name": "prod"}], "redis": {}, "elasticsearch": {}, "traefik": {}}

EDITS: dict[str, dict[str, Any]] = {
    "a parameter": SPEC | {"redis": {"maxClients": 61}},
    "parameters of three": SPEC
    | {
        "redis": {"maxClients": 61},
        "elasticsearch": {"settings": {"action.auto_create_index": "false"}},
        "postgres": [{"name": "prod", "parameters": {"work_mem": "8MB"}}],
    },
    "all images": SPEC | {"images": {"registry": "mirror.example"}},
    "a route": SPEC | {"traefik": {"routes": [{"name": "a", "component": "elasticsearch"}]}},
    "more proxies": SPEC | {"traefik": {"replicas": 2}},
    "a proxy's resources": SPEC | {"traefik": {"resources": {"limits": {"memory": "300Mi"}}}},
    "growth": SPEC | {"redis": {"storage": {"size": "3Gi"}}},
    "another component": SPEC | {"neo4j": {}},
    "one component less": {key: value for key, value in SPEC.items() if key != "redis"},
    "no proxy": {key: value for key, value in SPEC.items() if key != "traefik"},
    "all at once": {
        "postgres": [{"name": "prod", "parameters": {"work_mem": "8MB"}}, {"name": "dev"}],
        "neo4j": {},
    },
    "how it is deleted": SPEC | {"deletionPolicy": "Delete"},
    "how much is remembered": SPEC | {"revisionHistoryLimit": 3},
    "nothing": copy.deepcopy(SPEC),
}


def lived(spec: dict[str, Any]) -> World:
    world = World(spec)
    world.converge()
    return world


def stack_with(world: World, spec: dict[str, Any]) -> CosStack:
    """The stack of a world as it would be with another spec."""
    return World(spec, status=world.status, uid=world.uid, generation=world.generation + 1).stack


def foretell(world: World, spec: dict[str, Any], **options: Any) -> Preview:
    return preview(world.stack, stack_with(world, spec), world.snapshot(), **options)


def told(found: Preview) -> str:
    return "\n".join(text for line in preview_lines(found) for text in plain(line))


def without_pods(refs: Any) -> set[tuple[str, str]]:
    return {(ref[0], ref[1]) for ref in refs if ref[0] != "Pod"}


@pytest.mark.parametrize("edit", EDITS)
def test_what_is_foretold_is_what_happens(edit: str) -> None:
    world = lived(SPEC)
    found = foretell(world, EDITS[edit])
    before = copy.deepcopy(world.objects)
    pods = world.pods()
    world.deleted.clear()
    world.spec = EDITS[edit]
    world.generation += 1
    world.converge()
    restarted = [ref.name for ref in world.deleted if ref.kind == "Pod"]
    gone = set(pods) - set(world.pods())
    rolled = {pod for pod in gone if "traefik" in pod and Ref("Deployment", "cos-traefik") in world.objects}
    kept = [item for item in found.restarts if not item.ends]
    assert [item.pod for item in kept if "traefik" not in item.pod] == restarted
    assert {item.pod for item in kept if "traefik" in item.pod} == rolled
    assert {item.pod for item in found.restarts if item.ends} == gone - rolled
    assert without_pods(found.delete) == without_pods(world.deleted)
    assert without_pods(found.create) == without_pods(set(world.objects) - set(before))
    changed = {
        ref for ref in set(before) & set(world.objects) if _intent(before[ref]) != _intent(world.objects[ref])
    }
    # What is learnt of a revision is written to it later.
    assert without_pods(found.change) == without_pods(changed) - {("ControllerRevision", name(world))}


def name(world: World) -> str:
    newest = max(
        (obj for ref, obj in world.objects.items() if ref.kind == "ControllerRevision"),
        key=lambda o: o["revision"],
    )
    return str(newest["metadata"]["name"])


def _intent(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in {"generation", "uid"}}
    return {key: value for key, value in obj.items() if key != "status"} | {"metadata": metadata}


def test_without_a_stack_everything_is_made() -> None:
    stack = World(SPEC).stack
    found = preview(None, stack, Snapshot(entropy=b"x" * 32))
    assert found.changes
    assert (found.change, found.delete, found.restarts, found.blocked) == ((), (), (), ())
    world = lived(SPEC)
    assert without_pods(found.create) == without_pods(world.objects)
    text = told(found)
    assert "no pod restarts" in text
    assert "create redis: 3 Secrets, ConfigMap, PersistentVolumeClaim, Service, StatefulSet" in text


def test_data_of_an_earlier_stack_is_named() -> None:
    world = lived({"redis": {}})
    left = {ref: obj for ref, obj in world.objects.items() if ref.kind in {"PersistentVolumeClaim", "Secret"}}
    found = preview(None, World({"redis": {}}, uid="another").stack, Snapshot(objects=left))
    assert any("begins with the data on volume cos-redis-data-0" in note for note in found.notes)


@pytest.mark.parametrize("edit", EDITS)
def test_no_value_of_a_secret_is_told(edit: str) -> None:
    world = lived(SPEC)
    found = foretell(world, EDITS[edit])
    text = told(found) + json.dumps(preview_data(found))
    values = [
        value
        for ref, obj in world.objects.items()
        if ref.kind == "Secret"
        for encoded in obj["data"].values()
        for value in (encoded, base64.b64decode(encoded).decode())
        # Host names and ports are told, and are no secret.
        if len(value) > 30
    ]
    assert values
    assert not [value for value in values if value in text]


def test_who_may_not_read_secrets_hears_nothing_of_them() -> None:
    world = lived(SPEC)
    whole = foretell(world, EDITS["all at once"])
    snapshot = world.snapshot()
    visible = Snapshot(
        objects={ref: obj for ref, obj in snapshot.objects.items() if ref.kind != "Secret"},
        checks=snapshot.checks,
        entropy=b"x" * 32,
    )
    stack = stack_with(world, EDITS["all at once"])
    found = preview(world.stack, stack, visible, hides_secrets=True)

    def others(items: Any) -> list[Any]:
        return [item for item in items if item.kind not in {"Secret", "Pod"}]

    assert found.restarts == whole.restarts
    assert found.create == tuple(others(whole.create))
    assert found.change == tuple(others(whole.change))
    assert found.delete == tuple(others(whole.delete))
    assert "Secret" not in json.dumps(preview_data(found))


def test_what_would_be_refused_is_told_in_words() -> None:
    world = lived(SPEC)
    spec = SPEC | {
        "redis": {"authSecretRef": {"name": "mine"}, "maxClients": 61},
        "elasticsearch": {"storage": {"size": "1Gi"}},
    }
    found = foretell(world, spec)
    assert [(item.component, item.reason) for item in found.blocked] == [("redis", "SecretNotFound")]
    assert [(item.component, item.reason) for item in found.shortfalls] == [
        ("elasticsearch", "ShrinkRefused")
    ]
    assert not [item for item in found.restarts if item.component == "redis"]
    assert "redis (SecretNotFound): Secret mine (authSecretRef) does not exist" in told(found)


def test_an_older_version_on_a_newer_volume_is_refused() -> None:
    world = lived({"redis": {"version": "8.4"}})
    found = foretell(world, {"redis": {"version": "8.0"}})
    assert [(item.component, item.reason) for item in found.blocked] == [("redis", "VersionRefused")]
    assert not found.restarts


def test_a_change_that_was_taken_back_is_not_foretold_again() -> None:
    world = lived(SPEC | {"progressDeadlineSeconds": 60})
    bad = SPEC | {"redis": {"image": "redis:bad"}, "progressDeadlineSeconds": 60}
    world.bad_images.add("redis:bad")
    world.spec = bad
    world.generation += 1
    world.converge()
    assert world.row("redis")["reason"] == "RolledBack"
    again = foretell(world, bad | {"traefik": {"replicas": 2}})
    assert [item.component for item in again.blocked] == ["redis"]
    assert "goes on to run until this part of the spec is another" in again.blocked[0].message
    assert not again.restarts
    mended = foretell(world, bad | {"redis": {"image": "redis:good"}})
    assert [item.pod for item in mended.restarts] == ["cos-redis-0"]
    assert not mended.blocked
    back = foretell(world, SPEC)
    assert (back.restarts, back.blocked) == ((), ()), "the good revision runs already"


def test_a_component_that_does_not_serve_is_replaced_first_or_holds_up_the_others() -> None:
    world = lived(SPEC)
    world.unready.add("elasticsearch")
    world.settle()
    world.step()
    found = foretell(world, EDITS["parameters of three"])
    assert [item.component for item in found.restarts] == ["elasticsearch", "postgres-prod", "redis"]
    other = foretell(world, EDITS["a parameter"])
    assert any("elasticsearch does not serve now" in note for note in other.notes)


def test_a_paused_stack_does_nothing_yet_and_the_plan_says_so() -> None:
    world = lived(SPEC)
    found = foretell(world, EDITS["a parameter"] | {"paused": True})
    assert [item.pod for item in found.restarts] == ["cos-redis-0"]
    assert any("nothing of this happens until" in note for note in found.notes)
    paused = World(SPEC | {"paused": True}, objects=world.objects, status=world.status)
    assert any("resumed" in note for note in foretell(paused, SPEC).notes)


def test_what_is_due_anyway_is_no_consequence_of_the_manifest() -> None:
    world = lived(SPEC)
    world.objects[Ref("ConfigMap", "cos-redis-config")]["data"]["redis.conf"] = "port 1"
    found = foretell(world, SPEC)
    assert not found.changes
    assert any("due anyway" in note and "ConfigMap cos-redis-config" in note for note in found.notes)


def test_a_restart_that_is_due_already_is_told_and_not_counted() -> None:
    world = lived(SPEC)
    world.spec = EDITS["a parameter"]
    world.generation += 1
    world.step()
    world.settle()
    found = foretell(world, EDITS["a parameter"])
    assert [(item.pod, item.due) for item in found.restarts] == [("cos-redis-0", True)]
    assert not found.changes
    assert "due already" in told(found)


def test_what_waited_for_a_component_goes_on_without_it() -> None:
    """Nothing is to be written for it any more: its pod is replaced at once."""
    world = lived(SPEC)
    both = {
        "redis": {"image": "redis:bad"},
        "elasticsearch": {"settings": {"action.auto_create_index": "false"}},
    }
    world.bad_images.add("redis:bad")
    world.spec = SPEC | both
    world.generation += 1
    for _ in range(3):
        world.step()
        world.settle()
    assert world.row("elasticsearch")["reason"] == "Waiting"
    found = foretell(world, {key: value for key, value in (SPEC | both).items() if key != "redis"})
    assert [(item.pod, item.ends, item.due) for item in found.restarts] == [
        ("cos-redis-0", True, False),
        ("cos-elasticsearch-0", False, True),
    ]
    assert not [item for item in found.delete if item.kind == "Pod"]
