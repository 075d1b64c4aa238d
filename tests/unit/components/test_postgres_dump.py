"""What Postgres does with each part of its log: the script runs, beside a pgBackRest that says what it is told."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from cos_controllers.api.backup import Archive as ArchiveSpec
from cos_controllers.api.backup import Repository
from cos_controllers.api.stack import PostgresSpec
from cos_controllers.components.base import Archive, Copied
from cos_controllers.components.postgres import Postgres
from cos_controllers.components.postgres.accounts import accounts_sql
from cos_controllers.components.postgres.config import postgresql_conf
from cos_controllers.components.postgres.dump import LOAD_SCRIPT, PUSH_FILE, push_script
from cos_controllers.credentials import Credentials, Login

CLAIM = "cos-postgres-prod-data-0"
MISSING = """P00  ERROR: [103]: unable to find a valid repository:
         repo1: [FileMissingError] unable to load info file '/archive/x/archive.info' or '/archive/x/archive.info.copy'
"""
LOGINS = Credentials(
    admin=Login("cos_admin", "admin-secret"),
    app=Login("app", "app-secret"),
    probe=Login("cos_probe", "probe-secret"),
    backup=Login("cos_backup", "backup-secret"),
)


def archive(lineage: str = "uid-1", repository: str = "s3:https://s3/b/cos/cos/postgres-prod") -> Archive:
    return Archive(repository, "eu-1", "https://s3/b", lineage, (), (), "what")


class Pod:
    """The files of a pod below a folder, and what pgBackRest says in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("key/key", "credentials/AWS_ACCESS_KEY_ID", "credentials/AWS_SECRET_ACCESS_KEY"):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"\t{path.name}-value\r\n")
        (root / "pgdata/17/data").mkdir(parents=True)
        (root / "pgdata/17/data/postmaster.pid").write_text("1\n/pgdata/17/data\nready   \n")
        self.mark = root / "pgdata/17/archived"

    def push(
        self,
        said: str = "",
        code: int = 0,
        *,
        of: Archive | None = None,
        claim: str = CLAIM,
        meanwhile: str = "true",
        mounted: str = "what",
        installed: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        script = push_script(of or archive(), CLAIM, "17")
        for folder in ("/key", "/credentials", "/pgdata"):
            script = re.sub(rf"(?<=[ =<]){folder}(?=[/ ])", f"{self.root}{folder}", script)
        program = self.root / "pgbackrest"
        program.write_text(
            f'#!/bin/bash\nenv >{self.root}/environment\necho "$*" >{self.root}/call\n'
            f"{meanwhile}\ncat <<'SAYS'\n{said}\nSAYS\nexit {code}\n"
        )
        program.chmod(0o755)
        if not installed:
            program.unlink()
        (self.root / "timeout").write_text(f'#!/bin/bash\necho "$3" >{self.root}/limit\nshift 3\nexec "$@"\n')
        (self.root / "timeout").chmod(0o755)
        known = {"PATH": f"{self.root}:{os.environ['PATH']}", "CLAIM": claim, "MOUNTED": mounted}
        return subprocess.run(
            ["/bin/bash", "-c", script, PUSH_FILE, "pg_wal/000000010000000000000001"],
            env=known,
            capture_output=True,
            text=True,
            check=False,
        )

    def told(self) -> dict[str, str]:
        lines = (self.root / "environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def test_a_part_of_the_log_is_pushed_into_the_stanza_of_the_volume(pod: Pod) -> None:
    assert pod.push().returncode == 0
    assert (pod.root / "call").read_text() == "archive-push pg_wal/000000010000000000000001\n"
    told = pod.told()
    assert (told["PGBACKREST_STANZA"], told["PGBACKREST_REPO1_S3_BUCKET"]) == ("uid-1", "b")
    assert told["PGBACKREST_REPO1_CIPHER_PASS"] == "key-value", "as in Jobs, without blanks at its ends"
    assert told["PGBACKREST_REPO1_S3_KEY"] == "AWS_ACCESS_KEY_ID-value"
    assert "PGBACKREST_REPO1_STORAGE_CA_FILE" not in told
    (pod.root / "credentials/ca.crt").write_text("PEM")
    pod.push()
    assert pod.told()["PGBACKREST_REPO1_STORAGE_CA_FILE"] == f"{pod.root}/credentials/ca.crt"


def test_before_the_first_copy_nothing_of_the_log_is_kept(pod: Pod) -> None:
    assert pod.push(MISSING, 103).returncode == 0
    assert not pod.mark.exists()


def test_a_backup_that_is_not_set_up_does_not_fill_the_volume(pod: Pod) -> None:
    (pod.root / "credentials/AWS_SECRET_ACCESS_KEY").unlink()
    found = pod.push()
    assert (found.returncode, found.stderr) == (0, "the Secrets of the repository are not there\n")
    pod.root.joinpath("credentials/AWS_SECRET_ACCESS_KEY").write_text("x")
    found = pod.push(installed=False)
    assert found.returncode == 0
    assert "the image has no pgBackRest" in found.stderr


def test_a_key_of_several_lines_is_the_one_of_the_jobs(pod: Pod) -> None:
    (pod.root / "key/key").write_text(" one\ntwo \n")
    pod.push()
    assert "PGBACKREST_REPO1_CIPHER_PASS=one\ntwo\n" in (pod.root / "environment").read_text()


def test_once_a_part_was_kept_a_stanza_that_is_gone_is_a_failure(pod: Pod) -> None:
    assert pod.push().returncode == 0
    found = pod.push(MISSING, 103)
    assert found.returncode == 103
    assert "FileMissingError" in found.stderr


@pytest.mark.parametrize(
    "other", [archive("uid-2"), archive(repository="s3:https://s3/b/else/cos/postgres-prod")]
)
def test_another_volume_or_place_begins_anew(pod: Pod, other: Archive) -> None:
    assert pod.push().returncode == 0
    assert pod.push(MISSING, 103, of=other).returncode == 0


@pytest.mark.parametrize(
    "said",
    [
        "P00  ERROR: [103]: unable to find a valid repository: [FormatError] archive.info",
        "ERROR: [049]: no route",
    ],
)
def test_any_other_failure_is_one_from_the_beginning(pod: Pod, said: str) -> None:
    found = pod.push(said, 49)
    assert found.returncode == 49
    assert said in found.stderr


def test_no_failure_ends_the_archiver(pod: Pod) -> None:
    assert pod.push("killed", 137).returncode == 125
    assert "had not ended within 60 s" in pod.push("", 124).stderr


def test_a_pod_on_another_volume_than_this_speaks_of_pushes_nothing(pod: Pod) -> None:
    found = pod.push(claim="cos-postgres-prod-data-1")
    assert found.returncode == 1
    assert "nobody has said yet where the log of cos-postgres-prod-data-1 goes" in found.stderr
    assert pod.push(of=archive("")).returncode == 1, "nor one whose volume nobody has seen yet"
    assert pod.push(mounted="other").returncode == 1, "nor one that has another repository mounted"
    assert not (pod.root / "call").exists()


def test_without_the_secrets_of_the_repository_it_waits_once_there_is_a_copy(pod: Pod) -> None:
    pod.push()
    (pod.root / "credentials/AWS_SECRET_ACCESS_KEY").unlink()
    found = pod.push()
    assert found.returncode == 1
    assert "the Secrets of the repository are not there" in found.stderr


def test_a_server_that_stops_does_not_wait_for_long(pod: Pod) -> None:
    pod.push()
    assert (pod.root / "limit").read_text() == "60\n"
    (pod.root / "pgdata/17/data/postmaster.pid").write_text("1\n/pgdata/17/data\nstopping\n")
    pod.push()
    assert (pod.root / "limit").read_text() == "3\n"


def test_a_push_that_is_under_way_ends_soon_after_the_server_is_told_to(pod: Pod) -> None:
    stops = f"printf 'stopping' >{pod.root}/pgdata/17/data/postmaster.pid; exec sleep 60"
    began = time.monotonic()
    assert pod.push(meanwhile=stops).returncode == 125
    assert time.monotonic() - began < 20


def test_the_scripts_are_scripts() -> None:
    for script in (LOAD_SCRIPT, push_script(archive(), CLAIM, "17")):
        subprocess.run(["/bin/bash", "-n", "-c", script], check=True)


def test_a_server_keeps_its_log_only_where_there_is_a_place_for_it() -> None:
    spec = PostgresSpec(name="prod", archive=ArchiveSpec(timeout_seconds=30))
    kept = postgresql_conf(spec, name="cos-postgres-prod", major="17", archived=True)
    assert "archive_mode = 'on'" in kept
    assert "archive_timeout = '30'" in kept
    assert f'&& bash /etc/cos/config/{PUSH_FILE} "%p"' in kept
    assert "archive" not in postgresql_conf(spec, name="cos-postgres-prod", major="17")


def test_the_role_that_makes_copies_reads_no_data() -> None:
    assert "cos_backup" not in accounts_sql(LOGINS)
    told = accounts_sql(LOGINS, archived=True)
    assert "ALTER ROLE cos_backup LOGIN NOCREATEDB NOCREATEROLE NOSUPERUSER NOREPLICATION" in told
    assert "GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_start(text, boolean) TO cos_backup" in told
    assert "pg_read_all_data" not in told
    assert "backup-secret" not in told


AWAY = {"endpoint": "https://s3", "bucket": "bbb", "credentialsSecretRef": {"name": "s3"}}
REPOSITORIES = [
    Repository.model_validate({"name": "main", "volume": {"size": "1Gi"}}),
    Repository.model_validate({"name": "away", "s3": AWAY}),
]


@pytest.mark.parametrize(
    ("archived", "kept"),
    [(None, []), ({}, ["main"]), ({"repository": "away"}, ["away"]), ({"repository": "x"}, [])],
)
def test_copies_are_where_the_log_goes(archived: dict[str, str] | None, kept: list[str]) -> None:
    spec = PostgresSpec.model_validate({"name": "prod", "archive": archived})
    assert [item.name for item in Postgres().kept_in(spec, REPOSITORIES)] == kept
    assert bool(Postgres().why_not(spec)) is (archived is None)


@pytest.mark.parametrize(
    ("until", "target"),
    [
        ("", ""),
        ("Latest", "Latest"),
        ("2026-11-27T14:00:00Z", "2026-11-27 14:00:00.000000+00"),
        ("2026-11-27T15:00:00.25+01:00", "2026-11-27 14:00:00.250000+00"),
    ],
)
def test_a_moment_is_told_without_the_name_of_a_time_zone(until: str, target: str) -> None:
    copy = Copied(7, "", "uid-1", "/repository/p", "", until)
    load = Postgres().load("cos-postgres-prod", PostgresSpec(name="prod"), copy, 600)
    told = {item.name: item.value for item in load.env or ()}
    assert told["UNTIL"] == target
    assert told["PGBACKREST_PG1_PATH"] == "/target/17/data"
    assert told["PGBACKREST_STANZA"] == "uid-1"
    assert not [name for name in told if name.endswith(("PASS", "SECRET"))]
