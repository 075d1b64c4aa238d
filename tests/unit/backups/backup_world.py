"""The backups of one stack as plain data: what a plan's steps leave, and what Kubernetes and the Job make of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cos_controllers.api.backup import BackupPhase, CopyStatus, StackBackup, StackBackupStatus
from cos_controllers.backups.job import CONTAINER
from cos_controllers.backups.plan import Plan, decide
from cos_controllers.backups.report import Facts, Progress, Report
from cos_controllers.backups.seen import Seen
from cos_controllers.conditions import timestamp
from cos_controllers.k8s import Manifest
from cos_controllers.observation import Ref
from cos_controllers.parsing import parse_backups, parse_stack

START = datetime(2026, 1, 1, tzinfo=UTC)
LINEAGE = "0b6c1f7e-volume"
S3: Manifest = {
    "endpoint": "https://s3.example.com:9000",
    "bucket": "backups",
    "prefix": "cos/prod",
    "credentialsSecretRef": {"name": "s3"},
}
SPEC: Manifest = {
    "redis": {},
    "elasticsearch": {},
    "backup": {"repositories": [{"name": "main", "volume": {"size": "1Gi"}}, {"name": "away", "s3": S3}]},
}
#: What the Secrets hold, by the length of each value.
SECRETS = {"cos-backup-key": {"key": 40}, "s3": {"AWS_ACCESS_KEY_ID": 8, "AWS_SECRET_ACCESS_KEY": 16}}


def report(**changes: Any) -> str:
    facts = {
        "entries": 3,
        "moment": int(START.timestamp()) + 60,
        "version": "8.0.2",
        "bytes": 1000,
        "sha256": "a" * 64,
    }
    good: dict[str, Any] = {"snapshot": "5f0c9d2e", "stored": 400, "key": "00ff00ff00ff00ff"}
    return Report(facts=Facts(**facts), **{**good, **changes}).model_dump_json()


@dataclass
class World:
    """Objects by name, and the clock."""

    spec: Manifest = field(default_factory=lambda: dict(SPEC))
    now: datetime = START
    image: str = "cos-operator:1"
    stack: bool = True
    serves: bool = True
    secrets: dict[str, dict[str, int]] = field(default_factory=lambda: dict(SECRETS))
    backups: dict[str, Manifest] = field(default_factory=dict)
    jobs: dict[str, Manifest] = field(default_factory=dict)
    pods: dict[str, Manifest] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    uids: int = 0

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

    def status(self, name: str) -> StackBackupStatus:
        return StackBackup.model_validate(self.backups[name]).status

    def phase(self, name: str) -> BackupPhase:
        return self.status(name).phase

    def message(self, name: str) -> str:
        return self.status(name).message

    def row(self, name: str, component: str = "redis") -> CopyStatus:
        return next(row for row in self.status(name).components if row.name == component)

    def seen(self) -> Seen:
        row = {"name": "redis", "ready": True, "reason": "Serving"}
        since = {"servingSince": timestamp(START)} if self.serves else {}
        raw: Manifest = {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "CosStack",
            "metadata": {"name": "cos", "namespace": "cos", "uid": "stack", "generation": 1}
            | {"creationTimestamp": timestamp(START)},
            "spec": self.spec,
            "status": {"observedGeneration": 1, "revision": 7, "components": [row | since]},
        }
        claim = {"metadata": {"name": "cos-redis-data-0", "uid": LINEAGE}}
        mounted = {"name": "data", "persistentVolumeClaim": {"claimName": "cos-redis-data-0"}}
        template = {"spec": {"containers": [{"image": "redis:8.0.2"}], "volumes": [mounted]}}
        return Seen(
            stack=parse_stack(raw) if self.stack else None,
            backups=parse_backups("cos", self.backups.values()),
            jobs=list(self.jobs.values()),
            pods=list(self.pods.values()),
            objects={
                Ref("StatefulSet", "cos-redis"): {"spec": {"template": template}},
                Ref("PersistentVolumeClaim", "cos-redis-data-0"): claim,
            },
            secrets=self.secrets,
            progress=self.progress,
            image=self.image,
        )

    def step(self, seconds: float = 1, *, die_after: int | None = None) -> Plan:
        """One look and what it does, by the shell's order; after so many calls the operator dies."""
        self.now += timedelta(seconds=seconds)
        plan = decide(self.seen(), self.now)
        calls = [
            *((self._write, item) for item in plan.statuses.items()),
            *((self._delete, item) for item in plan.jobs),
            *((self._begin, item) for item in plan.begin),
        ]
        for call, item in calls[:die_after]:
            call(item)
        return plan

    def _write(self, item: tuple[str, StackBackupStatus]) -> None:
        name, status = item
        dumped = status.model_dump(by_alias=True, exclude_none=True, mode="json")
        self.backups[name] = self.backups[name] | {"status": dumped}

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

    def end(
        self, text: str, code: int = 0, container: str = CONTAINER, name: str = "cos-redis-backup"
    ) -> None:
        """The Job's pod ends with a message."""
        state = {
            "terminated": {"exitCode": code, "message": text, "reason": "Error" if code else "Completed"}
        }
        kind = "containerStatuses" if container == CONTAINER else "initContainerStatuses"
        self.pods[name]["status"] = {kind: [{"name": container, "state": state}]}
        condition = {
            "type": "Failed" if code else "Complete",
            "status": "True",
            "lastTransitionTime": timestamp(self.now),
        }
        self.jobs[name]["status"] = {"conditions": [condition]}
