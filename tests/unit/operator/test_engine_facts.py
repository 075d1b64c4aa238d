"""What an engine's own words come to; the questions themselves are asked of real engines, end to end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from redis import exceptions

from cos_controllers.credentials import Credentials, Login
from cos_controllers.observation import CheckTarget, Facts, Outcome, Usage
from cos_operator.engines import elasticsearch, neo4j, redis
from cos_operator.engines.base import NOT_WRITTEN, is_nearly_full
from cos_operator.engines.elasticsearch import ElasticsearchClient

CREDENTIALS = Credentials(
    admin=Login("cos-admin", "admin-secret"), app=Login("app", "app-secret"), probe=Login("cos-probe", "x")
)
HEALTHY = {
    "role": "master",
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ()),
        ({"role": "slave"}, (redis.FOLLOWS,)),
        ({"aof_last_write_status": "err"}, ("the last write to the append-only file failed",)),
        (
            {"aof_last_bgrewrite_status": "err", "rdb_last_bgsave_status": "err"},
            ("the last rewrite of the append-only file failed", "the last snapshot failed"),
        ),
    ],
)
def test_what_is_wrong_by_redis_info(changed: dict[str, str], told: tuple[str, ...]) -> None:
    assert redis.troubles(HEALTHY | changed) == told


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (exceptions.AuthenticationError("WRONGPASS"), Outcome.CREDENTIALS_REFUSED),
        (exceptions.MaxConnectionsError("max number of clients reached"), Outcome.SERVING),
        (exceptions.ConnectionError("max number of clients reached"), Outcome.SERVING),
        (exceptions.ConnectionError("refused"), Outcome.NOT_ANSWERING),
        (exceptions.TimeoutError("slow"), Outcome.NOT_ANSWERING),
        (exceptions.BusyLoadingError("LOADING"), Outcome.NOT_ANSWERING),
        (exceptions.ResponseError("MISCONF Errors writing to the AOF file"), Outcome.READ_ONLY),
        (exceptions.ResponseError("MASTERDOWN"), Outcome.NOT_ANSWERING),
        (OSError("no route"), Outcome.NOT_ANSWERING),
    ],
)
def test_what_an_error_of_redis_means(error: exceptions.RedisError | OSError, outcome: Outcome) -> None:
    assert redis.judge(error).outcome is outcome


def test_redis_connections_leave_out_the_question_and_the_reserve() -> None:
    assert redis.connections({"connected_clients": 41}, {"maxclients": "60"}) == Usage(40, 50)
    assert redis.connections({"connected_clients": 1}, {"maxclients": "60"}) == Usage(0, 50)
    assert redis.connections({}, {"maxclients": "60"}) is None
    assert redis.connections({"connected_clients": 1}, {}) is None


def test_redis_needs_room_for_a_rewrite() -> None:
    info = {"aof_current_size": 300, "aof_base_size": 100}
    assert redis.storage_of(info, {"save": ""}, 1000) == Usage(400, 1000)
    assert redis.storage_of(info, {"save": "3600 1"}, 1000) == Usage(600, 1000)
    assert redis.storage_of(info, {}, None) is None
    assert redis.storage_of({}, {}, 1000) is None


def test_neo4j_databases_and_options() -> None:
    assert neo4j.troubles({"neo4j": "online", "system": "online"}) == ()
    assert neo4j.troubles({"neo4j": "offline", "system": "online"}) == ("database neo4j is offline",)
    options = "-XX:+UseG1GC\n-Dcos.config=marker-1\n-Djdk.tls.ephemeralDHKeySize=2048"
    assert neo4j.properties(options)["cos.config"] == "marker-1"


def test_elasticsearch_attributes_room_and_health() -> None:
    assert elasticsearch.attributes({"nodes": {"x": {"attributes": {"cos_config": "1"}}}}) == {
        "cos_config": "1"
    }
    assert elasticsearch.attributes({}) is None
    total = {"total_in_bytes": 100, "available_in_bytes": 30, "free_in_bytes": 40}
    assert elasticsearch.storage_of({"nodes": {"x": {"fs": {"total": total}}}}) == Usage(70, 100)
    assert elasticsearch.storage_of({"nodes": {"x": {"fs": {}}}}) is None
    assert elasticsearch.troubles({"status": "yellow"}) == ()
    assert len(elasticsearch.troubles({"status": "red"})) == 1


@pytest.mark.parametrize(
    ("usage", "full"), [(None, False), (Usage(94, 100), False), (Usage(95, 100), True), (Usage(1, 0), True)]
)
def test_a_volume_without_room_is_not_tried(usage: Usage | None, full: bool) -> None:  # noqa: FBT001
    assert is_nearly_full(usage) is full


class Node:
    """Speaks as much of Elasticsearch's API as an examination asks for. `refused`: status and reason by method."""

    def __init__(self, used: int = 10, *, has_place: bool = True, **refused: tuple[int, str]) -> None:
        self.used = used
        self.has_place = has_place
        self.refused = refused
        self.document: Any = None
        self.made: list[Any] = []
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        headers = {"X-Elastic-Product": "Elasticsearch"}
        name = (
            request.method if request.path.startswith("/.cos-gate") else request.path.strip("/").split("/")[0]
        )
        if name in self.refused:
            status, reason = self.refused[name]
            return web.json_response({"error": {"reason": reason}}, status=status, headers=headers)
        body: Any = {}
        if request.path.startswith("/_nodes/_local/stats"):
            total = {"total_in_bytes": 100, "available_in_bytes": 100 - self.used}
            body = {"nodes": {"x": {"fs": {"total": total}}}}
        elif request.path.startswith("/_nodes"):
            body = {"nodes": {"x": {"attributes": {"cos_config": "1"}}}}
        elif request.path.startswith("/_cluster"):
            body = {"status": "yellow"}
        elif request.path == "/.cos-gate" and request.method == "HEAD":
            return web.Response(status=200 if self.made else 404, headers=headers)
        elif request.path == "/.cos-gate" and request.method == "DELETE":
            self.made.clear()
        elif request.path == "/.cos-gate":
            self.made.append(await request.json())
            body = {"acknowledged": True, "shards_acknowledged": self.has_place}
        elif request.method == "PUT":
            self.document = await request.json()
        elif request.method == "GET":
            body = {"_source": self.document}
        return web.json_response(body, headers=headers)


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[CheckTarget]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", node.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield CheckTarget(
            "elasticsearch", "elasticsearch", "127.0.0.1", runner.addresses[0][1], credentials=CREDENTIALS
        )
    finally:
        await runner.cleanup()


IN_ORDER = Facts(serving="", troubles=(), configuration={"cos_config": "1"}, storage=Usage(10, 100))


async def test_elasticsearch_makes_the_gates_index_once() -> None:
    node = Node()
    async with serving(node) as target:
        for _ in range(2):
            assert await ElasticsearchClient().examine(target) == IN_ORDER
    (made,) = node.made
    assert made["settings"] == {"number_of_shards": 1, "number_of_replicas": 0, "hidden": True}


@pytest.mark.parametrize("status", [400, 403, 404, 429])
async def test_what_elasticsearch_refuses_of_the_gates_own_index_is_refused_of_no_other(status: int) -> None:
    async with serving(Node(PUT=(status, "index closed"))) as target:
        found = await ElasticsearchClient().examine(target)
    assert found.serving is None
    assert ".cos-gate" in found.unknown
    assert (found.configuration, found.storage) == (IN_ORDER.configuration, IN_ORDER.storage)


async def test_a_failure_of_elasticsearch_itself_is_one_to_serve() -> None:
    async with serving(Node(PUT=(500, "translog is closed"))) as target:
        found = await ElasticsearchClient().examine(target)
    assert found.serving == "HTTP 500: translog is closed"


async def test_one_question_that_is_refused_leaves_the_other_answers() -> None:
    node = Node(_nodes=(429, "breaker"))
    node.made.append("already")
    async with serving(node) as target:
        found = await ElasticsearchClient().examine(target)
    assert found == Facts(serving="", troubles=())


@pytest.mark.parametrize("node", [Node(used=80), Node(has_place=False), Node(_nodes=(429, "breaker"))])
async def test_no_index_is_made_or_left_where_it_has_no_place(node: Node) -> None:
    async with serving(node) as target:
        found = await ElasticsearchClient().examine(target)
    assert found.serving is None
    assert "index .cos-gate" in found.unknown
    assert node.made == []


async def test_elasticsearch_is_not_written_to_without_room() -> None:
    node = Node(used=96)
    async with serving(node) as target:
        found = await ElasticsearchClient().examine(target)
    assert (found.serving, found.unknown) == (None, NOT_WRITTEN)
    assert not any(" /.cos-gate" in asked for asked in node.asked)
