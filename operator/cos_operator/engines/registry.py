"""The client of each engine, by the engine's name."""

from __future__ import annotations

from collections.abc import Mapping

from cos_operator.engines.base import EngineClient
from cos_operator.engines.redis import RedisClient

CLIENTS: Mapping[str, EngineClient] = {
    "redis": RedisClient(),
}
