"""Leader election in virtual time, against one Lease in memory whose requests can fail, hang or be cut off."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from cos_operator.kube_errors import AlreadyExists, Conflict, Request, Unavailable
from cos_operator.lease import Elector, NotLeader
from cos_operator.writes import Writes

Manifest = dict[str, Any]
T = TypeVar("T")
VirtualTime = Callable[[Callable[[], Awaitable[object]]], object]


class LeaseServer:
    """The API server's part: optimistic locking of one Lease."""

    def __init__(self) -> None:
        self.lease: Manifest | None = None
        self.version = 0

    def write(self, obj: Manifest) -> Manifest:
        self.version += 1
        self.lease = copy.deepcopy(obj)
        self.lease["metadata"] |= {"resourceVersion": str(self.version), "uid": "lease-uid"}
        return copy.deepcopy(self.lease)


class Client:
    """One process's connection. `fault`: "refused", "hang" (the server never sees it), "lose answers" (the server
    acts, and the client never hears of it), or "slow answers" (it hears of it late)."""

    write_timeout = 4.0

    def __init__(self, server: LeaseServer) -> None:
        self.server = server
        self.fault = ""
        self.requests = 0
        self.way_there = self.way_back = 0.0

    async def _travel(self) -> None:
        self.requests += 1
        await asyncio.sleep(self.way_there)
        if self.fault == "refused":
            raise Unavailable(Request("replace", "Lease"), "connection refused")
        if self.fault == "hang":
            await asyncio.sleep(1e6)

    async def _answer(self, value: T) -> T:
        if self.fault == "lose answers":
            await asyncio.sleep(self.write_timeout)
            raise Unavailable(Request("replace", "Lease"), "no answer within its time limit")
        await asyncio.sleep(self.way_back)
        if self.fault == "slow answers":
            await asyncio.sleep(self.write_timeout - 0.1)
        return value

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        assert (kind, namespace, name) == ("Lease", "ns", "cos-operator")
        await self._travel()
        return await self._answer(copy.deepcopy(self.server.lease))

    async def create(self, obj: Manifest) -> Manifest:
        await self._travel()
        if self.server.lease is not None:
            raise AlreadyExists(Request("create", "Lease"), "already exists", code=409)
        return await self._answer(self.server.write(obj))

    async def replace(self, obj: Manifest) -> Manifest:
        await self._travel()
        if self.server.lease is None or obj["metadata"]["resourceVersion"] != str(self.server.version):
            raise Conflict(Request("replace", "Lease"), "the object has been modified", code=409)
        return await self._answer(self.server.write(obj))


async def at_once() -> None:
    """No write is ever under way."""


class Process:
    """An operator that notes when it was sure to lead: whenever its write guard lets a write through."""

    def __init__(self, server: LeaseServer, identity: str) -> None:
        self.client = Client(server)
        self.loop = asyncio.get_running_loop()
        self.elector = Elector(
            self.client, "ns", "cos-operator", identity, settled=at_once, clock=self.loop.time
        )
        self.writes: list[float] = []
        self.starts = 0
        self.stubborn = 0.0
        self.task = asyncio.create_task(self.elector.run(self.lead))

    async def lead(self) -> None:
        self.starts += 1
        try:
            while True:
                try:
                    self.elector.guard()
                    self.writes.append(self.loop.time())
                except NotLeader:
                    pass
                await asyncio.sleep(0.1)
        finally:
            await asyncio.sleep(self.stubborn)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def first_write_after(process: Process, moment: float, limit: float = 60.0) -> float:
    """Seconds from `moment` to the process's next write."""
    while not process.writes or process.writes[-1] <= moment:
        assert process.loop.time() - moment < limit, "it never wrote"
        await asyncio.sleep(0.05)
    return next(write for write in process.writes if write > moment) - moment


def test_one_of_two_leads_and_keeps_leading(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        server = LeaseServer()
        first, second = Process(server, "first"), Process(server, "second")
        await asyncio.sleep(300)
        assert first.elector.is_leader != second.elector.is_leader
        leader, standby = (first, second) if first.elector.is_leader else (second, first)
        assert leader.starts == 1
        assert not standby.writes
        with pytest.raises(NotLeader, match="does not hold the lease ns/cos-operator"):
            standby.elector.guard()
        assert server.lease is not None
        assert server.lease["spec"]["leaseTransitions"] == 0
        assert leader.client.requests == pytest.approx(300 / 2, abs=5), (
            "one renewal per retry period, no reads"
        )
        await leader.stop()
        await standby.stop()

    virtual_time(main)


def test_a_stopped_leader_lets_the_standby_in_at_once(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        server = LeaseServer()
        first = Process(server, "first")
        await asyncio.sleep(1)
        second = Process(server, "second")
        await asyncio.sleep(10)
        stopped = first.loop.time()
        first.stubborn = 1.0
        await first.stop()
        assert server.lease is not None
        assert "holderIdentity" not in server.lease["spec"]
        assert await first_write_after(second, stopped) <= 1.0 + 2.0
        assert max(first.writes) < min(second.writes)
        assert server.lease["spec"]["leaseTransitions"] == 1
        await second.stop()

    virtual_time(main)


class Writer:
    """An operator whose writes are answered, or fail, after `seconds`, and are carried out after `effect` seconds."""

    def __init__(self, server: LeaseServer, seconds: float, effect: float, *, fails: bool) -> None:
        self.client = Client(server)
        self.loop = asyncio.get_running_loop()
        self.seconds, self.effect, self.fails = seconds, effect, fails
        self.effects: list[float] = []
        self.cut = 0
        self.fence = float("inf")
        self.sending = Writes(self.client.write_timeout)
        self.elector = Elector(
            self.client,
            "ns",
            "cos-operator",
            "first",
            settled=self.sending.settled,
            clock=self.loop.time,
            fence=self._arm,
        )
        self.task = asyncio.create_task(self.elector.run(self.lead))

    def _arm(self, seconds: float | None) -> None:
        assert self.loop.time() < self.fence, "it would have struck"
        self.fence = float("inf") if seconds is None else self.loop.time() + seconds

    async def lead(self) -> None:
        while True:
            with contextlib.suppress(Unavailable, NotLeader):
                await self.write()
            await asyncio.sleep(0.2)

    async def write(self) -> None:
        self.elector.guard()
        with self.sending.one():
            self.effects.append(self.loop.time() + self.effect)
            try:
                await asyncio.sleep(self.seconds)
            except asyncio.CancelledError:
                self.cut += 1
                raise
            if self.fails:
                raise Unavailable(Request("apply", "Pod"), "no answer")

    async def stop(self) -> float:
        """Seconds that it takes."""
        began = self.loop.time()
        self.task.cancel()
        await asyncio.wait([self.task])
        return self.loop.time() - began


@pytest.mark.parametrize("stopped_after", [10.0, 10.05, 10.3, 11.1, 12.7])
@pytest.mark.parametrize(
    ("seconds", "effect", "fails"),
    [(0.01, 0.01, False), (3.0, 3.0, False), (0.05, 3.9, True), (4.0, 3.9, True)],
    ids=["at once", "slow", "connection reset", "hangs"],
)
def test_a_leader_hands_over_when_its_last_write_can_have_no_effect_any_more(
    virtual_time: VirtualTime,
    seconds: float,
    effect: float,
    fails: bool,  # noqa: FBT001
    stopped_after: float,
) -> None:
    async def main() -> None:
        server = LeaseServer()
        first = Writer(server, seconds, effect, fails=fails)
        await asyncio.sleep(0.5)
        second = Process(server, "second")
        await asyncio.sleep(stopped_after)
        stopped = first.loop.time()
        took = await first.stop()
        assert took <= max(seconds, effect) + 0.2
        assert first.cut == 0, "what is under way is answered"
        assert await first_write_after(second, stopped) <= took + 2.0 + 0.1
        assert max(first.effects) < min(second.writes)
        await second.stop()

    virtual_time(main)


def test_what_is_cut_because_the_term_ends_is_waited_for_as_well(virtual_time: VirtualTime) -> None:
    """The API server answers again just then, so that the Lease can be handed back."""

    async def main() -> None:
        server = LeaseServer()
        first = Writer(server, seconds=4.0, effect=3.9, fails=True)
        await asyncio.sleep(0.5)
        second = Process(server, "second")
        await asyncio.sleep(20)
        first.client.fault = "hang"
        await asyncio.sleep(first.elector._deadline - first.loop.time() - 0.5)
        stopping = asyncio.create_task(first.stop())
        await asyncio.sleep(0.1)
        first.client.fault = ""
        await stopping
        assert first.cut == 1
        assert server.lease is not None
        assert "holderIdentity" not in server.lease["spec"]
        await first_write_after(second, first.loop.time())
        assert max(first.effects) < min(second.writes)
        await second.stop()

    virtual_time(main)


@pytest.mark.parametrize("hung_for", [0.0, 3.0, 8.5, 9.5, 11.0])
def test_a_stop_while_nothing_answers_takes_a_limited_time_and_precedes_the_fence(
    virtual_time: VirtualTime, hung_for: float
) -> None:
    """Also if the leader has renewed nothing for long, or has just lost the Lease."""

    async def main() -> None:
        first = Writer(LeaseServer(), seconds=4.0, effect=3.9, fails=True)
        await asyncio.sleep(20)
        first.client.fault = "hang"
        await asyncio.sleep(hung_for)
        assert await first.stop() <= 4.0 + 3.0 + 0.1, "for the last write, and for the release in vain"
        assert first.fence == float("inf")

    virtual_time(main)


@pytest.mark.parametrize("moment", [2.05, 2.15, 2.25, 2.35])
def test_a_leader_stopped_while_it_renews_hands_over_as_well(
    virtual_time: VirtualTime, moment: float
) -> None:
    """Cancelled before the server saw the renewal, or after, when the Lease is no longer the one it knows."""

    async def main() -> None:
        server = LeaseServer()
        first = Process(server, "first")
        first.client.way_there = first.client.way_back = 0.1
        while not first.elector.is_leader:  # noqa: ASYNC110 in virtual time
            await asyncio.sleep(0.01)
        await asyncio.sleep(moment)
        await first.stop()
        assert server.lease is not None
        assert "holderIdentity" not in server.lease["spec"]

    virtual_time(main)


def test_a_renewal_that_overtakes_the_release_does_not_prevent_it(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        server = LeaseServer()
        first = Process(server, "first")
        await asyncio.sleep(3)
        first.client.way_there = 0.2
        assert server.lease is not None
        stop = asyncio.create_task(first.stop())
        await asyncio.sleep(0.1)
        server.write(server.lease)
        await stop
        assert "holderIdentity" not in server.lease["spec"]

    virtual_time(main)


@pytest.mark.parametrize("before", ["", "slow answers"])
@pytest.mark.parametrize("fault", ["hang", "refused", "lose answers"])
def test_a_leader_cut_off_is_replaced_and_the_two_never_overlap(
    virtual_time: VirtualTime, before: str, fault: str
) -> None:
    """The former leader's last write must have ended (4 s limit) before the next one begins."""

    async def main() -> None:
        server = LeaseServer()
        first = Process(server, "first")
        await asyncio.sleep(1)
        second = Process(server, "second")
        first.client.fault = before
        await asyncio.sleep(20)
        cut = first.loop.time()
        first.client.fault = fault
        waited = await first_write_after(second, cut)
        assert min(second.writes) - max(first.writes) > 4.0
        assert waited <= 15 + 2 * 4 + 2, "the duration, from its last renewal on; the retry period"
        first.client.fault = ""
        last = max(first.writes)
        await asyncio.sleep(30)
        assert max(first.writes) == last, "the former leader stands by"
        assert not first.elector.is_leader
        await second.stop()
        await first_write_after(first, first.loop.time())
        assert first.starts == 2, "it leads again once it may"
        await first.stop()

    virtual_time(main)


def test_a_process_that_was_frozen_does_not_write_before_it_has_renewed(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        frozen = 0.0
        loop = asyncio.get_running_loop()
        elector = Elector(
            Client(LeaseServer()),
            "ns",
            "cos-operator",
            "first",
            settled=at_once,
            clock=lambda: loop.time() + frozen,
        )
        task = asyncio.create_task(elector.run(asyncio.Event().wait))
        await asyncio.sleep(1)
        elector.guard()
        frozen = 20.0
        with pytest.raises(NotLeader):
            elector.guard()
        task.cancel()
        await asyncio.wait([task])

    virtual_time(main)


def test_work_that_ends_slowly_cannot_write_any_more(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        server = LeaseServer()
        first = Process(server, "first")
        await asyncio.sleep(5)
        first.stubborn = 8.0
        first.client.fault = "hang"
        cut = first.loop.time()
        second = Process(server, "second")
        await first_write_after(second, cut)
        assert min(second.writes) - max(first.writes) > 4.0
        await first.stop()
        await second.stop()

    virtual_time(main)


def test_work_that_never_ends_is_an_error(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        process = Process(LeaseServer(), "first")
        await asyncio.sleep(5)
        process.stubborn = 1e6
        process.client.fault = "refused"
        with pytest.raises(RuntimeError, match="did not stop within 10 s"):
            await process.task

    virtual_time(main)


def test_a_short_outage_changes_nothing(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        process = Process(LeaseServer(), "first")
        await asyncio.sleep(5)
        for fault in ("refused", "hang", "lose answers"):
            process.client.fault = fault
            await asyncio.sleep(5)
            process.client.fault = ""
            await asyncio.sleep(10)
        assert process.starts == 1
        assert process.elector.is_leader
        await process.stop()

    virtual_time(main)


def test_a_lease_taken_by_hand_stops_the_leader_at_its_next_renewal(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        server = LeaseServer()
        process = Process(server, "first")
        await asyncio.sleep(5)
        assert server.lease is not None
        taken = copy.deepcopy(server.lease)
        taken["spec"]["holderIdentity"] = "somebody"
        server.write(taken)
        at = process.loop.time()
        await asyncio.sleep(10)
        assert max(process.writes) - at <= 2 * 2.0 + 0.2
        assert not process.elector.is_leader
        await process.stop()
        assert server.lease["spec"]["holderIdentity"] == "somebody", "what is not ours is not handed back"

    virtual_time(main)


def test_a_deleted_lease_is_made_again(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        server = LeaseServer()
        process = Process(server, "first")
        await asyncio.sleep(5)
        server.lease = None
        await asyncio.sleep(5)
        assert server.lease is not None
        assert process.elector.is_leader
        assert process.starts == 1
        await process.stop()

    virtual_time(main)


def test_a_lease_of_a_dead_process_is_taken_after_its_duration(virtual_time: VirtualTime) -> None:
    """Also one whose clock was wrong: only the time since it was seen unchanged counts."""

    async def main() -> None:
        server = LeaseServer()
        spec = {
            "holderIdentity": "dead",
            "leaseDurationSeconds": 15,
            "renewTime": "2999-01-01T00:00:00.000000Z",
        }
        server.write({"metadata": {"namespace": "ns", "name": "cos-operator"}, "spec": spec})
        process = Process(server, "first")
        started = process.loop.time()
        assert 15 < await first_write_after(process, started) <= 15 + 2 * 2
        await process.stop()

    virtual_time(main)


def test_a_lease_without_a_spec_is_free(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        server = LeaseServer()
        server.write({"metadata": {"namespace": "ns", "name": "cos-operator"}})
        process = Process(server, "first")
        await asyncio.sleep(1)
        assert process.elector.is_leader
        await process.stop()

    virtual_time(main)


@pytest.mark.parametrize("outcome", ["returns", "raises"])
def test_run_ends_with_the_work_and_hands_the_lease_back(virtual_time: VirtualTime, outcome: str) -> None:
    async def main() -> None:
        server = LeaseServer()
        clock = asyncio.get_running_loop().time
        elector = Elector(Client(server), "ns", "cos-operator", "first", settled=at_once, clock=clock)

        async def work() -> None:
            assert elector.is_leader
            await asyncio.sleep(30)
            if outcome == "raises":
                raise KeyError("bug")

        if outcome == "raises":
            with pytest.raises(KeyError, match="bug"):
                await elector.run(work)
        else:
            await elector.run(work)
        assert server.lease is not None
        assert "holderIdentity" not in server.lease["spec"]
        assert not elector.is_leader

    virtual_time(main)


def test_the_fence_falls_before_another_may_lead_and_is_taken_away_with_the_work(
    virtual_time: VirtualTime,
) -> None:
    async def main() -> None:
        server = LeaseServer()
        loop = asyncio.get_running_loop()
        falls: list[float] = []
        client = Client(server)
        client.way_there = client.way_back = 0.3

        def fence(seconds: float | None) -> None:
            falls.append(float("inf") if seconds is None else loop.time() + seconds)
            if seconds is not None:
                assert falls[-1] == pytest.approx(elector._deadline + client.write_timeout)

        elector = Elector(
            client, "ns", "cos-operator", "first", settled=at_once, clock=loop.time, fence=fence
        )
        task = asyncio.create_task(elector.run(asyncio.Event().wait))
        await asyncio.sleep(60)
        assert len(falls) > 20, "each renewal moves it on"
        assert falls == sorted(falls)
        cut = loop.time()
        assert falls[-1] < cut + 15 - client.way_there, "another waits that long from the last renewal on"
        client.fault = "hang"
        await asyncio.sleep(20)
        assert not elector.is_leader
        assert falls[-1] == float("inf"), "whoever stands by has nothing in hand"
        assert len(falls) == len(set(falls))
        client.fault = ""
        await asyncio.sleep(20)
        assert falls[-1] < float("inf")
        task.cancel()
        await asyncio.wait([task])
        assert falls[-1] == float("inf")

    virtual_time(main)


def test_what_a_person_is_told(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        server = LeaseServer()
        first = Process(server, "first")
        assert first.elector.problem == "the lease has not been read yet"
        await asyncio.sleep(1)
        second = Process(server, "second")
        await asyncio.sleep(1)
        assert (first.elector.problem, first.elector.holder) == ("", "first")
        assert (second.elector.problem, second.elector.holder) == ("", "first")
        second.client.fault = "refused"
        await asyncio.sleep(5)
        assert "the lease cannot be read or written" in second.elector.problem
        assert "connection refused" in second.elector.problem
        second.client.fault = ""
        await asyncio.sleep(5)
        assert second.elector.problem == ""
        await first.stop()
        await second.stop()

    virtual_time(main)


@pytest.mark.parametrize(
    ("lease", "renew", "retry"), [(14.0, 10.0, 2.0), (15.0, 15.0, 2.0), (15.0, 10.0, 10.0)]
)
def test_durations_that_would_allow_two_leaders_are_refused(lease: float, renew: float, retry: float) -> None:
    with pytest.raises(ValueError, match="must rise"):
        Elector(
            Client(LeaseServer()),
            "ns",
            "n",
            "me",
            settled=at_once,
            lease_duration=lease,
            renew_deadline=renew,
            retry_period=retry,
        )
