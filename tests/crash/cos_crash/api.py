"""The API server as the administrator sees it, past the proxy: what a person does, and what is there."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp

from cos_testbed.instance import Instance

Manifest = dict[str, Any]

_LIMIT = aiohttp.ClientTimeout(total=20)
#: Kinds whose objects come and go by themselves.
_RESTLESS = frozenset({"events", "leases", "endpoints", "endpointslices"})


class ApiError(Exception):
    """The API server refused something that these tests rely on."""


class Api:
    """Administrator of a testbed, inside ``async with``. Paths are relative to the server."""

    def __init__(self, instance: Instance) -> None:
        self.server = instance.api_url
        self.authority = instance.pki / "ca.crt"
        self._tls = ssl.create_default_context(cafile=str(self.authority))
        self._tls.load_cert_chain(instance.pki / "admin.crt", instance.pki / "admin.key")
        self._session: aiohttp.ClientSession | None = None
        self._collections: list[tuple[str, str, str, str]] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=64, ssl=self._tls), trust_env=False
        )
        self._collections = [found async for found in self._discover()]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """With the administrator's certificate."""
        if self._session is None:
            raise RuntimeError("not open: use `async with`")
        return self._session

    async def request(
        self, method: str, path: str, body: Manifest | None = None, content_type: str = "application/json"
    ) -> Manifest | None:
        """The answer; None for 404. Raises `ApiError` for any other failure."""
        headers = {"Content-Type": content_type} if body is not None else {}
        data = None if body is None else json.dumps(body)
        async with self.session.request(
            method, self.server + path, data=data, headers=headers, timeout=_LIMIT
        ) as response:
            text = await response.text()
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        if not response.ok:
            raise ApiError(f"{method} {path}: {response.status} {text[:500]}")
        return dict(json.loads(text))

    async def get(self, path: str) -> Manifest | None:
        """The object, None if there is none."""
        return await self.request("GET", path)

    async def apply(self, path: str, obj: Manifest) -> Manifest:
        """As `kubectl apply --server-side --force-conflicts` does it."""
        query = "?fieldManager=kubectl&force=true"
        applied = await self.request("PATCH", path + query, obj, "application/apply-patch+yaml")
        if applied is None:
            raise ApiError(f"apply {path}: not found")
        return applied

    async def merge(self, path: str, patch: Manifest) -> Manifest:
        """As `kubectl patch --type=merge` does it."""
        patched = await self.request("PATCH", path, patch, "application/merge-patch+json")
        if patched is None:
            raise ApiError(f"patch {path}: not found")
        return patched

    async def delete(self, path: str, **options: Any) -> None:
        """Delete, in the background; what is gone already is fine."""
        await self.request("DELETE", path, {"propagationPolicy": "Background", **options})

    async def objects(self, namespace: str) -> list[Manifest]:
        """All that is in a namespace, of every kind that there is, but for what never rests."""
        lists = await asyncio.gather(
            *(self._list(namespace, *collection) for collection in self._collections)
        )
        return [obj for found in lists for obj in found]

    async def _list(
        self, namespace: str, prefix: str, plural: str, api_version: str, kind: str
    ) -> list[Manifest]:
        found = await self.get(f"{prefix}/namespaces/{namespace}/{plural}")
        return [{"apiVersion": api_version, "kind": kind} | item for item in (found or {}).get("items", [])]

    async def _discover(self) -> AsyncIterator[tuple[str, str, str, str]]:
        """Path prefix, plural, version and kind of each namespaced kind that can be listed."""
        groups = (await self.get("/apis") or {})["groups"]
        versions = {f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups} | {"/api/v1"}
        for prefix in sorted(versions):
            for resource in (await self.get(prefix) or {})["resources"]:
                if (
                    resource["namespaced"]
                    and "list" in resource["verbs"]
                    and resource["name"] not in _RESTLESS
                ):
                    version = prefix.removeprefix("/apis/").removeprefix("/api/")
                    yield prefix, resource["name"], version, resource["kind"]
