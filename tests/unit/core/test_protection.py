"""What a stack with `spec.backup` has of its own: a user for backups, a key, volumes, and the condition that tells."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from world import World

from cos_controllers.api.backup import StackBackup
from cos_controllers.api.restore import StackRestore
from cos_controllers.components.registry import DUMPERS, ENGINES
from cos_controllers.conditions import turned
from cos_controllers.k8s import Manifest
from cos_controllers.names import ANNOTATION_ESCROWED
from cos_controllers.observation import Ref
from cos_operator.engines.registry import BACKUP_CLIENTS

KEY = Ref("Secret", "cos-backup-key")
LOGIN = Ref("Secret", "cos-redis-backup")
POD = Ref("Pod", "cos-redis-0")
CLAIM = Ref("PersistentVolumeClaim", "cos-redis-backup-main")
BACKUP: Manifest = {"repositories": [{"name": "main", "volume": {"size": "1Gi"}}]}
SPEC: Manifest = {"redis": {}, "backup": BACKUP}


def protected(spec: Manifest | None = None) -> World:
    world = World(spec or SPEC)
    world.converge()
    assert world.condition("Ready")["status"] == "True", world.status
    return world


def text(world: World, ref: Ref, key: str) -> str:
    return base64.b64decode(world.objects[ref]["data"][key]).decode()


def lineage(world: World) -> str:
    found: str = world.objects[Ref("PersistentVolumeClaim", "cos-redis-data-0")]["metadata"]["uid"]
    return found


def copied(world: World, phase: str = "Succeeded", minute: int = 0, **row: Any) -> StackBackup:
    at = f"2026-01-01T00:{minute:02}:00Z"
    place = world.objects[CLAIM]["metadata"]["uid"] if CLAIM in world.objects else ""
    made = {"name": "redis", "phase": phase, "lineage": lineage(world), "place": place, "completionTime": at}
    return StackBackup.model_validate(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackBackup",
            "metadata": {"name": f"b{minute}", "namespace": "cos", "uid": "u", "creationTimestamp": at},
            "spec": {"stackRef": {"name": "cos"}},
            "status": {"components": [{**made, "pointInTime": at, **row}]},
        }
    )


def escrow(world: World) -> None:
    """As the message says it."""
    world.converge()
    message = world.condition("BackupHealthy")["message"]
    mark = message.partition(f"{ANNOTATION_ESCROWED}=")[2].partition(" ")[0]
    world.objects[KEY]["metadata"]["annotations"] = {ANNOTATION_ESCROWED: mark}


def verdict(world: World) -> tuple[str, str, str]:
    world.converge()
    found = world.condition("BackupHealthy")
    return found["status"], found["reason"], found["message"]


def test_without_spec_backup_there_is_nothing_of_it() -> None:
    world = World({"redis": {}})
    world.converge()
    assert not {KEY, LOGIN, CLAIM} & set(world.objects)
    assert "cos-backup" not in text(world, Ref("Secret", "cos-redis-files"), "users.acl")
    assert not [item for item in world.status["conditions"] if item["type"] == "BackupHealthy"]


def test_a_running_stack_gets_it_without_a_restart_and_loses_what_is_no_data() -> None:
    world = World({"redis": {}})
    world.converge()
    pods = world.pods()
    world.spec = SPEC
    world.generation += 1
    world.converge()
    assert world.pods() == pods
    assert "user cos-backup on #" in text(world, Ref("Secret", "cos-redis-files"), "users.acl")
    assert "resetchannels -@all +sync +replconf" in text(world, Ref("Secret", "cos-redis-files"), "users.acl")
    assert text(world, LOGIN, "username") == "cos-backup"
    assert world.objects[CLAIM]["spec"]["resources"]["requests"]["storage"] == "1Gi"
    world.spec = {"redis": {}}
    world.generation += 1
    world.converge()
    assert world.pods() == pods
    assert LOGIN not in world.objects
    assert {KEY, CLAIM} <= set(world.objects), "what is kept needs its key"


def test_a_running_elasticsearch_gets_its_backup_user_without_a_restart() -> None:
    world = World({"elasticsearch": {}})
    world.converge()
    pods, files = world.pods(), Ref("Secret", "cos-elasticsearch-files")
    assert "cos-backup" not in text(world, files, "users") + text(world, files, "users_roles")
    world.spec = {"elasticsearch": {}, "backup": BACKUP}
    world.generation += 1
    world.converge()
    assert world.pods() == pods
    assert "cos-backup:{PBKDF2}" in text(world, files, "users")
    assert "cos_backup:cos-backup\n" in text(world, files, "users_roles")


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_what_is_kept_and_its_key_go_with_no_stack(policy: str) -> None:
    world = protected(SPEC | {"deletionPolicy": policy})
    for ref in (KEY, CLAIM):
        assert not world.objects[ref]["metadata"].get("ownerReferences")


def test_the_key_that_is_there_stays_whatever_the_seed() -> None:
    world = protected(SPEC | {"deletionPolicy": "Delete"})
    key = text(world, KEY, "key")
    assert len(key) == 40
    world.uid = "another-stack"
    for ref, obj in list(world.objects.items()):
        if obj["metadata"].get("ownerReferences"):
            del world.objects[ref]
    assert Ref("Secret", "cos-seed") not in world.objects
    world.converge()
    assert text(world, KEY, "key") == key
    del world.objects[KEY]
    world.converge()
    assert text(world, KEY, "key") != key, "it derives from the seed, which is another one"


def test_a_lost_key_comes_back_as_it_was() -> None:
    world = protected()
    key = text(world, KEY, "key")
    del world.objects[KEY]
    world.converge()
    assert text(world, KEY, "key") == key


def test_a_foreign_secret_of_its_name_is_not_touched() -> None:
    world = World(SPEC)
    foreign: Manifest = {"metadata": {"name": KEY.name, "uid": "theirs"}, "data": {"key": "eA=="}}
    world.objects[KEY] = {"apiVersion": "v1", "kind": "Secret", **foreign}
    world.converge()
    assert text(world, KEY, "key") == "x"
    assert world.condition("Ready")["status"] == "True"


def test_a_volume_of_backups_grows_and_does_not_shrink() -> None:
    world = protected()

    def write(size: str) -> None:
        world.spec = SPEC | {"backup": {"repositories": [{"name": "main", "volume": {"size": size}}]}}
        world.generation += 1
        world.converge()

    write("2Gi")
    assert world.objects[CLAIM]["spec"]["resources"]["requests"]["storage"] == "2Gi"
    write("1Gi")
    assert world.objects[CLAIM]["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert world.row("redis")["reason"] == "ShrinkRefused"
    assert (
        "backup.repositories[main].volume.size 1Gi is below the volume's 2Gi" in world.row("redis")["message"]
    )


def test_a_key_of_the_users_own_needs_none_that_is_generated() -> None:
    own = {"name": "main", "volume": {"size": "1Gi"}, "encryptionKeySecretRef": {"name": "mine"}}
    world = protected({"redis": {}, "backup": {"repositories": [own]}})
    assert KEY not in world.objects
    world.backups = [copied(world)]
    assert verdict(world) == ("True", "BackedUp", "")


def test_the_data_is_safe_once_it_is_copied_and_the_key_is_kept_elsewhere() -> None:
    world = protected()
    status, reason, message = verdict(world)
    assert (status, reason) == ("False", "NotBackedUp")
    assert "redis: its volume has no good copy here" in message
    assert "kubectl annotate secret -n cos cos-backup-key cos.dev/escrowed=" in message
    world.backups = [copied(world)]
    assert verdict(world)[:2] == ("False", "KeyNotEscrowed")
    escrow(world)
    assert verdict(world) == ("True", "BackedUp", "")
    assert world.objects[KEY]["metadata"]["annotations"], "what the user said is not taken back"


def test_another_key_must_be_kept_elsewhere_too() -> None:
    world = protected()
    world.backups = [copied(world)]
    escrow(world)
    assert verdict(world)[0] == "True"
    world.objects[KEY]["data"]["key"] = base64.b64encode(b"\xff a key of bytes that is no text").decode()
    assert verdict(world)[1] == "KeyNotEscrowed"
    assert text_of_bytes(world) == b"\xff a key of bytes that is no text", (
        "it is not written over, whatever it is"
    )


def text_of_bytes(world: World) -> bytes:
    return base64.b64decode(world.objects[KEY]["data"]["key"])


def test_a_repository_that_is_lost_or_exchanged_holds_no_copy() -> None:
    world = protected()
    world.backups = [copied(world)]
    escrow(world)
    assert verdict(world)[0] == "True"
    del world.objects[CLAIM]
    assert verdict(world)[1] == "NotBackedUp", "the one that is made anew is empty"
    s3 = {"endpoint": "https://s3", "bucket": "abc", "credentialsSecretRef": {"name": "s3"}}
    world.spec = {"redis": {}, "backup": {"repositories": [{"name": "main", "s3": s3}]}}
    world.generation += 1
    world.backups = [copied(world, place="https://s3/abd"), copied(world, place="https://s3/abc/x")]
    assert verdict(world)[1] == "NotBackedUp"
    world.backups.append(copied(world, place="https://s3/abc"))
    assert verdict(world)[0] == "True"


def test_what_is_backed_up_is_told_in_one_place() -> None:
    by_account = {engine.kind for engine in ENGINES if engine.accounts and engine.accounts.backup}
    asked = {kind for kind, dumper in DUMPERS.items() if not dumper.offline}
    assert by_account == asked == set(BACKUP_CLIENTS)


def test_redis_starts_without_the_volume_of_its_backups() -> None:
    world = World(SPEC)
    world.refused = {CLAIM}
    for _ in range(4):
        world.step()
        world.settle()
    assert POD in world.objects, "nothing of it is mounted there"
    assert world.row("redis")["reason"] == "ApplyRefused"


def test_a_removed_component_does_not_advise_to_delete_its_backups() -> None:
    world = protected(SPEC | {"traefik": {}})
    world.spec = {"traefik": {}}
    world.generation += 1
    world.converge()
    assert CLAIM in world.objects
    assert world.status["retained"] == [{"component": "redis", "claim": "cos-redis-data-0"}]


def test_a_copy_of_another_volume_is_none_of_this_one() -> None:
    world = protected()
    escrow(world)
    world.backups = [copied(world, lineage="a-volume-before-it")]
    assert verdict(world)[1] == "NotBackedUp"


def test_a_failure_is_told_until_a_newer_copy_is_good() -> None:
    world = protected()
    escrow(world)
    world.backups = [copied(world, minute=1), copied(world, "Failed", minute=2, message="wrong key")]
    assert verdict(world) == ("False", "BackupFailed", "redis: the newest copy failed: wrong key")
    world.backups.append(copied(world, minute=3))
    assert verdict(world)[0] == "True"


def test_an_engine_without_backups_is_not_called_safe() -> None:
    world = protected(SPEC | {"postgres": [{"name": "prod"}]})
    escrow(world)
    world.backups = [copied(world)]
    told = "postgres-prod: its log is kept nowhere else: write archive: {} (its image needs pgBackRest)"
    assert verdict(world) == ("False", "NotBackedUp", told)


def test_a_proxy_has_nothing_to_lose() -> None:
    world = protected(SPEC | {"traefik": {}})
    escrow(world)
    world.backups = [copied(world)]
    assert verdict(world)[0] == "True"


def test_silence_is_unknown() -> None:
    world = protected()
    world.backups = None
    assert verdict(world)[:2] == ("Unknown", "BackupUnknown")


def test_readiness_does_not_wait_for_backups_and_a_person_hears_of_them() -> None:
    world = World(SPEC)
    world.converge()
    assert world.condition("Ready")["status"] == "True"
    fresh = World(SPEC)
    told = [notice.reason for notice in turned(fresh.stack, world.decide().status)]
    assert "NotBackedUp" in told


def scheduled(world: World) -> None:
    nightly = {"name": "nightly", "schedule": "0 * * * *", "keep": {"last": 3}}
    world.spec = SPEC | {"backup": BACKUP | {"schedules": [nightly]}}
    world.generation += 1
    world.converge()


def of_schedule(backup: StackBackup, phase: str = "Succeeded") -> StackBackup:
    raw = backup.model_dump(by_alias=True, mode="json", exclude_none=True)
    raw["metadata"]["labels"] = {"cos.dev/backup-schedule": "nightly"}
    raw["status"]["phase"] = phase
    return StackBackup.model_validate(raw)


def test_copies_that_do_not_come_in_time_are_late() -> None:
    world = protected()
    scheduled(world)
    escrow(world)
    world.backups = [of_schedule(copied(world))]
    assert verdict(world)[1] == "BackedUp"
    # The second one after it was due two hours after it, and had three to succeed.
    world.now += timedelta(hours=5)
    assert verdict(world)[1] == "BackupLate"
    assert "schedule nightly: no backup of it has succeeded since 2026-01-01T00:00:00Z" in verdict(world)[2]


def test_a_copy_that_is_kept_no_longer_counts_no_more() -> None:
    world = protected()
    escrow(world)
    world.backups = [of_schedule(copied(world), "Expired")]
    assert verdict(world)[1] == "NotBackedUp"


def test_a_repository_that_is_not_whole_is_told_until_it_is() -> None:
    world = protected()
    escrow(world)
    world.backups = [copied(world, snapshot="id", maintenanceFailure="repository contains errors")]
    assert verdict(world)[:2] == ("False", "RepositoryUnsound")
    assert "redis: its copies could not be looked after: repository contains errors" in verdict(world)[2]
    world.backups = [*world.backups, copied(world, minute=5, snapshot="id2")]
    assert verdict(world)[1] == "BackedUp"


def verified_by(world: World, phase: str, message: str = "") -> StackRestore:
    at = "2026-01-01T00:00:00Z"
    metadata = {"name": "v", "namespace": "cos", "uid": "v", "creationTimestamp": at}
    return StackRestore.model_validate(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackRestore",
            "metadata": metadata | {"labels": {"cos.dev/backup-schedule": "Verification"}},
            "spec": {"stackRef": {"name": world.stack.metadata.name}, "source": {}, "into": "Throwaway"},
            "status": {"phase": phase, "message": message, "completionTime": at},
        }
    )


def test_copies_that_could_not_be_restored_are_told() -> None:
    world = protected(SPEC | {"backup": BACKUP | {"verification": {"schedule": "0 5 * * 6"}}})
    escrow(world)
    world.backups = [copied(world)]
    world.restores = [verified_by(world, "Failed", "redis: there are 2 keys, and 3 in the copy")]
    assert verdict(world)[:2] == ("False", "VerificationFailed")
    assert "v has failed: redis: there are 2 keys" in verdict(world)[2]
    world.restores = [verified_by(world, "Succeeded")]
    assert verdict(world)[1] == "BackedUp"
    world.now += timedelta(days=21)
    assert verdict(world)[1] == "BackupLate"
    assert "verification: no copy was proved since" in verdict(world)[2]
    world.restores = None
    assert verdict(world)[:2] == ("Unknown", "BackupUnknown")
