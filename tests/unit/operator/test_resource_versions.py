"""Which state a read must not be older than."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cos_operator.resource_versions import ResourceVersions


@given(st.lists(st.tuples(st.booleans(), st.integers(min_value=1, max_value=10**18))))
def test_it_never_goes_back_and_begins_with_a_list(heard: list[tuple[bool, int]]) -> None:
    versions, expected = ResourceVersions(), None
    for listed, version in heard:
        if listed:
            versions.read("Pod", str(version))
        else:
            versions.met("Pod", str(version))
        if listed or expected is not None:
            expected = max(version, expected or 0)
        assert versions.newest("Pod") == (None if expected is None else str(expected))
    assert versions.newest("Secret") is None


def test_each_kind_is_forgotten_alone_or_all_are() -> None:
    versions = ResourceVersions()
    for kind in ("Pod", "Secret", "Service"):
        versions.read(kind, "5")
    versions.forget("Pod")
    assert [versions.newest(kind) for kind in ("Pod", "Secret", "Service")] == [None, "5", "5"]
    versions.forget()
    assert [versions.newest(kind) for kind in ("Pod", "Secret", "Service")] == [None, None, None]


def test_what_is_no_number_cannot_be_compared() -> None:
    versions = ResourceVersions()
    for version in ("", "abc", None, 7, "-3", "1.5"):
        versions.read("Pod", version)
    assert versions.newest("Pod") is None
    versions.read("Pod", "9")
    versions.met("Pod", "opaque")
    assert versions.newest("Pod") == "9"
