"""The proxy does at the chosen place what it says, and nothing anywhere else."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cos_crash import proxy as proxy_module
from cos_crash.faults import Case, Injection, Stream
from cos_crash.proxy import Proxy

from cos_testbed.pki import Authority

PODS = "/api/v1/namespaces/ns/pods"
SETS = "/apis/apps/v1/namespaces/ns/statefulsets/cos-redis"
STACK = "/apis/cos.dev/v1alpha1/namespaces/ns/cosstacks/cos"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/home/leases/cos-operator"


class Server:
    """What stands behind the proxy: it notes writes, lists what it is told, and sends what it is told to watches."""

    def __init__(self) -> None:
        self.writes: list[str] = []
        self.written = asyncio.Event()
        self.items: list[str] = []
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if request.method != "GET":
            self.writes.append(f"{request.method} {request.path} {await request.text()}")
            self.written.set()
            return web.json_response({"kind": "Done"}, status=201)
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(json.dumps(await self.events.get()).encode() + b"\n")
        return web.json_response(
            {
                "metadata": {"resourceVersion": "1"},
                "items": list(self.items),
                "authorization": request.headers.get("Authorization", ""),
            }
        )


class Setup:
    """Proxy, the server behind it, a client before it, and how often the operator was killed."""

    def __init__(self, proxy: Proxy, server: Server, client: aiohttp.ClientSession) -> None:
        self.proxy = proxy
        self.server = server
        self.client = client
        self.crashes = 0

    def begin(self, case: str) -> None:
        self.proxy.begin(Injection(Case.parse(case).faults))

    async def write(self, path: str = SETS, body: str = "x") -> tuple[int, Any]:
        async with self.client.patch(self.proxy.url + path, data=body) as response:
            return response.status, await response.json()

    async def items(self, path: str = PODS) -> Any:
        async with self.client.get(self.proxy.url + path) as response:
            return (await response.json())["items"]

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[aiohttp.StreamReader]:
        async with self.client.get(f"{self.proxy.url}{PODS}?watch=true") as response:
            yield response.content

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.server.events.put_nowait({"type": "ADDED", "object": number})


async def received(stream: aiohttp.StreamReader, seconds: float = 5.0) -> Any:
    """The next event: its object, or its type where that is not ADDED; None at the end of the stream."""
    async with asyncio.timeout(seconds):
        line = await stream.readline()
    if not line:
        return None
    event = json.loads(line)
    return event["object"] if event["type"] == "ADDED" else (event["type"], event["object"].get("code"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server on localhost, and for its clients."""
    authority = Authority(tmp_path_factory.mktemp("pki"), "ca")
    leaf = authority.leaf("proxy", "proxy", hosts=["127.0.0.1"], server=True)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(leaf.certificate, leaf.key)
    return server, ssl.create_default_context(cafile=str(Path(authority.files.certificate)))


@pytest.fixture
async def setup(certificates: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Setup]:
    of_server, of_client = certificates
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.serve)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=of_server).start()
    upstream = f"https://127.0.0.1:{runner.addresses[0][1]}"

    def crash() -> None:
        made.crashes += 1
        made.proxy.shut()

    async with (
        Proxy(upstream, of_client, of_server, crash) as proxy,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=of_client), headers={"Authorization": "Bearer token"}
        ) as client,
    ):
        made = Setup(proxy, server, client)
        yield made
        assert proxy.error is None
    await runner.cleanup()


async def test_without_faults_everything_passes_and_is_counted(setup: Setup) -> None:
    setup.begin("edit.none")
    setup.server.items = ["a"]
    assert await setup.write() == (201, {"kind": "Done"})
    await setup.write(LEASE)
    async with setup.client.get(setup.proxy.url + PODS) as response:
        assert (await response.json())["authorization"] == "Bearer token"
    async with setup.client.get(setup.proxy.url + STACK):
        pass
    async with setup.watch() as stream:
        setup.server.events.put_nowait({"type": "BOOKMARK", "object": {}})
        setup.send(1)
        assert await received(stream) == ("BOOKMARK", None)
        assert await received(stream) == 1
    assert setup.proxy.injection.counts == {Stream.WRITES: 1, Stream.LISTS: 1, Stream.EVENTS: 1}
    assert setup.proxy.journal.stack_reads == 1
    assert setup.server.writes == [f"PATCH {SETS} x", f"PATCH {LEASE} x"]
    (entry,) = setup.proxy.journal.writes
    assert (entry.what, entry.became) == ("PATCH statefulsets/cos-redis", "201")


@pytest.mark.parametrize(("fault", "done"), [("kill-before", 1), ("kill-after", 2)])
async def test_a_kill_strikes_at_its_write_and_no_answer_comes(setup: Setup, fault: str, done: int) -> None:
    setup.begin(f"edit.{fault}.2")
    await setup.write(body="1")
    with pytest.raises(aiohttp.ClientError):
        await setup.write(body="2")
    assert setup.crashes == 1
    assert len(setup.server.writes) == done
    with pytest.raises(aiohttp.ClientError):
        await setup.write(body="of the dead")
    assert len(setup.server.writes) == done, "what the dead operator still had to send never arrives"
    assert setup.proxy.away() > setup.proxy.journal.away
    setup.proxy.open()
    await setup.write(body="3")
    assert setup.proxy.away() == setup.proxy.journal.away > 0
    assert len(setup.server.writes) == done + 1
    assert setup.crashes == 1


@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        ("conflict", 409, "Conflict"),
        ("throttled", 429, "TooManyRequests"),
        ("error", 500, "InternalError"),
        ("unavailable", 503, "ServiceUnavailable"),
    ],
)
async def test_a_refusal_is_worded_as_the_api_server_does_and_nothing_is_done(
    setup: Setup, fault: str, code: int, reason: str
) -> None:
    setup.begin(f"edit.{fault}.1")
    async with setup.client.patch(setup.proxy.url + SETS, data="x") as response:
        status = await response.json()
        assert response.status == code
        assert ("Retry-After" in response.headers) == (code == 429)
    assert (status["kind"], status["code"], status["reason"]) == ("Status", code, reason)
    assert setup.server.writes == []
    assert (await setup.write())[0] == 201


async def test_a_timeout_comes_after_the_write_is_done(setup: Setup) -> None:
    setup.begin("edit.timeout.1")
    answer = asyncio.create_task(setup.write())
    async with asyncio.timeout(10):
        await setup.server.written.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(answer, 0.3)
    assert len(setup.server.writes) == 1
    assert (await setup.write())[0] == 201


async def test_a_stale_list_is_an_earlier_answer_to_the_same_question_and_given_once(setup: Setup) -> None:
    setup.server.items = ["before"]
    assert await setup.items() == ["before"]
    setup.begin("edit.stale.1")
    assert await setup.items() == ["before"], "no older answer differs, so it waits for one"
    assert setup.proxy.injection.unreached
    setup.server.items = ["now"]
    assert await setup.items(f"{PODS}?labelSelector=x") == ["now"], "another question"
    newer = f"{PODS}?resourceVersion=7&resourceVersionMatch=NotOlderThan"
    assert await setup.items(newer) == ["before"], "the same question"
    assert await setup.items() == ["now"]
    assert not setup.proxy.injection.unreached


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("dropped", [1, 3]),
        ("duplicated", [1, 2, 2, 3]),
        ("gone", [1, ("ERROR", 410), None]),
        ("delayed", [1, 2, 3]),
    ],
)
async def test_watch_events_are_struck_at_their_place(
    setup: Setup, fault: str, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "DELAY", 0.5)
    setup.begin(f"edit.{fault}.2")
    async with setup.watch() as stream:
        setup.send(1, 2, 3)
        assert await received(stream) == expected[0]
        if fault == "delayed":
            with pytest.raises(TimeoutError):
                await received(stream, 0.1)
        assert [await received(stream) for _ in expected[1:]] == expected[1:]


async def test_a_silent_watch_says_nothing_until_the_next_case(setup: Setup) -> None:
    setup.begin("edit.silent.2")
    async with setup.watch() as stream:
        setup.send(1, 2, 3)
        assert await received(stream) == 1
        with pytest.raises(TimeoutError):
            await received(stream, 0.3)
        assert not stream.at_eof()
        setup.begin("edit.none")
        assert await received(stream) is None
