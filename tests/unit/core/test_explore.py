"""Whatever is done to a stack, in whatever order: nothing is broken on the way, and what is mended comes to rest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from world import World

from cos_controllers.changes import Apply, Delete
from cos_controllers.history import History, read_history
from cos_controllers.observation import Outcome, Ref, ref_of
from cos_controllers.plan import Plan

GOOD: dict[str, list[dict[str, Any]]] = {
    "redis": [{}, {"maxClients": 60}, {"maxClients": 61}],
    "neo4j": [{}, {"settings": {"db.transaction.timeout": "30s"}}],
    "traefik": [{}, {"replicas": 2}, {"image": "ci/traefik:other"}],
}
BAD = {component: {"image": f"ci/{component}:bad"} for component in GOOD}
DEADLINE = {"progressDeadlineSeconds": 60}
COMPONENTS = st.sampled_from(sorted(GOOD))
REFUSED = [
    Ref("StatefulSet", "cos-redis"),
    Ref("Deployment", "cos-traefik"),
    Ref("PersistentVolumeClaim", "cos-neo4j-data-0"),
    Ref("ConfigMap", "cos-redis-config"),
]


@dataclass
class Explorer:
    """A world, and what is true of it after each pass."""

    world: World = field(default_factory=lambda: World({**DEADLINE, "redis": {}, "neo4j": {}, "traefik": {}}))

    def __post_init__(self) -> None:
        self.world.bad_images.update(section["image"] for section in BAD.values())
        self.world.converge()

    def edit(self, component: str, choice: int) -> None:
        """A good section, the bad one, or none."""
        sections = [*GOOD[component], BAD[component], None]
        section = sections[choice % len(sections)]
        spec = {key: value for key, value in self.world.spec.items() if key != component}
        if section is None and not spec.keys() & GOOD.keys():
            return
        self.change(spec if section is None else {**spec, component: copy.deepcopy(section)})

    def change(self, spec: dict[str, Any]) -> None:
        self.world.spec = spec
        self.world.generation += 1

    def pause(self, component: str, choice: int) -> None:  # noqa: ARG002 - all moves are called alike
        self.change({**self.world.spec, "paused": not self.world.spec.get("paused", False)})

    def mode(self, component: str, choice: int) -> None:  # noqa: ARG002
        self.change({**self.world.spec, "rollback": {"mode": ("Off", "Automatic")[choice % 2]}})

    def sicken(self, component: str, choice: int) -> None:  # noqa: ARG002
        self.world.unready ^= {component}

    def answer(self, component: str, choice: int) -> None:
        answers = (Outcome.SERVING, Outcome.NOT_ANSWERING, Outcome.READ_ONLY)
        self.world.outcomes[component] = answers[choice % len(answers)]

    def refuse(self, component: str, choice: int) -> None:  # noqa: ARG002
        self.world.refused ^= {REFUSED[choice % len(REFUSED)]}

    def lose_pod(self, component: str, choice: int) -> None:  # noqa: ARG002
        for ref in [ref for ref in self.world.objects if ref.kind == "Pod" and component in ref.name]:
            del self.world.objects[ref]

    def lose_status(self, component: str, choice: int) -> None:  # noqa: ARG002
        self.world.status = {}

    def die(self, component: str, choice: int) -> None:  # noqa: ARG002
        self.one_pass(writes=choice)

    def wait(self, component: str, choice: int) -> None:  # noqa: ARG002
        self.world.now += timedelta(minutes=2 * choice)

    def history(self) -> History:
        return read_history(self.world.stack, self.world.snapshot())

    def one_pass(self, seconds: float = 5, writes: int | None = None) -> Plan:
        world = self.world
        snapshot, current = world.snapshot(), self.history().current
        serving = {name for name, check in snapshot.checks.items() if check.outcome is Outcome.SERVING}
        decided = world.step(writes=writes)
        ended = [snapshot.objects[item.ref]["metadata"] for item in decided.deletes if item.ref.kind == "Pod"]
        components = [metadata["labels"]["cos.dev/component"] for metadata in ended]
        assert sum(component in serving for component in components) <= 1, "one at a time"
        for metadata, component in zip(ended, components, strict=True):
            if component not in current.failed:
                revision = metadata["annotations"]["cos.dev/revision"]
                assert revision != current.components[component], "what is wanted is not replaced"
        if writes is None and world.condition("Ready")["status"] == "True":
            runs = {row["name"]: row["effectiveRevision"] for row in world.status["components"]}
            assert runs == current.components, "Ready is said of what the spec asks for"
        world.settle()
        world.now += timedelta(seconds=seconds)
        return decided

    def comes_to_rest(self) -> None:
        """As many passes as any deadline and its successors take, and then none of them writes."""
        for _ in range(16):
            self.one_pass(seconds=20)
        for _ in range(3):
            before, decided = self.world.status, self.one_pass(seconds=30)
            # What is refused is tried for as long as it is.
            actions: list[Apply | Delete] = [*decided.applies, *decided.deletes]
            refused = self.world.refused
            written = [a for a in actions if isinstance(a, Delete) or ref_of(a.obj) not in refused]
            assert written == []
            assert self.world.status == before
        conditions = {item["type"]: item["status"] for item in self.world.status["conditions"]}
        assert (conditions["Reconciling"], conditions["Stalled"]) != ("True", "True"), self.world.status


MOVES: list[Callable[[Explorer, str, int], None]] = [
    Explorer.edit,
    Explorer.pause,
    Explorer.mode,
    Explorer.sicken,
    Explorer.answer,
    Explorer.refuse,
    Explorer.lose_pod,
    Explorer.lose_status,
    Explorer.die,
    Explorer.wait,
]
MOVE = st.tuples(st.one_of(st.just(Explorer.edit), st.sampled_from(MOVES)), COMPONENTS, st.integers(0, 6))


@given(moves=st.lists(st.tuples(MOVE, st.integers(0, 3)), max_size=12), is_sick=st.booleans())
@settings(max_examples=6, deadline=None)
def test_nothing_breaks_on_the_way_and_what_is_mended_comes_to_rest(
    moves: list[tuple[tuple[Any, str, int], int]],
    is_sick: bool,  # noqa: FBT001 - hypothesis names it
) -> None:
    explorer = Explorer()
    for (act, component, choice), passes in moves:
        act(explorer, component, choice)
        for _ in range(passes):
            explorer.one_pass()
    if is_sick:
        explorer.comes_to_rest()
    world = explorer.world
    world.refused.clear()
    world.unready.clear()
    world.outcomes.clear()
    sections = {
        key: GOOD[key][0] if "image" in value else value for key, value in world.spec.items() if key in GOOD
    }
    # What was sick in its time is not tried again by itself: this is how a person asks for it.
    explorer.change({**DEADLINE, **sections, "rollback": {"mode": "Off"}})
    world.settle()
    explorer.comes_to_rest()
    assert world.condition("Ready")["status"] == "True", world.status
