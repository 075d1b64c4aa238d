"""Jobs that do large work for the operator, and how to read what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from cos_controllers.api.stack import CosStack
from cos_controllers.k8s import (
    Manifest,
    V1Capabilities,
    V1Container,
    V1Job,
    V1JobSpec,
    V1LocalObjectReference,
    V1ObjectMeta,
    V1PodSecurityContext,
    V1PodSpec,
    V1PodTemplateSpec,
    V1SeccompProfile,
    V1SecurityContext,
    V1Volume,
    manifest,
)
from cos_controllers.ownership import controller_of, owner_reference
from cos_controllers.pods import container_statuses

#: uid and gid of the operator's image.
OPERATOR_UID = 65532
#: Nobody has told the operator which image its Jobs run.
NO_IMAGE = "the operator does not know its own image: set COS_PROBE_IMAGE to it (the chart does)"
#: Of coreutils' `timeout`.
_TIMED_OUT = 124
#: Seconds for what a pod needs besides its own limit: an image to pull, a node to be found.
POD_SECONDS = 180


@dataclass(frozen=True)
class Work:
    """What a Job does, in one pod, once.

    `uid`: of user and group. `group`: that its volumes are given to, if another one. `limit`: seconds within which its
    containers end by themselves.
    """

    name: str
    labels: Mapping[str, str]
    uid: int
    limit: int
    containers: tuple[V1Container, ...]
    init_containers: tuple[V1Container, ...] = ()
    volumes: tuple[V1Volume, ...] = ()
    group: int = 0


def job_of_work(stack: CosStack, work: Work) -> Manifest:
    """The Job, under Pod Security `restricted`, without a token for the API.

    Its owner is the stack, not the object that asked for it: one that is deleted while the Job runs leaves the Job,
    which says that there is something under way.
    """
    metadata = stack.metadata
    labels = dict(work.labels)
    pod = V1PodSpec(
        restart_policy="Never",
        automount_service_account_token=False,
        enable_service_links=False,
        # It ends at once when it is told to: what it left is cleaned up from outside.
        termination_grace_period_seconds=5,
        security_context=V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=work.uid,
            run_as_group=work.uid,
            fs_group=work.group or work.uid,
            fs_group_change_policy="OnRootMismatch",
            seccomp_profile=V1SeccompProfile(type="RuntimeDefault"),
        ),
        image_pull_secrets=[
            V1LocalObjectReference(name=secret.name) for secret in stack.spec.images.pull_secrets
        ]
        or None,
        init_containers=[_hardened(item) for item in work.init_containers] or None,
        containers=[_hardened(item) for item in work.containers],
        volumes=list(work.volumes),
    )
    job = V1Job(
        api_version="batch/v1",
        kind="Job",
        metadata=V1ObjectMeta(
            name=work.name,
            namespace=metadata.namespace,
            labels=labels,
            owner_references=[owner_reference(stack)],
        ),
        spec=V1JobSpec(
            # A second attempt would meet what the first one left.
            backoff_limit=0,
            # Later than the limit of its containers: this one takes the pod away, and its message with it.
            active_deadline_seconds=work.limit + POD_SECONDS,
            template=V1PodTemplateSpec(metadata=V1ObjectMeta(labels=labels), spec=pod),
        ),
    )
    return manifest(job)


def _hardened(container: V1Container) -> V1Container:
    return container.model_copy(
        update={
            # Without a message of its own a container that fails ends with the last lines of its log.
            "termination_message_policy": "FallbackToLogsOnError",
            "security_context": V1SecurityContext(
                run_as_user=container.security_context.run_as_user if container.security_context else None,
                allow_privilege_escalation=False,
                read_only_root_filesystem=True,
                capabilities=V1Capabilities(drop=["ALL"]),
            ),
        }
    )


class Doomed(NamedTuple):
    """An object to stop or delete, if it is still this one."""

    name: str
    uid: str


class End(NamedTuple):
    """When a Job ended, and what it says of why."""

    time: datetime
    message: str


def doomed(obj: Manifest) -> Doomed:
    """An object as it was read."""
    return Doomed(obj["metadata"]["name"], obj["metadata"]["uid"])


def pods_of_job(job: Manifest, pods: Sequence[Manifest]) -> list[Manifest]:
    """Those of the pods that a Job made."""
    uid = job["metadata"]["uid"]
    return [pod for pod in pods if (controller_of(pod) or {}).get("uid") == uid]


def end_of(job: Manifest) -> End | None:
    """The end of a Job; None while it goes on."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] in {"Complete", "Failed"} and condition["status"] == "True":
            told = condition.get("message") or condition.get("reason") or ""
            return End(datetime.fromisoformat(condition["lastTransitionTime"]), told)
    return None


def is_without_pods(job: Manifest, pods: Sequence[Manifest]) -> bool:
    """Whether a Job goes on and nobody knows why it has no pods: admission may refuse them."""
    uid = job["metadata"]["uid"]
    return end_of(job) is None and not any((controller_of(pod) or {}).get("uid") == uid for pod in pods)


def is_quiet(job: Manifest, pods: Sequence[Manifest]) -> bool:
    """Whether no pod of a Job runs any more, and none will: there is one attempt."""
    if end_of(job) or any((pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"} for pod in pods):
        return True
    status = job.get("status") or {}
    suspended = any(
        item["type"] == "Suspended" and item["status"] == "True" for item in status.get("conditions") or ()
    )
    return suspended and not status.get("active") and not status.get("terminating")


def report_in(pod: Manifest, container: str) -> str:
    """What a container said that ended by itself and well; "" without that."""
    return str((_well_ended(pod, container) or {}).get("message") or "")


def has_done(pod: Manifest, container: str) -> bool:
    """Whether a container has ended by itself and well."""
    return _well_ended(pod, container) is not None


def _well_ended(pod: Manifest, container: str) -> Manifest | None:
    """The end of a container that ended by itself and well; None without that."""
    for item in container_statuses(pod):
        ended: Manifest | None = (item.get("state") or {}).get("terminated")
        if item["name"] == container and ended and ended.get("exitCode") == 0:
            return ended
    return None


def why_it_waits(pod: Manifest) -> str:
    """What keeps a pod from running, in the words of scheduler and kubelet; "" if nothing does."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"its pod waits: {condition.get('message') or condition.get('reason') or ''}"
    for item in container_statuses(pod):
        waiting = (item.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
            return f"its pod waits: {waiting['reason']}: {waiting.get('message') or ''}"
    return ""


def why_it_ended(pods: Sequence[Manifest], end: End) -> str:
    """Why a Job has no report, by its pods, else by itself."""
    for pod in pods:
        status = pod.get("status") or {}
        if status.get("reason"):
            # Such as an eviction, of which the containers only know that they were killed.
            return f"its pod ended: {status['reason']}: {status.get('message') or ''}"
        for item in container_statuses(pod):
            ended = (item.get("state") or {}).get("terminated")
            if ended and ended.get("exitCode"):
                said = (ended.get("message") or "").strip()
                why = f"{ended.get('reason') or 'Error'} ({ended['exitCode']})"
                late = ", it took longer than it may" if ended["exitCode"] == _TIMED_OUT else ""
                return f"container {item['name']} ended with {why}{late}{': ' + said if said else ''}"
    return f"its Job ended without a report: {end.message or 'its pod is gone'}"
