"""What a backup's Job says while it runs and when it ends. The program in it loads this, and no Kubernetes client."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: The same everywhere: a fingerprint is to be compared by people.
_SALT = b"cos-operator backup key"
#: Bytes of a termination message that Kubernetes keeps.
LIMIT = 4096
#: Copies that a report has room for, at 560 bytes each at most.
MOST_FOUND = 7
#: Copies that are removed at once. There is one copy for one that was made, in the long run.
MOST_REMOVED = 40
#: In seconds since 1970: a clock that says more is wrong.
_YEAR_2100 = 4_102_444_800


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Facts(_Model):
    """What the engine's container found of the data that it copied.

    `moment`: of which the data is, in seconds since 1970. `version`: of the engine. `entries`: of Redis, keys; of
    Elasticsearch, documents; of Neo4j, the number of the last transaction; of Postgres, the position in its log (LSN).
    `bytes` and `sha256` are of the file or of the folder, as the engine's dump says; "" without such a checksum.
    """

    entries: Annotated[int, Field(ge=0, lt=2**63)]
    moment: Annotated[int, Field(gt=0, lt=_YEAR_2100)]
    version: Annotated[str, Field(min_length=1, max_length=32)]
    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]


class Report(_Model):
    """A copy that is in the repository. `stored`: bytes that it added; `key`: see `fingerprint`."""

    facts: Facts
    snapshot: Annotated[str, Field(min_length=8, max_length=64)]
    stored: Annotated[int, Field(ge=0, lt=2**63)]
    key: str


class Tidied(_Model):
    """A repository that was looked after. `checked`: it was found whole, and space was given back.

    `removed`: copies that are there no longer. The others are for next time: there were too many, or some that are to
    stay are built upon them.
    """

    checked: bool
    removed: Annotated[tuple[str, ...], Field(max_length=MOST_REMOVED)] = ()


class FoundCopy(_Model):
    """A copy that is in a repository, as its snapshot's tags tell it."""

    snapshot: Annotated[str, Field(min_length=8, max_length=64)]
    backup: Annotated[str, Field(max_length=63)]
    lineage: Annotated[str, Field(max_length=63)]
    facts: Facts
    key: str


class FoundCopies(_Model):
    """The copies that were looked for, the newest first, at least one."""

    copies: Annotated[tuple[FoundCopy, ...], Field(min_length=1, max_length=MOST_FOUND)]


class Loaded(_Model):
    """What the engine found on the volume that it was started on. `entries`: see `Facts`.

    `moment`: of the last change that its log told of, in seconds since 1970; 0 if it told of none.
    """

    entries: Annotated[int, Field(ge=0, lt=2**63)]
    moment: Annotated[int, Field(ge=0, lt=_YEAR_2100)] = 0


class Progress(_Model):
    """How far a copy is: bytes that were read, of all; seconds since it began."""

    done: int
    total: int
    seconds: float

    @property
    def percent(self) -> int:
        """Of the data, how much has been read."""
        return min(100 * self.done // self.total, 100) if self.total else 0

    @property
    def remaining(self) -> int | None:
        """Seconds for the rest, at the rate so far; None if there is none yet."""
        if not self.done:
            return None
        return max(round(self.seconds * (self.total - self.done) / self.done), 0)


def of_moment(seconds: int) -> str:
    """Seconds since 1970 as the API writes a moment."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def of_facts(facts: Facts) -> dict[str, Any]:
    """The facts by the names that they have in the status of a copy."""
    return {
        "engine_version": facts.version,
        "point_in_time": of_moment(facts.moment),
        "bytes": facts.bytes,
        "entries": facts.entries,
        "sha256": facts.sha256,
    }


def fingerprint(key: str) -> str:
    """Names a key without telling it: 16 hexadecimal digits of scrypt (RFC 7914).

    Slow on purpose: it stands in a status that many may read, and a key may be a sentence that a person has thought up.
    """
    return hashlib.scrypt(key.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=8).hex()


def last_progress(log: str) -> Progress | None:
    """The newest progress in the last lines of a log."""
    for line in reversed(log.splitlines()):
        try:
            return Progress.model_validate_json(line)
        except ValidationError:
            continue
    return None
