"""The engines that a stack can have. A new engine is one folder beside this file and one line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cos_controllers.api.backup import Repository
from cos_controllers.api.stack import CosStackSpec, StoreSpec
from cos_controllers.components.base import Dumper, Engine
from cos_controllers.components.elasticsearch import Elasticsearch
from cos_controllers.components.neo4j import Neo4j
from cos_controllers.components.postgres import Postgres
from cos_controllers.components.redis import Redis
from cos_controllers.components.traefik import Traefik

#: In the order of status rows, and in which components are restarted when several are due.
ENGINES: tuple[Engine, ...] = (Postgres(), Redis(), Elasticsearch(), Neo4j(), Traefik())

#: The engines of which there are backups, by kind.
DUMPERS: Mapping[str, Dumper] = {
    "postgres": Postgres(),
    "redis": Redis(),
    "elasticsearch": Elasticsearch(),
    "neo4j": Neo4j(),
}


def stores(spec: CosStackSpec) -> dict[str, str]:
    """The engine of each component that has data."""
    return {
        component: engine.kind
        for engine in ENGINES
        for component, found in engine.instances(spec).items()
        if isinstance(found, StoreSpec)
    }


def why_no_copies(spec: CosStackSpec) -> dict[str, str]:
    """Why there are no copies of each component that has data; "" of one of which there can be."""
    found = {}
    for engine in ENGINES:
        for component, instance in engine.instances(spec).items():
            if isinstance(instance, StoreSpec):
                dumper = DUMPERS.get(engine.kind)
                found[component] = (
                    dumper.why_not(instance) if dumper else f"this version makes no backups of {engine.kind}"
                )
    return found


def dumper_of(component: str, spec: CosStackSpec) -> Dumper | None:
    """What copies a component; None of one of which there are no copies."""
    return DUMPERS.get(stores(spec).get(component, "")) if why_no_copies(spec).get(component) == "" else None


def kept_in(component: str, spec: CosStackSpec) -> Sequence[Repository]:
    """The repositories of a stack that copies of a component can be in; none of one of which there are no copies."""
    dumper = dumper_of(component, spec)
    found = (engine.instances(spec).get(component) for engine in ENGINES)
    instance = next((item for item in found if item), None)
    return dumper.kept_in(instance, spec.backup.repositories) if dumper and instance and spec.backup else ()
