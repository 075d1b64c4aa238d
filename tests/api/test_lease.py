"""Leader election with two electors on a real API server, at a fifth of the usual durations."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cos_operator.kube import Kube
from cos_operator.lease import Elector, NotLeader

LEASE_DURATION = 3.0


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 the condition is a property of the code under test
            await asyncio.sleep(0.01)


class Candidate:
    """An elector that runs, and when it led."""

    def __init__(self, kube: Kube, namespace: str, identity: str) -> None:
        self.elector = Elector(
            kube,
            namespace,
            "cos-operator",
            identity,
            settled=kube.writes.settled,
            lease_duration=LEASE_DURATION,
            renew_deadline=2.0,
            retry_period=0.4,
        )
        self.led: list[tuple[float, float]] = []
        self.task = asyncio.create_task(self.elector.run(self.lead))

    async def lead(self) -> None:
        began = time.monotonic()
        try:
            await asyncio.Event().wait()
        finally:
            self.led.append((began, time.monotonic()))

    async def becomes_leader(self, limit: float) -> float:
        began = time.monotonic()
        await until(lambda: self.elector.is_leader, limit)
        return time.monotonic() - began

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def candidates(
    first_kubeconfig: str, second_kubeconfig: str, namespace: str
) -> AsyncIterator[tuple[Candidate, Candidate]]:
    """Two candidates with a connection each; the first leads."""
    async with (
        Kube.connect(first_kubeconfig, write_timeout=0.5) as one,
        Kube.connect(second_kubeconfig, write_timeout=0.5) as two,
    ):
        first = Candidate(one, namespace, "first")
        await first.becomes_leader(5)
        second = Candidate(two, namespace, "second")
        try:
            yield first, second
        finally:
            await first.stop()
            await second.stop()


async def test_one_leads_and_hands_over_at_stop(apiserver: str, kube: Kube, namespace: str) -> None:
    async with candidates(apiserver, apiserver, namespace) as (first, second):
        await asyncio.sleep(2 * LEASE_DURATION)
        assert first.elector.is_leader
        assert not second.elector.is_leader
        with pytest.raises(NotLeader):
            second.elector.guard()
        lease = await kube.get("Lease", namespace, "cos-operator")
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == "first"
        assert lease["spec"]["leaseTransitions"] == 0
        await first.stop()
        assert await second.becomes_leader(5) < 1.0, (
            "it waits for a retry period, not for the Lease to expire"
        )
        lease = await kube.get("Lease", namespace, "cos-operator")
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == "second"
        assert lease["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize("fault", ["cut", "silence"])
async def test_a_leader_cut_off_is_replaced_without_overlap(
    apiserver: str, namespace: str, cable: Any, kubeconfig_with: Callable[..., str], fault: str
) -> None:
    through_cable = kubeconfig_with(server=f"https://localhost:{cable.port}")
    async with candidates(through_cable, apiserver, namespace) as (first, second):
        getattr(cable, fault)()
        await second.becomes_leader(LEASE_DURATION + 2)
        assert not first.elector.is_leader
        assert first.led[-1][1] < time.monotonic() - 0.5, (
            "its last write has ended before the other can begin"
        )
        cable.mend()
        await second.stop()
        await first.becomes_leader(5)


async def test_a_lease_edited_by_hand_and_one_deleted(
    apiserver: str, kube: Kube, kubectl: Callable[..., str], namespace: str
) -> None:
    async with candidates(apiserver, apiserver, namespace) as (first, second):
        holder = json.dumps({"spec": {"holderIdentity": "a person"}})
        kubectl("-n", namespace, "patch", "lease", "cos-operator", "--type=merge", "-p", holder)
        await until(lambda: not first.elector.is_leader, 2)
        assert not second.elector.is_leader
        await kube.delete("Lease", namespace, "cos-operator")
        await until(lambda: first.elector.is_leader != second.elector.is_leader, 2)
