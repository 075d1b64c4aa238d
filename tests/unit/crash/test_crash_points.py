"""Which cases are tried: all of them in the end, the important ones first, the same ones for the same seed."""

from __future__ import annotations

import itertools

import pytest
from cos_crash.covering import covering
from cos_crash.faults import KILLS, Case, Fault, FaultKind, Injection, Stream
from cos_crash.lane import Result
from cos_crash.lifecycles import LIFE_CYCLES
from cos_crash.points import Points, pairs, resolved

TOTALS = {Stream.WRITES: 7, Stream.LISTS: 40, Stream.EVENTS: 12}
CYCLES = tuple(cycle.name for cycle in LIFE_CYCLES)


def result(text: str, *, unreached: bool = False) -> Result:
    return Result(Case.parse(text), (), unreached, 1.0, ())


@pytest.mark.parametrize(
    "text", ["create.none", "edit.kill-before.1", "scale-out.kill-after.12", "delete.stale.3+gone.44"]
)
def test_a_case_is_its_id(text: str) -> None:
    assert str(Case.parse(text)) == text


@pytest.mark.parametrize("text", ["create", "create.kill-before", "create.kill-before.0", "edit.melted.3"])
def test_what_is_no_case_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        Case.parse(text)


def test_a_covering_design_leaves_nothing_out_and_repeats_for_its_seed() -> None:
    rows = list(itertools.product("abc", "abc", "xyz"))

    def covers(row: tuple[str, str, str]) -> list[tuple[str, str]]:
        return [(row[0], row[1]), (row[0], row[2])]

    design = covering(rows, covers, 5)
    assert {item for row in design for item in covers(row)} == {item for row in rows for item in covers(row)}
    assert len(design) == 9, "nine pairs of the first two factors, and each row holds one"
    assert covering(rows, covers, 5) == design
    assert covering(rows, covers, 6) != design


def test_every_two_faults_meet_and_every_fault_strikes_every_life_cycle_at_every_place() -> None:
    design = pairs(CYCLES, 4)
    met = {frozenset(pair.kinds) for pair in design}
    assert met == {frozenset(kinds) for kinds in itertools.combinations_with_replacement(FaultKind, 2)}
    struck = {(pair.cycle, *at) for pair in design for at in zip(pair.kinds, pair.shares, strict=True)}
    assert len(struck) == len(CYCLES) * len(FaultKind) * 3
    assert len(design) < 130, "small enough to be tried in full"


def test_two_faults_of_a_pair_have_places_of_their_own() -> None:
    for pair in pairs(CYCLES, 4):
        one, other = resolved(pair, TOTALS).faults
        assert (one.kind.stream, one.n) != (other.kind.stream, other.n)
        assert 1 <= one.n <= TOTALS[one.kind.stream]


def test_every_write_is_struck_before_and_after_and_these_come_first() -> None:
    points = Points(seed=4)
    points.prepare("edit", TOTALS)
    order = []
    while points.outstanding("edit"):
        order.append(points.take("edit"))
    assert len(order) == len(set(order))
    kills = {case for case in order if len(case.faults) == 1}
    assert kills == {
        Case("edit", (Fault(kind, n),)) for kind in KILLS for n in range(1, TOTALS[Stream.WRITES] + 1)
    }
    assert [case.faults[0].kind for case in order[:2]] == list(KILLS)
    assert points.take("edit") == Case("edit"), "without a fault, as the way to the next life cycle"
    again = Points(seed=4)
    again.prepare("edit", TOTALS)
    assert [again.take("edit") for _ in order] == order


def test_finished_cases_are_left_out_and_chosen_ones_are_all() -> None:
    points = Points(4, finished={"edit.kill-before.1"})
    points.prepare("edit", TOTALS)
    total = len(points.all)
    left = 0
    while points.outstanding("edit"):
        assert str(points.take("edit")) != "edit.kill-before.1"
        left += 1
    assert left == total - 1

    chosen = Points(4, [Case.parse("edit.gone.3")])
    assert not chosen.outstanding("rollback")
    assert chosen.outstanding("edit")
    chosen.prepare("create", TOTALS)
    chosen.prepare("edit", TOTALS)
    assert not chosen.outstanding("create")
    assert str(chosen.take("edit")) == "edit.gone.3"


def test_a_write_behind_the_last_known_one_is_tried_too() -> None:
    points = Points(4)
    points.prepare("edit", TOTALS)
    before = len(points.all)
    points.note(result("edit.kill-before.7", unreached=True))
    points.note(result("edit.kill-before.6"))
    assert len(points.all) == before
    points.note(result("edit.kill-after.7"))
    points.note(result("edit.kill-before.7"))
    assert len(points.all) == before + 2
    assert {Case.parse("edit.kill-before.8"), Case.parse("edit.kill-after.8")} <= points.all


def test_a_fault_strikes_once_at_its_place() -> None:
    injection = Injection(Case.parse("edit.error.2+gone.1+stale.2").faults)
    assert injection.next(Stream.WRITES) == (1, None)
    assert injection.next(Stream.EVENTS) == (1, FaultKind.GONE)
    assert injection.next(Stream.WRITES) == (2, FaultKind.ERROR)
    assert injection.next(Stream.WRITES) == (3, None)
    assert injection.next(Stream.LISTS) == (1, None)
    assert not injection.take_stale()
    assert injection.next(Stream.LISTS) == (2, None)
    assert list(map(str, injection.unreached)) == ["stale.2"]
    assert injection.next(Stream.LISTS) == (3, None)
    assert injection.take_stale(), "the first list from its place on that has an older answer"
    assert not injection.take_stale()
    assert injection.unreached == ()
