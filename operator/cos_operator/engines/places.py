"""Where probes keep their data in each engine: what makes the place, what fills it and what clears it agree on this."""

from __future__ import annotations

from typing import Final

#: Redis: so many keys, which end by themselves after a time that is longer than any run.
REDIS_KEYS = 1000
REDIS_KEY_SECONDS = 3600

#: Postgres: a database of the application's role, and a schema in it.
POSTGRES_DATABASE = "cos_probe"
POSTGRES_SCHEMA = "cos_probe"

#: Elasticsearch: a hidden index, which a search in all indices leaves out.
ELASTICSEARCH_INDEX = "cos-probe"

#: Neo4j: the label of every node, and an index of them. (The server keeps the label's name for ever.)
NEO4J_LABEL: Final = "CosProbe"
NEO4J_INDEX: Final = "cos_probe"


def redis_key(number: int) -> str:
    """One of the keys; `number` may be any."""
    return f"cos:probe:{number % REDIS_KEYS}"
