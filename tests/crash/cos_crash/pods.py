"""How many pods were made: a crash must not cost an engine a restart more."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from types import TracebackType
from typing import Self

import aiohttp

from cos_crash.api import Api

_COMPONENT = "cos.dev/component"


class PodLedger:
    """Counts, inside ``async with``, the pods that are made in a namespace, by component."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._seen: set[str] = set()
        self._made: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    @property
    def made(self) -> dict[str, int]:
        """Pods made, by component."""
        return dict(sorted(self._made.items()))

    async def __aenter__(self) -> Self:
        listed = await self._api.get(self._path) or {}
        self._seen = {pod["metadata"]["uid"] for pod in listed["items"]}
        self._task = asyncio.create_task(self._count(listed["metadata"]["resourceVersion"]))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _count(self, version: str) -> None:
        """Follow the pods until cancelled."""
        url = f"{self._api.server}{self._path}"
        while True:
            query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
            endless = aiohttp.ClientTimeout(total=None)
            async with self._api.session.get(
                url, params=query, timeout=endless, read_bufsize=2**22
            ) as response:
                response.raise_for_status()
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"the watch of pods failed: {line!r}")
                    metadata = event["object"]["metadata"]
                    version = metadata["resourceVersion"]
                    if event["type"] == "ADDED" and metadata["uid"] not in self._seen:
                        self._seen.add(metadata["uid"])
                        self._made[(metadata.get("labels") or {}).get(_COMPONENT, "none")] += 1
