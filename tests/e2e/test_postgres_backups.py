"""Postgres with real archives, in a bucket over TLS and in a volume: copies under writes, and the way to any moment."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import backup_scene
import pytest
from backup_scene import ACCESS, KEY, LIMIT, SECRET, Bucket, s3
from harness import REGISTRY, Cluster, wait_for

PROD, DEV = "postgres-prod", "postgres-dev"
#: Of its own: that of the other tests of backups need not be gone before.
SPACE = "e2e-postgres-backups"
create = partial(backup_scene.create, space=SPACE)
restore = partial(backup_scene.restore, space=SPACE)
ended = partial(backup_scene.ended, space=SPACE)
status = partial(backup_scene.status, space=SPACE)
secret = partial(backup_scene.secret, space=SPACE)
secret_value = partial(backup_scene.secret_value, space=SPACE)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


def stack(bucket: Bucket) -> dict[str, Any]:
    where = {"endpoint": bucket.endpoint, "bucket": "logs", "credentialsSecretRef": {"name": "s3"}}
    repositories = [
        {"name": "main", "volume": {"size": "1Gi"}},
        {"name": "away", "s3": where, "encryptionKeySecretRef": {"name": "mine"}},
    ]
    prod = {"name": "prod", "archive": {"repository": "away", "timeoutSeconds": 10}}
    # By it the test knows of each row when it was committed.
    prod["parameters"] = {"track_commit_timestamp": "on"}
    spec = {"postgres": [prod, {"name": "dev", "archive": {}}], "images": {"registry": REGISTRY}}
    metadata = {"name": "cos", "namespace": SPACE}
    made = {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "metadata": metadata}
    return made | {"spec": spec | {"backup": {"repositories": repositories}}}


@pytest.fixture(scope="module")
def kept(operator: Cluster, bucket: Bucket) -> Iterator[Cluster]:
    """A stack of two servers with data."""
    operator.fresh_namespace(SPACE)
    (bucket.folder / "logs").mkdir()
    values = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "ca.crt": bucket.authority}
    operator.apply(secret("s3", **values), secret("mine", key=KEY), stack(bucket))
    operator.wait_ready("cos", SPACE)
    for component in (PROD, DEV):
        sql(
            operator,
            "CREATE TABLE t AS SELECT g AS i, md5(g::text) AS text FROM generate_series(1, 300000) g",
            component,
        )
    yield operator
    operator.delete_namespace(SPACE)


def command(component: str, *options: str) -> tuple[str, ...]:
    inside = ("exec", "-i", f"cos-{component}-0", "-c", "postgres", "-n", SPACE, "--")
    # Debian's own is in Perl, and slow.
    shell = "PATH=/usr/lib/postgresql/17/bin:$PATH exec psql -h /var/run/postgresql -U postgres -d app -XAtq "
    return (*inside, "bash", "-c", shell + '-v ON_ERROR_STOP=1 "$@"', "psql", *options)


def sql(cluster: Cluster, statement: str, component: str = PROD) -> str:
    return cluster.run(*command(component, "-c", statement)).stdout.strip()


@contextmanager
def writer(cluster: Cluster) -> Iterator[None]:
    """One row a transaction, as fast as one connection can."""
    sql(cluster, "CREATE TABLE IF NOT EXISTS written (n bigserial)")
    call = [cluster.kubectl_path, "--kubeconfig", cluster.kubeconfig, *command(PROD)]
    process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stdin
    try:
        process.stdin.write(b"INSERT INTO written DEFAULT VALUES \\watch i=0.002\n")
        process.stdin.flush()
        wait_for("it writes", lambda: int(sql(cluster, "SELECT count(*) FROM written")) > 100, 20)
        yield
        assert process.poll() is None, "it wrote all the time"
    finally:
        process.kill()
        process.wait()


def committed(cluster: Cluster, until: str) -> str:
    """How many rows were committed until a moment, and the last of them."""
    told = "SELECT count(*) || ' ' || max(n) FROM written WHERE pg_xact_commit_timestamp(xmin)"
    return sql(cluster, f"{told} <= '{until}'")


def all_sent(cluster: Cluster) -> None:
    """Everything that was written until now is in the repository."""
    segment = sql(cluster, "SELECT pg_walfile_name(pg_switch_wal())")

    def sent() -> bool:
        last = sql(cluster, "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver")
        return last >= segment

    wait_for("the log has arrived", sent, 30)


def test_a_moment_comes_back_with_exactly_what_was_committed_until_then(kept: Cluster) -> None:
    create(kept, "both")
    refused = ended(kept, "both", 20)
    assert "copies of postgres-prod are kept where its log goes, in away, not in main" in refused["message"]
    with writer(kept):
        create(kept, "first", components=[PROD], repository="away")
        first = ended(kept, "first")
        assert first["phase"] == "Succeeded", first
        time.sleep(2)  # so that there is something to replay
        moment = sql(
            kept, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
        )
        wait_for("it goes on", lambda: int(committed(kept, "infinity").split()[0]) > 500, 20)
        time.sleep(1)
    (copied,) = first["components"]
    assert copied["bytes"] > 30_000_000
    expected, all_of_it = committed(kept, moment), committed(kept, "infinity")
    assert 0 < int(expected.split()[0]) < int(all_of_it.split()[0])
    all_sent(kept)
    restore(kept, "moment", backup="first", pointInTime=moment, existingData="SetAside")
    back = ended(kept, "moment", 2 * LIMIT, kind="stackrestore")
    assert back["phase"] == "Succeeded", back
    (row,) = back["components"]
    assert (row["claim"], row["previousClaim"]) == tuple(f"cos-{PROD}-data-{n}" for n in (1, 0))
    assert row["entries"] > copied["entries"]
    assert row["pointInTime"][:16] <= moment[:16]
    assert sql(kept, "SELECT count(*) || ' ' || max(n) FROM written") == expected
    assert sql(kept, "SELECT count(*) FROM t WHERE text = md5(i::text)") == "300000"
    kept.wait_ready("cos", SPACE)


def test_a_volume_that_was_restored_keeps_its_log_apart_from_the_one_before(
    kept: Cluster, bucket: Bucket
) -> None:
    create(kept, "after", components=[PROD], repository="away")
    after = ended(kept, "after")
    assert after["phase"] == "Succeeded", after
    lineages = [status(kept, name)["components"][0]["lineage"] for name in ("first", "after")]
    stanzas = {path.name for path in bucket.folder.glob(f"logs/{SPACE}/cos/{PROD}/archive/*")}
    assert stanzas == set(lineages)
    assert lineages[0] != lineages[1]
    # What has not changed is not stored again.
    create(kept, "again", components=[PROD], repository="away")
    again = ended(kept, "again")["components"][0]
    assert again["snapshot"].endswith("D")
    assert again["storedBytes"] <= 0.1 * after["components"][0]["storedBytes"]
    # Everything until now, by the repository alone.
    sql(kept, "INSERT INTO written VALUES (-1)")
    all_sent(kept)
    restore(
        kept,
        "latest",
        source={"repository": "away"},
        components=[PROD],
        pointInTime="Latest",
        into="Throwaway",
    )
    proof = ended(kept, "latest", kind="stackrestore")
    assert proof["phase"] == "Succeeded", proof
    assert proof["components"][0]["source"]["snapshot"] == again["snapshot"]
    assert proof["components"][0]["entries"] > again["entries"]


def test_a_moment_that_the_log_does_not_reach_is_no_restore(kept: Cluster) -> None:
    soon = sql(kept, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
    restore(kept, "late", backup="again", pointInTime=soon, into="Throwaway")
    found = ended(kept, "late", kind="stackrestore")
    assert found["phase"] == "Failed"
    assert "recovery ended before configured recovery target was reached" in found["message"]


def test_dev_is_refreshed_with_what_prod_has_now(kept: Cluster) -> None:
    sql(kept, "CREATE TABLE fresh AS SELECT 42 AS n; ALTER TABLE fresh OWNER TO app")
    all_sent(kept)
    source = {"repository": "away", "component": PROD}
    hook = {"run": "UPDATE fresh SET n = n + 1", "check": "SELECT n = 43 FROM fresh"}
    restore(
        kept,
        "refresh",
        source=source,
        components=[DEV],
        pointInTime="Latest",
        existingData="SetAside",
        sql=hook,
    )
    found = ended(kept, "refresh", kind="stackrestore")
    assert found["phase"] == "Succeeded", found
    assert sql(kept, "SELECT n FROM fresh", DEV) == "43"
    # With its own login, as before.
    inside = ("exec", "cos-postgres-prod-0", "-c", "postgres", "-n", SPACE, "--")
    uri = secret_value(kept, f"cos-{DEV}-app", "uri")
    assert kept.run(*inside, "psql", uri, "-XAtc", "SELECT n FROM fresh").stdout.strip() == "43"
    assert sql(kept, "SELECT n FROM fresh", PROD) == "42", "which is only read"


def test_a_volume_keeps_copies_and_log_as_well(kept: Cluster) -> None:
    create(kept, "near", components=[DEV])
    near = ended(kept, "near")
    assert near["phase"] == "Succeeded", near
    wrong = {"check": "SELECT count(*) = 0 FROM pg_tables WHERE tablename = 't'"}
    restore(kept, "near-proof", source={}, components=[DEV], into="Throwaway", sql=wrong)
    proof = ended(kept, "near-proof", kind="stackrestore")
    assert proof["phase"] == "Failed", proof
    assert "the check says f, not t (sql.check)" in proof["message"], (
        "all is there, and the user's word counts"
    )
    assert proof["components"][0]["source"]["snapshot"] == near["components"][0]["snapshot"]
