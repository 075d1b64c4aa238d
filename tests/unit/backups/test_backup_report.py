"""What a backup's Job says, and what is read of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cos_controllers.backups.report import LIMIT, Facts, Progress, Report, fingerprint, last_progress

FACTS = Facts(entries=2**62, moment=2**31, version="8" * 32, bytes=2**62, sha256="f" * 64)


def test_the_longest_report_fits_into_a_termination_message() -> None:
    found = Report(facts=FACTS, snapshot="f" * 64, stored=2**62, key="f" * 16).model_dump_json()
    assert found.isascii()
    assert len(found) <= LIMIT
    assert Report.model_validate_json(found).facts == FACTS


def test_facts_of_a_dump_that_was_not_checked_are_none() -> None:
    # What the shell prints if the tool's output had no such line.
    for text in (
        '{"entries":,"moment":1,"version":"8","bytes":1,"sha256":"a"}',
        '{"entries":1,"moment":1,"version":"","bytes":1,"sha256":"%s"}' % ("a" * 64),
    ):
        with pytest.raises(ValidationError):
            Facts.model_validate_json(text)


@given(done=st.integers(0, 10**15), total=st.integers(1, 10**15), seconds=st.floats(0, 10**6))
def test_progress_is_a_share_and_a_time(done: int, total: int, seconds: float) -> None:
    progress = Progress(done=done, total=total, seconds=seconds)
    assert 0 <= progress.percent <= 100
    assert progress.remaining is None or progress.remaining >= 0


def test_the_newest_progress_of_a_log_counts() -> None:
    lines = [Progress(done=n, total=9, seconds=n).model_dump_json() for n in range(3)]
    assert last_progress("\n".join(["begins", *lines, "a line of restic's"])) == Progress(
        done=2, total=9, seconds=2
    )
    assert last_progress("") is None


def test_a_fingerprint_tells_keys_apart_and_no_key() -> None:
    assert fingerprint("one key") != fingerprint("another key")
    assert "one" not in fingerprint("one key")
    assert len(fingerprint("")) == 16
