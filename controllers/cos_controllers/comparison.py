"""Whether one set of runs is worse than another one, beyond what runs of the same thing differ by.

Hodges and Lehmann's estimate of a shift between two samples and its distribution-free bounds (Mann and Whitney's U;
Hollander, Wolfe, Chicken: Nonparametric Statistical Methods, 3rd ed., 4.2 and 4.3), of logarithms, so that a shift is a
ratio. A few runs are enough, one that was disturbed moves neither the estimate nor the bounds far, and nothing is
assumed of how runs are distributed. The unit is one run: requests of a run are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import median

from cos_controllers.api.status import Verdict

#: Runs of each side: fewer have no bound at 95 %, more need not be waited for.
FEWEST_RUNS = 4
MOST_RUNS = 8
#: Where runs of one side differ by more than this share, nobody can say that nothing is worse.
MOST_NOISE = 0.3
#: Chance at most that a bound is on the wrong side of the truth.
_ERROR = 0.05


@dataclass(frozen=True)
class Change:
    """By how much runs are worse (0.1: by a tenth; below 0: better): the estimate, and its one-sided bounds at 95 %.

    `noise`: the share by which two runs of the same side differ, in the middle of all pairs.
    """

    estimate: float
    low: float
    high: float
    noise: float

    def verdict(self, limit: float) -> Verdict:
        """Whether they are worse by more than `limit` (a share) and more than the noise; Unknown if either may be."""
        margin = max(limit, self.noise)
        if self.low > margin:
            return Verdict.FAILED
        return Verdict.PASSED if self.high < margin and self.noise <= MOST_NOISE else Verdict.UNKNOWN


def compare(before: Sequence[float], after: Sequence[float], *, more_is_worse: bool) -> Change:
    """How `after` stands to `before`: positive figures of runs, `FEWEST_RUNS` to `MOST_RUNS` of each, in any order.

    Where less is worse the shares are of what there was: a half is 0.5 worse, a third as much 0.67.
    """
    old, new = ([math.log(value) for value in side] for side in (before, after))
    shifts = sorted((b - a) if more_is_worse else (a - b) for a in old for b in new)
    outside = _outside(len(old), len(new))
    noise = max(median(abs(a - b) for a, b in combinations(side, 2)) for side in (old, new))

    def share(shift: float) -> float:
        return math.expm1(shift) if more_is_worse else -math.expm1(-shift)

    return Change(*map(share, (median(shifts), shifts[outside], shifts[-1 - outside], noise)))


def _outside(before: int, after: int) -> int:
    """How many of the sorted differences lie outside of a one-sided bound: the largest u with P(U <= u) <= 5 %.

    U: how often a run of one side is above one of the other, if there is no difference.
    """
    allowed = _ERROR * math.comb(before + after, before)
    total = 0
    for u in range(before * after + 1):
        total += _orders(u, before, after)
        if total > allowed:
            return u - 1
    raise ValueError("too few runs for a bound")


@cache
def _orders(u: int, before: int, after: int) -> int:
    """In how many orders of all runs U is `u` (Mann and Whitney's recursion: of which side the largest run is)."""
    if u < 0:
        return 0
    if not before or not after:
        return int(u == 0)
    return _orders(u - after, before - 1, after) + _orders(u, before, after - 1)
