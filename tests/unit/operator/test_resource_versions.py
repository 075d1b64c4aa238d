"""Which state a read must not be older than."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cos_operator.resource_versions import LAG_SECONDS, ResourceVersions


@given(st.lists(st.tuples(st.booleans(), st.integers(min_value=1, max_value=10**18))))
def test_it_never_goes_back_and_counts_from_a_consistent_list_on(heard: list[tuple[bool, int]]) -> None:
    """What was met before the list counts as well: its event may be what the next read is for."""
    versions, newest, counts = ResourceVersions(), 0, False
    for listed, version in heard:
        if listed:
            versions.listed("Pod", str(version))
        else:
            versions.met("Pod", str(version))
        newest, counts = max(version, newest), counts or listed
        assert versions.newest("Pod") == (str(newest) if counts else None)
    assert versions.newest("Secret") is None


def test_who_begins_to_lead_forgets_all() -> None:
    versions = ResourceVersions()
    for kind in ("Pod", "Secret"):
        versions.listed(kind, "5")
    versions.forget()
    versions.met("Pod", "9")
    assert [versions.newest(kind) for kind in ("Pod", "Secret")] == [None, None]
    versions.listed("Pod", "7")
    assert versions.newest("Pod") == "9"


def test_a_kind_whose_cache_lags_is_read_as_of_the_present_for_a_while() -> None:
    """Else each read would first wait three seconds for a cache that does not come."""
    now = 0.0
    versions = ResourceVersions(clock=lambda: now)
    versions.listed("Pod", "50")
    versions.listed("Secret", "50")
    versions.lags("Pod")
    versions.listed("Pod", "40")
    versions.met("Pod", "41")
    assert [versions.newest(kind) for kind in ("Pod", "Secret")] == [None, "50"]
    now = LAG_SECONDS
    assert versions.newest("Pod") is None
    versions.listed("Pod", "42")
    assert versions.newest("Pod") == "42", "also if that is less than before: etcd was put back"


def test_what_is_no_number_cannot_be_compared() -> None:
    versions = ResourceVersions()
    for version in ("", "abc", None, 7, "-3", "1.5"):
        versions.listed("Pod", version)
    assert versions.newest("Pod") is None
    versions.listed("Pod", "9")
    versions.met("Pod", "opaque")
    assert versions.newest("Pod") == "9"
