"""Neo4j: nodes of the prober's own label are written, and walked along."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import LiteralString

from neo4j import Driver as Bolt
from neo4j import GraphDatabase, NotificationMinimumSeverity, Query
from neo4j.exceptions import DriverError, Neo4jError

from cos_controllers.probes.order import Check, CheckName
from cos_operator.engines.places import NEO4J_INDEX, NEO4J_LABEL
from cos_operator.probe.base import REQUEST_SECONDS, Amounts, Target, in_parts
from cos_operator.probe.load import Connection

NODES = 1000
#: Nodes are found by an index, as an application would.
_INDEX: LiteralString = f"CREATE INDEX {NEO4J_INDEX} IF NOT EXISTS FOR (n:{NEO4J_LABEL}) ON (n.number)"
_AWAIT: LiteralString = "CALL db.awaitIndexes(10)"
_FILL: LiteralString = f"UNWIND range($start, $end - 1) AS i CREATE (:{NEO4J_LABEL} {{number: i}})"
#: Three relationships each, so that three steps reach up to 27 nodes.
_TIE: LiteralString = f"""
MATCH (a:{NEO4J_LABEL}) WHERE $start <= a.number < $end UNWIND [1, 7, 53] AS step
MATCH (b:{NEO4J_LABEL} {{number: (a.number + step) % $nodes}}) CREATE (a)-[:NEXT]->(b)
"""
_WRITE: LiteralString = f"""
MATCH (a:{NEO4J_LABEL} {{number: $number}}) CREATE (a)<-[:SEEN]-(:{NEO4J_LABEL} {{body: $body}})
"""
_TRAVERSE: LiteralString = f"""
MATCH (:{NEO4J_LABEL} {{number: $number}})-[:NEXT*3]->(b) RETURN count(DISTINCT b)
"""
#: Java's own account of the process: what Community offers of CPU and memory. Of the heap what outlives collections.
_AMOUNTS: LiteralString = """
CALL dbms.queryJmx('java.lang:*') YIELD name, attributes
WITH name, attributes, name =~ '.*name=[^,]*(Old|Tenured) Gen,.*' AS old
WHERE old OR name IN ['java.lang:type=OperatingSystem', 'java.lang:type=Memory']
RETURN sum(coalesce(attributes.ProcessCpuTime.value, 0)) AS cpu,
       sum(CASE WHEN old THEN attributes.Usage.value.properties.used ELSE 0 END) AS heap,
       sum(coalesce(attributes.NonHeapMemoryUsage.value.properties.used, 0)) AS rest
"""


def _driver(target: Target) -> Bolt:
    return GraphDatabase.driver(
        f"bolt://{target.host}:{target.port}",
        auth=(target.user.username, target.user.password),
        max_connection_pool_size=1,
        connection_timeout=REQUEST_SECONDS,
        connection_acquisition_timeout=REQUEST_SECONDS,
        max_transaction_retry_time=0,
        notifications_min_severity=NotificationMinimumSeverity.OFF,
        telemetry_disabled=True,
    )


class Neo4jDriver:
    """See `base.Driver`."""

    def prepare(self, target: Target) -> None:
        """1,000 nodes, three relationships each."""
        with _driver(target) as driver, driver.session() as session:
            session.run(_INDEX).consume()
            session.run(_AWAIT).consume()
            for start, end in in_parts(NODES):
                session.run(_FILL, start=start, end=end).consume()
            for start, end in in_parts(NODES):
                session.run(_TIE, start=start, end=end, nodes=NODES).consume()

    def amounts(self, target: Target) -> Amounts:
        """By the JVM's management beans."""
        with _driver(target) as driver, driver.session() as session:
            row = session.run(_AMOUNTS).single(strict=True)
        # Nothing of a JVM is nothing: it does not say.
        cpu, heap, rest = row["cpu"], row["heap"], row["rest"]
        return Amounts(cpu=cpu / 1e9 if cpu else None, memory=heap + rest if heap and rest else None)

    def connector(self, target: Target, check: Check) -> Callable[[], Connection]:
        """Writing, or walking."""
        query = _WRITE if check.kind is CheckName.WRITE else _TRAVERSE
        return lambda: _Statements(target, query)


class _Statements:
    """One statement again and again, each in a transaction of its own."""

    def __init__(self, target: Target, statement: LiteralString) -> None:
        self._driver = _driver(target)
        self._session = self._driver.session()
        self._query = Query(statement, timeout=REQUEST_SECONDS)
        self._dice = random.Random(0)  # noqa: S311 - not a secret

    def request(self, number: int) -> None:
        start = self._dice.randrange(NODES)
        self._session.run(self._query, number=start, body=f"request {number}").consume()

    def close(self) -> None:
        with contextlib.suppress(Neo4jError, DriverError, OSError):
            self._session.close()
        self._driver.close()
