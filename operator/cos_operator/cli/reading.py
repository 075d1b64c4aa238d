"""What a plan is made from, as far as the person may read it. Engines are not asked, Secrets need not be."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import Reason
from cos_controllers.components.assemble import encoded
from cos_controllers.components.registry import ENGINES
from cos_controllers.observation import CheckResult, CheckTarget, Outcome, Snapshot
from cos_controllers.resolve import references
from cos_operator.asking import Asker
from cos_operator.cli import Manifest
from cos_operator.kube import Forbidden, Kube, Manifests
from cos_operator.observe import children, observe

#: Stands for a Secret that may not be read: any usable value. It goes nowhere but into the plan.
_UNREADABLE = {"data": encoded({"password": "x" * 16})}

_OUTCOMES = {
    Reason.READ_ONLY: Outcome.READ_ONLY,
    Reason.CREDENTIALS_REFUSED: Outcome.CREDENTIALS_REFUSED,
    Reason.PROVISIONING: Outcome.CREDENTIALS_REFUSED,
    Reason.NOT_ANSWERING: Outcome.NOT_ANSWERING,
}


class Reader(Kube):
    """A client for a person who may have no right to read Secrets.

    `hides_secrets`: whether that was the case; then no Secret is listed, and those in `assumed` are taken to be
    there with a usable password.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.hides_secrets = False
        self.assumed: Collection[str] = ()

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """As `Kube.get`."""
        try:
            return await super().get(kind, namespace, name)
        except Forbidden:
            if kind != "Secret":
                raise
            self.hides_secrets = True
            return _UNREADABLE if name in self.assumed else None

    async def list(self, kind: str, *args: Any, **options: Any) -> Manifests:
        """As `Kube.list`."""
        try:
            return await super().list(kind, *args, **options)
        except Forbidden:
            if kind != "Secret":
                raise
            self.hides_secrets = True
            return []

    async def list_known(self, kind: str, namespace: str, label_selector: str) -> Manifests:
        """A consistent read: a person asks seldom, and wants the present."""
        return await self.list(kind, namespace, label_selector)


class Reported:
    """Answers for every engine what the operator last reported of it: a pod that is ready serves, if nothing else."""

    def __init__(self, stack: CosStack) -> None:
        self._rows = {row.name: row for row in stack.status.components}

    async def check(self, target: CheckTarget) -> CheckResult:
        """What the component's row in status says."""
        row = self._rows.get(target.component)
        outcomes = {reason.value: outcome for reason, outcome in _OUTCOMES.items()}
        return CheckResult(outcomes.get(row.reason, Outcome.SERVING) if row else Outcome.SERVING)


async def read_snapshot(reader: Reader, stack: CosStack) -> Snapshot:
    """Everything that there is of a stack, without asking an engine. Raises `KubeError`."""
    reader.assumed = references(stack)
    reported = Reported(stack)
    objects = await children(reader, stack.metadata.namespace, stack.metadata.name)
    clients = dict.fromkeys((engine.kind for engine in ENGINES), reported)
    observed = await observe(reader, stack, objects, Asker(clients))
    return observed.snapshot
