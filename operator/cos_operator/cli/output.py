"""Lines for a person: a tree and colours on a terminal, plain indented text anywhere else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

#: Styles, by what they say.
GOOD, BAD, WAITS, FAINT, STRONG = "green", "red", "yellow", "dim", "bold"

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class Span(NamedTuple):
    """Some text in one style."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Line:
    """A line, and those below it that say more."""

    spans: tuple[Span, ...]
    below: tuple[Line, ...] = ()

    @property
    def text(self) -> str:
        """The line without styles."""
        return "".join(span.text for span in self.spans).rstrip()


def line(*parts: str | Span, below: Sequence[Line] = ()) -> Line:
    """A line of texts and spans."""
    return Line(tuple(Span(part) if isinstance(part, str) else part for part in parts), tuple(below))


def plain(item: Line, depth: int = 0) -> Iterator[str]:
    """A line and those below it, by two spaces a level."""
    yield "  " * depth + item.text
    for child in item.below:
        yield from plain(child, depth + 1)


def table(header: Sequence[str], rows: Sequence[Sequence[str | Span]]) -> list[Line]:
    """Columns as wide as their widest cell, as `kubectl get` prints them."""
    cells = [[cell if isinstance(cell, Span) else Span(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *_texts(cells), strict=True)]

    def padded(row: Sequence[Span]) -> Line:
        return line(
            *(
                Span(cell.text.ljust(width) + "   ", cell.style)
                for cell, width in zip(row, widths, strict=True)
            )
        )

    return [padded([Span(name) for name in header]), *map(padded, cells)]


def _texts(rows: Sequence[Sequence[Span]]) -> list[list[str]]:
    return [[cell.text for cell in row] for row in rows]


def diff_line(text: str) -> Line:
    """A line of a unified diff in the usual colours."""
    styles = {"---": STRONG, "+++": STRONG, "@@ ": "cyan", "+": GOOD, "-": BAD}
    return line(Span(text, next((style for sign, style in styles.items() if text.startswith(sign)), "")))


def age(since: str | None, now: datetime) -> str:
    """Time since an RFC 3339 moment as Kubernetes shows it: 12s, 3m, 2h, 5d; "" without one."""
    if not since:
        return ""
    seconds = max(int((now - datetime.fromisoformat(since)).total_seconds()), 0)
    for limit, unit, sign in ((_MINUTE, 1, "s"), (_HOUR, _MINUTE, "m"), (2 * _DAY, _HOUR, "h")):
        if seconds < limit:
            return f"{seconds // unit}{sign}"
    return f"{seconds // _DAY}d"


def show(lines: Sequence[Line]) -> None:
    """Print to standard output."""
    if not is_terminal():
        sys.stdout.write("".join(f"{text}\n" for item in lines for text in plain(item)))
        return
    console = _console()
    for item in lines:
        console.print(rendered(item), soft_wrap=not item.below)


def live() -> Live:
    """A place on the terminal that is written again and again."""
    from rich.live import Live  # noqa: PLC0415 - only a terminal needs it

    return Live(console=_console(), auto_refresh=False)


def show_json(value: Any) -> None:
    """Print data as JSON to standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """Tell the person something that is no part of the answer, on standard error."""
    sys.stderr.write(f"{text}\n")


def is_terminal() -> bool:
    """Whether standard output understands colours and lines."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def rendered(item: Line) -> RenderableType:
    """A line for rich: a tree if there are lines below it."""
    from rich.text import Text  # noqa: PLC0415 - only a terminal needs it
    from rich.tree import Tree  # noqa: PLC0415 - likewise

    text = Text.assemble(*item.spans)
    text.rstrip()
    if not item.below:
        return text
    tree = Tree(text, guide_style=FAINT)
    for child in item.below:
        tree.add(rendered(child))
    return tree


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it

    # Rich reads NO_COLOR itself. What it would guess to be a number, a path or markup is neither.
    return Console(highlight=False, markup=False, emoji=False)
