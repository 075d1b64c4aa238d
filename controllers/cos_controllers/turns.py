"""In which order components change: one at a time, each as it ran until its turn comes, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import ComponentStatus, Reason
from cos_controllers.changes import Delete
from cos_controllers.conditions import previous_row
from cos_controllers.diagnose import Assessment, is_volume_terminating, rolled_back_text
from cos_controllers.history import History
from cos_controllers.k8s import Manifest
from cos_controllers.observation import Problem, Ref, Snapshot, ref_of
from cos_controllers.pods import is_current, pods_of
from cos_controllers.rollout import Assessed, has_settled, is_learnable, is_overdue, will_be_taken_back
from cos_controllers.wanted import Wanted, is_written, workload_ref, written_revision


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

    What serves waits until every other component serves. What does not serve waits for nobody, unless what runs is
    known to be good: that may be a matter of seconds, so it waits as long as the spec is tried on another one. What a
    spec has failed on keeps those parts of it that are still asked for from all others (`HeldBack`). Nobody waits for
    one whose time is up, nor for one whose objects the API server refuses.
    """
    stuck = {
        w.component
        for w, _ in assessed
        if _refused_row(stack, w) or _is_hopeless(stack, w, snapshot, history, now)
    }
    others = [(w, a) for w, a in assessed if w.instance and w.component not in stuck]
    down = [w for w, a in others if not a.serving]
    rolling = [w for w, a in others if a.serving and _has_begun(w, snapshot) and _outdated(w, snapshot)]
    tried = [w for w in down if is_written(w, snapshot) and not history.is_good(w.component)]
    not_serving = [w.component for w in (*down, *rolling)]
    under_trial = [w.component for w in (*tried, *rolling)]
    judged: Assessed = []
    held = {}
    for wanted, found in assessed:
        if not _is_changing(wanted, snapshot) or _has_begun(wanted, snapshot):
            judged.append((wanted, found))
            continue
        runs = found.effective_revision or written_revision(wanted, snapshot)
        awaited = [c for c in (not_serving if found.serving else under_trial) if c != wanted.component]
        if wait := _wait(wanted, found, runs, awaited, snapshot, history, now):
            if found.serving:
                told = replace(found, reason=wait.reason, message=wait.message)
            else:
                # It has more to say than that it waits; what was refused is so until it is tried again.
                refused = _refused_row(stack, wanted)
                told = (
                    replace(found, reason=Reason.APPLY_REFUSED, message=refused.message) if refused else found
                )
            judged.append((wanted, told))
            # What is taken back already is what a new pod shall run: only its turn to get one has not come.
            held[wanted.component] = wanted.revision if wanted.failure else runs or wanted.revision
        else:
            unwritten = found.reason is Reason.WAITING and not is_written(wanted, snapshot)
            message = "a change is being applied" if unwritten else found.message
            judged.append((wanted, replace(found, message=message)))
            if wanted.component not in stuck:
                not_serving.append(wanted.component)
                under_trial.append(wanted.component)
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
        pods = [] if wanted.component in held or wanted.halt else _replaceable(wanted, snapshot, pending)
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
    wanted: Wanted,
    found: Assessment,
    runs: str | None,
    awaited: Sequence[str],
    snapshot: Snapshot,
    history: History,
    now: datetime,
) -> Problem | None:
    """What a component waits for before it changes; None if its turn has come."""
    if is_volume_terminating(wanted, snapshot):
        return Problem(found.reason, found.message)
    is_proven = history.is_good(wanted.component, runs)
    returns = wanted.failure or history.is_good(wanted.component)
    if is_proven and not returns and (holder := history.held_back_by(wanted.component)):
        message = f"a change waits: {holder} did not serve with its part of this spec; correct that first"
        return Problem(Reason.HELD_BACK, message)
    if awaited and (found.serving or is_proven):
        return Problem(Reason.WAITING, f"a change waits until {awaited[0]} serves again")
    if (
        found.serving
        and not wanted.failure
        and not is_proven
        and not _is_judged(wanted, found, snapshot, history, now)
    ):
        # Otherwise there would be nothing to take the change back to, or something too old.
        return Problem(Reason.WAITING, "a change waits until it is known whether what runs is good")
    return None


def _is_judged(
    wanted: Wanted, found: Assessment, snapshot: Snapshot, history: History, now: datetime
) -> bool:
    """Whether there is nothing more to learn of what runs: it has had its time, and cannot be marked as good."""
    return has_settled(found, now) and not is_learnable(wanted, found, snapshot, history)


def _is_changing(wanted: Wanted, snapshot: Snapshot) -> bool:
    """Whether its pods, or the one that its workload is about to make, are other than is wanted."""
    if not wanted.instance:
        return False
    if pods_of(wanted, snapshot):
        return bool(_outdated(wanted, snapshot))
    return written_revision(wanted, snapshot) not in {None, wanted.revision}


def _outdated(wanted: Wanted, snapshot: Snapshot) -> list[Manifest]:
    """Pods of another revision, or on another volume, than is wanted."""
    return [pod for pod in pods_of(wanted, snapshot) if not is_current(pod, wanted)]


def _has_begun(wanted: Wanted, snapshot: Snapshot) -> bool:
    """Whether Kubernetes is changing a component's pods by itself, as it does with a Deployment."""
    return workload_ref(wanted).kind == "Deployment" and (
        bool(wanted.failure) or is_written(wanted, snapshot)
    )


def _is_hopeless(
    stack: CosStack, wanted: Wanted, snapshot: Snapshot, history: History, now: datetime
) -> bool:
    """Whether its time is up and it is not about to be taken back."""
    tried = is_written(wanted, snapshot) and will_be_taken_back(stack, wanted, history)
    return is_overdue(stack, wanted, now) and not tried


def _refused_row(stack: CosStack, wanted: Wanted) -> ComponentStatus | None:
    row = previous_row(stack, wanted.component)
    return row if row and row.reason == Reason.APPLY_REFUSED else None


def _replaceable(wanted: Wanted, snapshot: Snapshot, pending: Collection[Ref]) -> list[Manifest]:
    ref = workload_ref(wanted)
    live = snapshot.objects.get(ref)
    if ref.kind != "StatefulSet" or live is None or wanted.instance is None:
        return []
    if is_volume_terminating(wanted, snapshot):
        return []
    if any(ref_of(obj) in pending for obj in wanted.instance.objects):
        return []
    if (live.get("status") or {}).get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return []
    return _outdated(wanted, snapshot)
