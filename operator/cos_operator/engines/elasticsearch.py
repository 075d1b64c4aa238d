"""Elasticsearch: health and blocks as the application, a document in an index of its own as the administrator.

The file realm reloads its users by itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from elastic_transport import TransportError
from elasticsearch import (
    ApiError,
    AsyncElasticsearch,
    AuthenticationException,
    AuthorizationException,
    NotFoundError,
)

from cos_controllers.credentials import Login
from cos_controllers.observation import CheckResult, CheckTarget, Facts, Outcome, Usage
from cos_operator.engines.base import (
    CHECK_SECONDS,
    NOT_WRITTEN,
    PROVISION_SECONDS,
    EngineError,
    is_nearly_full,
)
from cos_operator.engines.places import ELASTICSEARCH_INDEX

T = TypeVar("T")

#: Index and id of the document that is written, read back and deleted. The index stays: made anew each time, it would
#: be a change of the cluster's state. It begins with a dot, so that applications have no part in it, nor the usual
#: restore of a snapshot (`*,-.*`).
GATE_INDEX = ".cos-gate"
#: All indices but that: its state says nothing of applications.
_OTHERS = f"*,-{GATE_INDEX}"
#: Made only below this share of the disk in percent: above the high watermark (90 %) Elasticsearch places no shard, and
#: an index without its primary makes the cluster red.
_ROOM_PERCENT = 80
_GATE_ID = "gate"
_GATE_SETTINGS = {"number_of_shards": 1, "number_of_replicas": 0, "hidden": True}

#: The block that Elasticsearch puts on indices of a node whose disk is over the flood-stage watermark.
FLOOD_STAGE_BLOCK = "12"

#: What `provision` waits for takes a second or two once kubelet has refreshed the mount.
WAIT_SECONDS = PROVISION_SECONDS * 0.75
POLL_SECONDS = 0.5


def _client(target: CheckTarget, login: Login) -> AsyncElasticsearch:
    """A client that tries once; the caller bounds the time."""
    return AsyncElasticsearch(
        [{"scheme": "http", "host": target.host, "port": target.port}],
        basic_auth=(login.username, login.password),
        request_timeout=PROVISION_SECONDS,
        max_retries=0,
        retry_on_timeout=False,
    )


def _said(error: ApiError | TransportError) -> str:
    """The server's reason, or the transport's."""
    if not isinstance(error, ApiError):
        return " ".join(str(error.message).split())
    body = error.body if isinstance(error.body, dict) else {}
    cause = body.get("error")
    reason = cause.get("reason") if isinstance(cause, dict) else cause
    return f"HTTP {error.status_code}: {reason or error.message}"


def judge(health: Mapping[str, Any], blocks: Mapping[str, Any]) -> CheckResult:
    """The outcome of ``_cluster/health`` and of the ``blocks`` of ``_cluster/state``.

    Yellow serves: on one node it only says that replicas have no second node.
    """
    if health.get("status") == "red":
        missing = health.get("unassigned_primary_shards", "some")
        return CheckResult(
            Outcome.NOT_ANSWERING, f"cluster status is red: {missing} primary shards are missing"
        )
    for block in blocks.get("global", {}).values():
        levels = block.get("levels", [])
        if "read" in levels:
            return CheckResult(Outcome.NOT_ANSWERING, str(block.get("description")))
        if "write" in levels:
            return CheckResult(Outcome.READ_ONLY, str(block.get("description")))
    full = sorted(name for name, held in blocks.get("indices", {}).items() if FLOOD_STAGE_BLOCK in held)
    if full:
        return CheckResult(
            Outcome.READ_ONLY,
            f"{len(full)} indices refuse writes ({full[0]} first): the disk is over the flood-stage watermark, "
            "or index.blocks.read_only_allow_delete is set",
        )
    return CheckResult(Outcome.SERVING)


class ElasticsearchClient:
    """See `base.EngineClient`."""

    async def check(self, target: CheckTarget) -> CheckResult:
        """Two requests that the one node answers by itself."""
        assert target.credentials  # noqa: S101 - Elasticsearch has accounts
        try:
            async with (
                asyncio.timeout(CHECK_SECONDS),
                _client(target, target.credentials.app) as client,
            ):
                health = await client.cluster.health(index=_OTHERS, expand_wildcards="all", local=True)
                state = await client.cluster.state(metric="blocks", local=True, filter_path="blocks")
        except (AuthenticationException, AuthorizationException) as error:
            return CheckResult(Outcome.CREDENTIALS_REFUSED, _said(error))
        except (ApiError, TransportError) as error:
            return CheckResult(Outcome.NOT_ANSWERING, _said(error))
        except TimeoutError:
            return CheckResult(Outcome.NOT_ANSWERING, f"no answer within {CHECK_SECONDS:g} s")
        return judge(health.body, state.body.get("blocks", {}))

    async def examine(self, target: CheckTarget) -> Facts:
        """Each question by itself: one that is refused leaves the others' answers."""
        assert target.credentials  # noqa: S101 - Elasticsearch has accounts
        async with _client(target, target.credentials.admin) as client:
            nodes = await _or_none(client.nodes.info(node_id="_local", filter_path="nodes.*.attributes"))
            stats = await _or_none(
                client.nodes.stats(node_id="_local", metric="fs", filter_path="nodes.*.fs.total")
            )
            health = await _or_none(client.cluster.health(index=_OTHERS, expand_wildcards="all", local=True))
            storage = storage_of(stats.body) if stats else None
            room = storage is not None and storage.used * 100 < storage.limit * _ROOM_PERCENT
            full = is_nearly_full(storage)
            serving, unknown = (None, NOT_WRITTEN) if full else await _written(client, room=room)
        return Facts(
            serving=serving,
            troubles=troubles(health.body) if health else None,
            configuration=attributes(nodes.body) if nodes else None,
            storage=storage,
            unknown=unknown,
        )

    async def provision(self, target: CheckTarget) -> None:
        """Wait until the server has read the mounted users: it looks at the files every second."""
        assert target.credentials  # noqa: S101 - Elasticsearch has accounts
        await _accepted(target, target.credentials.app, lambda client: client.cluster.health(local=True))

    async def admit_backup(self, target: CheckTarget) -> None:
        """Wait until the server has read the mounted users, and the role of this one."""
        assert target.credentials  # noqa: S101 - Elasticsearch has accounts
        if target.credentials.backup is None:
            raise EngineError("there is no backup user: the stack has no spec.backup")
        await _accepted(target, target.credentials.backup, lambda client: client.snapshot.get_repository())

    async def tidy(self, target: CheckTarget) -> None:
        """The index."""
        assert target.credentials  # noqa: S101 - Elasticsearch has accounts
        try:
            async with _client(target, target.credentials.admin) as client:
                await client.indices.delete(index=ELASTICSEARCH_INDEX, ignore_unavailable=True)
        except (ApiError, TransportError) as error:
            raise EngineError(f"index {ELASTICSEARCH_INDEX} was not deleted: {_said(error)}") from error


async def _accepted(
    target: CheckTarget, login: Login, ask: Callable[[AsyncElasticsearch], Awaitable[object]]
) -> None:
    """Wait until a user may ask something. Raises `EngineError`."""
    said = ""
    try:
        async with asyncio.timeout(WAIT_SECONDS), _client(target, login) as client:
            while True:
                try:
                    await ask(client)
                except (AuthenticationException, AuthorizationException) as error:
                    said = _said(error)
                    await asyncio.sleep(POLL_SECONDS)
                else:
                    return
    except TimeoutError as error:
        raise EngineError(
            f"user {login.username} is not accepted yet: {said or f'no answer within {WAIT_SECONDS:g} s'}"
        ) from error
    except (ApiError, TransportError) as error:
        raise EngineError(f"waiting for user {login.username} failed: {_said(error)}") from error


async def _or_none(answer: Awaitable[T]) -> T | None:
    try:
        return await answer
    except (ApiError, TransportError):
        return None


async def _written(client: AsyncElasticsearch, *, room: bool) -> tuple[str | None, str]:
    """Write, read back and delete: "" or what the server said; None, and why, if that says nothing of applications.

    What is refused of the gate's own index (it was closed, blocked or made read-only, or there is no room for another
    shard) is refused of no other.
    """
    nonce = secrets.token_hex(8)
    where: dict[str, Any] = {"index": GATE_INDEX, "id": _GATE_ID}
    try:
        if problem := await _ensure_index(client, room=room):
            return None, problem
        await client.index(**where, document={"nonce": nonce})
        found = (await client.get(**where)).body["_source"].get("nonce")
        await client.delete(**where)
    except NotFoundError:
        return None, f"index {GATE_INDEX} or its document was deleted meanwhile"
    except ApiError as error:
        if error.status_code >= 500:  # noqa: PLR2004 - HTTP: the server's own failure
            return _said(error), ""
        return None, f"index {GATE_INDEX} refuses: {_said(error)}"
    except TransportError as error:
        return None, f"not examined: {_said(error)}"
    return ("" if found == nonce else "what was written is not what was read back"), ""


async def _ensure_index(client: AsyncElasticsearch, *, room: bool) -> str:
    """Make the gate's index if there is none; why it cannot be, or "". Nothing is left that has no place."""
    if await client.indices.exists(index=GATE_INDEX):
        return ""
    if not room:
        return f"index {GATE_INDEX} is not made: it is not known that {100 - _ROOM_PERCENT} % of the disk are free"
    made = await client.indices.create(index=GATE_INDEX, settings=_GATE_SETTINGS, timeout="3s")
    if made.body.get("shards_acknowledged"):
        return ""
    await client.indices.delete(index=GATE_INDEX)
    return f"index {GATE_INDEX} was given no place: is allocation disabled or filtered?"


def attributes(body: Mapping[str, Any]) -> dict[str, str] | None:
    """The attributes of the one node of ``_nodes``."""
    for node in (body.get("nodes") or {}).values():
        return {str(name): str(value) for name, value in (node.get("attributes") or {}).items()}
    return None


def storage_of(body: Mapping[str, Any]) -> Usage | None:
    """What is taken of the file system under the data, by ``_nodes/stats/fs``."""
    for node in (body.get("nodes") or {}).values():
        total = (node.get("fs") or {}).get("total") or {}
        if "total_in_bytes" in total and "available_in_bytes" in total:
            size = int(total["total_in_bytes"])
            return Usage(size - int(total["available_in_bytes"]), size)
    return None


def troubles(health: Mapping[str, Any]) -> tuple[str, ...]:
    """What is wrong by ``_cluster/health``; yellow is not (see `judge`)."""
    return ("a primary shard is missing: the cluster status is red",) if health.get("status") == "red" else ()
