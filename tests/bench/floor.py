"""The floor under the operator's CPU time: the same events heard by a Kopf operator that does nothing, and the same
writes sent as they are, on a cluster of its own."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import floor_watch
from apiclient import ApiClient
from bench_cluster import STACKS_PATH, BenchCluster, create_stacks, prepare, until
from processes import Measured

_HERE = Path(__file__).parent
_CONNECT_SECONDS = 60.0


async def measure_floor(
    cluster: BenchCluster, count: int, record: Path, length: int, folder: Path
) -> dict[str, Any]:
    """CPU seconds of both, for the first `length` bytes of recorded writes of `count` stacks."""
    old = _owners(record, length)
    await asyncio.to_thread(cluster.make)
    environment = {"COS_KUBECONFIG": str(cluster.operator_kubeconfig)}
    log = folder / f"floor-watch-{count}.log"
    log.unlink(missing_ok=True)
    async with ApiClient(cluster.kubeconfig) as client:
        await prepare(client, count)
        with Measured.python(_HERE / "floor_watch.py", environment=environment, log=log) as watching:

            async def hears() -> bool:
                watching.require_alive()
                return floor_watch.READY in log.read_text().splitlines()

            await until("the watches are connected", hears, _CONNECT_SECONDS, 0.2)
            before, began = watching.cpu(), time.monotonic()
            await create_stacks(client, count)
            await _write(client, record, length, old, environment, folder / f"floor-write-{count}.log")
            written = json.loads((folder / f"floor-write-{count}.log").read_text().splitlines()[-1])

            async def pods_ready() -> bool:
                cells = await client.column("/api/v1/pods", "Status")
                return bool(cells) and set(cells) == {"Running"}

            await until("every pod runs", pods_ready, 300 + 4 * count, 1 + count / 200)
            pods = len(await client.column("/api/v1/pods", "Status"))
            heard = (watching.cpu() - before).total
    return {
        "watch_cpu": heard,
        "write_cpu": written["cpu"],
        "write_seconds": written["seconds"],
        "answers": written["answers"],
        "refusals": written["refusals"],
        "pods": pods,
        "seconds": time.monotonic() - began,
    }


async def _write(
    client: ApiClient, record: Path, length: int, old: dict[str, str], environment: dict[str, str], log: Path
) -> None:
    stacks = await client.items(STACKS_PATH)
    new = {f"{s['metadata']['namespace']}/{s['metadata']['name']}": s["metadata"]["uid"] for s in stacks}
    owners = log.with_suffix(".owners.json")
    owners.write_text(json.dumps({uid: new[name] for uid, name in old.items()}))
    log.unlink(missing_ok=True)
    arguments = (str(record), str(length), str(owners))
    script = _HERE / "floor_write.py"
    with Measured.python(script, *arguments, environment=environment, log=log) as writing:
        if await writing.ended(600 + 4 * len(stacks)):
            writing.require_alive()


def _owners(record: Path, length: int) -> dict[str, str]:
    """Namespace and name of each stack by its UID, from the owner references in recorded bodies."""
    found: dict[str, str] = {}
    done = 0
    with record.open(encoding="utf-8") as lines:
        for line in lines:
            done += len(line.encode())
            if done > length:
                break
            metadata = (json.loads(line)["body"] or {}).get("metadata", {})
            for owner in metadata.get("ownerReferences", ()):
                if owner["kind"] == "CosStack":
                    found[owner["uid"]] = f"{metadata['namespace']}/{owner['name']}"
    return found
