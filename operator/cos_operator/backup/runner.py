"""One copy: what the engine's tool has left in a folder goes into the repository. Progress goes to standard output."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pydantic import ValidationError

from cos_controllers.backups.order import (
    CREDENTIALS_DIR,
    DATA_DIR,
    FACTS_FILE,
    KEY_DIR,
    WORK_DIR,
    Order,
)
from cos_controllers.backups.report import LIMIT, Facts, Progress, Report, fingerprint
from cos_operator.backup.restic import Restic, ResticError

#: What Kubernetes shows of a container that has ended.
TERMINATION_LOG = Path("/dev/termination-log")
#: Beside the data in each snapshot: what there is to know of it without the operator.
MANIFEST = "manifest.json"


class CopyError(Exception):
    """The copy cannot be made; the message is for a person."""


def run(order: Order, root: Path = Path("/"), report: Path = TERMINATION_LOG) -> int:
    """Carry out the order and write the report, or why there is none; 0 or 1. `root`: of the container's paths.

    SIGTERM ends it early, without a snapshot.
    """
    signal.signal(signal.SIGTERM, _stopped)
    try:
        text = copy(order, root).model_dump_json()
    except (CopyError, ResticError) as error:
        sys.stderr.write(f"{error}\n")
        report.write_text(str(error)[:LIMIT])
        return 1
    report.write_text(text)
    return 0


def copy(order: Order, root: Path) -> Report:
    """Store the folder. Raises `CopyError` and `ResticError`."""
    facts = _facts(root / FACTS_FILE.lstrip("/"))
    key = _secret(root / KEY_DIR.lstrip("/") / "key")
    data = root / DATA_DIR.lstrip("/")
    found = fingerprint(key)
    (data / MANIFEST).write_text(json.dumps(manifest(order, facts, found), indent=1))
    restic = Restic(environment(order, root), order.limit, tell=_tell)
    restic.open()
    host = f"{order.namespace}/{order.stack}/{order.component}"
    stored = restic.backup(str(data), host, [f"backup={order.backup}", f"engine={order.engine}"])
    return Report(facts=facts, snapshot=stored.snapshot, stored=stored.added, key=found)


def manifest(order: Order, facts: Facts, key: str) -> dict[str, object]:
    """What is kept beside the data."""
    return {
        "format": 1,
        "namespace": order.namespace,
        "stack": order.stack,
        "component": order.component,
        "engine": order.engine,
        "lineage": order.lineage,
        "backup": order.backup,
        "keyFingerprint": key,
        **facts.model_dump(),
    }


def environment(order: Order, root: Path) -> dict[str, str]:
    """What restic is told, by variables: no secret is among its arguments."""
    credentials = root / CREDENTIALS_DIR.lstrip("/")
    found = {
        "RESTIC_REPOSITORY": order.repository,
        "RESTIC_PASSWORD_FILE": str(root / KEY_DIR.lstrip("/") / "key"),
        "HOME": str(root / WORK_DIR.lstrip("/")),
    }
    if order.region:
        found["AWS_DEFAULT_REGION"] = order.region
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            found[name] = _secret(credentials / name)
        if (authority := credentials / "ca.crt").exists():
            found["RESTIC_CACERT"] = str(authority)
    return found


def _facts(path: Path) -> Facts:
    try:
        return Facts.model_validate_json(path.read_text())
    except (OSError, ValidationError) as error:
        raise CopyError(f"the engine's tool did not say what it has copied: {error}") from error


def _secret(path: Path) -> str:
    """A value that people paste: a newline at its end is none of it."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise CopyError(f"{path.name} cannot be read: {error.strerror}") from error


def _tell(progress: Progress) -> None:
    sys.stdout.write(f"{progress.model_dump_json()}\n")
    sys.stdout.flush()


def _stopped(_number: int, _frame: FrameType | None) -> NoReturn:
    """The pod is being deleted. restic, which gets no signal of kubelet, ends with it and leaves no snapshot."""
    os._exit(1)
