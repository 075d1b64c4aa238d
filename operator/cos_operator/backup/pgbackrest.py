"""pgBackRest as a program: what it is asked, and what it says of a repository (2.55, `info --output=json`)."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cos_controllers.backups.report import Progress
from cos_operator.backup.program import Program, ToolError, because

#: Seconds for a repository to answer at all.
OPEN_SECONDS = 120.0
#: Seconds between two lines of progress.
_PROGRESS_SECONDS = 5.0
#: What its lines of detail say of how far it is: "backup file …/base/1/2619 (bundle 1/8192, 24KB, 97.53%) checksum …".
_PERCENT = re.compile(r"DETAIL: (?:backup|restore) file .*, (\d+\.\d+)%\)")
#: What a service that speaks S3 says of an error.
_ANSWER = re.compile(r"<Code>([^<]*)</Code>.*?<Message>([^<]*)</Message>", re.DOTALL)
#: Exit codes that mean something of their own (pgBackRest's src/build/error/error.yaml).
_FORMAT, _FILE_MISSING = 29, 55
_LABEL = re.compile(r"\d{8}-\d{6}F")
_ANOTHER_KEY = "the repository was written with another key than the one that is given"


@dataclass(frozen=True)
class Made:
    """A backup that is in a repository.

    `lineage`: its stanza; `needs`: the labels of those that it is built upon; `lsn` and `moment` (seconds since 1970)
    of its end; `size` and `added`: bytes of the data, and in the repository; `damaged`: pages failed their checksum.
    """

    lineage: str
    label: str
    annotations: Mapping[str, str]
    needs: tuple[str, ...]
    version: str
    lsn: int
    moment: int
    size: int
    added: int
    damaged: bool

    @property
    def is_full(self) -> bool:
        """Whether it is built upon no other."""
        return self.label.endswith("F")


class Place(NamedTuple):
    """The stanzas of a repository, by their names what is wrong with each ("" if nothing is), and their backups."""

    stanzas: Mapping[str, str]
    backups: Sequence[Made]


class PgBackRest:
    """Calls of pgBackRest on one repository, all of them within `limit` seconds from now.

    `environment`: what it needs to know. `tell` gets each progress.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        limit: float,
        tell: Callable[[Progress], None] = lambda _: None,
        program: str = "pgbackrest",
    ) -> None:
        self._program = Program(program, environment, limit, explained)
        self._tell = tell

    def info(self) -> Place:
        """What the repository has, of all volumes. Raises `ToolError`."""
        said: list[str] = []
        self._call("info", "--output=json", hear=said.append, within=OPEN_SECONDS)
        try:
            return place_in(json.loads("".join(said)))
        except (ValueError, KeyError, TypeError) as error:
            raise ToolError(f"what pgBackRest said of the repository cannot be read: {error}") from error

    def open(self, lineage: str) -> None:
        """Make the stanza of a volume if there is none, and see a part of its log arrive. Raises `ToolError`."""
        try:
            self._call("stanza-create", f"--stanza={lineage}", within=OPEN_SECONDS)
        except ToolError as error:
            if "NoSuchBucket" in str(error):
                told = "the bucket does not exist: create it, since pgBackRest makes none"
                raise ToolError(told, error.code) from error
            if error.code != _FILE_MISSING or self._has_backups(lineage):
                raise
            # Somebody was killed while it was made.
            for command in ("stop", "stanza-delete --force", "start", "stanza-create"):
                name, *options = command.split()
                self._call(name, f"--stanza={lineage}", *options, within=OPEN_SECONDS)
        self._call("check", f"--stanza={lineage}")

    def _has_backups(self, lineage: str) -> bool:
        """Whether there is anything of a backup in a stanza, listed or not."""
        found: list[str] = []
        self._call("repo-ls", f"backup/{lineage}", hear=found.append, within=OPEN_SECONDS)
        return any(_LABEL.match(line) for line in found)

    def backup(self, lineage: str, *, full: bool, annotations: Mapping[str, str], size: int) -> None:
        """Make a backup, of all or of what has changed since the last full one. Raises `ToolError`.

        `size`: bytes of the data, for the progress.
        """
        self._call(
            "backup",
            f"--stanza={lineage}",
            f"--type={'full' if full else 'diff'}",
            # What goes is decided elsewhere.
            "--no-expire-auto",
            "--log-level-console=detail",
            *(f"--annotation={name}={value}" for name, value in annotations.items()),
            hear=self._hearing(size),
        )

    def restore(self, lineage: str, label: str, folder: str, size: int) -> None:
        """Bring a backup to an empty folder, without any order to recover. Raises `ToolError`."""
        self._call(
            "restore",
            f"--stanza={lineage}",
            f"--set={label}",
            f"--pg1-path={folder}",
            "--type=none",
            "--log-level-console=detail",
            hear=self._hearing(size),
        )

    def expire(self, lineage: str, label: str) -> None:
        """Remove a backup and all that is built upon it; one that is not there is none. Raises `ToolError`."""
        self._call("expire", f"--stanza={lineage}", f"--set={label}", "--log-level-console=error")

    def trim(self, lineage: str, full: int) -> None:
        """Remove the log from before the oldest of so many full backups, which are all. Raises `ToolError`.

        No backup goes with it, whatever has been made since they were counted.
        """
        keep = ("--repo1-retention-full=9999999", "--repo1-retention-archive-type=full")
        self._call("expire", f"--stanza={lineage}", *keep, f"--repo1-retention-archive={full}")

    def verify(self, lineage: str, label: str = "") -> None:
        """Read the log and the backups, or one of them, and compare checksums. Raises `ToolError`."""
        said: list[str] = []
        chosen = [f"--set={label}"] if label else []
        self._call("verify", f"--stanza={lineage}", "--output=text", *chosen, hear=said.append)
        if any(line.strip() == "status: error" for line in said):
            raise ToolError(f"the repository is not whole{because(said)}")

    def _hearing(self, size: int) -> Callable[[str], None]:
        """What turns lines of detail into progress, not more often than it is read."""
        began, told = time.monotonic(), -math.inf

        def hear(line: str) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= _PROGRESS_SECONDS and (found := _PERCENT.search(line)):
                told = now
                done = int(size * float(found.group(1)) / 100)
                self._tell(Progress(done=done, total=size, seconds=now - began))

        return hear

    def _call(
        self, *arguments: str, hear: Callable[[str], None] = lambda _: None, within: float = math.inf
    ) -> None:
        errors: list[str] = []

        def listen(line: str) -> None:
            # It says everything on standard output, its errors too.
            if "ERROR: [" in line or errors:
                errors.append(line)
            hear(line)

        try:
            self._program.call((), *arguments, hear=listen, within=within)
        except ToolError as error:
            if error.code == _FORMAT and "FormatError" in "".join(errors):
                raise ToolError(_ANOTHER_KEY, error.code) from None
            raise ToolError(f"{error}{because(_first(errors))}", error.code) from None


def place_in(stanzas: Sequence[Mapping[str, Any]]) -> Place:
    """What `info --output=json` says. Raises KeyError, TypeError and ValueError for what is none of it."""
    return Place(
        {stanza["name"]: _wrong_with(stanza) for stanza in stanzas},
        [made for stanza in stanzas for made in _backups(stanza)],
    )


def _wrong_with(stanza: Mapping[str, Any]) -> str:
    """Why nothing is known of a stanza: its key is another one, it cannot be reached. 2 is without backups."""
    status = stanza["status"]
    if status["code"] in {0, 2}:
        return ""
    told = [repo["status"]["message"] for repo in stanza.get("repo") or () if repo["status"]["code"]]
    if any("FormatError" in text or "CryptoError" in text for text in told):
        return _ANOTHER_KEY
    return because(_first(told) or [status["message"]])[2:]


def _backups(stanza: Mapping[str, Any]) -> Iterator[Made]:
    versions = {item["id"]: item["version"] for item in stanza.get("db") or ()}
    for item in stanza.get("backup") or ():
        yield Made(
            lineage=stanza["name"],
            label=item["label"],
            annotations=item.get("annotation") or {},
            needs=tuple(item.get("reference") or ()),
            version=versions[item["database"]["id"]],
            lsn=position(item["lsn"]["stop"]),
            moment=item["timestamp"]["stop"],
            size=item["info"]["size"],
            added=item["info"]["repository"]["delta"],
            damaged=bool(item.get("error")),
        )


def position(lsn: str) -> int:
    """A position in the log as a number: "16/B374D848" is 0x16B374D848."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def explained(code: int, said: str) -> str:
    """An exit code in words."""
    return f"pgBackRest ended with {code}{because(said.splitlines())}"


def _first(lines: Sequence[str]) -> list[str]:
    """An error without the hints after it, and nothing of what it found where text should be."""
    kept = []
    for line in "\n".join(lines).splitlines():
        if "HINT:" in line:
            break
        kept.append(line.partition("ERROR: ")[2] or line)
    # Of an answer over HTTP what it means, not all of it.
    meant = [" ".join(match) for match in _ANSWER.findall("\n".join(lines))]
    return [*kept[:1], *meant] if meant else kept[:3]
