"""Every sample is a stack that the operator renders, with no field that it would ignore."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from cos_controllers.api.crd import definitions
from cos_controllers.api.quantity import parse_quantity
from cos_controllers.k8s import Manifest
from cos_controllers.observation import Snapshot
from cos_controllers.parsing import parse_stack
from cos_controllers.resolve import references, resolve

SAMPLES = sorted((Path(__file__).parents[3] / "manifests" / "samples").glob("*.yaml"))
SCHEMA = definitions()[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
GIB = 2**30


def stack_in(path: Path) -> Manifest:
    (found,) = [obj for obj in yaml.safe_load_all(path.read_text()) if obj["kind"] == "CosStack"]
    return dict(found)


def unknown_fields(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Paths of fields that the CRD does not have."""
    if isinstance(value, list):
        return [
            bad
            for i, item in enumerate(value)
            for bad in unknown_fields(item, schema["items"], f"{path}[{i}]")
        ]
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    below = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    found = []
    for key, item in value.items():
        if key in below:
            found += unknown_fields(item, below[key], f"{path}.{key}")
        elif not rest:
            found.append(f"{path}.{key}")
    return found


def rendered(path: Path) -> dict[str, list[Manifest]]:
    """Objects by component. Secrets that the spec refers to are there."""
    raw = stack_in(path)
    raw["metadata"] |= {"uid": "00000000-0000-0000-0000-000000000001", "generation": 1}
    stack = parse_stack(raw)
    password = {"data": {"password": "bm90LWEtcmVhbC1vbmU="}}
    given = {
        name: {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "cos"},
            **password,
        }
        for name in references(stack)
    }
    found = {}
    for wanted in resolve(stack, Snapshot(entropy=bytes(32), references=given)).components:
        assert wanted.instance, f"{wanted.component}: {wanted.blocker}"
        assert wanted.shortfall is None
        found[wanted.component] = list(wanted.instance.objects)
    return found


def requested(objects: list[Manifest], resource: str) -> Fraction:
    """What the pods of a component request of a resource, init containers included: the larger of the two sums."""
    total = Fraction(0)
    for obj in objects:
        template = obj["spec"].get("template") if "spec" in obj else None
        if not template:
            continue

        def of(container: Manifest) -> Fraction:
            return Fraction(
                parse_quantity(container.get("resources", {}).get("requests", {}).get(resource, "0"))
            )

        pod = template["spec"]
        first = max(map(of, pod.get("initContainers", [])), default=Fraction(0))
        total += obj["spec"].get("replicas", 1) * max(sum(map(of, pod["containers"])), first)
    return total


def components(spec: dict[str, Any]) -> set[str]:
    named = {f"postgres-{item['name']}" for item in spec.get("postgres", [])}
    return named | {engine for engine in ("redis", "elasticsearch", "neo4j", "traefik") if engine in spec}


def test_the_three_samples_are_there() -> None:
    assert [path.stem for path in SAMPLES] == ["full", "minimal", "production"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_has_only_fields_that_the_api_has(path: Path) -> None:
    # The schema of a CRD leaves metadata to the API server.
    assert set(unknown_fields(stack_in(path), SCHEMA)) == {".metadata.name", ".metadata.namespace"}


def test_an_unknown_field_is_found() -> None:
    raw = stack_in(SAMPLES[0])
    raw["spec"]["redis"]["maxClient"] = 1
    raw["spec"]["postgres"][0]["storage"]["class"] = "fast"
    assert {".spec.redis.maxClient", ".spec.postgres[0].storage.class"} <= set(unknown_fields(raw, SCHEMA))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_renders_every_component_that_it_names(path: Path) -> None:
    assert set(rendered(path)) == components(stack_in(path)["spec"])
    assert stack_in(path)["metadata"]["namespace"] == "cos"


def test_the_full_sample_has_six_services_and_fits_a_laptop() -> None:
    (path,) = [path for path in SAMPLES if path.stem == "full"]
    found = rendered(path)
    assert len(found) == 6
    assert 0 < sum(requested(objects, "memory") for objects in found.values()) <= 3 * GIB
    assert 0 < sum(requested(objects, "cpu") for objects in found.values()) <= 1
