"""Copies of real engines under writes: in a volume and in a bucket over TLS, read back by the tools or restored."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from backup_scene import (
    ACCESS,
    KEY,
    LIMIT,
    SECRET,
    SPACE,
    Bucket,
    create,
    ended,
    restore,
    s3,
    secret,
    secret_value,
    status,
)
from harness import REGISTRY, Cluster, wait_for

from conftest import OPERATOR_NAMESPACE
from cos_testbed.images import BY_NAME

#: Another stack, of every engine of which there are backups.
WHOLE = "whole"
KEYS = 20_000
HARDENED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


def stack(bucket: Bucket, **backup: Any) -> dict[str, Any]:
    """A stack of Redis with a repository of volumes and one in a bucket."""
    where = {"endpoint": bucket.endpoint, "bucket": "backups", "credentialsSecretRef": {"name": "s3"}}
    repositories = [
        {"name": "main", "volume": {"size": "1Gi"}},
        {"name": "away", "s3": where, "encryptionKeySecretRef": {"name": "mine"}},
    ]
    spec = {"redis": {}, "images": {"registry": REGISTRY}, "backup": {"repositories": repositories, **backup}}
    metadata = {"name": "cos", "namespace": SPACE}
    return {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "metadata": metadata, "spec": spec}


def whole(bucket: Bucket) -> dict[str, Any]:
    """The other stack."""
    made = stack(bucket)
    engines: dict[str, Any] = {"redis": {}, "elasticsearch": {}, "neo4j": {}}
    engines["postgres"] = [{"name": "prod", "archive": {"repository": "away"}}]
    return made | {"metadata": {"name": WHOLE, "namespace": SPACE}, "spec": made["spec"] | engines}


@pytest.fixture(scope="module")
def kept(operator: Cluster, bucket: Bucket) -> Iterator[Cluster]:
    """A stack with data."""
    operator.fresh_namespace(SPACE)
    operator.apply(secret("s3", AWS_ACCESS_KEY_ID=ACCESS, AWS_SECRET_ACCESS_KEY=SECRET))
    operator.apply(secret("mine", key=KEY))
    operator.apply(stack(bucket))
    # It starts while the first one is tried.
    operator.apply(whole(bucket))
    operator.wait_ready("cos", SPACE)
    # Some 40 MB that neither Redis nor restic can make smaller by much.
    long = "local v=redis.sha1hex(i) for j=1,49 do v=v..redis.sha1hex(i..':'..j) end"
    for first in range(1, KEYS, 1000):
        fill = f"for i={first},{first + 999} do {long} redis.call('set','k'..i,v) end"
        redis(operator, "eval", fill, "0")
    yield operator
    operator.delete_namespace(SPACE)


def redis(cluster: Cluster, *command: str, stack: str = "cos") -> str:
    """A command of the application's, in the server's own pod."""
    password = secret_value(cluster, f"{stack}-redis-app", "password")
    shell = ("exec", f"{stack}-redis-0", "-n", SPACE, "--", "env", f"REDISCLI_AUTH={password}", "redis-cli")
    return cluster.run(*shell, *command).stdout.strip()


def healthy(cluster: Cluster) -> dict[str, Any]:
    """What the stack says of its backups."""
    return cluster.condition("cos", SPACE, "BackupHealthy") or {"reason": "", "message": ""}


def bash(cluster: Cluster, command: str) -> str:
    """What a person's command line says."""
    environment = {
        "KUBECONFIG": cluster.kubeconfig,
        # kubectl keeps a cache there; without one, in the folder in which the tests were called.
        "HOME": str(Path(cluster.kubeconfig).parent),
        "PATH": f"{Path(cluster.kubectl_path).parent}:/usr/bin:/bin",
    }
    done = subprocess.run(
        ["/bin/bash", "-c", command], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


@contextmanager
def writer(cluster: Cluster) -> Iterator[None]:
    """Two counters that are raised together, as fast as one connection can."""
    password = secret_value(cluster, "cos-redis-app", "password")
    command = [
        cluster.kubectl_path,
        "--kubeconfig",
        cluster.kubeconfig,
        "exec",
        "cos-redis-0",
        "-n",
        SPACE,
        "--",
    ]
    command += ["env", f"REDISCLI_AUTH={password}", "redis-cli", "-r", "10000000"]
    command += ["eval", "redis.call('incr','a') redis.call('incr','b')", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("it writes", lambda: int(redis(cluster, "get", "a") or 0) > 100, 20)
        yield
        assert process.poll() is None, "it wrote all the time"
    finally:
        process.kill()
        process.wait()


def restored(cluster: Cluster, row: dict[str, Any], script: str) -> str:
    """What a script of redis-cli says of a copy in the volume that restic alone has read back."""
    images = [BY_NAME[name].reference for name in ("cos-operator", "redis")]
    volumes = [
        {"name": "repository", "persistentVolumeClaim": {"claimName": "cos-redis-backup-main"}},
        {"name": "key", "secret": {"secretName": "cos-backup-key"}},  # pragma: allowlist secret
        {"name": "data", "emptyDir": {}},
    ]
    mounts = [
        {"name": "repository", "mountPath": "/repository", "readOnly": True},
        {"name": "key", "mountPath": "/key", "readOnly": True},
        {"name": "data", "mountPath": "/data"},
    ]
    fetch = {
        "name": "fetch",
        "image": images[0],
        "command": ["restic", "--no-cache", "--no-lock", "restore", row["snapshot"], "--target", "/data"],
        "env": [
            {"name": "RESTIC_REPOSITORY", "value": f"/repository/{row['path']}"},
            {"name": "RESTIC_PASSWORD_FILE", "value": "/key/key"},
        ],
        "volumeMounts": mounts,
        "securityContext": HARDENED,
    }
    serve = ["redis-server", "--dir", "/data/work/data", "--dbfilename", "redis.rdb"]
    serve += ["--save", "", "--bind", "127.0.0.1"]
    server = {"name": "redis", "image": images[1], "command": serve}
    server |= {"volumeMounts": mounts[2:], "securityContext": HARDENED}
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [fetch],
        "containers": [server],
        "volumes": volumes,
    }
    metadata = {"name": "restored", "namespace": SPACE}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    try:
        cluster.run("wait", "--for=condition=Ready", "pod/restored", "-n", SPACE, "--timeout=60s", timeout=70)
        inside = ("exec", "restored", "-n", SPACE, "--", "bash", "-c")

        def loaded() -> bool:
            return cluster.run(*inside, "redis-cli ping", check=False).stdout.strip() == "PONG"

        wait_for("the copy is loaded", loaded, 30)
        return cluster.run(*inside, script).stdout
    finally:
        cluster.run("delete", "pod", "restored", "-n", SPACE, "--wait=true")


def test_a_copy_under_writes_is_of_one_moment_and_holds_what_it_says(kept: Cluster) -> None:
    with writer(kept):
        create(kept, "first")
        found = ended(kept, "first")
    assert found["phase"] == "Succeeded", found
    (row,) = found["components"]
    assert (found["repository"], row["engineVersion"]) == ("main", "8.0.2")
    script = (
        "redis-cli dbsize; redis-cli get k77; redis-cli get a; redis-cli get b; "
        "sha256sum </data/work/data/redis.rdb; cat /data/work/data/manifest.json"
    )
    size, sample, a, b, checksum, *manifest = restored(kept, row, script).splitlines()
    assert int(size) == row["entries"] == KEYS + 2
    assert sample.startswith(hashlib.sha1(b"77").hexdigest())  # noqa: S324 - data, not a secret
    assert int(a) == int(b) > 100, "of one moment"
    assert checksum.split()[0] == row["sha256"]
    said = json.loads("".join(manifest))
    assert (said["sha256"], said["keyFingerprint"]) == (row["sha256"], row["keyFingerprint"])
    assert said["lineage"] == row["lineage"]
    wait_for("its Job is gone", lambda: not kept.list("jobs", SPACE), 30)


def test_a_bucket_behind_an_authority_of_ones_own_holds_nothing_that_can_be_read(
    kept: Cluster, bucket: Bucket
) -> None:
    values = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "ca.crt": bucket.authority}
    kept.apply(secret("s3", **values))
    redis(kept, "set", "needle", "a-value-that-nobody-may-find")
    create(kept, "away-1", repository="away")
    first = ended(kept, "away-1")
    assert first["phase"] == "Succeeded", first
    create(kept, "away-2", repository="away")
    second = ended(kept, "away-2")
    rows = [found["components"][0] for found in (first, second)]
    assert rows[0]["bytes"] > 30_000_000
    # All but the first and the last piece, which hold the time and the checksum; a piece is of half to eight MiB, by
    # chance of the repository, so that of 40 MB it may be a tenth, and of more data less.
    assert rows[1]["storedBytes"] < 0.3 * rows[0]["storedBytes"], "what has not changed is not stored again"
    files = [path for path in bucket.folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if b"a-value-that-nobody-may-find" in path.read_bytes()]


def test_another_key_is_called_by_its_name_and_harms_nothing(kept: Cluster) -> None:
    good = secret_value(kept, "mine", "key")
    kept.apply(secret("mine", key="another key than the one before"))
    create(kept, "wrong-key", repository="away")
    failed = ended(kept, "wrong-key")
    assert failed["phase"] == "Failed"
    assert "the repository was written with another key than the one that is given" in failed["message"]
    wait_for("the stack says so", lambda: healthy(kept)["reason"] == "BackupFailed", 20)
    assert "another key" in healthy(kept)["message"]
    assert kept.condition("cos", SPACE, "Ready")["status"] == "True", "it serves all the same"
    kept.apply(secret("mine", key=good))


def test_a_copy_outlives_the_operator_and_not_its_own_pod(kept: Cluster) -> None:
    create(kept, "orphaned")
    wait_for("it runs", lambda: status(kept, "orphaned").get("phase") == "Running", LIMIT)
    name = "app.kubernetes.io/name=cos-operator"
    kept.run(
        "delete", "pods", "-n", OPERATOR_NAMESPACE, "-l", name, "--grace-period=0", "--force", "--wait=false"
    )
    assert ended(kept, "orphaned", 2 * LIMIT)["phase"] == "Succeeded"
    create(kept, "killed")
    wait_for("it runs", lambda: status(kept, "killed").get("phase") == "Running", LIMIT)
    wait_for("its pod is there", lambda: kept.list("pods", SPACE, "cos.dev/backup=killed"), 30)
    kept.run("delete", "pods", "-n", SPACE, "-l", "cos.dev/backup=killed", "--wait=false")
    found = ended(kept, "killed")
    assert found["phase"] == "Failed"
    create(kept, "after")
    assert ended(kept, "after")["phase"] == "Succeeded", "what the killed one left locked is in nobody's way"


def test_data_is_called_safe_once_it_is_copied_and_the_key_kept(kept: Cluster) -> None:

    wait_for("the key is asked for", lambda: healthy(kept)["reason"] == "KeyNotEscrowed", 20)
    # As the message says it, word for word.
    show, say = (part for part in healthy(kept)["message"].split("`") if part.startswith("kubectl"))
    assert bash(kept, show) == secret_value(kept, "cos-backup-key", "key")
    bash(kept, say)
    wait_for("it is safe", lambda: healthy(kept)["reason"] == "BackedUp", 20)


def test_the_stack_serves_what_was_restored_and_the_volume_before_it_is_kept(kept: Cluster) -> None:
    redis(kept, "set", "state", "as it was copied")
    create(kept, "state")
    copied = ended(kept, "state")["components"][0]
    redis(kept, "set", "state", "as it was lost")
    restore(kept, "unasked", backup="state")
    refused = ended(kept, "unasked", kind="stackrestore")
    assert refused["phase"] == "Failed"
    assert "write existingData: SetAside" in refused["message"]
    assert redis(kept, "get", "state") == "as it was lost"
    restore(kept, "asked", backup="state", existingData="SetAside")
    found = ended(kept, "asked", 2 * LIMIT, kind="stackrestore")
    assert found["phase"] == "Succeeded", found
    (row,) = found["components"]
    assert (row["claim"], row["previousClaim"]) == ("cos-redis-data-1", "cos-redis-data-0")
    assert row["entries"] == copied["entries"] == int(redis(kept, "dbsize"))
    assert redis(kept, "get", "state") == "as it was copied", "with the application's own password, as before"
    kept.wait_ready("cos", SPACE)
    assert kept.stack("cos", SPACE)["status"]["retained"] == [
        {"component": "redis", "claim": "cos-redis-data-0"}
    ]
    assert healthy(kept)["reason"] == "NotBackedUp", "of the new volume there is no copy yet"
    create(kept, "afterwards")
    assert ended(kept, "afterwards")["phase"] == "Succeeded"
    assert ended(kept, "afterwards")["components"][0]["lineage"] != copied["lineage"]


# -- Elasticsearch ----------------------------------------------------------------------------------------------------


def elastic(cluster: Cluster, method: str, path: str, body: Any = None, *, account: str = "admin") -> Any:
    """A request to Elasticsearch from within its own pod; the answer, whatever its status."""
    login = {
        key: secret_value(cluster, f"{WHOLE}-elasticsearch-{account}", key)
        for key in ("username", "password")
    }
    text = body if isinstance(body, str) else json.dumps(body)
    script = (
        f"curl -s -m 30 -u {login['username']}:{login['password']} -X {method} -H 'Content-Type: application/json' "
        f"'http://127.0.0.1:9200{path}'" + (" --data-binary @-" if body is not None else "")
    )
    inside = ("exec", "-i", f"{WHOLE}-elasticsearch-0", "-n", SPACE, "--", "bash", "-c", script)
    return json.loads(cluster.run(*inside, data=text if body is not None else "").stdout or "{}")


def documents(cluster: Cluster, index: str) -> dict[str, Any]:
    """Each document of an index by its id."""
    elastic(cluster, "POST", f"/{index}/_refresh")
    found = elastic(cluster, "GET", f"/{index}/_search?size=10000")
    return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}


@contextmanager
def numbering(cluster: Cluster, index: str) -> Iterator[None]:
    """Documents 1, 2, 3 … of an index, one after the other."""
    login = ":".join(
        secret_value(cluster, f"{WHOLE}-elasticsearch-app", key) for key in ("username", "password")
    )
    script = (
        f"i=0; while :; do i=$((i + 1)); curl -s -f -u {login} -X PUT -H 'Content-Type: application/json' -o /dev/null "
        f'"http://127.0.0.1:9200/{index}/_doc/$i" -d "{{\\"n\\":$i}}" || exit 1; done'
    )
    command = [cluster.kubectl_path, "--kubeconfig", cluster.kubeconfig, "exec", f"{WHOLE}-elasticsearch-0"]
    command += ["-n", SPACE, "--", "bash", "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("it writes", lambda: len(documents(cluster, index)) > 20, 20)
        yield
        assert process.poll() is None, "it wrote all the time"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def searched(kept: Cluster) -> Cluster:
    """A stack of Elasticsearch with what a snapshot may forget."""
    kept.wait_ready(WHOLE, SPACE)
    made = {"settings": {"number_of_shards": 2, "number_of_replicas": 1}, "aliases": {"quiet-alias": {}}}
    made["mappings"] = {"properties": {"word": {"type": "keyword"}}}
    elastic(kept, "PUT", "/quiet", made)
    elastic(kept, "PUT", "/.hidden", {"settings": {"hidden": True}})
    elastic(kept, "PUT", "/.hidden/_doc/1?refresh=true", {"seen": False})
    elastic(kept, "PUT", "/written", {"settings": {"number_of_shards": 1}})
    elastic(kept, "PUT", "/_index_template/logs", {"index_patterns": ["logs-*"], "priority": 7})
    # Without a word of it the copy could not be placed on a node that has only that.
    elastic(kept, "PUT", "/_cluster/settings", {"persistent": {"cluster.routing.allocation.enable": "none"}})
    lines = (
        f"{json.dumps({'index': {'_id': str(n)}})}\n{json.dumps({'word': hashlib.md5(str(n).encode()).hexdigest()})}\n"  # noqa: S324 - data
        for n in range(3000)
    )
    assert elastic(kept, "POST", "/quiet/_bulk?refresh=true", "".join(lines))["errors"] is False
    return kept


def test_elasticsearch_under_writes_comes_back_as_it_was_copied(searched: Cluster) -> None:
    quiet = documents(searched, "quiet")
    with numbering(searched, "written"):
        at_least = len(documents(searched, "written"))
        create(searched, "index", stack=WHOLE, components=["elasticsearch"])
        found = ended(searched, "index")
        at_most = len(documents(searched, "written"))
    assert found["phase"] == "Succeeded", found
    (copied,) = found["components"]
    assert copied["engineVersion"] == "8.19.5"
    assert elastic(searched, "GET", "/_snapshot") == {}, "no repository is left that the stack does not need"
    left = ("exec", f"{WHOLE}-elasticsearch-0", "-n", SPACE, "--", "du", "-s", "-k", "/data/snapshots")
    assert int(searched.run(*left).stdout.split()[0]) < 200, "nor the data twice"
    elastic(searched, "DELETE", "/quiet")
    restore(searched, "index-back", backup="index", stack=WHOLE, existingData="SetAside")
    back = ended(searched, "index-back", 2 * LIMIT, kind="stackrestore")
    assert back["phase"] == "Succeeded", back
    (row,) = back["components"]
    assert (row["claim"], row["previousClaim"]) == tuple(f"{WHOLE}-elasticsearch-data-{n}" for n in (1, 0))
    assert documents(searched, "quiet") == documents(searched, "quiet-alias") == quiet
    written = documents(searched, "written")
    assert written == {str(n): {"n": n} for n in range(1, len(written) + 1)}, (
        "all up to one moment, and nothing after"
    )
    assert at_least <= len(written) <= at_most
    assert documents(searched, ".hidden") == {"1": {"seen": False}}
    assert row["entries"] >= 3000 + len(written) + 1
    settings = elastic(searched, "GET", "/quiet")["quiet"]
    assert settings["mappings"] == {"properties": {"word": {"type": "keyword"}}}
    assert settings["settings"]["index"]["number_of_replicas"] == "1"
    (template,) = elastic(searched, "GET", "/_index_template/logs")["index_templates"]
    assert template["index_template"]["priority"] == 7
    persistent = {"cluster": {"routing": {"allocation": {"enable": "none"}}}}
    assert elastic(searched, "GET", "/_cluster/settings") == {"persistent": persistent, "transient": {}}
    assert elastic(searched, "GET", "/_snapshot") == {}
    elastic(searched, "PUT", "/written/_doc/after?refresh=true", {"n": -1}, account="app")
    assert "after" in documents(searched, "written"), "it takes writes, by the application's own password"
    searched.wait_ready(WHOLE, SPACE)


def cypher(cluster: Cluster, statement: str) -> list[list[Any]]:
    """The rows of a statement of the application's, asked over HTTP in the server's own pod."""
    login = ":".join(secret_value(cluster, f"{WHOLE}-neo4j-app", key) for key in ("username", "password"))
    body = json.dumps({"statements": [{"statement": statement}]})
    script = (
        "exec 3<>/dev/tcp/127.0.0.1/7474; body=$(cat); printf '%s\\r\\n' 'POST /db/neo4j/tx/commit HTTP/1.1' "
        "'Host: localhost' 'Connection: close' 'Content-Type: application/json' "
        f"'Authorization: Basic {base64.b64encode(login.encode()).decode()}' "
        '"Content-Length: ${#body}" "" >&3; printf %s "$body" >&3; cat <&3'
    )
    inside = ("exec", "-i", f"{WHOLE}-neo4j-0", "-n", SPACE, "-c", "neo4j", "--", "bash", "-c", script)
    said = cluster.run(*inside, data=body).stdout.replace("\r", "").partition("\n\n")[2]
    found = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert not found["errors"], found
    return [row["row"] for row in found["results"][0]["data"]]


@contextmanager
def adding(cluster: Cluster) -> Iterator[list[int]]:
    """Nodes 1, 2, 3 … each bound to the one before it, one after the other, until the server is stopped."""
    added = [0]
    ended = threading.Event()

    def add() -> None:
        while not ended.is_set():
            number = added[-1] + 1
            with suppress(AssertionError, ValueError, subprocess.SubprocessError):
                bound = f"WITH n MATCH (m:Added {{n: {number - 1}}}) CREATE (m)-[:NEXT]->(n)"
                cypher(cluster, f"CREATE (n:Added {{n: {number}}}) {bound}")
                added.append(number)
                continue
            return

    thread = threading.Thread(target=add)
    thread.start()
    try:
        wait_for("it writes", lambda: len(added) > 3, 30)
        yield added
    finally:
        ended.set()
        thread.join()


def seconds_between(first: str, last: str) -> float:
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def test_neo4j_is_stopped_for_as_long_as_it_is_read_and_comes_back_as_it_was(kept: Cluster) -> None:
    kept.wait_ready(WHOLE, SPACE)
    cypher(kept, "CREATE INDEX thing IF NOT EXISTS FOR (a:Thing) ON (a.n)")
    cypher(kept, "UNWIND range(1, 5000) AS n CREATE (:Thing {n: n})-[:HAS]->(:Part {m: toString(n)})")
    create(kept, "unallowed", stack=WHOLE, repository="away")
    refused = ended(kept, "unallowed")
    assert refused["phase"] == "Failed"
    assert "neo4j can only be copied while it is stopped: write allowDowntime: true" in refused["message"]
    with adding(kept) as added:
        create(kept, "graph", stack=WHOLE, components=["neo4j"], allowDowntime=True)
        found = wait_for(
            "it is stopped",
            lambda: next(
                (row for row in status(kept, "graph").get("components", ()) if row.get("haltTime")), None
            ),
            60,
        )
        wait_for("the stack says so", lambda: row_of_graph(kept)["reason"] == "BackingUp", 20)
        assert "stopped for backup graph since" in row_of_graph(kept)["message"]
        found = ended(kept, "graph", 2 * LIMIT)
    assert found["phase"] == "Succeeded", found
    (copied,) = found["components"]
    kept.wait_ready(WHOLE, SPACE)
    down = seconds_between(copied["haltTime"], row_of_graph(kept)["servingSince"])
    read = seconds_between(copied["haltTime"], copied["resumeTime"])
    assert read < 120, f"stopped for {read:g} s until its data was read"
    assert down < 180, f"down for {down:g} s, {read:g} s of them until its data was read"
    before = (cypher(kept, "MATCH (n) RETURN count(n)"), cypher(kept, "MATCH ()-[r]->() RETURN count(r)"))
    (last,) = cypher(kept, "MATCH (n:Added) RETURN max(n.n)")[0]
    assert last in {added[-1], added[-1] + 1}, "all that was acknowledged before it was stopped"
    cypher(kept, "MATCH (n:Thing) DETACH DELETE n")
    restore(kept, "graph-back", backup="graph", stack=WHOLE, existingData="SetAside")
    back = ended(kept, "graph-back", 3 * LIMIT, kind="stackrestore")
    assert back["phase"] == "Succeeded", back
    (row,) = back["components"]
    assert (row["claim"], row["previousClaim"]) == tuple(f"{WHOLE}-neo4j-data-{n}" for n in (1, 0))
    assert row["entries"] == copied["entries"]
    after = (cypher(kept, "MATCH (n) RETURN count(n)"), cypher(kept, "MATCH ()-[r]->() RETURN count(r)"))
    assert after == before, "with the application's own login, as before"
    assert cypher(kept, "SHOW INDEXES YIELD name, state WHERE name = 'thing' RETURN state") == [["ONLINE"]]


def row_of_graph(cluster: Cluster) -> dict[str, Any]:
    """What the stack says of Neo4j."""
    rows = cluster.stack(WHOLE, SPACE)["status"]["components"]
    return dict(next(row for row in rows if row["name"] == "neo4j"))


def test_a_proof_restores_beside_the_stack_and_leaves_nothing(kept: Cluster) -> None:
    before = {item["metadata"]["name"] for item in kept.list("pvc", SPACE)}
    pod = kept.get("pod", "cos-redis-0", SPACE)
    restore(kept, "proof", source={}, into="Throwaway")
    found = ended(kept, "proof", kind="stackrestore")
    assert found["phase"] == "Succeeded", found
    (row,) = found["components"]
    assert row["entries"] == int(redis(kept, "dbsize"))
    assert row["pointInTime"] == status(kept, "afterwards")["components"][0]["pointInTime"], "the newest"
    assert not row.get("claim")
    wait_for(
        "its volume is gone", lambda: {i["metadata"]["name"] for i in kept.list("pvc", SPACE)} == before, 30
    )
    assert kept.get("pod", "cos-redis-0", SPACE)["metadata"]["uid"] == pod["metadata"]["uid"]


def rows(cluster: Cluster) -> list[dict[str, Any]]:
    found = cluster.list("stackbackups", SPACE)
    return [row for item in found for row in (item.get("status") or {}).get("components") or ()]


def test_what_a_schedule_makes_is_kept_as_long_as_it_says(kept: Cluster, bucket: Bucket) -> None:
    often = {"name": "often", "schedule": "* * * * *", "repository": "away", "keep": {"last": 1}}
    maintenance = {"schedule": "* * * * *", "readPercent": 100}
    create(kept, "old", {"cos.dev/backup-schedule": "often"}, repository="away")
    kept.apply(stack(bucket, schedules=[often], maintenance=maintenance))
    old = ended(kept, "old")["components"][0]

    def made() -> list[dict[str, Any]]:
        found = kept.list("stackbackups", SPACE, "cos.dev/backup-schedule=often")
        return [item for item in found if item["metadata"]["name"] != "old"]

    def good() -> list[dict[str, Any]]:
        return [item for item in made() if (item.get("status") or {}).get("phase") == "Succeeded"]

    wait_for("the schedule makes one by itself", good, 60 + LIMIT)
    # No more of them: what is asked for is how long they are kept.
    kept.apply(stack(bucket, schedules=[{**often, "schedule": "0 3 29 2 *"}], maintenance=maintenance))
    assert all(item["metadata"]["name"].startswith("cos-often-2") for item in made())
    wait_for("the older one is kept no longer", lambda: status(kept, "old").get("phase") != "Succeeded", 20)
    create(kept, "next", repository="away")
    row = ended(kept, "next")["components"][0]
    assert row.get("maintenanceFailure", "") == "", row
    wait_for("the object goes too", lambda: not kept.get("stackbackup", "old", SPACE), 20)
    assert not list(bucket.folder.glob(f"backups/**/snapshots/{old['snapshot']}"))
    assert sum(item.get("removed") or 0 for item in rows(kept)) >= 1
    assert max(item["maintained"] for item in rows(kept) if item.get("maintained")) > old["completionTime"]
    wait_for("the newest one is kept alone", lambda: len(good()) == 1, LIMIT)
    (newest,) = good()[0]["status"]["components"]
    assert list(bucket.folder.glob(f"backups/**/snapshots/{newest['snapshot']}"))


def test_a_repository_that_rots_is_told_and_harms_no_copy(kept: Cluster, bucket: Bucket) -> None:
    pack = max(
        (path for path in bucket.folder.glob("backups/**/data/*/*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    good = pack.read_bytes()
    rotten = bytearray(good)
    rotten[len(good) // 2] ^= 1
    pack.write_bytes(rotten)
    maintenance = {"schedule": "* * * * *", "readPercent": 100}
    kept.apply(stack(bucket, maintenance=maintenance))

    def due() -> bool:
        """Maintenance is due again once the minute of the last one is over."""
        last = max(row["maintained"] for row in rows(kept) if row.get("maintained"))
        return datetime.now(UTC).strftime("%H:%M") != last[11:16]

    wait_for("the next minute", due, 61)
    create(kept, "rotten", repository="away")
    found = ended(kept, "rotten")
    assert found["phase"] == "Succeeded", found
    assert "container tidy ended" in found["components"][0]["maintenanceFailure"]
    wait_for("the stack says so", lambda: healthy(kept)["reason"] == "RepositoryUnsound", 20)
    pack.write_bytes(good)
    create(kept, "mended", repository="away")
    assert not ended(kept, "mended")["components"][0].get("maintenanceFailure")
    wait_for("all is well again", lambda: healthy(kept)["reason"] != "RepositoryUnsound", 20)


def test_a_namespace_that_is_lost_comes_back_from_git_the_bucket_and_the_key(
    kept: Cluster, bucket: Bucket
) -> None:
    redis(kept, "set", "state", "before the disaster", stack=WHOLE)
    written = documents(kept, "written")
    graph = cypher(kept, "MATCH (n) RETURN count(n)")
    create(kept, "last", stack=WHOLE, repository="away", allowDowntime=True)
    last = ended(kept, "last", 2 * LIMIT)
    assert last["phase"] == "Succeeded", last
    copied = {row["name"]: row for row in last["components"]}
    assert set(copied) == {"postgres-prod", "redis", "elasticsearch", "neo4j"}
    assert last["skewSeconds"] >= 0
    kept.fresh_namespace(SPACE)
    values = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "ca.crt": bucket.authority}
    kept.apply(secret("s3", **values))
    kept.apply(secret("mine", key=KEY))
    # What is in Git, and one object.
    kept.apply(whole(bucket))
    restore(kept, "disaster", stack=WHOLE, source={"repository": "away"}, existingData="SetAside")
    found = ended(kept, "disaster", 5 * LIMIT, kind="stackrestore")
    assert found["phase"] == "Succeeded", found
    for row in found["components"]:
        original = copied[row["name"]]
        assert (row["source"]["snapshot"], row["source"]["sha256"]) == (
            original["snapshot"],
            original["sha256"],
        )
    kept.wait_ready(WHOLE, SPACE)
    assert redis(kept, "get", "state", stack=WHOLE) == "before the disaster"
    assert documents(kept, "written") == written
    assert cypher(kept, "MATCH (n) RETURN count(n)") == graph
