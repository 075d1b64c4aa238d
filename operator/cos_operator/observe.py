"""Read everything about one stack: the API's objects first, then the engines that are due."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import structlog

from cos_controllers.api.backup import StackBackup
from cos_controllers.api.probe import StackProbe
from cos_controllers.api.restore import StackRestore
from cos_controllers.api.stack import CosStack
from cos_controllers.halts import halted_by
from cos_controllers.k8s import Manifest
from cos_controllers.names import backups_selector, stack_selector
from cos_controllers.observation import CheckTarget, Facts, Ref, Snapshot, WarningEvent, ref_of
from cos_controllers.parsing import parse_backups, parse_probes, parse_restores
from cos_controllers.plan import LogSource, questions, wanted_refs
from cos_controllers.resolve import Resolution, references, resolve
from cos_controllers.timetable import verification_of
from cos_operator.asking import Asker
from cos_operator.kube import CHILD_KINDS, Kube, KubeError

log = structlog.stdlib.get_logger(__name__)

#: Bytes of randomness from which the passwords of a new stack derive.
_ENTROPY_BYTES = 32
#: Lines of a log in which an engine says how far it is, between those about refused connections.
_LOG_LINES = 100


class Observed(NamedTuple):
    """A snapshot, and the stack resolved with it."""

    snapshot: Snapshot
    resolution: Resolution


async def children(kube: Kube, namespace: str, name: str) -> dict[Ref, Manifest]:
    """The objects that carry the labels of a stack, whether it exists or not. Raises `KubeError`."""
    lists = await asyncio.gather(
        *(kube.list_known(kind, namespace, stack_selector(name)) for kind in CHILD_KINDS)
    )
    return {ref_of(obj): obj for found in lists for obj in found}


async def observe(
    kube: Kube,
    stack: CosStack,
    objects: Mapping[Ref, Manifest],
    asker: Asker,
    known: Callable[[Sequence[CheckTarget]], Mapping[str, Facts]] = lambda _: {},
) -> Observed:
    """Look at the stack, whose `children` are `objects`, at what it refers to, and ask its engines.

    `known` says what those engines were last found to be like: to find that out takes longer than a look may.
    Raises `KubeError` if the API cannot be read; what an engine does never raises.
    """
    stopped = any(map(halted_by, objects.values()))
    named, probes, backups, restores, jobs = await asyncio.gather(
        _secrets(kube, stack),
        _probes(kube, stack),
        _backups(kube, stack, stopped=stopped),
        _restores(kube, stack),
        _jobs(kube, stack, stopped=stopped),
    )
    snapshot = Snapshot(
        objects=objects,
        references=named,
        backups=backups,
        jobs=jobs,
        entropy=secrets.token_bytes(_ENTROPY_BYTES),
    )
    resolution = resolve(stack, snapshot)
    missing = wanted_refs(resolution) - set(objects)
    if foreign := await _by_name(kube, stack.metadata.namespace, missing):
        snapshot = replace(snapshot, objects={**objects, **foreign})
        resolution = resolve(stack, snapshot)
    asked = questions(resolution, snapshot)
    warnings = await _warnings(kube, stack, snapshot.objects) if asked.warnings else {}
    checks, logs = await asyncio.gather(asker.ask(asked.targets), _logs(kube, stack, asked.logs))
    facts = known(asked.targets)
    found = replace(
        snapshot,
        probes=probes,
        restores=restores,
        warnings=warnings,
        checks=checks,
        facts=facts,
        logs=logs,
    )
    return Observed(found, resolution)


async def _by_name(kube: Kube, namespace: str, refs: Iterable[Ref]) -> dict[Ref, Manifest]:
    """Objects without our labels that hold a name that the stack needs: they may be someone else's."""
    ordered = sorted(refs)
    # From etcd, but for revisions: what an edit needs first. The API server itself refuses to change their data.
    found = await asyncio.gather(
        *(
            (kube.get_known if ref.kind == "ControllerRevision" else kube.get)(ref.kind, namespace, ref.name)
            for ref in ordered
        )
    )
    return {ref: obj for ref, obj in zip(ordered, found, strict=True) if obj is not None}


async def _probes(kube: Kube, stack: CosStack) -> list[StackProbe] | None:
    """Its probes, if it has objectives that are judged by them; None if they cannot be read."""
    found = await _referring(kube, "StackProbe", stack) if stack.spec.slo is not None else []
    return None if found is None else parse_probes(stack.metadata.name, found)


async def _backups(kube: Kube, stack: CosStack, *, stopped: bool) -> list[StackBackup] | None:
    """Its backups, if it has repositories for them or is stopped for one; None if they cannot be read."""
    wanted = stopped or stack.spec.backup is not None
    found = await _referring(kube, "StackBackup", stack) if wanted else []
    return None if found is None else parse_backups(stack.metadata.name, found)


async def _restores(kube: Kube, stack: CosStack) -> list[StackRestore] | None:
    """Its restores, if some are made to verify its backups; None if they cannot be read."""
    wanted = verification_of(stack) is not None
    found = await _referring(kube, "StackRestore", stack) if wanted else []
    return None if found is None else parse_restores(stack.metadata.name, found)


async def _jobs(kube: Kube, stack: CosStack, *, stopped: bool) -> list[Manifest]:
    """The Jobs of its backups and restores, if something is stopped for one."""
    if not stopped:
        return []
    return await kube.list("Job", stack.metadata.namespace, backups_selector(stack.metadata.name))


async def _referring(kube: Kube, kind: str, stack: CosStack) -> list[Manifest] | None:
    """What may refer to a stack; None if it cannot be read: nothing is known of that then, and all else goes on."""
    try:
        return await kube.list_known(kind, stack.metadata.namespace, "")
    except KubeError as error:
        log.warning("not read", kind=kind, error=str(error))
        return None


async def _secrets(kube: Kube, stack: CosStack) -> dict[str, Manifest]:
    names = sorted(references(stack))
    found = await asyncio.gather(*(kube.get("Secret", stack.metadata.namespace, name) for name in names))
    return {name: obj for name, obj in zip(names, found, strict=True) if obj is not None}


async def _warnings(kube: Kube, stack: CosStack, objects: Mapping[Ref, Manifest]) -> dict[Ref, WarningEvent]:
    """The newest warning of each of the given objects, told apart from a predecessor of its name by UID."""
    uids = {obj["metadata"]["uid"]: ref for ref, obj in objects.items()}
    events = await kube.list("Event", stack.metadata.namespace, field_selector="type=Warning")
    found: dict[Ref, WarningEvent] = {}
    for event in sorted(events, key=lambda item: item.get("lastTimestamp") or item.get("eventTime") or ""):
        ref = uids.get(event["involvedObject"].get("uid", ""))
        if ref:
            found[ref] = WarningEvent(event.get("reason") or "", event.get("message") or "")
    return found


async def _logs(kube: Kube, stack: CosStack, sources: Mapping[str, LogSource]) -> dict[str, str]:
    """The end of the logs of engines that are starting. One that cannot be read only tells nothing of progress."""

    async def read(source: LogSource) -> str:
        try:
            return await kube.log(stack.metadata.namespace, source.pod, source.container, lines=_LOG_LINES)
        except KubeError as error:
            log.warning("log not read", pod=source.pod, error=str(error))
            return ""

    found = await asyncio.gather(*(read(source) for source in sources.values()))
    return dict(zip(sources, found, strict=True))
