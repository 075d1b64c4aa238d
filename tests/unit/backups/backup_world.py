"""The backups of one stack as plain data: what a plan's steps leave, and what Kubernetes and the Job make of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cos_controllers.api.backup import BackupPhase, CopyStatus, StackBackup, StackBackupStatus
from cos_controllers.api.restore import StackRestore, StackRestoreStatus
from cos_controllers.backups.job import STORE
from cos_controllers.backups.plan import Plan, decide
from cos_controllers.backups.report import Facts, Progress, Report
from cos_controllers.backups.seen import Seen
from cos_controllers.conditions import timestamp
from cos_controllers.halts import halting
from cos_controllers.k8s import Manifest
from cos_controllers.names import ANNOTATION_DATA_VERSION as DATA_VERSION
from cos_controllers.names import ANNOTATION_HALTED, RESTORER, object_labels
from cos_controllers.observation import Ref
from cos_controllers.parsing import parse_backups, parse_restores, parse_stack
from cos_controllers.volumes import current_claim

START = datetime(2026, 1, 1, tzinfo=UTC)
LINEAGE = "0b6c1f7e-volume"
PLACE = "77aa-volume"
S3: Manifest = {
    "endpoint": "https://s3.example.com:9000",
    "bucket": "backups",
    "prefix": "cos/prod",
    "credentialsSecretRef": {"name": "s3"},
}
SPEC: Manifest = {
    "redis": {},
    "postgres": [{"name": "prod"}],
    "backup": {"repositories": [{"name": "main", "volume": {"size": "1Gi"}}, {"name": "away", "s3": S3}]},
}
#: What the Secrets hold, by the length of each value.
SECRETS = {"cos-backup-key": {"key": 40}, "s3": {"AWS_ACCESS_KEY_ID": 8, "AWS_SECRET_ACCESS_KEY": 16}}


def report(at: datetime = START + timedelta(seconds=60), **changes: Any) -> str:
    facts = {
        "entries": 3,
        "moment": int(at.timestamp()),
        "version": "8.0.2",
        "bytes": 1000,
        "sha256": "a" * 64,
    }
    good: dict[str, Any] = {"snapshot": "5f0c9d2e", "stored": 400, "key": "00ff00ff00ff00ff"}
    return Report(facts=Facts(**facts), **{**good, **changes}).model_dump_json()


def claim_named(name: str, uid: str, annotations: Manifest) -> Manifest:
    """A live volume, all of it ours."""
    labels = object_labels("cos", "redis", "redis")
    metadata = {"name": name, "namespace": "cos", "uid": uid, "labels": labels, "annotations": annotations}
    owned = {f"f:{key}": {} for key in annotations}
    fields = {"f:metadata": {"f:annotations": owned, "f:labels": {f"f:{key}": {} for key in labels}}}
    managed = {
        "manager": RESTORER,
        "operation": "Apply",
        "fieldsV1": fields | {"f:spec": {"f:accessModes": {}}},
    }
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast"}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata | {"managedFields": [managed]},
        "spec": spec | {"resources": {"requests": {"storage": "2Gi"}}},
    }


@dataclass
class World:
    """Objects by name, and the clock."""

    spec: Manifest = field(default_factory=lambda: dict(SPEC))
    now: datetime = START
    image: str = "cos-operator:1"
    stack: bool = True
    serves: bool = True
    ready: bool = True
    found_wanting: datetime = START
    gates: list[Manifest] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, dict[str, int]] = field(default_factory=lambda: dict(SECRETS))
    backups: dict[str, Manifest] = field(default_factory=dict)
    restores: dict[str, Manifest] = field(default_factory=dict)
    claims: dict[str, Manifest] = field(default_factory=dict)
    component: str = "redis"
    runs_on: str = ""
    halted: str = ""
    clings: bool = False
    there: bool = True
    pod_since: datetime = START
    jobs: dict[str, Manifest] = field(default_factory=dict)
    pods: dict[str, Manifest] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    made: frozenset[str] = frozenset()
    touched: str = timestamp(START)
    uids: int = 0

    def __post_init__(self) -> None:
        name = f"cos-{self.component}"
        self.runs_on = f"{name}-data-0"
        if not self.claims:
            self.claims[f"{name}-backup-main"] = claim_named(f"{name}-backup-main", PLACE, {})
            self.claims[self.runs_on] = claim_named(self.runs_on, LINEAGE, {DATA_VERSION: "8.0"})

    def uid(self) -> str:
        self.uids += 1
        return f"uid-{self.uids}"

    def create(self, name: str, **spec: Any) -> None:
        self.backups[name] = {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackBackup",
            "metadata": {
                "name": name,
                "namespace": "cos",
                "uid": self.uid(),
                "generation": 1,
                "creationTimestamp": timestamp(self.now),
            },
            "spec": {"stackRef": {"name": "cos"}, **spec},
        }

    def restore(self, name: str, **spec: Any) -> None:
        metadata = {"name": name, "namespace": "cos", "uid": self.uid(), "generation": 1}
        self.restores[name] = {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackRestore",
            "metadata": metadata | {"creationTimestamp": timestamp(self.now)},
            "spec": {"stackRef": {"name": "cos"}, **({} if "source" in spec else {"backup": "b"}), **spec},
        }

    def restored(self, name: str = "r") -> StackRestoreStatus:
        return StackRestore.model_validate(self.restores[name]).status

    def current(self) -> str:
        """The volume that the stack chooses."""
        stack = self.seen().stack
        assert stack
        objects = {Ref("PersistentVolumeClaim", name): obj for name, obj in self.claims.items()}
        return current_claim(stack, objects, f"cos-{self.component}")

    def obey(self) -> None:
        """The stack stops its component if a backup wants it so, or starts it, and Kubernetes its pod."""
        halt = halting(self.component, self.seen().backups)
        reads = any(not job.get("status") for job in self.jobs.values())
        if halt or not (self.halted and reads and not self.resumed()):
            self.halted = halt.uid if halt else ""
        self.there = not self.halted or self.clings
        self.serves = self.ready = self.there

    def resumed(self) -> bool:
        return any(row.resume_time for b in self.seen().backups for row in b.status.components)

    def switch(self) -> None:
        """The stack replaces its pod, if another volume is to be used."""
        if self.current() != self.runs_on:
            self.runs_on, self.pod_since = self.current(), self.now

    def status(self, name: str) -> StackBackupStatus:
        return StackBackup.model_validate(self.backups[name]).status

    def phase(self, name: str) -> BackupPhase:
        return self.status(name).phase

    def message(self, name: str) -> str:
        return self.status(name).message

    def row(self, name: str, component: str = "redis") -> CopyStatus:
        return next(row for row in self.status(name).components if row.name == component)

    def seen(self) -> Seen:
        row = {"name": self.component, "ready": self.serves, "reason": "Serving", "version": "8.0"}
        row["gates"], row["since"] = self.gates, timestamp(self.found_wanting)
        since = {"servingSince": timestamp(self.pod_since)} if self.serves else {}
        raw: Manifest = {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "CosStack",
            "metadata": {"name": "cos", "namespace": "cos", "uid": "stack", "generation": 1}
            | {"creationTimestamp": timestamp(START), "managedFields": [{"time": self.touched}]},
            "spec": self.spec,
            "status": {"observedGeneration": 1, "revision": 7, "components": [row | since]},
        }
        mounted = {"name": "data", "persistentVolumeClaim": {"claimName": self.runs_on}}
        spec = {
            "containers": [{"image": "redis:8.0.2"}],
            "volumes": [mounted],
            "nodeSelector": {"disk": "fast"},
        }
        ready = {"type": "Ready", "status": "True" if self.ready else "False"}
        pod = {
            "metadata": {
                "name": f"cos-{self.component}-0",
                "ownerReferences": [{"controller": True, "uid": "workload"}],
                "creationTimestamp": timestamp(self.pod_since),
            },
            "spec": spec,
            "status": {"conditions": [ready | {"lastTransitionTime": timestamp(self.pod_since)}]},
        }
        halted = {"annotations": {ANNOTATION_HALTED: self.halted}} if self.halted else {}
        workload = {
            "metadata": {"uid": "workload", "generation": 2, **halted},
            "spec": {"replicas": 0 if self.halted else 1, "template": {"spec": spec}},
            "status": {"observedGeneration": 2},
        }
        pods = {Ref("Pod", f"cos-{self.component}-0"): pod} if self.there else {}
        return Seen(
            stack=parse_stack(raw) if self.stack else None,
            backups=parse_backups("cos", self.backups.values()),
            jobs=list(self.jobs.values()),
            pods=list(self.pods.values()),
            restores=parse_restores("cos", self.restores.values()),
            objects={
                Ref("StatefulSet", f"cos-{self.component}"): workload,
                **pods,
                **{Ref("PersistentVolumeClaim", name): obj for name, obj in self.claims.items()},
            },
            secrets=self.secrets,
            progress=self.progress,
            problems=self.problems,
            made=self.made,
            image=self.image,
        )

    def step(self, seconds: float = 1, *, die_after: int | None = None) -> Plan:
        """One look and what it does, by the shell's order; after so many calls the operator dies."""
        self.now += timedelta(seconds=seconds)
        plan = self.decide()
        for call, item in self.calls(plan)[:die_after]:
            call(item)
        return plan

    def decide(self) -> Plan:
        """What is to be done now."""
        return decide(self.seen(), self.now)

    def calls(self, plan: Plan) -> list[tuple[Callable[[Any], None], Any]]:
        """What a plan asks for, in the shell's order."""
        return [
            *((self._write, item) for item in plan.statuses.items()),
            *((self._write_restore, item) for item in plan.restored.items()),
            *((self._delete, item) for item in plan.jobs),
            *((self._apply, item) for item in plan.claims),
            *((self._begin, item) for item in plan.begin),
            *((self._forget, item) for item in plan.backups),
            *((self._forget_restore, item) for item in plan.restores),
            *((self._create, item) for item in plan.create),
        ]

    def _write(self, item: tuple[str, StackBackupStatus]) -> None:
        name, status = item
        dumped = status.model_dump(by_alias=True, exclude_none=True, mode="json")
        self.backups[name] = self.backups[name] | {"status": dumped}

    def _write_restore(self, item: tuple[str, StackRestoreStatus]) -> None:
        name, status = item
        dumped = status.model_dump(by_alias=True, exclude_none=True, mode="json")
        self.restores[name] = self.restores[name] | {"status": dumped}

    def _forget(self, item: Any) -> None:
        assert self.backups.pop(item.name)["metadata"]["uid"] == item.uid

    def _forget_restore(self, item: Any) -> None:
        assert self.restores.pop(item.name)["metadata"]["uid"] == item.uid

    def _create(self, item: Manifest) -> None:
        name = item["metadata"]["name"]
        there = self.backups if item["kind"] == "StackBackup" else self.restores
        assert name not in there, "two of one name"
        made = {"uid": self.uid(), "generation": 1, "creationTimestamp": timestamp(self.now)}
        there[name] = item | {"metadata": item["metadata"] | made}
        self.made |= {name}

    def _apply(self, item: Any) -> None:
        claim = item.volume
        name = claim["metadata"]["name"]
        known = self.claims.get(name)
        uid = known["metadata"]["uid"] if known else self.uid()
        self.claims[name] = claim_named(name, uid, claim["metadata"]["annotations"])

    def _delete(self, item: Any) -> None:
        job = self.jobs.pop(item.name)
        assert job["metadata"]["uid"] == item.uid
        self.pods = {name: pod for name, pod in self.pods.items() if name != item.name}

    def _begin(self, item: Any) -> None:
        name = item.job["metadata"]["name"]
        assert name not in self.jobs, "two Jobs of one name"
        uid = self.uid()
        metadata = {**item.job["metadata"], "uid": uid, "creationTimestamp": timestamp(self.now)}
        self.jobs[name] = item.job | {"metadata": metadata}
        owner = {"controller": True, "uid": uid}
        self.pods[name] = {"metadata": {"name": name, "ownerReferences": [owner]}, "status": {}}

    def end(self, text: str, code: int = 0, container: str = STORE, name: str = "cos-redis-backup") -> None:
        """The Job's pod ends with a message."""
        state = {
            "terminated": {"exitCode": code, "message": text, "reason": "Error" if code else "Completed"}
        }
        template = self.jobs[name]["spec"]["template"]["spec"]
        is_init = container in {item["name"] for item in template.get("initContainers", ())}
        kind = "initContainerStatuses" if is_init else "containerStatuses"
        status = self.pods[name].setdefault("status", {})
        status.setdefault(kind, []).append({"name": container, "state": state})
        if not code and container != template["containers"][0]["name"]:
            return
        condition = {
            "type": "Failed" if code else "Complete",
            "status": "True",
            "lastTransitionTime": timestamp(self.now),
        }
        self.jobs[name]["status"] = {"conditions": [condition]}
