"""The life of probes, decided: one at a time, nothing left behind, whatever is killed."""

from __future__ import annotations

import itertools
import json

import pytest
from probe_world import COMPONENTS, START, World

from cos_controllers.api.probe import ProbePhase
from cos_controllers.probes.order import ORDER, Order
from cos_controllers.probes.results import Percentiles


def condition(world: World, name: str) -> tuple[str, str]:
    (found,) = world.probe(name).status.conditions
    return found.status.value, found.reason


def test_a_probe_runs_is_recorded_and_leaves_nothing() -> None:
    world = World()
    world.create_probe("one")
    assert world.run().again == 15
    assert (world.phase("one"), condition(world, "one")) == (ProbePhase.RUNNING, ("False", "NotYet"))
    assert world.message("one") == "7 checks of 5 s each"
    world.run()
    assert (list(world.jobs), world.tidied) == (["one"], [COMPONENTS])
    world.later(60)
    world.finish("one", world.report_of("one"))
    world.run()
    status = world.probe("one").status
    assert (status.phase, status.message, status.stack_revision) == (
        ProbePhase.SUCCESSFUL,
        "7 checks measured",
        1,
    )
    assert [row.name for row in status.checks] == [
        "postgres-prod/Mixed",
        "redis/Latency",
        "redis/Throughput",
        "redis/PubSub",
        "elasticsearch/Index",
        "elasticsearch/Search",
        "traefik/Route/search",
    ]
    assert status.checks[0].per_second == 100
    assert status.checks[0].latency
    assert status.checks[0].latency.p95_microseconds == 200
    assert {row.name: row.revision for row in status.components} == {c: f"{c}-1" for c in COMPONENTS}
    assert condition(world, "one") == ("True", "Successful")
    assert list(world.jobs) == ["one"], "the report is stored before the Job goes"
    world.run()
    assert (world.jobs, world.data, world.tidied) == ({}, set(), [COMPONENTS, COMPONENTS])
    before = world.probe("one")
    assert world.run().again is None
    assert world.probe("one") == before


def test_it_goes_on_wherever_the_operator_was_killed() -> None:
    tried = 0
    for killed_in in range(5):
        for until in range(4):
            world = World()
            world.create_probe("one")
            world.create_probe("two")
            for number in range(14):
                world.run(until=until if number == killed_in else None)
                for name, job in list(world.jobs.items()):
                    if job["status"].get("active"):
                        world.finish(name, world.report_of(name))
                world.later(5)
            tried += 1
            assert [world.phase(name) for name in ("one", "two")] == [ProbePhase.SUCCESSFUL] * 2
            assert (world.jobs, world.data, world.overlap) == ({}, set(), 1)
    assert tried == 20


def test_probes_of_a_stack_take_turns_in_the_order_of_their_age() -> None:
    world = World()
    world.create_probe("b")
    world.later(1)
    world.create_probe("a")
    world.run()
    assert [world.phase(name) for name in "ba"] == [ProbePhase.RUNNING, ProbePhase.PENDING]
    assert world.message("a") == "waits until b has ended"
    world.settle()
    assert [world.phase(name) for name in "ba"] == [ProbePhase.SUCCESSFUL] * 2
    assert world.overlap == 1


def test_a_probe_that_is_deleted_while_it_runs_is_stopped_and_cleared_before_the_next_one_starts() -> None:
    world = World()
    world.create_probe("one")
    world.run()
    world.run()
    del world.probes["one"]
    world.create_probe("two")
    plan = world.run()
    assert [item.name for item in plan.suspend] == ["one"]
    assert world.message("two") == "waits until one has ended"
    assert world.data, "not cleared while load may still be made"
    world.run()
    assert (world.jobs, world.data) == ({}, set())
    world.settle()
    assert world.phase("two") is ProbePhase.SUCCESSFUL
    assert world.overlap == 1


def test_a_new_probe_of_a_deleted_ones_name_does_not_take_its_result() -> None:
    world = World()
    world.create_probe("one")
    world.run()
    world.run()
    world.finish("one", world.report_of("one"))
    del world.probes["one"]
    world.later(5)
    world.create_probe("one")
    world.run()
    assert world.probe("one").status.checks == []
    world.settle()
    assert world.phase("one") is ProbePhase.SUCCESSFUL


@pytest.mark.parametrize(
    ("code", "reason", "said", "told"),
    [
        (137, "OOMKilled", "", "container probe ended with OOMKilled (137)"),
        (1, "Error", "no order\n", "container probe ended with Error (1): no order"),
    ],
)
def test_a_prober_that_breaks_down_is_an_error_and_what_it_left_is_cleared(
    code: int, reason: str, said: str, told: str
) -> None:
    world = World()
    world.create_probe("one")
    world.run()
    world.run()
    world.finish("one", said, code=code, reason=reason)
    world.run()
    assert world.phase("one") is ProbePhase.RUNNING, "its report may come a moment later"
    world.later(11)
    world.run()
    assert (world.phase("one"), world.message("one")) == (ProbePhase.ERROR, told)
    world.run()
    assert (world.jobs, world.data) == ({}, set())


def test_a_job_whose_pod_is_gone_is_an_error_at_once() -> None:
    world = World()
    world.create_probe("one")
    world.run()
    world.run()
    world.finish("one", "")
    world.jobs["one"]["status"]["conditions"][0] |= {"type": "Failed", "message": "its deadline passed"}
    world.pods.clear()
    world.run()
    assert world.message("one") == "its Job ended without a report: its deadline passed"


@pytest.mark.parametrize(
    "message", ["", "{", '{"f": 1, "t": [], "c": 0}', '{"f": [["x"]], "t": [], "c": 0}', "[]"]
)
def test_what_is_no_report_is_never_a_pass(message: str) -> None:
    world = World()
    world.create_probe("one")
    world.run()
    world.run()
    world.finish("one", message)
    world.later(11)
    world.run()
    assert world.phase("one") is ProbePhase.ERROR


def test_a_pod_that_cannot_start_says_why_and_the_wait_ends() -> None:
    world = World()
    world.create_probe("one")
    world.run()
    world.run()
    world.pods["one-x"]["status"] = {
        "phase": "Pending",
        "containerStatuses": [
            {"name": "probe", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}
        ],
    }
    world.run()
    assert (world.phase("one"), world.message("one")) == (
        ProbePhase.RUNNING,
        "its pod waits: ImagePullBackOff: not found",
    )
    waits, world.pods["one-x"]["status"] = world.pods["one-x"]["status"], {"phase": "Running"}
    world.run()
    assert world.message("one") == "7 checks of 5 s each"
    world.pods["one-x"]["status"] = waits
    world.later(3600)
    world.run()
    assert world.phase("one") is ProbePhase.ERROR
    assert "has not ended within" in world.message("one")
    assert "ImagePullBackOff" in world.message("one")
    assert [item.name for item in world.run().suspend] == ["one"]
    world.run()
    assert world.jobs == {}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"components": ["mysql"]}, "spec.components: the stack has no mysql; it has postgres-prod, redis, "),
        ({"routes": ["shop"]}, "spec.routes: the stack has no route shop; it has search"),
    ],
)
def test_what_the_stack_does_not_have_is_refused_with_what_it_has(
    spec: dict[str, list[str]], told: str
) -> None:
    world = World()
    world.create_probe("one", **spec)
    world.run()
    assert world.phase("one") is ProbePhase.ERROR
    assert world.message("one").startswith(told)


def test_a_stack_with_nothing_to_try_says_what_to_name() -> None:
    world = World(spec={"traefik": {"routes": [{"name": "app", "service": {"name": "app", "port": 80}}]}})
    world.status["components"] = [world.row("traefik")]
    world.create_probe("one")
    world.run()
    assert "name routes of Traefik in spec.routes" in world.message("one")
    world.create_probe("two", routes=["app"])
    world.settle()
    assert world.phase("two") is ProbePhase.SUCCESSFUL


def test_without_an_image_nothing_starts_and_the_setting_is_named() -> None:
    world = World(image="")
    world.create_probe("one")
    world.run()
    assert (world.phase("one"), "COS_PROBE_IMAGE" in world.message("one")) == (ProbePhase.ERROR, True)


def test_it_waits_for_its_components_to_serve_but_not_for_others_and_not_for_ever() -> None:
    world = World()
    world.row("redis").pop("servingSince")
    world.create_probe("all", startingDeadlineSeconds=30)
    world.create_probe("search", components=["elasticsearch"])
    world.run()
    assert (world.phase("all"), world.message("all")) == (ProbePhase.PENDING, "waits for redis to serve")
    assert world.phase("search") is ProbePhase.RUNNING
    world.later(29)
    world.run()
    assert world.phase("all") is ProbePhase.PENDING
    world.later(1)
    world.run()
    assert world.phase("all") is ProbePhase.ERROR
    assert (
        world.message("all") == "not started within 30 s (startingDeadlineSeconds): waits for redis to serve"
    )


def test_nothing_is_written_to_an_engine_whose_volume_is_nearly_full() -> None:
    world = World()
    world.row("redis")["gates"] = [World.gate("StorageHeadroom", "Failed")]
    world.create_probe("one")
    world.run()
    assert world.phase("one") is ProbePhase.PENDING
    assert world.message("one") == "waits for room: the gate StorageHeadroom of redis fails"


def test_a_proxy_is_not_tried_before_it_has_read_its_routes() -> None:
    world = World()
    world.row("traefik")["gates"] = [World.gate("ConfigurationInForce", "Unknown")]
    world.create_probe("one")
    world.create_probe("two", components=["redis"])
    world.run()
    assert world.message("one").startswith("waits until traefik has read its routes")
    assert world.phase("two") is ProbePhase.RUNNING


def test_a_component_that_is_away_keeps_its_leftovers_and_holds_up_no_probe_of_others() -> None:
    world = World()
    world.create_probe("one", components=["elasticsearch", "redis"])
    world.run()
    world.run()
    world.finish("one", world.report_of("one"))
    world.away = {"elasticsearch"}
    world.run()
    world.run()
    assert (list(world.jobs), world.data) == (["one"], {"elasticsearch", "redis"})
    world.create_probe("two", components=["redis"])
    world.settle()
    assert world.phase("two") is ProbePhase.SUCCESSFUL
    assert list(world.jobs) == ["one"]
    world.away = set()
    world.settle()
    assert (world.jobs, world.data) == ({}, set())


def test_a_new_probe_of_the_name_of_one_that_is_not_cleared_waits() -> None:
    world = World()
    world.create_probe("one", components=["redis"])
    world.run()
    world.run()
    world.finish("one", world.report_of("one"))
    world.away = {"redis"}
    world.run()
    del world.probes["one"]
    world.later(5)
    world.create_probe("one", components=["redis"])
    world.run()
    assert world.message("one") == "waits until what an earlier probe of its name has left is cleared"
    world.away = set()
    world.settle()
    assert world.phase("one") is ProbePhase.SUCCESSFUL


def test_without_a_stack_it_waits_and_a_stack_that_goes_ends_it() -> None:
    world = World(stack=False)
    world.create_probe("one")
    world.run()
    assert world.message("one") == "there is no CosStack cos in this namespace"
    world.stack = True
    world.run()
    world.stack = False
    world.run()
    assert (world.phase("one"), world.message("one")) == (ProbePhase.ERROR, "the stack has been deleted")


def test_a_component_that_changes_meanwhile_is_inconclusive_and_the_others_are_not() -> None:
    world = World()
    world.create_probe("one")
    world.run()
    world.run()
    world.row("redis")["effectiveRevision"] = "redis-2"
    world.finish("one", world.report_of("one"))
    world.run()
    rows = {row.name: row.phase for row in world.probe("one").status.checks}
    assert {name for name, phase in rows.items() if phase is ProbePhase.INCONCLUSIVE} == {
        "redis/Latency",
        "redis/Throughput",
        "redis/PubSub",
    }
    assert world.phase("one") is ProbePhase.INCONCLUSIVE


def test_a_job_says_what_to_do_and_holds_no_secret() -> None:
    world = World()
    world.create_probe("one", components=["redis"], load="Saturating", secondsPerCheck=2, connections=8)
    world.run()
    world.run()
    pod = world.jobs["one"]["spec"]["template"]["spec"]
    (variable,) = pod["containers"][0]["env"]
    assert variable["name"] == ORDER
    order = Order.model_validate_json(variable["value"])
    (subject,) = order.subjects
    assert (subject.host, subject.port, order.seconds) == ("cos-redis.cos.svc", 6379, 2)
    assert [(check.kind.value, check.rate, check.connections) for check in subject.checks] == [
        ("Latency", 0, 8),
        ("Throughput", 0, 8),
        ("PubSub", 0, 4),
    ]
    (source,) = next(item for item in pod["volumes"] if item["name"] == "bindings")["projected"]["sources"]
    assert source["secret"]["name"] == "cos-redis-app"
    assert "password" not in json.dumps(variable)
    assert world.jobs["one"]["spec"]["activeDeadlineSeconds"] > order.limit


def automatic(world: World) -> list[str]:
    return sorted(world.probes)


def test_a_stack_is_probed_once_by_each_turn_of_its_clock() -> None:
    world = World(spec={"redis": {}, "probes": {"intervalSeconds": 600, "template": {"secondsPerCheck": 2}}})
    world.status["components"] = [world.row("redis")]
    seen = set()
    for _ in range(20):
        world.settle(6)
        seen |= set(automatic(world))
        world.later(180)
    turns = sorted(int(name.removeprefix("cos-t")) for name in seen)
    assert turns == list(range(turns[0], turns[-1] + 1, 10)), "one in each ten minutes"
    assert len(turns) in {6, 7}
    (newest, *_) = sorted(world.probes.values(), key=lambda item: item["metadata"]["creationTimestamp"])
    assert newest["spec"]["secondsPerCheck"] == 2
    assert newest["metadata"]["ownerReferences"][0]["uid"] == "stack"
    assert 0 < (world.plan().again or 0) <= 600


def test_turns_that_nobody_was_there_for_are_not_made_up() -> None:
    world = World(spec={"redis": {}, "probes": {"intervalSeconds": 600}})
    world.status["components"] = [world.row("redis")]
    world.settle()
    world.later(6000)
    world.settle()
    assert len(automatic(world)) == 2


def test_a_stack_is_probed_once_after_each_change_when_it_is_ready() -> None:
    world = World(spec={"redis": {}, "probes": {"afterChange": True}})
    world.status["components"] = [world.row("redis")]
    world.settle()
    assert automatic(world) == ["cos-r1"]
    world.status |= {"revision": 2, "conditions": [World.ready("False")]}
    world.settle()
    assert automatic(world) == ["cos-r1"]
    world.status["conditions"] = [World.ready("True")]
    world.settle()
    assert automatic(world) == ["cos-r1", "cos-r2"]
    world.later(10_000)
    world.settle()
    assert automatic(world) == ["cos-r1", "cos-r2"]


def test_the_probes_of_a_deleted_stack_of_the_same_name_are_not_of_this_one() -> None:
    world = World(spec={"redis": {}, "probes": {"afterChange": True}})
    world.status["components"] = [world.row("redis")]
    world.create_probe("mine")
    world.settle()
    world.later(60)
    world.created = world.now
    world.settle()
    assert automatic(world) == ["cos-r1", "mine"]


def measured(world: World, *latencies: Percentiles) -> None:
    """Passes until nothing changes; probes measure these latencies in turn."""
    turns = itertools.cycle([{"latency": latency} for latency in latencies] or [{}])
    for _ in range(40):
        world.run()
        for name, job in list(world.jobs.items()):
            if job["status"].get("active") and name in world.probes:
                world.finish(name, world.report_of(name, **next(turns)))


def p95(*milliseconds: float) -> list[Percentiles]:
    return [Percentiles(1, round(value * 1000), 99_000, 99_000) for value in milliseconds]


OBJECTIVE = {"name": "fast", "check": "redis/Latency", "figure": "P95", "atMost": "10ms"}
SLOW = Percentiles(1, 99_000, 99_000, 99_000)


def test_a_changed_stack_that_misses_an_objective_is_probed_until_that_is_decided() -> None:
    world = World(spec={"redis": {}, "slo": {"objectives": [OBJECTIVE]}, "probes": {"afterChange": True}})
    world.status["components"] = [world.row("redis")]
    measured(world)
    assert automatic(world) == ["cos-r1"]
    world.status["revision"] = 2
    measured(world, SLOW)
    assert automatic(world) == ["cos-r1", "cos-r2", "cos-r2-2"], "2 of 3 decide"


def test_what_is_never_decided_is_not_probed_for_ever() -> None:
    window = {"measurements": 4, "failures": 4}
    world = World(spec={"redis": {}, "slo": {"objectives": [{**OBJECTIVE, "window": window}]}})
    world.spec["probes"] = {"afterChange": True}
    world.status["components"] = [world.row("redis")]
    measured(world, SLOW)
    first = automatic(world)
    assert first == ["cos-r1", "cos-r1-2", "cos-r1-3", "cos-r1-4"]
    world.later(60)
    measured(world)
    assert automatic(world) == first


def test_a_stack_whose_revisions_are_compared_is_probed_until_that_can_be_decided() -> None:
    objective = {"name": "no-worse", "check": "redis/Latency", "figure": "P95", "maxRegression": "10%"}
    world = World(spec={"redis": {}, "slo": {"objectives": [objective]}, "probes": {"afterChange": True}})
    world.spec["probes"]["historyLimit"] = 1
    world.status["components"] = [{**world.row("redis"), "effectiveRevision": "a"}]
    measured(world, *p95(5, 5.1, 4.9, 5))
    first = automatic(world)
    assert len(first) == 4, "a measure for what follows"
    world.status["revision"] = 2
    world.status["components"] = [{**world.row("redis"), "effectiveRevision": "b"}]
    measured(world, *p95(5.4, 5.6))
    assert len(automatic(world)) == 4 + 8, "it is on the edge, and all are kept"
    world.status["revision"] = 3
    world.status["components"] = [{**world.row("redis"), "effectiveRevision": "c"}]
    measured(world, *p95(9, 9.1))
    assert [name for name in automatic(world) if name.startswith("cos-r3")] == [
        "cos-r3",
        "cos-r3-2",
        "cos-r3-3",
        "cos-r3-4",
    ], "four runs that are far worse decide"


def test_a_stack_whose_change_was_taken_back_is_still_probed_by_the_clock() -> None:
    world = World(spec={"redis": {}, "probes": {"intervalSeconds": 300}})
    world.status["components"] = [world.row("redis")]
    world.status["conditions"] = [World.ready("False"), World.available()]
    world.settle()
    assert len(automatic(world)) == 1


def test_one_that_ended_before_it_started_does_not_stop_the_clock() -> None:
    world = World(spec={"redis": {}, "probes": {"afterChange": True, "intervalSeconds": 600}})
    world.status["components"] = [world.row("redis")]
    gates = world.row("redis")["gates"]
    world.row("redis")["gates"] = [World.gate("StorageHeadroom", "Failed")]
    for _ in range(3):
        world.settle()
        world.later(900)
    assert world.phase("cos-r1") is ProbePhase.ERROR
    world.row("redis")["gates"] = gates
    for _ in range(3):
        world.settle()
        world.later(600)
    assert len([name for name in automatic(world) if name.startswith("cos-t")]) >= 3


def test_as_many_are_kept_as_an_objective_needs() -> None:
    window = {"measurements": 4, "failures": 4}
    world = World(spec={"redis": {}, "slo": {"objectives": [{**OBJECTIVE, "window": window}]}})
    world.spec["probes"] = {"intervalSeconds": 300, "historyLimit": 1}
    world.status["components"] = [world.row("redis")]
    for _ in range(6):
        world.settle()
        world.later(300)
    assert len(automatic(world)) == 4


def test_no_check_takes_more_than_a_quarter_of_an_engines_connections() -> None:
    world = World(spec={"redis": {"maxClients": 40}, "postgres": [{"name": "prod"}]})
    world.status["components"] = [world.row("redis"), world.row("postgres-prod")]
    world.create_probe("one", load="Saturating", connections=32)
    world.run()
    world.run()
    (variable,) = world.jobs["one"]["spec"]["template"]["spec"]["containers"][0]["env"]
    order = Order.model_validate_json(variable["value"])
    assert {c.name(s.component): c.connections for s in order.subjects for c in s.checks} == {
        "postgres-prod/Mixed": 25,
        "redis/Latency": 10,
        "redis/Throughput": 10,
        "redis/PubSub": 5,
    }


@pytest.mark.parametrize("why", ["paused", "unobserved", "no image", "no probes"])
def test_nothing_is_created_for_a_stack_that(why: str) -> None:
    world = World(spec={"redis": {}, "probes": {"afterChange": True, "intervalSeconds": 300}})
    world.status["components"] = [world.row("redis")]
    if why == "paused":
        world.spec["paused"] = True
    elif why == "unobserved":
        world.status["observedGeneration"] = 0
        del world.spec["probes"]["intervalSeconds"]
    elif why == "no image":
        world.image = ""
    else:
        world.spec["probes"] = {}
    world.settle()
    assert automatic(world) == []


def test_the_history_is_limited_and_what_people_created_is_theirs() -> None:
    world = World(spec={"redis": {}, "probes": {"intervalSeconds": 300, "historyLimit": 2}})
    world.status["components"] = [world.row("redis")]
    world.create_probe("mine")
    for _ in range(5):
        world.settle()
        world.later(300)
    kept = [name for name in automatic(world) if name != "mine"]
    assert len(kept) == 2
    assert "mine" in world.probes
    assert kept == sorted(kept)[-2:]
    assert world.now > START


def test_a_probe_that_is_being_deleted_is_not_there() -> None:
    world = World()
    world.create_probe("one")
    world.probes["one"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert world.plan().statuses == {}
