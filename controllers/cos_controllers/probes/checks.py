"""Which checks there are, and how much load each makes: the order that a probe's Job is given.

Rates and concurrency are a little above what the stack is to reach (README of the mission: 1,000 messages a second, 20
mixed database operations, 50 requests), so that a run that keeps up shows that it is reached, at little cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from cos_controllers.api.probe import Load, ProbeSettings
from cos_controllers.api.stack import CosStackSpec, EngineSpec, PostgresSpec, RedisSpec
from cos_controllers.components.registry import ENGINES
from cos_controllers.names import child_name
from cos_controllers.objectives import probed_routes


class CheckName(StrEnum):
    """What is done again and again. The docs are made from the meanings here."""

    LATENCY = "Latency"
    """Redis: one connection sets a key of 64 bytes and reads one, in turn."""
    THROUGHPUT = "Throughput"
    """Redis: several connections set keys of 64 bytes and read them."""
    PUB_SUB = "PubSub"
    """Redis: a message is published, and over when a subscriber on another connection has it."""
    MIXED = "Mixed"
    """Postgres: several connections read a row of 10,000 by its key, and update one in a transaction of its own."""
    INDEX = "Index"
    """Elasticsearch: a document is written; it can be searched within the index's refresh interval."""
    SEARCH = "Search"
    """Elasticsearch: a full-text query over 1,000 documents, ten hits."""
    WRITE = "Write"
    """Neo4j: a node is created and tied to another one, in a transaction."""
    TRAVERSE = "Traverse"
    """Neo4j: from one of 1,000 nodes three steps along a graph of 3,000 relationships."""
    ROUTE = "Route"
    """Traefik: GET of a route's host and path. An answer of the backend's own, 401 and 404 too, is one; 5xx is none."""


class _Rule(BaseModel):
    """Requests a second; whether there are several connections."""

    rate: int
    several: bool = False


#: The checks of each engine, in order.
_RULES: Mapping[str, Mapping[CheckName, _Rule]] = {
    "redis": {
        CheckName.LATENCY: _Rule(rate=100),
        CheckName.THROUGHPUT: _Rule(rate=1200, several=True),
        CheckName.PUB_SUB: _Rule(rate=100),
    },
    "postgres": {CheckName.MIXED: _Rule(rate=40, several=True)},
    "elasticsearch": {CheckName.INDEX: _Rule(rate=20), CheckName.SEARCH: _Rule(rate=20)},
    "neo4j": {CheckName.WRITE: _Rule(rate=20), CheckName.TRAVERSE: _Rule(rate=20)},
    "traefik": {CheckName.ROUTE: _Rule(rate=60, several=True)},
}

#: A check has at most one in so many of the connections that an engine has for applications.
_SHARE = 4
#: Where `Bindings` are mounted in the Job: a folder of the application's Secret for each component that has one.
BINDINGS = "/bindings"
#: Environment variable with the order.
ORDER = "COS_PROBE_ORDER"
#: Seconds of a run beyond those of its checks: the start of Python and of the drivers, and of each component the making
#: of its data and connections.
START_SECONDS = 60
SECONDS_A_COMPONENT = 30


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Check(_Model):
    """One check: `rate` requests a second over all `connections`, 0 for as many as are answered."""

    kind: CheckName
    rate: int
    connections: int
    route: str = ""
    host: str = ""
    path: str = ""

    def name(self, component: str) -> str:
        """Its row: component, check, and route if it is of one."""
        return "/".join(filter(None, (component, self.kind.value, self.route)))


class Subject(_Model):
    """A component to try, at its Service."""

    component: str
    engine: str
    host: str
    port: int
    checks: tuple[Check, ...]


class Order(_Model):
    """What a Job is to do, in this order. `seconds`: of each check; `limit`: after which it gives up what is left."""

    subjects: tuple[Subject, ...]
    seconds: int
    limit: int


def order_of(
    name: str, namespace: str, stack: CosStackSpec, settings: ProbeSettings, components: Sequence[str]
) -> Order:
    """The order for those `components` of a stack's."""
    subjects = []
    for engine in ENGINES:
        for component in engine.instances(stack):
            most = _connections(engine.instances(stack)[component], settings)
            checks = _checks(engine.kind, stack, settings, most) if component in components else ()
            if checks:
                host = f"{child_name(name, component)}.{namespace}.svc"
                port = engine.ports[0].number
                subjects.append(
                    Subject(
                        component=component, engine=engine.kind, host=host, port=port, checks=tuple(checks)
                    )
                )
    seconds = settings.seconds_per_check
    checks_in_all = sum(len(subject.checks) for subject in subjects)
    limit = START_SECONDS + SECONDS_A_COMPONENT * len(subjects) + 2 * seconds * checks_in_all
    return Order(subjects=tuple(subjects), seconds=seconds, limit=limit)


def _connections(spec: EngineSpec, settings: ProbeSettings) -> int:
    """How many connections a check may have: not more than a share of those that applications may."""
    limit = None
    if isinstance(spec, RedisSpec):
        limit = spec.max_clients
    elif isinstance(spec, PostgresSpec):
        limit = int(spec.parameters.get("max_connections", "100"))
    return settings.connections if limit is None else max(min(settings.connections, limit // _SHARE), 1)


def _checks(engine: str, stack: CosStackSpec, settings: ProbeSettings, most: int) -> list[Check]:
    found = []
    for kind, rule in _RULES[engine].items():
        rate = rule.rate if settings.load is Load.PACED else 0
        several = rule.several or settings.load is Load.SATURATING
        # A message takes two: one that publishes, one that listens.
        connections = max(most // (2 if kind is CheckName.PUB_SUB else 1), 1) if several else 1
        check = Check(kind=kind, rate=rate, connections=connections)
        if kind is not CheckName.ROUTE:
            found.append(check)
            continue
        found += [
            check.model_copy(update={"route": route.name, "host": route.host or "", "path": route.path})
            for route in probed_routes(stack, settings)
        ]
    return found
