"""Neo4j: its files, the pod's scripts, the rendered pod, the verdicts of a check."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neo4j.exceptions import Neo4jError
from pydantic import ValidationError
from settings_text import ONE_LINE

from cos_controllers.api.common import ResourceList, Resources
from cos_controllers.api.stack import CosStackSpec, Neo4jSpec
from cos_controllers.components.base import Blueprint, Context
from cos_controllers.components.neo4j import Neo4j
from cos_controllers.components.neo4j.config import (
    DEFAULTS,
    OVERHEAD_MIB,
    PROBE_SCRIPT,
    START_SCRIPT,
    initial_user,
    memory,
    neo4j_conf,
    property_value,
    salted_hash,
)
from cos_controllers.credentials import Credentials, Login
from cos_controllers.k8s import manifest
from cos_controllers.observation import CheckTarget, Outcome
from cos_operator.engines import neo4j as client

CREDENTIALS = Credentials(
    admin=Login("neo4j", "a" * 40), app=Login("app", 'quo"te\\d$(id)'), probe=Login("cos-probe", "c" * 40)
)


def spec(limit: str = "1Gi", **fields: Any) -> Neo4jSpec:
    return Neo4jSpec(resources=Resources(limits=ResourceList(memory=limit)), **fields)


def conf(**fields: Any) -> list[tuple[str, str]]:
    text = neo4j_conf("cos-neo4j.team.svc", spec(**fields), config_dir="/etc/cos/config")
    return [(name, value) for name, _, value in (line.partition("=") for line in text.splitlines())]


def rendered(**fields: Any) -> Blueprint:
    return Neo4j().render(
        Context(
            name="cos-neo4j",
            component="neo4j",
            namespace="team",
            spec=spec(**fields),
            version=spec(**fields).version,
            stack=CosStackSpec(neo4j=spec(**fields)),
            stack_name="cos",
            credentials=CREDENTIALS,
            claim="cos-neo4j-data-0",
        )
    )


@pytest.mark.parametrize(
    ("limit", "heap", "pagecache", "direct"),
    [
        ("768Mi", 224, 128, 96),
        ("1Gi", 448, 128, 128),
        ("1536Mi", 512, 512, 192),
        ("2Gi", 736, 736, 256),
        ("16Gi", 7008, 7008, 2048),
        ("128Gi", 31744, 82624, 16384),
    ],
)
def test_the_memory_limit_is_divided(limit: str, heap: int, pagecache: int, direct: int) -> None:
    assert memory(spec(limit)) == (heap, pagecache, direct)


@given(st.integers(768, 1 << 20))
def test_the_parts_are_the_whole(mebibytes: int) -> None:
    share = memory(spec(f"{mebibytes}Mi"))
    assert sum(share) + OVERHEAD_MIB == mebibytes
    assert min(share) > 0


def as_java_reads(value: str) -> str:
    """`java.util.Properties`: leading white space is dropped, a backslash escapes."""
    text = re.sub(
        r"\\u([0-9a-f]{4})|\\(.)", lambda m: chr(int(m[1], 16)) if m[1] else m[2], value.lstrip(" \t\f")
    )
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


@given(ONE_LINE)
def test_no_value_leaves_its_line(value: str) -> None:
    written = property_value(value)
    assert re.fullmatch(r"[!-~]*", written), "ASCII without white space"
    assert as_java_reads(written) == value
    assert len(conf(settings={"db.x": value})) == len(conf()) + 1


def test_what_the_operator_owns_wins_and_is_refused_by_the_api() -> None:
    owned = {name for name, _ in conf()} - set(DEFAULTS)
    for name in owned:
        with pytest.raises(ValidationError, match="settings must not set what the operator owns"):
            spec(settings={name: "x"})
    for name in DEFAULTS:
        assert dict(conf(settings={name: "x"}))[name] == "x"


def test_no_setting_is_there_twice() -> None:
    """Neo4j refuses a repeated setting, save this one."""
    names = [name for name, _ in conf() if name != "server.jvm.additional"]
    assert len(names) == len(set(names))


def test_the_initial_user_is_what_neo4js_own_tool_writes() -> None:
    made_by_tool = (
        "SHA-256,93fe6127763d09bc295f7328c223220455c1c1669a6eeb3bfde191d28f3203ea,"
        "847dfb63a50611ee085cbfade334ab5757b1a94fd308d959f0dfbdc13001ef1d,1024"
    )
    assert salted_hash(b"hunter2hunter2", bytes.fromhex(made_by_tool.split(",")[2])) == made_by_tool
    line = initial_user(CREDENTIALS.admin)
    assert re.fullmatch(r"neo4j:SHA-256,[0-9a-f]{64},[0-9a-f]{64},1024:\n", line)
    initial_user.cache_clear()
    assert initial_user(CREDENTIALS.admin) == line


def test_no_password_is_in_the_pod_or_the_config_map() -> None:
    blueprint = rendered()
    text = json.dumps([manifest(item) for item in blueprint.containers]) + json.dumps(dict(blueprint.config))
    for login in (CREDENTIALS.admin, CREDENTIALS.app, CREDENTIALS.probe):
        assert login.password not in text
    assert CREDENTIALS.admin.password not in json.dumps(dict(blueprint.files))
    assert blueprint.init_containers == ()


def test_binding() -> None:
    engine = Neo4j()
    assert engine.uri("cos-neo4j.team.svc", CREDENTIALS.app) == "neo4j://cos-neo4j.team.svc:7687"
    assert engine.tag("5.26.12") == "5.26.12-community"
    assert [(port.name, port.number) for port in engine.ports] == [("bolt", 7687), ("http", 7474)]
    assert engine.instances(CosStackSpec(neo4j=spec())) == {"neo4j": spec()}
    assert engine.instances(CosStackSpec.model_validate({"redis": {}})) == {}


# -- the pod's scripts ------------------------------------------------------------------------------------------------


def test_the_server_is_started_by_its_own_command_line(tmp_path: Path) -> None:
    """Without a stale pid file, without a launcher that stays, and with the `*` of its class path untouched."""
    script = START_SCRIPT
    for path in ("/tmp/", "/data/", "/etc/cos/"):  # noqa: S108
        script = script.replace(path, f"{tmp_path}{path}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "tmp/run").mkdir(parents=True)
    (tmp_path / "tmp/run/neo4j.pid").write_text("1")
    (tmp_path / "bin/neo4j").write_text(
        '#!/bin/sh\n[ "$*" = "console --dry-run" ] && printf "java -cp /*:/b/* Main"\n'
    )
    (tmp_path / "bin/tini").write_text('#!/bin/sh\necho "$@"\n')
    for name in ("neo4j", "tini"):
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == "-g -- java -cp /*:/b/* Main\n"
    assert not (tmp_path / "tmp/run/neo4j.pid").exists()
    assert (tmp_path / "data/dbms/auth.ini").readlink() == tmp_path / "etc/cos/files/auth.ini"


@pytest.mark.parametrize(
    ("found", "left"),
    [
        ([], ["first-start"]),
        (["databases", "transactions", "first-start"], ["first-start"]),  # cut off: nothing was served
        (["databases", "transactions"], ["databases", "transactions"]),
        (["databases"], ["databases"]),  # logs were lost, and the store is still not ours to delete
    ],
    ids=["new", "first-start-cut-off", "served", "logs-lost"],
)
def test_only_a_start_that_never_served_begins_anew(
    tmp_path: Path, found: list[str], left: list[str]
) -> None:
    script = START_SCRIPT
    for path in ("/tmp/", "/data/", "/etc/cos/"):  # noqa: S108
        script = script.replace(path, f"{tmp_path}{path}")
    for name in ("bin", "data"):
        (tmp_path / name).mkdir()
    for name in ("neo4j", "tini"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho server\n")
        (tmp_path / "bin" / name).chmod(0o755)
    for name in found:
        (tmp_path / "data" / name).mkdir() if name != "first-start" else (tmp_path / "data" / name).touch()
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", script], env=environment, capture_output=True, check=True)
    made = {"dbms", "import", "dumps"}
    assert sorted({path.name for path in (tmp_path / "data").iterdir()} - made) == left


def test_a_configuration_that_is_refused_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "neo4j").write_text("#!/bin/sh\necho 'unrecognized setting' >&2\nexit 1\n")
    (tmp_path / "neo4j").chmod(0o755)
    script = START_SCRIPT
    for path in ("/tmp/", "/data/", "/etc/cos/"):  # noqa: S108
        script = script.replace(path, f"{tmp_path}{path}")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "unrecognized setting\n")


def everything(connection: socket.socket) -> bytes:
    """What arrives until the client pauses: a shell writes a request in several pieces."""
    connection.settimeout(0.1)
    received = b""
    with suppress(TimeoutError):
        while piece := connection.recv(4096):
            received += piece
    return received


@contextmanager
def server(answer: bytes | None) -> Iterator[tuple[int, list[bytes]]]:
    """A server that reads, answers and closes; with None it accepts and stays silent."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        stop = threading.Event()

        def serve() -> None:
            held = []
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                held.append(connection)
                if answer is not None:
                    received.append(everything(connection))
                    connection.sendall(answer)
                    connection.close()
            for connection in held:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], received
        finally:
            stop.set()
            thread.join()


BOLT = b"\x00\x00\x04\x05"
SERVES = b'HTTP/1.1 200 OK\r\n\r\n{"results":[{"columns":["1"]}],"errors":[]}'
REFUSES = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}"
PANIC = (
    b'HTTP/1.1 200 OK\r\n\r\n{"results":[],"errors":[{"code":"Neo.DatabaseError.Transaction.TransactionStartFailed",'
    b'"message":"The database has encountered a critical error, and needs to be restarted."}]}'
)


def probe(tmp_path: Path, bolt: int, http: int, mode: str, wait: str = "0.5") -> int:
    (tmp_path / "authorization").write_text("dXNlcjpwYXNz")
    script = (
        PROBE_SCRIPT.replace("/etc/cos/files/probe-authorization", str(tmp_path / "authorization"))
        .replace("/data/", f"{tmp_path}/")
        .replace("127.0.0.1/7687", f"127.0.0.1/{bolt}")
        .replace("127.0.0.1/7474", f"127.0.0.1/{http}")
    )
    command = ["timeout", "-s", "KILL", "5", "bash", "-c", script, "probe.sh", mode, wait]
    return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode


@pytest.mark.parametrize(
    ("bolt", "http", "passed"),
    [
        (BOLT, SERVES, {"started", "ready", "alive"}),
        (BOLT, REFUSES, {"started", "ready", "alive"}),  # the account does not exist yet
        (BOLT, None, {"ready", "alive"}),  # every thread of HTTP is at work, or Cypher is still loading
        (BOLT, PANIC, {"ready"}),
        (None, SERVES, set()),  # hung
        (b"", SERVES, set()),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", SERVES, set()),
    ],
    ids=["serves", "no-account", "http-saturated", "critical-error", "hung", "closes", "no-bolt"],
)
def test_probes(tmp_path: Path, bolt: bytes | None, http: bytes | None, passed: set[str]) -> None:
    modes = ("started", "ready", "alive")
    with server(bolt) as (bolt_port, _), server(http) as (http_port, received):
        assert {mode for mode in modes if probe(tmp_path, bolt_port, http_port, mode) == 0} == passed
    for request in received:
        assert request.startswith(b"POST /db/neo4j/tx/commit HTTP/1.1\r\nHost: localhost\r\n")
        head, _, body = request.partition(b"\r\n\r\n")
        assert b"Authorization: Basic dXNlcjpwYXNz" in head
        assert f"Content-Length: {len(body)}".encode() in head
        assert json.loads(body) == {"statements": [{"statement": "RETURN 1"}]}


def test_the_first_start_is_over_when_the_server_has_answered(tmp_path: Path) -> None:
    marker = tmp_path / "first-start"
    marker.touch()
    with server(BOLT) as (bolt_port, _), server(SERVES) as (http_port, _):
        for mode in ("ready", "alive"):
            assert probe(tmp_path, bolt_port, http_port, mode) == 0
            assert marker.exists()
        with server(None) as (silent_port, _):
            assert probe(tmp_path, bolt_port, silent_port, "started") != 0
            assert marker.exists()
        assert probe(tmp_path, bolt_port, http_port, "started") == 0
    assert not marker.exists()


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert probe(tmp_path, port, port, "alive") != 0


def test_probes_end_before_kubelets_limit() -> None:
    container = rendered().containers[0]
    for field, waits in (("startup_probe", 2), ("readiness_probe", 1), ("liveness_probe", 3)):
        found = getattr(container, field)
        limit, wait = float(found.var_exec.command[3]), float(found.var_exec.command[-1])
        assert found.timeout_seconds > limit > waits * wait


# -- the check --------------------------------------------------------------------------------------------------------


def error(code: str) -> Neo4jError:
    return Neo4jError._hydrate_neo4j(code=code, message="said")


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("Neo.ClientError.Security.Unauthorized", Outcome.CREDENTIALS_REFUSED),
        ("Neo.ClientError.Security.AuthenticationRateLimit", Outcome.CREDENTIALS_REFUSED),
        ("Neo.ClientError.Security.CredentialsExpired", Outcome.CREDENTIALS_REFUSED),
        ("Neo.ClientError.Database.DatabaseNotFound", Outcome.CREDENTIALS_REFUSED),
        ("Neo.ClientError.General.WriteOnReadOnlyAccessDatabase", Outcome.READ_ONLY),
        ("Neo.ClientError.General.ForbiddenOnReadOnlyDatabase", Outcome.READ_ONLY),
        ("Neo.TransientError.Request.NoThreadsAvailable", Outcome.SERVING),
        ("Neo.DatabaseError.Transaction.TransactionStartFailed", Outcome.NOT_ANSWERING),
        ("Neo.TransientError.Database.DatabaseUnavailable", Outcome.NOT_ANSWERING),
    ],
)
def test_verdicts(code: str, outcome: Outcome) -> None:
    result = client.judge(error(code))
    assert (result.outcome, result.message) == (outcome, "said")


def target(port: int) -> CheckTarget:
    return CheckTarget("neo4j", "neo4j", "127.0.0.1", port, CREDENTIALS, database="neo4j")


@pytest.mark.parametrize("handshake", [b"", BOLT], ids=["no-handshake", "no-hello"])
async def test_no_answer_ends_in_time(monkeypatch: pytest.MonkeyPatch, handshake: bytes) -> None:
    monkeypatch.setattr(client, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(client, "PROVISION_SECONDS", 0.3)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(20)
        writer.write(handshake)
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        begun = time.monotonic()
        result = await client.Neo4jClient().check(target(port))
        with pytest.raises(client.EngineError, match="CREATE USER failed"):
            await client.Neo4jClient().provision(target(port))
        assert time.monotonic() - begun < 2
    assert result.outcome is Outcome.NOT_ANSWERING
    assert result.message


async def test_other_protocols_and_closed_ports_do_not_answer() -> None:
    with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (port, _):
        result = await client.Neo4jClient().check(target(port))
    assert result.outcome is Outcome.NOT_ANSWERING
    closed = await client.Neo4jClient().check(target(port))
    assert closed.outcome is Outcome.NOT_ANSWERING
    assert "\n" not in closed.message
    assert CREDENTIALS.app.password not in result.message + closed.message
