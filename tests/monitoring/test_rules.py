"""The alert rules by promtool: what fires and what stays silent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "charts/cos-operator/files/monitoring/rules.yaml"


@pytest.fixture(scope="session")
def promtool() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cos_testbed", "path", "promtool"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=900,
    )
    return done.stdout.strip()


def run(promtool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, *arguments], check=False, capture_output=True, text=True, timeout=60)


def test_prometheus_takes_the_rules(promtool: str) -> None:
    done = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_and_stay_silent_as_they_should(promtool: str, tmp_path: Path) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text((HERE / "rules_test.yaml").read_text().replace("[RULES]", f"[{RULES}]"))
    done = run(promtool, "test", "rules", str(cases))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    alerts = {
        rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    }
    cases = yaml.safe_load((HERE / "rules_test.yaml").read_text())["tests"]
    seen = [
        (item["alertname"], bool(item.get("exp_alerts")))
        for case in cases
        for item in case["alert_rule_test"]
    ]
    assert {name for name, fires in seen if fires} == alerts
    assert {name for name, fires in seen if not fires} == alerts


def test_a_rule_that_is_wrong_is_noticed(promtool: str, tmp_path: Path) -> None:
    """That the cases can fail: with the threshold of a queue moved, the one that fires does not."""
    rules, cases = tmp_path / "rules.yaml", tmp_path / "cases.yaml"
    rules.write_text(RULES.read_text().replace("queue_depth[3m])) > 0", "queue_depth[3m])) > 10"))
    cases.write_text((HERE / "rules_test.yaml").read_text().replace("[RULES]", f"[{rules}]"))
    assert run(promtool, "test", "rules", str(cases)).returncode != 0
