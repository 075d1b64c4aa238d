"""Copies and restores that are interrupted at each point: they go on, or fail clean, and nothing is left behind.

Each life is played once undisturbed, which gives its points: every call that the operator makes, and every look at
which a Job runs. Then once for each point and each thing that may happen there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

import pytest
from backup_world import SPEC, START, World, report
from test_retention import YEARLY, add, kept_by
from test_search import copy, found

from cos_controllers.api.backup import BackupPhase, StackBackup
from cos_controllers.api.restore import RestorePhase, StackRestore
from cos_controllers.backups.candidates import candidate_of
from cos_controllers.backups.job import DUMP, FETCHER, FINDER, LOAD, STORE, TIDIER, told
from cos_controllers.backups.order import Tidy
from cos_controllers.k8s import Manifest

#: Looks of five seconds after which everything is over, whatever happened.
LOOKS = 60


class Happens(StrEnum):
    """What interrupts a life."""

    NOTHING = "nothing"
    OPERATOR_DIES = "the operator dies before this call, and another one begins"
    JOB_DIES = "the container that runs is killed"
    JOB_DELETED = "somebody deletes the Job"
    OBJECT_DELETED = "somebody deletes what the Job was made for"


@dataclass
class Life:
    """A world in which something is done, and what happens to it at which point."""

    world: World
    what: Happens = Happens.NOTHING
    at: int = 0
    calls: int = 0
    busy: int = 0
    ended: dict[str, list[str]] = field(default_factory=dict)

    def play(self) -> None:
        """Until nothing more is to be done."""
        for _ in range(LOOKS):
            self._look()
            if self.world.component == "neo4j":
                self.world.obey()
            self.world.switch()
            for name in [name for name, job in self.world.jobs.items() if not job.get("status")]:
                if self.busy == self.at and self.what in {Happens.JOB_DIES, Happens.JOB_DELETED}:
                    self._disturb(name)
                elif self.busy == self.at and self.what is Happens.OBJECT_DELETED:
                    self.world.backups.pop("b", None)
                    self.world.restores.pop("r", None)
                else:
                    self._get_on(name)
                self.busy += 1

    def _look(self) -> None:
        plan = self.world.step(5) if self.what is not Happens.OPERATOR_DIES else None
        if plan:
            self.calls += len(self.world.calls(plan))
            return
        self.world.now += timedelta(seconds=5)
        for call, item in self.world.calls(self.world.decide()):
            self.calls += 1
            if self.calls == self.at + 1:
                # What it knew by heart is gone with it.
                self.world.made = frozenset()
                return
            call(item)

    def _containers(self, name: str) -> list[str]:
        spec = self.world.jobs[name]["spec"]["template"]["spec"]
        return [item["name"] for item in (*spec.get("initContainers", ()), *spec["containers"])]

    def _next(self, name: str) -> str:
        uid = self.world.jobs[name]["metadata"]["uid"]
        done = self.ended.setdefault(uid, [])
        following = next(item for item in self._containers(name) if item not in done)
        done.append(following)
        return following

    def _get_on(self, name: str) -> None:
        container = self._next(name)
        says: dict[str, Callable[[], str]] = {
            DUMP: lambda: "",
            FETCHER: lambda: "",
            STORE: lambda: report(self.world.now),
            TIDIER: lambda: json.dumps({"checked": False, "removed": self._removed(name)}),
            FINDER: lambda: found(copy()),
            LOAD: lambda: json.dumps({"entries": 3}),
        }
        self.world.end(says[container](), container=container, name=name)

    def _removed(self, name: str) -> list[str]:
        order = told(self.world.jobs[name], Tidy)
        return list(order.remove) if order else []

    def _disturb(self, name: str) -> None:
        if self.what is Happens.JOB_DIES:
            self.world.end("", 137, container=self._next(name), name=name)
            return
        del self.world.jobs[name]
        self.world.pods.pop(name, None)


def backup() -> World:
    world = World()
    world.create("b")
    return world


def backup_and_removal() -> World:
    world = kept_by({"last": 1}, schedule=YEARLY)
    for number in range(3):
        add(world, f"d{number}", START + timedelta(days=number))
    world.create("b")
    return world


def backup_of_what_must_be_stopped() -> World:
    world = World(spec={"neo4j": {}, "backup": SPEC["backup"]}, component="neo4j")
    world.create("b", allowDowntime=True)
    return world


def of_postgres() -> World:
    archived = [{"name": "prod", "archive": {}}]
    return World(spec={"postgres": archived, "backup": SPEC["backup"]}, component="postgres-prod")


def backup_of_postgres() -> World:
    world = of_postgres()
    world.create("b")
    return world


def restore_of_postgres() -> World:
    world = of_postgres()
    world.restore("r", source={}, existingData="SetAside", pointInTime="Latest")
    return world


def restore_of(spec: Manifest) -> World:
    world = World()
    if "source" not in spec:
        add(world, "b", START)
    world.restore("r", **spec)
    return world


LIVES: dict[str, Callable[[], World]] = {
    "backup": backup,
    "backup and removal of older ones": backup_and_removal,
    "backup of what must be stopped": backup_of_what_must_be_stopped,
    "restore of a backup": lambda: restore_of({"existingData": "SetAside"}),
    "restore of what a repository has": lambda: restore_of({"source": {}, "existingData": "SetAside"}),
    "backup of a running server's files": backup_of_postgres,
    "restore to the end of the log": restore_of_postgres,
    "proof": lambda: restore_of({"source": {}, "into": "Throwaway"}),
}


def is_sound(life: Life) -> None:
    """What holds whatever happened: all has ended, nothing is left, and the component runs on what it may run on."""
    world = life.world
    seen = world.seen()
    assert not world.jobs
    assert all(item.status.completion_time for item in (*seen.backups, *seen.restores))
    assert world.there
    assert not world.halted
    volume = world.claims[world.runs_on]
    assert not candidate_of(volume), "nobody runs on a volume that is only being filled"
    for item in seen.backups:
        good = [row for row in item.status.components if row.phase is BackupPhase.SUCCEEDED]
        assert all(row.snapshot for row in good), "what is listed as good is in the repository"
        if item.status.phase is BackupPhase.SUCCEEDED:
            assert len(good) == len(item.status.components), "no partial set is listed as good"


def outcome(life: Life) -> BackupPhase | RestorePhase | None:
    world = life.world
    if "r" in world.restores:
        return StackRestore.model_validate(world.restores["r"]).status.phase
    return StackBackup.model_validate(world.backups["b"]).status.phase if "b" in world.backups else None


@pytest.mark.parametrize("name", LIVES)
def test_whatever_happens_at_any_point_it_goes_on_or_fails_clean(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed = Life(LIVES[name]())
    undisturbed.play()
    is_sound(undisturbed)
    good = {BackupPhase.SUCCEEDED, RestorePhase.SUCCEEDED}
    assert outcome(undisturbed) in good
    assert undisturbed.calls > 2
    assert undisturbed.busy > 0
    tried = 0
    for what in Happens:
        points = undisturbed.calls if what is Happens.OPERATOR_DIES else undisturbed.busy
        for at in range(points if what is not Happens.NOTHING else 0):
            life = Life(LIVES[name](), what, at)
            life.play()
            is_sound(life)
            if what is Happens.OPERATOR_DIES:
                assert outcome(life) in good, f"{what}: {at}"
                assert life.world.runs_on == undisturbed.world.runs_on
            elif outcome(life) not in good and life.world.component != "neo4j":
                first = f"cos-{life.world.component}-data-0"
                assert life.world.runs_on == first, "what has failed changes nothing"
            tried += 1
    with capsys.disabled():
        print(f"\n{name}: {tried} points", end="")  # noqa: T201 - a figure for people
    assert tried >= 7
