"""Probes of real engines: measured, called by its name what is wrong, and nothing left, whoever is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from applications import client
from harness import Cluster, wait_for

from conftest import NAMESPACE, OPERATOR_NAMESPACE

CHECKS = {
    "postgres-prod/Mixed": 40,
    "postgres-dev/Mixed": 40,
    "redis/Latency": 100,
    "redis/Throughput": 1200,
    "redis/PubSub": 100,
    "elasticsearch/Index": 20,
    "elasticsearch/Search": 20,
    "neo4j/Write": 20,
    "neo4j/Traverse": 20,
    "traefik/Route/search": 60,
}
#: Seconds for a probe of two seconds a check: the pod, Python and the drivers, the data, the checks.
LIMIT = 120.0
_LEFT = """
import pathlib, sys
def binding(name):
    folder = pathlib.Path("/bindings") / name
    return {key: (folder / key).read_text() for key in ("host", "username", "password")}
import redis, elasticsearch, neo4j
b = binding("redis")
r = redis.Redis(b["host"], 6379, username=b["username"], password=b["password"])
print("redis", sum(1 for _ in r.scan_iter("cos:probe:*", count=1000)))
b = binding("elasticsearch")
e = elasticsearch.Elasticsearch(f"http://{b['host']}:9200", basic_auth=(b["username"], b["password"]))
print("elasticsearch", int(bool(e.indices.exists(index="cos-probe"))))
b = binding("neo4j")
with neo4j.GraphDatabase.driver(f"bolt://{b['host']}:7687", auth=(b["username"], b["password"])) as d:
    rows, *_ = d.execute_query("MATCH (n:CosProbe) RETURN count(n) AS n")
    indexes, *_ = d.execute_query("SHOW INDEXES YIELD name WHERE name = 'cos_probe'")
    print("neo4j", rows[0]["n"] + len(indexes))
"""


def left(cluster: Cluster) -> dict[str, str]:
    """What probes have left in each store; every value is "0" if nothing is."""
    found = dict(line.split() for line in cluster.python("client", NAMESPACE, _LEFT).splitlines())
    # The first probe of a Postgres makes the database; it stays, empty.
    made = "SELECT count(*) FROM pg_database WHERE datname = 'cos_probe'"
    schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'cos_probe'"
    for component in ("postgres-prod", "postgres-dev"):
        is_made = in_postgres(cluster, component, "postgres", made) == "1"
        found[component] = in_postgres(cluster, component, "cos_probe", schemas) if is_made else "0"
    return found


def in_postgres(cluster: Cluster, component: str, database: str, query: str) -> str:
    """The only value that a query finds, asked as the superuser."""
    peer = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-XAt", "-d", database, "-c", query)
    return cluster.run("exec", f"cos-{component}-0", "-n", NAMESPACE, "--", *peer).stdout.strip()


def create(cluster: Cluster, name: str, **spec: Any) -> None:
    cluster.apply(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackProbe",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"stackRef": {"name": "cos"}, "secondsPerCheck": 2, **spec},
        }
    )


def ended(cluster: Cluster, name: str) -> dict[str, Any]:
    """The status of a probe that has ended, and of which nothing is left to do."""

    def status() -> dict[str, Any] | None:
        probe = cluster.get("stackprobe", name, NAMESPACE) or {}
        found: dict[str, Any] = probe.get("status", {})
        return found if found.get("completionTime") else None

    found = wait_for(f"probe {name} has ended", status, LIMIT)
    wait_for(f"the Job of {name} is gone", lambda: not cluster.get("job", name, NAMESPACE), 60)
    return found


def checks(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in status["checks"]}


def makes_load(cluster: Cluster, name: str) -> str:
    """The name of the probe's pod, once it runs."""

    def pod() -> str:
        pods = cluster.list("pods", NAMESPACE, f"cos.dev/probe={name}")
        return next((p["metadata"]["name"] for p in pods if p["status"]["phase"] == "Running"), "")

    return wait_for(f"{name} makes load", pod, 60)


@pytest.fixture
def probed(healthy: Cluster) -> Iterator[Cluster]:
    """The shared stack; the probes go, and leave nothing."""
    yield healthy
    healthy.run("delete", "stackprobes", "--all", "-n", NAMESPACE)
    wait_for(
        "no Job is left", lambda: not healthy.list("jobs", NAMESPACE, "app.kubernetes.io/name=cos-probe"), 60
    )
    assert set(left(healthy).values()) == {"0"}


def test_every_engine_is_measured_and_keeps_nothing(probed: Cluster) -> None:
    command = [sys.executable, "-m", "cos_operator.cli", "probe", "cos", "-n", NAMESPACE, "--seconds", "1"]
    environment = {**os.environ, "KUBECONFIG": probed.kubeconfig}
    shown = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=LIMIT, env=environment
    )
    (probe,) = probed.list("stackprobes", NAMESPACE)
    status = ended(probed, probe["metadata"]["name"])
    assert shown.returncode == (status["phase"] != "Successful"), shown.stderr
    assert all(name in shown.stdout for name in CHECKS), shown.stdout
    assert "Running: 10 checks of 1 s each" in shown.stderr
    found = checks(status)
    assert list(found) == list(CHECKS)
    assert {row["phase"] for row in found.values()} <= {"Successful", "Inconclusive"}, status["message"]
    for name, rate in CHECKS.items():
        row = found[name]
        assert row["operations"] + row["missed"] == rate, row
        assert row["errors"] == 0, row
        assert 0 < row["serviceTime"]["p50Microseconds"] <= row["latency"]["maxMicroseconds"], row
    taken = {row["name"]: row for row in status["components"]}
    assert {name for name, row in taken.items() if row.get("cpuMilliseconds", 0) > 0} == {
        "redis",
        "elasticsearch",
        "neo4j",
    }
    assert taken["redis"]["connectionsLimit"] >= taken["redis"]["connections"] > 0
    assert all(row["revision"] for row in taken.values())
    assert left(probed) == dict.fromkeys(left(probed), "0")


def test_it_ends_well_although_the_operator_is_killed_meanwhile(probed: Cluster) -> None:
    create(probed, "killed", components=["redis", "postgres-dev"])
    makes_load(probed, "killed")
    operator = ("-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=cos-operator")
    probed.run("delete", "pod", *operator, "--grace-period=0", "--force", "--wait=false")
    status = ended(probed, "killed")
    assert set(checks(status)) == {name for name in CHECKS if name.startswith(("redis", "postgres-dev"))}
    assert status["phase"] in {"Successful", "Inconclusive"}, status["message"]


def test_what_a_killed_prober_left_is_cleared(probed: Cluster) -> None:
    create(probed, "broken", secondsPerCheck=30)
    pod = makes_load(probed, "broken")
    wait_for("there is data", lambda: left(probed)["postgres-prod"] != "0", 30)
    probed.run("delete", "pod", pod, "-n", NAMESPACE, "--grace-period=0", "--force", "--wait=false")
    status = ended(probed, "broken")
    assert (status["phase"], status.get("checks", [])) == ("Error", [])


def test_what_is_wrong_is_called_by_its_name(probed: Cluster) -> None:
    """A Postgres without a free connection, a route to nowhere, and beside them a Redis that is well."""
    routes = probed.stack("cos", NAMESPACE)["spec"]["traefik"]["routes"]
    nowhere = {"name": "nowhere", "path": "/nowhere", "service": {"name": "no-such-service", "port": 80}}
    probed.patch_stack("cos", NAMESPACE, {"traefik": {"routes": [*routes, nowhere]}})
    answer = f"http://cos-traefik.{NAMESPACE}.svc/nowhere"
    wait_for("the route is in force", lambda: client(probed, "http_", answer, "any.test") == "502", 30)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(client, probed, "postgres", "postgres-dev", "hold", "30", timeout=120)
        query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        peer = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-XAt", "-c", query)

        def taken() -> int:
            shown = probed.run("exec", "cos-postgres-dev-0", "-n", NAMESPACE, "--", *peer)
            return int(shown.stdout)

        wait_for("every connection is taken", lambda: taken() > 80, 30)
        create(
            probed, "planted", components=["postgres-dev", "redis", "traefik"], routes=["nowhere", "search"]
        )
        status = ended(probed, "planted")
        held.result()
    found = checks(status)
    assert found["postgres-dev/Mixed"]["phase"] == "Error"
    assert "remaining connection slots are reserved" in found["postgres-dev/Mixed"]["message"]
    assert found["traefik/Route/nowhere"]["phase"] == "Failed"
    assert "answered 502 Bad Gateway" in found["traefik/Route/nowhere"]["message"]
    well = {name: row for name, row in found.items() if name.startswith(("redis", "traefik/Route/search"))}
    assert len(well) == 4
    assert {row["phase"] for row in well.values()} <= {"Successful", "Inconclusive"}
    assert status["phase"] == "Failed"


_LEAK = """
import pathlib, sys, time, redis
b = {p.name: p.read_text() for p in pathlib.Path("/bindings/redis").iterdir() if p.is_file()}
r = redis.Redis(b["host"], 6379, username=b["username"], password=b["password"])
names = [f"leak:{n}" for n in range(110)]
if sys.argv[1] == "fill":
    deadline = time.monotonic() + 60
    while not r.exists("cos:probe:0"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    for name in names:
        r.set(name, b"x" * 2**20, ex=300)
else:
    r.unlink(*names)
print("done")
"""
ONCE = {"measurements": 1, "failures": 1}
SLO = {
    "objectives": [
        {"name": "redis-throughput", "check": "redis/Throughput", "figure": "P95", "atMost": "10ms"},
        {"name": "redis-memory", "check": "redis", "figure": "MemoryGrowth", "atMost": "100M"},
        {"name": "errors", "figure": "ErrorPercent", "atMost": "3%"},
    ]
}


def test_a_change_that_breaks_an_objective_is_taken_back_and_what_is_wrong_is_named(probed: Cluster) -> None:
    """A change that slows Redis by a limit of CPU takes itself back; then a leak of 110 MB is told."""

    def slo() -> tuple[str, list[str]]:
        found = probed.condition("cos", NAMESPACE, "SLOMet")
        rows = probed.stack("cos", NAMESPACE)["status"].get("objectives", [])
        return found.get("status", ""), [row["name"] for row in rows if row["verdict"] == "Failed"]

    def is_told(*expected: str) -> None:
        status = "False" if expected else "True"
        try:
            wait_for(f"{expected or 'nothing'} is missed", lambda: slo() == (status, list(expected)), LIMIT)
        except AssertionError as error:
            rows = probed.stack("cos", NAMESPACE)["status"].get("objectives")
            raise AssertionError(f"{error}: {rows}") from None

    def redis() -> dict[str, Any]:
        rows = probed.stack("cos", NAMESPACE)["status"]["components"]
        return next(dict(row) for row in rows if row["name"] == "redis")

    objectives = [{**objective, "window": ONCE} for objective in SLO["objectives"]]
    template = {"secondsPerCheck": 3, "components": ["redis"]}
    probed.patch_stack(
        "cos",
        NAMESPACE,
        {
            "slo": {"mode": "Rollback", "objectives": objectives},
            "probes": {"afterChange": True, "template": template},
        },
    )
    is_told()
    good = redis()["effectiveRevision"]
    assert "SLO" in probed.run("get", "cos", "cos", "-n", NAMESPACE, "-o", "wide").stdout

    probed.patch_stack("cos", NAMESPACE, {"redis": {"resources": {"limits": {"cpu": "60m"}}}})
    is_told("redis-throughput")
    message = probed.condition("cos", NAMESPACE, "SLOMet")["message"]
    assert message.startswith("redis-throughput: redis/Throughput P95 at most 10ms is missed in 1 of 1")
    wait_for("the change is taken back", lambda: redis()["reason"] == "RolledBack", 60)
    wait_for("what was good runs again", lambda: redis().get("effectiveRevision") == good, 60)
    assert "served, and was taken back (ObjectiveMissed: objective redis-throughput" in redis()["message"]

    probed.patch_stack("cos", NAMESPACE, {"redis": {"resources": {"limits": {"cpu": None}}}})
    probed.wait_ready("cos", NAMESPACE)
    is_told()

    create(probed, "leak", components=["redis"], secondsPerCheck=4)
    assert probed.python("client", NAMESPACE, _LEAK, "fill", timeout=90) == "done"
    try:
        is_told("redis-memory")
    finally:
        # Without probes of its own, which would begin anew once these are deleted.
        probed.patch_stack("cos", NAMESPACE, {"probes": {"afterChange": False}})
        probed.python("client", NAMESPACE, _LEAK, "remove")
