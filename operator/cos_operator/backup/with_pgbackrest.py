"""Copies of Postgres: pgBackRest reads and writes the data as it lies on its volume, and removes what nobody needs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cos_controllers.backups.order import LOGIN_DIR, Fetch, Find, Order, Tidy
from cos_controllers.backups.report import MOST_REMOVED, Facts, FoundCopy, Progress, Report, Tidied
from cos_controllers.mounts import TARGET_DIR
from cos_controllers.pgbackrest import AUTHORITY_VARIABLE, KEY_VARIABLE, S3_VARIABLES, variables
from cos_operator.backup.files import CopyError, credentials, fingerprint_of, key, secret
from cos_operator.backup.pgbackrest import Made, PgBackRest
from cos_operator.backup.program import ToolError

#: After so long a copy is a whole one again: what has changed since the last whole one grows from copy to copy, and
#: nothing of it can go before all that was built upon it has gone.
_FULL_SECONDS = 7 * 24 * 3600 - 1800
_PORT = "5432"


class PostgresCopies:
    """See `runner.Copies`."""

    def __init__(self, root: Path, tell: Callable[[Progress], None]) -> None:
        self._root = root
        self._tell = tell

    def copy(self, order: Order) -> Report:
        """Whole, or what has changed since the last whole one."""
        login = self._root / LOGIN_DIR.lstrip("/")
        # Without a socket of its own it connects as libpq is told.
        connection = {
            "PGHOST": order.host,
            "PGUSER": secret(login / "username"),
            "PGPASSWORD": secret(login / "password"),
            "PGSSLMODE": "disable",
            "PGBACKREST_PG1_PORT": _PORT,
        }
        tool = self._tool(order, order.folder, connection)
        tool.open(order.lineage)
        before = [made for made in tool.info().backups if made.lineage == order.lineage]
        mark = fingerprint_of(self._root)
        annotations = {"backup": order.backup, "engine": order.engine, "key": mark}
        size = _size_of(self._root / order.folder.lstrip("/"))
        tool.backup(order.lineage, full=is_full_due(before, time.time()), annotations=annotations, size=size)
        found = [made for made in tool.info().backups if _is_of(made, order)]
        newest = max(found, key=lambda made: made.moment, default=None)
        if newest is None:
            raise CopyError("pgBackRest has made a backup and does not list it")
        if newest.damaged:
            if any(made.is_full and made.label != newest.label for made in before):
                # Nothing is to be built upon it, and no log to be kept for it.
                tool.expire(newest.lineage, newest.label)
            raise CopyError(
                f"pages of the data fail their checksum: backup {newest.label} is not to be trusted"
            )
        return Report(facts=_facts(newest), snapshot=newest.label, stored=newest.added, key=mark)

    def found(self, order: Find) -> list[FoundCopy]:
        """Of every volume that the component has had, and that can be read: of one the key may be lost."""
        place = self._tool(order).info()
        wrong = next(filter(None, place.stanzas.values()), "")
        if wrong and not place.backups:
            raise ToolError(wrong)
        return [
            FoundCopy(
                snapshot=made.label,
                backup=made.annotations["backup"],
                lineage=made.lineage,
                facts=_facts(made),
                key=made.annotations["key"],
            )
            for made in place.backups
            if not made.damaged and {"backup", "key"} <= made.annotations.keys()
        ]

    def fetch(self, order: Fetch) -> None:
        """As it was read; the server that is started on it follows its log."""
        tool = self._tool(order)
        made = next(
            (
                item
                for item in tool.info().backups
                if (item.lineage, item.label) == (order.lineage, order.snapshot)
            ),
            None,
        )
        if made is None:
            raise CopyError(f"the repository has no backup {order.snapshot} of volume {order.lineage}")
        folder = self._root / order.folder.lstrip("/")
        volume = self._root / TARGET_DIR.lstrip("/")
        if there := [item.name for item in volume.iterdir() if item.name != "lost+found"]:
            raise CopyError(f"the volume is not empty: {there[0]}")
        folder.mkdir(mode=0o700, parents=True)
        tool.restore(order.lineage, order.snapshot, str(folder), made.size)

    def tidy(self, order: Tidy) -> Tidied:
        """What others are built upon stays until they go too, and so does the last one of a volume."""
        tool = self._tool(order)
        place = tool.info()
        if order.maintain:
            for lineage, label in _to_verify(place.backups, order):
                tool.verify(lineage, label)
        going = removable(place.backups, order.remove)[:MOST_REMOVED]
        for made in going:
            tool.expire(made.lineage, made.label)
        left = tool.info().backups
        for lineage in sorted({made.lineage for made in going}):
            tool.trim(lineage, sum(made.is_full for made in left if made.lineage == lineage))
        # Those that were not there count too.
        there = {made.label for made in left}
        removed = [label for label in order.remove if label not in there]
        return Tidied(checked=order.maintain, removed=tuple(removed[:MOST_REMOVED]))

    def _tool(
        self, order: Order | Find | Fetch | Tidy, data: str = "", more: Mapping[str, str] | None = None
    ) -> PgBackRest:
        known = variables(order.repository, order.region, data=data) | dict(more or {})
        known[KEY_VARIABLE] = key(self._root)
        if order.region:
            keys, authority = credentials(self._root)
            known |= {S3_VARIABLES[name]: value for name, value in keys.items()}
            known |= {AUTHORITY_VARIABLE: authority} if authority else {}
        return PgBackRest(known, order.limit, tell=self._tell)


def removable(backups: Sequence[Made], wanted: Sequence[str]) -> list[Made]:
    """Those of the wanted backups that can go now, in the order in which they do.

    Not one that another is built upon which is to stay, and not the last whole one of a volume.
    """
    found: list[Made] = []
    for lineage in dict.fromkeys(made.lineage for made in backups):
        there = [made for made in backups if made.lineage == lineage]
        needed = {label for made in there if made.label not in wanted for label in made.needs}
        going = [made for made in there if made.label in wanted and made.label not in needed]
        whole = [made for made in there if made.is_full]
        if whole and all(made in going for made in whole):
            going.remove(max(whole, key=lambda made: made.moment))
        # What is built upon others first.
        found += sorted(going, key=lambda made: (made.is_full, made.label))
    return found


def is_full_due(before: Sequence[Made], now: float) -> bool:
    """Whether the next copy of a volume is a whole one. Nothing is built upon one that is damaged."""
    newest = max((made for made in before if made.is_full), key=lambda made: made.moment, default=None)
    return newest is None or newest.damaged or now - newest.moment >= _FULL_SECONDS


def _is_of(made: Made, order: Order) -> bool:
    return made.lineage == order.lineage and made.annotations.get("backup") == order.backup


def _to_verify(backups: Sequence[Made], order: Tidy) -> list[tuple[str, str]]:
    """The part whose turn it is, by its backups."""
    if not order.part:
        return []
    known = sorted((made.lineage, made.label) for made in backups)
    if not known:
        return []
    # Of fewer than there are parts each comes in turn again.
    return known[(order.part - 1) % min(order.parts, len(known)) :: order.parts]


def _facts(made: Made) -> Facts:
    return Facts(entries=made.lsn, moment=made.moment, version=made.version, bytes=made.size, sha256="")


def _size_of(folder: Path) -> int:
    """Bytes of the data without its log, which is not copied. Files may go while they are counted."""
    total = 0
    for path, folders, files in os.walk(folder):
        if Path(path) == folder and "pg_wal" in folders:
            folders.remove("pg_wal")
        for name in files:
            try:
                total += (Path(path) / name).stat().st_size
            except OSError:
                continue
    return total
