"""The measure of freshness, from the requests of a session to the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from yarl import URL

from cos_operator.watch_streams import CONNECTED_LIMIT, RECONNECT_LIMIT, Streams


class Session:
    """Streams of two kinds in one namespace, with a clock, and an API server that answers as told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.gaps = 0
        self.asked: list[URL] = []
        self.streams = Streams(("CosStack", "Pod"), ("ns",), self._gap, clock=lambda: self.now)

    def _gap(self) -> None:
        self.gaps += 1

    async def request(self, path: str, status: int = 200, server: str = "https://api:6443") -> Any:
        response = SimpleNamespace(status=status, content=SimpleNamespace(total_bytes=0))

        async def handler(request: Any) -> Any:
            self.asked.append(request.url)
            if not status:
                raise aiohttp.ClientConnectionError
            return response

        request: Any = SimpleNamespace(url=URL(server + path))
        return await self.streams.middleware(request, handler)

    async def list(self, path: str, status: int = 200) -> None:
        await self.request(f"{path}?limit=500", status)

    async def watch(self, path: str, status: int = 200) -> Any:
        return await self.request(f"{path}?watch=true&resourceVersion=7", status)

    async def connect(self) -> dict[str, Any]:
        for path in (STACKS, PODS):
            await self.list(path)
        watches = {path: await self.watch(path) for path in (STACKS, PODS)}
        assert self.gaps == 1, "what was there before it began to watch is to be looked at"
        self.gaps = 0
        return watches

    async def sample(self) -> None:
        sampler = asyncio.create_task(self.streams.sample())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sampler.cancel()
        await asyncio.wait([sampler])


STACKS = "/apis/cos.dev/v1alpha1/namespaces/ns/cosstacks"
PODS = "/api/v1/namespaces/ns/pods"


async def test_a_listing_alone_is_no_watch() -> None:
    session = Session()
    assert session.streams.silence() == float("inf")
    await session.list(STACKS)
    await session.watch(STACKS)
    await session.list(PODS)
    assert session.streams.problem() == "Pod in ns: not connected yet"
    await session.watch(PODS, status=403)
    assert session.streams.problem() == "Pod in ns: not connected yet"
    await session.watch(PODS)
    assert session.streams.problem() == ""
    assert session.streams.silence() == 0


async def test_bytes_keep_a_watch_fresh_and_silence_does_not() -> None:
    session = Session()
    responses = await session.connect()
    for _ in range(20):
        session.now += CONNECTED_LIMIT - 20
        responses[STACKS].content.total_bytes += 300
        responses[PODS].content.total_bytes += 300
        await session.sample()
        assert session.streams.problem() == ""
    session.now += CONNECTED_LIMIT - 20
    responses[STACKS].content.total_bytes += 300
    await session.sample()
    session.now += 21
    assert session.streams.problem() == "Pod in ns: silent for 91 s"
    assert session.streams.silence() == CONNECTED_LIMIT + 1


async def test_a_reconnect_has_its_time_and_failing_ones_do_not_extend_it() -> None:
    session = Session()
    await session.connect()
    session.now += CONNECTED_LIMIT - 5
    for _ in range(5):
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.watch(PODS, status=0)
        session.now += RECONNECT_LIMIT / 5 + 0.3
    assert "Pod in ns: not connected for 16 s" in session.streams.problem()
    await session.watch(PODS)
    await session.watch(STACKS)
    assert session.streams.problem() == ""
    assert session.gaps == 0, "it went on from where it was: nothing was missed"


async def test_a_new_listing_is_a_gap_reported_once_all_are_connected() -> None:
    session = Session()
    await session.connect()
    await session.list(PODS)
    await session.list(STACKS)
    await session.watch(STACKS)
    assert session.gaps == 0
    await session.watch(PODS)
    assert session.gaps == 1
    await session.watch(PODS)
    assert session.gaps == 1


async def test_listings_show_nothing_of_what_there_is() -> None:
    session = Session()
    await session.connect()
    stacks, pods, *watches = session.asked
    for listing in (stacks, pods):
        assert dict(listing.query) == {"limit": "500", "fieldSelector": "metadata.name=-"}
    assert not any("fieldSelector" in watch.query for watch in watches)


async def test_a_stream_that_never_connects_keeps_the_gap_of_others_for_a_limited_time_only() -> None:
    session = Session()
    await session.list(STACKS)
    await session.watch(STACKS)
    await session.list(PODS, status=403)
    session.now += RECONNECT_LIMIT + 1
    await session.sample()
    assert session.gaps == 1
    for gap in (2, 3):
        await session.list(STACKS, status=503)
        session.now += RECONNECT_LIMIT + 1
        await session.sample()
        assert session.gaps == gap - 1, "it is not over"
        await session.list(STACKS)
        await session.watch(STACKS)
        session.now += RECONNECT_LIMIT - 1
        await session.sample()
        assert session.gaps == gap - 1, "the other one may be about to connect"
        await session.list(PODS, status=403)
        session.now += 1.1
        await session.sample()
        assert session.gaps == gap
        session.now += 1000
        await session.sample()
        assert session.gaps == gap


async def test_a_stream_that_comes_back_later_than_the_others_has_a_gap_of_its_own() -> None:
    session = Session()
    await session.connect()
    session.streams.disconnected()
    await session.list(STACKS)
    await session.watch(STACKS)
    await session.list(PODS, status=403)
    session.now += RECONNECT_LIMIT + 1
    await session.sample()
    assert session.gaps == 1
    await session.list(PODS)
    await session.watch(PODS)
    assert session.gaps == 2


async def test_the_pages_of_a_listing_are_one_gap() -> None:
    session = Session()
    await session.list(PODS)
    await session.request(f"{PODS}?limit=500&continue=abc")
    await session.watch(PODS)
    await session.list(STACKS)
    assert session.gaps == 0
    await session.watch(STACKS)
    assert session.gaps == 1


async def test_a_listing_that_fails_ends_no_gap() -> None:
    session = Session()
    await session.list(PODS, status=503)
    await session.list(STACKS, status=503)
    session.now += RECONNECT_LIMIT + 1
    await session.sample()
    assert session.gaps == 0
    await session.connect()


async def test_the_end_of_the_session_cuts_every_stream() -> None:
    session = Session()
    await session.connect()
    session.streams.disconnected()
    assert session.streams.problem() == ""
    session.now += RECONNECT_LIMIT + 1
    assert session.streams.problem().count("not connected for 16 s") == 2


@pytest.mark.parametrize("server", ["https://api:6443", "https://gateway/k8s/clusters/c-1"])
async def test_streams_are_known_by_their_path_whatever_is_in_front(server: str) -> None:
    session = Session()
    await session.request(f"{PODS}?watch=true", server=server)
    await session.request("/apis/apps/v1", server=server)
    await session.request("/version", server=server)
    assert session.streams.problem() == "CosStack in ns: not connected yet"


def test_without_namespaces_there_is_one_stream_a_kind(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        streams = Streams(("Pod",), (), lambda: None)
        assert streams.problem() == "Pod in all namespaces: not connected yet"

    virtual_time(main)
