"""What Jobs do with a repository: store a copy, find one, fetch one, and tidy up. Progress goes to standard output."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pydantic import ValidationError

from cos_controllers.backups.order import (
    AUTHORITY,
    CREDENTIALS_DIR,
    DATA_DIR,
    FACTS_FILE,
    KEY_DIR,
    S3_KEYS,
    WORK_DIR,
    Fetch,
    Find,
    Order,
    Tidy,
)
from cos_controllers.backups.report import (
    LIMIT,
    MOST_FOUND,
    Facts,
    FoundCopies,
    FoundCopy,
    Progress,
    Report,
    Tidied,
    fingerprint,
)
from cos_operator.backup.program import ToolError, end_all
from cos_operator.backup.restic import Restic

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
    return _reported(lambda: copy(order, root).model_dump_json(), report)


def fetch(order: Fetch, root: Path = Path("/"), report: Path = TERMINATION_LOG) -> int:
    """Bring a copy to the folder from which the engine's tool loads it; 0 or 1. SIGTERM ends it early."""

    def work() -> str:
        data = root / DATA_DIR.lstrip("/")
        data.mkdir(parents=True)
        restic = Restic(environment(order.repository, order.region, root), order.limit, tell=_tell)
        # By the path that it had in the Job that stored it.
        restic.restore(order.snapshot, DATA_DIR, str(data))
        _check(data / MANIFEST, order.sha256)
        return ""

    return _reported(work, report)


def tidy(order: Tidy, root: Path = Path("/"), report: Path = TERMINATION_LOG) -> int:
    """Take copies out of a repository, check it and give space back; 0 or 1. SIGTERM ends it early."""

    def work() -> str:
        restic = Restic(environment(order.repository, order.region, root), order.limit)
        restic.open()
        if order.maintain:
            # Of one that is damaged nothing is taken away.
            restic.check(order.part, order.parts)
        if order.remove:
            restic.forget(order.remove)
        if order.maintain:
            restic.prune()
        return Tidied(checked=order.maintain).model_dump_json()

    return _reported(work, report)


def find(order: Find, root: Path = Path("/"), report: Path = TERMINATION_LOG) -> int:
    """Say which copies a repository has; 0 or 1. SIGTERM ends it early."""

    def work() -> str:
        restic = Restic(environment(order.repository, order.region, root), order.limit)
        return found_in(restic.snapshots(), order).model_dump_json()

    return _reported(work, report)


def found_in(snapshots: Iterable[Mapping[str, Any]], order: Find) -> FoundCopies:
    """The newest copies that an order asks for, among snapshots as restic lists them. Raises `CopyError` without any.

    Snapshots that somebody else has made, without the tags of a copy, are none.
    """
    known = [copy for snapshot in snapshots if (copy := _found(snapshot))]
    asked = [copy for copy in known if order.backup in {"", copy.backup}]
    wanted = [copy for copy in asked if order.before is None or copy.facts.moment <= order.before]
    if not wanted:
        raise CopyError(f"the repository has {len(known)} copies of it, and none that is asked for")
    wanted.sort(key=lambda copy: copy.facts.moment, reverse=True)
    return FoundCopies(copies=tuple(wanted[:MOST_FOUND]))


def _found(snapshot: Mapping[str, Any]) -> FoundCopy | None:
    tags = dict(tag.partition("=")[::2] for tag in snapshot.get("tags") or ())
    try:
        facts = Facts.model_validate({name: tags[name] for name in Facts.model_fields if name in tags})
        return FoundCopy(
            snapshot=snapshot["id"],
            backup=tags["backup"],
            lineage=tags["lineage"],
            facts=facts,
            key=tags["key"],
        )
    except (KeyError, ValidationError):
        return None


def _reported(work: Callable[[], str], report: Path) -> int:
    """Do it and write what it says, or why it could not be done; 0 or 1."""
    signal.signal(signal.SIGTERM, _stopped)
    try:
        text, code = work(), 0
    except (CopyError, ToolError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        text, code = str(error)[:LIMIT], 1
    if text:
        report.write_text(text)
    return code


def _check(path: Path, sha256: str) -> None:
    """That a copy is the one that was recorded."""
    try:
        found = json.loads(path.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CopyError(f"the copy has no manifest that can be read: {error}") from error
    if found != sha256:
        raise CopyError(f"the copy is another one than was recorded: its checksum is {found}, not {sha256}")


def copy(order: Order, root: Path) -> Report:
    """Store the folder. Raises `CopyError` and `ToolError`."""
    facts = _facts(root / FACTS_FILE.lstrip("/"))
    key = _secret(root / KEY_DIR.lstrip("/") / "key")
    data = root / DATA_DIR.lstrip("/")
    found = fingerprint(key)
    (data / MANIFEST).write_text(json.dumps(manifest(order, facts, found), indent=1))
    restic = Restic(environment(order.repository, order.region, root), order.limit, tell=_tell)
    restic.open()
    host = f"{order.namespace}/{order.stack}/{order.component}"
    # The tags say what the manifest says: a list of snapshots is all that is needed to choose one.
    tags = {"backup": order.backup, "engine": order.engine, "lineage": order.lineage, "key": found}
    tags |= {name: str(value) for name, value in facts.model_dump().items()}
    stored = restic.backup(str(data), host, [f"{name}={value}" for name, value in tags.items()])
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


def environment(repository: str, region: str, root: Path) -> dict[str, str]:
    """What restic is told, by variables: no secret is among its arguments."""
    credentials = root / CREDENTIALS_DIR.lstrip("/")
    found = {
        "RESTIC_REPOSITORY": repository,
        "RESTIC_PASSWORD_FILE": str(root / KEY_DIR.lstrip("/") / "key"),
        "HOME": str(root / WORK_DIR.lstrip("/")),
    }
    if region:
        found["AWS_DEFAULT_REGION"] = region
        for name in S3_KEYS:
            found[name] = _secret(credentials / name)
        if (authority := credentials / AUTHORITY).exists():
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
        return path.read_bytes().decode().strip()
    except OSError as error:
        raise CopyError(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise CopyError(f"{path.name} is no text: bytes such as openssl rand makes need base64") from None


def _tell(progress: Progress) -> None:
    sys.stdout.write(f"{progress.model_dump_json()}\n")
    sys.stdout.flush()


def _stopped(_number: int, _frame: FrameType | None) -> NoReturn:
    """The pod is being deleted. restic, which gets no signal of kubelet, takes its lock away and leaves no snapshot."""
    end_all()
    os._exit(1)
