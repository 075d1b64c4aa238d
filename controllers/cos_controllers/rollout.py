"""Whether a change gets on: the clock of each component, and what is learnt when it stops. See docs/adr/0010."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from cos_controllers.api.slo import SloMode
from cos_controllers.api.stack import CosStack, RollbackMode
from cos_controllers.api.status import ComponentStatus, Reason
from cos_controllers.conditions import previous_row, timestamp
from cos_controllers.diagnose import Assessment, is_volume_terminating, serves_wanted
from cos_controllers.history import Failure, History
from cos_controllers.k8s import Manifest
from cos_controllers.objectives import Row, broken_by
from cos_controllers.observation import Snapshot
from cos_controllers.pods import container_statuses, pods_of, ready_since, revision_of
from cos_controllers.wanted import Wanted, is_written

#: A revision is good once it has served for so long: one that ends after a second is not.
SETTLED = timedelta(seconds=10)

Assessed = list[tuple[Wanted, Assessment]]


def with_clocks(
    stack: CosStack,
    assessed: Assessed,
    snapshot: Snapshot,
    history: History,
    now: datetime,
) -> Assessed:
    """Each assessment with the time of the component's last progress, and how far it says that it is.

    No clock runs while what is to run serves and is known to be good, nor while nothing is under way: for a component
    that is blocked or not written yet, or stopped for a backup, or whose volume ends, and in a paused stack. (Of one
    that waits for its turn, what is to run is what runs.)
    """
    judged: Assessed = []
    for wanted, found in assessed:
        serves = serves_wanted(wanted, found, snapshot)
        known = bool(wanted.failure) or history.is_good(wanted.component, wanted.revision)
        begun = (
            wanted.instance
            and not wanted.halt
            and is_written(wanted, snapshot)
            and not is_volume_terminating(wanted, snapshot)
        )
        if stack.spec.paused or not begun or (serves and known):
            judged.append((wanted, found))
            continue
        row = _same_attempt(stack, wanted)
        known_progress = row.progress if row else None
        seen = _progress(wanted, snapshot)
        # An engine that crashes on its way begins anew where it was before: that is no progress.
        furthest = seen if _position(seen) > _position(known_progress) else known_progress
        # Its pod is replaced in this pass: nothing of the revision has run yet, however long the operator was away.
        begins = found.reason is Reason.RESTARTING
        since = row.last_progress_time if row and furthest == known_progress and not begins else None
        since = since or timestamp(now)
        late = found.reason is Reason.STARTING and _is_late(stack, since, now)
        reason = Reason.NOT_STARTING if late else found.reason
        judged.append((wanted, replace(found, reason=reason, last_progress_time=since, progress=furthest)))
    return judged


def is_overdue(stack: CosStack, wanted: Wanted, now: datetime) -> bool:
    """Whether the component's time was up already when its status was written."""
    row = _same_attempt(stack, wanted)
    return row is not None and _is_late(stack, row.last_progress_time, now)


def with_service(stack: CosStack, assessed: Assessed, snapshot: Snapshot, now: datetime) -> Assessed:
    """Each assessment with the time since when what runs has served.

    That is the later of what was seen in earlier passes and what kubelet says of the pods; it begins anew when either
    breaks off, or another revision runs.
    """
    judged: Assessed = []
    for wanted, found in assessed:
        since = None
        if wanted.instance and found.serving:
            row = previous_row(stack, wanted.component)
            seen = row.serving_since if row and row.effective_revision == found.effective_revision else None
            moments = [datetime.fromisoformat(seen) if seen else now]
            moments += filter(None, map(ready_since, pods_of(wanted, snapshot)))
            # A clock that is ahead, here once or on a node, tells nothing.
            since = timestamp(max((moment for moment in moments if moment <= now), default=now))
        judged.append((wanted, replace(found, serving_since=since)))
    return judged


def has_settled(found: Assessment, now: datetime) -> bool:
    """Whether what runs has served for long enough to be good."""
    return found.serving_since is not None and now - datetime.fromisoformat(found.serving_since) >= SETTLED


def learn_good(assessed: Assessed, snapshot: Snapshot, history: History, now: datetime) -> History:
    """The history with what runs and has settled. It may be another revision than is wanted."""
    for wanted, found in assessed:
        if (
            found.effective_revision
            and has_settled(found, now)
            and is_learnable(wanted, found, snapshot, history)
        ):
            image = _image(pods_of(wanted, snapshot))
            history = history.learn_good(wanted.component, found.effective_revision, image)
    return history


def learn_failed(
    stack: CosStack, assessed: Assessed, snapshot: Snapshot, history: History, now: datetime
) -> History:
    """The history with what was tried and whose time is up, by its clock.

    After `learn_good`: what has settled may be what a failed change is taken back to.
    """
    failed: dict[str, Failure] = {}
    for wanted, found in assessed:
        if (
            wanted.instance
            and will_be_taken_back(stack, wanted, history)
            and not serves_wanted(wanted, found, snapshot)
            and _is_late(stack, found.last_progress_time, now)
        ):
            failed[wanted.component] = Failure(
                wanted.desired, found.reason.value, found.message, timestamp(now), history.current.name
            )
    return history.learn_failed(failed) if failed else history


def learn_missed(
    stack: CosStack,
    assessed: Assessed,
    snapshot: Snapshot,
    objectives: Sequence[Row],
    history: History,
    now: datetime,
) -> History:
    """The history with what serves and breaks an objective that was met before it, if that is to be taken back."""
    probes = snapshot.probes
    if stack.spec.slo is None or stack.spec.slo.mode is not SloMode.ROLLBACK or probes is None:
        return history
    failed: dict[str, Failure] = {}
    for wanted, found in assessed:
        if (
            stack.spec.rollback.mode is RollbackMode.AUTOMATIC
            and wanted.revision == wanted.desired == found.effective_revision
            and not wanted.no_way_back
            and serves_wanted(wanted, found, snapshot)
            and history.last_good(wanted.component) is not None
            and (row := broken_by(stack, wanted.component, wanted.desired, objectives, probes))
        ):
            failed[wanted.component] = Failure(
                wanted.desired,
                Reason.OBJECTIVE_MISSED.value,
                f"objective {row.objective.name}: {row.message}",
                timestamp(now),
                history.current.name,
            )
    return history.learn_failed(failed) if failed else history


def will_be_taken_back(stack: CosStack, wanted: Wanted, history: History) -> bool:
    """Whether what is tried is taken back if it does not serve in time."""
    return (
        stack.spec.rollback.mode is RollbackMode.AUTOMATIC
        and wanted.revision == wanted.desired
        and not wanted.no_way_back
        and not history.is_good(wanted.component)
        and history.last_good(wanted.component) is not None
    )


def is_learnable(wanted: Wanted, found: Assessment, snapshot: Snapshot, history: History) -> bool:
    """Whether what runs can be marked as good: one revision alone, from a known spec, not known to be good yet."""
    runs = found.effective_revision
    return (
        runs is not None
        and {revision_of(pod) for pod in pods_of(wanted, snapshot)} == {runs}
        and history.running(wanted.component, runs) is not None
        and not history.is_good(wanted.component, runs)
        and not (wanted.failure and runs == wanted.desired)
    )


def seconds_to_next(stack: CosStack, assessed: Assessed, history: History, now: datetime) -> float | None:
    """Seconds until a clock tells something new: what runs has settled, or its time is up."""
    waits = []
    for wanted, found in assessed:
        if found.serving_since and not history.is_good(wanted.component, found.effective_revision):
            waits.append(datetime.fromisoformat(found.serving_since) + SETTLED - now)
        elif found.last_progress_time:
            waits.append(datetime.fromisoformat(found.last_progress_time) + _deadline(stack) - now)
    return min((wait.total_seconds() for wait in waits if wait > timedelta()), default=None)


def _same_attempt(stack: CosStack, wanted: Wanted) -> ComponentStatus | None:
    """The stored row, if it speaks of what is wanted now."""
    row = previous_row(stack, wanted.component)
    failed = wanted.failure.revision if wanted.failure else None
    if row and (row.desired_revision, row.failed_revision) == (wanted.desired, failed):
        return row
    return None


def _deadline(stack: CosStack) -> timedelta:
    return timedelta(seconds=stack.spec.progress_deadline_seconds)


def _is_late(stack: CosStack, since: str | None, now: datetime) -> bool:
    return since is not None and now - datetime.fromisoformat(since) >= _deadline(stack)


def _progress(wanted: Wanted, snapshot: Snapshot) -> str | None:
    """The last thing that the engine's log says of how far it is."""
    pattern = wanted.engine.progress
    found = pattern.findall(snapshot.logs.get(wanted.component, "")) if pattern else []
    return str(found[-1]) if found else None


def _position(progress: str | None) -> tuple[int, ...]:
    return tuple(int(number, 16) for number in re.findall(r"[0-9A-Fa-f]+", progress or ""))


def _image(pods: list[Manifest]) -> str:
    """The image by digest, as kubelet pulled it; "" if it does not say so (an image that was loaded by hand)."""
    for pod in pods:
        for status in container_statuses(pod):
            # Some runtimes say how they got it: docker-pullable://redis@sha256:… is no image that a pod can ask for.
            image = str(status.get("imageID") or "").rpartition("://")[2]
            if "@sha256:" in image:
                return image
    return ""
