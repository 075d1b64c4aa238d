"""Keep a copy of a stack's data: `backup` creates a StackBackup, follows it, and shows what was copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.filesize import decimal

from cos_operator.cli import Manifest, output
from cos_operator.cli.errors import one_line
from cos_operator.cli.following import Operation, carry_out
from cos_operator.cli.output import BAD, GOOD, Line, Span, line
from cos_operator.cli.session import Target

_STYLES = {"Succeeded": GOOD, "Failed": BAD}


@dataclass(frozen=True)
class Wish:
    """What is to be copied, and where to; see `StackBackup`."""

    components: Sequence[str] = ()
    repository: str = ""
    allow_downtime: bool = False

    def spec(self, stack: str) -> Manifest:
        """The spec of the backup."""
        return {
            "stackRef": {"name": stack},
            "components": list(self.components),
            "repository": self.repository,
            "allowDowntime": self.allow_downtime,
        }


async def backup(target: Target, wish: Wish, *, timeout: float, as_json: bool) -> int:  # noqa: ASYNC109 - told to people
    """Create a backup and wait for its end, for so many seconds; 0 if it has succeeded, else 1."""
    wanted = Operation("StackBackup", wish.spec, lines, "Succeeded")
    return await carry_out(target, wanted, timeout=timeout, as_json=as_json)


def lines(status: Manifest) -> Iterator[Line]:
    """What was copied: a table of components, and how it ended."""
    phase = status.get("phase", "Pending")
    rows = status.get("components") or []
    if rows:
        header = ("COMPONENT", "PHASE", "POINT IN TIME", "ENTRIES", "SIZE", "STORED", "SNAPSHOT")
        yield from output.table(header, [_row(row) for row in rows])
        yield line()
    yield line(Span(phase, _STYLES.get(phase, "")), f": {one_line(status.get('message') or '')}")


def _row(row: Manifest) -> list[str | Span]:
    phase = row.get("phase", "Pending")
    return [
        row["name"],
        Span(phase, _STYLES.get(phase, "")),
        row.get("pointInTime") or "-",
        str(row.get("entries", "-")),
        _size(row.get("bytes")),
        _size(row.get("storedBytes")),
        (row.get("snapshot") or "-")[:8],
    ]


def _size(count: int | None) -> str:
    return "-" if count is None else decimal(count)
