"""Postgres: its files, the roles' statements, the pod's scripts, the rendered pod."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cos_controllers.api import reserved
from cos_controllers.api.common import ResourceList, Resources, Storage
from cos_controllers.api.stack import CosStackSpec, PostgresSpec
from cos_controllers.components.base import Blueprint, Context
from cos_controllers.components.postgres import Postgres
from cos_controllers.components.postgres.accounts import accounts_sql, scram_keys, scram_verifier
from cos_controllers.components.postgres.config import _owned, hba_conf, postgresql_conf, quoted
from cos_controllers.components.postgres.scripts import INIT_SCRIPT, PROBE_SCRIPT, RUN_SCRIPT
from cos_controllers.credentials import Credentials, Login

CREDENTIALS = Credentials(
    admin=Login("cos_admin", "admin-secret"),
    app=Login("app", "app-secret"),
    probe=Login("cos_probe", "probe-secret"),
)


def instance(**fields: object) -> PostgresSpec:
    return PostgresSpec.model_validate({"name": "prod", **fields})


def with_memory(limit: str) -> Resources:
    return Resources(limits=ResourceList(memory=limit))


def settings(text: str) -> dict[str, str]:
    """postgresql.conf as the server's lexer reads it (guc-file.l): the last line of a name wins."""
    escapes = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
    found = {}
    for line in text.split("\n")[:-1]:
        match = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_.]*) = '((?:[^'\\\n]|\\.|'')*)'", line)
        assert match, line
        found[match[1]] = re.sub(
            r"\\(.)|''", lambda m: "'" if m[0] == "''" else escapes.get(m[1], m[1]), match[2]
        )
    return found


def conf(spec: PostgresSpec) -> dict[str, str]:
    return settings(postgresql_conf(spec, name="cos-postgres-prod", major="17"))


@pytest.mark.parametrize(
    ("limit", "shared_buffers", "cache", "maintenance"),
    [
        ("128Mi", "32MB", "96MB", "7MB"),
        ("512Mi", "128MB", "384MB", "30MB"),
        ("1Gi", "256MB", "768MB", "61MB"),
        ("1G", "238MB", "714MB", "57MB"),
        ("64Gi", "16384MB", "49152MB", "1024MB"),
    ],
)
def test_memory_settings_derive_from_the_limit(
    limit: str, shared_buffers: str, cache: str, maintenance: str
) -> None:
    found = conf(instance(resources=with_memory(limit)))
    assert found["shared_buffers"] == shared_buffers
    assert found["effective_cache_size"] == cache
    assert found["maintenance_work_mem"] == maintenance


@pytest.mark.parametrize(
    ("size", "max_wal"), [("1Gi", "256MB"), ("8191Mi", "256MB"), ("8Gi", None), ("1Ti", None)]
)
def test_the_log_of_a_small_volume_is_kept_small(size: str, max_wal: str | None) -> None:
    assert conf(instance(storage=Storage(size=size))).get("max_wal_size") == max_wal


def test_parameters_override_what_is_derived() -> None:
    found = conf(instance(parameters={"shared_buffers": "64MB", "work_mem": "8MB"}))
    assert (found["shared_buffers"], found["work_mem"]) == ("64MB", "8MB")


def test_every_setting_of_the_operator_comes_last_and_is_refused_in_parameters() -> None:
    owned = _owned("17", "cos-postgres-prod")
    found = conf(instance().model_copy(update={"parameters": dict.fromkeys(owned, "else")}))
    assert {name: found[name] for name in owned} == owned
    open_to_users = {
        n for n in owned if n not in reserved.POSTGRES and not n.startswith(reserved.POSTGRES_PREFIXES)
    }
    assert not open_to_users


@given(
    st.dictionaries(
        st.from_regex(r"\A[a-z][a-z0-9_]{0,8}\Z"), st.text(st.characters(exclude_characters="\0"))
    )
)
def test_no_value_leaves_its_line(values: dict[str, str]) -> None:
    text = "".join(f"{name} = {quoted(value)}\n" for name, value in values.items())
    assert settings(text) == values


def test_the_superuser_and_the_probes_enter_by_the_socket_only() -> None:
    lines = [line.split() for line in hba_conf().splitlines()]

    def method(kind: str, user: str) -> str:
        """The first line that matches decides. A host line has an address before its method."""
        return next(
            line[4 if kind == "host" else 3]
            for line in lines
            if line[0] == kind and line[1] == "all" and (line[2] == "all" or user in line[2].split(","))
        )

    assert {user: method("host", user) for user in ("postgres", "cos_probe", "app", "cos_admin")} == {
        "postgres": "reject",
        "cos_probe": "reject",
        "app": "scram-sha-256",
        "cos_admin": "scram-sha-256",
    }
    assert {user: method("local", user) for user in ("postgres", "cos_probe", "app")} == {
        "postgres": "peer",
        "cos_probe": "peer",
        "app": "scram-sha-256",
    }


def test_scram_keys_are_those_of_rfc_7677() -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    stored_key, server_key = scram_keys(b"pencil", salt)
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = (
        f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}"
    ).encode()
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(stored_key, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored_key
    verifier = base64.b64encode(hmac.digest(server_key, message, "sha256"))
    assert verifier == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_verifier_is_stable_and_particular_to_user_and_password() -> None:
    verifier = scram_verifier(Login("cos_admin", "x" * 12))
    assert re.fullmatch(
        r"SCRAM-SHA-256\$4096:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=", verifier
    )
    assert verifier == scram_verifier(Login("cos_admin", "x" * 12))
    others = {scram_verifier(Login("cos_admin", "y" * 12)), scram_verifier(Login("app", "x" * 12)), verifier}
    assert len({other.split("$")[1] for other in others}) == 3


def test_the_statements_hold_no_password_and_end_as_single_user_mode_needs() -> None:
    text = accounts_sql(CREDENTIALS)
    assert "secret" not in text
    assert scram_verifier(CREDENTIALS.admin) in text
    statements = text.removesuffix(";\n\n").split(";\n\n")
    assert all("\n\n" not in statement for statement in statements)
    assert all(re.match(r"(DO|ALTER ROLE|GRANT|REVOKE)\b", statement) for statement in statements)


def rendered(**fields: object) -> Blueprint:
    spec = CosStackSpec.model_validate({"postgres": [{"name": "prod", **fields}]})
    ((component, found),) = Postgres().instances(spec).items()
    assert component == "postgres-prod"
    return Postgres().render(
        Context(
            name="cos-postgres-prod",
            component=component,
            namespace="cos",
            spec=found,
            version=found.version,
            stack=spec,
            stack_name="cos",
            credentials=CREDENTIALS,
            claim="cos-postgres-prod-data-0",
        )
    )


def test_only_the_init_container_sees_the_accounts() -> None:
    blueprint = rendered()
    (init,), (server,) = blueprint.init_containers, blueprint.containers
    assert "files" in {item.name for item in init.volume_mounts or ()}
    assert "files" not in {item.name for item in server.volume_mounts or ()}
    everything = (
        "".join(blueprint.config.values()) + str(blueprint.containers) + str(blueprint.init_containers)
    )
    assert "secret" not in everything
    assert "SCRAM-SHA-256$" not in everything


@pytest.mark.parametrize(("version", "data"), [("17", "/pgdata/17/data"), ("17.5", "/pgdata/17/data")])
def test_the_data_folder_is_named_after_the_major_version(version: str, data: str) -> None:
    blueprint = rendered(version=version)
    assert (blueprint.containers[0].command or [])[-1] == data
    assert settings(blueprint.config["postgresql.conf"])["data_directory"] == data


def test_the_uri_survives_any_password() -> None:
    login = Login("app", "p@ss/w:rd?#%")
    parts = urlsplit(Postgres().uri("cos-postgres-prod.cos.svc", login))
    assert (parts.scheme, parts.hostname, parts.port, parts.path) == (
        "postgresql", "cos-postgres-prod.cos.svc", 5432, "/app",
    )  # fmt: skip
    assert (parts.username, unquote(parts.password or "")) == ("app", login.password)


@dataclass(frozen=True)
class Box:
    """A folder that stands for the container: scripts with its paths, and programs put first in PATH."""

    root: Path

    def program(self, name: str, body: str) -> None:
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        for path in ("/pgdata", "/etc/cos", "/dev/termination-log"):
            script = script.replace(path, f"{self.root}{path}")
        file = self.root / "script.sh"
        file.write_text(script)
        return subprocess.Popen(
            ["bash", str(file), *arguments],
            env={"PATH": f"{self.root}/bin:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, *arguments: str) -> tuple[int, str]:
        process = self.start(script, *arguments)
        output, _ = process.communicate(timeout=20)
        return process.returncode, output

    @property
    def termination(self) -> str:
        return (self.root / "dev/termination-log").read_text()

    @property
    def volume(self) -> Path:
        return self.root / "pgdata"


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A volume that is empty and an image of Postgres 17, whose initdb and postgres leave their marks only."""
    box = Box(tmp_path)
    for folder in ("pgdata", "etc/cos/config", "etc/cos/files", "dev"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/cos/files/accounts.sql").write_text("ALTER ROLE a;\n\n")
    box.program("initdb", 'mkdir "$2" && echo 17 >"$2/PG_VERSION" && echo fresh >"$2/mark"')
    box.program(
        "postgres",
        f"""case $1 in
--version) echo 'postgres (PostgreSQL) 17.12 (Debian 17.12-0+deb13u1)' ;;
--single) cat >>{tmp_path}/carried-out ;;
esac""",
    )
    return box


@pytest.mark.parametrize("script", [INIT_SCRIPT, RUN_SCRIPT, PROBE_SCRIPT], ids=["init", "run", "probe"])
def test_scripts_are_valid(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_an_empty_volume_gets_a_cluster_once(box: Box) -> None:
    (box.volume / "lost+found").mkdir()
    code, output = box.run(INIT_SCRIPT, "17")
    assert code == 0, output
    data = box.volume / "17/data"
    assert (data / "PG_VERSION").read_text() == "17\n"
    assert data.stat().st_mode & 0o777 == 0o700
    assert (data / "cos_accounts.sql").stat().st_mode & 0o777 == 0o600
    (data / "mark").write_text("used")
    data.chmod(0o770)
    assert box.run(INIT_SCRIPT, "17")[0] == 0
    assert (data / "mark").read_text() == "used"
    assert data.stat().st_mode & 0o777 == 0o700
    assert (box.root / "carried-out").read_text() == "ALTER ROLE a;\n\n", "carried out once"


def test_changed_accounts_are_carried_out_at_the_next_start(box: Box) -> None:
    assert box.run(INIT_SCRIPT, "17")[0] == 0
    (box.root / "etc/cos/files/accounts.sql").write_text("ALTER ROLE b;\n\n")
    assert box.run(INIT_SCRIPT, "17")[0] == 0
    assert (box.root / "carried-out").read_text() == "ALTER ROLE a;\n\nALTER ROLE b;\n\n"


def test_an_interrupted_initdb_is_started_anew(box: Box) -> None:
    half = box.volume / "17/init"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("17\n")
    code, output = box.run(INIT_SCRIPT, "17")
    assert code == 0, output
    assert (box.volume / "17/data/mark").exists()
    assert not half.exists()


def refused(box: Box, reason: str, *words: str) -> None:
    code, output = box.run(INIT_SCRIPT, "17")
    assert code == 1, output
    match = re.fullmatch(r'\{"reason":"(\w+)","message":"([ !#-\[\]-~]*)"\}\n', box.termination)
    assert match, box.termination
    assert match[1] == reason
    assert all(word in match[2] for word in words), match[2]


@pytest.mark.parametrize(
    "entry", ["photo.jpg", ".hidden", 'a "quoted"\n\\ name', "18", "17/other", "PG_VERSION"]
)
def test_foreign_files_are_refused(box: Box, entry: str) -> None:
    path = box.volume / entry
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    refused(box, "ForeignFiles", "use an empty volume")
    assert path.read_text() == "x"
    assert not (box.volume / "17/data").exists()


@pytest.mark.parametrize(("folder", "held"), [("16", "16"), ("17", "18")])
def test_data_of_another_major_version_is_refused(box: Box, folder: str, held: str) -> None:
    data = box.volume / folder / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text(f"{held}\n")
    refused(box, "DataOfAnotherMajor", f"Postgres {held}", "asks for 17")


def test_an_image_of_another_major_version_is_refused(box: Box) -> None:
    box.program("postgres", "echo 'postgres (PostgreSQL) 18.1'")
    refused(box, "ImageOfAnotherMajor", "Postgres 18", "asks for 17")
    assert list(box.volume.iterdir()) == []


def test_an_image_without_postgres_is_refused(box: Box) -> None:
    box.program("postgres", "exit 127")
    refused(box, "ImageUnusable")


def test_a_failed_initdb_says_why_and_leaves_no_cluster(box: Box) -> None:
    box.program("initdb", 'mkdir "$2"; echo "initdb: error: No space left on device" >&2; exit 1')
    refused(box, "InitdbFailed", "No space left on device")
    assert not (box.volume / "17/data").exists()


def test_settings_that_the_server_refuses_are_named(box: Box) -> None:
    line = '2026-01-01 00:00:00.000 GMT [7] LOG:  unrecognized configuration parameter "work_memm" in file'
    box.program(
        "postgres",
        f"[ $1 = --version ] && {{ echo 'postgres (PostgreSQL) 17.5'; exit; }}; echo '{line}' >&2; exit 1",
    )
    refused(box, "ConfigurationRefused", "unrecognized configuration parameter 'work_memm'")
    assert "GMT" not in box.termination


@pytest.mark.parametrize(
    ("answer", "code"),
    [("echo off", 0), ("echo on", 1), ("echo 'psql: error' >&2; exit 2", 1), ("sleep 9", 1)],
)
def test_ready_is_who_may_write(box: Box, answer: str, code: int) -> None:
    box.program("psql", answer if "sleep" not in answer else f"exec {answer}")
    start = time.monotonic()
    assert box.run(PROBE_SCRIPT, "ready")[0] == code
    assert time.monotonic() - start < 2.5


@pytest.mark.parametrize(
    ("answer", "code"), [("exit 0", 0), ("exit 1", 0), ("exit 2", 1), ("exec sleep 9", 1)]
)
def test_alive_is_who_answers_even_if_it_rejects(box: Box, answer: str, code: int) -> None:
    box.program("pg_isready", answer)
    start = time.monotonic()
    assert (box.run(PROBE_SCRIPT, "alive")[0] != 0) == (code != 0)
    assert time.monotonic() - start < 3.5


def test_a_terminated_pod_stops_the_server_fast(box: Box) -> None:
    # Not by a shell: one that is started in the background cannot handle SIGINT, and the server can.
    server = f"""
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("fast"), sys.exit(7)))
signal.signal(signal.SIGTERM, lambda *_: print("smart"))
pathlib.Path("{box.root}/up").touch()
while True: time.sleep(0.05)
"""
    (box.root / "server.py").write_text(server)
    box.program("postgres", f"exec {sys.executable} {box.root}/server.py")
    process = box.start(RUN_SCRIPT, "/data")
    deadline = time.monotonic() + 10
    while not (box.root / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert (process.returncode, output) == (7, "fast\n")


def test_the_exit_code_is_the_servers(box: Box) -> None:
    box.program("postgres", "exit 3")
    assert box.run(RUN_SCRIPT, "/data")[0] == 3
