"""`kubectl cos history`, `diff` and `rollback`: what is read from ControllerRevisions, and what is written back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stacks import live, lived, past_of, stored
from world import World

from cos_controllers.history import read_history
from cos_controllers.observation import Snapshot
from cos_controllers.parsing import parse_stack
from cos_operator.cli.change import revisions_in
from cos_operator.cli.documents import spec_diff
from cos_operator.cli.errors import CliError
from cos_operator.cli.output import plain
from cos_operator.cli.revisions import (
    compare,
    doubts,
    history_data,
    history_lines,
    previous,
    read_past,
    restored,
)

CONDUCT = {
    "paused": True,
    "deletionPolicy": "Delete",
    "progressDeadlineSeconds": 77,
    "rollback": {"mode": "Off"},
    "revisionHistoryLimit": 5,
}
SPECS: list[dict[str, Any]] = [
    {"redis": {"maxClients": 60}},
    {"redis": {"maxClients": 61}, "traefik": {}},
    {"redis": {"maxClients": 61}, "postgres": [{"name": "prod"}], "images": {"registry": "mirror.example"}},
]


def test_history_tells_what_each_revision_changed_and_which_served() -> None:
    world = lived(*SPECS)
    found = history_data(past_of(world))
    assert [row["revision"] for row in found] == [1, 2, 3]
    assert [row["changed"] for row in found] == [
        ["redis"],
        ["redis", "traefik"],
        ["images", "postgres-prod", "traefik removed"],
    ]
    assert [row["current"] for row in found] == [False, False, True]
    assert found[2]["good"].keys() == {"redis", "postgres-prod"}
    lines = [line.text for line in history_lines(past_of(world), world.now)]
    assert lines[0].split() == ["REVISION", "AGE", "SERVED", "FAILED", "CHANGED"]
    assert lines[3].split()[:2] == ["3", "*"]
    assert lines[3].split()[3:] == ["2/2", "-", "images,", "postgres-prod,", "traefik", "removed"]


def test_history_tells_what_was_taken_back_and_why() -> None:
    world = lived(SPECS[0] | {"progressDeadlineSeconds": 60})
    world.bad_images.add("redis:bad")
    world.spec = {"redis": {"image": "redis:bad"}, "progressDeadlineSeconds": 60}
    world.generation += 1
    for _ in range(3):
        world.step()
        world.settle()
    world.now += timedelta(seconds=61)
    world.converge()
    told = "\n".join(text for line in history_lines(past_of(world), world.now) for text in plain(line))
    assert "revision 2, redis: ImagePullFailed: pod cos-redis-0" in told
    assert "no image redis:bad" in told
    warnings = doubts(live(world), past_of(world).numbered(2))
    assert any("did not serve when it was tried" in text for text in warnings)
    assert doubts(live(world), past_of(world).numbered(1)) == []


def test_the_oldest_of_many_changed_nothing_that_is_known() -> None:
    world = lived(
        *(SPECS[0] | {"redis": {"maxClients": 60 + n}, "revisionHistoryLimit": 1} for n in range(4))
    )
    found = history_data(past_of(world))
    assert [row["revision"] for row in found] == [3, 4]
    assert found[0]["changed"] == []


def test_diff_is_of_the_last_two_unless_told_otherwise() -> None:
    past = past_of(lived(*SPECS))
    old, new, lines = compare(past, None, None)
    assert (old.number, new.number) == (2, 3)
    assert lines[:2] == ["--- revision 2", "+++ revision 3"]
    assert "+  registry: mirror.example" in lines
    assert "-  registry: ''" in lines
    assert [item.number for item in compare(past, 1, None)[:2]] == [1, 3]
    assert [item.number for item in compare(past, 3, 1)[:2]] == [3, 1]
    assert compare(past, 2, 2)[2] == []
    with pytest.raises(CliError, match="there is no revision 9; there are: 1, 2, 3"):
        compare(past, 9, None)
    with pytest.raises(CliError, match="only revision 1"):
        compare(past_of(lived(SPECS[0])), None, None)


def test_a_hunk_names_its_part_of_the_spec() -> None:
    before = {"a": {f"k{n}": n for n in range(9)}, "b": {f"k{n}": n for n in range(9)}}
    after = {**before, "b": {**before["b"], "k8": 9}}
    heads = [line for line in spec_diff(before, after, ("x", "y")) if line.startswith("@@")]
    assert len(heads) == 1
    assert heads[0].endswith("@@ b")


def test_only_what_a_revision_holds_is_written_back() -> None:
    world = lived(SPECS[0], SPECS[1])
    spec = SPECS[1] | CONDUCT
    changed = restored(live(world, spec), past_of(world), past_of(world).numbered(1))
    assert {key: changed["spec"][key] for key in CONDUCT} == CONDUCT
    assert "traefik" not in changed["spec"]
    assert changed["spec"]["redis"]["maxClients"] == 60
    assert changed["metadata"] == live(world, spec)["metadata"]


def test_what_does_not_differ_stays_as_it_is_written() -> None:
    world = lived(SPECS[0], SPECS[1])
    as_written = {
        "maxClients": 61,
        "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi", "cpu": 1}},
    }
    world.spec = {"redis": as_written}
    world.generation += 1
    world.converge()
    world.spec = {"redis": as_written, "traefik": {}}
    world.generation += 1
    world.converge()
    past = past_of(world)
    changed = restored(live(world), past, previous(past))
    assert changed["spec"] == {"redis": as_written}
    assert spec_diff(world.spec, changed["spec"], ("a", "b"))


def specs() -> st.SearchStrategy[dict[str, Any]]:
    redis = st.fixed_dictionaries(
        {},
        optional={
            "maxClients": st.integers(1, 3),
            "parameters": st.dictionaries(st.just("appendfsync"), st.sampled_from(["always", "no"])),
            "scheduling": st.just({"nodeSelector": {"a": "b"}}),
            "resources": st.just({"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}}),
        },
    )
    postgres = st.lists(
        st.fixed_dictionaries({"name": st.sampled_from(["prod", "dev"])}),
        max_size=2,
        unique_by=lambda i: i["name"],
    )
    return st.fixed_dictionaries(
        {"redis": redis},
        optional={
            "postgres": postgres,
            "traefik": st.just({"replicas": 2}),
            "images": st.just({"registry": "mirror.example"}),
        },
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), specs(), st.sampled_from([{}, CONDUCT]))
def test_the_way_back_leads_to_the_very_revision(
    first: dict[str, Any], second: dict[str, Any], conduct: dict[str, Any]
) -> None:
    world = World(first)
    world.step()
    name = stored(world)[0]["metadata"]["name"]
    world.spec = second
    world.generation += 1
    world.step()
    stack = live(world, second | conduct)
    past = read_past(stack, stored(world))
    target = next(item for item in past.revisions if item.name == name)
    changed = parse_stack(restored(stack, past, target))
    assert read_history(changed, Snapshot(objects=world.objects)).current.name == name


def test_a_spec_that_is_not_valid_any_more_is_said() -> None:
    world = lived(SPECS[0])
    with pytest.raises(CliError, match=r"breaks a rule: .*redis.*: correct it"):
        read_past(live(world, {"redis": {"maxClients": 0}}), stored(world))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ([], ("", None, None)),
        (["cos"], ("cos", None, None)),
        (["2"], ("", 2, None)),
        (["2", "3"], ("", 2, 3)),
        (["cos", "2"], ("cos", 2, None)),
        (["cos", "2", "3"], ("cos", 2, 3)),
    ],
)
def test_the_words_of_diff(words: list[str], meant: tuple[str, int | None, int | None]) -> None:
    assert revisions_in(words) == meant


@pytest.mark.parametrize("words", [["cos", "x"], ["1", "2", "3"], ["1", "cos"], ["cos", "1", "2", "3"]])
def test_other_words_are_refused_with_the_right_ones(words: list[str]) -> None:
    with pytest.raises(CliError, match=r"diff \[NAME\] \[FROM\] \[TO\]"):
        revisions_in(words)
