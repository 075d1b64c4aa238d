"""pgBackRest: what it is told, what is read of it, and what of a repository may go."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cos_controllers.backups.order import Fetch, Find, Order, Tidy, Tool
from cos_controllers.backups.report import FoundCopies, Report, Tidied, fingerprint, last_progress
from cos_controllers.pgbackrest import variables
from cos_operator.backup import runner
from cos_operator.backup.pgbackrest import Made, PgBackRest, place_in, position
from cos_operator.backup.program import ToolError
from cos_operator.backup.with_pgbackrest import is_full_due, removable

LINEAGE = "3f0c9a52-0d5e-4b1e-9d0e-6c1e0a4b7f11"
FULL, DIFF = "20261127-202000F", "20261127-202000F_20261127-202005D"


def listed(label: str, moment: int = 1795810803, backup: str = "b", **changes: Any) -> dict[str, Any]:
    """A backup as 2.55.1 lists it."""
    base, _, rest = label.partition("_")
    found = {
        "annotation": {"backup": backup, "engine": "postgres", "key": fingerprint("0123456789abcdef")},
        "archive": {"start": "000000010000000000000003", "stop": "000000010000000000000003"},
        "database": {"id": 1, "repo-key": 1},
        "error": False,
        "info": {"delta": 23511998, "repository": {"delta": 2827296}, "size": 23511998},
        "label": label,
        "lsn": {"start": "0/3000028", "stop": "0/3003D28"},
        "reference": [base] if rest else None,
        "timestamp": {"start": moment - 3, "stop": moment},
        "type": "diff" if rest else "full",
    }
    return found | changes


def stanza(*backups: dict[str, Any], name: str = LINEAGE, **changes: Any) -> dict[str, Any]:
    found = {
        "name": name,
        "db": [{"id": 1, "repo-key": 1, "system-id": 7, "version": "17"}],
        "backup": list(backups),
        "status": {"code": 0, "message": "ok"},
    }
    return found | changes


WRONG_KEY = stanza(
    status={"code": 99, "message": "other"},
    repo=[{"key": 1, "status": {"code": 99, "message": "[FormatError] unable to load info file '/a/\x9f"}}],
)


@pytest.mark.parametrize(
    ("repository", "path", "host", "port"),
    [
        ("/repository/cos/cos/postgres-prod", "/repository/cos/cos/postgres-prod", None, None),
        ("s3:https://s3.example.com/b/cos/cos/pg", "/cos/cos/pg", "s3.example.com", "443"),
        ("s3:https://10.0.0.1:9000/b/some/where/cos/cos/pg", "/some/where/cos/cos/pg", "10.0.0.1", "9000"),
    ],
)
def test_a_place_is_the_same_to_both_tools(
    repository: str, path: str, host: str | None, port: str | None
) -> None:
    found = variables(repository, "eu-1", lineage=LINEAGE, data="/pgdata/17/data")
    assert found["PGBACKREST_REPO1_PATH"] == path
    assert found["PGBACKREST_REPO1_CIPHER_TYPE"] == "aes-256-cbc", "always"
    assert found["PGBACKREST_STANZA"] == LINEAGE
    assert (found.get("PGBACKREST_REPO1_S3_ENDPOINT"), found.get("PGBACKREST_REPO1_STORAGE_PORT")) == (
        host,
        port,
    )
    assert found.get("PGBACKREST_REPO1_S3_BUCKET") == ("b" if host else None)
    assert not [name for name in found if name.endswith(("KEY", "PASS", "SECRET"))]


def test_positions_in_the_log_are_numbers() -> None:
    assert position("0/3003D28") == 0x3003D28
    assert position("16/B374D848") == 0x16B374D848


def test_a_repository_is_read_with_all_its_volumes() -> None:
    place = place_in(
        [stanza(listed(FULL), listed(DIFF, error=True)), stanza(name="other"), WRONG_KEY | {"name": "x"}]
    )
    assert [(made.lineage, made.label, made.needs, made.damaged) for made in place.backups] == [
        (LINEAGE, FULL, (), False),
        (LINEAGE, DIFF, (FULL,), True),
    ]
    assert (place.backups[0].lsn, place.backups[0].version, place.backups[0].added) == (
        0x3003D28,
        "17",
        2827296,
    )
    assert place.stanzas == {
        LINEAGE: "",
        "other": "",
        "x": "the repository was written with another key than the one that is given",
    }


def made(label: str, lineage: str = LINEAGE, moment: int = 0, *, damaged: bool = False) -> Made:
    base, _, rest = label.partition("_")
    return Made(lineage, label, {}, (base,) if rest else (), "17", 1, moment, 1, 1, damaged)


@pytest.mark.parametrize(
    ("there", "wanted", "goes"),
    [
        (["1F", "2F"], ["1F"], ["1F"]),
        (["1F"], ["1F"], []),
        (["1F", "1F_1D", "2F"], ["1F"], []),
        (["1F", "1F_1D", "2F"], ["1F", "1F_1D"], ["1F_1D", "1F"]),
        (["1F", "1F_1D", "1F_2D", "2F"], ["1F", "1F_1D"], ["1F_1D"]),
        (["1F", "1F_1D"], ["1F", "1F_1D"], ["1F_1D"]),
        (["1F", "2F", "2F_1D"], ["1F", "2F", "2F_1D"], ["2F_1D", "1F"]),
        (["1F", "2F"], ["gone"], []),
    ],
)
def test_what_others_are_built_upon_stays_and_so_does_the_last_whole_one(
    there: list[str], wanted: list[str], goes: list[str]
) -> None:
    known = [made(label, moment=number) for number, label in enumerate(there)]
    assert [item.label for item in removable(known, wanted)] == goes


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=12),
    st.sets(st.integers(0, 40), max_size=20),
)
def test_nothing_that_stays_loses_what_it_is_built_upon(
    differences: list[tuple[int, str]], chosen: set[int]
) -> None:
    there = [made(f"{n}F", lineage, n) for lineage in "ab" for n in range(4)]
    there += [made(f"{base}F_{n}D", lineage, 10 + n) for n, (base, lineage) in enumerate(differences)]
    wanted = [item.label for number, item in enumerate(there) if number in chosen]
    going = removable(there, wanted)
    left = [item for item in there if item not in going]
    for item in left:
        assert all(any((o.lineage, o.label) == (item.lineage, need) for o in left) for need in item.needs)
    assert {item.lineage for item in left if item.is_full} == {"a", "b"}
    for number, item in enumerate(going):
        needed = [other.label for other in going[:number] if other.lineage == item.lineage]
        assert not set(item.needs) & set(needed), "what is built upon others goes first"


WEEK = 7 * 86400


@pytest.mark.parametrize(
    ("before", "now", "due"),
    [
        ([], WEEK, True),
        ([made("1F", moment=1000)], 1000 + 6 * 86400, False),
        ([made("1F", moment=1000)], 1000 + WEEK, True),
        # A schedule of every week does not come a second late each time.
        ([made("1F", moment=1000)], 1000 + WEEK - 60, True),
        ([made("1F", moment=1000), made("1F_1D", moment=1000 + WEEK)], 1000 + WEEK, True),
        ([made("1F", moment=2000, damaged=True), made("0F", moment=1000)], 3000, True),
    ],
)
def test_a_whole_copy_is_made_once_a_week_and_after_a_damaged_one(
    before: list[Made], now: float, *, due: bool
) -> None:
    assert is_full_due(before, now) is due


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The paths of the container."""
    for name, text in {
        "key/key": "0123456789abcdef\n",
        "login/username": "cos_backup",
        "login/password": "secret of the user",  # pragma: allowlist secret
        "pgdata/17/data/base/1/1": "x" * 1000,
        "pgdata/17/data/pg_wal/000000010000000000000001": "x" * 5000,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(runner.signal, "signal", lambda *_: None)
    return tmp_path


def program(root: Path, info: list[dict[str, Any]], **says: str) -> None:
    """A pgBackRest that says what it is told to, and writes down what it was asked and by which variables."""
    (root / "info.json").write_text(json.dumps(info))
    cases = "".join(f"{name}) {script} ;;\n" for name, script in says.items())
    path = root / "pgbackrest"
    path.write_text(
        f"#!/bin/bash\necho \"$*\" >>{root}/calls\nenv | grep -E '^PG' | sort >{root}/environment\n"
        f"case $1 in\n{cases}info) cat {root}/info.json ;;\nesac\n"
    )
    path.chmod(0o755)


def calls(root: Path) -> list[str]:
    return [line for line in (root / "calls").read_text().splitlines() if not line.startswith("info")]


def order(**changes: Any) -> Order:
    fields = {
        "tool": Tool.PGBACKREST,
        "namespace": "cos",
        "stack": "cos",
        "component": "postgres-prod",
        "engine": "postgres",
        "lineage": LINEAGE,
        "backup": "b",
        "repository": "/repository/cos/cos/postgres-prod",
        "place": "p",
        "path": "cos/cos/postgres-prod",
        "limit": 10,
        "host": "cos-postgres-prod.cos.svc",
        "folder": "/pgdata/17/data",
    }
    return Order.model_validate(fields | changes)


DETAIL = "echo '2026-11-27 20:22:43.289 P01 DETAIL: backup file h:/pgdata/base/1/2619 (bundle 1/8192, 24KB, 97.53%)'"


def test_a_copy_is_made_by_the_volumes_own_stanza_and_reported(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(
        root, [stanza(listed(FULL, int(time.time()) - 60)), stanza(listed(DIFF), name="x")], backup=DETAIL
    )
    assert runner.run(order(), root, root / "report") == 0
    found = Report.model_validate_json((root / "report").read_text())
    assert (found.snapshot, found.stored, found.facts.entries) == (FULL, 2827296, 0x3003D28)
    assert (found.facts.version, found.facts.bytes, found.facts.sha256) == ("17", 23511998, "")
    create, check, backup = calls(root)
    assert create == f"stanza-create --stanza={LINEAGE}"
    assert check == f"check --stanza={LINEAGE}", "a log that does not arrive is told before anything is read"
    assert "--type=diff" in backup, "there is a whole one of this minute"
    assert "--no-expire-auto" in backup, "what goes is decided elsewhere"
    assert f"--annotation=backup=b --annotation=engine=postgres --annotation=key={found.key}" in backup
    told = dict(line.split("=", 1) for line in (root / "environment").read_text().splitlines())
    assert told["PGBACKREST_REPO1_CIPHER_PASS"] == "0123456789abcdef"
    assert (told["PGHOST"], told["PGUSER"], told["PGPASSWORD"]) == (
        "cos-postgres-prod.cos.svc",
        "cos_backup",
        "secret of the user",
    )
    assert "PGBACKREST_PG1_SOCKET_PATH" not in told, "with it libpq's own variables would not be asked"
    assert "secret of the user" not in (root / "calls").read_text()
    progress = last_progress(capsys.readouterr().out)
    assert progress
    assert (progress.done, progress.total) == (975, 1000)


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ([], "does not list it"),
        ([stanza(listed(FULL, backup="another"))], "does not list it"),
        ([stanza(listed(FULL, error=True))], "fail their checksum"),
    ],
)
def test_what_is_not_listed_as_good_is_no_copy(root: Path, info: list[dict[str, Any]], says: str) -> None:
    program(root, info)
    assert runner.run(order(), root, root / "report") == 1
    assert says in (root / "report").read_text()


def test_a_stanza_that_was_begun_and_never_finished_is_made_anew(root: Path) -> None:
    missing = "echo 'P00  ERROR: [055]: archive.info exists but backup.info is missing on repo1'; exit 55"
    once = f"[ -e {root}/made ] || {{ touch {root}/made; {missing}; }}"
    program(root, [stanza(listed(FULL))], **{"stanza-create": once, "repo-ls": "echo backup.history"})
    assert runner.run(order(), root, root / "report") == 0
    assert [call.split()[0] for call in calls(root)][:6] == [
        "stanza-create",
        "repo-ls",
        "stop",
        "stanza-delete",
        "start",
        "stanza-create",
    ]


def test_a_stanza_that_has_lost_its_list_is_never_made_anew(root: Path) -> None:
    missing = "echo 'P00  ERROR: [055]: archive.info exists but backup.info is missing on repo1'; exit 55"
    program(root, [], **{"stanza-create": missing, "repo-ls": f"echo {FULL}"})
    assert runner.run(order(), root, root / "report") == 1
    assert "backup.info is missing" in (root / "report").read_text()
    assert "stanza-delete" not in (root / "calls").read_text()


def test_another_key_is_told_by_what_it_is(root: Path) -> None:
    program(root, [], **{"stanza-create": "echo 'P00 ERROR: [029]: FormatError: key/value \\x9f'; exit 29"})
    assert runner.run(order(), root, root / "report") == 1
    assert (
        root / "report"
    ).read_text() == "the repository was written with another key than the one that is given"


ERROR = """cat <<'SAYS'
2026-11-27 20:22:48.036 P00  ERROR: [039]: HTTP request failed with 404 (Not Found):
*** Path/Query ***:
GET /logs/?list-type=2
*** Response Content ***:
<?xml version="1.0"?><Error><Code>NoSuchBucket</Code><Message>The bucket does not exist</Message></Error>
SAYS
exit 39"""


def test_a_bucket_that_is_not_there_is_told_with_the_fix(root: Path) -> None:
    program(root, [], **{"stanza-create": ERROR})
    assert runner.run(order(), root, root / "report") == 1
    assert (
        root / "report"
    ).read_text() == "the bucket does not exist: create it, since pgBackRest makes none"


def test_an_error_is_told_without_its_hints(root: Path) -> None:
    script = (
        "echo 'P00  ERROR: [056]: unable to find primary cluster'; echo '   HINT: is it running?'; exit 56"
    )
    program(root, [], check=script)
    assert runner.run(order(), root, root / "report") == 1
    assert (root / "report").read_text() == "pgBackRest ended with 56: [056]: unable to find primary cluster"


def test_of_a_bucket_the_credentials_go_by_the_environment_alone(root: Path) -> None:
    folder = root / "credentials"
    folder.mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "ca.crt"):
        (folder / name).write_text(f"{name}-value\n")
    program(root, [stanza(listed(FULL))])
    assert runner.run(order(repository="s3:https://s3/b/p", region="eu-1"), root, root / "report") == 0
    told = (root / "environment").read_text()
    assert "PGBACKREST_REPO1_S3_KEY=AWS_ACCESS_KEY_ID-value\n" in told
    assert "PGBACKREST_REPO1_S3_KEY_SECRET=AWS_SECRET_ACCESS_KEY-value\n" in told
    assert f"PGBACKREST_REPO1_STORAGE_CA_FILE={folder}/ca.crt\n" in told
    assert "value" not in (root / "calls").read_text()


def test_copies_are_found_of_every_volume_but_for_damaged_ones_and_those_of_others(root: Path) -> None:
    theirs = listed("20261127-202001F") | {"annotation": None}
    bad = listed("20261127-202002F", error=True)
    program(root, [stanza(listed(FULL, 1000), theirs, bad), stanza(listed(DIFF, 2000, backup="c"), name="x")])
    wanted = Find(tool=Tool.PGBACKREST, repository="/repository/p", limit=10)
    assert runner.find(wanted, root, root / "report") == 0
    found = FoundCopies.model_validate_json((root / "report").read_text()).copies
    assert [(item.snapshot, item.backup, item.lineage) for item in found] == [
        (DIFF, "c", "x"),
        (FULL, "b", LINEAGE),
    ]


def test_a_volume_that_cannot_be_read_keeps_no_other_from_being_found(root: Path) -> None:
    program(root, [WRONG_KEY | {"name": "lost"}, stanza(listed(FULL))])
    wanted = Find(tool=Tool.PGBACKREST, repository="/repository/p", limit=10)
    assert runner.find(wanted, root, root / "report") == 0


def test_a_search_with_another_key_says_so(root: Path) -> None:
    program(root, [WRONG_KEY])
    wanted = Find(tool=Tool.PGBACKREST, repository="/repository/p", limit=10)
    assert runner.find(wanted, root, root / "report") == 1
    assert "another key" in (root / "report").read_text()


def fetch(root: Path, **changes: Any) -> int:
    fields = {"snapshot": FULL, "sha256": "", "lineage": LINEAGE, "folder": "/target/17/data"}
    wanted = Fetch.model_validate(
        {"tool": "pgbackrest", "repository": "/repository/p", "limit": 10, **fields, **changes}
    )
    return runner.fetch(wanted, root, root / "report")


def test_a_copy_is_fetched_onto_an_empty_volume_without_an_order_to_recover(root: Path) -> None:
    (root / "target/lost+found").mkdir(parents=True)
    program(root, [stanza(listed(FULL))])
    assert fetch(root) == 0
    (call,) = calls(root)
    assert call.startswith(
        f"restore --stanza={LINEAGE} --set={FULL} --pg1-path={root}/target/17/data --type=none"
    )
    assert (root / "target/17/data").stat().st_mode & 0o777 == 0o700


def test_a_volume_with_data_is_never_written_to(root: Path) -> None:
    (root / "target/17/data").mkdir(parents=True)
    program(root, [stanza(listed(FULL))])
    assert fetch(root) == 1
    assert "the volume is not empty: 17" in (root / "report").read_text()
    assert calls(root) == []


def test_a_copy_of_another_volume_is_none(root: Path) -> None:
    (root / "target").mkdir()
    program(root, [stanza(listed(FULL), name="x")])
    assert fetch(root) == 1
    assert f"no backup {FULL} of volume {LINEAGE}" in (root / "report").read_text()


def tidied(root: Path, **changes: Any) -> Tidied:
    wanted = Tidy.model_validate(
        {"tool": "pgbackrest", "repository": "/repository/p", "limit": 10, **changes}
    )
    assert runner.tidy(wanted, root, root / "report") == 0, (root / "report").read_text()
    return Tidied.model_validate_json((root / "report").read_text())


def test_what_goes_takes_the_log_before_the_oldest_whole_copy_with_it(root: Path) -> None:
    newer = "20261128-202000F"
    (root / "after.json").write_text(json.dumps([stanza(listed(newer))]))
    gone = f"[[ $* != *--set* ]] || cp {root}/after.json {root}/info.json"
    program(root, [stanza(listed(FULL), listed(newer))], expire=gone)
    assert tidied(root, remove=[FULL]) == Tidied(checked=False, removed=(FULL,))
    remove, trim = calls(root)
    assert remove == f"expire --stanza={LINEAGE} --set={FULL} --log-level-console=error"
    assert trim.startswith(f"expire --stanza={LINEAGE} --repo1-retention-full=9999999 "), (
        "no backup goes with the log"
    )
    assert trim.endswith(" --repo1-retention-archive=1")


def test_what_is_still_needed_is_told_to_be_kept(root: Path) -> None:
    program(root, [stanza(listed(FULL), listed(DIFF), listed("20261128-202000F"))])
    assert tidied(root, remove=[FULL]) == Tidied(checked=False, removed=())
    assert calls(root) == []


def test_a_repository_is_read_in_parts_before_anything_goes(root: Path) -> None:
    program(root, [stanza(listed(FULL), listed(DIFF))])
    assert tidied(root, maintain=True, part=2, parts=2).checked
    assert tidied(root, maintain=True, part=13, parts=20).checked, "of two there are no twenty parts"
    assert calls(root) == [f"verify --stanza={LINEAGE} --output=text --set={label}" for label in (DIFF, FULL)]


def test_from_a_repository_that_is_damaged_nothing_is_taken(root: Path) -> None:
    said = "echo 'stanza: x'; echo 'status: error'; echo '  backup: b, status: invalid'; echo '    checksum invalid: 1'"
    program(root, [stanza(listed(FULL), listed(DIFF))], verify=said)
    wanted = Tidy(
        tool=Tool.PGBACKREST, repository="/r", limit=10, maintain=True, part=1, parts=1, remove=(DIFF,)
    )
    assert runner.tidy(wanted, root, root / "report") == 1
    assert "the repository is not whole: stanza: x status: error" in (root / "report").read_text()
    assert not [call for call in calls(root) if call.startswith("expire")]


def test_what_cannot_be_read_is_an_error_and_no_empty_repository(root: Path) -> None:
    program(root, [])
    (root / "info.json").write_text("nonsense")
    with pytest.raises(ToolError, match="cannot be read"):
        PgBackRest({}, 10).info()
