"""Carry out a plan: applies, deletes, provisions, in this order. What cannot be done is told, not hidden."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from cos_controllers.changes import Apply, Delete
from cos_controllers.conditions import refusal
from cos_controllers.names import LABEL_STACK_COMPONENT
from cos_controllers.observation import CheckTarget, Problem, Ref, ref_of
from cos_controllers.plan import Plan
from cos_operator.engines.base import PROVISION_SECONDS, EngineClient, EngineError
from cos_operator.kube import Conflict, Forbidden, Invalid, Kube, KubeError, NamespaceTerminating

log = structlog.stdlib.get_logger(__name__)


@dataclass
class Outcome:
    """What became of a plan.

    `refusals`: problem by component ("" for the stack's own objects), permanent until the spec or the cluster
    changes. `failure`: the first passing failure, to be tried again.
    """

    refusals: dict[str, Problem] = field(default_factory=dict)
    failure: KubeError | None = None


async def execute(kube: Kube, namespace: str, plan: Plan, clients: Mapping[str, EngineClient]) -> Outcome:
    """Do what the plan says. Raises `NotLeader` at once when the lease is lost; nothing else."""
    outcome = Outcome()
    failed: set[str] = set()
    for apply in plan.applies:
        component = (apply.obj["metadata"].get("labels") or {}).get(LABEL_STACK_COMPONENT, "")
        # Each object may rest on those before it: no pod starts on a configuration that was not written. All rest
        # on the stack's own ("").
        if failed.isdisjoint({component, ""}) and not await _apply(kube, apply, component, outcome):
            failed.update({component} if apply.vital else ())
    for delete in plan.deletes:
        if delete.orphan and failed:
            # What comes in its place would be refused with the rest: its pods would be left without a controller.
            continue
        await _delete(kube, namespace, delete, outcome)
    if plan.provisions and kube.write_guard:
        kube.write_guard()
    await asyncio.gather(*(_provision(clients[target.engine], target) for target in plan.provisions))
    return outcome


async def _apply(kube: Kube, apply: Apply, component: str, outcome: Outcome) -> bool:
    kind, name = ref_of(apply.obj)
    try:
        await kube.apply(apply.obj, force=apply.force)
    except NamespaceTerminating:
        log.info("namespace is being deleted", kind=kind, object=name)
    except (Invalid, Forbidden) as error:
        outcome.refusals.setdefault(component, refusal(Ref(kind, name), str(error)))
        log.warning("apply refused", kind=kind, object=name, error=str(error))
    except Conflict as error:
        # A pod that has gone meanwhile, or an object of this name that has come: read again and decide anew.
        outcome.failure = outcome.failure or error
        log.info("apply conflicts", kind=kind, object=name, error=str(error))
    except KubeError as error:
        outcome.failure = outcome.failure or error
        log.warning("apply failed", kind=kind, object=name, error=str(error))
    else:
        log.info("applied", kind=kind, object=name)
        return True
    return False


async def _delete(kube: Kube, namespace: str, delete: Delete, outcome: Outcome) -> None:
    kind, name = delete.ref
    try:
        await kube.delete(
            kind,
            namespace,
            name,
            uid=delete.uid,
            propagation="Orphan" if delete.orphan else "Background",
        )
    except Conflict as error:
        log.info("not deleted: it has been replaced", kind=kind, object=name, error=str(error))
    except KubeError as error:
        outcome.failure = outcome.failure or error
        log.warning("delete failed", kind=kind, object=name, error=str(error))
    else:
        log.info("deleted", kind=kind, object=name, why=delete.why or "no longer part of the stack")


async def _provision(client: EngineClient, target: CheckTarget) -> None:
    """A failure is seen by the next check, whose row says so."""
    try:
        async with asyncio.timeout(PROVISION_SECONDS):
            await client.provision(target)
    except (EngineError, TimeoutError) as error:
        log.warning("provisioning failed", component=target.component, error=str(error) or "time limit")
    except Exception:
        # A client that breaks its promise must not keep the other components from being served.
        log.exception("provisioning failed", component=target.component)
    else:
        log.info("provisioned", component=target.component)
