"""The arithmetic of the measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def exponent(small: tuple[float, float], large: tuple[float, float]) -> float:
    """The power of growth between two points (size, value): 1 is proportional."""
    return math.log(large[1] / small[1]) / math.log(large[0] / small[0])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Rise per unit of the line that fits points (x, y) best."""
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def spread(values: Sequence[float], form: str) -> str:
    """The median and, of several values, the lowest and highest."""
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)} to {format(max(values), form)})"
