"""Elasticsearch: documents are written to and searched in a hidden index of the prober's own."""

from __future__ import annotations

import random
from collections.abc import Callable

from elasticsearch import Elasticsearch

from cos_controllers.probes.order import Check, CheckName
from cos_operator.engines.places import ELASTICSEARCH_INDEX
from cos_operator.probe.base import REQUEST_SECONDS, WORDS, Amounts, Target, in_parts, text
from cos_operator.probe.load import Connection

_DOCUMENTS = 1000
_LENGTH = 200
_HITS = 10


def _client(target: Target) -> Elasticsearch:
    return Elasticsearch(
        f"http://{target.host}:{target.port}",
        basic_auth=(target.user.username, target.user.password),
        request_timeout=REQUEST_SECONDS,
        max_retries=0,
        connections_per_node=1,
    )


class ElasticsearchDriver:
    """See `base.Driver`."""

    def prepare(self, target: Target) -> None:
        """An index of 1,000 documents, which can be searched."""
        client = _client(target)
        try:
            client.indices.create(
                index=ELASTICSEARCH_INDEX,
                settings={"number_of_shards": 1, "number_of_replicas": 0, "hidden": True},
                mappings={"properties": {"body": {"type": "text"}, "number": {"type": "integer"}}},
            )
            for start, end in in_parts(_DOCUMENTS):
                operations: list[dict[str, object]] = []
                for number in range(start, end):
                    operations += [{"index": {}}, {"body": text(number, _LENGTH), "number": number}]
                client.bulk(index=ELASTICSEARCH_INDEX, operations=operations)
            client.indices.refresh(index=ELASTICSEARCH_INDEX)
        finally:
            client.close()

    def amounts(self, target: Target) -> Amounts:
        """CPU time of the process; of its memory what outlives collections (old generation), and what is no heap."""
        client = _client(target)
        try:
            nodes = client.nodes.stats(node_id="_local", metric=["process", "jvm"])["nodes"]
        finally:
            client.close()
        (node,) = nodes.values()
        memory = node["jvm"]["mem"]
        old = memory["pools"]["old"]
        return Amounts(
            cpu=node["process"]["cpu"]["total_in_millis"] / 1000,
            memory=int(old["used_in_bytes"]) + int(memory["non_heap_used_in_bytes"]),
        )

    def connector(self, target: Target, check: Check) -> Callable[[], Connection]:
        """Writing, or searching."""
        kind = _Index if check.kind is CheckName.INDEX else _Search
        return lambda: kind(target)


class _Session:
    def __init__(self, target: Target) -> None:
        self._client = _client(target)

    def close(self) -> None:
        self._client.close()


class _Index(_Session):
    def request(self, number: int) -> None:
        self._client.index(
            index=ELASTICSEARCH_INDEX, document={"body": text(number, _LENGTH), "number": number}
        )


class _Search(_Session):
    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._dice = random.Random(0)  # noqa: S311 - not a secret

    def request(self, number: int) -> None:
        del number
        words = " ".join(self._dice.sample(WORDS, 2))
        self._client.search(index=ELASTICSEARCH_INDEX, query={"match": {"body": words}}, size=_HITS)
