"""Copies of engines whose own tools write a folder: restic stores it as a snapshot, whose tags say what it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cos_controllers.backups.order import DATA_DIR, FACTS_FILE, WORK_DIR, Fetch, Find, Order, Tidy
from cos_controllers.backups.report import MOST_REMOVED, Facts, FoundCopy, Progress, Report, Tidied
from cos_controllers.mounts import BACKUP_KEY, KEY_DIR
from cos_operator.backup.files import CopyError, credentials, fingerprint_of
from cos_operator.backup.restic import Restic

#: Beside the data in each snapshot: what there is to know of it without the operator.
MANIFEST = "manifest.json"


class SnapshotCopies:
    """See `runner.Copies`."""

    def __init__(self, root: Path, tell: Callable[[Progress], None]) -> None:
        self._root = root
        self._tell = tell

    def copy(self, order: Order) -> Report:
        """The folder that the engine's tools have written."""
        facts = _facts(self._root / FACTS_FILE.lstrip("/"))
        found = fingerprint_of(self._root)
        data = self._root / DATA_DIR.lstrip("/")
        (data / MANIFEST).write_text(json.dumps(manifest(order, facts, found), indent=1))
        restic = self._restic(order, tell=self._tell)
        restic.open()
        host = f"{order.namespace}/{order.stack}/{order.component}"
        # The tags say what the manifest says: a list of snapshots is all that is needed to choose one.
        tags = {"backup": order.backup, "engine": order.engine, "lineage": order.lineage, "key": found}
        tags |= {name: str(value) for name, value in facts.model_dump().items()}
        stored = restic.backup(str(data), host, [f"{name}={value}" for name, value in tags.items()])
        return Report(facts=facts, snapshot=stored.snapshot, stored=stored.added, key=found)

    def found(self, order: Find) -> list[FoundCopy]:
        """Snapshots that somebody else has made, without the tags of a copy, are none."""
        return [copy for snapshot in self._restic(order).snapshots() if (copy := found_in(snapshot))]

    def fetch(self, order: Fetch) -> None:
        """To the folder from which the engine's tool loads it."""
        data = self._root / DATA_DIR.lstrip("/")
        data.mkdir(parents=True)
        # By the path that it had in the Job that stored it.
        self._restic(order, tell=self._tell).restore(order.snapshot, DATA_DIR, str(data))
        _check(data / MANIFEST, order.sha256)

    def tidy(self, order: Tidy) -> Tidied:
        """Of a repository that is damaged nothing is taken away."""
        restic = self._restic(order)
        restic.open()
        if order.maintain:
            restic.check(order.part, order.parts)
        removed = order.remove[:MOST_REMOVED]
        if removed:
            restic.forget(removed)
        if order.maintain:
            restic.prune()
        return Tidied(checked=order.maintain, removed=removed)

    def _restic(
        self, order: Order | Find | Fetch | Tidy, tell: Callable[[Progress], None] = lambda _: None
    ) -> Restic:
        return Restic(environment(order.repository, order.region, self._root), order.limit, tell=tell)


def found_in(snapshot: Mapping[str, Any]) -> FoundCopy | None:
    """A snapshot as restic lists it; None if it is no copy."""
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


def _check(path: Path, sha256: str) -> None:
    """That a copy is the one that was recorded."""
    try:
        found = json.loads(path.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CopyError(f"the copy has no manifest that can be read: {error}") from error
    if found != sha256:
        raise CopyError(f"the copy is another one than was recorded: its checksum is {found}, not {sha256}")


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
    found = {
        "RESTIC_REPOSITORY": repository,
        "RESTIC_PASSWORD_FILE": str(root / KEY_DIR.lstrip("/") / BACKUP_KEY),
        "HOME": str(root / WORK_DIR.lstrip("/")),
    }
    if region:
        found["AWS_DEFAULT_REGION"] = region
        keys, authority = credentials(root)
        found |= keys | ({"RESTIC_CACERT": authority} if authority else {})
    return found


def _facts(path: Path) -> Facts:
    try:
        return Facts.model_validate_json(path.read_text())
    except (OSError, ValidationError) as error:
        raise CopyError(f"the engine's tool did not say what it has copied: {error}") from error
