"""Calls of restic, by a script that says what restic 0.18.0 said; the real one is asked end to end."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cos_controllers.backups.order import Fetch, Find, Order, Tidy
from cos_controllers.backups.report import FoundCopies, Progress, Report, fingerprint, last_progress
from cos_operator.backup import runner
from cos_operator.backup.program import ToolError, end_all
from cos_operator.backup.restic import NO_REPOSITORY, Restic, explained
from cos_operator.backup.with_restic import environment

SUMMARY = {"message_type": "summary", "snapshot_id": "0b92c64b", "data_added_packed": 2498}
STATUS = {
    "message_type": "status",
    "percent_done": 0.5,
    "total_bytes": 100,
    "bytes_done": 50,
    "seconds_elapsed": 3,
}
WRONG = {"message_type": "exit_error", "code": 12, "message": "Fatal: wrong password or no key found"}


def program(folder: Path, **answers: str) -> str:
    """A restic that notes its arguments and does what the answer to its command says."""
    cases = "\n".join(f"  {command}) {answer} ;;" for command, answer in answers.items())
    path = folder / "restic"
    path.write_text(f'#!/bin/bash\necho "$@" >>{folder}/calls\ncase $2 in\n{cases}\nesac\n')
    path.chmod(0o755)
    return str(path)


def calls(folder: Path) -> list[str]:
    return [line.removeprefix("--no-cache ") for line in (folder / "calls").read_text().splitlines()]


def said(*items: object) -> str:
    return "; ".join(f"echo '{json.dumps(item)}'" for item in items)


def test_a_repository_that_is_there_is_not_made_and_only_stale_locks_are_broken(tmp_path: Path) -> None:
    restic = Restic({}, 10, program=program(tmp_path))
    restic.open()
    assert calls(tmp_path) == ["cat config --no-lock", "unlock"]


def test_one_that_was_begun_and_never_finished_is_told(tmp_path: Path) -> None:
    answers = {
        "cat": f"exit {NO_REPOSITORY}",
        "init": "echo 'Fatal: repository already contains keys' >&2; exit 1",
    }
    restic = Restic({"RESTIC_REPOSITORY": "/repository/x"}, 10, program=program(tmp_path, **answers))
    with pytest.raises(
        ToolError, match=r"already contains keys; if one was begun .* remove what is below /repo"
    ):
        restic.open()


def test_a_repository_that_is_not_there_is_made(tmp_path: Path) -> None:
    restic = Restic({}, 10, program=program(tmp_path, cat=f"exit {NO_REPOSITORY}"))
    restic.open()
    assert calls(tmp_path) == ["cat config --no-lock", "init"]


def test_no_repository_is_made_beside_one_that_cannot_be_opened(tmp_path: Path) -> None:
    restic = Restic({}, 10, program=program(tmp_path, cat="echo 'Fatal: wrong password' >&2; exit 12"))
    with pytest.raises(ToolError, match="written with another key than the one that is given: Fatal: wrong"):
        restic.open()
    assert calls(tmp_path) == ["cat config --no-lock"]


def test_a_folder_is_stored_and_progress_told(tmp_path: Path) -> None:
    told: list[Progress] = []
    empty = {"message_type": "status", "percent_done": 0}
    restic = Restic({}, 10, told.append, program(tmp_path, backup=said(empty, STATUS, SUMMARY)))
    stored = restic.backup("/work/data", "cos/cos/redis", ["backup=b"])
    assert (stored.snapshot, stored.added) == ("0b92c64b", 2498)
    assert told == [Progress(done=50, total=100, seconds=3)]
    assert calls(tmp_path) == ["backup --json --retry-lock=2m --host=cos/cos/redis --tag=backup=b /work/data"]


def test_success_without_a_snapshot_is_none(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="said nothing of a snapshot"):
        Restic({}, 10, program=program(tmp_path, backup="exit 0")).backup("/d", "h", [])


def test_a_call_that_takes_too_long_is_ended_with_what_it_said(tmp_path: Path) -> None:
    slow = "echo 'Stat: connection refused' >&2; exec sleep 60"
    began = time.monotonic()
    with pytest.raises(ToolError, match=r"had not ended within 2 s: Stat: connection refused"):
        Restic({}, 2, program=program(tmp_path, backup=slow)).backup("/d", "h", [])
    assert time.monotonic() - began < 30


def test_a_talkative_restic_does_not_block(tmp_path: Path) -> None:
    much = "head -c 300000 /dev/zero | tr '\\0' x >&2"
    restic = Restic({}, 30, program=program(tmp_path, backup=f"{much}; {said(SUMMARY)}"))
    assert restic.backup("/d", "h", []).added == 2498


@pytest.mark.parametrize(
    ("code", "text", "says"),
    [
        (
            12,
            json.dumps(WRONG),
            "another key than the one that is given: Fatal: wrong password or no key found",
        ),
        (11, "", "the repository is locked by somebody else"),
        (1, "a\x1b[2K\nb", "restic ended with 1: a b"),
        (3, "caf\u00e9 \x00", "a part of the data could not be read: caf? ?"),
    ],
)
def test_exit_codes_are_told_in_words(code: int, text: str, says: str) -> None:
    assert explained(code, text).endswith(says)


@given(st.integers(1, 255), st.text(max_size=3000))
def test_what_is_told_can_be_shown_and_stored(code: int, text: str) -> None:
    found = explained(code, text)
    assert found.isascii()
    assert found.isprintable()
    assert len(found) < 1000


# The program of the Job around it.

FACTS = {"entries": 3, "moment": 1767225600, "version": "8.0.2", "bytes": 9, "sha256": "a" * 64}


def order(**changes: object) -> Order:
    fields = {
        "namespace": "cos",
        "stack": "cos",
        "component": "redis",
        "engine": "redis",
        "lineage": "u",
        "backup": "b",
        "repository": "/repository/cos",
        "place": "uid",
        "path": "cos",
        "limit": 10,
    }
    return Order.model_validate({**fields, **changes})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The paths of the container, after the engine's tool has done its part."""
    data = tmp_path / "work/data"
    data.mkdir(parents=True)
    (data / "redis.rdb").write_text("REDIS0012")
    (tmp_path / "work/facts.json").write_text(json.dumps(FACTS))
    (tmp_path / "key").mkdir()
    (tmp_path / "key/key").write_text("0123456789abcdef\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(runner.signal, "signal", lambda *_: None)
    return tmp_path


def test_a_copy_is_reported_and_described_beside_the_data(root: Path) -> None:
    program(root, backup=said(SUMMARY))
    assert runner.run(order(), root, root / "report") == 0
    found = Report.model_validate_json((root / "report").read_text())
    assert (found.snapshot, found.stored, found.facts.entries) == ("0b92c64b", 2498, 3)
    assert found.key == fingerprint("0123456789abcdef"), "restic, too, takes no newline for a part of the key"
    kept = json.loads((root / "work/data/manifest.json").read_text())
    assert kept == {
        "format": 1,
        "namespace": "cos",
        "stack": "cos",
        "component": "redis",
        "engine": "redis",
        "lineage": "u",
        "backup": "b",
        "keyFingerprint": found.key,
        **FACTS,
    }


def test_a_failure_is_told_and_is_no_report(root: Path) -> None:
    program(root, cat="exit 12")
    assert runner.run(order(), root, root / "report") == 1
    assert (root / "report").read_text().startswith("the repository was written with another key")


def test_without_facts_nothing_is_stored(root: Path) -> None:
    (root / "work/facts.json").unlink()
    program(root)
    assert runner.run(order(), root, root / "report") == 1
    assert "did not say what it has copied" in (root / "report").read_text()
    assert not (root / "calls").exists()


def test_a_bucket_gets_its_credentials_by_the_environment_alone(root: Path) -> None:
    folder = root / "credentials"
    folder.mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (folder / name).write_text(f"{name}-value\n")
    wanted = order(repository="s3:https://s3/bucket", region="eu-1")
    found = environment(wanted.repository, wanted.region, root)
    assert found["AWS_ACCESS_KEY_ID"] == "AWS_ACCESS_KEY_ID-value"
    assert found["AWS_DEFAULT_REGION"] == "eu-1"
    assert "RESTIC_CACERT" not in found
    (folder / "ca.crt").write_text("PEM")
    assert environment(wanted.repository, wanted.region, root)["RESTIC_CACERT"] == str(folder / "ca.crt")
    program(root, backup=said(SUMMARY))
    runner.run(wanted, root, root / "report")
    assert "value" not in (root / "calls").read_text()


def test_a_key_of_bytes_is_told_without_a_byte_of_it(root: Path) -> None:
    (root / "key/key").write_bytes(b"\x9f\x01" * 16)
    program(root)
    assert runner.run(order(), root, root / "report") == 1
    assert (root / "report").read_text() == "key is no text: bytes such as openssl rand makes need base64"


RESTORED = {"message_type": "status", "total_bytes": 100, "bytes_restored": 50, "seconds_elapsed": 3}


def fetched(root: Path, answer: str) -> int:
    (root / "work/data/redis.rdb").unlink()
    (root / "work/data").rmdir()
    program(root, restore=answer)
    wanted = Fetch(repository="/repository/cos", snapshot="0b92c64b", sha256="a" * 64, limit=10)
    return runner.fetch(wanted, root, root / "report")


def test_a_copy_is_fetched_and_compared_with_what_was_recorded(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write = f"echo '{json.dumps(FACTS)}' >{root}/work/data/manifest.json"
    assert fetched(root, f"{said(RESTORED)}; {write}") == 0
    assert last_progress(capsys.readouterr().out) == Progress(done=50, total=100, seconds=3)
    assert calls(root) == [f"restore --json --no-lock 0b92c64b:/work/data --target={root}/work/data"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("exit 12", "written with another key"),
        ("true", "has no manifest"),
        ('echo \'{"sha256": "other"}\' >$6/manifest.json', "another one than was recorded"),
    ],
)
def test_what_was_not_recorded_is_not_loaded(root: Path, answer: str, says: str) -> None:
    # The last argument is the target.
    assert fetched(root, answer.replace("$6", f"{root}/work/data")) == 1
    assert says in (root / "report").read_text()


def test_credentials_that_are_not_there_are_named(root: Path) -> None:
    program(root)
    assert runner.run(order(region="eu-1"), root, root / "report") == 1
    assert "AWS_ACCESS_KEY_ID cannot be read" in (root / "report").read_text()


def test_what_is_there_is_checked_before_copies_are_taken_out_and_space_is_given_back(root: Path) -> None:
    program(root)
    wanted = Tidy(repository="/r", limit=20, remove=("aa", "bb"), maintain=True, part=3, parts=20)
    assert runner.tidy(wanted, root, root / "report") == 0
    wait = "--retry-lock=2m"
    assert calls(root) == [
        "cat config --no-lock",
        "unlock",
        f"check {wait} --read-data-subset=3/20",
        f"forget {wait} aa bb",
        "snapshots --json --no-lock",
        f"prune {wait}",
    ]
    assert (root / "report").read_text() == '{"checked":true,"removed":["aa","bb"]}'


def test_of_a_repository_that_is_not_whole_nothing_is_taken_away(root: Path) -> None:
    program(root, check="echo 'Fatal: repository contains errors' >&2; exit 1")
    wanted = Tidy(repository="/r", limit=20, remove=("aa",), maintain=True)
    assert runner.tidy(wanted, root, root / "report") == 1
    assert [call.split()[0] for call in calls(root)] == ["cat", "unlock", "check"]
    assert "repository contains errors" in (root / "report").read_text()


def test_what_restic_cannot_remove_and_does_not_tell_is_told(root: Path) -> None:
    program(root, snapshots=said([{"id": "bb"}, {"id": "cc"}]))
    wanted = Tidy(repository="/r", limit=20, remove=("aa", "bb"))
    assert runner.tidy(wanted, root, root / "report") == 1
    assert (root / "report").read_text() == "1 of 2 copies could not be removed"


def test_a_restic_that_runs_is_ended_in_its_own_way(tmp_path: Path) -> None:
    marks = (
        f"trap 'kill $!; echo gone >{tmp_path}/ended; exit 130' TERM; echo up >{tmp_path}/up; sleep 60 & wait"
    )
    restic = Restic({}, 60, program=program(tmp_path, prune=marks))
    failed: list[ToolError] = []

    def prune() -> None:
        try:
            restic.prune()
        except ToolError as error:
            failed.append(error)

    thread = threading.Thread(target=prune)
    thread.start()
    deadline = time.monotonic() + 20
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    end_all()
    thread.join(20)
    assert (tmp_path / "ended").read_text() == "gone\n", "it takes its lock away"
    assert failed


def test_the_tags_of_a_snapshot_say_what_its_manifest_says(root: Path) -> None:
    program(root, backup=said(SUMMARY))
    assert runner.run(order(), root, root / "report") == 0
    call = next(item for item in calls(root) if item.startswith("backup"))
    tags = [word.removeprefix("--tag=") for word in call.split() if word.startswith("--tag=")]
    listed = [{"id": "0" * 64, "tags": tags}]
    program(root, snapshots=said(listed))
    assert runner.find(Find(repository="/r", limit=20), root, root / "report") == 0
    (found,) = FoundCopies.model_validate_json((root / "report").read_text()).copies
    assert (found.backup, found.lineage, found.facts.model_dump()) == ("b", "u", FACTS)
    assert found.key == fingerprint("0123456789abcdef")
