"""What a probe's Job is given: which checks to make, and where. The prober loads this, and no Kubernetes client."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

#: Where `Bindings` are mounted in the Job: a folder of the application's Secret for each component that has one.
BINDINGS = "/bindings"
#: Environment variable with the order.
ORDER = "COS_PROBE_ORDER"


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
    """A component to try, at its Service. `reserved`: connections that are not for applications."""

    component: str
    engine: str
    host: str
    port: int
    reserved: int = 0
    checks: tuple[Check, ...]


class Order(_Model):
    """What a Job is to do, in this order. `seconds`: of each check; `limit`: after which it gives up what is left."""

    subjects: tuple[Subject, ...]
    seconds: int
    limit: int
