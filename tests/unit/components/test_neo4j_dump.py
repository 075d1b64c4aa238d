"""Neo4j's scripts of backup and restore: what they make of what its tools say, and what they refuse."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from cos_controllers.api.stack import Neo4jSpec
from cos_controllers.backups.report import Facts
from cos_controllers.components.base import Copied
from cos_controllers.components.neo4j import Neo4j
from cos_controllers.components.neo4j.dump import DUMP_SCRIPT, LOAD_SCRIPT

#: `neo4j-admin` as the scripts see it: it says what it was asked, and of a store that it was stopped in order.
ADMIN = """#!/bin/bash
echo "$1 $2 ${3:-}" >>"$ASKED"
case $2 in
  info) echo '{"databaseName":"neo4j","lastCommittedTransaction":"'"$LAST"'","recoveryRequired":"'"$RECOVERY"'"}' ;;
  dump) for argument; do [[ $argument != --to-path=* ]] || folder=${argument#*=}; done
        printf graph >"$folder/neo4j.dump"; printf users >"$folder/system.dump" ;;
  check) [ -z "${UNSOUND:-}" ] || { echo "Inconsistencies found: 3"; exit 1; } ;;
esac
"""
SUM = hashlib.sha256(b"graph").hexdigest()


@dataclass
class Place:
    """The folders that a script works in."""

    folder: Path

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A script with its fixed paths below the folder."""
        for path in ("/tmp/", "/dev/termination-log"):  # noqa: S108 - of the container
            script = script.replace(path, f"{self.folder}/{path.strip('/').replace('/', '-')}/")
        script = script.replace("dev-termination-log/", "told")
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "NEO4J_HOME": f"{self.folder}/home",
            "ASKED": f"{self.folder}/asked",
            "DATA": f"{self.folder}/work/data",
            "FACTS": f"{self.folder}/work/facts.json",
            "SOURCE": f"{self.folder}/source",
            "TARGET": f"{self.folder}/target",
            "SETTINGS": "server.directories.data=@DATA@",
            "LAST": "16",
            "RECOVERY": "false",
            **variables,
        }
        return subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    def asked(self) -> list[str]:
        """What the tool was asked."""
        return [line.strip() for line in (self.folder / "asked").read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("bin", "home/lib", "work", "target", "source/databases/neo4j", "source/transactions/neo4j"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bin/neo4j-admin").write_text(ADMIN)
    (tmp_path / "bin/neo4j-admin").chmod(0o755)
    for jar in ("neo4j-kernel-5.26.12.jar", "neo4j-kernel-api-5.26.12.jar"):
        (tmp_path / "home/lib" / jar).touch()
    for number, name in enumerate(("databases/neo4j/store", "transactions/neo4j/log")):
        (tmp_path / "source" / name).touch()
        os.utime(tmp_path / "source" / name, (0, 1_767_225_600 + number))
    return Place(tmp_path)


def test_a_dump_says_which_transaction_was_the_last_and_when(place: Place) -> None:
    done = place.run(DUMP_SCRIPT)
    assert done.returncode == 0, done.stderr
    facts = Facts.model_validate_json((place.folder / "work/facts.json").read_text())
    assert facts == Facts(entries=16, moment=1_767_225_601, version="5.26.12", bytes=10, sha256=SUM)
    assert place.asked() == ["database info neo4j", "database dump *"], "no start of a JVM more than that"
    conf = (place.folder / "tmp/conf/neo4j.conf").read_text()
    assert conf == f"server.directories.data={place.folder}/source"
    mode = (place.folder / "work/data").stat().st_mode
    assert mode & 0o020, "another user of the group stores it"


def test_what_was_not_stopped_in_order_is_not_copied(place: Place) -> None:
    done = place.run(DUMP_SCRIPT, RECOVERY="true")
    assert done.returncode != 0
    assert "the server has not ended in order" in done.stderr
    assert not (place.folder / "work/facts.json").exists()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"SHA256": "0" * 64}, "the copy has another checksum than was recorded"),
        ({"ENTRIES": "17"}, "the last transaction is 16, and 17 was that of the copy"),
        ({"UNSOUND": "yes"}, "Inconsistencies found"),
    ],
)
def test_a_copy_that_is_not_what_was_recorded_is_refused(
    place: Place, variables: dict[str, str], says: str
) -> None:
    assert place.run(DUMP_SCRIPT).returncode == 0
    given = {"SHA256": SUM, "ENTRIES": "16", "LOGGING": "", "OFF_HEAP": "128m", **variables}
    done = place.run(LOAD_SCRIPT, **given)
    assert done.returncode != 0
    assert says in done.stderr
    assert not (place.folder / "told").exists()


def test_nothing_is_loaded_over_what_is_there(place: Place) -> None:
    assert place.run(DUMP_SCRIPT).returncode == 0
    (place.folder / "target/databases").mkdir()
    done = place.run(LOAD_SCRIPT, SHA256=SUM, ENTRIES="16", LOGGING="", OFF_HEAP="128m")
    assert "the volume is not empty: databases" in done.stderr
    assert "database load neo4j" not in place.asked()


def test_a_restore_reaches_nobody_and_has_no_accounts() -> None:
    spec = Neo4jSpec(settings={"dbms.usage_report.enabled": "false"})
    load = Neo4j().load("cos-neo4j", spec, Copied(16, SUM, "", "", ""), 600)
    settings = next(item.value or "" for item in load.env or () if item.name == "SETTINGS")
    assert "server.default_listen_address=127.0.0.1\n" in settings
    assert "dbms.security.auth_enabled=false\n" in settings
    assert "server.directories.data=@DATA@\n" in settings
    assert load.resources is None, "those of the engine"


def test_the_engine_fits_beside_the_job_that_has_read_it() -> None:
    dump = Neo4j().dump("", Neo4jSpec(), 600)
    assert dump.container.resources
    assert dump.container.resources.requests == {"cpu": "100m", "memory": "256Mi"}
    assert dump.source == "/data"
