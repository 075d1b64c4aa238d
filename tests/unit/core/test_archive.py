"""What becomes of a Postgres whose log is kept: when its pod is replaced, what it is told, and what the stack says."""

from __future__ import annotations

import dataclasses
from typing import Any

from world import World

from cos_controllers.components.postgres.dump import PUSH_FILE
from cos_controllers.k8s import Manifest
from cos_controllers.observation import Ref

CONFIG = Ref("ConfigMap", "cos-postgres-prod-config")
CLAIM = Ref("PersistentVolumeClaim", "cos-postgres-prod-data-0")
KEPT = Ref("PersistentVolumeClaim", "cos-postgres-prod-backup-main")
LOGIN = Ref("Secret", "cos-postgres-prod-backup")
REPOSITORIES: list[Manifest] = [{"name": "main", "volume": {"size": "1Gi"}}]


def spec(archive: Manifest | None = None, **instance: Any) -> Manifest:
    made = {"name": "prod", **({} if archive is None else {"archive": archive}), **instance}
    return {"postgres": [made], "backup": {"repositories": REPOSITORIES}}


def changed(world: World, wanted: Manifest) -> None:
    world.spec = wanted
    world.generation += 1
    world.converge()


def push(world: World) -> str:
    found: str = world.objects[CONFIG]["data"].get(PUSH_FILE, "")
    return found


def test_a_new_server_is_told_of_its_volume_once_that_is_there_and_is_not_replaced_for_it() -> None:
    world = World(spec({}))
    world.step()
    assert "export PGBACKREST_STANZA" not in push(world), "nobody has seen the volume yet"
    seen: set[str] = set()
    for _ in range(20):
        world.step()
        world.settle()
        seen |= set(world.pods().values())
    assert len(seen) == 1
    uid = world.objects[CLAIM]["metadata"]["uid"]
    assert f"export PGBACKREST_STANZA={uid}\n" in push(world)
    assert "claim=cos-postgres-prod-data-0\n" in push(world)


def test_to_keep_the_log_of_a_server_replaces_its_pod_once_and_to_stop_it_once_more() -> None:
    world = World(spec())
    world.converge()
    before = world.pods()
    assert not {LOGIN, KEPT} & set(world.objects), "there are no copies of it"
    changed(world, spec({}))
    during = world.pods()
    assert during != before
    assert {LOGIN, KEPT} <= set(world.objects)
    world.converge()
    assert world.pods() == during
    changed(world, spec())
    assert world.pods() not in (before, during)
    assert LOGIN not in world.objects
    assert KEPT in world.objects, "what was kept stays"
    assert not push(world)


def test_a_repository_of_other_engines_changes_nothing() -> None:
    world = World({"postgres": [{"name": "prod"}]})
    world.converge()
    before = world.pods()
    changed(world, spec())
    assert world.pods() == before


def test_without_spec_backup_a_server_that_is_to_keep_its_log_runs_without() -> None:
    """The API server refuses it; an older revision may ask for it all the same."""
    world = World(spec({}))
    world.converge()
    world.objects[CONFIG]["data"] = {}
    changed(world, {"postgres": [{"name": "prod"}]})
    assert world.condition("Ready")["status"] == "True"


def test_a_log_that_is_kept_back_is_told_before_all_else() -> None:
    world = World(spec({}))
    world.converge()
    assert world.condition("BackupHealthy")["reason"] == "NotBackedUp"
    world.examine()
    late = "its log has not reached its repository for 7 min: 9 files wait"
    known = world.facts["postgres-prod"]
    world.examine(**{"postgres-prod": dataclasses.replace(known, archive=late)})
    world.converge()
    found = world.condition("BackupHealthy")
    assert found["reason"] == "ArchivingFailed"
    assert found["message"].startswith(f"postgres-prod: {late}; ")
    assert world.condition("Ready")["status"] == "True", "it serves"


def test_what_a_pod_mounts_of_a_repository_replaces_it_once_and_what_it_does_not_never() -> None:
    def away(**s3: Any) -> Manifest:
        where = {"endpoint": "https://s3", "bucket": "bbb", "credentialsSecretRef": {"name": "s3"}, **s3}
        made = spec({})
        return made | {"backup": {"repositories": [{"name": "main", "s3": where}]}}

    world = World(away())
    world.converge()
    before = world.pods()
    changed(world, away(prefix="elsewhere"))
    assert world.pods() == before, "the script says so"
    assert "export PGBACKREST_REPO1_PATH=/elsewhere/cos/cos/postgres-prod\n" in push(world)
    for other in (away(credentialsSecretRef={"name": "other"}), spec({})):
        before = world.pods()
        changed(world, other)
        assert world.pods() != before
        pod = world.objects[Ref("Pod", "cos-postgres-prod-0")]
        (server,) = pod["spec"]["containers"]
        told = {item["name"]: item["value"] for item in server["env"]}
        assert f"mounted={told['MOUNTED']}\n" in push(world), "what waits for its turn pushes nothing"
