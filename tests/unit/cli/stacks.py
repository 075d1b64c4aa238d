"""Stacks with a past, as an API server would show them."""

from __future__ import annotations

from typing import Any

from world import World

from cos_operator.cli.revisions import Past, read_past


def live(world: World, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """The stack as the API server would show it."""
    metadata = {"name": "cos", "namespace": "cos", "uid": world.uid, "generation": world.generation}
    raw = {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "metadata": metadata}
    return raw | {"spec": spec or world.spec, "status": world.status}


def stored(world: World) -> list[dict[str, Any]]:
    found = []
    for ref, obj in world.objects.items():
        if ref.kind == "ControllerRevision":
            obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
            found.append(obj)
    return found


def lived(*specs: dict[str, Any]) -> World:
    world = World(specs[0])
    world.converge()
    for spec in specs[1:]:
        world.spec = spec
        world.generation += 1
        world.converge()
    return world


def past_of(world: World) -> Past:
    return read_past(live(world), stored(world))
