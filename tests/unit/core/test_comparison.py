"""Runs before and after: what is worse beyond noise, and what nobody can say."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cos_controllers.api.status import Verdict
from cos_controllers.comparison import FEWEST_RUNS, MOST_RUNS, compare

CALM = [100.0, 101, 99, 100.5, 99.5, 100.2, 99.8, 100.1]
figures = st.lists(st.floats(1, 1e9), min_size=FEWEST_RUNS, max_size=MOST_RUNS)


@pytest.mark.parametrize("before", range(FEWEST_RUNS, MOST_RUNS + 1))
@pytest.mark.parametrize("after", [4, 6])
def test_a_bound_is_wrong_in_at_most_a_twentieth_of_all_orders(before: int, after: int) -> None:
    """Of every order that runs without a difference can have, by enumeration; and the next bound would be too near."""
    runs = [math.exp(number) for number in range(before + after)]
    above, shares = 0, Counter[int]()
    for chosen in combinations(range(before + after), after):
        new = [runs[number] for number in chosen]
        old = [value for number, value in enumerate(runs) if number not in chosen]
        above += compare(old, new, more_is_worse=True).low > 0
        shares[sum(b > a for a in old for b in new)] += 1
    total = math.comb(before + after, after)
    assert 0 < above / total <= 0.05
    # `low` is above zero for the largest sums alone; the next sum in turn would make it more than a twentieth.
    likeliest = sorted(shares.items(), reverse=True)
    counted = 0
    for _, number in likeliest:
        if counted == above:
            assert (counted + number) / total > 0.05
            return
        counted += number
    pytest.fail("`low` is not above zero for the largest sums")


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (CALM, "Passed"),
        ([value * 1.05 for value in CALM], "Passed"),
        ([value * 0.2 for value in CALM], "Passed"),
        ([value * 1.3 for value in CALM], "Failed"),
        ([value * 1.1 for value in CALM], "Unknown"),
        ([value * 1.3 for value in CALM[:4]], "Failed"),
        # One run that was disturbed decides nothing.
        ([*CALM[:7], 5000.0], "Passed"),
        ([*CALM[:4], 150.0, 160.0, 170.0], "Unknown"),
        # What differs so much from run to run is not called unchanged; what is far beyond that is worse.
        ([50.0, 100, 200, 60, 150, 90, 180, 70], "Unknown"),
        ([500.0, 1000, 2000, 600, 1500, 900, 1800, 700], "Failed"),
    ],
)
def test_worse_by_more_than_a_tenth(after: list[float], verdict: str) -> None:
    assert compare(CALM, after, more_is_worse=True).verdict(0.1) is Verdict(verdict)


def test_fewer_requests_are_worse() -> None:
    slower = [value * 0.5 for value in CALM]
    found = compare(CALM, slower, more_is_worse=False)
    assert found.estimate == pytest.approx(0.5, rel=0.02), "of what there was"
    assert found.verdict(0.1) is Verdict.FAILED
    assert compare(slower, CALM, more_is_worse=False).verdict(0.1) is Verdict.PASSED


@given(figures, figures, st.floats(0.001, 1000))
def test_it_is_a_ratio_whose_bounds_hold_its_estimate(
    before: list[float], after: list[float], unit: float
) -> None:
    found = compare(before, after, more_is_worse=True)
    assert found.low <= found.estimate <= found.high
    assert found.noise >= 0
    scaled = compare([unit * v for v in before], [unit * v for v in after], more_is_worse=True)
    assert scaled.estimate == pytest.approx(found.estimate, rel=1e-6, abs=1e-6)
    back = compare(after, before, more_is_worse=True)
    assert (1 + back.low) * (1 + found.high) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("noise", [0.03, 0.1, 0.3])
def test_looking_after_each_run_accuses_what_is_unchanged_in_less_than_two_of_a_hundred(noise: float) -> None:
    dice = random.Random(7)  # noqa: S311 - not a secret

    def runs(worse: float = 0) -> list[float]:
        return [math.exp(dice.gauss(math.log1p(worse), noise)) for _ in range(MOST_RUNS)]

    def decided(worse: float) -> Verdict:
        before, after = runs(), runs(worse)
        verdicts = (
            compare(before, after[:count], more_is_worse=True).verdict(0.1)
            for count in range(FEWEST_RUNS, MOST_RUNS + 1)
        )
        return next((found for found in verdicts if found is not Verdict.UNKNOWN), Verdict.UNKNOWN)

    accused = sum(decided(0) is Verdict.FAILED for _ in range(200))
    excused = sum(decided(1) is Verdict.PASSED for _ in range(200))
    assert (accused <= 3, excused) == (True, 0)
