"""The least that the operator's writes can cost: the same bodies, ready as bytes, sent as they are.

    floor_write.py RECORD LENGTH OWNERS

The first `LENGTH` bytes of `RECORD` are what `benched_operator` noted, `OWNERS` is a JSON file of UIDs to be replaced
by others. Prints one JSON object: how many writes by HTTP status, and the CPU seconds and the seconds from the first
to the last of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import sys
import time
from collections import Counter, deque
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from apiclient import ApiClient

#: As many as the operator has workers.
WORKERS = 4
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Ready(NamedTuple):
    """A write, ready to be sent."""

    method: str
    path: str
    query: dict[str, str]
    content_type: str
    body: bytes


def read(record: Path, length: int, owners: dict[str, str]) -> deque[Ready]:
    """The recorded writes, with the UIDs of this cluster's stacks."""
    found: deque[Ready] = deque()
    done = 0
    with record.open(encoding="utf-8") as lines:
        for line in lines:
            done += len(line.encode())
            if done > length:
                break
            fields = json.loads(_UID.sub(lambda match: owners.get(match.group(), match.group()), line))
            found.append(
                Ready(
                    fields["method"],
                    fields["path"],
                    dict(fields["query"]),
                    fields["content_type"],
                    json.dumps(fields["body"]).encode(),
                )
            )
    return found


async def send(writes: deque[Ready], client: ApiClient) -> tuple[Counter[str], dict[str, str]]:
    """Send them in their order, `WORKERS` at once. Answers by status; those of refusals are kept, the last of each."""
    answers: Counter[str] = Counter()
    refusals: dict[str, str] = {}

    async def work() -> None:
        while writes:
            write = writes.popleft()
            headers = {"Content-Type": write.content_type, "Accept": "application/json"}
            async with client.session.request(
                write.method, write.path, params=write.query, data=write.body, headers=headers
            ) as answer:
                text = await answer.read()
                answers[str(answer.status)] += 1
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    refusals[str(answer.status)] = text.decode()

    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(work())
    return answers, refusals


def cpu_seconds() -> float:
    """Of this process, until now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def run(record: Path, length: int, owners: Path) -> None:
    """Read everything, then send everything."""
    writes = read(record, length, json.loads(owners.read_text()))
    async with ApiClient(Path(os.environ["COS_KUBECONFIG"]), connections=WORKERS) as client:
        cpu, began = cpu_seconds(), time.monotonic()
        answers, refusals = await send(writes, client)
        figures = {"cpu": cpu_seconds() - cpu, "seconds": time.monotonic() - began}
    sys.stdout.write(json.dumps({**figures, "answers": answers, "refusals": refusals}) + "\n")


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
