"""Telling the event of a status that this process wrote itself from news."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Generic, TypeVar

from cos_controllers.hashing import digest

K = TypeVar("K", bound=Hashable)

#: What every write changes.
_BOOKKEEPING = frozenset({"resourceVersion", "managedFields"})


def state(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """A digest of a stack: its spec (by the generation), what a person sets in its metadata, its status."""
    return digest([{key: value for key, value in metadata.items() if key not in _BOOKKEEPING}, status])


class Echoes(Generic[K]):
    """The state in which the last pass left each key, known before the write of its status is sent.

    An event that shows this state says nothing that was not decided upon; see `docs/adr/0012-stacks-at-rest.md`.
    """

    def __init__(self) -> None:
        self._left: dict[K, str] = {}

    def left(self, key: K, as_: str) -> None:
        """A pass is about to leave `key` in this `state`."""
        self._left[key] = as_

    def is_echo(self, key: K, shown: str) -> bool:
        """Whether an event that shows this `state` is only the echo of what `left` told."""
        return self._left.get(key) == shown

    def forget(self, key: K | None = None) -> None:
        """Take whatever comes of `key`, or of every key, for news."""
        if key is None:
            self._left.clear()
        else:
            self._left.pop(key, None)
