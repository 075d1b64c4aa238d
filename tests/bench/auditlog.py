"""What the API server did, by its own account: every request with its user and microsecond stamps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
#: Reads are by far the most lines: they are left out before they are parsed.
_READS = (b'"verb":"list"', b'"verb":"get"', b'"verb":"watch"')


class LogLost(Exception):
    """The log was rotated away before it was read."""


class Write(NamedTuple):
    """A write as the API server saw it. `received`, `answered`: Unix time in seconds."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int
    received: float
    answered: float


@dataclass(frozen=True)
class Mark:
    """A place in the log."""

    inode: int
    offset: int


class AuditLog:
    """The log at `path`, and the one older file that rotation leaves beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> Mark:
        """The present end."""
        stat = self._path.stat()
        return Mark(stat.st_ino, stat.st_size)

    def writes(self, since: Mark, user: str = "") -> list[Write]:
        """Writes since a mark, by one user if one is given, in the order of their answers. Leases are left out.

        Raises `LogLost` if the mark's file is gone.
        """
        return [write for line in self._lines(since) if (write := _write(line, user))]

    def _lines(self, since: Mark) -> Iterator[bytes]:
        files = sorted(self._path.parent.glob(f"{self._path.stem}*{self._path.suffix}"), key=_age)
        marked = [file for file in files if file.stat().st_ino == since.inode]
        if not marked:
            raise LogLost(f"{self._path} was rotated away: measure for a shorter time")
        for file in files[files.index(marked[0]) :]:
            with file.open("rb") as lines:
                lines.seek(since.offset if file == marked[0] else 0)
                yield from lines


def _age(file: Path) -> float:
    return file.stat().st_mtime


def _write(line: bytes, user: str) -> Write | None:
    # The last line may be half written.
    if any(verb in line for verb in _READS) or not line.endswith(b"}\n"):
        return None
    if user and f'"username":"{user}"'.encode() not in line:
        return None
    event = json.loads(line)
    ref = event.get("objectRef") or {}
    resource = "/".join(filter(None, (ref.get("resource"), ref.get("subresource"))))
    if event["verb"] not in _WRITES or event["stage"] != "ResponseComplete" or resource == "leases":
        return None
    return Write(
        user=event["user"]["username"],
        verb=event["verb"],
        resource=resource,
        namespace=ref.get("namespace", ""),
        name=ref.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        received=_seconds(event["requestReceivedTimestamp"]),
        answered=_seconds(event["stageTimestamp"]),
    )


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
