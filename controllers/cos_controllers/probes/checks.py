"""Which checks a probe makes of a stack, and how much load each makes.

Rates and concurrency are a little above what the stack is to reach (README of the mission: 1,000 messages a second, 20
mixed database operations, 50 requests), so that a run that keeps up shows that it is reached, at little cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from cos_controllers.api.probe import Load, ProbeSettings
from cos_controllers.api.stack import CosStackSpec, EngineSpec, PostgresSpec, RedisSpec
from cos_controllers.components.postgres.config import RESERVED_CONNECTIONS
from cos_controllers.components.redis.config import RESERVED_CLIENTS
from cos_controllers.components.registry import ENGINES
from cos_controllers.names import child_name
from cos_controllers.objectives import probed_routes
from cos_controllers.probes.order import Check, CheckName, Order, Subject


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

#: Connections that an engine keeps for the operator.
_RESERVED = {"redis": RESERVED_CLIENTS, "postgres": RESERVED_CONNECTIONS}
#: A check has at most one in so many of the connections that an engine has for applications.
_SHARE = 4

#: Seconds of a run beyond those of its checks: the start of Python and of the drivers, and of each component the making
#: of its data and connections.
START_SECONDS = 60
SECONDS_A_COMPONENT = 30


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
                        component=component,
                        engine=engine.kind,
                        host=host,
                        port=port,
                        reserved=_RESERVED.get(engine.kind, 0),
                        checks=tuple(checks),
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
