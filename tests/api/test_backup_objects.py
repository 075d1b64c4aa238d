"""Backups and restores at a real API server: schema, Job controller, Pod Security. Nothing runs: there is no node."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from operator_process import eventually

from conftest import Kubectl
from cos_controllers.api.stack import CosStack
from cos_controllers.backups.report import Facts, Loaded, Report
from cos_controllers.conditions import timestamp
from cos_controllers.k8s import Manifest
from cos_controllers.names import (
    ANNOTATION_CANDIDATE,
    ANNOTATION_DATA_VERSION,
    LABEL_SCHEDULE,
    backups_selector,
    stack_selector,
)
from cos_controllers.observation import CheckTarget, Snapshot, ref_of
from cos_controllers.parsing import parse_stack
from cos_controllers.resolve import resolve
from cos_operator.backing_up import BackupMaker, NotBegun, backed_up
from cos_operator.engines.base import BackupClient, EngineError
from cos_operator.key import Key
from cos_operator.kube import Forbidden, Invalid, Kube
from cos_operator.kube_errors import Request

#: For what the Job controller does.
SOON = 20.0
FACTS = Facts(entries=3, moment=1767225600, version="8.0.2", bytes=1000, sha256="a" * 64)
REPORT = Report(facts=FACTS, snapshot="0b92c64b", stored=400, key="00ff").model_dump_json()


@dataclass
class Engine:
    """A client of Redis that lets the backup user in, or refuses as long as a test says."""

    refuses: str = ""

    async def admit_backup(self, target: CheckTarget) -> None:
        assert target.component == "redis"
        if self.refuses:
            raise EngineError(self.refuses)


@dataclass
class Scene:
    """A stack of Redis that serves, by its status, its objects, and who looks after its backups."""

    kube: Kube
    key: Key
    kubectl: Kubectl
    engine: Engine = field(default_factory=Engine)
    heard: list[Key] = field(default_factory=list)
    ahead: timedelta = timedelta()

    def __post_init__(self) -> None:
        target = CheckTarget("redis", "redis", "127.0.0.1", 6379)
        clients = cast("dict[str, BackupClient]", {"redis": self.engine})
        self.maker = BackupMaker(
            self.kube, clients, lambda _: [target], "cos-operator:test", self.heard.append, self.now
        )

    def now(self) -> datetime:
        """The operator's clock."""
        return datetime.now(UTC) + self.ahead

    async def look(self) -> float | None:
        return await self.maker(self.key)

    async def create(self, kind: str, name: str, **spec: Any) -> None:
        metadata = {"name": name, "namespace": self.key.namespace}
        wanted = {"stackRef": {"name": self.key.name}, **spec}
        body = {"apiVersion": "cos.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": wanted}
        await self.kube.create(body)

    async def status(self, kind: str, name: str) -> Manifest:
        found = await self.kube.get(kind, self.key.namespace, name)
        assert found
        return dict(found.get("status") or {})

    async def jobs(self) -> list[Manifest]:
        return await self.kube.list("Job", self.key.namespace, backups_selector(self.key.name))

    async def claim(self, name: str) -> Manifest:
        found = await self.kube.get("PersistentVolumeClaim", self.key.namespace, name)
        assert found
        return found

    async def patch_pod(self, *statuses: Manifest, phase: str) -> None:
        """Play kubelet. The pod was admitted by Pod Security `restricted`, or there would be none."""

        async def pods() -> list[Manifest]:
            return await self.kube.list("Pod", self.key.namespace, backups_selector(self.key.name))

        (pod,) = await eventually("its pod exists", pods, SOON)
        status = {"phase": phase, "containerStatuses": list(statuses)}
        name, body = pod["metadata"]["name"], json.dumps({"status": status})
        patch = ("patch", "pod", name, "--subresource=status", "--type=merge", "-p", body)
        self.kubectl("-n", self.key.namespace, *patch)

    async def finish(self, container: str, message: str, code: int = 0) -> None:
        now = timestamp(datetime.now(UTC))
        ended = {"exitCode": code, "message": message, "startedAt": now, "finishedAt": now}
        ended["reason"] = "Error" if code else "Completed"
        await self.patch_pod(
            container_status(container, terminated=ended), phase="Failed" if code else "Succeeded"
        )


def container_status(name: str, **state: Manifest) -> Manifest:
    empty = {"image": "x", "imageID": "", "ready": False, "restartCount": 0}
    return {"name": name, **empty, "state": state}


def stack_in(namespace: str) -> Manifest:
    repositories = [{"name": "main", "volume": {"size": "1Gi"}}]
    return {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "CosStack",
        "metadata": {"name": "cos", "namespace": namespace},
        "spec": {"redis": {}, "backup": {"repositories": repositories}},
    }


@pytest.fixture
async def scene(kube: Kube, kubectl: Kubectl, namespace: str) -> Scene:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("-n", namespace, "wait", "--for=create", "serviceaccount/default", "--timeout=20s")
    created = await kube.create(stack_in(namespace))
    stack = parse_stack(created)
    for obj in rendered(stack):
        await kube.apply(obj, force=True)
    await eventually("its pod exists", lambda: kube.get("Pod", namespace, "cos-redis-0"), SOON)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": timestamp(datetime.now(UTC))}
    patch = json.dumps({"status": {"phase": "Running", "conditions": [ready]}})
    kubectl(
        *("-n", namespace, "patch", "pod", "cos-redis-0", "--subresource=status", "--type=merge", "-p", patch)
    )
    await serve(kube, stack)
    return Scene(kube, Key(namespace, "cos"), kubectl)


def rendered(stack: CosStack) -> list[Manifest]:
    """The stack's objects, as the reconciler would apply them, and the mark of a volume that has been run on."""
    objects = resolve(stack, Snapshot(entropy=b"0" * 32)).objects()
    return [
        obj | {"metadata": obj["metadata"] | {"annotations": {ANNOTATION_DATA_VERSION: "8.0"}}}
        if ref_of(obj).name == "cos-redis-data-0"
        else obj
        for obj in objects
    ]


async def serve(kube: Kube, stack: CosStack) -> None:
    now = timestamp(datetime.now(UTC))
    row = {"name": "redis", "reason": "Serving", "ready": True, "version": "8.0", "servingSince": now}
    body = {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "CosStack",
        "metadata": {"name": stack.metadata.name, "namespace": stack.metadata.namespace},
        "status": {"observedGeneration": 1, "revision": 1, "components": [row]},
    }
    await kube.apply(body, force=True, subresource="status")


async def copied(scene: Scene, name: str = "one") -> None:
    """A backup that has succeeded, and nothing left of it but its object."""
    await scene.create("StackBackup", name)
    await scene.look()
    await scene.look()
    await scene.finish("store", REPORT)
    await scene.look()
    assert (await scene.status("StackBackup", name))["phase"] == "Succeeded"

    async def gone() -> bool:
        await scene.look()
        return not await scene.jobs()

    await eventually("its Job is gone, after its pod", gone, SOON)


async def test_a_backup_from_its_creation_to_its_last_trace(scene: Scene) -> None:
    await copied(scene)
    status = await scene.status("StackBackup", "one")
    (row,) = status["components"]
    data, kept = await scene.claim("cos-redis-data-0"), await scene.claim("cos-redis-backup-main")
    assert (row["lineage"], row["place"]) == (data["metadata"]["uid"], kept["metadata"]["uid"])
    assert (row["entries"], row["storedBytes"]) == (3, 400)
    assert scene.heard == [scene.key]
    namespace = scene.key.namespace
    waited = scene.kubectl(
        "-n", namespace, "wait", "stackbackup/one", "--for=condition=Complete", "--timeout=5s"
    )
    assert "condition met" in waited
    assert "Succeeded" in scene.kubectl("-n", namespace, "get", "cosbackup", "one")
    before = await scene.kube.get("StackBackup", namespace, "one")
    assert await scene.look() is None
    assert await scene.kube.get("StackBackup", namespace, "one") == before
    assert (await backed_up(scene.kube, namespace))[scene.key] is False


async def test_a_restore_fills_a_volume_that_nobody_uses_and_hands_it_over(scene: Scene) -> None:
    await copied(scene)
    await scene.create("StackRestore", "back", backup="one", existingData="SetAside")
    await scene.look()
    claim = await scene.claim("cos-redis-data-1")
    restore = await scene.kube.get("StackRestore", scene.key.namespace, "back")
    assert restore
    assert claim["metadata"]["annotations"][ANNOTATION_CANDIDATE] == restore["metadata"]["uid"]
    await scene.look()
    await scene.look()
    assert (await scene.status("StackRestore", "back"))["phase"] == "Running"
    await scene.finish("load", Loaded(entries=3).model_dump_json())
    await scene.look()
    assert (await scene.status("StackRestore", "back"))["phase"] == "Switching"
    await scene.look()
    claim = await scene.claim("cos-redis-data-1")
    assert claim["metadata"]["annotations"] == {ANNOTATION_DATA_VERSION: "8.0.2"}
    assert "Switching" in scene.kubectl("-n", scene.key.namespace, "get", "cosrestore", "back")


async def test_a_proof_is_admitted_and_makes_no_volume_of_the_stack(scene: Scene) -> None:
    await copied(scene)
    await scene.create("StackRestore", "proof", backup="one", into="Throwaway")
    await scene.look()
    await scene.look()
    assert (await scene.status("StackRestore", "proof"))["phase"] == "Running"
    await scene.finish("load", Loaded(entries=3).model_dump_json())
    await scene.look()
    status = await scene.status("StackRestore", "proof")
    assert (status["phase"], status["components"][0]["entries"]) == ("Succeeded", 3)
    volumes = await scene.kube.list("PersistentVolumeClaim", scene.key.namespace, stack_selector("cos"))
    assert sorted(item["metadata"]["name"] for item in volumes) == [
        "cos-redis-backup-main",
        "cos-redis-data-0",
    ]


async def test_what_is_due_is_made_once_and_old_proofs_go(scene: Scene) -> None:
    schedule = {"name": "often", "schedule": "* * * * *", "keep": {"last": 1}}
    verification = {"schedule": "* * * * *", "historyLimit": 1}
    wanted = {"spec": {"backup": {"schedules": [schedule], "verification": verification}}}
    namespace = scene.key.namespace
    scene.kubectl("-n", namespace, "patch", "cosstack", "cos", "--type=merge", "-p", json.dumps(wanted))
    scene.ahead = timedelta(minutes=2)
    left = await scene.look()
    assert left is not None
    assert left <= 60
    made = [await scene.kube.list(kind, namespace) for kind in ("StackBackup", "StackRestore")]
    ((backup,), (proof,)) = made
    assert backup["metadata"]["labels"] == {LABEL_SCHEDULE: "often"}
    assert (proof["spec"]["into"], proof["spec"]["source"]["backup"]) == ("Throwaway", "")
    # Who deletes it does not want another one of its time.
    await scene.kube.delete("StackBackup", namespace, backup["metadata"]["name"])
    await scene.look()
    assert await scene.kube.list("StackBackup", namespace) == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "exactly one of backup or source"),
        ({"backup": "one", "source": {}}, "exactly one of backup or source"),
        ({"source": {"before": "yesterday"}}, "before must be a moment"),
        ({"source": {"before": "2026-11-27t14:00:00z"}}, "before must be a moment"),
        ({"source": {"before": "2026-13-27T14:00:00Z"}}, "before"),
        ({"source": {"stack": "../other"}}, "spec.source.stack"),
        ({"source": {"component": "postgres-prod"}}, "source.component is for one component"),
        ({"source": {}, "pointInTime": "latest"}, "pointInTime must be a moment"),
        ({"source": {}, "pointInTime": "2026-13-27T14:00:00Z"}, "pointInTime"),
        ({"source": {"namespace": "a/b"}}, "spec.source.namespace"),
    ],
)
async def test_what_cannot_be_looked_for_is_refused(scene: Scene, spec: Manifest, says: str) -> None:
    with pytest.raises(Invalid, match=re.escape(says)):
        await scene.create("StackRestore", "back", **spec)


async def test_moments_are_those_of_rfc_3339(scene: Scene) -> None:
    for number, before in enumerate(("2026-11-27T14:00:00Z", "2026-11-27T14:00:00.5+01:00")):
        await scene.create("StackRestore", f"back-{number}", source={"before": before}, pointInTime=before)
    await scene.create("StackRestore", "all", source={}, pointInTime="Latest")
    await scene.look()


async def test_an_engine_that_lets_nobody_in_is_told_and_tried_again(scene: Scene) -> None:
    scene.engine.refuses = "the backup user is not in the mounted ACL file yet"
    await scene.create("StackBackup", "one")
    for _ in range(2):
        with pytest.raises(NotBegun, match="not in the mounted ACL file"):
            await scene.look()
    assert "not in the mounted ACL file" in (await scene.status("StackBackup", "one"))["message"]
    scene.engine.refuses = ""
    await scene.look()
    assert len(await scene.jobs()) == 1


async def test_a_job_of_somebody_else_is_not_taken_for_ours(scene: Scene) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}
    metadata = {"name": "cos-redis-backup", "namespace": scene.key.namespace}
    spec = {"suspend": True, "template": {"spec": pod}}
    await scene.kube.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    await scene.create("StackBackup", "one")
    for _ in range(2):
        with pytest.raises(NotBegun, match="a Job cos-redis-backup exists that is not the operator's"):
            await scene.look()
    assert "not the operator's" in (await scene.status("StackBackup", "one"))["message"]


async def test_a_log_that_cannot_be_read_stops_nothing(scene: Scene) -> None:
    await scene.create("StackBackup", "one")
    await scene.look()
    running = container_status("store", running={"startedAt": timestamp(datetime.now(UTC))})
    await scene.patch_pod(running, phase="Running")
    # There is no node that could be asked for it.
    assert await scene.look() is not None
    assert (await scene.status("StackBackup", "one"))["phase"] == "Running"


async def test_a_backup_that_is_deleted_takes_its_job_along_and_the_stack_hears_of_it(scene: Scene) -> None:
    await scene.create("StackBackup", "one")
    await scene.look()
    assert len(await scene.jobs()) == 1
    await scene.kube.delete("StackBackup", scene.key.namespace, "one")
    await scene.look()
    assert scene.heard == [scene.key]
    assert all(job["metadata"].get("deletionTimestamp") for job in await scene.jobs())


@pytest.mark.parametrize("kind", ["StackBackup", "StackRestore"])
async def test_neither_changes(scene: Scene, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    spec = {"backup": "one"} if kind == "StackRestore" else {}
    await scene.create(kind, "one", **spec)
    with pytest.raises(subprocess.CalledProcessError):
        scene.kubectl(
            *("-n", scene.key.namespace, "patch", kind.lower(), "one", "--type=merge"),
            *("-p", json.dumps({"spec": {"components": ["redis"]}})),
        )
    assert "does not change: delete it, or create another one" in capfd.readouterr().err


async def test_a_key_of_bytes_is_asked_for_as_text(scene: Scene) -> None:
    data = {"key": base64.b64encode(b"\x9f" * 32).decode()}
    metadata = {"name": "cos-backup-key", "namespace": scene.key.namespace}
    await scene.kube.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}, force=True
    )
    await scene.create("StackBackup", "one")
    await scene.look()
    assert (
        "needs a key key of at least 16 characters of text"
        in (await scene.status("StackBackup", "one"))["message"]
    )


async def test_a_backup_that_is_refused_keeps_nothing_else_from_being_done(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.create("StackBackup", "by-hand")
    schedule = {"name": "often", "schedule": "* * * * *", "keep": {"last": 1}}
    patch = json.dumps({"spec": {"backup": {"schedules": [schedule]}}})
    scene.kubectl("-n", scene.key.namespace, "patch", "cosstack", "cos", "--type=merge", "-p", patch)
    scene.ahead = timedelta(minutes=2)
    create = scene.kube.create

    async def refusing(obj: Manifest) -> Manifest:
        """As a quota does."""
        if obj["kind"] == "StackBackup":
            raise Forbidden(Request("create", "StackBackup"), "exceeded quota")
        return await create(obj)

    monkeypatch.setattr(scene.kube, "create", refusing)
    with pytest.raises(NotBegun, match=r"StackBackup cos-often-\S+ was refused: .*exceeded quota"):
        await scene.look()
    assert len(await scene.jobs()) == 1
    assert (await scene.status("StackBackup", "by-hand"))["phase"] == "Pending"
