"""A plain client of an API server, for what measures the operator and must not share its code."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import aiohttp

Manifest = dict[str, Any]

#: As many requests as this are under way at once.
CONNECTIONS = 8
REQUEST_SECONDS = 60.0
_PAGE = 500
#: So often a request may be refused as too many, which also is the answer while a new definition is not served yet.
_BUSY_ANSWERS = 10


class ApiError(Exception):
    """The API server refused a request; `status` is the HTTP status."""

    def __init__(self, method: str, path: str, status: int, message: str) -> None:
        super().__init__(f"{method} {path}: {status} {message}")
        self.status = status


class ApiClient:
    """JSON over HTTPS with the certificate or token of a kubeconfig: ``async with ApiClient(path)``."""

    def __init__(self, kubeconfig: Path, connections: int = CONNECTIONS) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server: str = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        self._headers: dict[str, str] = {}
        if "token" in user:
            self._headers["Authorization"] = f"Bearer {user['token']}"
        else:
            # The ssl module reads certificates from files only.
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                file.write(base64.b64decode(user["client-certificate-data"]))
                file.write(base64.b64decode(user["client-key-data"]))
                file.flush()
                self._tls.load_cert_chain(file.name)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            self.server,
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._tls),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """For requests that are not JSON objects."""
        assert self._session, "the client is not open"
        return self._session

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Manifest | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Manifest:
        """One request, sent again as long as the server says that it is too busy; raises `ApiError` if it fails."""
        headers = {"Content-Type": content_type, "Accept": accept}
        data = json.dumps(body).encode() if body is not None else None
        for _ in range(_BUSY_ANSWERS):
            async with self.session.request(
                method, path, params=list(query), data=data, headers=headers
            ) as answer:
                found = json.loads(await answer.read())
            if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
                break
            await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise ApiError(method, path, answer.status, found.get("message", ""))
        return dict(found)

    async def items(self, path: str, *, query: Sequence[tuple[str, str]] = ()) -> list[Manifest]:
        """All objects of a collection."""
        found: list[Manifest] = []
        more: tuple[tuple[str, str], ...] = ()
        while True:
            page = await self.request("GET", path, query=(*query, ("limit", str(_PAGE)), *more))
            found += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return found
            more = (("continue", token),)

    async def column(self, path: str, name: str) -> list[str]:
        """One column of a collection, as kubectl prints it: little to transfer where objects are large."""
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
        query = (("includeObject", "None"), ("resourceVersion", "0"))
        table = await self.request("GET", path, query=query, accept=accept)
        index = [column["name"] for column in table["columnDefinitions"]].index(name)
        return [str(row["cells"][index]) for row in table.get("rows") or ()]

    async def watch(self, path: str, version: str) -> AsyncIterator[Manifest]:
        """Events of a collection from a resource version on, until the caller has enough."""
        query = {"watch": "1", "resourceVersion": version}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self.session.get(path, params=query, timeout=timeout) as answer:
            async for line in answer.content:
                yield json.loads(line)
