"""`kubectl cos backup`: what is said of a copy."""

from __future__ import annotations

from typing import Any

from cos_operator.cli.backup import lines
from cos_operator.cli.output import plain

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
