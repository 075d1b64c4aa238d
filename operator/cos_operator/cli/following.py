"""A probe, a backup or a restore: created, followed to its end with its own words as progress, and shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from cos_controllers.names import API_VERSION
from cos_operator.cli import Manifest, output
from cos_operator.cli.errors import CliError, Interrupted, one_line
from cos_operator.cli.output import FAINT, Line, Span, line
from cos_operator.cli.session import Target, connected, find
from cos_operator.kube import Kube, Unavailable

#: Seconds between two looks.
_EVERY = 1.0


@dataclass(frozen=True)
class Operation:
    """What is created, followed, and shown once it has ended.

    `lines`: of its status; `good`: the phase that it is to be in then.
    """

    kind: str
    spec: Callable[[str], Manifest]
    lines: Callable[[Manifest], Iterator[Line]]
    good: str


async def carry_out(target: Target, operation: Operation, *, timeout: float, as_json: bool) -> int:  # noqa: ASYNC109 - told to people
    """Create it for the stack and wait for its end, for so many seconds; 0 if all was well, else 1."""
    async with connected(target, Kube) as (kube, namespace):
        stack = await find(kube, namespace, target.name)
        name, home = stack["metadata"]["name"], stack["metadata"]["namespace"]
        body = {
            "apiVersion": API_VERSION,
            "kind": operation.kind,
            "metadata": {"generateName": f"{name}-", "namespace": home},
            "spec": operation.spec(name),
        }
        created = await kube.create(body)
        if not as_json:
            output.note(f"{operation.kind} {created['metadata']['name']} is created")
        found = await follow(kube, {**body, **created}, time.monotonic() + timeout, quietly=as_json)
    status = found.get("status") or {}
    if as_json:
        output.show_json({"name": found["metadata"]["name"], "namespace": home, "status": status})
    else:
        output.show(list(operation.lines(status)))
    return 0 if status.get("phase") == operation.good else 1


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
