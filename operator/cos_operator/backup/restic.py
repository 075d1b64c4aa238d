"""restic as a program: what it is asked, what it says, and what its exit codes mean (0.18, docs "Scripting")."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cos_controllers.backups.report import Progress
from cos_operator.backup.program import Program, ToolError, because

#: Exit codes that mean something of their own.
NO_REPOSITORY = 10
_MEANINGS = {
    3: "a part of the data could not be read",
    11: "the repository is locked by somebody else",
    12: "the repository was written with another key than the one that is given",
}
#: Seconds between two lines of progress. Without a limit restic prints 60 a second.
_PROGRESS_SECONDS = 5
#: Seconds for a repository to answer at all: restic itself would ask one that does not for a quarter of an hour.
OPEN_SECONDS = 120.0
#: How long a copy waits for a person who removes old ones.
_LOCK_WAIT = "2m"


@dataclass(frozen=True)
class Stored:
    """A snapshot that was made. `added`: bytes in the repository, compressed and encrypted."""

    snapshot: str
    added: int


class Restic:
    """Calls of restic on one repository, all of them within `limit` seconds from now.

    `environment`: what it needs to know and to be. `tell` gets each progress.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        limit: float,
        tell: Callable[[Progress], None] = lambda _: None,
        program: str = "restic",
    ) -> None:
        self._environment = dict(environment) | {"RESTIC_PROGRESS_FPS": str(1 / _PROGRESS_SECONDS)}
        self._program = Program(program, self._environment, limit, explained)
        self._tell = tell

    def open(self) -> None:
        """Make the repository if there is none, and take locks away that nobody has refreshed for half an hour.

        What is locked by who lives stays so: it may be a person who removes old copies. Raises `ToolError`.
        """
        try:
            self._call("cat", "config", "--no-lock", within=OPEN_SECONDS)
            self._call("unlock", within=OPEN_SECONDS)
        except ToolError as error:
            if error.code != NO_REPOSITORY:
                raise
            try:
                self._call("init", within=OPEN_SECONDS)
            except ToolError as failed:
                where = self._environment.get("RESTIC_REPOSITORY", "")
                hint = f"if one was begun there and never finished, remove what is below {where}"
                raise ToolError(f"no repository could be made: {failed}; {hint}", failed.code) from failed

    def backup(self, folder: str, host: str, tags: Sequence[str]) -> Stored:
        """Store a folder. Raises `ToolError`; then there is no snapshot."""
        named = [f"--tag={tag}" for tag in tags]
        found = self._call("backup", "--json", f"--retry-lock={_LOCK_WAIT}", f"--host={host}", *named, folder)
        summary = next((item for item in found if item.get("message_type") == "summary"), None)
        if not summary or not summary.get("snapshot_id"):
            raise ToolError("restic said nothing of a snapshot")
        return Stored(summary["snapshot_id"], int(summary.get("data_added_packed", 0)))

    def snapshots(self) -> list[dict[str, Any]]:
        """Every snapshot of the repository. Raises `ToolError`."""
        return self._call("snapshots", "--json", "--no-lock", within=OPEN_SECONDS)

    def forget(self, snapshots: Sequence[str]) -> None:
        """Take snapshots out of the repository; those that are not there are none. Raises `ToolError`."""
        self._call("forget", f"--retry-lock={_LOCK_WAIT}", *snapshots)
        # It ends well though it cannot read one.
        if left := {item["id"] for item in self.snapshots()} & set(snapshots):
            raise ToolError(f"{len(left)} of {len(snapshots)} copies could not be removed")

    def check(self, part: int, parts: int) -> None:
        """Check the repository's structure, and one of so many parts of its data by checksums. Raises `ToolError`.

        `part` from 1 on; 0 reads none.
        """
        read = [f"--read-data-subset={part}/{parts}"] if part else []
        self._call("check", f"--retry-lock={_LOCK_WAIT}", *read)

    def prune(self) -> None:
        """Give back the space that no snapshot needs. Raises `ToolError`."""
        self._call("prune", f"--retry-lock={_LOCK_WAIT}")

    def restore(self, snapshot: str, folder: str, target: str) -> None:
        """Bring what is below `folder` in a snapshot to the folder `target`. Raises `ToolError`.

        It takes no lock: the repository may be one that can only be read.
        """
        self._call("restore", "--json", "--no-lock", f"{snapshot}:{folder}", f"--target={target}")

    def _call(self, *arguments: str, within: float = math.inf) -> list[dict[str, Any]]:
        """What restic said in JSON, progress told and left out. Raises `ToolError`."""
        found = []

        def hear(line: str) -> None:
            for item in _parsed(line):
                if item.get("message_type") != "status":
                    found.append(item)
                elif progress := progress_in(item):
                    self._tell(progress)

        # No cache: a pod that is new each time has nothing in it.
        self._program.call(["--no-cache"], *arguments, hear=hear, within=within)
        return found


def _parsed(line: str) -> list[dict[str, Any]]:
    """The objects of a line of JSON: it is one, or a list of them, or something else."""
    try:
        found = json.loads(line)
    except ValueError:
        return []
    return [item for item in (found if isinstance(found, list) else [found]) if isinstance(item, dict)]


def progress_in(item: Mapping[str, Any]) -> Progress | None:
    """The progress of a status line; None before the total is known."""
    if not item.get("total_bytes"):
        return None
    return Progress(
        done=int(item.get("bytes_done", item.get("bytes_restored", 0))),
        total=int(item["total_bytes"]),
        seconds=float(item.get("seconds_elapsed", 0)),
    )


def explained(code: int, said: str) -> str:
    """An exit code in words, with restic's own: by `exit_error` if it says so in JSON, else its last lines."""
    for item in (item for line in said.splitlines() for item in _parsed(line)):
        if item.get("message_type") == "exit_error":
            said = str(item.get("message") or "")
    meaning = _MEANINGS.get(code, f"restic ended with {code}")
    return f"{meaning}{because(said.splitlines())}"
