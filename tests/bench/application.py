"""An application that is measured: `application.py SECONDS`, targets as JSON on standard input, p99s in ms as JSON out.

Of those targets that there are it asks Redis 100 times a second, Postgres and a route of Traefik 30 times, each over
two connections.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from redis import Redis

from cos_controllers.probes.order import Check, CheckName
from cos_operator.probe.base import Target
from cos_operator.probe.load import make_load, percentiles
from cos_operator.probe.traefik import TraefikDriver


class Cache:
    """Keys are set and read in turn."""

    def __init__(self, target: dict[str, Any]) -> None:
        self._client = Redis(
            target["host"], target["port"], username=target["user"], password=target["password"]
        )

    def request(self, number: int) -> None:
        if number % 2:
            self._client.get(f"app:{number % 100}")
        else:
            self._client.set(f"app:{number % 100}", b"x" * 100)

    def close(self) -> None:
        self._client.close()


class Rows:
    """Rows are added and counted in turn."""

    def __init__(self, target: dict[str, Any]) -> None:
        self._session = psycopg.connect(
            host=target["host"],
            port=target["port"],
            user=target["user"],
            password=target["password"],
            dbname=target["database"],
            autocommit=True,
        )
        self._session.execute(
            "CREATE TABLE IF NOT EXISTS app (id bigint GENERATED ALWAYS AS IDENTITY, t text)"
        )

    def request(self, number: int) -> None:
        if number % 2:
            self._session.execute("SELECT t FROM app ORDER BY id DESC LIMIT 1").fetchone()
        else:
            self._session.execute("INSERT INTO app (t) VALUES ('x')")

    def close(self) -> None:
        self._session.close()


def main() -> None:
    seconds, targets = float(sys.argv[1]), json.load(sys.stdin)
    connectors: dict[str, tuple[Any, float]] = {}
    if "redis" in targets:
        connectors["redis"] = (lambda: Cache(targets["redis"]), 100)
    if "postgres" in targets:
        connectors["postgres"] = (lambda: Rows(targets["postgres"]), 30)
    if route := targets.get("traefik"):
        check = Check(
            kind=CheckName.ROUTE, rate=0, connections=1, route="app", host=route["name"], path=route["path"]
        )
        connectors["traefik"] = (TraefikDriver().connector(Target(route["host"], route["port"]), check), 30)

    def measure(name: str) -> float:
        connect, rate = connectors[name]
        opened: Any = connect
        seen = make_load(opened, rate=rate, connections=2, seconds=seconds, stop=threading.Event())
        found = percentiles(seen.due)
        if found is None or seen.errors:
            raise RuntimeError(f"{name}: {seen.errors} errors: {seen.first_error}")
        return found.p99 / 1000

    with ThreadPoolExecutor(len(connectors)) as pool:
        print(json.dumps(dict(zip(connectors, pool.map(measure, connectors), strict=True))))  # noqa: T201


if __name__ == "__main__":
    main()
