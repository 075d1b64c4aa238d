"""How a stack is, and whether changes happen: `status`, `pause`, `resume`."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cos_operator.cli import Manifest, output
from cos_operator.cli.ownership import source_of
from cos_operator.cli.session import Target, connected, find, replace_spec
from cos_operator.cli.status import status_data, status_tree, verdict
from cos_operator.kube import Kube, Unavailable

if TYPE_CHECKING:
    from rich.live import Live

#: Seconds between two looks of `--watch`.
_EVERY = 2.0


async def status(target: Target, *, as_json: bool, watch: float | None) -> int:
    """Print how a stack is; 0 if it is Ready, else 1. With `watch` follow it until then, for so many seconds."""
    async with connected(target, Kube) as (kube, namespace):
        stack = await find(kube, namespace, target.name)
        if watch is not None and not verdict(stack).ready:
            stack = await _follow(kube, stack, time.monotonic() + watch, quietly=as_json)
        elif not as_json:
            output.show([status_tree(stack, datetime.now(UTC))])
    if as_json:
        output.show_json(status_data(stack))
    return 0 if verdict(stack).ready else 1


async def _follow(kube: Kube, stack: Manifest, deadline: float, *, quietly: bool) -> Manifest:
    """Look again until the stack is Ready or the time is up, and show each change."""
    namespace, name = stack["metadata"]["namespace"], stack["metadata"]["name"]
    shown: Any = None
    with nullcontext() if quietly or not output.is_terminal() else output.live() as live:
        while True:
            if not quietly:
                _show_change(stack, shown, live)
            shown = status_data(stack)
            if verdict(stack).ready or time.monotonic() >= deadline:
                return stack
            await asyncio.sleep(min(_EVERY, max(deadline - time.monotonic(), 0)))
            try:
                stack = await find(kube, namespace, name)
            except Unavailable:
                # One answer that is missing does not end the watch; its time limit does.
                if time.monotonic() >= deadline:
                    raise


def _show_change(stack: Manifest, shown: Any, live: Live | None) -> None:
    """In place on a terminal, else once more for each change."""
    tree = status_tree(stack, datetime.now(UTC))
    if live:
        live.update(output.rendered(tree), refresh=True)
    elif status_data(stack) != shown:
        output.show([tree])


async def set_paused(target: Target, *, paused: bool, as_json: bool) -> int:
    """Set `spec.paused` as the person."""
    async with connected(target, Kube) as (kube, namespace):
        stack = await find(kube, namespace, target.name)
        name, source = stack["metadata"]["name"], source_of(stack)
        changed = bool(stack["spec"].get("paused")) is not paused
        if changed:
            await replace_spec(kube, stack, {**stack, "spec": {**stack["spec"], "paused": paused}})
    if as_json:
        output.show_json(
            {
                "name": name,
                "namespace": stack["metadata"]["namespace"],
                "paused": paused,
                "changed": changed,
                "warnings": [source.warning] if changed else [],
            }
        )
        return 0
    state = (
        "paused: the operator changes nothing" if paused else "not paused: the operator brings it to its spec"
    )
    output.show([output.line(f"CosStack {name} is {'now' if changed else 'already'} {state}")])
    if changed:
        output.note(source.warning)
    return 0
