"""A cluster as plain data, for tests of the core: what a plan's writes leave, and what Kubernetes makes of them."""

from __future__ import annotations

import hashlib
import itertools
import marshal
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from cos_controllers.api.backup import StackBackup
from cos_controllers.api.probe import StackProbe
from cos_controllers.api.restore import StackRestore
from cos_controllers.api.stack import CosStack
from cos_controllers.changes import Apply, Delete
from cos_controllers.conditions import refusal, timestamp, with_refusals
from cos_controllers.k8s import Manifest
from cos_controllers.names import LABEL_STACK_COMPONENT, MANAGER
from cos_controllers.observation import (
    CheckResult,
    Expectation,
    Facts,
    Outcome,
    Problem,
    Ref,
    Snapshot,
    Usage,
    WarningEvent,
    ref_of,
)
from cos_controllers.parsing import parse_stack
from cos_controllers.plan import AT_ONCE, Plan, plan, questions
from cos_controllers.resolve import resolve

START = datetime(2026, 1, 1, tzinfo=UTC)

T = TypeVar("T")


def copied(data: T) -> T:
    """A deep copy, in C: `copy.deepcopy` of every object at every pass was most of the time of these tests."""
    return cast("T", marshal.loads(marshal.dumps(data)))  # noqa: S302 - our own bytes


def merge(live: Any, intent: Any) -> Any:
    """Maps merge, all else is replaced."""
    if isinstance(live, dict) and isinstance(intent, dict):
        return {**live, **{key: merge(live.get(key), value) for key, value in intent.items()}}
    return copied(intent)


def owned_by(intent: Any) -> dict[str, Any]:
    """The fieldsV1 of an intent, a list being one field."""
    return {f"f:{key}": owned_by(value) for key, value in intent.items()} if isinstance(intent, dict) else {}


def without_lost(live: Any, before: dict[str, Any], after: dict[str, Any]) -> Any:
    """`live` without the fields that were owned and no longer are."""
    if not isinstance(live, dict):
        return live
    kept = {key: value for key, value in live.items() if f"f:{key}" not in before or f"f:{key}" in after}
    return {
        key: without_lost(value, before.get(f"f:{key}", {}), after.get(f"f:{key}", {}))
        for key, value in kept.items()
    }


def server_side_apply(live: Manifest, intent: Manifest) -> Manifest:
    """What an apply of ours makes of a live object."""
    owned = owned_by({key: value for key, value in intent.items() if key not in {"apiVersion", "kind"}})
    for name in ("name", "namespace", "uid"):
        owned["f:metadata"].pop(f"f:{name}", None)
    entries = live["metadata"].get("managedFields") or [{"fieldsV1": {}}]
    changed = merge(without_lost(live, entries[0]["fieldsV1"], owned), intent)
    entry = {"manager": MANAGER, "operation": "Apply", "fieldsV1": owned}
    changed["metadata"]["managedFields"] = [entry]
    return changed


def as_expected(expected: Expectation) -> Facts:
    """What an engine is found to be like that is in order."""
    return Facts(
        serving="",
        troubles=(),
        configuration=expected.configuration,
        connections=Usage(1, 10),
        storage=Usage(1, 10),
        routes={route.name: "" for route in expected.routes},
    )


@dataclass
class World:
    """`settle` plays the controllers of Kubernetes; `step` plays one pass of the operator."""

    spec: dict[str, Any]
    objects: dict[Ref, Manifest] = field(default_factory=dict)
    references: dict[str, Manifest] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    unready: set[str] = field(default_factory=set)
    bad_images: set[str] = field(default_factory=set)
    may_grow: bool = True
    refused: set[Ref] = field(default_factory=set)
    image_prefix: str = ""
    facts: dict[str, Facts] = field(default_factory=dict)
    probes: list[StackProbe] = field(default_factory=list)
    backups: list[StackBackup] | None = field(default_factory=list)
    restores: list[StackRestore] | None = field(default_factory=list)
    jobs: list[Manifest] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    warnings: dict[Ref, WarningEvent] = field(default_factory=dict)
    now: datetime = START
    generation: int = 1
    uid: str = "stack-uid"
    status: Manifest = field(default_factory=dict)
    deleted: list[Ref] = field(default_factory=list)
    _serial: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def stack(self) -> CosStack:
        metadata: Manifest = {
            "name": "cos",
            "namespace": "cos",
            "uid": self.uid,
            "generation": self.generation,
        }
        metadata["creationTimestamp"] = timestamp(START)
        raw = {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "metadata": metadata, "spec": self.spec}
        return parse_stack({**raw, "status": self.status})

    def snapshot(self) -> Snapshot:
        components = {
            pod["metadata"]["labels"][LABEL_STACK_COMPONENT]
            for ref, pod in self.objects.items()
            if ref.kind == "Pod" and self._is_ready(pod)
        }
        checks = {name: CheckResult(self.outcomes.get(name, Outcome.SERVING)) for name in components}
        return Snapshot(
            objects={ref: copied(obj) for ref, obj in self.objects.items()},
            references=self.references,
            checks=checks,
            facts={name: facts for name, facts in self.facts.items() if name in components},
            probes=self.probes,
            backups=self.backups,
            restores=self.restores,
            jobs=self.jobs,
            warnings=self.warnings,
            logs=self.logs,
            entropy=next(self._serial).to_bytes(32, "big"),
        )

    @staticmethod
    def _is_ready(pod: Manifest) -> bool:
        return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])

    def examine(self, **facts: Facts) -> None:
        """Every engine that would be asked is found to be as it is to be, apart from these `facts`."""
        snapshot = self.snapshot()
        for target in questions(resolve(self.stack, snapshot), snapshot).targets:
            self.facts[target.component] = facts.get(target.component) or as_expected(target.expected)

    def decide(self) -> Plan:
        return plan(self.stack, self.snapshot(), self.now)

    def perform(self, action: Apply | Delete) -> None:
        """One write of the operator, as the API server would take it."""
        if isinstance(action, Delete):
            live = self.objects.get(action.ref)
            if live and live["metadata"]["uid"] == action.uid:
                del self.objects[action.ref]
                self.deleted.append(action.ref)
                for pod in self.objects.values() if action.orphan else ():
                    owners = pod["metadata"].get("ownerReferences") or [{}]
                    if owners[0].get("uid") == action.uid:
                        pod["metadata"]["ownerReferences"] = []
            return
        ref = ref_of(action.obj)
        live = self.objects.get(ref)
        if live is None:
            metadata = {"uid": f"uid-{next(self._serial)}", "generation": 1}
            self.objects[ref] = server_side_apply({"metadata": metadata}, action.obj)
        else:
            changed = server_side_apply(live, action.obj)
            grows = ref.kind == "PersistentVolumeClaim" and changed["spec"] != live["spec"]
            if grows and not self.may_grow:
                return
            if changed.get("spec") != live.get("spec"):
                changed["metadata"]["generation"] += 1
            self.objects[ref] = changed

    def step(self, *, writes: int | None = None) -> Plan:
        """Decide and act; with `writes` die after that many writes, before the status is written."""
        decided = self.decide()
        actions = [*decided.applies, *decided.deletes]
        refusals: dict[str, Problem] = {}
        for action in actions if writes is None else actions[:writes]:
            if isinstance(action, Apply):
                component = (action.obj["metadata"].get("labels") or {}).get(LABEL_STACK_COMPONENT, "")
                if ref_of(action.obj) in self.refused:
                    refusals[component] = refusal(ref_of(action.obj), "a webhook says no")
                if component in refusals:
                    continue
            self.perform(action)
        for target in decided.provisions if writes is None else ():
            self.outcomes[target.component] = Outcome.SERVING
        if writes is None:
            status = with_refusals(self.stack, decided.status, refusals, self.now)
            self.status = status.model_dump(by_alias=True, exclude_none=True, mode="json")
            if not (
                self.is_heard(actions) or decided.provisions or refusals or decided.requeue_after == AT_ONCE
            ):
                again = self.decide()
                assert (again.status, again.applies, again.deletes) == (status, (), ()), (
                    "what no event tells of leads to nothing new"
                )
        return decided

    @staticmethod
    def is_heard(actions: list[Apply | Delete]) -> bool:
        """Whether events tell of any of these writes: the operator ignores that of its own status."""
        refs = [action.ref if isinstance(action, Delete) else ref_of(action.obj) for action in actions]
        return any(ref.kind != "ControllerRevision" for ref in refs)

    def settle(self) -> None:
        """What controllers and kubelet do: workloads get their pods, pods become ready, volumes are bound."""
        for ref, obj in list(self.objects.items()):
            if ref.kind == "Service":
                obj["spec"].setdefault("clusterIP", "10.0.0.1")
            if ref.kind == "PersistentVolumeClaim":
                obj["status"] = {"phase": "Bound"}
            if ref.kind in {"StatefulSet", "Deployment"}:
                obj["status"] = {"observedGeneration": obj["metadata"]["generation"]}
                replicas = obj["spec"]["replicas"]
                obj["status"] |= {"availableReplicas": replicas, "updatedReplicas": replicas}
                if ref.kind == "Deployment":
                    self._roll(obj)
                for ordinal in range(replicas) if ref.kind == "StatefulSet" else ():
                    self._ensure_pod(obj, f"{ref.name}-{ordinal}")
        for ref, pod in list(self.objects.items()):
            if ref.kind == "Pod" and self._is_owned(pod):
                component = pod["metadata"]["labels"][LABEL_STACK_COMPONENT]
                self._run_pod(pod, ready=component not in self.unready)
            elif ref.kind == "Pod" and pod["metadata"]["ownerReferences"]:
                del self.objects[ref]

    def _is_owned(self, pod: Manifest) -> bool:
        for owner in pod["metadata"]["ownerReferences"]:
            if owner["kind"] == "ReplicaSet":
                return Ref("Deployment", owner["name"].rpartition("-")[0]) in self.objects
            return Ref("StatefulSet", owner["name"]) in self.objects
        return False

    def _run_pod(self, pod: Manifest, *, ready: bool) -> None:
        """Kubelet: an image that is known to be bad is not pulled; all else runs, and may become ready."""
        container = pod["spec"]["containers"][0]
        status = {"name": container["name"], "ready": ready, "restartCount": 0, "lastState": {}}
        if container["image"] in self.bad_images:
            waiting = {"reason": "ImagePullBackOff", "message": f"no image {container['image']}"}
            status |= {"ready": False, "imageID": "", "state": {"waiting": waiting}}
        else:
            digest = hashlib.sha256(container["image"].partition("@")[0].encode()).hexdigest()
            repository = container["image"].partition("@")[0].rpartition(":")[0]
            image = container["image"] if "@" in container["image"] else f"{repository}@sha256:{digest}"
            status |= {"imageID": f"{self.image_prefix}{image}", "state": {"running": {}}}
        pod["status"]["containerStatuses"] = [status]
        state = "True" if status["ready"] else "False"
        before = next(iter(pod["status"]["conditions"]), {})
        since = before.get("lastTransitionTime") if before.get("status") == state else timestamp(self.now)
        condition = {"type": "Ready", "status": state, "lastTransitionTime": since}
        pod["status"]["conditions"] = [condition]

    def _ensure_pod(self, workload: Manifest, name: str) -> None:
        ref = Ref("Pod", name)
        template = workload["spec"]["template"]
        live = self.objects.get(ref)
        if live is not None and not live["metadata"]["ownerReferences"]:
            owner = {"kind": workload["kind"], "name": workload["metadata"]["name"], "controller": True}
            live["metadata"]["ownerReferences"] = [{**owner, "uid": workload["metadata"]["uid"]}]
        if live is None:
            owner = {"kind": workload["kind"], "name": workload["metadata"]["name"], "controller": True}
            if workload["kind"] == "Deployment":
                owner = {"kind": "ReplicaSet", "name": f"{owner['name']}-5d4f", "controller": True}
            self.objects[ref] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    **copied(template["metadata"]),
                    "name": name,
                    "namespace": "cos",
                    "uid": f"uid-{next(self._serial)}",
                    "ownerReferences": [{**owner, "uid": workload["metadata"]["uid"]}],
                },
                "spec": copied(template["spec"]),
                "status": {"podIP": "10.1.0.1", "conditions": []},
            }

    def _roll(self, deployment: Manifest) -> None:
        """Pods of the present template; those of an earlier one go when each of these is ready."""
        if deployment["spec"].get("paused"):
            return
        name, template = deployment["metadata"]["name"], deployment["spec"]["template"]
        wanted = template["metadata"]["annotations"]["cos.dev/template-hash"]
        names = [f"{name}-{wanted[:5]}-{ordinal}" for ordinal in range(deployment["spec"]["replicas"])]
        for pod in names:
            self._ensure_pod(deployment, pod)
        new = [self.objects[Ref("Pod", pod)] for pod in names]
        for ref, pod in list(self.objects.items()):
            is_old = ref.kind == "Pod" and ref.name.startswith(f"{name}-") and ref.name not in names
            if is_old and (all(map(self._is_ready, new)) or not self._is_ready(pod)):
                del self.objects[ref]

    def converge(self, limit: int = 60) -> Plan:
        """Passes of operator and cluster until nothing is left to do, and no clock runs."""
        for _ in range(limit):
            decided = self.step()
            self.settle()
            self.now += timedelta(seconds=max(decided.requeue_after or 30, 1))
            waits = any("lastProgressTime" in row for row in self.status["components"])
            if not (decided.applies or decided.deletes or decided.provisions or waits):
                self.step()
                return self.decide()
        raise AssertionError(f"no rest after {limit} passes: {decided}")

    def pods(self) -> dict[str, str]:
        """UID of each pod by name."""
        return {ref.name: obj["metadata"]["uid"] for ref, obj in self.objects.items() if ref.kind == "Pod"}

    def row(self, component: str) -> dict[str, Any]:
        return next(row for row in self.status["components"] if row["name"] == component)

    def condition(self, kind: str) -> dict[str, Any]:
        return next(item for item in self.status["conditions"] if item["type"] == kind)
