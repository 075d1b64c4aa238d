"""What status says when things go wrong before or after the plan."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import START, World

from cos_controllers.api.quantity import is_positive_quantity, parse_quantity
from cos_controllers.api.stack import CosStackSpec
from cos_controllers.api.status import CosStackStatus, Reason
from cos_controllers.components.redis import Redis
from cos_controllers.conditions import refusal, refused_status, unknown_status, with_refusals
from cos_controllers.images import image_of, version_of
from cos_controllers.observation import Ref
from cos_controllers.parsing import InvalidStack, parse_stack


def conditions(status: CosStackStatus) -> dict[str, tuple[str, str]]:
    return {item.type: (item.status.value, item.reason) for item in status.conditions}


def ready_world() -> World:
    world = World({"redis": {}})
    world.converge()
    return world


def raw(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    metadata = {"name": "cos", "namespace": "cos", "uid": "u", "generation": 3}
    return {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "metadata": metadata, "spec": spec, **more}


def test_a_stored_spec_that_breaks_a_newer_rule_is_refused_by_field() -> None:
    world = ready_world()
    with pytest.raises(InvalidStack, match=r"spec\.redis\.maxClients") as caught:
        parse_stack(raw({"redis": {"maxClients": 0}}, status=world.status))
    status = refused_status(caught.value.stack, Reason.INVALID_SPEC, str(caught.value), world.now)
    assert conditions(status) == {
        "Available": ("Unknown", "InvalidSpec"),
        "Ready": ("False", "InvalidSpec"),
        "Reconciling": ("False", "InvalidSpec"),
        "Stalled": ("True", "InvalidSpec"),
        "GatesPassed": ("Unknown", "InvalidSpec"),
    }
    (redis,) = status.components
    assert (redis.name, redis.ready, redis.serving_since) == ("redis", False, None), "nobody looks any more"
    assert {(gate.verdict, gate.message) for gate in redis.gates} == {("Unknown", "not asked: InvalidSpec")}
    assert status.summary is None
    assert status.observed_generation == 3


def test_a_status_that_cannot_be_read_is_begun_anew() -> None:
    stack = parse_stack(raw({"redis": {}}, status={"conditions": "nonsense"}))
    assert stack.status == CosStackStatus()


def test_silence_is_unknown() -> None:
    world = ready_world()
    found = conditions(unknown_status(world.stack, "the API server does not answer", world.now))
    assert found["Ready"] == ("Unknown", "ApiUnavailable")
    assert found["Available"] == ("Unknown", "ApiUnavailable")


def test_what_the_api_server_refuses_is_in_the_row_and_in_the_conditions() -> None:
    world = ready_world()
    decided = world.decide()
    later = START + timedelta(hours=1)
    status = with_refusals(
        world.stack, decided.status, {"redis": refusal(Ref("Service", "cos-redis"), "no")}, later
    )
    row = status.components[0]
    assert (row.ready, row.reason, row.message) == (False, "ApplyRefused", "Service cos-redis: no")
    assert status.summary == "0/1"
    assert conditions(status)["Stalled"] == ("True", "ApplyRefused")
    assert conditions(status)["Ready"] == ("False", "ApplyRefused")
    assert conditions(status)["Available"] == ("True", "Serving"), "it goes on serving"
    assert with_refusals(world.stack, decided.status, {}, later) is decided.status
    world.spec = {"redis": {"storage": {"size": "9Gi"}}}
    waiting = world.decide().status
    assert conditions(waiting)["Reconciling"] == ("True", "Waiting")
    refused = with_refusals(world.stack, waiting, {"redis": refusal(Ref("Service", "x"), "no")}, later)
    assert conditions(refused)["Reconciling"] == ("False", "ApplyRefused"), "what is refused is not under way"
    own = with_refusals(world.stack, decided.status, {"": refusal(Ref("Secret", "cos-seed"), "no")}, later)
    assert own.components[0].ready is True
    assert conditions(own)["Ready"] == ("False", "ApplyRefused")


@pytest.mark.parametrize(
    ("image", "registry", "expected"),
    [
        (None, "", "redis:8.0"),
        (None, "registry.example.com/cos/", "registry.example.com/cos/redis:8.0"),
        ("mine/redis@sha256:abc", "registry.example.com", "mine/redis@sha256:abc"),
    ],
)
def test_which_image_runs(image: str | None, registry: str, expected: str) -> None:
    spec = CosStackSpec.model_validate({"redis": {"image": image}, "images": {"registry": registry}})
    assert spec.redis
    assert image_of(Redis(), spec.redis, spec.images) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("250m", 0.25),
        ("1.5Gi", 1.5 * 2**30),
        ("2k", 2000),
        ("1e3", 1000),
        (".5", 0.5),
        ("1E", 10**18),
    ],
)
def test_quantities(text: str, value: float) -> None:
    assert float(parse_quantity(text)) == value


@pytest.mark.parametrize("text", ["", "one", "1 Gi", "Gi", "1Zi", "0x10", "1Gi\n"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)
    assert is_positive_quantity(text) is False


@given(
    number=st.integers(min_value=1, max_value=10**9), suffix=st.sampled_from(["", "Ki", "Mi", "k", "M", "m"])
)
def test_every_whole_amount_is_positive(number: int, suffix: str) -> None:
    assert is_positive_quantity(f"{number}{suffix}")


@pytest.mark.parametrize(
    ("image", "declared", "runs"),
    [
        (None, "8.0", "8.0"),
        ("redis:8.2.1", "8.0", "8.2.1"),
        ("registry.example.com:5000/redis:8.2.1-alpine@sha256:" + "0" * 64, "8.0", "8.2.1"),
        ("redis:9.0", "8.0", "9.0"),
        ("redis:8", "8.0", "8.0"),
        ("redis:v8.2", "8.0", "8.2"),
        ("redis:9f3c2a1", "8.0", "8.0"),
        ("redis:8.20240101", "8.0", "8.0"),
        ("redis:80000001", "8.0", "8.0"),
        ("redis:1.7", "8.0", "8.0"),
        ("redis:2026.11.24", "8.0", "8.0"),
        ("redis:latest", "8.0", "8.0"),
        ("redis@sha256:" + "0" * 64, "8.0", "8.0"),
        ("registry.example.com:5000/redis", "8.0", "8.0"),
    ],
)
def test_an_image_does_not_hide_the_version_that_is_in_it(
    image: str | None, declared: str, runs: str
) -> None:
    spec = CosStackSpec.model_validate({"redis": {"version": declared, "image": image}})
    assert spec.redis
    assert version_of(spec.redis) == runs
