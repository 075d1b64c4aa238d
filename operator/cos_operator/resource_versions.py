"""How new a read must be to show all that this process knows of, without asking how new the present is."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds for which a kind is read as of the present once the API server's cache was behind what is known.
LAG_SECONDS = 600.0


class ResourceVersions:
    """The newest resource version that one client has met of each kind. `clock` returns monotonic seconds.

    They are compared as numbers, as clients may since Kubernetes 1.35 and as was true of etcd's ever. One that is
    no number is met with silence: reads of its kind stay consistent ones.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._met: dict[str, int] = {}
        self._listed: set[str] = set()
        self._lags_until: dict[str, float] = {}

    def newest(self, kind: str) -> str | None:
        """The resource version that a read of `kind` must not be older than; None if only the present will do."""
        return str(self._met[kind]) if kind in self._listed else None

    def listed(self, kind: str, version: object) -> None:
        """A consistent read of `kind` was as of `version`: from here on, what is met tells all."""
        if self.met(kind, version):
            self._listed.add(kind)

    def met(self, kind: str, version: object) -> bool:
        """`kind` was at `version`, by an event, the answer to a write, or a read. Returns whether that counts.

        Alone it tells nothing of what others have done before: without a consistent list it is only remembered.
        """
        if (
            self._clock() < self._lags_until.get(kind, 0.0)
            or not isinstance(version, str)
            or not version.isdecimal()
        ):
            return False
        self._met[kind] = max(int(version), self._met.get(kind, 0))
        return True

    def lags(self, kind: str) -> None:
        """The API server's cache is older than what is known of `kind`: it is read as of the present for a while.

        Either etcd has gone back in time, or the cache learns of the present by chance (Kubernetes before 1.31).
        """
        self._met.pop(kind, None)
        self._listed.discard(kind)
        self._lags_until[kind] = self._clock() + LAG_SECONDS

    def forget(self) -> None:
        """The next read of every kind is to be of the present."""
        self._met.clear()
        self._listed.clear()
