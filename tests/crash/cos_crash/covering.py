"""A seeded covering design: few rows that together hold everything that any row can hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

Row = TypeVar("Row")


def covering(rows: Iterable[Row], covers: Callable[[Row], Iterable[Hashable]], seed: int) -> list[Row]:
    """Some of `rows`, such that whatever `covers` says of any row it says of one of these.

    Greedy: the row that covers most of what is still missing comes first; the seed chooses among equals. Small is
    enough here, the smallest possible is not needed.
    """
    left = [(row, frozenset(covers(row))) for row in rows]
    random.Random(seed).shuffle(left)  # noqa: S311 - a design, not a secret
    missing = frozenset().union(*(items for _, items in left))
    chosen = []
    while missing:
        row, items = max(left, key=lambda entry: len(entry[1] & missing))
        chosen.append(row)
        missing -= items
        left = [entry for entry in left if entry[1] & missing]
    return chosen
