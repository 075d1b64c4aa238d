"""What is left undone when something was refused."""

from __future__ import annotations

from typing import Any

import pytest

from cos_controllers.api.status import CosStackStatus
from cos_controllers.changes import Apply, Delete
from cos_controllers.names import LABEL_STACK_COMPONENT
from cos_controllers.observation import Ref
from cos_controllers.plan import Plan
from cos_operator.execute import execute
from cos_operator.kube import Forbidden, Request

CONFIG = {"kind": "ConfigMap", "metadata": {"name": "cos-redis", "labels": {LABEL_STACK_COMPONENT: "redis"}}}


class Refusing:
    """An API server under a quota for everything; remembers what was deleted."""

    write_guard = None

    def __init__(self, *, refuses: bool) -> None:
        self.refuses = refuses
        self.deleted: list[str] = []

    async def apply(self, obj: dict[str, Any], *, force: bool) -> dict[str, Any]:
        assert not force
        if self.refuses:
            raise Forbidden(Request("apply", obj["kind"]), "exceeded quota")
        return obj

    async def delete(
        self, kind: str, namespace: str, name: str, *, uid: str | None, propagation: str
    ) -> None:
        assert (namespace, uid, propagation) == ("default", "u", "Orphan")
        self.deleted.append(f"{kind}/{name}")


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_workload_is_not_taken_from_its_pods_while_its_successor_would_be_refused(
    refuses: bool,  # noqa: FBT001
) -> None:
    plan = Plan(
        status=CosStackStatus(),
        applies=(Apply(CONFIG, force=False),),
        deletes=(Delete(Ref("StatefulSet", "cos-redis"), "u", "made anew", orphan=True),),
    )
    kube = Refusing(refuses=refuses)
    await execute(kube, "default", plan, {})  # type: ignore[arg-type]
    assert kube.deleted == ([] if refuses else ["StatefulSet/cos-redis"])
