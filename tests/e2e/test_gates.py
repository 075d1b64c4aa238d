"""Gates of real engines: what is in order passes, what was planted is called by its name, and nothing is left."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from applications import client
from faults import faults
from harness import Cluster, pod_uids, restarts, wait_for

from conftest import NAMESPACE

GATES = {
    "postgres-prod": ["Serving", "Health", "ConfigurationInForce", "ConnectionHeadroom", "StorageHeadroom"],
    "postgres-dev": ["Serving", "Health", "ConfigurationInForce", "ConnectionHeadroom", "StorageHeadroom"],
    "redis": ["Serving", "Health", "ConfigurationInForce", "ConnectionHeadroom", "StorageHeadroom"],
    "elasticsearch": ["Serving", "Health", "ConfigurationInForce", "StorageHeadroom"],
    "neo4j": ["Serving", "Health", "ConfigurationInForce"],
    "traefik": ["Serving", "ConfigurationInForce", "RoutesAnswer"],
}
#: What gates say of the machine's disk, which Elasticsearch's volume shares, and of which these tests know nothing.
OF_THE_MACHINE = ("80 % of the volume or more are taken", "index .cos-gate is not made")
OTHERWISE = "the engine runs with another configuration than was rendered: "
#: Seconds until a change of an engine at rest is in its gate: the pulse's period, and the look that follows.
SOON = 40.0


def gates(cluster: Cluster) -> dict[tuple[str, str], tuple[str, str]]:
    """Verdict and message of each gate, by component and name."""
    rows = cluster.stack("cos", NAMESPACE)["status"]["components"]
    return {
        (row["name"], gate["name"]): (gate["verdict"], gate.get("message", ""))
        for row in rows
        for gate in row.get("gates", [])
        if row["name"] != "elasticsearch" or not gate.get("message", "").startswith(OF_THE_MACHINE)
    }


def not_passed(cluster: Cluster) -> dict[tuple[str, str], tuple[str, str]]:
    return {gate: said for gate, said in gates(cluster).items() if said[0] != "Passed"}


@pytest.fixture
def in_order(healthy: Cluster) -> Iterator[Cluster]:
    """The shared stack with every gate passed, before and after."""
    wait_for("every gate passes", lambda: not not_passed(healthy), SOON)
    yield healthy
    try:
        wait_for("every gate passes again", lambda: not not_passed(healthy), SOON)
    except AssertionError as error:
        raise AssertionError(f"{error}: {not_passed(healthy)}") from None


def admin(cluster: Cluster, *command: str) -> str:
    """What Redis says to its administrator."""
    secret = cluster.get("secret", "cos-redis-admin", NAMESPACE)
    assert secret
    login = [base64.b64decode(secret["data"][key]).decode() for key in ("username", "password")]
    uri = f"redis://{login[0]}:{login[1]}@127.0.0.1:6379"
    shown = cluster.run(
        "exec", "cos-redis-0", "-n", NAMESPACE, "--", "redis-cli", "--no-auth-warning", "-u", uri, *command
    )
    return shown.stdout.strip()


def test_a_stack_in_order_passes_every_gate_and_keeps_nothing_of_them(in_order: Cluster) -> None:
    rows = in_order.stack("cos", NAMESPACE)["status"]["components"]
    assert {row["name"]: [gate["name"] for gate in row["gates"]] for row in rows} == GATES
    condition = in_order.condition("cos", NAMESPACE, "GatesPassed")
    assert condition["status"] == "True" or any(said in condition["message"] for said in OF_THE_MACHINE)
    shown = in_order.run("get", "cos", "cos", "-n", NAMESPACE, "-o", "wide").stdout
    assert "GATES" in shown
    assert admin(in_order, "EXISTS", "cos:gate") == "0"
    peer = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-XAt", "-d", "cos_gate", "-c")
    for component in ("postgres-prod", "postgres-dev"):
        count = in_order.run(
            "exec", f"cos-{component}-0", "-n", NAMESPACE, "--", *peer, "SELECT count(*) FROM cos.gate"
        )
        assert count.stdout.strip() == "0"


def test_what_is_planted_is_called_by_its_name_while_the_stack_is_ready(in_order: Cluster) -> None:
    def pods() -> tuple[dict[str, str], int]:
        found = in_order.list("pods", NAMESPACE, "cos.dev/stack=cos")
        return pod_uids(in_order, NAMESPACE, "cos"), restarts(found)

    before, memory = pods(), admin(in_order, "CONFIG", "GET", "maxmemory").split()[-1]
    routes = in_order.stack("cos", NAMESPACE)["spec"]["traefik"]["routes"]
    nowhere = {"name": "nowhere", "path": "/nowhere", "service": {"name": "no-such-service", "port": 80}}
    planted = {
        ("redis", "ConfigurationInForce"): (
            "Failed",
            f"{OTHERWISE}maxmemory is {100 * 2**20}, not {memory}",
        ),
        ("postgres-dev", "ConnectionHeadroom"): (
            "Failed",
            "80 % of the connections for applications or more are taken",
        ),
        ("traefik", "RoutesAnswer"): ("Failed", "route nowhere: HTTP 502"),
    }
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(client, in_order, "postgres", "postgres-dev", "hold", str(SOON), timeout=120)
        try:
            assert admin(in_order, "CONFIG", "SET", "maxmemory", "100mb") == "OK"
            in_order.patch_stack("cos", NAMESPACE, {"traefik": {"routes": [*routes, nowhere]}})
            wait_for("each is told, and nothing else", lambda: not_passed(in_order) == planted, SOON)
            condition = in_order.condition("cos", NAMESPACE, "GatesPassed")
            assert (condition["status"], condition["reason"]) == ("False", "GateFailed")
            assert in_order.condition("cos", NAMESPACE, "Ready")["status"] == "True"
        except AssertionError as error:
            raise AssertionError(f"{error}: {not_passed(in_order)}") from None
        finally:
            assert admin(in_order, "CONFIG", "SET", "maxmemory", memory) == "OK"
            in_order.patch_stack("cos", NAMESPACE, {"traefik": {"routes": routes}})
        assert "too many clients" in held.result() or "remaining connection slots" in held.result()
    assert pods() == before


def test_a_server_of_before_is_asked_no_more_than_it_can_answer(in_order: Cluster) -> None:
    """An upgraded operator meets a Postgres without the gate's database and without the right to see all sessions."""

    def psql(statement: str) -> None:
        peer = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-XAt", "-v", "ON_ERROR_STOP=1", "-c")
        in_order.run("exec", "cos-postgres-dev-0", "-n", NAMESPACE, "--", *peer, statement)

    psql("REVOKE pg_monitor FROM cos_admin")
    psql("DROP DATABASE cos_gate WITH (FORCE)")
    try:
        wait_for("that alone is not known", lambda: unknown_of_dev(not_passed(in_order)), 2 * SOON)
    finally:
        psql("GRANT pg_monitor TO cos_admin")


def test_on_request_a_store_whose_gates_fail_gets_no_requests(in_order: Cluster) -> None:
    routes = in_order.stack("cos", NAMESPACE)["spec"]["traefik"]["routes"]
    strict = {
        "name": "strict",
        "host": "strict.test",
        "component": "elasticsearch",
        "whenGatesFail": "Refuse",
    }
    in_order.patch_stack("cos", NAMESPACE, {"traefik": {"routes": [*routes, strict]}})

    def answer() -> str:
        return client(in_order, "http_", f"http://cos-traefik.{NAMESPACE}.svc/", "strict.test")

    # Elasticsearch asks for credentials: the request reached it.
    wait_for("the route is open", lambda: answer() == "401", 20)
    (block,) = [f for f in faults({"elasticsearch": "elasticsearch"}) if f.kind == "read-only"]
    block.inject(in_order, NAMESPACE)
    try:
        wait_for("the route is closed", lambda: answer() == "503", 20)
    finally:
        block.heal(in_order, NAMESPACE)
    wait_for("the route is open again", lambda: answer() == "401", SOON)
    in_order.wait_ready("cos", NAMESPACE)


def unknown_of_dev(found: dict[tuple[str, str], tuple[str, str]]) -> bool:
    """Without the right there is no room known of, and without that no database is made."""
    gates = {("postgres-dev", name) for name in ("Serving", "ConnectionHeadroom", "StorageHeadroom")}
    return found.keys() == gates and {verdict for verdict, _ in found.values()} == {"Unknown"}


def test_a_redis_whose_every_connection_is_taken_fails_that_gate_and_serves(in_order: Cluster) -> None:
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(client, in_order, "redis_", "clients", str(SOON), timeout=120)
        wait_for(
            "the gate fails", lambda: gates(in_order)["redis", "ConnectionHeadroom"][0] == "Failed", SOON
        )
        assert in_order.condition("cos", NAMESPACE, "Ready")["status"] == "True"
        assert "max number of clients" in held.result()
