"""What the queues hold."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """Namespace and name of a stack."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
