"""What a user may rely on, on a real cluster with the real engines."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from applications import COMPONENTS, STORES, WRITTEN, client, read, write
from harness import Cluster, audit_events, pod_uids, restarts, wait_for

from conftest import NAMESPACE, OPERATOR_NAMESPACE, client_objects


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.list("pods", NAMESPACE, "cos.dev/stack=cos")


def test_status_says_that_all_components_serve(healthy: Cluster) -> None:
    stack = healthy.stack("cos", NAMESPACE)
    assert stack["status"]["summary"] == "6/6"
    rows = {row["name"]: row for row in stack["status"]["components"]}
    assert set(rows) == set(COMPONENTS)
    assert all(row["reason"] == "Serving" for row in rows.values())
    assert rows["redis"]["binding"]["name"] == "cos-redis-app"
    assert rows["redis"]["endpoint"] == f"cos-redis.{NAMESPACE}.svc:6379"
    shown = healthy.run("get", "cos", "cos", "-n", NAMESPACE).stdout
    assert "6/6" in shown


@pytest.mark.parametrize("component", STORES)
def test_an_application_writes_and_reads(healthy: Cluster, component: str) -> None:
    write(healthy, component, "greeting")
    assert read(healthy, component, "greeting") == WRITTEN.get(component, "1")


def test_data_of_prod_is_not_visible_in_dev(healthy: Cluster) -> None:
    write(healthy, "postgres-prod", "only_in_prod")
    assert read(healthy, "postgres-dev", "only_in_prod") == "no table"


def test_redis_publishes_and_refuses_strangers(healthy: Cluster) -> None:
    assert client(healthy, "redis_", "pubsub", "channel") == "heard"
    refused = client(healthy, "redis_", "refused", "key").splitlines()
    assert len(refused) == 2, refused


def test_the_client_limit_is_in_force_while_probes_pass(healthy: Cluster) -> None:
    limit = healthy.stack("cos", NAMESPACE)["spec"]["redis"]["maxClients"]
    before = restarts(pods(healthy))
    said = client(healthy, "redis_", "clients", "15", timeout=90)
    held, _, refusal = said.partition(" ")
    assert limit <= int(held) <= limit + 10
    assert "max number of clients" in refusal
    redis = healthy.get("pod", "cos-redis-0", NAMESPACE)
    assert redis
    ready = next(c for c in redis["status"]["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "True"
    assert restarts(pods(healthy)) == before
    events = healthy.list("events", NAMESPACE)
    unhealthy = [
        e
        for e in events
        if e["reason"] == "Unhealthy" and e["involvedObject"]["uid"] == redis["metadata"]["uid"]
    ]
    since = time.time() - 20
    recent = [e for e in unhealthy if _epoch(e["lastTimestamp"]) > since]
    assert recent == []


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_routes_lead_to_components_and_services_and_change_without_a_restart(healthy: Cluster) -> None:
    before = pod_uids(healthy, NAMESPACE, "cos")
    url = f"http://cos-traefik.{NAMESPACE}.svc/"
    routes = [
        {"name": "search", "host": "search.test", "component": "elasticsearch"},
        {"name": "web", "path": "/web-e2e", "service": {"name": "web", "port": 80}},
        {"name": "all", "host": "web.test", "service": {"name": "web", "port": 80}},
    ]
    healthy.patch_stack("cos", NAMESPACE, {"traefik": {"routes": routes}})
    edited = time.monotonic()
    wait_for("the new route", lambda: client(healthy, "http_", url, "web.test") == "200", 20, interval=0.2)
    seconds = time.monotonic() - edited
    assert seconds < 5, f"a changed route was served after {seconds:.1f} s"
    # A route that was there is read anew some moments after one that was not (ADR 6). Elasticsearch asks for
    # credentials: the request reached it.
    search = f"{url}_cluster/health"
    wait_for(
        "the edited route", lambda: client(healthy, "http_", search, "search.test") == "401", 20, interval=0.2
    )
    assert client(healthy, "http_", f"{url}web-e2e/", "any.test") == "404", "the backend has no such file"
    assert client(healthy, "http_", url, "unknown.test") == "404"
    assert pod_uids(healthy, NAMESPACE, "cos") == before


def test_an_edit_rolls_only_what_it_touches(healthy: Cluster) -> None:
    before = pod_uids(healthy, NAMESPACE, "cos")
    now = healthy.stack("cos", NAMESPACE)["spec"]["redis"]["maxClients"]
    healthy.patch_stack("cos", NAMESPACE, {"redis": {"maxClients": now + 10}})
    healthy.wait_ready("cos", NAMESPACE)
    after = pod_uids(healthy, NAMESPACE, "cos")
    assert {name for name in after if after[name] != before[name]} == {"redis"}
    said = client(healthy, "redis_", "clients", "0", timeout=90)
    assert now + 10 <= int(said.split(" ")[0]) <= now + 20


@pytest.mark.parametrize("component", STORES)
def test_data_survives_the_deletion_of_the_pod(healthy: Cluster, component: str) -> None:
    write(healthy, component, "survivor")
    healthy.run("delete", "pod", f"cos-{component}-0", "-n", NAMESPACE, timeout=120)
    healthy.wait_ready("cos", NAMESPACE)
    assert read(healthy, component, "survivor") == WRITTEN.get(component, "1")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("service", "cos-redis"),
        ("configmap", "cos-redis-config"),
        ("secret", "cos-redis-app"),
        ("secret", "cos-postgres-prod-admin"),
        ("secret", "cos-seed"),
        ("statefulset", "cos-redis"),
        ("deployment", "cos-traefik"),
    ],
)
def test_a_deleted_child_comes_back_within_seconds(healthy: Cluster, kind: str, name: str) -> None:
    before = healthy.get(kind, name, NAMESPACE)
    assert before
    healthy.run("delete", kind, name, "-n", NAMESPACE)
    again = wait_for(f"{kind} {name}", lambda: healthy.get(kind, name, NAMESPACE), 10)
    assert again["metadata"]["uid"] != before["metadata"]["uid"]
    assert again.get("data") == before.get("data")


def test_a_hand_edited_child_is_put_right_within_seconds(healthy: Cluster) -> None:
    patch = json.dumps({"spec": {"selector": {"cos.dev/component": "nothing"}}})
    healthy.run("patch", "service", "cos-redis", "-n", NAMESPACE, "--type=merge", "-p", patch)

    def selector() -> bool:
        service = healthy.get("service", "cos-redis", NAMESPACE)
        return bool(service) and service["spec"]["selector"]["cos.dev/component"] == "redis"

    wait_for("the selector is put right", selector, 10)


def test_a_missing_secret_stalls_the_stack_and_its_arrival_heals_it(operator: Cluster) -> None:
    namespace = "e2e-secret"
    operator.fresh_namespace(namespace)
    spec = {"images": {"registry": "testbed.local:5000"}, "redis": {"authSecretRef": {"name": "mine"}}}
    manifest = {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "CosStack",
        "metadata": {"name": "s", "namespace": namespace},
    }
    operator.apply({**manifest, "spec": spec})
    stalled = wait_for(
        "Stalled",
        lambda: (c := operator.condition("s", namespace, "Stalled")).get("status") == "True" and c,
        20,
    )
    assert stalled["reason"] == "SecretNotFound"
    assert "mine" in stalled["message"]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": namespace}}
    operator.apply({**secret, "stringData": {"password": "correct-horse-battery"}})
    operator.wait_ready("s", namespace, 90)
    app = operator.get("secret", "s-redis-app", namespace)
    assert app
    assert base64.b64decode(app["data"]["password"]).decode() == "correct-horse-battery"
    # Rotation: a new password is in force without a restart.
    before = pod_uids(operator, namespace, "s")
    operator.apply({**secret, "stringData": {"password": "another-horse-battery"}})
    wait_for(
        "the new password is published",
        lambda: (
            base64.b64decode(
                (operator.get("secret", "s-redis-app", namespace) or {"data": {"password": ""}})["data"][
                    "password"
                ]
            ).decode()
            == "another-horse-battery"
        ),
        60,
    )
    operator.wait_ready("s", namespace, 60)
    assert pod_uids(operator, namespace, "s") == before
    operator.delete_namespace(namespace)


def test_an_image_that_cannot_be_pulled_is_named(operator: Cluster) -> None:
    namespace = "e2e-image"
    operator.fresh_namespace(namespace)
    spec = {"redis": {"image": "testbed.local:5000/redis:no-such-tag"}}
    manifest = {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "CosStack",
        "metadata": {"name": "s", "namespace": namespace},
    }
    operator.apply({**manifest, "spec": spec})
    stalled = wait_for(
        "Stalled",
        lambda: (c := operator.condition("s", namespace, "Stalled")).get("status") == "True" and c,
        60,
    )
    assert stalled["reason"] == "ImagePullFailed"
    assert "no-such-tag" in stalled["message"]
    operator.delete_namespace(namespace)


def test_pod_security_restricted_refused_nothing(healthy: Cluster) -> None:
    refused = [
        event["message"]
        for event in healthy.list("events", NAMESPACE)
        if event["reason"] in {"FailedCreate", "FailedMount"} and "violates PodSecurity" in event["message"]
    ]
    assert refused == []
    assert (
        healthy.get("namespace", NAMESPACE)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )  # type: ignore[index]


def test_the_operator_answers_for_its_health_and_metrics(healthy: Cluster) -> None:
    pod = healthy.list("pods", OPERATOR_NAMESPACE, "app.kubernetes.io/name=cos-operator")[0]
    url = f"http://{pod['status']['podIP']}:8080"
    assert client(healthy, "http_", f"{url}/healthz") == "200"
    assert client(healthy, "http_", f"{url}/readyz") == "200"
    text = healthy.python(
        "client",
        NAMESPACE,
        f"import urllib.request; print(urllib.request.urlopen('{url}/metrics', timeout=5).read().decode())",
    )
    assert f'cos_stack_condition{{namespace="{NAMESPACE}",stack="cos",type="Ready"}} 1.0' in text


def secret_values(cluster: Cluster) -> set[str]:
    """Every password and seed of the stack."""
    found = set()
    for secret in cluster.list("secrets", NAMESPACE, "cos.dev/stack=cos"):
        for key in ("password", "seed", "probe-password"):
            if key in (secret.get("data") or {}):
                found.add(base64.b64decode(secret["data"][key]).decode())
    return found


def test_no_secret_value_is_seen_where_it_should_not(healthy: Cluster) -> None:
    values = secret_values(healthy)
    assert len(values) >= 11
    seen = {
        "operator's log": healthy.run(
            "logs", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=cos-operator", "--tail=-1"
        ).stdout,
        "events": yaml.safe_dump(healthy.list("events", NAMESPACE)),
        "stack": yaml.safe_dump(healthy.stack("cos", NAMESPACE)),
        "config maps": yaml.safe_dump(healthy.list("configmaps", NAMESPACE)),
        "pods": yaml.safe_dump(pods(healthy)),
        "process arguments": _process_arguments(),
    }
    for pod in pods(healthy):
        name = pod["metadata"]["name"]
        seen[f"log of {name}"] = healthy.run(
            "logs", name, "-n", NAMESPACE, "--all-containers", "--tail=-1"
        ).stdout
    leaks = [place for place, text in seen.items() for value in values if value in text]
    assert leaks == []


def _process_arguments() -> str:
    """Arguments of every process of the machine: the testbed's nodes are namespaces of it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def _under_way(cluster: Cluster) -> list[str]:
    rows = cluster.stack("cos", NAMESPACE)["status"]["components"]
    return [row["name"] for row in rows if "lastProgressTime" in row]


def _unknown_gates(cluster: Cluster) -> list[str]:
    rows = cluster.stack("cos", NAMESPACE)["status"]["components"]
    return [gate["name"] for row in rows for gate in row.get("gates", []) if gate["verdict"] == "Unknown"]


def test_a_steady_stack_causes_no_writes(healthy: Cluster) -> None:
    # What ends with its namespace is no steady stack.
    wait_for("no namespace ends", lambda: not _ending(healthy), 120)
    # Let what earlier tests began come to rest: a component's revision is known to be good after ten seconds.
    wait_for("nothing is under way", lambda: not _under_way(healthy), 60)
    wait_for("every gate has been asked", lambda: not _unknown_gates(healthy), 60)
    time.sleep(5)
    first = _operator_writes()
    time.sleep(60)
    written = _operator_writes()[len(first) :]
    assert written == []


def _ending(cluster: Cluster) -> list[str]:
    found = cluster.list("namespaces")
    return [item["metadata"]["name"] for item in found if item["status"]["phase"] == "Terminating"]


def _operator_writes() -> list[str]:
    """The operator's writes in the API server's audit log, its Lease aside."""
    user = f"system:serviceaccount:{OPERATOR_NAMESPACE}:cos-operator"
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in audit_events()
        if event["user"].get("username") == user
        and event["stage"] == "ResponseComplete"
        and event["verb"] not in {"get", "list", "watch"}
        and event.get("objectRef", {}).get("resource") != "leases"
    ]


def test_deletion_needs_no_operator_and_keeps_the_data(healthy: Cluster, operator_image: str) -> None:
    for component in STORES:
        write(healthy, component, "kept")
    stack = healthy.stack("cos", NAMESPACE)
    healthy.run("scale", "deployment", "cos-operator", "-n", OPERATOR_NAMESPACE, "--replicas=0")
    wait_for(
        "the operator is gone",
        lambda: not healthy.list("pods", OPERATOR_NAMESPACE, "app.kubernetes.io/name=cos-operator"),
        60,
    )
    healthy.run("delete", "cosstack", "cos", "-n", NAMESPACE, "--timeout=60s", timeout=70)
    wait_for("the pods are gone", lambda: not pods(healthy), 120)
    claims = {item["metadata"]["name"] for item in healthy.list("pvc", NAMESPACE)}
    assert claims == {f"cos-{component}-data-0" for component in STORES}
    secrets = {item["metadata"]["name"] for item in healthy.list("secrets", NAMESPACE)}
    assert {"cos-redis-app", "cos-redis-admin", "cos-seed"} <= secrets
    healthy.run("scale", "deployment", "cos-operator", "-n", OPERATOR_NAMESPACE, "--replicas=1")
    manifest = {key: stack[key] for key in ("apiVersion", "kind", "spec")}
    healthy.apply({**manifest, "metadata": {"name": "cos", "namespace": NAMESPACE}})
    healthy.wait_ready("cos", NAMESPACE)
    # The client's mounted Secrets may be older than the pods; their content is the same.
    healthy.apply(*client_objects(operator_image))
    for component in STORES:
        assert read(healthy, component, "kept") == WRITTEN.get(component, "1")


def test_a_removed_component_keeps_its_volume_and_is_listed(healthy: Cluster) -> None:
    write(healthy, "redis", "put-aside")
    redis = healthy.stack("cos", NAMESPACE)["spec"]["redis"]
    healthy.patch_stack("cos", NAMESPACE, {"redis": None})
    healthy.wait_ready("cos", NAMESPACE)
    wait_for("Redis is gone", lambda: healthy.get("statefulset", "cos-redis", NAMESPACE) is None, 30)
    retained = wait_for(
        "the volume is listed", lambda: healthy.stack("cos", NAMESPACE)["status"].get("retained"), 30
    )
    assert retained == [{"component": "redis", "claim": "cos-redis-data-0"}]
    healthy.patch_stack("cos", NAMESPACE, {"redis": redis})
    healthy.wait_ready("cos", NAMESPACE)
    assert read(healthy, "redis", "put-aside") == "written"
    assert (
        "retained" not in healthy.stack("cos", NAMESPACE)["status"]
        or not healthy.stack("cos", NAMESPACE)["status"]["retained"]
    )
