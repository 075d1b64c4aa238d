"""Volumes on a StorageClass that enforces sizes and grows them in use, and on one that cannot grow them."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from harness import REGISTRY, Cluster, pod_uids, restarts, wait_for

from cos_testbed import loop_provisioner
from cos_testbed.instance import instance_from
from cos_testbed.supervise import Supervisor

NAMESPACE = "storage"
GROWING, FIXED = "growing", "fixed"
KEYS = 10_000
#: 10 MiB in the append-only file: keys whose values can be told from each other.
FILL = "for i = 1, ARGV[1] do redis.call('SET', 'key:' .. i, string.rep(i .. ',', 1024 / (#tostring(i) + 1))) end"
#: The file system keeps room ready for a file that grows: it takes more than a few bytes to fill it.
MORE = "return redis.call('SET', 'more', string.rep('x', 1048576))"
COUNT = (
    "local n = 0 for i = 1, ARGV[1] do "
    "if redis.call('GET', 'key:' .. i) == string.rep(i .. ',', 1024 / (#tostring(i) + 1)) then n = n + 1 end "
    "end return n"
)


def stack_of(name: str, storage: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "CosStack",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"images": {"registry": REGISTRY}, "redis": {"storage": storage}},
    }


@pytest.fixture(scope="module")
def stacks(operator: Cluster) -> Iterator[Cluster]:
    """Two Ready stacks with Redis alone: one on the class `loop`, one on the default class."""
    operator.fresh_namespace(NAMESPACE)
    operator.apply(
        stack_of(GROWING, {"size": "64Mi", "storageClassName": "loop"}), stack_of(FIXED, {"size": "64Mi"})
    )
    for name in (GROWING, FIXED):
        operator.wait_ready(name, NAMESPACE)
    yield operator
    volumes = [
        volume for volume in operator.list("pv") if volume["spec"]["claimRef"]["namespace"] == NAMESPACE
    ]
    assert len(volumes) == 2
    operator.run("delete", "cosstacks,pvc", "--all", "-n", NAMESPACE, "--wait=false")
    wait_for("volumes go with their claims", lambda: not [v for v in volumes if exists(operator, v)], 60)
    operator.delete_namespace(NAMESPACE)


def exists(cluster: Cluster, volume: dict[str, Any]) -> bool:
    return cluster.get("pv", volume["metadata"]["name"]) is not None


def redis(cluster: Cluster, stack: str, *command: str) -> str:
    """What Redis says to an application."""
    return in_pod(cluster, stack, *redis_cli(cluster, stack), *command)


def redis_cli(cluster: Cluster, stack: str) -> list[str]:
    secret = cluster.get("secret", f"{stack}-redis-app", NAMESPACE)
    assert secret
    return ["redis-cli", "--no-auth-warning", "-u", base64.b64decode(secret["data"]["uri"]).decode()]


def answers(cluster: Cluster, stack: str) -> bool:
    """Whether the Service leads to the engine: a node learns of a pod that is ready a moment after it is."""
    command = [*redis_cli(cluster, stack), "PING"]
    done = cluster.run("exec", f"{stack}-redis-0", "-n", NAMESPACE, "--", *command, check=False)
    return done.stdout.strip() == "PONG"


def in_pod(cluster: Cluster, stack: str, *command: str) -> str:
    return cluster.run("exec", f"{stack}-redis-0", "-n", NAMESPACE, "--", *command).stdout.strip()


def row(cluster: Cluster, stack: str) -> dict[str, Any]:
    """The component's row of the status, if that is of the present generation."""
    found = cluster.stack(stack, NAMESPACE)
    (component,) = found["status"]["components"]
    current = found["status"]["observedGeneration"] == found["metadata"]["generation"]
    return dict(component) if current else {}


def conditions(cluster: Cluster, stack: str) -> dict[str, tuple[str, str]]:
    """Status and reason of each but the gates': those are asked in their own time."""
    found = cluster.stack(stack, NAMESPACE)["status"]["conditions"]
    return {
        condition["type"]: (condition["status"], condition["reason"])
        for condition in found
        if condition["type"] != "GatesPassed"
    }


def resize(cluster: Cluster, stack: str, size: str) -> None:
    cluster.patch_stack(stack, NAMESPACE, {"redis": {"storage": {"size": size}}})


def claim(cluster: Cluster, stack: str) -> dict[str, Any]:
    (found,) = cluster.list("pvc", NAMESPACE, f"cos.dev/stack={stack}")
    return found


def room_in_mib(cluster: Cluster, stack: str) -> int:
    """Size of the file system, as the engine sees it."""
    return int(in_pod(cluster, stack, "df", "--output=size", "-BM", "/data").split()[-1].removesuffix("M"))


def identity(cluster: Cluster, stack: str) -> tuple[dict[str, str], int]:
    """UIDs of the stack's pods, and how often their containers were started again."""
    return pod_uids(cluster, NAMESPACE, stack), restarts(
        cluster.list("pods", NAMESPACE, f"cos.dev/stack={stack}")
    )


def replaced(cluster: Cluster, stack: str, before: dict[str, str]) -> bool:
    now = pod_uids(cluster, NAMESPACE, stack)
    return set(now) == set(before) and now != before


@contextmanager
def provisioner_stopped() -> Iterator[None]:
    """While it stands still, no volume grows."""
    process = Supervisor(instance_from()).find(loop_provisioner.NAME)
    assert process
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_a_full_volume_is_enlarged_while_its_engine_runs(stacks: Cluster) -> None:
    before = identity(stacks, GROWING)
    assert room_in_mib(stacks, GROWING) <= 64
    redis(stacks, GROWING, "EVAL", FILL, "0", str(KEYS))
    full = in_pod(stacks, GROWING, "sh", "-c", "cat /dev/zero 2>&1 > /data/filler; true")
    assert "No space left on device" in full

    def refused() -> bool:
        said = redis(stacks, GROWING, "EVAL", MORE, "0")
        return "MISCONF" in said and "No space left on device" in said

    wait_for("Redis refuses what it cannot keep", refused, 30)
    resize(stacks, GROWING, "128Mi")
    stacks.wait_ready(GROWING, NAMESPACE, 60)
    assert claim(stacks, GROWING)["status"]["capacity"]["storage"] == "128Mi"
    assert 100 <= room_in_mib(stacks, GROWING) <= 128
    assert redis(stacks, GROWING, "SET", "after", "growth") == "OK"
    assert redis(stacks, GROWING, "EVAL", COUNT, "0", str(KEYS)) == str(KEYS)
    assert identity(stacks, GROWING) == before
    in_pod(stacks, GROWING, "rm", "/data/filler")
    # What is in memory is on the volume too.
    stacks.run("delete", "pod", f"{GROWING}-redis-0", "-n", NAMESPACE, timeout=120)
    stacks.wait_ready(GROWING, NAMESPACE)
    assert redis(stacks, GROWING, "GET", "after") == "growth"
    assert redis(stacks, GROWING, "EVAL", COUNT, "0", str(KEYS)) == str(KEYS)
    assert 100 <= room_in_mib(stacks, GROWING) <= 128


def test_status_says_that_a_volume_grows_while_the_engine_serves(stacks: Cluster) -> None:
    stacks.wait_ready(GROWING, NAMESPACE)
    before = identity(stacks, GROWING)
    has = claim(stacks, GROWING)["status"]["capacity"]["storage"]
    with provisioner_stopped():
        resize(stacks, GROWING, "192Mi")
        wait_for("status says so", lambda: row(stacks, GROWING).get("reason") == "VolumeResizing", 30)
        found = row(stacks, GROWING)
        assert has in found["message"]
        assert "192Mi" in found["message"]
        assert conditions(stacks, GROWING) == {
            "Ready": ("False", "VolumeResizing"),
            "Available": ("True", "Serving"),
            "Reconciling": ("True", "VolumeResizing"),
            "Stalled": ("False", "Serving"),
        }
        assert redis(stacks, GROWING, "SET", "during", "growth") == "OK"
    stacks.wait_ready(GROWING, NAMESPACE, 60)
    assert claim(stacks, GROWING)["status"]["capacity"]["storage"] == "192Mi"
    assert redis(stacks, GROWING, "GET", "during") == "growth"
    assert identity(stacks, GROWING) == before


def test_a_growth_that_the_class_refuses_is_said_while_the_engine_serves(stacks: Cluster) -> None:
    before = identity(stacks, FIXED)
    assert redis(stacks, FIXED, "SET", "before", "growth") == "OK"
    resize(stacks, FIXED, "128Mi")
    wait_for("status says so", lambda: row(stacks, FIXED).get("reason") == "GrowthRefused", 30)
    found = row(stacks, FIXED)
    assert f"{FIXED}-redis-data-0" in found["message"]
    assert "write the old storage.size back" in found["message"]
    said = conditions(stacks, FIXED)
    assert {name: said[name] for name in ("Ready", "Available", "Stalled")} == {
        "Ready": ("False", "GrowthRefused"),
        "Available": ("True", "Serving"),
        "Stalled": ("True", "GrowthRefused"),
    }
    assert claim(stacks, FIXED)["spec"]["resources"]["requests"]["storage"] == "64Mi"
    # Other changes go on, and this one is still said.
    stacks.patch_stack(FIXED, NAMESPACE, {"redis": {"maxClients": 77}})
    wait_for("the pod is replaced", lambda: replaced(stacks, FIXED, before[0]), 60)
    stacks.run(
        "wait", "--for=condition=Ready", f"pod/{FIXED}-redis-0", "-n", NAMESPACE, "--timeout=60s", timeout=70
    )
    wait_for("status says so again", lambda: row(stacks, FIXED).get("reason") == "GrowthRefused", 30)
    wait_for("its Service leads to the new pod", lambda: answers(stacks, FIXED), 30)
    assert redis(stacks, FIXED, "GET", "before") == "growth"
    after = identity(stacks, FIXED)
    resize(stacks, FIXED, "64Mi")
    stacks.wait_ready(FIXED, NAMESPACE, 60)
    assert identity(stacks, FIXED) == after
