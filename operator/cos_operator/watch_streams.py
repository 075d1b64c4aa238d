"""How fresh the watches are, measured where it cannot be talked away: on their HTTP responses.

A watch is alive while bytes arrive: events, or the bookmark that the API server sends about every minute. So a
stream's silence is the time since its last byte, or since it was cut. It is fresh for `CONNECTED_LIMIT` seconds
of silence while connected (longer than the interval of bookmarks), and for `RECONNECT_LIMIT` seconds while not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from yarl import URL

from cos_operator.kube_errors import Request
from cos_operator.kube_kinds import collection_path

#: A selector that matches nothing, since no object can have this name.
_NOTHING = {"fieldSelector": "metadata.name=-"}
CONNECTED_LIMIT = 90.0
RECONNECT_LIMIT = 15.0
_SAMPLE_SECONDS = 1.0


@dataclass
class Stream:
    """The watch of one kind in one namespace ("" for all of the cluster).

    `since` is when its last byte arrived while `connected`, and when it was cut while not; minus infinity if it
    never was.
    """

    kind: str
    namespace: str
    connected: bool = False
    since: float = float("-inf")
    content: aiohttp.StreamReader | None = None
    received: int = 0

    def __str__(self) -> str:
        return f"{self.kind} in {self.namespace or 'all namespaces'}"


class Streams:
    """All watches that there should be, observed by `middleware` on the session that serves them.

    `on_gap` is called, in the event loop of that session, after any was listed, the first time or anew: what was
    changed before was never reported. It is called once for all that have a gap together: when every stream is
    connected, or `RECONNECT_LIMIT` seconds after the first of these listings: some may never be (a missing right).

    A listing shows nothing, only from where the watch goes on: everything is looked at after a gap in any case, and
    hearing first of all that there is takes a millisecond an object.
    """

    def __init__(
        self,
        kinds: Iterable[str],
        namespaces: Iterable[str],
        on_gap: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._on_gap = on_gap
        # When the first listing ended a gap that is not reported yet.
        self._gap_ended_at: float | None = None
        scopes = tuple(namespaces) or ("",)
        self._by_path = {
            collection_path(Request("watch", kind, namespace)): Stream(kind, namespace)
            for kind in kinds
            for namespace in scopes
        }

    def silence(self) -> float:
        """Seconds since the most silent stream was last heard; infinite until all have been connected."""
        return self._clock() - min(stream.since for stream in self._by_path.values())

    def problem(self) -> str:
        """Which streams are not fresh, for a person; "" if all are."""
        now = self._clock()
        stale = []
        for stream in self._by_path.values():
            silence = now - stream.since
            if stream.since == float("-inf"):
                stale.append(f"{stream}: not connected yet")
            elif not stream.connected and silence > RECONNECT_LIMIT:
                stale.append(f"{stream}: not connected for {silence:.0f} s")
            elif silence > CONNECTED_LIMIT:
                stale.append(f"{stream}: silent for {silence:.0f} s")
        return "; ".join(stale)

    def disconnected(self) -> None:
        """The session is gone, and every connection with it."""
        for stream in self._by_path.values():
            self._cut(stream)

    async def middleware(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Client middleware: notes what a request means for a stream, and lets listings show nothing."""
        stream = self._stream_of(request.url)
        if stream is None:
            return await handler(request)
        watch = "watch" in request.url.query
        self._cut(stream)
        if not watch:
            request.url = request.url.update_query(_NOTHING)
        response = await handler(request)
        if response.status == HTTPStatus.OK and watch:
            stream.connected = True
            stream.since = self._clock()
            stream.content, stream.received = response.content, 0
            self._report_gap()
        elif response.status == HTTPStatus.OK and "continue" not in request.url.query:
            self._gap_ended_at = self._gap_ended_at or self._clock()
        return response

    async def sample(self) -> None:
        """Note what has arrived and what is overdue, until cancelled. Runs in the event loop of the session."""
        while True:
            for stream in self._by_path.values():
                if stream.content is not None and stream.content.total_bytes != stream.received:
                    stream.received = stream.content.total_bytes
                    stream.since = self._clock()
            self._report_gap()
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _stream_of(self, url: URL) -> Stream | None:
        # The server's own address may have a path in front, as behind a gateway for several clusters.
        position = max(url.path.find("/api/"), url.path.find("/apis/"))
        return self._by_path.get(url.path[position:])

    def _cut(self, stream: Stream) -> None:
        if stream.connected:
            stream.connected = False
            stream.since = self._clock()
            stream.content = None

    def _report_gap(self) -> None:
        if self._gap_ended_at is None:
            return
        waited = self._clock() - self._gap_ended_at
        if waited > RECONNECT_LIMIT or all(stream.connected for stream in self._by_path.values()):
            self._gap_ended_at = None
            self._on_gap()
