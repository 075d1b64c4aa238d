"""How one component is, from what was observed: a reason from the list and a sentence for a person."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cos_controllers.api.status import Reason
from cos_controllers.k8s import Manifest
from cos_controllers.observation import CheckResult, Outcome, Ref, Snapshot
from cos_controllers.pods import (
    all_pods_of,
    claim_of,
    condition_of,
    container_statuses,
    is_current,
    is_pod_ready,
    pods_of,
    revision_of,
)
from cos_controllers.volumes import growth
from cos_controllers.wanted import Halt, Wanted, workload_ref

#: Something is under way and will go on by itself.
TRANSIENT = frozenset(
    {
        Reason.CREATING,
        Reason.STARTING,
        Reason.RESTARTING,
        Reason.BACKING_UP,
        Reason.PROVISIONING,
        Reason.WAITING,
        Reason.VOLUME_RESIZING,
    }
)
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CANNOT_START = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

_BY_OUTCOME = {
    Outcome.SERVING: Reason.SERVING,
    Outcome.READ_ONLY: Reason.READ_ONLY,
    Outcome.CREDENTIALS_REFUSED: Reason.PROVISIONING,
    Outcome.NOT_ANSWERING: Reason.NOT_ANSWERING,
}

#: Messages go into status and Events; an engine's own words are cut to this length.
MESSAGE_LIMIT = 800
#: Of a log the end tells most.
_LOG_LIMIT = 400


@dataclass(frozen=True)
class Assessment:
    """How a component is.

    `serving`: applications are served, perhaps by an earlier configuration. `effective_revision`: that of the pod
    that runs. `serving_since`, `last_progress_time` (RFC 3339) and `progress`: see `ComponentStatus`.
    """

    reason: Reason
    message: str = ""
    serving: bool = False
    effective_revision: str | None = None
    serving_since: str | None = None
    last_progress_time: str | None = None
    progress: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the component serves what the spec asks for."""
        return self.reason is Reason.SERVING

    @property
    def stalled(self) -> bool:
        """Whether a person has to look."""
        return self.reason not in TRANSIENT and not self.ready and self.reason is not Reason.NOT_ANSWERING


def serves_wanted(wanted: Wanted, found: Assessment, snapshot: Snapshot) -> bool:
    """Whether the wanted revision serves, and no other is left."""
    pods = pods_of(wanted, snapshot)
    return found.serving and all(is_current(pod, wanted) for pod in pods)


def is_volume_terminating(wanted: Wanted, snapshot: Snapshot) -> bool:
    """Whether the data volume, or the one that a pod still runs on, is deleted as soon as no pod uses it."""
    names = {wanted.claim, *(claim_of(pod) for pod in pods_of(wanted, snapshot))}
    claims = (snapshot.objects.get(Ref("PersistentVolumeClaim", name)) for name in names if name)
    return any(claim is not None and claim["metadata"].get("deletionTimestamp") for claim in claims)


def assess(wanted: Wanted, snapshot: Snapshot) -> Assessment:
    """Judge one component. The most telling fact comes first: what blocks, then storage, pod, engine."""
    pods = pods_of(wanted, snapshot)
    ready = [pod for pod in pods if is_pod_ready(pod)]
    effective = revision_of((ready or pods)[0]) if pods else None
    if wanted.blocker or not wanted.instance:
        reason, message = (
            (wanted.blocker.reason, wanted.blocker.message) if wanted.blocker else (Reason.CREATING, "")
        )
        # What is there is left as it is, and may well serve; nobody asks it, for want of credentials.
        return Assessment(reason, message, serving=bool(ready), effective_revision=effective)
    if wanted.halt:
        return Assessment(Reason.BACKING_UP, _halt_text(wanted.halt), effective_revision=effective)
    found = _obstacle(wanted, snapshot, pods) or _by_check(snapshot.checks.get(wanted.component))
    if found.reason is Reason.SERVING:
        found = replace(next(_shortcomings(wanted, snapshot, pods), found), serving=True)
    elif wanted.no_way_back:
        text = f"{found.message}; it cannot be taken back: {wanted.no_way_back.message}"
        found = replace(found, reason=wanted.no_way_back.reason, message=text)
    elif wanted.failure:
        found = replace(found, message=f"{rolled_back_text(wanted)}; now: {found.message}")
    return replace(found, message=cut(found.message), effective_revision=effective)


def _halt_text(halt: Halt) -> str:
    since = f" since {halt.since}" if halt.since else ""
    return f"stopped for backup {halt.backup or halt.uid}{since}; it starts again once its data is read"


def cut(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """The beginning of a text that is longer than `limit`, and a sign that it goes on."""
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip(' :')}…"


def _obstacle(wanted: Wanted, snapshot: Snapshot, pods: Sequence[Manifest]) -> Assessment | None:
    """What keeps the component's pods from being ready; None if one is."""
    ref = workload_ref(wanted)
    workload = snapshot.objects.get(ref)
    if workload is None:
        return Assessment(Reason.CREATING, f"{ref.kind} {ref.name} is being created")
    if any(is_pod_ready(pod) for pod in pods):
        return None
    if volume := _volume_obstacle(wanted, snapshot):
        return volume
    if not pods:
        return _without_pods(wanted, snapshot, workload)
    return _pod_obstacle(pods[-1], snapshot)


def _without_pods(wanted: Wanted, snapshot: Snapshot, workload: Manifest) -> Assessment:
    for pod in all_pods_of(wanted, snapshot):
        metadata = pod["metadata"]
        if since := metadata.get("deletionTimestamp"):
            node = (pod.get("spec") or {}).get("nodeName", "no node")
            text = f"pod {metadata['name']} on {node} is to end by {since}; the next one waits for it"
            return Assessment(Reason.STARTING, text)
    warning = snapshot.warnings.get(workload_ref(wanted))
    refused = warning.message if warning and warning.reason == "FailedCreate" else None
    refused = refused or condition_of(workload, "ReplicaFailure").get("message")
    if refused:
        return Assessment(Reason.POD_REFUSED, refused)
    return Assessment(Reason.STARTING, "the pod is being created")


def _volume_obstacle(wanted: Wanted, snapshot: Snapshot) -> Assessment | None:
    ref = Ref("PersistentVolumeClaim", wanted.claim)
    claim = snapshot.objects.get(ref)
    if claim is None or (claim.get("status") or {}).get("phase") == "Bound":
        return None
    warning = snapshot.warnings.get(ref)
    if warning is None:
        return None
    return Assessment(Reason.VOLUME_PENDING, f"volume {wanted.claim}: {warning.message}")


def _pod_obstacle(pod: Manifest, snapshot: Snapshot) -> Assessment:
    name = pod["metadata"]["name"]
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return Assessment(Reason.UNSCHEDULABLE, f"pod {name}: {scheduled.get('message', 'not scheduled')}")
    restarted = ""
    for status in container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        why = waiting.get("reason", "")
        text = f"pod {name}, container {status.get('name')}: {waiting.get('message') or why}"
        if why in _PULL:
            return Assessment(Reason.IMAGE_PULL_FAILED, text)
        if why in _CANNOT_START:
            return Assessment(Reason.CONTAINER_FAILED, text)
        if why == "CrashLoopBackOff":
            return Assessment(Reason.CRASH_LOOPING, f"pod {name}: {_last_end(status)}")
        if status.get("restartCount"):
            restarted = f" after {status['restartCount']} restarts: {_last_end(status)}"
    warning = snapshot.warnings.get(Ref("Pod", name))
    said = restarted or (f": {warning.message.strip()}" if warning else "")
    return Assessment(Reason.STARTING, f"pod {name} is not ready yet{said}")


def _last_end(status: dict[str, Any]) -> str:
    last = (status.get("lastState") or {}).get("terminated") or {}
    how = f"container {status.get('name')} ended with exit code {last.get('exitCode', 'unknown')}"
    said = _last_words(last.get("message") or "")
    return f"{how}: {said}" if said else f"{how}; see its log"


def _last_words(text: str) -> str:
    """A termination message for a person: ours are JSON with `reason` and `message`, others the end of a log."""
    try:
        said = json.loads(text)
        return f"{said['reason']}: {said['message']}"
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[-_LOG_LIMIT:]


def _by_check(check: CheckResult | None) -> Assessment:
    if check is None:
        return Assessment(Reason.STARTING, "the pod is ready; the first check is due")
    reason = _BY_OUTCOME[check.outcome]
    if reason is Reason.PROVISIONING:
        return Assessment(reason, "the application's account is being made")
    return Assessment(reason, check.message)


def rolled_back_text(wanted: Wanted) -> str:
    """Both revisions of a change that was taken back, and why it was; "" if none was."""
    if not (failure := wanted.failure):
        return ""
    what = (
        "served, and was taken back" if failure.reason == Reason.OBJECTIVE_MISSED else "did not serve in time"
    )
    return (
        f"revision {failure.revision} {what} ({failure.reason}: {cut(failure.message, _LOG_LIMIT)}); "
        f"revision {wanted.revision} runs again: correct the spec, or write the old one back"
    )


def _shortcomings(wanted: Wanted, snapshot: Snapshot, pods: Sequence[Manifest]) -> Iterator[Assessment]:
    """Why a component that serves is not yet what the spec asks for, what a person must know first."""
    if is_volume_terminating(wanted, snapshot):
        text = f"volume {wanted.claim} is deleted as soon as its pod ends; the operator leaves the pod alone"
        yield Assessment(Reason.VOLUME_TERMINATING, text)
    if wanted.failure:
        yield Assessment(Reason.ROLLED_BACK, rolled_back_text(wanted))
    if wanted.shortfall:
        yield Assessment(wanted.shortfall.reason, wanted.shortfall.message)
    for pod in pods:
        # The new pod of a rolling change: what keeps it back keeps the change back.
        if not is_pod_ready(pod) and is_current(pod, wanted):
            found = _pod_obstacle(pod, snapshot)
            yield found if found.reason is not Reason.STARTING else replace(found, reason=Reason.WAITING)
    if not all(is_current(pod, wanted) for pod in pods):
        yield Assessment(Reason.WAITING, "a change waits for its turn to replace the pod")
    ref = workload_ref(wanted)
    if ref.kind == "Deployment":
        replicas = (snapshot.objects[ref].get("spec") or {}).get("replicas", 1)
        available = sum(is_pod_ready(pod) for pod in pods)
        if available < replicas:
            yield Assessment(Reason.WAITING, f"{available} of {replicas} pods are available")
    if resizing := growth(wanted.claim, snapshot.objects):
        yield Assessment(resizing.reason, resizing.message)
