"""The way from the operator to the API server: it counts, and at the chosen place it kills, refuses, delays or lies.

A reverse proxy with TLS of its own. Everything passes unchanged, credentials included, but for the faults of the
case that is under way.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from cos_crash.faults import FaultKind, Injection, Stream

#: Seconds: how late a delayed event is; what Retry-After asks for; after which a never answered request is cut.
DELAY = 3.0
RETRY_AFTER = 1
_NEVER = 60.0
#: Seconds for the API server to answer anything but a watch.
_UPSTREAM_LIMIT = 20.0

_WRITES = frozenset({"PATCH", "POST", "PUT", "DELETE"})
#: Headers of a connection, not of what is asked; and encodings, which the upstream client negotiates by itself.
_NOT_PASSED = frozenset(
    {"connection", "host", "keep-alive", "te", "transfer-encoding", "upgrade", "content-length"}
    | {"accept-encoding", "content-encoding"}
)
_REFUSALS: Mapping[FaultKind, tuple[HTTPStatus, str]] = {
    FaultKind.CONFLICT: (HTTPStatus.CONFLICT, "Conflict"),
    FaultKind.THROTTLED: (HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequests"),
    FaultKind.ERROR: (HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError"),
    FaultKind.UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable"),
}
#: Different answers to each list that are kept.
_KEPT_ANSWERS = 8


@dataclass
class Write:
    """One write of the operator, as a line of a failure's report. Time is seconds since the case began."""

    number: int
    at: float
    what: str
    became: str = "under way"

    def __str__(self) -> str:
        return f"{self.number:3} {self.at:6.1f} s  {self.what}: {self.became}"


@dataclass
class Journal:
    """What the operator did since the case began.

    `stack_reads`: how often it began to look at a stack. `away`: seconds from kills to the first requests of the
    successors, one that is still to come aside.
    """

    began: float = field(default_factory=time.monotonic)
    writes: list[Write] = field(default_factory=list)
    stack_reads: int = 0
    away: float = 0.0


class Proxy:
    """Serves inside ``async with`` on `url`. `crash` sends the operator SIGKILL.

    `error` is what went wrong in the proxy itself: then a case proves nothing.
    """

    def __init__(
        self, upstream: str, upstream_tls: ssl.SSLContext, tls: ssl.SSLContext, crash: Callable[[], None]
    ) -> None:
        self._upstream = upstream.rstrip("/")
        self._upstream_tls = upstream_tls
        self._tls = tls
        self._crash = crash
        self._answers: dict[tuple[str, ...], deque[bytes]] = {}
        self._calm = asyncio.Event()
        self._open = True
        self._shut_at: float | None = None
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        # A watch whose client has gone must not wait for an event to notice that.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        self._session: aiohttp.ClientSession | None = None
        self.injection = Injection()
        self.journal = Journal()
        self.url = ""
        self.error: Exception | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._upstream_tls), trust_env=False
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        if self._session:
            await self._session.close()

    def begin(self, injection: Injection) -> None:
        """A new case: count from one, with these faults. Watches that were silenced end."""
        self._calm.set()
        self._calm = asyncio.Event()
        # What was last answered before the case is what is stale in it.
        self._answers = {
            question: deque([answers[-1]], _KEPT_ANSWERS) for question, answers in self._answers.items()
        }
        self.injection = injection
        self.journal = Journal()

    def away(self) -> float:
        """Seconds of the case, until now, in which no operator was there."""
        return self.journal.away + (time.monotonic() - self._shut_at if self._shut_at is not None else 0.0)

    def shut(self) -> None:
        """Cut every connection and accept no request: what a dead operator had still to send never arrives."""
        self._open = False
        self._shut_at = time.monotonic()
        if self._runner.server:
            for connection in self._runner.server.connections:
                if connection.transport:
                    connection.transport.abort()

    def open(self) -> None:
        """Let a new operator in."""
        self._open = True

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if not self._open:
            return _cut(request)
        try:
            return await self._serve_open(request)
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            # Either side has gone; the operator learns it in the same way as without a proxy.
            return _cut(request)
        except Exception as error:
            self.error = error
            raise

    async def _serve_open(self, request: web.Request) -> web.StreamResponse:
        if self._shut_at is not None:
            self.journal.away += time.monotonic() - self._shut_at
            self._shut_at = None
        subject = _subject(request.path)
        if request.method in _WRITES and subject[0] != "leases":
            return await self._write(request, "/".join(subject))
        if request.method == "GET" and "watch" in request.query:
            return await self._watch(request)
        if request.method == "GET" and len(subject) == 1:
            return await self._list(request)
        if request.method == "GET" and subject[0] == "cosstacks":
            self.journal.stack_reads += 1
        return _answer(*await self._forward(request))

    async def _write(self, request: web.Request, subject: str) -> web.StreamResponse:
        number, fault = self.injection.next(Stream.WRITES)
        entry = Write(number, time.monotonic() - self.journal.began, f"{request.method} {subject}")
        self.journal.writes.append(entry)
        if fault is FaultKind.KILL_BEFORE:
            entry.became = "the operator is killed before it"
            self._crash()
            return _cut(request)
        if fault in _REFUSALS:
            code, reason = _REFUSALS[fault]
            entry.became = f"answered with {code.value}, not done"
            return _refusal(code, reason)
        status, headers, body = await self._forward(request)
        entry.became = str(status)
        if fault is FaultKind.KILL_AFTER:
            entry.became += ", the operator is killed after it"
            self._crash()
            return _cut(request)
        if fault is FaultKind.TIMEOUT:
            entry.became += ", never answered"
            await asyncio.sleep(_NEVER)
            return _cut(request)
        return _answer(status, headers, body)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        status, headers, body = await self._forward(request)
        self.injection.next(Stream.LISTS)
        if status == HTTPStatus.OK:
            answers = self._answers.setdefault(_question(request), deque(maxlen=_KEPT_ANSWERS))
            older = next((answer for answer in answers if _items(answer) != _items(body)), None)
            if not answers or _items(answers[-1]) != _items(body):
                answers.append(body)
            if older is not None and self.injection.take_stale():
                body = older
        return _answer(status, headers, body)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        calm = self._calm
        async with self._ask(request, b"", None) as upstream:
            response = web.StreamResponse(status=upstream.status, headers=_passed(upstream.headers))
            await response.prepare(request)
            async for line in upstream.content:
                fault = None if _is_bookmark(line) else self.injection.next(Stream.EVENTS)[1]
                if fault is FaultKind.GONE:
                    await response.write(_GONE)
                    break
                if fault is FaultKind.SILENT:
                    calm = self._calm
                    await calm.wait()
                    break
                if fault is FaultKind.DELAYED:
                    await asyncio.sleep(DELAY)
                for _ in range(_DELIVERIES.get(fault, 1)):
                    await response.write(line)
        return response

    async def _forward(self, request: web.Request) -> tuple[int, Mapping[str, str], bytes]:
        async with self._ask(request, await request.read(), _UPSTREAM_LIMIT) as response:
            return response.status, response.headers, await response.read()

    def _ask(self, request: web.Request, body: bytes, seconds: float | None) -> Any:
        """The request as the API server gets it; `seconds` in all, None for a stream without end."""
        if self._session is None:
            raise RuntimeError("the proxy is not open: use `async with`")
        return self._session.request(
            request.method,
            URL(self._upstream + request.raw_path, encoded=True),
            headers=_passed(request.headers),
            data=body or None,
            timeout=aiohttp.ClientTimeout(total=seconds),
            # Events of large objects are longer than a line is expected to be.
            read_bufsize=4 * 2**20,
        )


_GONE = (
    json.dumps(
        {
            "type": "ERROR",
            "object": {
                "apiVersion": "v1",
                "kind": "Status",
                "status": "Failure",
                "reason": "Expired",
                "message": "too old resource version: 1 (2)",
                "code": HTTPStatus.GONE.value,
            },
        }
    ).encode()
    + b"\n"
)
_DELIVERIES: Mapping[FaultKind | None, int] = {FaultKind.DROPPED: 0, FaultKind.DUPLICATED: 2}


def _subject(path: str) -> list[str]:
    """Plural of the kind, then name and subresource, as far as the path has them; other paths behind a ""."""
    parts = path.strip("/").split("/")
    rest = {"api": parts[2:], "apis": parts[3:]}.get(parts[0]) or ["", *parts]
    return rest[2:] if rest[0] == "namespaces" and len(rest) > 2 else rest


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_PASSED}


def _answer(status: int, headers: Mapping[str, str], body: bytes) -> web.Response:
    return web.Response(status=status, headers=_passed(headers), body=body)


def _cut(request: web.Request) -> web.Response:
    """End the connection without an answer."""
    if request.transport:
        request.transport.abort()
    return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE)


def _refusal(code: HTTPStatus, reason: str) -> web.Response:
    """As the API server words it, with Retry-After where the client is asked to come back."""
    status = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "reason": reason,
        "message": "injected by the crash test",
        "code": code.value,
    }
    headers = {"Retry-After": str(RETRY_AFTER)} if code is HTTPStatus.TOO_MANY_REQUESTS else {}
    return web.json_response(status, status=code.value, headers=headers)


def _items(answer: bytes) -> Any:
    return json.loads(answer).get("items")


def _question(request: web.Request) -> tuple[str, ...]:
    """What a list asks for; how new the answer must be is not part of it."""
    return request.path, request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")


def _is_bookmark(line: bytes) -> bool:
    return bool(json.loads(line)["type"] == "BOOKMARK")
