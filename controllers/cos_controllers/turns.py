"""In which order components change: one at a time, each as it ran until its turn comes, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import Reason
from cos_controllers.changes import Delete
from cos_controllers.conditions import previous_row
from cos_controllers.diagnose import Assessment, is_volume_terminating, rolled_back_text
from cos_controllers.history import History
from cos_controllers.k8s import Manifest
from cos_controllers.observation import Problem, Ref, Snapshot, ref_of
from cos_controllers.pods import is_current, pods_of
from cos_controllers.rollout import Assessed, has_settled, is_overdue
from cos_controllers.wanted import Wanted, is_written, workload_ref


class Turns(NamedTuple):
    """Whose change goes on, and which components wait: by `held`, the revision of each that is to run meanwhile."""

    assessed: Assessed
    held: Mapping[str, str]


class Replacements(NamedTuple):
    """The pods to delete, so that their successors bring a change into force."""

    assessed: Assessed
    deletes: tuple[Delete, ...]


def take_turns(
    stack: CosStack, assessed: Assessed, snapshot: Snapshot, history: History, now: datetime
) -> Turns:
    """Choose the component that changes next, if any may.

    A component's turn comes when every other one serves: a spec that fails on one is not tried on the next, also
    once the one has been taken back. One that does not serve anyway waits for nobody; and nobody waits for one that
    has failed for reasons of its own, its time being up, nor for one whose objects the API server refuses.
    """
    changing = {w.component for w, _ in assessed if _outdated(w, snapshot)}
    holders = [
        w.component
        for w, a in assessed
        if _is_under_way(w, a, snapshot) and not _is_hopeless(stack, w, history, now)
    ]
    judged: Assessed = []
    held = {}
    for wanted, found in assessed:
        component = wanted.component
        if component not in changing:
            judged.append((wanted, found))
            continue
        wait = None
        if found.serving and not _has_begun(wanted, snapshot):
            others = [holder for holder in holders if holder != component]
            wait = _wait(wanted, found, others, history, now)
        if wait is None:
            unwritten = found.reason is Reason.WAITING and not is_written(wanted, snapshot)
            message = "a change is being applied" if unwritten else found.message
            judged.append((wanted, replace(found, message=message)))
            if not _is_refused(stack, component):
                holders.append(component)
            continue
        judged.append((wanted, replace(found, reason=wait.reason, message=wait.message)))
        # What is taken back already is what a new pod shall run: only its turn to get one has not come.
        held[component] = wanted.revision if wanted.failure else found.effective_revision or wanted.revision
    return Turns(judged, held)


def replace_pods(
    assessed: Assessed, held: Collection[str], snapshot: Snapshot, pending: Collection[Ref]
) -> Replacements:
    """Delete pods of an earlier revision of the components whose turn it is.

    None while anything that the new pod rests on is `pending` or the workload's controller has not seen the change,
    and none whose end would delete its volume.
    """
    judged: Assessed = []
    deletes: list[Delete] = []
    for wanted, found in assessed:
        pods = [] if wanted.component in held else _replaceable(wanted, snapshot, pending)
        if not pods:
            judged.append((wanted, found))
            continue
        message = f"pod {pods[0]['metadata']['name']} is replaced, to bring a change into force"
        if wanted.failure:
            message = f"{rolled_back_text(wanted)}; now: pod {pods[0]['metadata']['name']} is replaced"
        restarting = replace(
            found, reason=Reason.RESTARTING, message=message, serving=False, serving_since=None
        )
        judged.append((wanted, restarting))
        deletes += [Delete(Ref("Pod", p["metadata"]["name"]), p["metadata"]["uid"], message) for p in pods]
    return Replacements(judged, tuple(deletes))


def _wait(
    wanted: Wanted, found: Assessment, holders: Sequence[str], history: History, now: datetime
) -> Problem | None:
    """What a component that serves waits for; None if its turn has come."""
    halted = next((holder for holder in history.current.components if history.has_halted(holder)), None)
    if (
        halted not in {None, wanted.component}
        and not wanted.failure
        and not history.is_good(wanted.component)
    ):
        return Problem(
            Reason.HELD_BACK,
            f"a change waits: {halted} did not serve with its part of this spec; correct that first",
        )
    if holders:
        return Problem(Reason.WAITING, f"a change waits until {holders[0]} serves again")
    known = history.is_good(wanted.component, found.effective_revision)
    if not wanted.failure and not known and not has_settled(found, now):
        # Otherwise there would be nothing to take the change back to, or something too old.
        return Problem(Reason.WAITING, "a change waits until it is known whether what runs is good")
    return None


def _outdated(wanted: Wanted, snapshot: Snapshot) -> list[Manifest]:
    """Pods of another revision, or on another volume, than is wanted; none whose end would delete its volume."""
    if not wanted.instance or is_volume_terminating(wanted, snapshot):
        return []
    return [pod for pod in pods_of(wanted, snapshot) if not is_current(pod, wanted)]


def _has_begun(wanted: Wanted, snapshot: Snapshot) -> bool:
    """Whether Kubernetes is changing a component's pods by itself, as it does with a Deployment."""
    return workload_ref(wanted).kind == "Deployment" and (
        bool(wanted.failure) or is_written(wanted, snapshot)
    )


def _is_under_way(wanted: Wanted, found: Assessment, snapshot: Snapshot) -> bool:
    """Whether others wait for a component: its pod is new, or being made, and does not serve."""
    if wanted.instance is None:
        return False
    if found.serving:
        return _has_begun(wanted, snapshot) and bool(_outdated(wanted, snapshot))
    return found.effective_revision in {None, wanted.revision}


def _is_hopeless(stack: CosStack, wanted: Wanted, history: History, now: datetime) -> bool:
    """Whether its time is up and it is no change that fails: what is wanted has served, or nothing ever has."""
    alone = history.is_good(wanted.component) or history.last_good(wanted.component) is None
    return alone and is_overdue(stack, wanted, now)


def _is_refused(stack: CosStack, component: str) -> bool:
    row = previous_row(stack, component)
    return row is not None and row.reason == Reason.APPLY_REFUSED


def _replaceable(wanted: Wanted, snapshot: Snapshot, pending: Collection[Ref]) -> list[Manifest]:
    ref = workload_ref(wanted)
    live = snapshot.objects.get(ref)
    if ref.kind != "StatefulSet" or live is None or wanted.instance is None:
        return []
    if any(ref_of(obj) in pending for obj in wanted.instance.objects):
        return []
    if (live.get("status") or {}).get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return []
    return _outdated(wanted, snapshot)
