"""Elasticsearch: its files, the pod's scripts, the rendered pod, the verdicts of a check."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from settings_text import ONE_LINE

from cos_controllers.api.common import ResourceList, Resources
from cos_controllers.api.stack import CosStackSpec, ElasticsearchSpec
from cos_controllers.components.base import Blueprint, Context
from cos_controllers.components.elasticsearch import Elasticsearch
from cos_controllers.components.elasticsearch.config import (
    DEFAULTS,
    PROBE_SCRIPT,
    ROLES,
    START_SCRIPT,
    elasticsearch_yml,
    heap_mib,
    jvm_options,
    password_hash,
    pbkdf2,
    probe_curl,
    users,
    users_roles,
)
from cos_controllers.credentials import Credentials, Login
from cos_controllers.k8s import manifest
from cos_controllers.observation import CheckTarget, Outcome
from cos_operator.engines import elasticsearch as client

CREDENTIALS = Credentials(
    admin=Login("cos-admin", "a" * 40), app=Login("app", 'quo"te\\d$(id)'), probe=Login("cos-probe", "c" * 40)
)
WITH_BACKUPS = replace(CREDENTIALS, backup=Login("cos-backup", "b" * 40))


def spec(memory: str = "1Gi", **fields: Any) -> ElasticsearchSpec:
    return ElasticsearchSpec(resources=Resources(limits=ResourceList(memory=memory)), **fields)


def yml(**fields: Any) -> str:
    return elasticsearch_yml("cos-elasticsearch", spec(**fields), data="/d", snapshots="/s", port=9200)


def rendered(**fields: Any) -> Blueprint:
    return Elasticsearch().render(
        Context(
            name="cos-elasticsearch",
            component="elasticsearch",
            namespace="team",
            spec=spec(**fields),
            version=spec(**fields).version,
            stack=CosStackSpec(elasticsearch=spec(**fields)),
            stack_name="cos",
            credentials=CREDENTIALS,
            claim="cos-elasticsearch-data-0",
        )
    )


@pytest.mark.parametrize(
    ("memory", "heap"),
    [("768Mi", 256), ("1Gi", 448), ("1152Mi", 576), ("2Gi", 1024), ("16Gi", 8192), ("128Gi", 31 * 1024)],
)
def test_the_heap_leaves_room_for_the_rest(memory: str, heap: int) -> None:
    assert heap_mib(spec(memory)) == heap
    assert f"-Xms{heap}m\n-Xmx{heap}m\n" in jvm_options(spec(memory))


@given(st.dictionaries(st.from_regex(r"a[a-z0-9_.]{0,20}", fullmatch=True), ONE_LINE, max_size=4))
def test_no_value_leaves_its_line(settings: dict[str, str]) -> None:
    lines = dict(line.split(": ", 1) for line in yml(settings=settings).splitlines())
    assert {name: json.loads(lines[name]) for name in settings} == settings
    assert len(lines) == len(yml().splitlines()) + len(settings)


@given(ONE_LINE.filter(lambda text: all(ord(character) < 0xFFFF for character in text)))
def test_yaml_gives_every_value_back_as_text(value: str) -> None:
    assert yaml.safe_load(yml(settings={"a.b": value}))["a.b"] == value


def test_what_the_operator_owns_wins_and_is_refused_by_the_api() -> None:
    owned = set(yaml.safe_load(yml())) - set(DEFAULTS)
    for name in owned:
        with pytest.raises(ValidationError, match="settings must not set what the operator owns"):
            spec(settings={name: "x"})
    for name in DEFAULTS:
        assert yaml.safe_load(yml(settings={name: "x"}))[name] == "x"


def test_a_hash_is_what_elasticsearchs_own_tool_makes() -> None:
    made_by_tool = (
        "{PBKDF2}10000$duJjXveYh1P7B4S61vQWttaw5m5X1gLD0+9FKqxSmqs=$"
        "Hv79xUDbeUfJc53fcOFX+jt1qHl1b6GS/CZrzqgpRFo="
    )
    salt = base64.b64decode(made_by_tool.split("$")[1])
    assert pbkdf2(b"hunter2hunter2", salt) == made_by_tool


def test_hashes_are_stable_and_each_has_its_own_salt() -> None:
    same = password_hash(Login("app", "secret"))
    password_hash.cache_clear()
    assert password_hash(Login("app", "secret")) == same
    others = {password_hash(Login("app2", "secret")), password_hash(Login("app", "secret2"))}
    assert len({line.split("$")[1] for line in {same} | others}) == 3


def test_roles_match_users() -> None:
    named = [line.split(":")[0] for line in users(WITH_BACKUPS).splitlines()]
    roles = dict(line.split(":") for line in users_roles(WITH_BACKUPS).splitlines())
    assert sorted(roles.values()) == sorted(named) == ["app", "cos-admin", "cos-backup", "cos-probe"]
    assert set(roles) == {"superuser", *yaml.safe_load(ROLES)}
    assert "backup" not in users(CREDENTIALS) + users_roles(CREDENTIALS)


def test_the_backup_user_reads_no_document() -> None:
    role = yaml.safe_load(ROLES)["cos_backup"]
    (indices,) = role["indices"]
    assert (indices["privileges"], indices["allow_restricted_indices"]) == (["indices:monitor/stats*"], True)
    assert not {"all", "manage", "monitor"} & set(role["cluster"])


def test_the_application_has_indices_and_no_administration() -> None:
    role = yaml.safe_load(ROLES)["cos_app"]
    assert role == {"cluster": ["monitor"], "indices": [{"names": ["/[^.].*/"], "privileges": ["all"]}]}
    assert yaml.safe_load(ROLES)["cos_probe"] == {"cluster": ["cluster:monitor/state"]}


def test_no_password_is_in_the_pod_or_the_config_map() -> None:
    blueprint = rendered()
    text = json.dumps([manifest(item) for item in blueprint.containers]) + json.dumps(dict(blueprint.config))
    for login in (CREDENTIALS.admin, CREDENTIALS.app, CREDENTIALS.probe):
        assert login.password not in text
    assert CREDENTIALS.app.password not in json.dumps(dict(blueprint.files))
    assert CREDENTIALS.admin.password not in json.dumps(dict(blueprint.files))


def test_a_rotated_password_changes_only_what_is_reloaded() -> None:
    blueprint = rendered()
    assert blueprint.reloaded == {"roles.yml"}
    assert set(blueprint.files) == {"users", "users_roles", "probe.curl"}
    assert not any("PBKDF2" in text for text in blueprint.config.values())


def test_binding() -> None:
    engine = Elasticsearch()
    assert engine.uri("cos-elasticsearch.team.svc", CREDENTIALS.app) == (
        "http://app:quo%22te%5Cd%24%28id%29@cos-elasticsearch.team.svc:9200"
    )
    assert engine.tag("8.19.5") == "8.19.5"
    assert engine.instances(CosStackSpec(elasticsearch=spec())) == {"elasticsearch": spec()}
    assert engine.instances(CosStackSpec.model_validate({"redis": {}})) == {}


# -- the pod's scripts ------------------------------------------------------------------------------------------------


def test_every_start_begins_with_a_fresh_directory(tmp_path: Path) -> None:
    """A keystore that a killed process left half-written is gone; users are links that a refresh shows through."""
    paths = {"/etc/cos/": tmp_path / "cos", "/usr/share/elasticsearch/": tmp_path / "home"}
    script = START_SCRIPT
    for path, stand_in in paths.items():
        script = script.replace(path, f"{stand_in}/")
    for name in ("cos/config", "cos/files", "cos/conf/jvm.options.d", "home/config", "home/bin", "bin"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("elasticsearch.yml", "log4j2.properties", "roles.yml", "container.options"):
        (tmp_path / "cos/config" / name).write_text(name)
    for name in ("users", "users_roles"):
        (tmp_path / "cos/files" / name).write_text(name)
    (tmp_path / "home/config/jvm.options").write_text("-XX:+UseG1GC\n9-:-Xlog:gc*:file=gc.log\n")
    (tmp_path / "cos/conf/elasticsearch.keystore.tmp").write_text("half")
    (tmp_path / "bin/tini").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "bin/tini").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "ES_PATH_CONF": str(tmp_path / "cos/conf"),
    }
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"-- {tmp_path}/home/bin/elasticsearch\n"
    conf = tmp_path / "cos/conf"
    assert {path.name for path in conf.iterdir()} == {
        "elasticsearch.yml", "jvm.options", "jvm.options.d", "log4j2.properties", "roles.yml", "users", "users_roles",
    }  # fmt: skip
    assert (conf / "jvm.options").read_text() == "-XX:+UseG1GC\n"
    assert (conf / "jvm.options.d/container.options").read_text() == "container.options"
    assert (conf / "users").readlink() == tmp_path / "cos/files/users"


@contextmanager
def http_server(status: int, body: str) -> Iterator[tuple[int, list[str]]]:
    """A server with one answer: its port, and the requests' authorizations."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.path} {self.headers.get('Authorization', '')}")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1], seen
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent_server() -> Iterator[int]:
    """What a stopped process looks like: the kernel accepts, nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def probe(tmp_path: Path, port: int, mode: str, limit: str = "1.5") -> subprocess.CompletedProcess[str]:
    config = tmp_path / "probe.curl"
    config.write_text(probe_curl(Login("cos-probe", 'x"y\\z')).replace(":9200", f":{port}"))
    script = PROBE_SCRIPT.replace("/etc/cos/files/probe.curl", str(config)).replace(":9200", f":{port}")
    assert shutil.which("curl"), "the probe needs curl: install it"
    return subprocess.run(
        ["bash", "-c", script, "probe.sh", mode, limit],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (200, "{}", 0, ""),
        (200, '{"blocks":{"global":{"6":{}}}}', 1, '{"blocks":{"global":{"6":{}}}}'),
        (401, '{"error":"unauthorized"}', 1, '{"error":"unauthorized"}'),
        (429, '{"error":"circuit_breaking_exception"}', 1, '{"error":"circuit_breaking_exception"}'),
    ],
)
def test_any_answer_is_alive_and_no_block_is_ready(
    tmp_path: Path, status: int, body: str, code: int, said: str
) -> None:
    with http_server(status, body) as (port, seen):
        assert probe(tmp_path, port, "alive").returncode == 0
        asked = probe(tmp_path, port, "ready")
    assert (asked.returncode, asked.stdout.strip()) == (code, said)
    token = base64.b64encode(b'cos-probe:x"y\\z').decode()
    assert seen == ["/ ", f"/_cluster/state/blocks?local=true&filter_path=blocks.global Basic {token}"]


@pytest.mark.parametrize("mode", ["alive", "ready"])
def test_a_hung_server_is_neither_and_the_probe_ends(tmp_path: Path, mode: str) -> None:
    with silent_server() as port:
        begun = time.monotonic()
        assert probe(tmp_path, port, mode, "0.3").returncode != 0
        assert time.monotonic() - begun < 2


def test_probes_end_before_kubelets_limit() -> None:
    container = rendered().containers[0]
    for field in ("startup_probe", "readiness_probe", "liveness_probe"):
        found = getattr(container, field)
        assert found.timeout_seconds > float(found.var_exec.command[-1])


# -- the check --------------------------------------------------------------------------------------------------------


def block(*levels: str) -> dict[str, Any]:
    return {"description": "said", "levels": list(levels)}


@pytest.mark.parametrize(
    ("status", "blocks", "outcome"),
    [
        ("green", {}, Outcome.SERVING),
        ("yellow", {}, Outcome.SERVING),
        ("red", {}, Outcome.NOT_ANSWERING),
        ("green", {"global": {"6": block("write", "metadata_write")}}, Outcome.READ_ONLY),
        ("green", {"global": {"1": block("read", "write", "metadata_write")}}, Outcome.NOT_ANSWERING),
        ("green", {"indices": {"logs.2026": {"12": block("write")}}}, Outcome.READ_ONLY),
        ("green", {"indices": {"archive": {"8": block("write")}}}, Outcome.SERVING),
    ],
    ids=[
        "green",
        "yellow",
        "red",
        "cluster-read-only",
        "not-recovered",
        "flood-stage",
        "one-index-locked-by-its-owner",
    ],
)
def test_verdicts(status: str, blocks: dict[str, Any], outcome: Outcome) -> None:
    result = client.judge({"status": status, "unassigned_primary_shards": 2}, blocks)
    assert result.outcome is outcome
    assert bool(result.message) is (outcome is not Outcome.SERVING)


def target(port: int) -> CheckTarget:
    return CheckTarget("elasticsearch", "elasticsearch", "127.0.0.1", port, CREDENTIALS)


async def test_a_refused_user_is_told_from_a_server_that_fails() -> None:
    body = json.dumps({"error": {"reason": "unable to authenticate user [app]"}})
    with http_server(401, body) as (port, _):
        result = await client.ElasticsearchClient().check(target(port))
    assert result.outcome is Outcome.CREDENTIALS_REFUSED
    assert result.message == "HTTP 401: unable to authenticate user [app]"
    with http_server(503, "{}") as (port, _):
        assert (await client.ElasticsearchClient().check(target(port))).outcome is Outcome.NOT_ANSWERING


async def test_no_answer_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CHECK_SECONDS", 0.2)
    with silent_server() as port:
        result = await asyncio.wait_for(client.ElasticsearchClient().check(target(port)), 2)
    assert (result.outcome, result.message) == (Outcome.NOT_ANSWERING, "no answer within 0.2 s")
    result = await client.ElasticsearchClient().check(target(port))
    assert result.outcome is Outcome.NOT_ANSWERING
    assert CREDENTIALS.app.password not in result.message


async def test_provision_waits_until_the_user_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(client, "POLL_SECONDS", 0.05)
    with http_server(401, '{"error": {"reason": "no such user"}}') as (port, seen):
        with pytest.raises(client.EngineError, match="user app is not accepted yet: HTTP 401: no such user"):
            await client.ElasticsearchClient().provision(target(port))
        assert len(seen) > 1
    with http_server(200, '{"status": "green"}') as (port, seen):
        await client.ElasticsearchClient().provision(target(port))
        assert len(seen) == 1


async def test_a_backup_waits_until_its_user_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(client, "POLL_SECONDS", 0.05)
    with http_server(403, '{"error": {"reason": "unauthorized"}}') as (port, seen):
        with pytest.raises(client.EngineError, match="there is no backup user"):
            await client.ElasticsearchClient().admit_backup(target(port))
        assert not seen
        with_backups = replace(target(port), credentials=WITH_BACKUPS)
        with pytest.raises(client.EngineError, match="user cos-backup is not accepted yet: HTTP 403"):
            await client.ElasticsearchClient().admit_backup(with_backups)
        assert len(seen) > 1, "the role may come a moment after the user"
    with http_server(200, "{}") as (port, seen):
        await client.ElasticsearchClient().admit_backup(replace(target(port), credentials=WITH_BACKUPS))
        token = base64.b64encode(b"cos-backup:" + b"b" * 40).decode()
        assert seen == [f"/_snapshot Basic {token}"]
