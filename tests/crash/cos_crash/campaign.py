"""Many cases on some lanes at once: recorded fault-free first, resumable, bounded in time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cos_crash.api import Api
from cos_crash.faults import Case
from cos_crash.lane import PATIENCE, Lane, Reference, Result
from cos_crash.lifecycles import LIFE_CYCLES, LifeCycle
from cos_crash.operator_process import Nursery
from cos_crash.points import Points
from cos_crash.site import LEFTOVERS, Site, serve_definitions
from cos_testbed.instance import Instance
from cos_testbed.pki import Authority

ROOT = Path(__file__).parents[3]

#: How many cases at once: each waits far more than it computes.
LANES = 4
#: What the operator consists of, as it is tested: it is copied, so that one may go on editing.
_TESTED = ("operator", "controllers", "crds", "manifests")


class Ledger:
    """Finished cases in a file, so that a campaign goes on where it was interrupted. Without a path, in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.finished: set[str] = set()
        if path and path.exists():
            self.finished = {json.loads(line)["case"] for line in path.read_text().splitlines()}

    def note(self, result: Result) -> None:
        """A case that ended well is finished."""
        if not result.ok:
            return
        self.finished.add(str(result.case))
        if self._path:
            line = {
                "case": str(result.case),
                "unreached": result.unreached,
                "seconds": round(result.seconds, 1),
            }
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def digest_of(source: Path) -> str:
    """Of all that is tested, and of the tests: other code, other results."""
    found = hashlib.sha256()
    for path in sorted((*source.rglob("*"), *Path(__file__).parent.glob("*.py"))):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


@dataclass
class Campaign:
    """Tries the points, on `lanes` sites at once, until none is left or `deadline` (monotonic) comes.

    `directory` takes logs and reports of failures. `notify` is called with each result that counts. `patience` is how
    many seconds longer than without a fault a life cycle may take; none is begun that may not end before the deadline.
    """

    instance: Instance
    points: Points
    directory: Path
    source: Path
    lanes: int
    notify: Callable[[Result], None]
    deadline: float | None = None
    patience: float = PATIENCE
    results: list[Result] = field(default_factory=list)
    references: dict[str, Reference] = field(default_factory=dict)
    _recorded: dict[str, asyncio.Event] = field(
        default_factory=lambda: {cycle.name: asyncio.Event() for cycle in LIFE_CYCLES}
    )

    async def run(self) -> None:
        """Raises `Deviation` or `OperatorEnded` where a run without faults fails to come to its end."""
        tls, authority = self._certificates()
        async with Api(self.instance) as api, Nursery(self.source) as nursery:
            await self._clear(api)
            await serve_definitions(api, self.source)

            @contextlib.asynccontextmanager
            async def site(name: str) -> AsyncIterator[Site]:
                async with Site(api, nursery, self.source, tls, authority, self.directory, name) as made:
                    yield made

            # The clock of the loop is the monotonic one.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self.deadline), asyncio.TaskGroup() as group:
                    for number in range(self.lanes):
                        group.create_task(self._serve(site, number))

    async def _serve(
        self, site: Callable[[str], contextlib.AbstractAsyncContextManager[Site]], number: int
    ) -> None:
        """One lane: chains of life cycles, on a new site where the last one did not end with nothing left."""
        while self._outstanding() and self._time_for(LIFE_CYCLES[0]):
            async with site(str(number)) as place:
                while (
                    await self._chain(Lane(place, self.patience), place, recording=number == 0)
                    and self._outstanding()
                ):
                    pass

    async def _chain(self, lane: Lane, site: Site, *, recording: bool) -> bool:
        """One case of each life cycle in turn, as far as there are any. Whether nothing is left on the site."""
        for cycle in LIFE_CYCLES:
            if not any(self.points.outstanding(later.name) for later in self._from(cycle)):
                return False
            if not self._recorded[cycle.name].is_set():
                if recording:
                    await self._record(lane, cycle)
                    continue
                await self._recorded[cycle.name].wait()
            if not self._time_for(cycle) or not await self._try(lane, site, cycle):
                return False
        return True

    async def _try(self, lane: Lane, site: Site, cycle: LifeCycle) -> bool:
        """The next case of the life cycle. Whether it ended well."""
        case = self.points.take(cycle.name)
        offset = site.log.stat().st_size
        result = await lane.run(cycle, case, self.references[cycle.name])
        # Where none is left, the life cycle is run without a fault, as the way to the next one.
        if case.faults or not result.ok:
            self.results.append(result)
            self.points.note(result)
            self.notify(result)
        if not result.ok:
            self._report(result, site, offset)
        return result.ok

    async def _record(self, lane: Lane, cycle: LifeCycle) -> None:
        reference = await lane.record(cycle)
        self.references[cycle.name] = reference
        self.points.prepare(cycle.name, reference.totals)
        self._recorded[cycle.name].set()

    def _outstanding(self) -> bool:
        return any(self.points.outstanding(cycle.name) for cycle in LIFE_CYCLES)

    @staticmethod
    def _from(cycle: LifeCycle) -> Iterator[LifeCycle]:
        return iter(LIFE_CYCLES[LIFE_CYCLES.index(cycle) :])

    def _time_for(self, cycle: LifeCycle) -> bool:
        if self.deadline is None:
            return True
        reference = self.references.get(cycle.name)
        needed = reference.seconds + self.patience if reference else 0.0
        return time.monotonic() + needed < self.deadline

    def _report(self, result: Result, site: Site, offset: int) -> None:
        with site.log.open("rb") as log:
            log.seek(offset)
            said = log.read().decode(errors="replace")
        parts = (
            f"{result.case} in {site.namespace}, {result.seconds:.1f} s",
            "\n".join(result.problems),
            "Writes of the operator:\n" + "\n".join(result.writes),
            "Log of the operator:\n" + said,
        )
        (self.directory / f"{result.case}.txt").write_text("\n\n".join(parts))

    def _certificates(self) -> tuple[ssl.SSLContext, Path]:
        authority = Authority(self.directory / "pki", "ca")
        leaf = authority.leaf("proxy", "crash-proxy", hosts=["127.0.0.1"], server=True)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(leaf.certificate, leaf.key)
        return tls, authority.files.certificate

    @staticmethod
    async def _clear(api: Api) -> None:
        """Delete what an interrupted campaign has left."""
        found = await api.get(f"/api/v1/namespaces?labelSelector={LEFTOVERS}")
        for namespace in (found or {}).get("items", []):
            await api.delete(f"/api/v1/namespaces/{namespace['metadata']['name']}")


def copy_of_tested(directory: Path) -> Path:
    """A copy of what is tested."""
    target = directory / "source"
    for name in _TESTED:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def parse_cases(texts: Iterable[str]) -> list[Case]:
    """Cases from their ids. Raises ValueError."""
    found = [Case.parse(text) for text in texts]
    known = {cycle.name for cycle in LIFE_CYCLES}
    for case in found:
        if case.cycle not in known:
            raise ValueError(f"{case.cycle!r} is not a life cycle: {', '.join(sorted(known))}")
    return found
