"""What the prober needs of an engine: a place with data, connections by check, and what the engine takes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cos_controllers.credentials import Login
from cos_controllers.probes.order import Check
from cos_operator.probe.load import Connection

#: Seconds for a request or a connection.
REQUEST_SECONDS = 5.0


@dataclass(frozen=True)
class Target:
    """An engine to try, as the application reaches it.

    `login` is None for one without accounts; `reserved`: connections that are not for applications.
    """

    host: str
    port: int
    login: Login | None = None
    reserved: int = 0

    @property
    def user(self) -> Login:
        """The login of an engine that has accounts."""
        if self.login is None:
            raise ValueError("no login")
        return self.login


class Amounts(NamedTuple):
    """What an engine takes, by its own account; None where it does not say. CPU time in seconds, memory in bytes."""

    cpu: float | None = None
    memory: int | None = None
    connections: int | None = None
    connections_limit: int | None = None


#: Data is written in so many parts, with a pause after each: as fast as can be is what applications notice most.
_PARTS = 10
_PAUSE_SECONDS = 0.1


def in_parts(amount: int) -> Iterator[tuple[int, int]]:
    """Where each part of `amount` things begins and ends, one after the other with pauses."""
    size = -(-amount // _PARTS)
    for start in range(0, amount, size):
        yield start, min(start + size, amount)
        time.sleep(_PAUSE_SECONDS)


class Driver(Protocol):
    """One engine. Implementations raise what their driver raises."""

    def prepare(self, target: Target) -> None:
        """Write the data that checks need, in a place that is empty."""

    def amounts(self, target: Target) -> Amounts:
        """What the engine takes now."""

    def connector(self, target: Target, check: Check) -> Callable[[], Connection]:
        """What opens a connection for a check."""


#: A small vocabulary: a search for two of its words finds many documents, and must rank them.
WORDS = tuple(f"word{number}" for number in range(60))


def text(seed: int, length: int) -> str:
    """Words of `WORDS`: the same for the same seed."""
    dice = random.Random(seed)  # noqa: S311 - not a secret
    words = []
    size = 0
    while size < length:
        word = dice.choice(WORDS)
        words.append(word)
        size += len(word) + 1
    return " ".join(words)[:length]
