"""Elasticsearch's scripts of backup and restore: what they ask of a server, in which order, and what they refuse."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cos_controllers.api.stack import CosStackSpec
from cos_controllers.backups.report import Facts
from cos_controllers.components.base import Copied
from cos_controllers.components.elasticsearch import Elasticsearch
from cos_controllers.components.elasticsearch.dump import DUMP_SCRIPT, LOAD_SCRIPT, REPOSITORY, SNAPSHOT

FILES = {"index-1": b"all", "index.latest": b"1", "indices/B/0/__x": b"x" * 5000, "indices/a/0/__y": b"y"}
STATS = {
    "/_stats/docs": {
        "indices": {
            "a": {"shards": {"0": [{"commit": {"num_docs": 40}}], "1": [{"commit": {"num_docs": 2}}]}}
        }
    },
    "/_stats/store": {"_all": {"primaries": {"store": {"size_in_bytes": 5 << 20}}}},
    "/_nodes/_local": {"nodes": {"x": {"version": "8.19.5"}}},
}


def checksum(folder: Path) -> str:
    """As it is documented: of the lines of sha256sum for all files, in the order of their paths' bytes."""
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    lines = (f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in found)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass
class Server:
    """What the script sees of Elasticsearch: a registration, and snapshots in a folder."""

    folder: Path
    registered: bool = False
    snapshots: list[str] = field(default_factory=list)
    state: str = "SUCCESS"
    polls: int = 2
    undeletable: bool = False
    asked: list[str] = field(default_factory=list)
    logins: set[str] = field(default_factory=set)

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        where = path.partition("?")[0]
        self.asked.append(f"{method} {where}")
        if where in STATS:
            return 200, STATS[where]
        asked = (method, where.removeprefix(f"/_snapshot/{REPOSITORY}"))
        if not self.registered and asked != ("PUT", ""):
            return 404, {"error": {"reason": f"[{REPOSITORY}] missing"}}
        if asked == ("DELETE", "/*") and self.undeletable and self.snapshots:
            return 500, {"error": {"reason": "disk failure"}}
        if asked == ("GET", f"/{SNAPSHOT}"):
            self.polls -= 1
            state = "IN_PROGRESS" if self.polls > 0 else self.state
            failed = {"failures": [{"reason": "a shard is missing"}]} if state == "PARTIAL" else {}
            return 200, {"snapshots": [{"state": state, "start_time_in_millis": 1767225600999, **failed}]}
        self.obey(*asked)
        return 200, {"acknowledged": True}

    def obey(self, method: str, where: str) -> None:
        if where == "":
            self.registered = method == "PUT"
            self.folder.mkdir(exist_ok=True)
        elif method == "DELETE":
            self.snapshots = []
        else:
            self.snapshots.append(SNAPSHOT)
            for name, content in FILES.items():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(content)


@dataclass
class Scene:
    """A server, and the folders of the Job's container."""

    server: Server
    url: str
    root: Path

    def environment(self, **variables: str) -> dict[str, str]:
        return {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "URL": self.url,
            "SOURCE": str(self.root / "snapshots"),
            "DATA": str(self.root / "work/data"),
            "FACTS": str(self.root / "work/facts.json"),
            "LOGIN": str(self.root / "login"),
            "TARGET": str(self.root / "target"),
            "REPOSITORY": REPOSITORY,
            "SNAPSHOT": SNAPSHOT,
            "LIMIT": "20",
            **variables,
        }

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", script],
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def room(self, total: int, free: int, scratch: int = 1 << 30) -> None:
        """What df says of the data volume and of the scratch volume."""
        said = f'case "$*" in *size*) echo "{total} {free}" ;; *) echo {scratch} ;; esac'
        self.stand_in("df", f"echo header\n{said}")

    def stand_in(self, name: str, text: str) -> None:
        program = self.root / "bin" / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    for name in ("bin", "snapshots", "work", "login", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "login/username").write_text("cos-backup")
    (tmp_path / "login/password").write_text("b" * 40)
    server = Server(tmp_path / "snapshots" / REPOSITORY)

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.logins.add(str(self.headers.get("Authorization")))
            status, body = server.answer(self.command, self.path)
            text = json.dumps(body, separators=(",", ":")).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_DELETE = do  # noqa: N815 - as the library looks for them

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            scene = Scene(server, f"http://127.0.0.1:{listener.server_address[1]}", tmp_path)
            scene.stand_in("sleep", "exit 0")
            scene.room(total=100 << 20, free=50 << 20)
            yield scene
        finally:
            listener.shutdown()
            thread.join()


def test_a_snapshot_is_copied_while_nobody_writes_and_nothing_of_it_stays(scene: Scene) -> None:
    scene.stand_in("cp", f'curl -s {scene.url}/copied -o /dev/null\nexec /bin/cp "$@"')
    done = scene.run(DUMP_SCRIPT)
    assert (done.returncode, done.stderr) == (0, "")
    facts = Facts.model_validate_json((scene.root / "work/facts.json").read_text())
    copied = scene.root / "work/data" / REPOSITORY
    assert {
        str(path.relative_to(copied)): path.read_bytes() for path in copied.rglob("*") if path.is_file()
    } == FILES
    assert facts.sha256 == checksum(copied)
    assert (facts.entries, facts.moment, facts.version) == (42, 1767225600, "8.19.5")
    assert facts.bytes == 4096 * (2 + 2 + 3 + 2), (
        "in blocks, and one for a folder: what they take of a volume"
    )
    assert (scene.server.registered, scene.server.snapshots) == (False, [])
    before = scene.server.asked[: scene.server.asked.index("GET /copied")]
    assert before[-1] == f"DELETE /_snapshot/{REPOSITORY}"
    token = base64.b64encode(b"cos-backup:" + b"b" * 40).decode()
    assert scene.server.logins - {"None"} == {f"Basic {token}"}


@pytest.mark.parametrize("registered", [True, False])
def test_what_a_killed_attempt_left_is_removed_first(scene: Scene, *, registered: bool) -> None:
    scene.server.registered, scene.server.snapshots = registered, ["old"]
    scene.server.folder.mkdir()
    assert scene.run(DUMP_SCRIPT).returncode == 0
    asked = scene.server.asked
    assert asked.index(f"DELETE /_snapshot/{REPOSITORY}/*") < asked.index(
        f"PUT /_snapshot/{REPOSITORY}/{SNAPSHOT}"
    )
    assert scene.server.snapshots == []


def test_a_snapshot_without_a_shard_is_none(scene: Scene) -> None:
    scene.server.state = "PARTIAL"
    done = scene.run(DUMP_SCRIPT)
    assert (done.returncode, done.stderr) == (1, "the snapshot ended with PARTIAL: a shard is missing\n")
    assert (scene.server.registered, scene.server.snapshots) == (False, []), "it is removed"
    assert not (scene.root / "work/facts.json").exists()


def test_a_snapshot_that_cannot_be_removed_is_told_of(scene: Scene) -> None:
    scene.server.undeletable = True
    done = scene.run(DUMP_SCRIPT)
    assert (done.returncode, done.stderr) == (1, "no snapshot can be removed: 500: disk failure\n")


def test_what_is_told_to_end_leaves_nothing_either(scene: Scene) -> None:
    """As by the limit of time: the shell and what it runs get the signal, and then both again."""
    scene.server.polls = 1_000_000
    command = ["timeout", "-k", "20", "60", "bash", "-c", DUMP_SCRIPT]
    with subprocess.Popen(command, env=scene.environment(), stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 20
        while f"GET /_snapshot/{REPOSITORY}/{SNAPSHOT}" not in scene.server.asked:
            assert time.monotonic() < end, scene.server.asked
            time.sleep(0.02)
        process.terminate()
        assert process.wait(25) != 0
    assert (scene.server.registered, scene.server.snapshots) == (False, [])


@pytest.mark.parametrize(
    ("free", "says"),
    [
        (
            14,
            "no room for a snapshot on the data volume: it may take 5 MiB of 14 that are free, and 10 must stay so",
        ),
        (0, "no room for the copy on the node: it takes 0 MiB of 0 that are free"),
    ],
)
def test_without_room_nothing_is_begun(scene: Scene, free: int, says: str) -> None:
    if free:
        scene.room(total=100 << 20, free=free << 20)
    else:
        scene.room(total=100 << 20, free=50 << 20, scratch=9)
    done = scene.run(DUMP_SCRIPT)
    assert (done.returncode, done.stderr) == (1, f"{says}\n")
    assert (scene.server.registered, scene.server.snapshots) == (False, [])


def test_a_snapshot_that_changes_meanwhile_is_no_copy(scene: Scene) -> None:
    scene.stand_in("cp", f'/bin/cp "$@"\necho more >>{scene.server.folder}/index-1')
    done = scene.run(DUMP_SCRIPT)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the snapshot changes while it is copied" in done.stderr


def test_nobody_answers(scene: Scene) -> None:
    done = scene.run(DUMP_SCRIPT, URL="http://127.0.0.1:1")
    assert done.returncode == 1
    assert "no snapshot can be removed" in done.stderr
    assert "onnect" in done.stderr


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("node", "the volume is not empty: node"),
        (".hidden", "the volume is not empty: .hidden"),
        ("lost+found", "the copy has another checksum than was recorded"),
    ],
)
def test_only_an_empty_volume_is_filled_and_only_with_what_was_recorded(
    scene: Scene, found: str, says: str
) -> None:
    (scene.root / "target" / found).mkdir()
    copy = scene.root / "work/data" / REPOSITORY
    copy.mkdir(parents=True)
    (copy / "index-1").write_text("truncate")
    done = scene.run(LOAD_SCRIPT, SHA256=hashlib.sha256(b"other").hexdigest())
    assert (done.returncode, done.stderr) == (1, f"{says}\n")
    assert [path.name for path in (scene.root / "target").iterdir()] == [found]


def test_the_server_of_a_restore_is_the_stacks_own_apart_from_who_reaches_it() -> None:
    spec = CosStackSpec.model_validate(
        {"elasticsearch": {"settings": {"node.attr.box": "$(HOT)"}}}
    ).elasticsearch
    assert spec
    container = Elasticsearch().load("cos-elasticsearch", spec, Copied(42, "a" * 64, "", "", ""), 600)
    variables = {item.name: str(item.value) for item in container.env or ()}
    assert "$$(HOT)" in variables["SETTINGS"], "or Kubernetes would put a variable in its place"
    settings = yaml.safe_load(variables["SETTINGS"].replace("$$", "$"))
    assert settings["node.attr.box"] == "$(HOT)"
    assert settings["path.data"] == "${TARGET}/node"
    assert (settings["cluster.name"], settings["node.name"]) == ("cos-elasticsearch",) * 2
    assert (settings["network.host"], settings["transport.host"]) == ("127.0.0.1",) * 2
    assert settings["xpack.security.enabled"] == "false"
    assert container.command
    assert container.command[:4] == ["timeout", "-k", "5", "600"]
    assert json.loads(variables["OVERRIDES"])["transient"]["cluster.routing.allocation.enable"] == "all"


def test_a_dump_reads_the_volume_and_is_small() -> None:
    spec = CosStackSpec.model_validate({"elasticsearch": {"storage": {"size": "7Gi"}}}).elasticsearch
    assert spec
    dump = Elasticsearch().dump("cos-elasticsearch.team.svc", spec, 600)
    assert (dump.size, dump.source) == ("7Gi", "/data")
    assert dump.container.resources
    assert dump.container.resources.limits == {"memory": "256Mi"}
