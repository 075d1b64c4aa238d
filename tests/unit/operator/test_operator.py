"""How the parts of a process hold together, without an API server."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from cos_operator import lease, server, watch
from cos_operator.key import Key
from cos_operator.kube import WRITE_TIMEOUT, Kube
from cos_operator.kube_errors import Forbidden, Request
from cos_operator.operator import Operator
from cos_operator.resource_versions import ResourceVersions
from cos_operator.settings import OperatorSettings
from cos_operator.watch import Hint
from cos_operator.writes import Writes

Manifests = list[dict[str, Any]]
#: Of a pod, unless it sets another one; the chart's is longer.
GRACE = 30.0


class HalfReadable:
    """An API server that lists the stacks of one namespace and not those of another, and notes what is read."""

    write_timeout = 4.0
    writes = Writes(write_timeout)

    def __init__(self) -> None:
        self.versions = ResourceVersions()
        self.listed: Counter[str | None] = Counter()
        self.read: Counter[str] = Counter()

    async def list(self, kind: str, namespace: str | None, *_: str, **__: Any) -> Manifests:
        if kind != "CosStack":
            return []
        self.listed[namespace] += 1
        if namespace == "refused":
            raise Forbidden(Request("list", kind, namespace), "a right is missing", code=403)
        return [{"metadata": {"namespace": namespace, "name": name}} for name in ("a", "b")]

    async def list_known(self, *_: str) -> Manifests:
        return []

    async def get_known(self, kind: str, _: str, name: str) -> None:
        assert kind == "CosStack"
        self.read[name] += 1


@contextlib.asynccontextmanager
async def leading(api: HalfReadable, **settings: Any) -> AsyncIterator[Operator]:
    """An operator that leads for as long as the context lasts, with a second for what it does first."""
    kube = cast("Kube", api)
    operator = Operator(
        OperatorSettings(**{"namespaces": ("served",), "leader_elect": False, **settings}), kube, kube, {}
    )
    task = asyncio.create_task(operator._lead())
    await asyncio.sleep(1)
    yield operator
    task.cancel()
    await asyncio.wait([task])


def test_a_namespace_that_cannot_be_listed_costs_the_stacks_of_others_nothing(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        api = HalfReadable()
        async with leading(api, namespaces=("served", "refused"), resync_seconds=600):
            await asyncio.sleep(590)
        assert api.read == {"a": 2, "b": 2}, "at once, and in the course of the resync"
        assert api.listed["served"] == 1
        assert api.listed["refused"] < 30, "later and later"

    virtual_time(main)


def test_whoever_begins_to_lead_looks_first_at_what_nobody_has_looked_at(
    virtual_time: Callable[..., object],
) -> None:
    class Edited(HalfReadable):
        async def list(self, kind: str, namespace: str | None, *_: str, **__: Any) -> Manifests:
            if kind != "CosStack":
                return []
            generations = {"a": 1, "b": 1, "edited": 2, "z": 1}
            return [
                {
                    "metadata": {"namespace": namespace, "name": name, "generation": generation},
                    "status": {"observedGeneration": 1},
                }
                for name, generation in generations.items()
            ]

    async def main() -> None:
        api = Edited()
        async with leading(api, workers=1):
            assert list(api.read) == ["edited", "a", "b", "z"]

    virtual_time(main)


def test_whoever_begins_to_lead_reads_the_present_once(virtual_time: Callable[..., object]) -> None:
    """What another leader has written last may not have come to the cache that reads of what is known are from."""

    async def main() -> None:
        api = HalfReadable()
        api.versions.listed("Pod", "7")
        async with leading(api) as operator:
            assert api.versions.newest("Pod") is None
            operator._hint(Hint("Pod", "served", "a", "9"))
            assert api.versions.newest("Pod") is None, (
                "an event alone does not tell of all that was before it"
            )
            api.versions.listed("Pod", "8")
            assert api.versions.newest("Pod") == "9"

    virtual_time(main)


def test_the_echo_of_what_a_pass_left_is_no_reason_for_another(virtual_time: Callable[..., object]) -> None:
    async def main() -> None:
        api = HalfReadable()
        async with leading(api) as operator:
            assert api.read["a"] == 1
            operator._echoes.left(Key("served", "a"), "as it is")
            operator._hint(Hint("CosStack", "served", "a", "5", state="as it is"))
            await asyncio.sleep(1)
            assert api.read["a"] == 1
            for state in ("otherwise", ""):
                operator._echoes.left(Key("served", "a"), "as it is")
                before = api.read["a"]
                operator._hint(Hint("CosStack", "served", "a", "5", state=state))
                await asyncio.sleep(1)
                assert api.read["a"] == before + 1

    virtual_time(main)


def test_a_stop_ends_before_the_pod_is_killed_even_if_everything_hangs() -> None:
    """One after the other: the last writes, the work, the Lease, the watches, the endpoint."""
    limits = (WRITE_TIMEOUT, lease._STOP_LIMIT, lease._RELEASE_LIMIT, watch._STOP_LIMIT, server._STOP_LIMIT)
    assert sum(limits) < GRACE - 2
