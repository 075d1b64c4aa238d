"""The life cycles of a stack, in the order in which one leads to the next.

Redis and Traefik are the cheapest engines with and without data; Postgres joins them when the stack grows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from cos_crash.api import Api, Manifest
from cos_testbed.instance import REGISTRY_NAME

STACK = "cos"

#: Seconds without service after which a change is taken back: longer than any engine here takes to start.
_PROGRESS_DEADLINE = 30


def stack_path(namespace: str) -> str:
    """Where the API serves the stack."""
    return f"/apis/cos.dev/v1alpha1/namespaces/{namespace}/cosstacks/{STACK}"


@dataclass(frozen=True)
class Step:
    """What a person does, and how a fault-free run tells that the operator has finished with it."""

    act: Callable[[Api, str], Awaitable[object]]
    reached: Callable[[Manifest | None], bool]


@dataclass(frozen=True)
class LifeCycle:
    """A part of a stack's life. It begins where the one before it ended."""

    name: str
    steps: tuple[Step, ...]


def _spec(**change: Any) -> Callable[[Api, str], Awaitable[object]]:
    async def act(api: Api, namespace: str) -> object:
        return await api.merge(stack_path(namespace), {"spec": change})

    return act


async def _create(api: Api, namespace: str) -> object:
    spec = {
        "images": {"registry": REGISTRY_NAME},
        "progressDeadlineSeconds": _PROGRESS_DEADLINE,
        "redis": {"maxClients": 50},
        "traefik": {"routes": [{"name": "app", "path": "/app", "service": {"name": "web", "port": 80}}]},
    }
    metadata = {"name": STACK, "namespace": namespace}
    stack = {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "metadata": metadata, "spec": spec}
    return await api.apply(stack_path(namespace), stack)


async def _delete(api: Api, namespace: str) -> object:
    return await api.delete(stack_path(namespace))


def _condition(stack: Manifest | None, kind: str) -> Manifest:
    """The condition, if it speaks of the present generation; else empty."""
    for condition in ((stack or {}).get("status") or {}).get("conditions", []):
        if condition["type"] == kind:
            current = condition["observedGeneration"] == (stack or {})["metadata"]["generation"]
            return dict(condition) if current else {}
    return {}


def _ready(stack: Manifest | None) -> bool:
    return _condition(stack, "Ready").get("status") == "True"


def _rolled_back(stack: Manifest | None) -> bool:
    stalled = _condition(stack, "Stalled")
    available = _condition(stack, "Available").get("status") == "True"
    return available and stalled.get("status") == "True" and stalled.get("reason") == "RolledBack"


def _settled(stack: Manifest | None) -> bool:
    return _ready(stack) or _rolled_back(stack)


def _gone(stack: Manifest | None) -> bool:
    return stack is None


LIFE_CYCLES = (
    LifeCycle("create", (Step(_create, _ready),)),
    LifeCycle("edit", (Step(_spec(redis={"maxClients": 60}), _ready),)),
    LifeCycle("scale-out", (Step(_spec(postgres=[{"name": "prod"}]), _ready),)),
    LifeCycle(
        "rollback", (Step(_spec(redis={"image": f"{REGISTRY_NAME}/redis:no-such-tag"}), _rolled_back),)
    ),
    # The operator writes nothing at a deletion; what it writes before decides what goes with the stack.
    LifeCycle("delete", (Step(_spec(deletionPolicy="Delete"), _settled), Step(_delete, _gone))),
)
