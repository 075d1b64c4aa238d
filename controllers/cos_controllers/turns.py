"""In which order pods are replaced: one component at a time, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import Reason
from cos_controllers.changes import Delete
from cos_controllers.diagnose import Assessment, is_volume_terminating, rolled_back_text
from cos_controllers.history import History
from cos_controllers.k8s import Manifest
from cos_controllers.observation import Ref, Snapshot, ref_of
from cos_controllers.pods import is_current, pods_of
from cos_controllers.rollout import Assessed, is_overdue
from cos_controllers.wanted import Wanted, workload_ref


class Turns(NamedTuple):
    """Whose pods are replaced now, and which components are `held` until others serve."""

    assessed: Assessed
    held: frozenset[str]
    deletes: tuple[Delete, ...] = ()


def replace_pods(
    stack: CosStack,
    assessed: Assessed,
    snapshot: Snapshot,
    history: History,
    pending: set[Ref],
    now: datetime,
) -> Turns:
    """Replace pods of an earlier revision, one component at a time.

    A component's turn comes when all that its pod rests on is written and every other component serves: a spec
    that fails on one is not tried on the next, also once the one has been taken back. One that does not serve
    anyway waits for nobody; and nobody waits for one that has failed for reasons of its own, its time being up.
    """
    judged: Assessed = []
    deletes: list[Delete] = []
    held = set()
    holders = [
        w.component
        for w, a in assessed
        if history.has_halted(w.component)
        or (_holds_up(w, a) and not (is_overdue(stack, w, now) and _fails_alone(w, history)))
    ]
    for wanted, found in assessed:
        pods = _outdated_pods(wanted, snapshot, pending)
        holder = next((component for component in holders if component != wanted.component), None)
        if not pods:
            judged.append((wanted, found))
        elif found.serving and (deletes or holder):
            held.add(wanted.component)
            message = f"a change waits until {holder or 'another component'} serves again"
            if holder and history.has_halted(holder):
                message = (
                    f"a change waits: {holder} did not serve with its part of this spec; correct that first"
                )
            judged.append((wanted, replace(found, reason=Reason.WAITING, message=message)))
        else:
            message = f"pod {pods[0]['metadata']['name']} is replaced, to bring a change into force"
            if wanted.failure:
                message = f"{rolled_back_text(wanted)}; now: pod {pods[0]['metadata']['name']} is replaced"
            judged.append((wanted, replace(found, reason=Reason.RESTARTING, message=message, serving=False)))
            deletes += [
                Delete(Ref("Pod", p["metadata"]["name"]), p["metadata"]["uid"], message) for p in pods
            ]
    return Turns(judged, frozenset(held), tuple(deletes))


def _holds_up(wanted: Wanted, found: Assessment) -> bool:
    """Whether others wait for a component: its pod is new, or being made, and does not serve."""
    if wanted.instance is None or found.serving:
        return False
    return found.effective_revision in {None, wanted.revision}


def _fails_alone(wanted: Wanted, history: History) -> bool:
    """Whether it is no change that fails: what is wanted has served before, or nothing ever has."""
    return history.is_good(wanted.component) or history.last_good(wanted.component) is None


def _outdated_pods(wanted: Wanted, snapshot: Snapshot, pending: set[Ref]) -> Sequence[Manifest]:
    """Pods to replace.

    None while anything that the new pod rests on is still to be written or the workload's controller has not seen
    the change, and none whose end would delete its volume.
    """
    ref = workload_ref(wanted)
    live = snapshot.objects.get(ref)
    if not wanted.instance or ref.kind != "StatefulSet" or live is None:
        return ()
    if any(ref_of(obj) in pending for obj in wanted.instance.objects) or is_volume_terminating(
        wanted, snapshot
    ):
        return ()
    if (live.get("status") or {}).get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return ()
    return [pod for pod in pods_of(wanted, snapshot) if not is_current(pod, wanted)]
