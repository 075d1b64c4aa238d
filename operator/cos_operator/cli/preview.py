"""What applying a stack would do: the operator's own core on a snapshot. Pure; no value of a Secret is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cos_controllers.api.stack import CosStack
from cos_controllers.changes import Apply, Delete, differences, forgotten, records, revisions
from cos_controllers.diagnose import assess
from cos_controllers.k8s import Manifest
from cos_controllers.names import LABEL_STACK_COMPONENT
from cos_controllers.observation import Ref, Snapshot, ref_of
from cos_controllers.ownership import is_ours
from cos_controllers.pods import is_current, pods_of
from cos_controllers.resolve import Resolution, resolve
from cos_controllers.wanted import Wanted, workload_ref
from cos_operator.cli.errors import one_line
from cos_operator.cli.output import BAD, GOOD, STRONG, WAITS, Line, Span, line

#: So many new objects of a component are named; of more, the kinds are.
_NAMED = 3


class Restart(NamedTuple):
    """A pod that would be replaced, or ended for good (`ends`), and why; `due` if that is asked of it already."""

    pod: str
    component: str
    why: str
    ends: bool = False
    due: bool = False


class Issue(NamedTuple):
    """What a component would be refused or kept back for."""

    component: str
    reason: str
    message: str


class Object(NamedTuple):
    """An object that would be written; `component` is "" for those of the stack as a whole."""

    kind: str
    name: str
    component: str


@dataclass(frozen=True)
class Preview:
    """What would happen. `restarts` is in order; `blocked` components stay as they are; `notes` are for a person."""

    create: tuple[Object, ...] = ()
    change: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()
    restarts: tuple[Restart, ...] = ()
    blocked: tuple[Issue, ...] = ()
    shortfalls: tuple[Issue, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything would be done that is not due anyway."""
        restarts = [item for item in self.restarts if not item.due]
        return bool(self.create or self.change or self.delete or restarts)


def preview(
    live: CosStack | None, stack: CosStack, snapshot: Snapshot, *, hides_secrets: bool = False
) -> Preview:
    """What `stack` in the place of `live` (None: there is none) would do to what `snapshot` holds.

    What the operator does anyway, with `live` as it is, is left out. With `hides_secrets` nothing is said of Secrets,
    for they are not in the snapshot.
    """
    after, before = _unpaused(stack), _unpaused(live) if live else None
    resolution = resolve(after, snapshot)
    earlier = resolve(before, snapshot) if before else None
    decided = _all_changes(after, resolution, snapshot)
    due = _all_changes(before, earlier, snapshot) if before and earlier else _Changes((), ())
    # Without Secrets the hash of a pod's mounted files means nothing either.
    untold = {"Secret", "Pod"} if hides_secrets else set()
    applied = [_object(item.obj, snapshot) for item in decided.applies if item not in due.applies]
    applied = [item for item in dict.fromkeys(applied) if item.kind not in untold]
    removed = [item for item in decided.deletes if item not in due.deletes]
    remade = [item for item in removed if item.orphan]
    restarts = tuple(_restarts(resolution, earlier, snapshot))
    changed = [item for item in applied if Ref(item.kind, item.name) in snapshot.objects]
    return Preview(
        create=tuple(item for item in applied if item not in changed),
        change=(*changed, *(_object(snapshot.objects[item.ref], snapshot) for item in remade)),
        delete=tuple(
            _object(snapshot.objects[item.ref], snapshot)
            for item in removed
            if not item.orphan and item.ref.kind not in untold
        ),
        restarts=restarts,
        blocked=tuple(_blocked(resolution)),
        shortfalls=tuple(
            Issue(wanted.component, wanted.shortfall.reason.value, wanted.shortfall.message)
            for wanted in resolution.components
            if wanted.shortfall
        ),
        notes=(
            *_notes(live, stack, snapshot, resolution, restarts),
            *_returning(earlier, stack, snapshot, resolution),
            *(item.why for item in remade),
            *_pending(due, untold),
        ),
    )


class _Changes(NamedTuple):
    applies: tuple[Apply, ...]
    deletes: tuple[Delete, ...]


def _all_changes(stack: CosStack, resolution: Resolution, snapshot: Snapshot) -> _Changes:
    """What is written in the end, whoever waits for a turn; what has opened volumes is no change."""
    history = resolution.history
    found = differences(stack, resolution, records(stack, snapshot).snapshot)
    return _Changes(
        (*revisions(history, history, stack, snapshot), *found.applies),
        (*found.deletes, *forgotten(history, stack)),
    )


def _object(obj: Manifest, snapshot: Snapshot) -> Object:
    ref = ref_of(obj)
    # An intent may be less than the object: of a pod only an annotation is written.
    labels = snapshot.objects.get(ref, obj)["metadata"].get("labels") or {}
    return Object(*ref, labels.get(LABEL_STACK_COMPONENT, ""))


def _unpaused(stack: CosStack) -> CosStack:
    return stack.model_copy(update={"spec": stack.spec.model_copy(update={"paused": False})})


def _restarts(resolution: Resolution, earlier: Resolution | None, snapshot: Snapshot) -> Iterator[Restart]:
    """Pods in the order in which they go: removed ones, those that do not serve anyway, then one at a time."""
    before = {wanted.component: wanted for wanted in earlier.components} if earlier else {}
    present = {wanted.component for wanted in resolution.components}
    for component, wanted in before.items():
        if component not in present and workload_ref(wanted) in snapshot.objects:
            for pod in pods_of(wanted, snapshot):
                why = "the component is removed; its volume and credentials are kept"
                if not wanted.claim:
                    why = "the component is removed"
                yield Restart(pod["metadata"]["name"], component, why, ends=True)
    waiting: list[Restart] = []
    for wanted in resolution.components:
        if not wanted.instance:
            continue
        known = before.get(wanted.component)
        due = known is not None and _same_pod(known, wanted)
        serves = assess(wanted, snapshot).serving
        for pod in pods_of(wanted, snapshot):
            if not is_current(pod, wanted):
                restart = Restart(pod["metadata"]["name"], wanted.component, _why(wanted), due=due)
                if serves:
                    waiting.append(restart)
                else:
                    yield restart
    yield from waiting


def _same_pod(before: Wanted, after: Wanted) -> bool:
    """Whether nothing is asked of the pod that is not asked of it already."""
    return (before.revision, before.claim) == (after.revision, after.claim)


def _why(wanted: Wanted) -> str:
    if workload_ref(wanted).kind == "Deployment":
        return f"revision {wanted.revision}, by a rolling update: a new pod serves before the old one ends"
    return f"revision {wanted.revision}; the component does not serve meanwhile"


def _blocked(resolution: Resolution) -> Iterator[Issue]:
    for wanted in resolution.components:
        if wanted.blocker:
            yield Issue(wanted.component, wanted.blocker.reason.value, wanted.blocker.message)
        elif wanted.failure:
            text = (
                f"revision {wanted.failure.revision} did not serve when it was tried ({wanted.failure.message}): "
                f"revision {wanted.revision} goes on to run until this part of the spec is another"
            )
            yield Issue(wanted.component, wanted.failure.reason, text)


def _notes(
    live: CosStack | None,
    stack: CosStack,
    snapshot: Snapshot,
    resolution: Resolution,
    restarts: tuple[Restart, ...],
) -> Iterator[str]:
    if stack.spec.paused:
        yield "spec.paused is true: nothing of this happens until the stack is resumed"
    elif live and live.spec.paused:
        yield "the stack is resumed: what has waited meanwhile happens too"
    replaced = {restart.component for restart in restarts}
    if len({item.component for item in restarts if not item.ends}) > 1:
        yield "components are restarted one at a time, each once the one before serves again"
    for wanted in resolution.components:
        if replaced - {wanted.component} and wanted.component not in replaced and wanted.instance:
            found = assess(wanted, snapshot)
            exists = workload_ref(wanted) in snapshot.objects
            if exists and not found.serving:
                yield f"{wanted.component} does not serve now ({found.reason.value}): others are not restarted before"


def _returning(
    earlier: Resolution | None, stack: CosStack, snapshot: Snapshot, resolution: Resolution
) -> Iterator[str]:
    """Components that are added and find data of theirs."""
    before = {wanted.component for wanted in earlier.components} if earlier else set()
    for wanted in resolution.components:
        kept = snapshot.objects.get(Ref("PersistentVolumeClaim", wanted.claim))
        if wanted.component not in before and kept and is_ours(kept, stack):
            yield f"{wanted.component} begins with the data on volume {wanted.claim}, which was kept"


def _pending(due: _Changes, untold: Collection[str]) -> Iterator[str]:
    """What the operator has to do anyway, which is no consequence of the manifest."""
    refs = [ref_of(item.obj) for item in due.applies]
    refs += [item.ref for item in due.deletes]
    # What is learnt of a revision is written to it whenever there is something to learn.
    hidden = {*untold, "ControllerRevision"}
    told = [f"{ref.kind} {ref.name}" for ref in dict.fromkeys(refs) if ref.kind not in hidden]
    if told:
        yield f"due anyway, whatever the manifest says: {', '.join(told)}"


def preview_data(found: Preview) -> dict[str, Any]:
    """The preview for `-o json`."""
    return {
        "create": [item._asdict() for item in found.create],
        "change": [item._asdict() for item in found.change],
        "delete": [item._asdict() for item in found.delete],
        "restarts": [item._asdict() for item in found.restarts],
        "blocked": [item._asdict() for item in found.blocked],
        "shortfalls": [item._asdict() for item in found.shortfalls],
        "notes": list(found.notes),
    }


def preview_lines(found: Preview) -> list[Line]:
    """The preview for a person: a branch for objects, for pods, and for what would not be done."""
    branches = []
    objects = [
        line(Span(f"{verb} ", style), f"{component or 'the stack'}: ", told(items))
        for verb, style, all_items, told in (
            ("create", GOOD, found.create, _by_kind),
            ("change", WAITS, found.change, _by_name),
            ("delete", BAD, found.delete, _by_name),
        )
        for component, items in _by_component(all_items)
    ]
    if objects:
        branches.append(line(Span("objects", STRONG), below=objects))
    pods = [
        line(
            Span("end " if item.ends else f"{number}. restart ", BAD if item.ends else WAITS),
            f"{item.pod}: {item.why}{'; due already, whatever the manifest says' if item.due else ''}",
        )
        for number, item in enumerate(
            found.restarts, start=1 - sum(restart.ends for restart in found.restarts)
        )
    ]
    title = "pods, in this order" if len(pods) > 1 else "pods"
    branches.append(
        line(Span(title, STRONG), below=pods or [line(Span("no pod restarts", GOOD))])
        if found.changes
        else line(Span("no object and no pod would change", GOOD), below=pods)
    )
    for title, issues in (("not done", found.blocked), ("done only in part", found.shortfalls)):
        if issues:
            told = [
                line(Span(f"{item.component} ({item.reason})", BAD), f": {one_line(item.message)}")
                for item in issues
            ]
            branches.append(line(Span(title, STRONG), below=told))
    if found.notes:
        branches.append(line(Span("to know", STRONG), below=[line(text) for text in found.notes]))
    return branches


def _by_component(items: Sequence[Object]) -> Iterator[tuple[str, list[Object]]]:
    for component in dict.fromkeys(item.component for item in items):
        yield component, [item for item in items if item.component == component]


def _by_name(items: Sequence[Object]) -> str:
    return ", ".join(
        f"an annotation of Pod {item.name}" if item.kind == "Pod" else f"{item.kind} {item.name}"
        for item in items
    )


def _by_kind(items: Sequence[Object]) -> str:
    """A few objects by name, many by kind."""
    if len(items) <= _NAMED:
        return _by_name(items)
    counts = Counter(item.kind for item in items)
    return ", ".join(f"{count} {kind}s" if count > 1 else kind for kind, count in counts.items())
