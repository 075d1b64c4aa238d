"""Keep a copy of a stack's data: `backup` creates a StackBackup, follows it, and shows what was copied."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.filesize import decimal

from cos_controllers.names import API_VERSION
from cos_operator.cli import Manifest, output
from cos_operator.cli.errors import one_line
from cos_operator.cli.following import follow
from cos_operator.cli.output import BAD, GOOD, Line, Span, line
from cos_operator.cli.session import Target, connected, find
from cos_operator.kube import Kube

_STYLES = {"Succeeded": GOOD, "Failed": BAD}


async def backup(
    target: Target,
    components: Sequence[str],
    repository: str,
    *,
    timeout: float,  # noqa: ASYNC109 - told to people
    as_json: bool,
) -> int:
    """Create a backup and wait for its end, for so many seconds; 0 if it has succeeded, else 1."""
    async with connected(target, Kube) as (kube, namespace):
        stack = await find(kube, namespace, target.name)
        name, home = stack["metadata"]["name"], stack["metadata"]["namespace"]
        body = {
            "apiVersion": API_VERSION,
            "kind": "StackBackup",
            "metadata": {"generateName": f"{name}-", "namespace": home},
            "spec": {"stackRef": {"name": name}, "components": list(components), "repository": repository},
        }
        created = await kube.create(body)
        if not as_json:
            output.note(f"StackBackup {created['metadata']['name']} is created")
        found = await follow(kube, {**body, **created}, time.monotonic() + timeout, quietly=as_json)
    status = found.get("status") or {}
    if as_json:
        output.show_json({"name": found["metadata"]["name"], "namespace": home, "status": status})
    else:
        output.show(list(lines(status)))
    return 0 if status.get("phase") == "Succeeded" else 1


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
