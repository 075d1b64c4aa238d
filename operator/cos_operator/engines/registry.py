"""The client of each engine, by the engine's name."""

from __future__ import annotations

from collections.abc import Mapping

from cos_operator.engines.base import BackupClient, EngineClient
from cos_operator.engines.elasticsearch import ElasticsearchClient
from cos_operator.engines.neo4j import Neo4jClient
from cos_operator.engines.postgres import PostgresClient
from cos_operator.engines.redis import RedisClient
from cos_operator.engines.traefik import TraefikClient

CLIENTS: Mapping[str, EngineClient] = {
    "postgres": PostgresClient(),
    "redis": RedisClient(),
    "traefik": TraefikClient(),
    "elasticsearch": ElasticsearchClient(),
    "neo4j": Neo4jClient(),
}

#: Of those of which there are backups while they serve.
BACKUP_CLIENTS: Mapping[str, BackupClient] = {
    "postgres": PostgresClient(),
    "redis": RedisClient(),
    "elasticsearch": ElasticsearchClient(),
}
