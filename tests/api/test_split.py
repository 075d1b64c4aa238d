"""Two real operator processes: one acts, whatever happens to it. The API server's audit log is the judge.

Each process is a user of its own, with the durations of production: a lease of 15 s.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from audit_trail import AuditTrail
from operator_process import (
    RELEASE,
    Account,
    Kubectl,
    OperatorProcess,
    apply_all,
    chart_rights,
    create_accounts,
    eventually,
    small_stack,
    token_of,
    write_kubeconfig,
)

from cos_operator.fence import EXIT_CODE
from cos_operator.kube import Kube

FREEZING = (sys.executable, str(Path(__file__).with_name("freezing_operator.py")), "run")
#: The lease from its last renewal on, two retry periods of 2 s, and what a busy machine adds.
TAKEOVER_LIMIT = 30.0
#: A retry period, and what a busy machine adds.
HANDOVER_LIMIT = 10.0
#: Imports take a second, on a busy machine ten.
START_LIMIT = 60.0
#: Keeps a figure in the report.
Record = Callable[[str, object], None]
BURST = 12


class Pair:
    """Two operators of one installation."""

    def __init__(self, apiserver: str, kubectl: Kubectl, kube: Kube, namespace: str, directory: Path) -> None:
        self.kube = kube
        self.namespace = namespace
        self.audit = AuditTrail(apiserver)
        self.accounts = {name: Account(namespace, name) for name in ("first", "second")}
        create_accounts(kubectl, *self.accounts.values())
        apply_all(kubectl, chart_rights(namespace, [namespace], list(self.accounts.values())))
        self._directory = directory
        self._kubeconfigs = {
            name: write_kubeconfig(apiserver, directory / name, token=token_of(kubectl, account))
            for name, account in self.accounts.items()
        }
        self.running = ExitStack()

    def spawn(self, name: str, **options: Any) -> OperatorProcess:
        return self.running.enter_context(
            OperatorProcess(
                name, self._directory, self._kubeconfigs[name], self.namespace, [self.namespace], **options
            )
        )

    async def start(self) -> tuple[OperatorProcess, OperatorProcess]:
        """Start both, and wait until they are ready; the one that leads, and the one that stands by."""
        first, second = self.spawn("first"), self.spawn("second")
        held = await eventually("one leads", self.holder, START_LIMIT)
        leader, standby = (first, second) if held == "first" else (second, first)
        await is_ready_as("leader", leader)
        await is_ready_as("standby", standby)
        return leader, standby

    async def holder(self) -> str:
        """Who holds the Lease."""
        lease = await self.kube.get("Lease", self.namespace, RELEASE)
        return str(lease["spec"].get("holderIdentity", "")) if lease else ""

    async def renewal(self) -> None:
        """Wait for the Lease to be renewed."""
        seen = await self._renewed_at()

        async def renewed() -> bool:
            return await self._renewed_at() != seen

        await eventually("the lease is renewed", renewed, 10)

    async def _renewed_at(self) -> str:
        lease = await self.kube.get("Lease", self.namespace, RELEASE)
        assert lease
        return str(lease["spec"]["renewTime"])

    async def create_stack(self, name: str) -> None:
        await self.kube.create(small_stack(self.namespace, name))

    async def served(self) -> set[str]:
        """Stacks whose last object has been written."""
        found = await self.kube.list("StatefulSet", self.namespace)
        return {obj["metadata"]["labels"]["cos.dev/stack"] for obj in found}

    async def serves(self, stacks: set[str]) -> bool:
        return stacks <= await self.served()

    def wrote(self, process: OperatorProcess) -> list[float]:
        """When a process's writes arrived."""
        return [call.received for call in self.audit.writes(self.accounts[process.name].user)]

    async def first_write(self, process: OperatorProcess, seconds: float) -> float:
        """When the first one arrived, of a process that has only stood by."""
        return (await eventually(f"{process.name} writes", lambda: self.wrote(process), seconds))[0]


async def is_ready_as(role: str, process: OperatorProcess) -> None:
    await eventually(f"{process.name} is ready as {role}", lambda: process.is_ready_as(role), START_LIMIT)


@pytest.fixture
def pair(apiserver: str, kubectl: Kubectl, kube: Kube, namespace: str, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(apiserver, kubectl, kube, namespace, tmp_path)
    with made.running:
        yield made


async def freeze_idle(pair: Pair, leader: OperatorProcess) -> set[str]:
    """A leader with nothing to do; what is asked for afterwards is for the other one."""
    leader.freeze()
    await pair.create_stack("asked-later")
    return {"asked-later"}


async def freeze_in_a_burst(pair: Pair, leader: OperatorProcess) -> set[str]:
    """All of its workers are between reads, checks, writes and answers."""
    stacks = {f"burst-{number}" for number in range(BURST)}
    before = len(pair.wrote(leader))
    await asyncio.gather(*(pair.create_stack(name) for name in stacks))
    await eventually("the burst is under way", lambda: len(pair.wrote(leader)) > before + 2 * BURST, 20)
    leader.freeze()
    assert stacks - await pair.served(), "it was frozen too late"
    return stacks


@pytest.mark.parametrize("freeze", [freeze_idle, freeze_in_a_burst])
async def test_a_frozen_leader_is_replaced_and_never_writes_again(
    pair: Pair, freeze: Callable[..., Any], record_testsuite_property: Record
) -> None:
    leader, standby = await pair.start()
    await pair.create_stack("before")
    await eventually("the leader serves", pair.served, 20)
    asked = await freeze(pair, leader)
    frozen_at = time.time()
    taken_at = await pair.first_write(standby, TAKEOVER_LIMIT)
    record_testsuite_property(f"seconds to take over, {freeze.__name__}", round(taken_at - frozen_at, 1))
    await eventually("the other one serves them all", lambda: pair.serves(asked), 30)
    leader.thaw()
    assert await leader.ends() == EXIT_CODE
    # As kubelet would: it comes back, as a standby.
    again = pair.spawn(leader.name)
    await is_ready_as("standby", again)
    assert max(pair.wrote(leader)) < taken_at
    await is_ready_as("leader", standby)


async def test_a_write_that_was_checked_before_the_freeze_is_not_sent_after_it(pair: Pair) -> None:
    """The worst moment, made certain: the check that it leads has passed, the request has not been sent."""
    leader = pair.spawn("first", program=FREEZING)
    await is_ready_as("leader", leader)
    standby = pair.spawn("second")
    await is_ready_as("standby", standby)
    await pair.create_stack("cos")
    await eventually("it is frozen", lambda: leader.frozen, START_LIMIT)
    assert await pair.served() == set()
    taken_at = await pair.first_write(standby, TAKEOVER_LIMIT)
    await eventually("the other one serves", pair.served, 20)
    (created,) = await pair.kube.list("StatefulSet", pair.namespace)
    leader.thaw()
    assert await leader.ends() == EXIT_CODE
    assert max(pair.wrote(leader)) < taken_at
    (left,) = await pair.kube.list("StatefulSet", pair.namespace)
    assert left["metadata"]["managedFields"] == created["metadata"]["managedFields"]


async def test_a_leader_thawed_before_another_leads_ends_its_term_and_lives_on(pair: Pair) -> None:
    """Past its own deadline, but not past its fence: nobody else can lead yet, so there is nothing to die for."""
    leader, standby = await pair.start()
    await pair.renewal()
    leader.freeze()
    # More than the renew deadline of 10 s, less than the 14 s of the fence, both from that renewal on.
    await asyncio.sleep(11.5)
    thawed_at = time.time()
    leader.thaw()
    await leader.says("the lease could not be renewed in time", seconds=10)
    await pair.create_stack("cos")
    await eventually("somebody serves", pair.served, HANDOVER_LIMIT)
    (wrote,) = (wrote for process in (leader, standby) if (wrote := pair.wrote(process)))
    assert wrote[0] - thawed_at < HANDOVER_LIMIT
    assert leader.alive
    assert await leader.is_ready_as("leader") != await standby.is_ready_as("leader")


async def test_a_stopped_leader_hands_over_at_once_and_readiness_tells_who_leads(
    pair: Pair, record_testsuite_property: Record
) -> None:
    leader, standby = await pair.start()
    for process, role, leads, says in (
        (leader, "leader", 1.0, "this process leads"),
        (standby, "standby", 0.0, f"standing by: {leader.name} leads"),
    ):
        status, body = await process.readiness()
        assert (status, body["role"], body["checks"]["leadership"]["message"]) == (200, role, says)
        assert await process.metric("cos_operator_leader") == leads
    await pair.create_stack("before")
    await eventually("the leader serves", pair.served, 20)
    assert await standby.metric("cos_operator_queue_depth") == 0, "a standby collects nothing"
    assert not pair.wrote(standby)
    leader.process.terminate()
    stopped_at = time.time()
    await pair.create_stack("after")
    taken_at = await pair.first_write(standby, HANDOVER_LIMIT)
    record_testsuite_property("seconds to hand over", round(taken_at - stopped_at, 1))
    assert await leader.ends() == 0
    assert max(pair.wrote(leader)) < taken_at
    await is_ready_as("leader", standby)
    assert await standby.metric("cos_operator_leader") == 1
