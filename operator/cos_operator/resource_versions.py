"""How new a read must be to show all that this process knows of, without asking how new the present is."""

from __future__ import annotations


class ResourceVersions:
    """The newest resource version that one client has met of each kind.

    They are compared as numbers, as clients may since Kubernetes 1.35 and as was true of etcd's ever. One that is
    no number is met with silence: reads of its kind stay consistent ones.
    """

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}

    def newest(self, kind: str) -> str | None:
        """The resource version that a read of `kind` must not be older than; None if only the present will do."""
        version = self._newest.get(kind)
        return None if version is None else str(version)

    def read(self, kind: str, version: object) -> None:
        """A list of `kind` was as of `version`; the first one must have been a consistent read."""
        if isinstance(version, str) and version.isdecimal():
            self._newest[kind] = max(int(version), self._newest.get(kind, 0))

    def met(self, kind: str, version: object) -> None:
        """An object of `kind` has `version`, by an event or the answer to a write.

        Alone it tells nothing of what others have done to other objects before: without a list it does not count.
        """
        if kind in self._newest:
            self.read(kind, version)

    def forget(self, kind: str | None = None) -> None:
        """The next read, of `kind` or of every kind, is to be of the present."""
        if kind is None:
            self._newest.clear()
        else:
            self._newest.pop(kind, None)
