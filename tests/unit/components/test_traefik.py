"""Traefik: its files, which route a request takes, the rendered pod."""

from __future__ import annotations

import json
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cos_controllers.api.common import ResourceList, Resources
from cos_controllers.api.stack import CosStackSpec, Route, TraefikSpec
from cos_controllers.components.base import Blueprint, Context
from cos_controllers.components.registry import ENGINES
from cos_controllers.components.traefik import Traefik
from cos_controllers.components.traefik.config import (
    ACCEPT_SECONDS,
    COMPONENT_PORTS,
    DRAIN_SECONDS,
    priority,
    routes_config,
    rule,
    static_config,
)
from cos_controllers.k8s import manifest


def route(name: str = "r", path: str = "/", host: str | None = None) -> Route:
    backend = {"name": "api", "port": 8000}
    return Route.model_validate({"name": name, "path": path, "host": host, "service": backend})


def routes(*items: Route) -> dict[str, object]:
    found: dict[str, object] = json.loads(routes_config(items, stack="cos", namespace="team"))
    return found


@pytest.mark.parametrize(
    ("path", "host", "expected"),
    [
        ("/", None, 'PathPrefix("/")'),
        ("/api", None, '(Path("/api") || PathPrefix("/api/"))'),
        ("/api/v1", "a.example.com", 'Host("a.example.com") && (Path("/api/v1") || PathPrefix("/api/v1/"))'),
        ("/", "a.example.com", 'Host("a.example.com") && PathPrefix("/")'),
    ],
)
def test_a_rule_matches_whole_segments(path: str, host: str | None, expected: str) -> None:
    assert rule(route(path=path, host=host)) == expected


def test_a_host_goes_before_none_and_a_longer_path_before_a_shorter() -> None:
    ranked = [
        route(path="/api/v1", host="a.example.com"),
        route(path="/api", host="a.example.com"),
        route(path="/", host="a.example.com"),
        route(path="/" + "x" * 511),
        route(path="/api/v1"),
        route(path="/api"),
        route(path="/"),
    ]
    for shuffled in permutations(ranked, 2):
        first = min(shuffled, key=ranked.index)
        assert max(shuffled, key=priority) is first
    assert min(map(priority, ranked)) > 0, "0 means: as Traefik sees fit"


def test_backends_are_services_of_the_namespace() -> None:
    component = Route.model_validate({"name": "search", "component": "elasticsearch"})
    found = routes(component, route("own"))
    services = found["http"]["services"]  # type: ignore[index]
    assert {name: item["loadBalancer"]["servers"] for name, item in services.items()} == {
        "search": [{"url": "http://cos-elasticsearch.team.svc:9200"}],
        "own": [{"url": "http://api.team.svc:8000"}],
    }


def test_ports_of_components_are_those_of_their_services() -> None:
    engines = {engine.kind: engine for engine in ENGINES}
    for component, port in COMPONENT_PORTS.items():
        assert port in {item.number for item in engines[component].ports}
    named = Route.model_json_schema()["properties"]["component"]["anyOf"][0]["enum"]
    assert set(named) == set(COMPONENT_PORTS)


def test_no_routes_is_a_valid_file() -> None:
    assert routes() == {}


NAMES = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?\Z")
PATHS = st.from_regex(r"\A/([A-Za-z0-9._~-]{1,9}(/[A-Za-z0-9._~-]{1,9}){0,3})?\Z")
HOSTS = st.none() | st.from_regex(
    r"\A[a-z0-9]([-a-z0-9]{0,9}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,9}[a-z0-9])?){0,2}\Z"
)


@given(st.lists(st.builds(route, NAMES, PATHS, HOSTS), unique_by=lambda item: item.name, max_size=8))
def test_every_route_has_a_router_and_nothing_is_a_template(items: list[Route]) -> None:
    text = routes_config(items, stack="cos", namespace="team")
    assert "{{" not in text, "Traefik runs the file through Go templates"
    found = json.loads(text)
    http = found.get("http", {"routers": {}, "services": {}})
    assert set(http["routers"]) == set(http["services"]) == {item.name for item in items}
    assert all(router["entryPoints"] == ["web"] for router in http["routers"].values())
    assert text == routes_config(items[::-1], stack="cos", namespace="team"), "the order of routes is nothing"


def test_nothing_is_served_but_requests_ping_and_metrics() -> None:
    static = json.loads(static_config("/routes"))
    assert set(static["entryPoints"]) == {"web", "ops"}
    assert "api" not in static
    assert static["ping"]["entryPoint"] == static["metrics"]["prometheus"]["entryPoint"] == "ops"
    assert static["global"] == {"checkNewVersion": False, "sendAnonymousUsage": False}


def rendered(**fields: object) -> Blueprint:
    spec = CosStackSpec.model_validate({"traefik": fields})
    ((component, found),) = Traefik().instances(spec).items()
    return Traefik().render(
        Context(
            name="cos-traefik",
            component=component,
            namespace="team",
            spec=found,
            version=found.version,
            stack=spec,
            stack_name="cos",
        )
    )


def test_a_change_of_routes_is_reloaded_and_touches_nothing_else() -> None:
    before = rendered()
    after = rendered(routes=[{"name": "a", "service": {"name": "api", "port": 80}}])
    changed = {name for name in before.config if before.config[name] != after.config[name]}
    assert changed == after.reloaded == {"routes.yaml"}
    assert before.containers == after.containers
    assert before.volumes == after.volumes


def test_the_watched_folder_holds_the_routes_only() -> None:
    blueprint = rendered()
    (volume,) = map(manifest, blueprint.volumes)
    assert volume["configMap"]["items"] == [{"key": "routes.yaml", "path": "live/routes.yaml"}]
    (container,) = map(manifest, blueprint.containers)
    watched = json.loads(blueprint.config["traefik.yaml"])["providers"]["file"]["directory"]
    mounts = {item["name"]: item for item in container["volumeMounts"]}
    assert mounts[volume["name"]]["mountPath"] == watched
    assert "subPath" not in mounts[volume["name"]], "such a mount never sees a change"


def test_the_pod_outlives_its_drain() -> None:
    assert rendered().grace_seconds > ACCEPT_SECONDS + DRAIN_SECONDS


@pytest.mark.parametrize(
    ("limit", "expected"), [("256Mi", [{"name": "GOMEMLIMIT", "value": "230MiB"}]), (None, None)]
)
def test_the_collector_knows_the_memory_limit(limit: str | None, expected: object) -> None:
    resources = Resources(limits=ResourceList(memory=limit))
    container = manifest(rendered(resources=resources).containers[0])
    assert container.get("env") == expected


def test_probes_are_requests_that_end_within_six_seconds() -> None:
    container = manifest(rendered().containers[0])
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[name]["httpGet"] == {"path": "/ping", "port": 9000}
    probe = container["readinessProbe"]
    # The first probe after a hang begins within a period; each then takes its whole timeout.
    longest = probe["periodSeconds"] + probe["failureThreshold"] * max(
        probe["timeoutSeconds"], probe["periodSeconds"]
    )
    assert longest < 6


def test_replicas_and_service_are_as_asked_for() -> None:
    blueprint = rendered(replicas=3, service={"type": "LoadBalancer", "annotations": {"a": "b"}})
    assert (blueprint.replicas, blueprint.service_type) == (3, "LoadBalancer")
    assert blueprint.service_annotations == {"a": "b"}
    assert Traefik().instances(CosStackSpec.model_validate({"redis": {}})) == {}
    assert Traefik().tag(TraefikSpec().version) == TraefikSpec().version
