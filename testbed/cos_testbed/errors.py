"""The testbed's error tree.

TestbedError            something failed; the message names the thing and the fix
└── PrerequisiteError   the machine cannot run the testbed; nothing was changed
"""

from __future__ import annotations

from pathlib import Path

TAIL_LINES = 20


class TestbedError(Exception):
    """A failure to show to the user without a traceback.

    `log`, if given, is a file whose last lines explain the failure; they become part of the message.
    """

    __test__ = False
    exit_code = 1

    def __init__(self, message: str, *, log: Path | None = None) -> None:
        self.log = log
        tail = tail_of(log) if log else ""
        super().__init__(f"{message}\n--- last lines of {log} ---\n{tail}" if tail else message)


class PrerequisiteError(TestbedError):
    """The machine lacks something; raised before anything is changed."""

    exit_code = 2


def tail_of(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file; empty when it does not exist or holds nothing."""
    try:
        with log.open("rb") as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - 64 * 1024))
            text = f.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])
