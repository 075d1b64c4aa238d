"""Whose an object is. A foreign object is never adopted, changed or deleted."""

from __future__ import annotations

from typing import Any

from cos_controllers.api.stack import CosStack
from cos_controllers.k8s import Manifest, V1OwnerReference
from cos_controllers.names import (
    API_VERSION,
    LABEL_MANAGED_BY,
    LABEL_STACK,
    LABEL_STACK_COMPONENT,
    MANAGER,
    admin_secret,
    app_secret,
    child_name,
    seed_secret,
)
from cos_controllers.observation import Ref


def owner_reference(stack: CosStack) -> V1OwnerReference:
    """The reference that makes the stack the controller of a child."""
    return V1OwnerReference(
        api_version=API_VERSION,
        kind="CosStack",
        name=stack.metadata.name,
        uid=stack.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )


def is_credential(ref: Ref, obj: Manifest, stack: CosStack) -> bool:
    """Whether a Secret holds what an engine's data cannot be opened without: the seed, admin and app accounts."""
    component = (obj["metadata"].get("labels") or {}).get(LABEL_STACK_COMPONENT, "")
    name = child_name(stack.metadata.name, component)
    return ref.kind == "Secret" and ref.name in {
        seed_secret(stack.metadata.name),
        admin_secret(name),
        app_secret(name),
    }


def controller_of(obj: Manifest) -> dict[str, Any] | None:
    """The owner reference of an object's controller, if it has one."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def is_ours(obj: Manifest, stack: CosStack) -> bool:
    """Whether an object belongs to the stack.

    Its controller is this very stack (by UID), or it has no controller and our labels: volumes and credentials
    that outlived a stack, and children that a deletion with `--cascade=orphan` left.
    """
    controller = controller_of(obj)
    if controller is not None:
        return bool(controller.get("uid") == stack.metadata.uid)
    labels = obj["metadata"].get("labels") or {}
    return labels.get(LABEL_MANAGED_BY) == MANAGER and labels.get(LABEL_STACK) == stack.metadata.name
