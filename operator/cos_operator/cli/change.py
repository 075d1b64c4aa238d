"""What a stack was: `history` and `diff`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cos_controllers.names import stack_selector
from cos_operator.cli import Manifest, output
from cos_operator.cli.errors import CliError
from cos_operator.cli.revisions import (
    Past,
    compare,
    history_data,
    history_lines,
    read_past,
)
from cos_operator.cli.session import Target, connected, find
from cos_operator.kube import Kube


async def history(target: Target, *, as_json: bool) -> int:
    """Print the revisions of a stack."""
    async with connected(target, Kube) as (kube, namespace):
        past = await read_revisions(kube, await find(kube, namespace, target.name))
    if as_json:
        output.show_json(history_data(past))
    else:
        output.show(history_lines(past, datetime.now(UTC)))
    return 0


async def diff(target: Target, start: int | None, end: int | None, *, as_json: bool) -> int:
    """Print the difference of two revisions."""
    async with connected(target, Kube) as (kube, namespace):
        past = await read_revisions(kube, await find(kube, namespace, target.name))
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


async def read_revisions(kube: Kube, stack: Manifest) -> Past:
    """The history of a live stack. Raises `CliError`, and `KubeError`."""
    metadata = stack["metadata"]
    selector = stack_selector(metadata["name"])
    return read_past(stack, await kube.list("ControllerRevision", metadata["namespace"], selector))


def revisions_in(words: Sequence[str]) -> tuple[str, int | None, int | None]:
    """Name, FROM and TO of ``[NAME] [FROM] [TO]``: the name of a stack begins with a letter. Raises `CliError`."""
    name = words[0] if words and not words[0].isdecimal() else ""
    numbers = words[1:] if name else words
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):  # noqa: PLR2004 - FROM and TO
        raise CliError("say: kubectl cos diff [NAME] [FROM] [TO], FROM and TO being numbers of revisions")
    start, end = [*(int(number) for number in numbers), None, None][:2]
    return name, start, end
