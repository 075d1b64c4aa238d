"""Which events of a stack are only the echo of the operator's own status."""

from __future__ import annotations

from typing import Any

import pytest

from cos_operator.echoes import Echoes, state

METADATA: dict[str, Any] = {
    "name": "cos",
    "namespace": "a",
    "uid": "u1",
    "generation": 3,
    "resourceVersion": "7",
    "labels": {"team": "x"},
    "managedFields": [{"manager": "kubectl"}],
}
STATUS = {"observedGeneration": 3, "components": [{"name": "redis", "ready": True}]}


def test_bookkeeping_of_the_write_itself_makes_no_difference() -> None:
    after = {**METADATA, "resourceVersion": "8", "managedFields": [{"manager": "cos-operator"}]}
    assert state(after, STATUS) == state(METADATA, STATUS)


@pytest.mark.parametrize(
    "changed",
    [
        {"generation": 4},
        {"uid": "u2"},
        {"labels": {"team": "y"}},
        {"annotations": {"look": "again"}},
        {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        {"finalizers": ["example.com/held"]},
    ],
)
def test_whatever_a_person_changes_is_news(changed: dict[str, Any]) -> None:
    assert state({**METADATA, **changed}, STATUS) != state(METADATA, STATUS)


def test_a_status_that_somebody_else_wrote_is_news() -> None:
    assert state(METADATA, {**STATUS, "components": []}) != state(METADATA, STATUS)


def test_only_what_was_left_last_echoes() -> None:
    echoes: Echoes[str] = Echoes()
    assert not echoes.is_echo("a", "")
    echoes.left("a", "1")
    echoes.left("a", "2")
    echoes.left("b", "1")
    assert [echoes.is_echo("a", shown) for shown in ("1", "2", "")] == [False, True, False]
    echoes.forget("a")
    assert not echoes.is_echo("a", "2")
    assert echoes.is_echo("b", "1")
    echoes.forget()
    assert not echoes.is_echo("b", "1")
