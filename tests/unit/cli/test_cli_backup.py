"""`kubectl cos backup` and `restore`: what is asked for, and what is said of it."""

from __future__ import annotations

from typing import Any

from cos_operator.cli.backup import lines
from cos_operator.cli.output import plain
from cos_operator.cli.restore import Source, Wish
from cos_operator.cli.restore import lines as restored

GOOD: dict[str, Any] = {
    "name": "redis",
    "phase": "Succeeded",
    "pointInTime": "2026-01-01T00:01:00Z",
    "entries": 1001,
    "bytes": 19987,
    "storedBytes": 400,
    "snapshot": "0b92c64b71713f04",  # pragma: allowlist secret
}


def told(status: dict[str, Any]) -> list[str]:
    return [" ".join(text.split()) for item in lines(status) for text in plain(item)]


def test_a_table_of_copies_and_the_end() -> None:
    bad = {"name": "neo4j", "phase": "Failed"}
    status = {"phase": "Failed", "message": "neo4j: container dump\nended", "components": [GOOD, bad]}
    assert told(status) == [
        "COMPONENT PHASE POINT IN TIME ENTRIES SIZE STORED SNAPSHOT",
        "redis Succeeded 2026-01-01T00:01:00Z 1001 20.0 kB 400 bytes 0b92c64b",
        "neo4j Failed - - - - -",
        "",
        "Failed: neo4j: container dump ended",
    ]


def test_one_that_never_began_shows_no_empty_table() -> None:
    assert told({"phase": "Failed", "message": "the stack has no repository x"}) == [
        "Failed: the stack has no repository x"
    ]


def test_of_a_restore_the_volumes_are_told() -> None:
    row = {"name": "redis", "phase": "Succeeded", "pointInTime": "2026-01-01T00:01:00Z", "entries": 3}
    row |= {"claim": "cos-redis-data-1", "previousClaim": "cos-redis-data-0"}
    status = {"phase": "Succeeded", "message": "restored; kept: cos-redis-data-0", "components": [row]}
    assert [" ".join(text.split()) for item in restored(status) for text in plain(item)] == [
        "COMPONENT PHASE POINT IN TIME ENTRIES VOLUME KEPT",
        "redis Succeeded 2026-01-01T00:01:00Z 3 cos-redis-data-1 cos-redis-data-0",
        "",
        "Succeeded: restored; kept: cos-redis-data-0",
    ]


def test_data_is_set_aside_only_if_somebody_says_so() -> None:
    assert Wish("first").spec("cos")["existingData"] == "Refuse"
    assert Wish("", source=Source(), point_in_time="Latest").spec("cos")["pointInTime"] == "Latest"
    assert "pointInTime" not in Wish("first").spec("cos")
    assert Wish("first", ["redis"], set_aside=True).spec("cos") == {
        "stackRef": {"name": "cos"},
        "backup": "first",
        "components": ["redis"],
        "existingData": "SetAside",
    }
