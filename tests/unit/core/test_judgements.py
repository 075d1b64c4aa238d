"""What a gate says of what an engine was found to be like."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import START, World, as_expected

from cos_controllers.api.status import GateName, GateStatus, Verdict
from cos_controllers.conditions import timestamp
from cos_controllers.gates import (
    DOUBTS,
    NOT_LOOKED_AT,
    RELOAD_LIMIT,
    RELOADING,
    RENDERED_ANEW,
    Known,
    judge,
    learnt,
)
from cos_controllers.names import ANNOTATION_CONFIGURATION, ANNOTATION_TEMPLATE
from cos_controllers.observation import Expectation, Facts, Outcome, Ref, RouteTarget, Usage
from cos_controllers.resolve import resolve

ROUTES = (RouteTarget("api", "", "/api", ""), RouteTarget("search", "", "/search", "elasticsearch"))
ALL = Expectation(tuple(GateName), {"marker": "1"}, routes=ROUTES)
IN_ORDER = as_expected(ALL)


def verdicts(facts: Facts | None, expected: Expectation = ALL, *before: GateStatus) -> dict[str, str]:
    """Verdict and message of each gate that does not pass."""
    return {
        found.name: f"{found.verdict}: {found.message}"
        for found in judge(expected, facts, before, START)
        if found.verdict is not Verdict.PASSED
    }


def status(name: GateName, verdict: Verdict, message: str = "", age: timedelta = timedelta()) -> GateStatus:
    return GateStatus(name=name, verdict=verdict, message=message, since=timestamp(START - age))


def test_what_is_in_order_passes_every_gate() -> None:
    assert verdicts(IN_ORDER) == {}


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"serving": "OOM"}, {"Serving": "Failed: OOM"}),
        ({"troubles": ("one", "two")}, {"Health": "Failed: one; two"}),
        (
            {"configuration": {"marker": "2"}},
            {
                "ConfigurationInForce": "Failed: the engine runs with another configuration than was rendered: "
                "marker is 2, not 1"
            },
        ),
        (
            {"configuration": {}},
            {
                "ConfigurationInForce": "Failed: the engine runs with another configuration than was rendered: "
                "marker is not set, not 1"
            },
        ),
        (
            {"connections": Usage(8, 10)},
            {"ConnectionHeadroom": "Failed: 80 % of the connections for applications or more are taken"},
        ),
        (
            {"connections": Usage(60, 50)},
            {"ConnectionHeadroom": "Failed: 80 % of the connections for applications or more are taken"},
        ),
        ({"storage": Usage(80, 100)}, {"StorageHeadroom": "Failed: 80 % of the volume or more are taken"}),
        ({"storage": Usage(79, 100)}, {}),
        ({"connections": Usage(1, 0)}, {"ConnectionHeadroom": "Unknown: the engine did not say"}),
        (
            {"routes": {"api": "HTTP 502", "search": None}},
            {"RoutesAnswer": "Failed: route api: HTTP 502"},
        ),
        (
            {"routes": {"api": "", "search": None}},
            {"RoutesAnswer": "Unknown: waits until the component behind it serves: route search"},
        ),
        ({"routes": {"api": ""}}, {"RoutesAnswer": "Unknown: not tried yet: route search"}),
        ({"routes": {"api": "", "search": "", "gone": "HTTP 502"}}, {}),
        ({"serving": None, "unknown": "no room"}, {"Serving": "Unknown: no room"}),
    ],
)
def test_each_gate_says_what_is_wrong_and_no_other_does(facts: dict[str, Any], told: dict[str, str]) -> None:
    assert verdicts(replace(IN_ORDER, **facts)) == told


def test_nothing_known_passes_nothing() -> None:
    assert set(verdicts(Facts(unknown="no answer")).values()) == {"Unknown: no answer"}
    assert set(verdicts(None).values()) == {f"Unknown: {NOT_LOOKED_AT}"}
    assert set(verdicts(None)) == set(GateName)


@pytest.mark.parametrize(
    ("name", "field"), [(GateName.CONNECTION_HEADROOM, "connections"), (GateName.STORAGE_HEADROOM, "storage")]
)
def test_what_hovers_at_a_limit_does_not_turn_its_gate_each_time(name: GateName, field: str) -> None:
    said = []
    before = status(name, Verdict.PASSED)
    for used in (79, 80, 79, 80, 76, 75, 74, 76, 79, 80):
        (found,) = judge(Expectation((name,)), Facts(**{field: Usage(used, 100)}), [before], START)
        before = status(name, found.verdict, found.message)
        said.append(found.verdict is Verdict.PASSED)
    assert said == [True, False, False, False, False, False, True, True, True, False]


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.sampled_from(Verdict))
def test_a_headroom_never_passes_at_its_limit_and_never_fails_below_the_lower_one(
    used: int, limit: int, earlier: Verdict
) -> None:
    name = GateName.STORAGE_HEADROOM
    (found,) = judge(Expectation((name,)), Facts(storage=Usage(used, limit)), [status(name, earlier)], START)
    assert found.verdict is not Verdict.UNKNOWN
    if used / limit >= 0.8:
        assert found.verdict is Verdict.FAILED
    if used / limit < 0.75:
        assert found.verdict is Verdict.PASSED


def test_a_new_configuration_that_is_read_while_the_engine_runs_has_its_time() -> None:
    name = GateName.CONFIGURATION_IN_FORCE
    expected = Expectation((name,), {"routes": "new"}, reloads=True)
    old = Facts(configuration={"routes": "old"})
    assert verdicts(old, expected, status(name, Verdict.PASSED)) == {name: f"Unknown: {RELOADING}"}
    waits = status(name, Verdict.UNKNOWN, RELOADING, RELOAD_LIMIT - timedelta(seconds=1))
    assert verdicts(old, expected, waits) == {name: f"Unknown: {RELOADING}"}
    late = status(name, Verdict.UNKNOWN, RELOADING, RELOAD_LIMIT)
    assert verdicts(old, expected, late)[name].startswith("Failed: ")
    (given_up,) = judge(expected, old, [late], START)
    assert verdicts(old, expected, status(name, Verdict.FAILED, given_up.message))[name].startswith(
        "Failed: "
    )
    newer = replace(expected, configuration={"routes": "newer"})
    assert verdicts(old, newer, status(name, Verdict.FAILED, given_up.message)) == {
        name: f"Unknown: {RELOADING}"
    }
    other = status(name, Verdict.UNKNOWN, "it does not serve: Starting", RELOAD_LIMIT * 9)
    assert verdicts(old, expected, other) == {name: f"Unknown: {RELOADING}"}
    assert verdicts(Facts(configuration={"routes": "new"}), expected, late) == {}


def test_a_message_has_its_limit() -> None:
    (found,) = judge(Expectation((GateName.SERVING,)), Facts(serving="x" * 5000), (), START)
    assert len(found.message) == 800


@pytest.mark.parametrize(
    ("worse", "field", "kept"),
    [
        ({"serving": None, "unknown": "no answer"}, "serving", ""),
        ({"connections": None}, "connections", Usage(1, 10)),
        ({"serving": "OOM"}, "serving", ""),
        ({"troubles": ("a disk",)}, "troubles", ()),
        ({"routes": {"api": "HTTP 503", "search": ""}}, "routes", {"api": "", "search": ""}),
    ],
)
def test_a_look_that_says_worse_is_doubted_so_often_and_no_more(
    worse: dict[str, Any], field: str, kept: object
) -> None:
    known = learnt(None, IN_ORDER)
    assert known == Known(IN_ORDER)
    found = replace(IN_ORDER, **worse)
    for number in range(DOUBTS):
        known = learnt(known, found)
        assert known.doubts == number + 1
        assert getattr(known.facts, field) == kept
    assert learnt(known, IN_ORDER) == Known(IN_ORDER), "it begins anew"
    assert learnt(known, found) == Known(found)
    assert learnt(Known(found), found) == Known(found), "what is known is not doubted"
    assert learnt(Known(found), IN_ORDER) == Known(IN_ORDER), "nor what is better"


def test_what_was_not_known_to_answer_is_not_doubted() -> None:
    known = Known(replace(IN_ORDER, routes={"search": ""}))
    found = replace(IN_ORDER, routes={"search": "", "new": "HTTP 502"})
    assert learnt(known, found) == Known(found)


SPEC: dict[str, Any] = {
    "postgres": [{"name": "prod"}],
    "redis": {},
    "elasticsearch": {},
    "neo4j": {},
    "traefik": {"routes": [{"name": "search", "component": "elasticsearch"}]},
}


def gates(world: World, component: str) -> dict[str, str]:
    return {gate["name"]: gate["verdict"] for gate in world.row(component)["gates"]}


def gated_world(spec: dict[str, Any] | None = None) -> World:
    world = World(spec or SPEC)
    world.converge()
    world.examine()
    world.step()
    return world


def test_a_stack_waits_for_its_gates_in_words_and_then_rests() -> None:
    world = World(SPEC)
    world.step()
    passed = world.condition("GatesPassed")
    assert (passed["status"], passed["reason"]) == ("Unknown", "GateUnknown")
    assert "redis Serving, Health" in passed["message"]
    assert "it does not serve: Creating" in passed["message"]
    world.converge()
    assert NOT_LOOKED_AT in world.condition("GatesPassed")["message"]
    assert world.condition("Ready")["status"] == "True", "gates decide nothing of it"
    world.examine()
    world.step()
    passed = world.condition("GatesPassed")
    assert (passed["status"], passed["reason"], passed["message"]) == ("True", "GatesPassed", "")
    assert all(set(gates(world, component).values()) == {"Passed"} for component in world.facts)
    assert set(gates(world, "traefik")) == {"Serving", "ConfigurationInForce", "RoutesAnswer"}
    before = world.status
    world.now += timedelta(hours=1)
    world.step()
    assert world.status == before


def test_who_begins_to_lead_keeps_what_the_status_says_until_it_has_looked() -> None:
    world = gated_world()
    world.examine(redis=Facts(serving="OOM command not allowed"))
    world.step()
    before = world.status
    world.facts = {}
    world.now += timedelta(minutes=1)
    world.step()
    assert world.status == before


def test_a_gate_that_fails_is_told_by_an_event_and_its_time_is_kept() -> None:
    world = gated_world()
    failing = Facts(serving="OOM command not allowed")
    world.examine(redis=failing)
    world.now += timedelta(minutes=1)
    world.step()
    failed_at = timestamp(world.now)
    passed = world.condition("GatesPassed")
    assert (passed["status"], passed["reason"]) == ("False", "GateFailed")
    assert passed["message"] == "redis Serving: OOM command not allowed"
    assert world.condition("Ready")["status"] == "True"
    world.now += timedelta(minutes=1)
    world.step()
    since = {gate["name"]: gate["since"] for gate in world.row("redis")["gates"]}
    assert since["Serving"] == failed_at


def servers(world: World) -> dict[str, int]:
    """How many servers each route has."""
    text = world.objects[Ref("ConfigMap", "cos-traefik-config")]["data"]["routes.yaml"]
    services = json.loads(text)["http"]["services"]
    return {name: len(service["loadBalancer"]["servers"]) for name, service in services.items()}


def test_on_request_a_component_whose_gates_fail_gets_no_requests() -> None:
    routes = [
        {"name": "strict", "path": "/a", "component": "elasticsearch", "whenGatesFail": "Refuse"},
        {"name": "other", "path": "/b", "component": "neo4j", "whenGatesFail": "Refuse"},
        {"name": "lax", "path": "/c", "component": "elasticsearch"},
    ]
    world = gated_world({**SPEC, "traefik": {"routes": routes}})
    before = {ref: obj["metadata"]["uid"] for ref, obj in world.objects.items() if ref.kind == "Pod"}
    assert servers(world) == {"strict": 1, "other": 1, "lax": 1}
    world.examine(elasticsearch=Facts(serving="HTTP 500: no"))
    world.converge()
    assert servers(world) == {"strict": 0, "other": 1, "lax": 1}
    world.examine(elasticsearch=Facts(serving="HTTP 500: no"))
    world.converge()
    assert gates(world, "traefik")["RoutesAnswer"] == "Passed", "what is closed on purpose is not tried"
    world.examine()
    world.converge()
    assert servers(world) == {"strict": 1, "other": 1, "lax": 1}
    assert before == {
        ref: obj["metadata"]["uid"] for ref, obj in world.objects.items() if ref.kind == "Pod"
    }, "nothing restarts"


def test_nobody_asks_more_of_what_does_not_serve() -> None:
    world = gated_world()
    world.outcomes["redis"] = Outcome.NOT_ANSWERING
    world.step()
    assert gates(world, "redis") == {
        "Serving": "Failed",
        "Health": "Unknown",
        "ConfigurationInForce": "Unknown",
        "ConnectionHeadroom": "Unknown",
        "StorageHeadroom": "Unknown",
    }
    assert world.condition("GatesPassed")["message"].startswith(
        "redis Serving: it does not serve: NotAnswering"
    )
    del world.outcomes["redis"]
    del world.facts["redis"]
    world.step()
    assert {gate["message"] for gate in world.row("redis")["gates"]} == {NOT_LOOKED_AT}
    world.examine()
    world.step()
    assert set(gates(world, "redis").values()) == {"Passed"}


def test_a_blocked_component_keeps_its_gates_and_they_are_unknown() -> None:
    spec = {"redis": {"authSecretRef": {"name": "mine"}}}
    world = World(spec, references={"mine": {"data": {"password": "cGFzc3dvcmQxMjM="}}})
    world.converge()
    world.examine()
    world.step()
    assert set(gates(world, "redis").values()) == {"Passed"}
    world.references = {}
    world.step()
    assert set(gates(world, "redis").values()) == {"Unknown"}
    assert {gate["message"] for gate in world.row("redis")["gates"]} == {"not asked: SecretNotFound"}


def test_a_pod_that_was_rendered_otherwise_is_not_blamed_for_it() -> None:
    world = gated_world()
    pod = world.objects[Ref("Pod", "cos-redis-0")]
    pod["metadata"]["annotations"][ANNOTATION_CONFIGURATION] = "of-another-version"
    world.examine(redis=Facts(configuration={}))
    world.step()
    (gate,) = [gate for gate in world.row("redis")["gates"] if gate["name"] == "ConfigurationInForce"]
    assert (gate["verdict"], gate["message"]) == ("Unknown", RENDERED_ANEW)


def test_a_pod_that_differs_in_other_things_alone_is_held_to_its_configuration() -> None:
    """One that runs by the digest of an image since a change was taken back, say."""
    world = gated_world()
    pod = world.objects[Ref("Pod", "cos-redis-0")]
    pod["metadata"]["annotations"][ANNOTATION_TEMPLATE] = "of-another-image"
    world.examine(redis=Facts(configuration={}))
    world.step()
    (gate,) = [gate for gate in world.row("redis")["gates"] if gate["name"] == "ConfigurationInForce"]
    assert gate["verdict"] == "Failed"


def test_a_container_that_read_the_new_rendering_is_believed() -> None:
    world = gated_world()
    pod = world.objects[Ref("Pod", "cos-redis-0")]
    pod["metadata"]["annotations"][ANNOTATION_CONFIGURATION] = "of-another-version"
    world.step()
    assert set(gates(world, "redis").values()) == {"Passed"}, "it reports what is wanted"


def edited_routes(world: World, *names: str) -> None:
    world.generation += 1
    routes = [{"name": name, "path": f"/{name}", "component": "elasticsearch"} for name in names]
    world.spec = {**world.spec, "traefik": {"routes": routes}}


def test_nobody_is_accused_of_what_a_pause_keeps_from_being_written() -> None:
    world = gated_world()
    world.spec = {**world.spec, "paused": True}
    edited_routes(world, "search", "another")
    for _ in range(5):
        world.now += RELOAD_LIMIT
        world.step()
        told = {
            gate["name"]: (gate["verdict"], gate.get("message")) for gate in world.row("traefik")["gates"]
        }
        assert told["ConfigurationInForce"] == ("Unknown", RELOADING)
        assert told["RoutesAnswer"] == ("Unknown", "not tried yet: route another")


def test_the_time_to_read_new_routes_begins_when_they_are_written() -> None:
    world = gated_world()
    # Unknown for long, for another reason.
    world.outcomes["traefik"] = Outcome.NOT_ANSWERING
    world.step()
    world.now += 10 * RELOAD_LIMIT
    del world.outcomes["traefik"]
    edited_routes(world, "search", "another")
    for _ in range(3):
        world.step()
        world.settle()
    assert gates(world, "traefik")["ConfigurationInForce"] == "Unknown"
    world.now += RELOAD_LIMIT
    world.step()
    assert gates(world, "traefik")["ConfigurationInForce"] == "Failed"


def test_figures_in_what_an_engine_says_are_no_news() -> None:
    name = GateName.SERVING
    first = 'could not extend file "base/16384/16389": No space left on device'
    again = Facts(serving=first.replace("16389", "17001"))
    (found,) = judge(Expectation((name,)), again, [status(name, Verdict.FAILED, first)], START)
    assert found.message == first


def test_who_is_asked_next_is_judged_as_what_runs() -> None:
    """A component that waits for its turn runs as it was, and is to be like that."""
    world = gated_world()
    world.generation += 1
    settings = {"db.transaction.timeout": "30s"}
    world.spec = {**world.spec, "neo4j": {"settings": settings}, "redis": {"maxClients": 99}}
    world.step()
    (target,) = [target for target in world.decide().targets if target.component == "neo4j"]
    assert world.row("neo4j")["message"] == "a change waits until redis serves again"
    assert not target.expected.otherwise
    assert set(gates(world, "neo4j").values()) == {"Passed"}


def test_what_an_engine_is_to_report_is_in_its_configuration() -> None:
    """Apart from what Redis derives: each value of a marker stands in a rendered file."""
    world = gated_world()
    snapshot = world.snapshot()
    for wanted in resolve(world.stack, snapshot).components:
        assert wanted.instance
        files = next(obj["data"] for obj in wanted.instance.objects if obj["kind"] == "ConfigMap")
        configuration = wanted.instance.expected.configuration
        markers = {name: value for name, value in configuration.items() if len(value) == 10}
        assert any(value in text for value in markers.values() for text in files.values()), wanted.component
