"""Neo4j 5.26 Community: one instance, Bolt and HTTP."""

from cos_controllers.components.neo4j.engine import Neo4j

__all__ = ["Neo4j"]
