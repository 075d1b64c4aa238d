"""What a stack was, and the way back: `history`, `diff`, `rollback`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from cos_controllers.names import stack_selector
from cos_operator.cli import Manifest, output
from cos_operator.cli.documents import spec_diff
from cos_operator.cli.errors import CliError
from cos_operator.cli.ownership import source_of
from cos_operator.cli.revisions import (
    Past,
    compare,
    doubts,
    history_data,
    history_lines,
    previous,
    read_past,
    restored,
)
from cos_operator.cli.session import Target, connected, find, replace_spec
from cos_operator.kube import Kube


async def history(target: Target, *, as_json: bool) -> int:
    """Print the revisions of a stack."""
    async with connected(target, Kube) as (kube, namespace):
        past = await _past(kube, await find(kube, namespace, target.name))
    if as_json:
        output.show_json(history_data(past))
    else:
        output.show(history_lines(past, datetime.now(UTC)))
    return 0


async def diff(target: Target, start: int | None, end: int | None, *, as_json: bool) -> int:
    """Print the difference of two revisions."""
    async with connected(target, Kube) as (kube, namespace):
        past = await _past(kube, await find(kube, namespace, target.name))
    old, new, lines = compare(past, start, end)
    if as_json:
        output.show_json(
            {
                "from": {"revision": old.number, "spec": old.spec},
                "to": {"revision": new.number, "spec": new.spec},
                "diff": lines,
            }
        )
    else:
        output.show([output.diff_line(text) for text in lines])
        if not lines:
            output.note(f"revisions {old.number} and {new.number} are the same")
    return 0


async def rollback(target: Target, to: int | None, *, yes: bool, as_json: bool) -> int:
    """Write an earlier revision's part of the spec back, as the person, who confirms it."""
    async with connected(target, Kube) as (kube, namespace):
        stack = await find(kube, namespace, target.name)
        past = await _past(kube, stack)
    revision = previous(past) if to is None else past.numbered(to)
    changed = restored(stack, past, revision)
    name = stack["metadata"]["name"]
    lines = spec_diff(stack["spec"], changed["spec"], ("present spec", f"revision {revision.number}"))
    warnings = [*doubts(stack, revision), source_of(stack).warning] if lines else []
    if not as_json:
        output.show([output.diff_line(text) for text in lines])
        for warning in warnings:
            output.note(f"note: {warning}")
    if lines:
        if not yes:
            _confirm(f"Roll CosStack {name} back to revision {revision.number}?")
        # Another connection: the first would have waited, idle, for the person.
        async with connected(target, Kube) as (kube, _):
            await replace_spec(kube, stack, changed)
    if as_json:
        output.show_json(
            {
                "name": name,
                "namespace": stack["metadata"]["namespace"],
                "revision": revision.number,
                "changed": bool(lines),
                "diff": lines,
                "warnings": warnings,
            }
        )
    elif lines:
        follow = f"follow it with: kubectl cos status {name} -n {stack['metadata']['namespace']} --watch"
        output.show(
            [output.line(f"CosStack {name} has the spec of revision {revision.number} again; {follow}")]
        )
    else:
        output.show([output.line(f"CosStack {name} has the spec of revision {revision.number} already")])
    return 0


async def _past(kube: Kube, stack: Manifest) -> Past:
    metadata = stack["metadata"]
    selector = stack_selector(metadata["name"])
    return read_past(stack, await kube.list("ControllerRevision", metadata["namespace"], selector))


def _confirm(question: str) -> None:
    """Ask the person. Raises `CliError` if the answer is no, or nobody is there to ask."""
    if not sys.stdin.isatty():
        raise CliError("standard input is no terminal, so nobody can be asked: repeat the command with --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CliError("nothing was changed")


def revisions_in(words: Sequence[str]) -> tuple[str, int | None, int | None]:
    """Name, FROM and TO of ``[NAME] [FROM] [TO]``: the name of a stack begins with a letter. Raises `CliError`."""
    name = words[0] if words and not words[0].isdecimal() else ""
    numbers = words[1:] if name else words
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):  # noqa: PLR2004 - FROM and TO
        raise CliError("say: kubectl cos diff [NAME] [FROM] [TO], FROM and TO being numbers of revisions")
    start, end = [*(int(number) for number in numbers), None, None][:2]
    return name, start, end
