"""Versions as users write them: ``17``, ``8.19.5``, ``v3.6.12``. A part that is left out may be anything."""

from __future__ import annotations

import re
from collections.abc import Iterable


def parts(version: str) -> tuple[int, ...]:
    """The numbers of a version; empty if it has none."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def newest(versions: Iterable[str]) -> str:
    """The highest of the versions, "" if there is none; of ``8.19`` and ``8.19.5`` the more precise."""
    return max(versions, key=parts, default="")


def is_older(version: str, other: str, *, precision: int) -> bool:
    """Whether `version` is certainly below `other` in the first `precision` parts that both have."""
    common = min(precision, len(parts(version)), len(parts(other)))
    return parts(version)[:common] < parts(other)[:common]
