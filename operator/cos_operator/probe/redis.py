"""Redis: SET and GET of keys of the prober's own, and messages on a channel of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cos_controllers.probes.order import Check, CheckName
from cos_operator.engines.places import REDIS_KEY_SECONDS, REDIS_KEYS, redis_key
from cos_operator.probe.base import REQUEST_SECONDS, Amounts, Target, in_parts
from cos_operator.probe.load import Connection

_VALUE = b"x" * 64
_CHANNEL = "cos:probe"
_channels = itertools.count()


def _client(target: Target) -> Redis:
    return Redis(
        host=target.host,
        port=target.port,
        username=target.user.username,
        password=target.user.password,
        socket_timeout=REQUEST_SECONDS,
        socket_connect_timeout=REQUEST_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


class RedisDriver:
    """See `base.Driver`."""

    def prepare(self, target: Target) -> None:
        """Every key. They end by themselves, should nobody remove them."""
        with _client(target) as client, client.pipeline(transaction=False) as pipeline:
            for start, end in in_parts(REDIS_KEYS):
                for number in range(start, end):
                    pipeline.set(redis_key(number), _VALUE, ex=REDIS_KEY_SECONDS)
                pipeline.execute()

    def amounts(self, target: Target) -> Amounts:
        """By INFO."""
        with _client(target) as client:
            info = cast("dict[str, Any]", client.info())
        return Amounts(
            cpu=info["used_cpu_sys"] + info["used_cpu_user"],
            memory=int(info["used_memory"]),
            connections=int(info["connected_clients"]),
            connections_limit=int(info["maxclients"]) - target.reserved if "maxclients" in info else None,
        )

    def connector(self, target: Target, check: Check) -> Callable[[], Connection]:
        """SET and GET in turn, or a message."""
        kind = _Messages if check.kind is CheckName.PUB_SUB else _Values
        return lambda: kind(target)


class _Values:
    """Keys are set and read in turn."""

    def __init__(self, target: Target) -> None:
        self._client = _client(target)
        self._client.ping()

    def request(self, number: int) -> None:
        key = redis_key(number // 2)
        if number % 2:
            self._client.get(key)
        else:
            self._client.set(key, _VALUE, ex=REDIS_KEY_SECONDS)

    def close(self) -> None:
        self._client.close()


class _Messages:
    """A publisher, and a subscriber that waits for the very message."""

    def __init__(self, target: Target) -> None:
        self._client = _client(target)
        self._subscription = self._client.pubsub()  # type: ignore[no-untyped-call]
        self._channel = f"{_CHANNEL}:{next(_channels)}"
        self._subscription.subscribe(self._channel)
        self._next()

    def request(self, number: int) -> None:
        message = str(number).encode()
        self._client.publish(self._channel, message)
        while self._next()["data"] != message:
            pass  # one of a request that was given up

    def _next(self) -> dict[str, Any]:
        found = self._subscription.get_message(timeout=REQUEST_SECONDS)
        if found is None:
            raise TimeoutError(f"no message within {REQUEST_SECONDS:g} s")
        return cast("dict[str, Any]", found)

    def close(self) -> None:
        self._subscription.close()
        self._client.close()
