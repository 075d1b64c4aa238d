"""What a real API server rarely does on demand: time limits, cuts, overload, expired pages, foreign pages."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cos_operator import metrics
from cos_operator.kube import Conflict, Invalid, Kube, KubeError, NotFound, Request, Unavailable
from cos_operator.kube_errors import error_from
from cos_operator.lease import NotLeader

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ns", "name": "a"}}


def write_kubeconfig(path: Path, server: str, **user: str) -> str:
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return str(path)


@asynccontextmanager
async def answering(
    answer: Answer, tmp_path: Path, read_timeout: float = 5, write_timeout: float = 5
) -> AsyncIterator[Kube]:
    """A client of an HTTP server that answers every request with `answer`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", str(server.make_url("")))
        async with Kube.connect(kubeconfig, read_timeout=read_timeout, write_timeout=write_timeout) as kube:
            yield kube


async def test_a_hanging_read_and_a_hanging_write_end_in_their_time(tmp_path: Path) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async with answering(hang, tmp_path, read_timeout=0.2, write_timeout=0.1) as kube:
        for call, limit in ((kube.list("Pod", "ns"), 0.2), (kube.apply(CONFIG_MAP, force=True), 0.1)):
            started = time.monotonic()
            with pytest.raises(Unavailable, match="time limit"):
                await call
            assert limit <= time.monotonic() - started < limit + 1


async def test_the_api_server_is_told_how_long_a_write_may_take(tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    async def answer(request: web.Request) -> web.Response:
        seen[request.method] = request.query.get("timeout", "")
        return web.json_response(CONFIG_MAP)

    async with answering(answer, tmp_path, write_timeout=2.5) as kube:
        await kube.get("ConfigMap", "ns", "a")
        await kube.apply(CONFIG_MAP, force=True)
        await kube.create(CONFIG_MAP)
        await kube.replace(CONFIG_MAP)
        await kube.delete("ConfigMap", "ns", "a")
    assert seen == {"GET": "", "PATCH": "2.5s", "POST": "2.5s", "PUT": "2.5s", "DELETE": "2.5s"}


async def test_a_write_is_guarded_again_when_it_is_repeated_with_new_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cos_operator.kube._RELOGIN_INTERVAL", 0)
    leading = True

    async def refuse(_: web.Request) -> web.Response:
        nonlocal leading
        leading = False
        return web.json_response({"message": "expired"}, status=401)

    def guard() -> None:
        if not leading:
            raise NotLeader("in the meantime")

    async with answering(refuse, tmp_path) as kube:
        kube.write_guard = guard
        with pytest.raises(NotLeader):
            await kube.apply(CONFIG_MAP, force=True)


async def test_a_write_that_was_cut_is_unsettled_until_its_time_has_passed_and_an_answered_one_is_not(
    tmp_path: Path,
) -> None:
    arrived = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.method in {"GET", "PATCH"}:
            arrived.set()
            await asyncio.sleep(5)
        if request.method == "PUT":
            return web.json_response({"message": "somebody was faster"}, status=409)
        return web.json_response(CONFIG_MAP)

    async with answering(answer, tmp_path, write_timeout=1.5) as kube:

        async def cut(call: Awaitable[object]) -> float:
            """Seconds from the begin of a call that is cut on its way until nothing is left of it."""
            began = time.monotonic()
            arrived.clear()
            calling = asyncio.ensure_future(call)
            await arrived.wait()
            calling.cancel()
            await asyncio.wait([calling])
            await kube.writes.settled()
            return time.monotonic() - began

        await kube.create(CONFIG_MAP)
        with pytest.raises(Conflict):
            await kube.replace(CONFIG_MAP)
        assert await cut(kube.get("ConfigMap", "ns", "a")) < 1.4
        assert await cut(kube.apply(CONFIG_MAP, force=True)) >= 1.4


async def test_requests_refused_together_are_all_repeated_with_the_new_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cos_operator.kube._RELOGIN_INTERVAL", 0.5)
    token = tmp_path / "token"
    token.write_text("old")
    accepted = "old"
    arrived = asyncio.Event()
    count = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        if request.headers["Authorization"] == f"Bearer {accepted}":
            return web.json_response(CONFIG_MAP)
        if count == 4:
            arrived.set()
        await arrived.wait()
        return web.json_response({"message": "expired"}, status=401)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", str(server.make_url("")), tokenFile=str(token))
        async with Kube.connect(kubeconfig) as kube:
            await asyncio.sleep(0.6)
            accepted = "new"
            token.write_text("new")
            found = await asyncio.gather(*(kube.get("ConfigMap", "ns", "a") for _ in range(4)))
    assert found == [CONFIG_MAP] * 4
    assert count == 8


#: As /proc/net/tcp has it.
ESTABLISHED = "01"


def state_of(port: int) -> str:
    """The kernel's state of the connection with this local port; "" if there is none any more."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if local.endswith(f":{port:04X}"):
            return state
    return ""


#: Applies a large object, and is frozen while most of it waits in the kernel for the server to read.
SENDER = """
import asyncio, os, signal, sys
from cos_operator.kube import Kube
metadata = {"namespace": "ns", "name": "a"}
big = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "x" * 1000000}}
async def main():
    async with Kube.connect(sys.argv[1], write_timeout=1) as kube:
        asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGSTOP)
        await kube.apply(big, force=True)
asyncio.run(main())
"""


def _read_all(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def test_what_a_frozen_process_has_sent_does_not_wait_for_better_days(tmp_path: Path) -> None:
    """It would else be delivered whenever the network, or the server, comes back."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        kubeconfig = write_kubeconfig(
            tmp_path / "kubeconfig", f"http://127.0.0.1:{listening.getsockname()[1]}"
        )
        with subprocess.Popen([sys.executable, "-c", SENDER, kubeconfig]) as sender:
            try:
                listening.settimeout(20)
                connection, _ = listening.accept()
                with connection:
                    stat = Path(f"/proc/{sender.pid}/stat")
                    deadline = time.monotonic() + 20
                    while stat.read_text().rpartition(")")[2].split()[0] != "T":
                        assert time.monotonic() < deadline
                        time.sleep(0.01)
                    while state_of(connection.getpeername()[1]) == ESTABLISHED:
                        assert time.monotonic() < deadline
                        time.sleep(0.01)
                    with pytest.raises(ConnectionResetError):
                        _read_all(connection)
            finally:
                sender.kill()


async def test_a_body_that_never_ends_is_cut_too(tmp_path: Path) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"items": [')
        await asyncio.sleep(5)
        return response

    async with answering(drip, tmp_path, read_timeout=0.2) as kube:
        with pytest.raises(Unavailable, match="time limit"):
            await kube.list("Pod", "ns")


async def test_no_server_and_a_cut_connection_are_unavailable(tmp_path: Path) -> None:
    async with Kube.connect(write_kubeconfig(tmp_path / "nobody", "http://127.0.0.1:9")) as kube:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9") as refused:
            await kube.get("Pod", "ns", "a")
        assert refused.value.code is None

    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with answering(cut, tmp_path) as kube:
        with pytest.raises(Unavailable):
            await kube.apply(CONFIG_MAP, force=True)


async def test_overload_says_when_to_come_back_and_is_counted(tmp_path: Path) -> None:
    async def overloaded(_: web.Request) -> web.Response:
        return web.json_response(
            {"kind": "Status", "message": "slow down"}, status=429, headers={"Retry-After": "7"}
        )

    labels = {"verb": "get", "kind": "Pod", "code": "429"}
    before = metrics.REGISTRY.get_sample_value("cos_operator_api_requests_total", labels) or 0
    async with answering(overloaded, tmp_path) as kube:
        with pytest.raises(Unavailable, match="slow down") as refused:
            await kube.get("Pod", "ns", "a")
    assert refused.value.retry_after == 7
    assert metrics.REGISTRY.get_sample_value("cos_operator_api_requests_total", labels) == before + 1


async def test_an_expired_page_begins_the_list_again_once(tmp_path: Path) -> None:
    tokens: list[str] = []

    async def expiring(request: web.Request) -> web.Response:
        token = request.query.get("continue", "")
        tokens.append(token)
        if token == "1" and tokens.count("1") < 2:
            return web.json_response({"message": "too old", "reason": "Expired"}, status=410)
        page = {
            "metadata": {"continue": "" if token else "1"},
            "items": [{"metadata": {"name": f"pod{token}"}}],
        }
        return web.json_response(page)

    async with answering(expiring, tmp_path) as kube:
        assert [pod["metadata"]["name"] for pod in await kube.list("Pod", "ns")] == ["pod", "pod1"]
    assert tokens == ["", "1", "", "1"]

    async def expired(_: web.Request) -> web.Response:
        return web.json_response({"message": "too old"}, status=410)

    async with answering(expired, tmp_path) as kube:
        with pytest.raises(KubeError, match="too old"):
            await kube.list("Pod", "ns")


async def test_an_answer_that_is_no_api_object(tmp_path: Path) -> None:
    async def captive(_: web.Request) -> web.Response:
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    async with answering(captive, tmp_path) as kube:
        with pytest.raises(Unavailable, match="is it an API server"):
            await kube.get("Pod", "ns", "a")

    async def bad_gateway(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>")

    async with answering(bad_gateway, tmp_path) as kube:
        with pytest.raises(Unavailable, match="502"):
            await kube.ping()


async def test_a_server_that_is_not_ready_says_what_it_waits_for(tmp_path: Path) -> None:
    async def starting(_: web.Request) -> web.Response:
        return web.Response(
            status=500, text="[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n"
        )

    async with answering(starting, tmp_path) as kube:
        with pytest.raises(Unavailable, match="get readyz: 500: etcd failed: reason withheld"):
            await kube.ping()


async def test_a_proxy_of_the_environment_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(CONFIG_MAP)

    async with answering(answer, tmp_path) as kube:
        assert await kube.get("ConfigMap", "ns", "a") == CONFIG_MAP


def test_an_error_never_shows_the_request_body_and_stays_short() -> None:
    request = Request("apply", "StatefulSet", "ns", "cos-redis")
    error = error_from(request, 422, {"reason": "Invalid", "message": "x" * 5000})
    assert isinstance(error, Invalid)
    assert str(error).startswith("apply StatefulSet ns/cos-redis: 422 Invalid: xxx")
    assert len(str(error)) < 1200


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({"Retry-After": "3"}, {}, 3.0),
        ({"Retry-After": "Mon, 23 Nov 2026 08:00:00 GMT"}, {"retryAfterSeconds": 5}, 5.0),
        ({}, {}, None),
        ({}, {"retryAfterSeconds": 0}, None),
    ],
)
def test_the_servers_wish_when_to_come_back(
    headers: dict[str, str], details: dict[str, int], seconds: float | None
) -> None:
    error = error_from(Request("get", "Pod"), 503, {"details": details}, headers)
    assert isinstance(error, Unavailable)
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (404, NotFound),
        (400, Invalid),
        (413, Invalid),
        (500, Unavailable),
        (504, Unavailable),
        (418, KubeError),
    ],
)
def test_classes_by_status(code: int, cls: type[KubeError]) -> None:
    assert type(error_from(Request("get", "Pod"), code, {})) is cls


async def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Kube.connect("/no/such/file").get("Pod", "ns", "a")


async def test_a_namespaced_kind_needs_its_namespace(tmp_path: Path) -> None:
    async with Kube.connect(write_kubeconfig(tmp_path / "k", "http://127.0.0.1:9")) as kube:
        with pytest.raises(ValueError, match="has a namespace"):
            await kube.get("Pod", "", "a")
