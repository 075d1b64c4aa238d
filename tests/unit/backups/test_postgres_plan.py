"""Copies of Postgres and the way back from them: where they are, what their Jobs are told, and to which moment."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from backup_world import S3, START, World, report
from test_retention import add
from test_search import copy, found

from cos_controllers.api.backup import BackupPhase
from cos_controllers.api.restore import RestorePhase
from cos_controllers.backups.job import FINDER, LOAD, TIDIER, told
from cos_controllers.backups.order import Fetch, Find, Order, Tidy, Tool
from cos_controllers.backups.report import Tidied
from cos_controllers.conditions import timestamp
from cos_controllers.k8s import Manifest

COMPONENT = "postgres-prod"
JOB = f"cos-{COMPONENT}-backup"
REPOSITORIES: list[Manifest] = [{"name": "main", "volume": {"size": "1Gi"}}, {"name": "away", "s3": S3}]


def world(archive: Manifest | None = None, **more: Any) -> World:
    """A stack of one server, the log of which is kept."""
    instance = {"name": "prod", "archive": {} if archive is None else archive}
    spec = {"postgres": [instance], "backup": {"repositories": REPOSITORIES}, **more}
    return World(spec=spec, component=COMPONENT)


def container(pod: Manifest, name: str) -> Manifest:
    return next(item for item in (*pod.get("initContainers", ()), *pod["containers"]) if item["name"] == name)


def test_a_copy_reads_the_volume_as_the_server_beside_it_and_logs_in_as_its_own_user() -> None:
    made = world()
    made.create("b")
    made.step()
    job = made.jobs[JOB]
    order = told(job, Order)
    assert order
    assert (order.tool, order.host, order.folder) == (
        Tool.PGBACKREST,
        f"cos-{COMPONENT}.cos.svc",
        "/pgdata/17/data",
    )
    assert order.repository == f"/repository/cos/cos/{COMPONENT}"
    pod = job["spec"]["template"]["spec"]
    assert not pod.get("initContainers"), "nothing is written on the way"
    (store,) = pod["containers"]
    assert store["securityContext"]["runAsUser"] == 999
    mounts = {item["name"]: item for item in store["volumeMounts"]}
    assert (mounts["source"]["mountPath"], mounts["source"]["readOnly"]) == ("/pgdata", True)
    assert mounts["login"]["mountPath"] == "/login"
    (source,) = [item for item in pod["volumes"] if item["name"] == "source"]
    assert source["persistentVolumeClaim"] == {"claimName": f"cos-{COMPONENT}-data-0", "readOnly": True}
    assert "podAffinity" in pod["affinity"]


@pytest.mark.parametrize(
    ("archive", "spec", "says"),
    [
        ({"repository": "away"}, {}, "kept where its log goes, in away, not in main: write that repository"),
        ({}, {"repository": "away"}, "kept where its log goes, in main, not in away: write that repository"),
        ({"repository": "away"}, {"repository": "away"}, ""),
    ],
)
def test_a_copy_can_only_be_where_the_log_goes(archive: Manifest, spec: Manifest, says: str) -> None:
    made = world(archive)
    made.create("b", **spec)
    made.step()
    assert says in made.message("b")
    assert (made.phase("b") is BackupPhase.FAILED) is bool(says)


def test_a_set_names_what_can_be_copied_without_it() -> None:
    made = world({"repository": "away"}, redis={})
    made.create("b")
    made.step()
    assert made.message("b").endswith("or name the components without it: redis")


def test_what_could_not_be_removed_is_removed_with_a_later_copy() -> None:
    keep = {"name": "nightly", "schedule": "0 3 29 2 *", "keep": {"last": 1}}
    made = world(backup={"repositories": REPOSITORIES, "schedules": [keep]})
    for number in range(3):
        add(made, f"d{number}", START + timedelta(days=number))
        made.backups[f"d{number}"]["status"]["components"][0] |= {
            "name": COMPONENT,
            "path": f"cos/cos/{COMPONENT}",
        }
    made.now = START + timedelta(days=4)
    made.step()
    expired = [name for name in made.backups if made.phase(name) is BackupPhase.EXPIRED]
    assert expired == ["d0", "d1"]
    made.create("b")
    made.step()
    order = told(made.jobs[JOB], Tidy)
    assert order
    assert order.tool is Tool.PGBACKREST
    first, second = order.remove
    made.end(report(made.now), name=JOB)
    made.end(Tidied(checked=False, removed=(second,)).model_dump_json(), container=TIDIER, name=JOB)
    for _ in range(3):
        made.step()
    assert made.row("b", COMPONENT).removed == 1
    assert "d0" in made.backups, "others are built upon it"
    assert "d1" not in made.backups
    made.create("c")
    made.step()
    order = told(made.jobs[JOB], Tidy)
    assert order
    assert order.remove == (first,)
    assert second != first


def with_backup(**more: Any) -> World:
    made = world(**more)
    made.create("b", components=[COMPONENT])
    for _ in range(2):
        made.step()
    made.end(report(made.now), name=JOB)
    for _ in range(4):
        made.step()
    assert made.phase("b") is BackupPhase.SUCCEEDED
    return made


def filling(**spec: Any) -> World:
    made = with_backup()
    made.now += timedelta(hours=1)
    made.restore("r", existingData="SetAside", **spec)
    for _ in range(4):
        made.step()
    return made


@pytest.mark.parametrize(
    ("until", "target"),
    [("", ""), ("Latest", "Latest"), ("2026-01-01T00:30:00Z", "2026-01-01 00:30:00.000000+00")],
)
def test_the_volume_is_fetched_to_and_then_brought_to_the_moment(until: str, target: str) -> None:
    made = filling(pointInTime=until)
    job = made.jobs[JOB]
    order = told(job, Fetch)
    assert order
    assert (order.tool, order.folder, order.lineage) == (
        Tool.PGBACKREST,
        "/target/17/data",
        made.row("b", COMPONENT).lineage,
    )
    pod = job["spec"]["template"]["spec"]
    fetch, load = container(pod, "fetch"), container(pod, LOAD)
    assert "target" in {item["name"] for item in fetch["volumeMounts"]}
    assert {"key", "repository", "target"} <= {item["name"] for item in load["volumeMounts"]}, "for the log"
    variables = {item["name"]: item.get("value", "") for item in load["env"]}
    assert variables["UNTIL"] == target
    moment = START + timedelta(minutes=20)
    answer = json.dumps({"entries": 9, "moment": int(moment.timestamp())})
    made.end(answer, container=LOAD, name=JOB)
    made.step()
    (row,) = made.restored().components
    reached = timestamp(moment) if until else made.row("b", COMPONENT).point_in_time
    assert (row.entries, row.point_in_time) == (9, reached)


@pytest.mark.parametrize(
    ("until", "says"),
    [
        ("2025-12-31T23:00:00Z", "before the end of the copy of postgres-prod"),
        ("2026-01-02T00:00:00Z", "is later than the restore itself"),
    ],
)
def test_a_moment_that_the_copy_does_not_lead_to_is_told_at_once(until: str, says: str) -> None:
    made = filling(pointInTime=until)
    assert made.restored().phase is RestorePhase.FAILED
    assert says in made.restored().message
    assert not made.jobs


def test_what_has_no_log_cannot_be_brought_to_a_moment() -> None:
    made = with_backup(redis={})
    made.restore("r", source={}, existingData="SetAside", pointInTime="Latest")
    made.step()
    assert made.restored().phase is RestorePhase.FAILED
    assert (
        "no log is kept of redis: name in components those that have one (postgres-prod)"
        in made.restored().message
    )


@pytest.mark.parametrize(
    ("until", "before"),
    [("", START), ("Latest", START), ("2025-12-31T12:00:00Z", START - timedelta(hours=12))],
)
def test_a_search_looks_for_a_copy_from_before_the_moment(until: str, before: Any) -> None:
    made = world()
    made.restore("r", source={}, existingData="SetAside", pointInTime=until)
    for _ in range(2):
        made.step()
    order = told(made.jobs[JOB], Find)
    assert order
    assert (order.tool, order.before) == (Tool.PGBACKREST, int(before.timestamp()))
    made.end(found(copy()), container=FINDER, name=JOB)
    for _ in range(4):
        made.step()
    order = told(made.jobs[JOB], Fetch)
    assert order
    assert order.lineage == "lost", "the stanza is that of the copy, not of the volume in use"


def test_without_an_archive_there_is_nothing_to_copy_or_to_restore() -> None:
    made = World(
        spec={"postgres": [{"name": "prod"}], "backup": {"repositories": REPOSITORIES}}, component=COMPONENT
    )
    made.create("b")
    made.step()
    assert "postgres-prod: its log is kept nowhere else: write archive: {}" in made.message("b")


def test_one_instance_takes_the_data_of_another() -> None:
    made = world({"repository": "away"})
    source = {"repository": "away", "component": "postgres-live"}
    made.restore("r", source=source, components=[COMPONENT], existingData="SetAside", pointInTime="Latest")
    for _ in range(2):
        made.step()
    order = told(made.jobs[JOB], Find)
    assert order
    assert order.repository == "s3:https://s3.example.com:9000/backups/cos/prod/cos/cos/postgres-live"
    made.end(found(copy()), container=FINDER, name=JOB)
    for _ in range(4):
        made.step()
    order = told(made.jobs[JOB], Fetch)
    assert order
    assert order.repository.endswith("/cos/cos/postgres-live")
    (row,) = made.restored().components
    assert row.claim == f"cos-{COMPONENT}-data-1"


def test_what_is_to_be_asked_of_the_restored_server_goes_to_the_one_that_it_is_for() -> None:
    asked = {"run": "UPDATE t SET name = '$(HOSTNAME)'", "check": "SELECT true"}
    for component, runs in (("", True), (COMPONENT, True)):
        made = filling(sql={**asked, "component": component})
        load = container(made.jobs[JOB]["spec"]["template"]["spec"], LOAD)
        variables = {item["name"]: item.get("value", "") for item in load["env"]}
        assert (variables["RUN"] == "UPDATE t SET name = '$$(HOSTNAME)'") is runs, (
            "nothing is put in its place"
        )
        assert variables["CHECK"] == "SELECT true"
    made = filling(sql={**asked, "component": "postgres-dev"})
    assert made.restored().message == "spec.sql: postgres-dev is not among what is restored"


def test_without_a_postgres_nobody_can_be_asked() -> None:
    made = with_backup(redis={})
    made.restore("r", source={}, components=["redis"], into="Throwaway", sql={"check": "SELECT true"})
    made.step()
    assert made.restored().message == "spec.sql: no Postgres is among what is restored"
