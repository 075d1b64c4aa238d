"""What the operator asks of an engine by its own protocol."""

from __future__ import annotations

from typing import Protocol

from cos_controllers.observation import CheckResult, CheckTarget, Facts, Usage

#: A check ends by itself within this time: an engine that needs longer does not serve.
CHECK_SECONDS = 3.0

#: An examination ends within this time. Nobody waits for it.
EXAMINE_SECONDS = 10.0

#: Share of a volume, in percent, from which on nothing is written to find out whether it can be: what is left is for
#: applications.
NO_WRITES_PERCENT = 95
NOT_WRITTEN = "nothing was written: the volume is nearly full"

#: Limit of one attempt to make the application's account.
PROVISION_SECONDS = 20.0


#: Limit of one attempt to clear what probes left. What is left of it is for the next attempt.
TIDY_SECONDS = 20.0


class EngineError(Exception):
    """An engine refused or failed to do something. The message is for a person and holds no secret."""


def is_nearly_full(storage: Usage | None) -> bool:
    """Whether a volume is known to have no room for trying."""
    return storage is not None and storage.used * 100 >= storage.limit * NO_WRITES_PERCENT


class Asked(Protocol):
    """An engine, or what is known of one, that says whether it serves."""

    async def check(self, target: CheckTarget) -> CheckResult:
        """Ask as the application would, within `CHECK_SECONDS`. Never raises for what an engine does."""


class BackupClient(Protocol):
    """Client of an engine of which there are backups."""

    async def admit_backup(self, target: CheckTarget) -> None:
        """See to it that the backup user can log in. Idempotent; ends within `PROVISION_SECONDS`.

        Raises `EngineError` if it cannot yet.
        """


class EngineClient(Asked, Protocol):
    """Client of one engine. Implementations are stateless and open their own short connections."""

    async def examine(self, target: CheckTarget) -> Facts:
        """Find out what an engine that serves is like, within `EXAMINE_SECONDS`. Never raises for what an engine does.

        What it writes for that it deletes again, in a place of its own.
        """

    async def provision(self, target: CheckTarget) -> None:
        """Bring the application's account to what `target.credentials.app` says, as the administrator.

        Idempotent; ends within `PROVISION_SECONDS`. Raises `EngineError`.
        """

    async def tidy(self, target: CheckTarget) -> None:
        """Remove what probes have left, and make the place in which the next one writes; see `places`.

        Idempotent; the caller bounds it by `TIDY_SECONDS`. Raises `EngineError`.
        """
