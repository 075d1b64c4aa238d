"""The phases of one measurement with a number of stacks, on a cluster made for it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apiclient import ApiClient, Manifest
from auditlog import Mark, Write
from bench_cluster import (
    OPERATOR_USER,
    STACKS_PATH,
    BenchCluster,
    create_stacks,
    namespace_of,
    prepare,
    stack_name,
    stack_path,
    until,
)
from figures import quantile, slope
from floor import measure_floor
from subject import Sample, Subject, load, resident_over

from cos_testbed.progress import Progress

Figures = dict[str, Any]

#: What the operator writes that is no child of a stack.
_NO_CHILD = frozenset({"cosstacks/status", "events"})
_QUIET_SECONDS = 15.0
#: How many edits are made at a restart; the slowest counts.
_RESTART_EDITS = 5


@dataclass(frozen=True)
class Wish:
    """What to measure. Times are seconds, `edits` and `churn` are numbers of edits, `churn_rate` is edits a second."""

    stacks: int
    steady: float
    edits: int
    edit_interval: float
    restarts: int
    churn: int
    churn_rate: float
    floor: bool


class Run:
    """One measurement: phases in order, each within a time limit, each adding its figures."""

    def __init__(self, cluster: BenchCluster, wish: Wish, progress: Progress, folder: Path) -> None:
        self._cluster = cluster
        self._wish = wish
        self._progress = progress
        self._folder = folder
        self._edits = 0
        self._random = random.Random(wish.stacks)  # noqa: S311 which stack is edited is no secret
        self.figures: Figures = {"wish": asdict(wish)}

    async def measure(self) -> None:
        """All phases; `figures` grows with each. Raises TimeoutError if one does not end in time."""
        count = self._wish.stacks
        log, record = self._folder / f"operator-{count}.log", self._folder / f"writes-{count}.jsonl"
        async with self._phase("cluster", 300):
            await asyncio.to_thread(self._cluster.make)
        async with ApiClient(self._cluster.kubeconfig) as client:
            async with self._phase("volumes", 60 + count):
                await prepare(client, count)
            with Subject.start(self._cluster, log, record) as subject:
                await self._create(client, subject, record)
                await self._steady(subject)
                await self._edit(client, subject)
                await self._churn(client, subject)
                await subject.process.stop()
            for number in range(self._wish.restarts):
                await self._restart(client, log, number)
        if self._wish.floor:
            async with self._phase("floor", 600 + 4 * count):
                length = self.figures["create"]["record_bytes"]
                floor = await measure_floor(self._cluster, count, record, length, self._folder)
                self.figures["floor"] = floor

    @asynccontextmanager
    async def _phase(self, name: str, seconds: float) -> AsyncIterator[Figures]:
        """A named step with its limit; what the body puts into the mapping is kept, with the machine's load."""
        figures: Figures = {"load_before": load()}
        with self._progress.step(f"{self._wish.stacks} stacks: {name} (at most {seconds:.0f} s)") as step:
            async with asyncio.timeout(seconds):
                yield figures
            figures["load_after"] = load()
            shown = (f"{key} {value:.4g}" for key, value in figures.items() if isinstance(value, float | int))
            step.note(", ".join(shown))
        self.figures.setdefault(name, figures)

    async def _create(self, client: ApiClient, subject: Subject, record: Path) -> None:
        """From the first stack's creation until every stack is Ready."""
        count = self._wish.stacks
        self._progress.info(f"the operator is process {subject.process.pid}")
        await subject.ready()
        async with self._phase("create", 300 + 4 * count) as figures:
            mark, before = self._cluster.audit.mark(), await subject.sample()
            figures["resident_empty"] = before.resident
            await create_stacks(client, count)
            figures["created_after"] = time.time() - before.at

            async def all_ready() -> bool:
                subject.process.require_alive()
                cells = await client.column(STACKS_PATH, "Ready")
                return len(cells) == count and set(cells) == {"True"}

            await until("every stack Ready", all_ready, 300 + 4 * count, max(0.25, count / 500))
            after = await subject.sample()
            figures["record_bytes"] = record.stat().st_size
            figures["ready_after"] = after.at - before.at
            pods = [
                write.answered
                for write in self._cluster.audit.writes(mark, "kwok")
                if write.resource == "pods/status"
            ]
            figures["pods_ready_after"] = max(pods) - before.at
            figures.update(_spent(before, after))
            figures["peak_resident"] = subject.process.resident("VmHWM")

    async def _steady(self, subject: Subject) -> None:
        """Nobody changes anything: what the operator spends to know that all is well, and that it writes nothing."""
        await self._quiet("quiet", subject)
        async with self._phase("steady", self._wish.steady + 30) as figures:
            mark, before = self._cluster.audit.mark(), await subject.sample()
            await asyncio.sleep(self._wish.steady)
            after = await subject.sample()
            figures.update(_spent(before, after))
            figures["audited_writes"] = len(self._cluster.audit.writes(mark, OPERATOR_USER))

    async def _edit(self, client: ApiClient, subject: Subject) -> None:
        """Single edits in steady state: from the answer to the edit until the answer to the first child's write."""
        # Three times as long as wished for: an edit takes its time too, on a busy machine.
        limit = 3 * self._wish.edits * self._wish.edit_interval + 180
        async with self._phase("edits", limit) as figures:
            mark, before = self._cluster.audit.mark(), await subject.sample()
            for _ in range(self._wish.edits):
                await self._edit_routes(client, self._random.randrange(self._wish.stacks))
                await asyncio.sleep(self._wish.edit_interval)
            served = await self._served(mark, self._wish.edits)
            figures.update(_spent(before, await subject.sample()))
            for name, values in (
                ("to_written", [write.answered - edit.answered for edit, write in served]),
                ("to_received", [write.received - edit.answered for edit, write in served]),
            ):
                figures[f"{name}_p50"] = quantile(values, 0.5)
                figures[f"{name}_p99"] = quantile(values, 0.99)
                figures[f"{name}_max"] = max(values)

    async def _churn(self, client: ApiClient, subject: Subject) -> None:
        """Many edits in little time, half of which replace a pod: does memory grow with their number?"""
        wish = self._wish
        seconds = wish.churn / wish.churn_rate
        if not wish.churn:
            return
        await self._quiet("quiet before churn", subject)
        async with self._phase("churn", 3 * seconds + 600) as figures:
            mark, before = self._cluster.audit.mark(), await subject.sample()
            watching = asyncio.create_task(resident_over(subject.process, seconds, 1.0))
            began = time.monotonic()
            for number in range(wish.churn):
                stack = self._random.randrange(wish.stacks)
                await (self._edit_routes(client, stack) if number % 2 else self._edit_redis(client, stack))
                await asyncio.sleep(max(0.0, began + number / wish.churn_rate - time.monotonic()))
            points = await watching
            await self._quiet("quiet after churn", subject)
            after = await subject.sample()
            half = points[len(points) // 2 :]
            figures.update(_spent(before, after))
            figures["audited_writes"] = len(self._cluster.audit.writes(mark, OPERATOR_USER))
            figures["resident_before"], figures["resident_after"] = before.resident, after.resident
            figures["bytes_per_edit"] = slope([(x * wish.churn_rate, y) for x, y in half])
            figures["resident_points"] = points

    async def _restart(self, client: ApiClient, log: Path, number: int) -> None:
        """A new process, and an edit of some stacks at the moment of its start."""
        count = self._wish.stacks
        async with self._phase(f"restart {number + 1}", 600 + count) as figures:
            mark, began = self._cluster.audit.mark(), time.time()
            with Subject.start(self._cluster, log) as subject:
                stacks = {0, count - 1} | set(
                    self._random.sample(range(count), min(count, _RESTART_EDITS - 2))
                )
                for stack in stacks:
                    await self._edit_routes(client, stack)
                served = await self._served(mark, len(stacks))
                figures["fresh_edits_served_after"] = [write.answered - began for _, write in served]
                figures["slowest_edit_after"] = max(figures["fresh_edits_served_after"])
                await subject.ready()

                async def all_seen() -> bool:
                    sample = await subject.sample()
                    return sample.runs >= count and not sample.depth

                await until("every stack looked at", all_seen, 60 + count / 2, max(0.5, count / 200))
                figures["all_seen_after"] = time.time() - began
                figures["cpu"] = (await subject.sample()).cpu.total
                await self._quiet("quiet after restart", subject)
                edited = {(namespace_of(stack), stack_name(stack)) for stack in stacks}
                others = [write for write in self._child_writes(mark) if _stack_of(write) not in edited]
                figures["child_writes"] = len(others)
                figures["child_writes_seen"] = [f"{w.verb} {w.resource} {w.name}" for w in others[:10]]
                await subject.process.stop()

    async def _edit_routes(self, client: ApiClient, stack: int) -> None:
        """Another path of a route: a configuration file that Traefik reads by itself."""
        self._edits += 1
        route = {"name": "api", "path": f"/api-{self._edits}", "service": {"name": "web", "port": 80}}
        await self._patch(client, stack, {"traefik": {"routes": [route]}})

    async def _edit_redis(self, client: ApiClient, stack: int) -> None:
        """Another limit of clients: a new pod."""
        self._edits += 1
        await self._patch(client, stack, {"redis": {"maxClients": 50 + self._edits % 1000}})

    async def _patch(self, client: ApiClient, stack: int, spec: Manifest) -> None:
        merge = "application/merge-patch+json"
        await client.request("PATCH", stack_path(stack), body={"spec": spec}, content_type=merge)

    async def _served(self, mark: Mark, count: int) -> list[tuple[Write, Write]]:
        """Each edit since the mark and the first write to a child of its stack after it, once there are `count`."""

        async def pairs() -> list[tuple[Write, Write]]:
            writes = self._cluster.audit.writes(mark)
            edits = [w for w in writes if w.resource == "cosstacks" and w.verb == "patch"]
            children = [w for w in writes if _is_child_write(w)]
            found = [
                (edit, min(after, key=lambda w: w.answered))
                for edit in edits
                if (
                    after := [
                        w for w in children if _stack_of(w) == _stack_of(edit) and w.received > edit.received
                    ]
                )
            ]
            return found if len(found) >= count else []

        return await until(f"{count} edits served", pairs, 180 + self._wish.stacks / 2, 1)

    async def _quiet(self, name: str, subject: Subject) -> None:
        """Wait until the operator has written nothing for a while, and no stack waits to be looked at."""
        limit = 300 + self._wish.stacks / 2
        async with self._phase(name, limit):
            mark = self._cluster.audit.mark()

            async def silent() -> bool:
                nonlocal mark
                subject.process.require_alive()
                here, mark = mark, self._cluster.audit.mark()
                silent = not self._cluster.audit.writes(here, OPERATOR_USER)
                return silent and not (await subject.sample()).depth

            await asyncio.sleep(_QUIET_SECONDS)
            await until("the operator writes nothing and nothing is queued", silent, limit, _QUIET_SECONDS)

    def _child_writes(self, mark: Mark) -> list[Write]:
        return [write for write in self._cluster.audit.writes(mark) if _is_child_write(write)]


def _is_child_write(write: Write) -> bool:
    return write.user == OPERATOR_USER and write.resource not in _NO_CHILD


def _stack_of(write: Write) -> tuple[str, str]:
    """Namespace and name of a stack, by a name that begins with it."""
    return write.namespace, write.name.partition("-")[0]


def _spent(before: Sample, after: Sample) -> Figures:
    """What was spent between two samples."""
    cpu = after.cpu - before.cpu
    return {
        "seconds": after.at - before.at,
        "cpu": cpu.total,
        "waited": after.waited - before.waited,
        "cpu_watching": cpu.others,
        "reads": after.reads - before.reads,
        "writes": after.writes - before.writes,
        "runs": after.runs - before.runs,
        "run_seconds": after.run_seconds - before.run_seconds,
        "resident": after.resident,
        "depth": after.depth,
    }
