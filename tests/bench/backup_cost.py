"""What backups and restores take beside the same tools by hand, and what an application notices of one, in turns."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from bench_cluster import BenchCluster
from probed_stack import HOME, NAME, ProbedStack, probed_stack
from subject import load

from cos_testbed.images import BY_NAME
from cos_testbed.progress import Progress

#: Of Redis' memory for so many bytes of data, and of each Job.
_SECONDS = 900.0
#: Seconds of each window in which an application is measured.
_WINDOW = 60
_KEY = "a key that is nowhere else: a benchmark's"  # pragma: allowlist secret
#: Each value has fifty parts of forty digits, which no two share.
_VALUE_BYTES = 2000
_FILL = """
local first, last = tonumber(ARGV[1]), tonumber(ARGV[2])
for i = first, last do
  local v = redis.sha1hex(i)
  for j = 1, 49 do v = v .. redis.sha1hex(i .. ':' .. j) end
  redis.call('set', 'k' .. i, v)
end
"""
# What a person would write: the tool that reads, then the one that stores; and the other way round.
_DUMP = (
    'export REDISCLI_AUTH="$(cat /login/password)"; '
    f"redis-cli -h {NAME}-redis --user $(cat /login/username) --rdb /work/redis.rdb"
)
_STORE = "restic --no-cache cat config || restic --no-cache init; restic --no-cache backup /work/redis.rdb"
_FETCH = "restic --no-cache --no-lock restore latest --target /"
_LOAD = """
mkdir -p /data/appendonlydir
cp /work/redis.rdb /data/appendonlydir/appendonly.aof.1.base.rdb
echo 'file appendonly.aof.1.base.rdb seq 1 type b' >/data/appendonlydir/appendonly.aof.manifest
redis-server --dir /data --appendonly yes --save '' --port 0 --unixsocket /tmp/s &
until [ "$(redis-cli -s /tmp/s ping)" = PONG ]; do sleep 0.1; done
redis-cli -s /tmp/s shutdown
wait
"""


async def measure_backups(
    cluster: BenchCluster, rounds: int, size_mb: int, progress: Progress, folder: Path
) -> dict[str, Any]:
    """Seconds of each, in turns: backup and restore by the operator and by hand, from Job to end; and p99s in ms."""
    figures: dict[str, Any] = {
        "load_before": load(),
        "megabytes": size_mb,
        "seconds": {name: [] for name in ("backup", "dump and store by hand", "proof", "restore by hand")},
        "stored": [],
        "p99": {"without": [], "with": []},
    }
    memory = f"{size_mb * 3}Mi"
    spec = {
        "redis": {"resources": {"limits": {"memory": memory}}, "storage": {"size": f"{size_mb * 4}Mi"}},
        "backup": {
            "repositories": [
                {
                    "name": "main",
                    "volume": {"size": f"{size_mb * 4}Mi"},
                    "encryptionKeySecretRef": {"name": "key"},
                }
            ]
        },
    }
    async with probed_stack(cluster, progress, folder, spec) as stack:
        await asyncio.to_thread(_measure, stack, rounds, size_mb, progress, figures)
    figures["load_after"] = load()
    return figures


def _measure(
    stack: ProbedStack, rounds: int, size_mb: int, progress: Progress, figures: dict[str, Any]
) -> None:
    _apply(
        stack, {"apiVersion": "v1", "kind": "Secret", "metadata": _named("key"), "stringData": {"key": _KEY}}
    )
    _apply(stack, _claim("raw", f"{size_mb * 4}Mi"))
    with progress.step(f"{size_mb} MB of data"):
        _fill(stack, size_mb)
    seconds = figures["seconds"]
    for number in range(rounds):
        turns = [
            ("backup", lambda n=number: _backup(stack, f"b{n}", figures)),
            ("dump and store by hand", lambda n=number: _by_hand(stack, f"store{n}", _DUMP, _STORE)),
        ]
        for name, work in turns if number % 2 else reversed(turns):
            with progress.step(f"round {number + 1} of {rounds}: {name}") as step:
                seconds[name].append(work())
                step.note(f"{seconds[name][-1]:.0f} s")
        turns = [
            ("proof", lambda n=number: _proof(stack, f"p{n}", f"b{n}")),
            ("restore by hand", lambda n=number: _by_hand(stack, f"fetch{n}", _FETCH, _LOAD, reads=False)),
        ]
        for name, work in turns if number % 2 else reversed(turns):
            with progress.step(f"round {number + 1} of {rounds}: {name}") as step:
                seconds[name].append(work())
                step.note(f"{seconds[name][-1]:.0f} s")
        for kind in ("without", "with") if number % 2 else ("with", "without"):
            with progress.step(f"round {number + 1} of {rounds}: application {kind}") as step:
                figures["p99"][kind].append(
                    _application(stack, f"app{number}" if kind == "with" else "", figures)
                )
                step.note(f"{figures['p99'][kind][-1]:.2f} ms")


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": HOME}


def _apply(stack: ProbedStack, body: dict[str, Any]) -> None:
    stack.cluster.kubectl("apply", "-f", "-", data=yaml.safe_dump(body))


def _claim(name: str, size: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": _named(name), "spec": spec}


def _fill(stack: ProbedStack, size_mb: int) -> None:
    """Data that neither Redis nor restic can make smaller by much."""
    login, keys, step = stack.login("redis"), size_mb * 1_000_000 // _VALUE_BYTES, 5000
    client = ("exec", f"{NAME}-redis-0", "--", "env", f"REDISCLI_AUTH={login.password}", "redis-cli")
    for first in range(1, keys + 1, step):
        last = min(first + step - 1, keys)
        stack.cluster.kubectl(
            *client, "--user", login.username, "eval", _FILL, "0", str(first), str(last), seconds=_SECONDS
        )


def _operation(stack: ProbedStack, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The row of what the operator did, once it has ended. Raises RuntimeError if it has not succeeded."""
    body = {"apiVersion": "cos.dev/v1alpha1", "kind": kind, "metadata": _named(name)}
    _apply(stack, body | {"spec": {"stackRef": {"name": NAME}, **spec}})
    what = f"{kind.lower()}/{name}"
    stack.cluster.kubectl(
        "wait", what, "--for=condition=Complete", f"--timeout={_SECONDS:g}s", seconds=_SECONDS + 10
    )
    status = stack.get(kind.lower(), name)["status"]
    if status["phase"] != "Succeeded":
        raise RuntimeError(f"{what}: {status['message']}")
    (row,) = status["components"]
    return dict(row)


def _between(first: str, last: str) -> float:
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def _backup(stack: ProbedStack, name: str, figures: dict[str, Any]) -> float:
    row = _operation(stack, "StackBackup", name, {})
    figures["bytes"] = row["bytes"]
    figures["stored"].append(row["storedBytes"])
    return _between(row["startTime"], row["completionTime"])


def _proof(stack: ProbedStack, name: str, backup: str) -> float:
    row = _operation(stack, "StackRestore", name, {"backup": backup, "into": "Throwaway"})
    return _between(row["startTime"], row["completionTime"])


def _by_hand(stack: ProbedStack, name: str, first: str, second: str, *, reads: bool = True) -> float:
    """Seconds of a Job with the same images and limits that does no more than it must."""
    live = stack.get("statefulset", f"{NAME}-redis")["spec"]["template"]["spec"]["containers"][0]
    mounts = [
        {"name": name, "mountPath": path}
        for name, path in (("work", "/work"), ("raw", "/repository"), ("data", "/data"), ("login", "/login"))
    ]
    restic = {"RESTIC_REPOSITORY": "/repository", "RESTIC_PASSWORD": _KEY, "HOME": "/work"}
    engine = {"name": "engine", "image": BY_NAME["redis"].reference, "resources": live["resources"]}
    store = {
        "name": "restic",
        "image": BY_NAME["cos-operator"].reference,
        "env": [{"name": key, "value": value} for key, value in restic.items()],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    }
    order = (engine, store) if reads else (store, engine)
    containers = [
        {**container, "command": ["bash", "-ec", script], "volumeMounts": mounts}
        for container, script in zip(order, (first, second), strict=True)
    ]
    pod = {
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999, "runAsNonRoot": True},
        "initContainers": containers[:1],
        "containers": containers[1:],
        "volumes": [
            {"name": "work", "emptyDir": {}},
            {"name": "data", "emptyDir": {}},
            {"name": "raw", "persistentVolumeClaim": {"claimName": "raw"}},
            {"name": "login", "secret": {"secretName": f"{NAME}-redis-backup"}},
        ],
    }
    spec = {"backoffLimit": 0, "template": {"spec": pod}}
    _apply(stack, {"apiVersion": "batch/v1", "kind": "Job", "metadata": _named(name), "spec": spec})
    stack.cluster.kubectl(
        "wait",
        f"job/{name}",
        "--for=condition=Complete",
        f"--timeout={_SECONDS:g}s",
        seconds=_SECONDS + 10,
    )
    job = stack.get("job", name)
    stack.cluster.kubectl("delete", "job", name)
    return _between(job["metadata"]["creationTimestamp"], job["status"]["completionTime"])


def _application(stack: ProbedStack, backup: str, figures: dict[str, Any]) -> float:
    """The p99, in ms, of an application at Redis, while a copy is made if it has a name."""
    login = stack.login("redis")
    target = {
        "host": stack.host("redis"),
        "port": 6379,
        "user": login.username,
        "password": login.password,
    }
    script = str(Path(__file__).with_name("application.py"))
    with subprocess.Popen(
        [sys.executable, script, str(_WINDOW)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps({"redis": target}))
        process.stdin.close()
        time.sleep(3)
        number = 0
        while backup and process.poll() is None:
            _backup(stack, f"{backup}-{number}", figures | {"stored": []})
            number += 1
        found = json.load(process.stdout)
    return float(found["redis"])
