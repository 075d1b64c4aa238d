"""What the operator asks of an engine by its own protocol."""

from __future__ import annotations

from typing import Protocol

from cos_controllers.observation import CheckResult, CheckTarget

#: A check ends by itself within this time: an engine that needs longer does not serve.
CHECK_SECONDS = 3.0

#: Limit of one attempt to make the application's account.
PROVISION_SECONDS = 20.0


class EngineError(Exception):
    """An engine refused or failed to do something. The message is for a person and holds no secret."""


class EngineClient(Protocol):
    """Client of one engine. Implementations are stateless and open their own short connections."""

    async def check(self, target: CheckTarget) -> CheckResult:
        """Ask as the application would, within `CHECK_SECONDS`. Never raises for what an engine does."""

    async def provision(self, target: CheckTarget) -> None:
        """Bring the application's account to what `target.credentials.app` says, as the administrator.

        Idempotent; ends within `PROVISION_SECONDS`. Raises `EngineError`.
        """
