"""Elasticsearch: cluster health and blocks as the application; the file realm reloads its users by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from elastic_transport import TransportError
from elasticsearch import ApiError, AsyncElasticsearch, AuthenticationException, AuthorizationException

from cos_controllers.credentials import Login
from cos_controllers.observation import CheckResult, CheckTarget, Outcome
from cos_operator.engines.base import CHECK_SECONDS, PROVISION_SECONDS, EngineError

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
                health = await client.cluster.health(local=True)
                state = await client.cluster.state(metric="blocks", local=True, filter_path="blocks")
        except (AuthenticationException, AuthorizationException) as error:
            return CheckResult(Outcome.CREDENTIALS_REFUSED, _said(error))
        except (ApiError, TransportError) as error:
            return CheckResult(Outcome.NOT_ANSWERING, _said(error))
        except TimeoutError:
            return CheckResult(Outcome.NOT_ANSWERING, f"no answer within {CHECK_SECONDS:g} s")
        return judge(health.body, state.body.get("blocks", {}))

    async def provision(self, target: CheckTarget) -> None:
        """Wait until the server has read the mounted users: it looks at the files every second."""
        assert target.credentials  # noqa: S101 - Elasticsearch has accounts
        login, said = target.credentials.app, ""
        try:
            async with asyncio.timeout(WAIT_SECONDS), _client(target, login) as client:
                while True:
                    try:
                        await client.cluster.health(local=True)
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
