"""Applications of the shared stack: what they write, they find again."""

from __future__ import annotations

from pathlib import Path

from harness import Cluster

from conftest import NAMESPACE

CLIENTS = Path(__file__).parent / "clients"
STORES = ("postgres-prod", "postgres-dev", "redis", "elasticsearch", "neo4j")
COMPONENTS = (*STORES, "traefik")


def client(cluster: Cluster, script: str, *args: str, timeout: float = 60) -> str:
    """What a script of an application says."""
    return cluster.python("client", NAMESPACE, (CLIENTS / f"{script}.py").read_text(), *args, timeout=timeout)


def write(cluster: Cluster, component: str, key: str) -> None:
    if component.startswith("postgres"):
        client(cluster, "postgres", component, "write", key)
    else:
        client(cluster, f"{component}_", "write", key)


def read(cluster: Cluster, component: str, key: str) -> str:
    if component.startswith("postgres"):
        return client(cluster, "postgres", component, "count", key)
    action = {"elasticsearch": "search"}.get(component, "read")
    return client(cluster, f"{component}_", action, key)


WRITTEN = {"redis": "written"}
