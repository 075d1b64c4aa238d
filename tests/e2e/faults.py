"""Faults of engines, each injected and healed from outside, and how long until the stack's status tells of one."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from harness import Cluster, run_testbed, wait_for

#: The server's process where process 1 is a shell or an init, by engine.
_PROCESS = {
    "postgres": "^postgres -D",
    "elasticsearch": "org.elasticsearch.bootstrap.Elasticsearch",
    # Not process 1, an init whose arguments are the same.
    "neo4j": r"^\S*java\s.*org\.neo4j",
}


@dataclass(frozen=True)
class Fault:
    """What is wrong with a component. `heal` undoes it, if it does not heal by itself."""

    kind: str
    component: str
    inject: Callable[[Cluster, str], None]
    heal: Callable[[Cluster, str], None] = lambda *_: None

    def __str__(self) -> str:
        return f"{self.kind} {self.component}"


@dataclass(frozen=True)
class Detection:
    """Seconds until the component's row said that it does not serve, and the reason that it gave."""

    seconds: float
    reason: str


class Watching:
    """Follows a stack's status, inside ``with``; each state with the monotonic time of its arrival."""

    def __init__(self, cluster: Cluster, namespace: str, stack: str) -> None:
        command = [cluster.kubectl_path, "--kubeconfig", cluster.kubeconfig, "get", "cosstack", stack]
        self._command = [*command, "-n", namespace, "--watch", "-o", "json"]
        self._seen: list[tuple[float, dict[str, Any]]] = []
        self._news = threading.Condition()

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()
        with self._news:
            assert self._news.wait_for(lambda: self._seen, 20), "the watch shows nothing"
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._child.terminate()
        self._child.wait(20)
        self._thread.join(20)

    def until(
        self, true: Callable[[dict[str, Any]], bool], since: float, seconds: float
    ) -> tuple[float, dict[str, Any]]:
        """The first row-by-name state after `since` that is true of, and when it came. Fails past the limit."""

        def first() -> tuple[float, dict[str, Any]] | None:
            return next(((when, rows) for when, rows in self._seen if when > since and true(rows)), None)

        with self._news:
            assert self._news.wait_for(first, seconds), f"not within {seconds:g} s; last: {self._seen[-1][1]}"
            found = first()
        assert found
        return found

    def _follow(self) -> None:
        decoder, text = json.JSONDecoder(), ""
        assert self._child.stdout
        for line in self._child.stdout:
            text += line
            # kubectl prints an object over many lines, the last of which is its closing brace alone.
            if line.rstrip() == "}":
                stack, text = decoder.decode(text), ""
                rows = {row["name"]: row for row in stack.get("status", {}).get("components", [])}
                with self._news:
                    self._seen.append((time.monotonic(), rows))
                    self._news.notify_all()


def detect(cluster: Cluster, namespace: str, stack: str, fault: Fault, seconds: float = 30.0) -> Detection:
    """Inject a fault into a stack that is Ready, wait until its status says so, heal it, and wait until it is Ready."""
    cluster.wait_ready(stack, namespace)
    with Watching(cluster, namespace, stack) as watching:
        began = time.monotonic()
        fault.inject(cluster, namespace)
        try:
            when, rows = watching.until(lambda rows: not rows[fault.component]["ready"], began, seconds)
        finally:
            fault.heal(cluster, namespace)
    if fault.kind == "kill":
        # A container that was killed waits ever longer for its next start, up to five minutes; that of a new pod not.
        _replace_pods(cluster, namespace, fault.component)
    cluster.wait_ready(stack, namespace)
    _settle(cluster, namespace, fault.component)
    return Detection(when - began, str(rows[fault.component]["reason"]))


def _replace_pods(cluster: Cluster, namespace: str, component: str) -> None:
    for pod in cluster.list("pods", namespace, f"cos.dev/component={component}"):
        cluster.run("delete", "pod", pod["metadata"]["name"], "-n", namespace, "--grace-period=5")


def _settle(cluster: Cluster, namespace: str, component: str) -> None:
    """Nothing of an earlier fault is left: the pod has been ready for some seconds."""

    def settled() -> bool:
        found = cluster.list("pods", namespace, f"cos.dev/component={component}")
        since = [
            condition["lastTransitionTime"]
            for pod in found
            for condition in pod["status"]["conditions"]
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]
        return 0 < len(since) == len(found) and all(
            time.time() - datetime.fromisoformat(moment).timestamp() > 3 for moment in since
        )

    wait_for(f"{component} has settled", settled, 60)


def faults(components: dict[str, str]) -> list[Fault]:
    """Every fault of the components, given by name with their engine.

    Neo4j's Community Edition and Traefik have no read-only state that could be turned on and off.
    """
    found = []
    for component, engine in components.items():
        found += [
            Fault("kill", component, _signal(component, engine, "KILL")),
            Fault("hang", component, _signal(component, engine, "STOP"), _signal(component, engine, "CONT")),
        ]
        if read_only := _READ_ONLY.get(engine):
            found.append(Fault("read-only", component, *(step(component) for step in read_only)))
    return found


def _signal(component: str, engine: str, name: str) -> Callable[[Cluster, str], None]:
    def send(cluster: Cluster, namespace: str) -> None:
        (pod,) = cluster.list("pods", namespace, f"cos.dev/component={component}")
        process = ("--process", _PROCESS[engine]) if engine in _PROCESS else ()
        run_testbed("kill", pod["metadata"]["name"], name, "-n", namespace, *process)

    return send


def _exec(component: str, *command: str) -> Callable[[Cluster, str], None]:
    def run(cluster: Cluster, namespace: str) -> None:
        cluster.run("exec", f"cos-{component}-0", "-n", namespace, "--", *command)

    return run


def _psql(statement: str) -> Callable[[str], Callable[[Cluster, str], None]]:
    peer = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c")
    # Heals also when its own sessions are read-only by default.
    writes = ("env", "PGOPTIONS=-c default_transaction_read_only=off")
    return lambda component: _exec(component, *writes, *peer, statement)


def admin_password(cluster: Cluster, namespace: str, component: str) -> str:
    """The administrator's password of a component of the stack `cos`."""
    secret = cluster.get("secret", f"cos-{component}-admin", namespace)
    assert secret
    return base64.b64decode(secret["data"]["password"]).decode()


def _redis(*command: str) -> Callable[[str], Callable[[Cluster, str], None]]:
    def step(component: str) -> Callable[[Cluster, str], None]:
        def run(cluster: Cluster, namespace: str) -> None:
            password = admin_password(cluster, namespace, component)
            uri = f"redis://cos-admin:{password}@127.0.0.1:6379"
            _exec(component, "redis-cli", "--no-auth-warning", "-u", uri, *command)(cluster, namespace)

        return run

    return step


def _cluster_block(value: str) -> Callable[[str], Callable[[Cluster, str], None]]:
    def step(component: str) -> Callable[[Cluster, str], None]:
        def run(cluster: Cluster, namespace: str) -> None:
            password = admin_password(cluster, namespace, component)
            body = f'{{"persistent": {{"cluster.blocks.read_only": {value}}}}}'
            url = "http://127.0.0.1:9200/_cluster/settings"
            curl = ("curl", "-sSf", "-u", f"cos-admin:{password}", "-X", "PUT", url)
            _exec(component, *curl, "-H", "Content-Type: application/json", "-d", body)(cluster, namespace)

        return run

    return step


_READ_ONLY = {
    "postgres": (
        _psql("ALTER ROLE ALL SET default_transaction_read_only = on"),
        _psql("ALTER ROLE ALL RESET default_transaction_read_only"),
    ),
    "redis": (_redis("REPLICAOF", "127.0.0.1", "9"), _redis("REPLICAOF", "NO", "ONE")),
    "elasticsearch": (_cluster_block("true"), _cluster_block("null")),
}
