"""Settings from the environment, and the words for wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from cos_operator import settings
from cos_operator.settings import LogFormat, LogLevel, OperatorSettings, SettingsError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OperatorSettings.model_fields:
        monkeypatch.delenv(f"COS_{name.upper()}", raising=False)


def test_defaults_serve_the_whole_cluster() -> None:
    loaded = OperatorSettings.load()
    assert loaded.namespaces == ()
    assert loaded.leader_elect
    assert (loaded.lease_name, loaded.http_port, loaded.workers) == ("cos-operator", 8080, 4)
    assert (loaded.resync_seconds, loaded.reconcile_timeout_seconds) == (600, 60)
    assert (loaded.log_level, loaded.log_format) == (LogLevel.INFO, LogFormat.JSON)


def test_every_process_has_its_own_identity() -> None:
    assert OperatorSettings.load().identity != OperatorSettings.load().identity


def test_values_come_from_the_environment_and_overrides_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COS_NAMESPACES", " cos, team-a,cos ,")
    monkeypatch.setenv("COS_LEADER_ELECT", "false")
    monkeypatch.setenv("COS_LOG_LEVEL", "WARNING")
    monkeypatch.setenv("COS_HTTP_PORT", "9090")
    # What Kubernetes sets for a Service of the namespace is none of ours.
    monkeypatch.setenv("COS_REDIS_PORT", "tcp://10.96.0.7:6379")
    loaded = OperatorSettings.load(http_port=0)
    assert loaded.namespaces == ("cos", "team-a")
    assert not loaded.leader_elect
    assert loaded.log_level is LogLevel.WARNING
    assert loaded.http_port == 0


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("COS_WORKERS", "many", "valid integer"),
        ("COS_WORKERS", "0", "greater than or equal to 1"),
        ("COS_RESYNC_SECONDS", "3600", "less than or equal to 600"),
        ("COS_LOG_FORMAT", "xml", "'json' or 'console'"),
        ("COS_LEADER_ELECT", "perhaps", "valid boolean"),
        ("COS_NAMESPACES", "cos,Team_A", "'Team_A' is not the name of a namespace"),
        ("COS_HTTP_PORT", "tcp://10.0.0.1:80", "valid integer"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        OperatorSettings.load()
    assert str(refused.value).startswith(f"{variable}: ")
    assert words in str(refused.value)


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COS_WORKERS", "0")
    monkeypatch.setenv("COS_RESYNC_SECONDS", "-1")
    with pytest.raises(SettingsError, match=r"COS_WORKERS: .*; COS_RESYNC_SECONDS: "):
        OperatorSettings.load()


def test_the_lease_is_in_the_pods_namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "_POD_NAMESPACE", tmp_path / "namespace")
    assert OperatorSettings.load().home_namespace() == "default"
    (tmp_path / "namespace").write_text("cos-system")
    assert OperatorSettings.load().home_namespace() == "cos-system"
    assert OperatorSettings.load(lease_namespace="leases").home_namespace() == "leases"
