"""Writing a stack back for a person, while the operator writes its status."""

from __future__ import annotations

from typing import Any

from cos_operator.cli.session import replace_spec
from cos_operator.kube import Conflict, Request

STACK = {
    "apiVersion": "cos.dev/v1alpha1",
    "kind": "CosStack",
    "metadata": {
        "namespace": "d",
        "name": "cos",
        "uid": "u",
        "generation": 1,
        "resourceVersion": "1",
        "managedFields": [{"manager": "cos-operator", "operation": "Apply"}],
    },
    "spec": {"redis": {}},
}


class Busy:
    """An API server at which the status has moved since the stack was read."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def replace(self, obj: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        assert not dry_run
        self.bodies.append(obj)
        if obj["metadata"]["resourceVersion"] == "1":
            raise Conflict(Request("replace", "CosStack"), "the object has been modified")
        return obj

    async def get(self, _kind: str, _namespace: str, _name: str) -> dict[str, Any]:
        return {**STACK, "metadata": {**STACK["metadata"], "resourceVersion": "2"}}  # type: ignore[dict-item]


async def test_who_owns_which_field_is_left_to_the_api_server() -> None:
    kube = Busy()
    changed = {**STACK, "spec": {"redis": {"maxClients": 60}}}
    await replace_spec(kube, STACK, changed, dry_run=False)  # type: ignore[arg-type]
    assert [body["metadata"]["resourceVersion"] for body in kube.bodies] == ["1", "2"]
    assert all("managedFields" not in body["metadata"] for body in kube.bodies)
