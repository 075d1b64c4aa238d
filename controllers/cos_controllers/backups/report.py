"""What a backup's Job says while it runs and when it ends. The program in it loads this, and no Kubernetes client."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: Bytes of a termination message that Kubernetes keeps.
LIMIT = 4096


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Facts(_Model):
    """What the engine's container found of the data that it copied.

    `moment`: of which the data is, in seconds since 1970. `version`: of the engine. `entries`: of Redis, keys. `bytes`
    and `sha256` are of the file.
    """

    entries: Annotated[int, Field(ge=0)]
    moment: Annotated[int, Field(gt=0)]
    version: Annotated[str, Field(min_length=1, max_length=32)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Report(_Model):
    """A copy that is in the repository. `stored`: bytes that it added; `key`: see `fingerprint`."""

    facts: Facts
    snapshot: Annotated[str, Field(min_length=8, max_length=64)]
    stored: int
    key: str


class Loaded(_Model):
    """What the engine found on the volume that it was started on. `entries`: see `Facts`."""

    entries: Annotated[int, Field(ge=0)]


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


def fingerprint(key: str) -> str:
    """Names a key without telling it: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def last_progress(log: str) -> Progress | None:
    """The newest progress in the last lines of a log."""
    for line in reversed(log.splitlines()):
        try:
            return Progress.model_validate_json(line)
        except ValidationError:
            continue
    return None
