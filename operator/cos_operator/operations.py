"""What looking after probes, backups and restores has in common: objects with a status, and Jobs."""

from __future__ import annotations

from collections.abc import Collection

import structlog
from pydantic import BaseModel

from cos_controllers.api.stack import CosStack
from cos_controllers.jobs import Doomed
from cos_controllers.k8s import Manifest
from cos_controllers.names import API_VERSION
from cos_controllers.parsing import InvalidStack, parse_stack
from cos_operator.key import Key
from cos_operator.kube import Kube, NotFound, PreconditionFailed, Propagation

log = structlog.stdlib.get_logger(__name__)


def usable(raw: Manifest | None) -> tuple[CosStack | None, str]:
    """The stack; None, and why, if nothing can be done with it."""
    if raw is None:
        return None, ""
    if raw["metadata"].get("deletionTimestamp"):
        return None, "the stack is being deleted"
    try:
        return parse_stack(raw), ""
    except InvalidStack as error:
        return None, f"the stack's spec cannot be used: {error}"


async def job_warnings(kube: Kube, namespace: str, uids: Collection[str]) -> dict[str, str]:
    """The newest warning about each of these Jobs, in words. Raises `KubeError`."""
    if not uids:
        return {}
    events = await kube.list("Event", namespace, field_selector="type=Warning,involvedObject.kind=Job")
    events.sort(key=lambda item: item.get("lastTimestamp") or item.get("eventTime") or "")
    return {
        event["involvedObject"]["uid"]: f"{event.get('reason') or ''}: {event.get('message') or ''}"
        for event in events
        if event["involvedObject"].get("uid") in uids
    }


async def delete(
    kube: Kube, kind: str, namespace: str, doomed: Doomed, propagation: Propagation = "Background"
) -> None:
    """Delete this very object; another one of its name stays. Raises `KubeError`."""
    try:
        await kube.delete(kind, namespace, doomed.name, uid=doomed.uid, propagation=propagation)
    except PreconditionFailed:
        return
    log.info("deleted", kind=kind, object=doomed.name)


async def write_status(kube: Kube, kind: str, key: Key, name: str, version: str, status: BaseModel) -> bool:
    """Write the status of the very object that was read: another one of its name may have come.

    False if it has been deleted meanwhile. Raises `KubeError`.
    """
    body = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": key.namespace, "resourceVersion": version},
        "status": status.model_dump(by_alias=True, exclude_none=True, mode="json"),
    }
    try:
        await kube.apply(body, force=True, subresource="status")
    except NotFound:
        return False
    return True


def in_brief(item: Manifest) -> Manifest:
    """What a look for work asks of a probe, backup or restore: there may be ten thousand, of several kilobytes each."""
    return {
        "metadata": {"namespace": item["metadata"]["namespace"]},
        "spec": {"stackRef": item["spec"]["stackRef"]},
        "status": {"completionTime": (item.get("status") or {}).get("completionTime")},
    }
