"""What of an earlier spec the volumes of a stack no longer allow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stacks import live, lived, past_of
from world import World

from cos_controllers.api.status import Reason
from cos_controllers.observation import Ref
from cos_controllers.parsing import parse_stack
from cos_operator.cli.revisions import restored
from cos_operator.cli.volumes import Kept, assumed_claims, attainable, claims_of


def storage(size: str, storage_class: str | None = None) -> dict[str, Any]:
    return {"size": size} | ({"storageClassName": storage_class} if storage_class else {})


def claim(size: str, storage_class: str | None = None) -> dict[str, Any]:
    spec = {"resources": {"requests": {"storage": size}}}
    return {
        "metadata": {"name": "v"},
        "spec": spec | ({"storageClassName": storage_class} if storage_class else {}),
    }


#: Of Redis: what the earlier spec asks for, what the present one does (None: it has none), the volume; what is written.
CASES: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "it has grown": (storage("1Gi"), storage("2Gi"), claim("2Gi", "a"), storage("2Gi")),
    "it is to grow again": (storage("3Gi"), storage("2Gi"), claim("2Gi", "a"), storage("3Gi")),
    "it never grew": (storage("1Gi"), storage("2Gi"), claim("1Gi", "a"), storage("1Gi")),
    "it grew to less": (storage("1Gi"), storage("3Gi"), claim("2Gi", "a"), storage("2Gi")),
    "the present spec is refused too": (storage("1Gi"), storage("1500Mi"), claim("2Gi", "a"), storage("2Gi")),
    "the same in other words": (storage("1Gi"), storage("2048Mi"), claim("2Gi", "a"), storage("2048Mi")),
    "equal in other words": (storage("1024Mi"), storage("1Gi"), claim("1Gi", "a"), storage("1024Mi")),
    "a number of bytes": ({"size": 1000}, storage("2Gi"), claim("2Gi"), storage("2Gi")),
    "another class": (storage("1Gi", "b"), storage("1Gi", "a"), claim("1Gi", "a"), storage("1Gi", "a")),
    "another class than the default": (
        storage("1Gi", "b"),
        storage("1Gi"),
        claim("1Gi", "a"),
        storage("1Gi"),
    ),
    "two other classes": (storage("1Gi", "b"), storage("1Gi", "c"), claim("1Gi", "a"), storage("1Gi", "a")),
    "a class where there is none": (storage("1Gi", "b"), storage("1Gi", "c"), claim("1Gi"), storage("1Gi")),
    "the class by default": (storage("1Gi"), storage("1Gi", "a"), claim("1Gi", "a"), storage("1Gi")),
    "both": (storage("1Gi", "b"), storage("2Gi", "a"), claim("2Gi", "a"), storage("2Gi", "a")),
    "removed, and kept": (storage("1Gi", "b"), None, claim("2Gi", "a"), storage("2Gi", "a")),
    "there is no volume": (storage("1Gi", "b"), storage("2Gi", "a"), None, storage("1Gi", "b")),
}


@pytest.mark.parametrize(("earlier", "present", "live_claim", "written"), CASES.values(), ids=CASES)
def test_no_less_and_no_other_is_asked_than_a_volume_is(
    earlier: Any, present: Any, live_claim: Any, written: dict[str, Any]
) -> None:
    before = {"redis": {"storage": earlier, "maxClients": 5}, "images": {}, "paused": False}
    now = {"progressDeadlineSeconds": 600} | ({"redis": {"storage": present}} if present else {})
    spec, kept = attainable(before, now, {"redis": live_claim} if live_claim else {})
    assert spec == {"redis": {"storage": written, "maxClients": 5}, "images": {}, "paused": False}
    fields = {"storage.size": "size", "storage.storageClassName": "storageClassName"}
    differing = [name for name, key in fields.items() if str(earlier.get(key)) != str(written.get(key))]
    assert [field.field for field in kept] == differing
    for field in kept:
        assert (field.asked, field.kept) == (
            str(earlier[fields[field.field]]),
            written.get(fields[field.field]),
        )


def test_it_is_said_in_words() -> None:
    spec = {"postgres": [{"name": "dev", "storage": storage("1Gi", "b")}]}
    found = attainable(spec, {}, {"postgres-dev": claim("2Gi", "a")})[1]
    assert [field.message for field in found] == [
        "postgres-dev: storage.size stays 2Gi and is not 1Gi again: volume v cannot shrink",
        "postgres-dev: storage.storageClassName stays a and is not b again: volume v keeps its StorageClass",
    ]
    present = {"postgres": [{"name": "dev", "storage": storage("1Gi")}]}
    (field,) = attainable(spec, present, assumed_claims(present))[1]
    assert field == Kept(
        "postgres-dev",
        "storage.storageClassName",
        "b",
        None,
        "postgres-dev: storage.storageClassName stays left out and is not b again: its volume keeps its StorageClass",
    )


def claims(world: World) -> list[dict[str, Any]]:
    return [obj for ref, obj in world.objects.items() if ref.kind == "PersistentVolumeClaim"]


def go_back(world: World, number: int) -> None:
    """As the command does it."""
    stack, past = live(world), past_of(world)
    earlier = restored(stack, past, past.numbered(number))["spec"]
    found = claims_of(parse_stack(stack), earlier, claims(world))
    world.spec, _ = attainable(earlier, stack["spec"], found)
    world.generation += 1
    world.converge()


def test_a_volume_that_was_kept_decides_for_a_component_that_comes_back() -> None:
    def postgres(size: str) -> dict[str, Any]:
        return {"redis": {}, "postgres": [{"name": "prod", "storage": storage(size)}]}

    world = lived(postgres("1Gi"), postgres("2Gi"), {"redis": {}})
    go_back(world, 1)
    assert world.spec["postgres"][0]["storage"] == storage("2Gi")
    assert world.row("postgres-prod")["ready"]


def test_the_newest_volume_of_an_instance_counts() -> None:
    world = lived({"redis": {"storage": storage("1Gi")}}, {"redis": {"storage": storage("2Gi")}})
    newer = Ref("PersistentVolumeClaim", "cos-redis-data-1")
    older = world.objects[Ref("PersistentVolumeClaim", "cos-redis-data-0")]
    world.objects[newer] = {**older, "metadata": {**older["metadata"], "name": newer.name}}
    found = claims_of(parse_stack(live(world)), live(world)["spec"], claims(world))
    assert found["redis"]["metadata"]["name"] == newer.name


stores = st.fixed_dictionaries(
    {},
    optional={
        name: st.builds(
            lambda size, class_: {"storage": storage(size, class_)},
            st.sampled_from(["1Gi", "2Gi", "3Gi"]),
            st.sampled_from([None, "a", "b"]),
        )
        for name in ("redis", "neo4j")
    },
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(stores, min_size=2, max_size=4))
def test_the_way_back_asks_no_volume_for_what_it_cannot_do(specs: list[dict[str, Any]]) -> None:
    world = lived(*({**spec, "traefik": {"replicas": number}} for number, spec in enumerate(specs, 1)))
    go_back(world, 1)
    refused = {Reason.SHRINK_REFUSED.value, Reason.STORAGE_CLASS_FIXED.value}
    assert not refused & {row["reason"] for row in world.status["components"]}
