"""Alerts by a real Prometheus that scrapes the operator, with the rules as they are shipped."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT, Cluster, run_testbed, wait_for

from conftest import NAMESPACE, OPERATOR_NAMESPACE

DASHBOARDS = ROOT / "charts/cos-operator/files/dashboards"
#: Panels that are empty while all is well.
OF_TROUBLE = {"Gates that do not pass", "Reasons", "Changes taken back", "API requests that fail"}
#: Panels that are empty of a stack without probes or objectives.
OF_PROBES = {
    "Objectives",
    "Latency by probes, p95",
    "Requests a second by probes",
    "Requests of probes that fail",
    "Memory growth during a probe",
    "Probes that ended",
    "Since the last good probe",
}
#: Panels that are empty of a stack without backups.
OF_BACKUPS = {
    "Age of the newest good copy",
    "Backups and restores that ended",
    "Size of the newest good copy",
    "Duration of the newest good copy",
    "Since copies were last proved",
    "Duration of a restore",
}
RULES = ROOT / "charts/cos-operator/files/monitoring/rules.yaml"


class Prometheus:
    """A server on this machine; it reaches the cluster's Services as the host does."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str) -> Any:
        """`data` of an API answer."""
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}", timeout=5) as answer:  # noqa: S310 - http, above
            return json.load(answer)["data"]

    def answers(self) -> bool:
        try:
            return bool(self.ask("status/runtimeinfo"))
        except OSError:
            return False

    def targets_up(self) -> bool:
        found = self.ask("targets?state=active")["activeTargets"]
        return bool(found) and all(target["health"] == "up" for target in found)

    def evaluations(self) -> int:
        """How often the rules that were evaluated least have been."""
        found = self.ask("query?query=min(prometheus_rule_group_iterations_total)")["result"]
        return int(found[0]["value"][1]) if found else 0

    def unanswered(self) -> set[str]:
        """Panels of the dashboards whose queries find nothing, all variables set to what there is."""
        values = {"$namespace": NAMESPACE, "$stack": "cos", "$job": "cos-operator"}
        found = set()
        for path in DASHBOARDS.glob("*.json"):
            for panel in json.loads(path.read_text())["panels"]:
                for target in panel["targets"]:
                    query = target["expr"]
                    for name, value in values.items():
                        query = query.replace(name, value)
                    if not self.ask("query?" + urllib.parse.urlencode({"query": query}))["result"]:
                        found.add(panel["title"])
        return found

    def firing(self) -> dict[str, dict[str, Any]]:
        """What fires of the operator and of the shared stack, by alert and component."""
        return {
            f"{alert['labels']['alertname']} {alert['labels'].get('component', '')}".strip(): alert
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing" and alert["labels"].get("namespace", NAMESPACE) == NAMESPACE
        }


@pytest.fixture
def prometheus(healthy: Cluster, tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus with the shipped rules; it scrapes and evaluates every second, itself included."""
    service = healthy.get("service", "cos-operator-metrics", OPERATOR_NAMESPACE)
    assert service
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    jobs = {"cos-operator": f"{service['spec']['clusterIP']}:8080", "prometheus": address}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": name, "honor_labels": True, "static_configs": [{"targets": [target]}]}
            for name, target in jobs.items()
        ],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    program = run_testbed("path", "prometheus", timeout=900)
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(
            [
                program,
                f"--config.file={tmp_path / 'prometheus.yaml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Prometheus(f"http://{address}")
        wait_for("Prometheus answers", server.answers, 30)
        wait_for("every target is scraped", server.targets_up, 30)
        yield server
    finally:
        child.terminate()
        child.wait(20)


def test_nothing_fires_of_a_healthy_stack_and_a_killed_redis_is_told_at_once(
    healthy: Cluster, prometheus: Prometheus
) -> None:
    seen = prometheus.evaluations()
    wait_for("the rules were evaluated", lambda: prometheus.evaluations() >= seen + 5, 60)
    assert prometheus.firing() == {}
    assert prometheus.unanswered() <= OF_TROUBLE | OF_PROBES | OF_BACKUPS

    # The second end comes before the first back-off is over, so that kubelet waits ten seconds with the restart.
    restarts = _restarts(healthy)
    for number in (1, 2):
        run_testbed("kill", "cos-redis-0", "KILL", "-n", NAMESPACE)
        if number == 1:
            wait_for("Redis restarts", lambda: _restarts(healthy) == restarts + 1, 30, interval=0.1)
            healthy.run("wait", "--for=condition=Ready", "pod/cos-redis-0", "-n", NAMESPACE, "--timeout=30s")
    fired = wait_for(
        "the alert fires", lambda: prometheus.firing().get("CosComponentDown redis"), 30, interval=0.2
    )
    assert (
        fired["labels"] | {"namespace": NAMESPACE, "stack": "cos", "severity": "critical"} == fired["labels"]
    )
    assert fired["annotations"]["summary"] == f"redis of stack {NAMESPACE}/cos does not serve"
    assert set(prometheus.firing()) <= {"CosComponentDown redis"}, "nobody else is blamed"

    healthy.wait_ready("cos", NAMESPACE)
    wait_for("it is over", lambda: prometheus.firing() == {}, 60)


def _restarts(cluster: Cluster) -> int:
    pod = cluster.get("pod", "cos-redis-0", NAMESPACE)
    assert pod
    return int(pod["status"]["containerStatuses"][0]["restartCount"])
