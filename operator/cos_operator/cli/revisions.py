"""The revisions of a stack for a person: which there are, what differs, and the way back to one.

Pure: from the stored history (see `cos_controllers.history`) to lines and data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from cos_controllers.history import History, Revision, read_history
from cos_controllers.observation import Snapshot, ref_of
from cos_controllers.parsing import InvalidStack, parse_stack
from cos_operator.cli import Manifest
from cos_operator.cli.documents import spec_diff
from cos_operator.cli.errors import CliError, one_line
from cos_operator.cli.output import BAD, GOOD, Line, Span, age, table
from cos_operator.cli.volumes import components_of


@dataclass(frozen=True)
class Past:
    """A stack's revisions, oldest first; the last is that of the present spec. `created` by revision's name.

    `is_stored`: whether the operator has stored the present spec already.
    """

    history: History
    created: Mapping[str, str]

    @property
    def revisions(self) -> tuple[Revision, ...]:
        """All of them, oldest first."""
        return self.history.revisions

    @property
    def is_stored(self) -> bool:
        """Whether the operator has stored the present spec as a revision yet."""
        return bool(self.history.current.uid)

    def numbered(self, number: int) -> Revision:
        """The revision of this number. Raises `CliError`."""
        for revision in self.revisions:
            if revision.number == number:
                return revision
        raise CliError(f"there is no revision {number}; there are: {', '.join(map(_number, self.revisions))}")


def read_past(stack: Manifest, stored: Sequence[Manifest]) -> Past:
    """The history of a live stack from its ControllerRevisions. Raises `CliError` if the spec is not valid."""
    try:
        parsed = parse_stack(stack)
    except InvalidStack as error:
        raise CliError(f"the stored spec breaks a rule: {error}: correct it first") from error
    history = read_history(parsed, Snapshot(objects={ref_of(obj): obj for obj in stored}))
    created = {obj["metadata"]["name"]: obj["metadata"].get("creationTimestamp", "") for obj in stored}
    return Past(history, created)


def history_data(past: Past) -> list[dict[str, Any]]:
    """The answer of `history -o json`, oldest first."""
    return [
        {
            "revision": revision.number,
            "name": revision.name,
            "created": past.created.get(revision.name),
            "current": revision is past.history.current,
            "changed": changed,
            "components": dict(revision.components),
            "good": dict(revision.good),
            "failed": {name: mark._asdict() for name, mark in revision.failed.items()},
        }
        for revision, changed in zip(past.revisions, _changes(past.revisions), strict=True)
    ]


def history_lines(past: Past, now: datetime) -> list[Line]:
    """A row per revision, oldest first, and why what failed did."""
    rows = []
    failures = []
    for revision, changed in zip(past.revisions, _changes(past.revisions), strict=True):
        current = revision is past.history.current
        served = f"{len(revision.good)}/{len(revision.components)}"
        complete = len(revision.good) == len(revision.components)
        rows.append(
            (
                f"{_number(revision)}{' *' if current else ''}",
                age(past.created.get(revision.name), now) or "-",
                Span(served, GOOD if complete else ""),
                Span(", ".join(revision.failed) or "-", BAD if revision.failed else ""),
                ", ".join(changed) or "-",
            )
        )
        for name, mark in revision.failed.items():
            text = f"{mark.reason}: {mark.message}"
            failures.append(
                f"revision {_number(revision)}, {name}: {one_line(text)} (taken back {mark.time})"
            )
    lines = table(("REVISION", "AGE", "SERVED", "FAILED", "CHANGED"), rows)
    return [*lines, *(Line((Span(text, BAD),)) for text in failures)]


def _number(revision: Revision) -> str:
    return str(revision.number)


def _changes(revisions: Sequence[Revision]) -> list[list[str]]:
    """What each revision changed of the one before: components by name, other parts of the spec as such.

    Of the first of all revisions, each component; nothing of one whose predecessor is forgotten.
    """
    found = [sorted(revisions[0].components) if revisions[0].number == 1 else []]
    for earlier, later in pairwise(revisions):
        before, after = components_of(earlier.spec), components_of(later.spec)
        names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        found.append([name if name in after else f"{name} removed" for name in names])
    return found


def compare(past: Past, start: int | None, end: int | None) -> tuple[Revision, Revision, list[str]]:
    """Two revisions and their unified diff: by default the last two, or `start` and the present one."""
    if start is None and len(past.revisions) == 1:
        raise CliError(f"there is only revision {_number(past.history.current)}: nothing to compare it with")
    old = past.revisions[-2] if start is None else past.numbered(start)
    new = past.history.current if end is None else past.numbered(end)
    names = (f"revision {_number(old)}", f"revision {_number(new)}")
    return old, new, spec_diff(old.spec, new.spec, names)


def restored(stack: Manifest, past: Past, revision: Revision) -> Manifest:
    """The stack with those parts of its spec put back that a revision holds; all others stay as they are written."""
    present, spec = past.history.current.spec, stack["spec"]
    changed = {key: value for key, value in revision.spec.items() if present.get(key) != value}
    kept = {key: value for key, value in spec.items() if key not in set(present) - set(revision.spec)}
    return {**stack, "spec": {**kept, **changed}}


def previous(past: Past) -> Revision:
    """The revision before the present one. Raises `CliError`."""
    if len(past.revisions) == 1:
        raise CliError(f"there is only revision {_number(past.history.current)}: nothing to go back to")
    return past.revisions[-2]


def doubts(stack: Manifest, revision: Revision) -> list[str]:
    """What a person should know before going back to a revision."""
    found = [
        f"revision {_number(revision)} did not serve when it was tried: {name}: {mark.reason}: {one_line(mark.message)}"
        for name, mark in revision.failed.items()
    ]
    unproven = sorted(set(revision.components) - set(revision.good) - set(revision.failed))
    if unproven:
        found.append(f"revision {_number(revision)} is not known to have served: {', '.join(unproven)}")
    if stack["spec"].get("paused"):
        found.append("spec.paused is true: nothing happens until `kubectl cos resume`")
    return found
