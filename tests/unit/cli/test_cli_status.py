"""`kubectl cos status`: what is said of a stack, from its live object alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from world import World

from cos_controllers.api.status import Reason
from cos_controllers.diagnose import TRANSIENT
from cos_controllers.gates import DOES_NOT_SERVE, NOT_ASKED
from cos_controllers.observation import Facts, Outcome
from cos_operator.cli.output import age, plain
from cos_operator.cli.status import MOVING, OF_THE_ROW, status_data, status_tree, verdict

SPEC: dict[str, Any] = {"postgres": [{"name": "prod"}], "redis": {}, "neo4j": {}}


def live(world: World, **metadata: Any) -> dict[str, Any]:
    """The stack as the API server would show it."""
    names = {"name": "cos", "namespace": "cos", "generation": world.generation}
    return {"metadata": names | metadata, "spec": world.spec, "status": world.status}


def text_of(stack: dict[str, Any], world: World) -> str:
    return "\n".join(plain(status_tree(stack, world.now)))


def test_a_stack_that_serves() -> None:
    world = World({"redis": {}})
    world.converge()
    world.examine()
    world.step()
    row = world.row("redis")
    world.now = datetime.fromisoformat(row["since"]) + timedelta(minutes=5)
    assert verdict(live(world)).ready
    lines = text_of(live(world), world).splitlines()
    assert lines[0] == "cos/cos  Ready  (1/1 components ready, revision 1)"
    assert [line.split()[:2] for line in lines[1:6]] == [
        ["Ready", "True"],
        ["Available", "True"],
        ["GatesPassed", "True"],
        ["Reconciling", "False"],
        ["Stalled", "False"],
    ]
    assert lines[6].split() == ["+", "redis", "8.0", "Serving", "for", "5m", "cos-redis.cos.svc:6379"]
    revision = f"    revision {row['desiredRevision']}; credentials: Secret cos-redis-app"
    assert lines[7:] == [revision]


def test_gates_that_do_not_pass_are_told_with_their_component_unless_its_reason_says_it() -> None:
    assert {DOES_NOT_SERVE, NOT_ASKED} == set(OF_THE_ROW)
    world = World({"redis": {}, "neo4j": {}})
    world.converge()
    world.examine(redis=Facts(serving="OOM command not allowed", unknown="no answer"))
    world.outcomes["neo4j"] = Outcome.NOT_ANSWERING
    world.step()
    text = text_of(live(world), world)
    assert "gate Serving Failed: OOM command not allowed" in text
    assert (
        "gates Health, ConfigurationInForce, ConnectionHeadroom, StorageHeadroom Unknown: no answer" in text
    )
    assert text.count("OOM") == 1, "not said twice"
    assert "it does not serve" not in text


def test_what_waits_says_for_what_and_shows_every_revision() -> None:
    world = World(SPEC | {"progressDeadlineSeconds": 60})
    world.converge()
    good = world.row("redis")["desiredRevision"]
    world.bad_images.add("redis:no-such-tag")
    world.generation += 1
    world.spec = SPEC | {
        "progressDeadlineSeconds": 60,
        "neo4j": {"settings": {"db.transaction.timeout": "30s"}},
        "redis": {"image": "redis:no-such-tag"},
    }
    for _ in range(3):
        world.step()
        world.settle()
    world.step()
    stack = live(world)
    found = verdict(stack)
    assert not found.ready
    assert "needs a person (ImagePullFailed)" in found.text
    told = text_of(stack, world)
    assert "! redis" in told
    assert "no image redis:no-such-tag" in told
    assert f"revisions: desired {world.row('redis')['desiredRevision']}, running" in told
    assert f"last good {good}" in told
    assert "~ neo4j" in told
    assert "a change waits until redis serves again" in told
    assert told.count("no image redis:no-such-tag") == 1, "conditions do not repeat what components say"
    world.now += timedelta(seconds=61)
    for _ in range(4):
        world.step()
        world.settle()
    assert "taken back" in text_of(live(world), world)


def test_a_volume_that_is_kept_is_listed() -> None:
    world = World(SPEC)
    world.converge()
    world.spec = {"redis": {}}
    world.generation += 1
    world.converge()
    assert "kept volume cos-postgres-prod-data-0 of postgres-prod" in text_of(live(world), world)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"status": {}}, "no operator has looked at it yet"),
        ({"metadata": {"generation": 2}}, "has not looked at the present spec yet"),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, "being deleted since 2026"),
        ({"status": {"observedGeneration": 1, "conditions": []}}, "not known"),
    ],
)
def test_ready_counts_for_the_present_spec_only(change: dict[str, Any], says: str) -> None:
    world = World({"redis": {}})
    world.converge()
    stack = live(world)
    for part, value in change.items():
        stack[part] = {**stack[part], **value} if value else {}
    found = verdict(stack)
    assert not found.ready
    assert says in found.text
    assert says in text_of(stack, world)


def test_a_paused_stack_names_the_way_on() -> None:
    world = World({"redis": {}, "paused": True})
    world.converge()
    assert "kubectl cos resume cos -n cos" in text_of(live(world), world)


def test_what_concerns_the_whole_stack_is_said_once() -> None:
    world = World(SPEC)
    world.converge()
    refused = "redis.maxClients: too large"
    conditions = [
        {**item, "status": state, "reason": "InvalidSpec", "message": refused}
        for item in world.status["conditions"]
        if (state := {"Ready": "False", "Stalled": "True"}.get(item["type"]))
    ]
    rows = [
        {**row, "ready": False, "reason": "InvalidSpec", "message": refused}
        for row in world.status["components"]
    ]
    world.status = {**world.status, "conditions": conditions, "components": rows}
    told = text_of(live(world), world)
    assert told.count(refused) == len(conditions)


def test_json_is_the_status_as_the_api_has_it() -> None:
    world = World(SPEC)
    world.converge()
    found = status_data(live(world))
    assert found["status"] == world.status
    assert found["ready"]
    assert (found["name"], found["namespace"], found["paused"]) == ("cos", "cos", False)


def test_reasons_that_go_on_by_themselves_are_the_operators() -> None:
    assert {reason.value for reason in TRANSIENT | {Reason.NOT_ANSWERING}} == MOVING


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (172799, "47h"),
        (172800, "2d"),
        (-5, "0s"),
    ],
)
def test_ages_read_as_those_of_kubectl(seconds: int, shown: str) -> None:
    now = World({"redis": {}}).now
    since = (now - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert age(since, now) == shown
    assert age(None, now) == ""
