"""What becomes of backups, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from backup_world import LINEAGE, PLACE, S3, SPEC, START, World, claim_named, report

from cos_controllers.api.backup import BackupPhase, StackBackup
from cos_controllers.backups.job import job_of_copy, told
from cos_controllers.backups.order import Order
from cos_controllers.backups.report import Progress
from cos_controllers.components.registry import DUMPERS
from cos_controllers.conditions import timestamp
from cos_controllers.jobs import NO_IMAGE
from cos_controllers.k8s import Manifest
from cos_controllers.names import object_labels


def order_in(job: Manifest) -> Order:
    order = told(job, Order)
    assert order
    return order


def begun(**spec: Any) -> World:
    world = World()
    world.create("b", **spec)
    world.step()
    world.step()
    return world


def test_a_backup_copies_what_can_be_copied_and_says_what_it_found() -> None:
    world = World()
    world.create("b")
    world.step()
    assert (world.phase("b"), list(world.jobs)) == (BackupPhase.PENDING, ["cos-redis-backup"])
    world.step()
    assert world.phase("b") is BackupPhase.RUNNING
    assert world.message("b") == "redis: is dumped"
    job = world.jobs["cos-redis-backup"]
    world.progress[job["metadata"]["uid"]] = Progress(done=250, total=1000, seconds=5)
    world.step()
    assert world.message("b") == "redis: 25 % stored, about 15 s left"
    world.end(report())
    world.step()
    status, row = world.status("b"), world.row("b")
    assert (status.phase, status.message) == (BackupPhase.SUCCEEDED, "1 component copied")
    assert (status.repository, status.stack_revision, status.skew_seconds) == ("main", 7, 0)
    assert (row.snapshot, row.bytes, row.stored_bytes, row.entries) == ("5f0c9d2e", 1000, 400, 3)
    assert (row.lineage, row.path, row.place) == (LINEAGE, "cos/cos/redis", PLACE)
    assert row.point_in_time == timestamp(START.replace(minute=1))
    assert (row.percent, row.remaining_seconds) == (None, None)
    assert status.conditions[0].reason == "Succeeded"
    assert world.jobs, "its result is stored before it goes"
    world.step()
    assert not world.jobs
    assert world.step().again is None


def test_it_rests_once_it_has_ended() -> None:
    world = begun()
    world.end(report())
    for _ in range(3):
        world.step()
    plan = world.step()
    assert (plan.statuses, plan.jobs, plan.begin, plan.again) == ({}, (), (), None)


@pytest.mark.parametrize("calls", range(3))
def test_an_operator_that_dies_between_any_two_calls_goes_on(calls: int) -> None:
    world = World()
    world.create("b")
    reported = False
    for _ in range(12):
        world.step(die_after=calls)
        world.step()
        if world.jobs and not reported:
            world.end(report())
            reported = True
    assert world.phase("b") is BackupPhase.SUCCEEDED
    assert not world.jobs


def test_of_two_the_second_waits_for_the_first() -> None:
    world = World()
    world.create("first")
    world.create("second")
    world.step()
    world.step()
    assert len(world.jobs) == 1
    assert "redis: waits until first has ended" in world.message("second")
    world.end(report())
    world.step()
    world.step()
    assert world.phase("first") is BackupPhase.SUCCEEDED
    world.step()
    world.step()
    assert world.phase("second") is BackupPhase.RUNNING


def test_the_job_reads_as_the_engine_and_stores_as_the_operator() -> None:
    world = begun(repository="away")
    job = world.jobs["cos-redis-backup"]
    pod = job["spec"]["template"]["spec"]
    (dump,), (store,) = pod["initContainers"], pod["containers"]
    assert (dump["image"], store["image"]) == ("redis:8.0.2", "cos-operator:1")
    order = order_in(job)
    assert order.repository == f"s3:{S3['endpoint']}/backups/cos/prod/cos/cos/redis"
    assert (order.region, order.limit) == ("us-east-1", 3600)
    # The engine's container has the login alone, the operator's the key and the bucket's credentials alone.
    mounted = [{item["name"] for item in container["volumeMounts"]} for container in (dump, store)]
    assert mounted == [{"work", "tmp", "login"}, {"work", "tmp", "key", "credentials"}]
    assert pod["automountServiceAccountToken"] is False
    assert job["spec"]["activeDeadlineSeconds"] > 2 * order.limit


def test_a_repository_of_volumes_is_mounted() -> None:
    world = begun()
    pod = world.jobs["cos-redis-backup"]["spec"]["template"]["spec"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claims == ["cos-redis-backup-main"]
    assert order_in(world.jobs["cos-redis-backup"]).repository == "/repository/cos/cos/redis"


def test_a_dump_that_reads_the_data_volume_runs_where_the_engine_does() -> None:
    world = World(spec=SPEC | {"elasticsearch": {}})
    stack = world.seen().stack
    assert stack
    assert stack.spec.backup
    assert stack.spec.elasticsearch
    world.create("b")
    order = Order(
        namespace="cos",
        stack="cos",
        component="elasticsearch",
        engine="elasticsearch",
        lineage=LINEAGE,
        backup="b",
        repository="/repository",
        place=PLACE,
        path="",
        limit=600,
    )
    template: Manifest = {
        "spec": {
            "containers": [{"image": "elasticsearch:8", "resources": {"limits": {"memory": "1Gi"}}}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "cos-elasticsearch-data-3"}}],
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}},
        }
    }
    backup = StackBackup.model_validate(world.backups["b"])
    dumper = DUMPERS["elasticsearch"]
    dump = dumper.dump("host", stack.spec.elasticsearch, 600)
    repository = stack.spec.backup.repositories[1]
    job = job_of_copy(
        stack, backup, repository, order, dumper, dump, template=template, image="cos-operator:1"
    )
    pod = job["spec"]["template"]["spec"]
    (volume,) = [item for item in pod["volumes"] if item["name"] == "source"]
    assert volume["persistentVolumeClaim"] == {"claimName": "cos-elasticsearch-data-3", "readOnly": True}
    (dumping,), (store,) = pod["initContainers"], pod["containers"]
    assert {"name": "source", "mountPath": "/data", "readOnly": True} in dumping["volumeMounts"]
    assert "source" not in {item["name"] for item in store["volumeMounts"]}
    assert dumping["resources"]["limits"] == {"memory": "256Mi"}, "no second server's"
    (near,) = pod["affinity"].pop("podAffinity")["requiredDuringSchedulingIgnoredDuringExecution"]
    assert near["topologyKey"] == "kubernetes.io/hostname"
    assert (
        near["labelSelector"]["matchLabels"].items()
        <= object_labels("cos", "elasticsearch", "elasticsearch").items()
    )
    assert (
        not near["labelSelector"]["matchLabels"].items()
        <= job["spec"]["template"]["metadata"]["labels"].items()
    )
    assert (pod["affinity"], pod["tolerations"]) == ({}, [{"operator": "Exists"}])
    assert pod["securityContext"]["fsGroup"] == 1000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"components": ["redis", "mongo"]}, "the stack has no data of mongo; it has postgres-prod, redis"),
        ({"components": ["postgres-prod"]}, "no copies of postgres-prod: its log is kept nowhere else"),
    ],
)
def test_a_mistake_in_the_spec_is_told_at_once(change: dict[str, Any], says: str) -> None:
    world = World()
    world.create("b", **change)
    world.step()
    assert world.phase("b") is BackupPhase.FAILED
    assert says in world.message("b")
    assert world.status("b").conditions[0].status == "True"
    assert not world.jobs


def test_without_its_own_image_the_operator_copies_nothing() -> None:
    world = World(image="")
    world.create("b")
    world.step()
    assert (world.phase("b"), world.message("b")) == (BackupPhase.FAILED, NO_IMAGE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stack": False}, "there is no CosStack cos in this namespace"),
        ({"spec": {"redis": {}}}, "the stack has no spec.backup"),
        (
            {"claims": {"cos-redis-data-0": claim_named("cos-redis-data-0", "x", {})}},
            "waits until the volume of repository main is there",
        ),
        ({"serves": False}, "waits until redis serves"),
        ({"secrets": {}}, "waits for Secret cos-backup-key"),
        ({"secrets": {"cos-backup-key": {"key": 15}}}, "at least 16 characters"),
    ],
)
def test_what_is_missing_is_waited_for_and_not_for_ever(change: dict[str, Any], says: str) -> None:
    world = World(**change)
    world.create("b", startingDeadlineSeconds=60)
    world.step()
    assert world.phase("b") is BackupPhase.PENDING
    assert says in world.message("b")
    world.step(60)
    assert world.phase("b") is BackupPhase.FAILED
    assert "not begun within 60 s (startingDeadlineSeconds)" in world.message("b")
    assert says in world.message("b")
    assert not world.jobs


def test_a_repository_that_is_not_there_yet_is_waited_for() -> None:
    world = World()
    world.create("b", repository="other")
    world.step()
    assert world.phase("b") is BackupPhase.PENDING
    assert "the stack has no repository other; it has main, away" in world.message("b")


def test_why_a_job_could_not_be_made_is_told() -> None:
    world = World(problems={"redis": "its Job was refused: exceeded quota"})
    world.create("b")
    world.step()
    assert world.message("b") == "redis: its Job was refused: exceeded quota"


def test_a_bucket_is_told_by_where_it_is() -> None:
    world = begun(repository="away")
    assert world.row("b").place == f"{S3['endpoint']}/backups/cos/prod"


def test_an_eviction_is_told_by_its_own_words() -> None:
    world = begun()
    world.end("", 137, "dump")
    evicted = {"reason": "Evicted", "message": 'Usage of EmptyDir volume "work" exceeds the limit'}
    world.pods["cos-redis-backup"]["status"] |= evicted
    world.step(11)
    assert 'its pod ended: Evicted: Usage of EmptyDir volume "work"' in world.message("b")


@pytest.mark.parametrize(
    ("secrets", "says"),
    [
        ({}, "Secret s3 (credentialsSecretRef) does not exist"),
        ({"s3": {"AWS_ACCESS_KEY_ID": 3}}, "lacks AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_credentials_that_a_bucket_needs_are_named(secrets: dict[str, Any], says: str) -> None:
    world = World(secrets={"cos-backup-key": {"key": 40}, **secrets})
    world.create("b", repository="away")
    world.step()
    assert says in world.message("b")


def test_a_key_of_the_users_own_is_asked_for_by_its_name() -> None:
    repository = {"name": "main", "volume": {"size": "1Gi"}, "encryptionKeySecretRef": {"name": "mine"}}
    world = World(spec=SPEC | {"backup": {"repositories": [repository]}})
    world.create("b")
    world.step()
    assert "Secret mine (encryptionKeySecretRef) does not exist" in world.message("b")
    world.secrets["mine"] = {"key": 20}
    world.step()
    (job,) = world.jobs.values()
    key = next(v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "key")
    assert key["secret"]["secretName"] == "mine"  # pragma: allowlist secret


@pytest.mark.parametrize(("container", "who"), [("store", "container store"), ("dump", "container dump")])
def test_a_copy_that_fails_says_why_and_its_job_goes(container: str, who: str) -> None:
    world = begun()
    world.end("the repository was written with another key", 1, container)
    world.step(11)
    assert world.phase("b") is BackupPhase.FAILED
    assert (
        world.message("b")
        == f"redis: {who} ended with Error (1): the repository was written with another key"
    )
    assert world.status("b").skew_seconds is None
    world.step()
    assert not world.jobs


@pytest.mark.parametrize("text", ["{}", "not JSON", report().replace("aaaa", "zzzz")])
def test_a_report_that_is_none_is_no_success(text: str) -> None:
    world = begun()
    world.end(text)
    world.step()
    assert world.phase("b") is BackupPhase.FAILED
    assert "its report cannot be read" in world.message("b")


def test_a_job_that_somebody_deletes_is_a_failure() -> None:
    world = begun()
    world.jobs.clear()
    world.step()
    assert (world.phase("b"), world.message("b")) == (BackupPhase.FAILED, "redis: its Job is gone")


def test_a_job_that_never_ends_is_given_up() -> None:
    world = begun(activeDeadlineSeconds=60)
    world.step(2 * (60 + 180) - 10)
    assert world.phase("b") is BackupPhase.RUNNING
    world.step(20)
    assert world.phase("b") is BackupPhase.FAILED
    assert "has not ended within 480 s" in world.message("b")
    world.step()
    assert not world.jobs


def test_a_pod_that_waits_is_told() -> None:
    world = begun()
    waiting = {"reason": "ErrImagePull", "message": "no such image"}
    world.pods["cos-redis-backup"]["status"] = {
        "initContainerStatuses": [{"name": "dump", "state": {"waiting": waiting}}],
        "containerStatuses": [{"name": "store", "state": {"waiting": {"reason": "PodInitializing"}}}],
    }
    world.step()
    assert world.message("b") == "redis: its pod waits: ErrImagePull: no such image"


def test_a_backup_that_is_deleted_takes_its_job_along() -> None:
    world = begun()
    world.backups.clear()
    world.step()
    assert not world.jobs


def test_a_namesake_is_another_backup() -> None:
    world = begun()
    world.end(report())
    world.create("b")
    world.step()
    assert world.phase("b") is BackupPhase.PENDING
    assert not world.jobs, "the Job was the earlier one's"
    world.step()
    assert world.jobs


def test_a_job_that_is_being_deleted_is_left_alone_and_waited_for() -> None:
    world = begun()
    world.jobs["cos-redis-backup"]["metadata"]["deletionTimestamp"] = timestamp(world.now)
    world.backups.clear()
    world.create("next")
    plan = world.step()
    assert plan.jobs == ()
    assert "waits until b has ended" in world.message("next")


def test_times_move_only_when_something_does() -> None:
    world = begun()
    before = world.status("b")
    assert world.step(30).statuses == {}
    assert world.status("b") == before
