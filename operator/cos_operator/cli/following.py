"""Following a probe or a backup to its end, with its own words as progress."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext

from cos_operator.cli import Manifest, output
from cos_operator.cli.errors import CliError, Interrupted, one_line
from cos_operator.cli.output import FAINT, Span, line
from cos_operator.kube import Kube, Unavailable

#: Seconds between two looks.
_EVERY = 1.0


async def follow(kube: Kube, created: Manifest, deadline: float, *, quietly: bool) -> Manifest:
    """The object as it has ended. Raises `CliError` when the deadline (monotonic) passes; it goes on then."""
    namespace, name, kind = created["metadata"]["namespace"], created["metadata"]["name"], created["kind"]
    what, found = kind.removeprefix("Stack").lower(), created
    began, shown = time.monotonic(), ""
    stop = f"kubectl delete {kind.lower()} {name} -n {namespace}"
    try:
        with nullcontext() if quietly or not output.is_terminal() else output.live() as live:
            while not (found.get("status") or {}).get("completionTime"):
                told = progress(found)
                if live:
                    live.update(
                        output.rendered(line(told, Span(f"  {time.monotonic() - began:.0f} s", FAINT)))
                    )
                    live.refresh()
                elif told != shown and not quietly:
                    output.note(told)
                shown = told
                if time.monotonic() >= deadline:
                    raise CliError(f"{what} {name} has not ended yet ({told}); it goes on: `{stop}` stops it")
                await asyncio.sleep(_EVERY)
                found = await _look(kube, kind, found, deadline)
    except asyncio.CancelledError:
        raise Interrupted(f"{what} {name} goes on; `{stop}` stops it") from None
    return found


async def _look(kube: Kube, kind: str, known: Manifest, deadline: float) -> Manifest:
    """The object as it is now. One answer that is missing does not end the wait; its time limit does."""
    metadata = known["metadata"]
    try:
        found = await kube.get(kind, metadata["namespace"], metadata["name"])
    except Unavailable:
        if time.monotonic() >= deadline:
            raise
        return known
    if found is None:
        raise CliError(f"{kind.removeprefix('Stack').lower()} {metadata['name']} was deleted")
    return found


def progress(obj: Manifest) -> str:
    """How far it is, in a line."""
    status = obj.get("status") or {}
    if not status:
        return "no operator has looked at it yet: does one run, and for this namespace?"
    return f"{status['phase']}: {one_line(status.get('message') or '')}".removesuffix(": ")
