"""What Jobs do with a repository: store a copy, find one, fetch one, and tidy up. Progress goes to standard output."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

from cos_controllers.backups.order import Fetch, Find, Order, Tidy, Tool
from cos_controllers.backups.report import LIMIT, MOST_FOUND, FoundCopies, FoundCopy, Progress, Report, Tidied
from cos_operator.backup.files import CopyError
from cos_operator.backup.program import ToolError, end_all
from cos_operator.backup.with_pgbackrest import PostgresCopies
from cos_operator.backup.with_restic import SnapshotCopies

#: What Kubernetes shows of a container that has ended.
TERMINATION_LOG = Path("/dev/termination-log")


class Copies(Protocol):
    """The copies of a component in a repository. All of it raises `CopyError` and `ToolError`."""

    def copy(self, order: Order) -> Report:
        """Store one."""

    def found(self, order: Find) -> list[FoundCopy]:
        """All that there are."""

    def fetch(self, order: Fetch) -> None:
        """Bring one to where the engine finds it."""

    def tidy(self, order: Tidy) -> Tidied:
        """Take some out, check the repository and give space back."""


def run(order: Order, root: Path = Path("/"), report: Path = TERMINATION_LOG) -> int:
    """Carry out the order and write the report, or why there is none; 0 or 1. `root`: of the container's paths.

    SIGTERM ends it early, without a copy.
    """
    return _reported(lambda: _copies(order.tool, root).copy(order).model_dump_json(), report)


def fetch(order: Fetch, root: Path = Path("/"), report: Path = TERMINATION_LOG) -> int:
    """Bring a copy to where the engine's tool loads it from; 0 or 1. SIGTERM ends it early."""

    def work() -> str:
        _copies(order.tool, root).fetch(order)
        return ""

    return _reported(work, report)


def tidy(order: Tidy, root: Path = Path("/"), report: Path = TERMINATION_LOG) -> int:
    """Take copies out of a repository, check it and give space back; 0 or 1. SIGTERM ends it early."""
    return _reported(lambda: _copies(order.tool, root).tidy(order).model_dump_json(), report)


def find(order: Find, root: Path = Path("/"), report: Path = TERMINATION_LOG) -> int:
    """Say which copies a repository has; 0 or 1. SIGTERM ends it early."""
    return _reported(lambda: chosen(_copies(order.tool, root).found(order), order).model_dump_json(), report)


def chosen(known: Iterable[FoundCopy], order: Find) -> FoundCopies:
    """The newest copies that an order asks for. Raises `CopyError` without any."""
    known = list(known)
    asked = [copy for copy in known if order.backup in {"", copy.backup}]
    wanted = [copy for copy in asked if order.before is None or copy.facts.moment <= order.before]
    if not wanted:
        raise CopyError(f"the repository has {len(known)} copies of it, and none that is asked for")
    wanted.sort(key=lambda copy: copy.facts.moment, reverse=True)
    return FoundCopies(copies=tuple(wanted[:MOST_FOUND]))


def _copies(tool: Tool, root: Path) -> Copies:
    kind = PostgresCopies if tool is Tool.PGBACKREST else SnapshotCopies
    return kind(root, _tell)


def _reported(work: Callable[[], str], report: Path) -> int:
    """Do it and write what it says, or why it could not be done; 0 or 1."""
    signal.signal(signal.SIGTERM, _stopped)
    try:
        text, code = work(), 0
    except (CopyError, ToolError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        text, code = str(error)[:LIMIT], 1
    if text:
        report.write_text(text)
    return code


def _tell(progress: Progress) -> None:
    sys.stdout.write(f"{progress.model_dump_json()}\n")
    sys.stdout.flush()


def _stopped(_number: int, _frame: FrameType | None) -> NoReturn:
    """The pod is being deleted. A tool, which gets no signal of kubelet, takes its lock away and leaves no copy."""
    end_all()
    os._exit(1)
