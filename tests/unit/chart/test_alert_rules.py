"""The alert rules: each metric exists, each alert says what a person on call needs, and has a page of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cos_controllers.api.status import ConditionType, Reason
from cos_operator import metrics

ROOT = Path(__file__).parents[3]
RULES_FILE = ROOT / "charts/cos-operator/files/monitoring/rules.yaml"
DASHBOARDS = ROOT / "charts/cos-operator/files/dashboards"
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES: dict[str, Any] = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES_FILE.read_text())["groups"]
    for rule in group["rules"]
}
#: Of Prometheus' own client, for every process.
OF_PROCESSES = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def exposed() -> set[str]:
    """Every name that a query or a page may use: a histogram has several."""
    names = set(OF_PROCESSES)
    for name, kind, *_ in metrics.table():
        names |= {name, *(f"{name}_{part}" for part in ("bucket", "sum", "count") if kind == "histogram")}
    return names


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_says_what_who_is_paged_needs(alert: str) -> None:
    rule = RULES[alert]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"
    page = (RUNBOOKS / f"{alert}.md").read_text()
    assert re.findall(r"^#+ (.*)$", page, re.MULTILINE) == [alert, "Impact", "Look", "Do"]


@pytest.mark.parametrize("path", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_a_dashboard_asks_only_for_what_is_exposed_and_says_what_it_shows(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == path.stem
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [item["query"]["query"] for item in dashboard["templating"]["list"] if item["type"] == "query"]
    used = {name for query in queries for name in re.findall(r"\b(?:cos|process)_[a-z_]+\b", query)}
    assert used <= exposed()
    for panel in dashboard["panels"]:
        assert panel["description"].endswith(".")
        assert all(target["legendFormat"] for target in panel["targets"])
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places)), "panels overlap"
    assert max(x for x, _ in places) < 24


def test_every_metric_of_stacks_is_shown_somewhere() -> None:
    shown = "".join(path.read_text() for path in DASHBOARDS.glob("*.json"))
    of_stacks = {name for name, *_ in metrics.table() if name.startswith(("cos_stack_", "cos_probe_"))}
    # What these two tell is in the reasons, and in the conditions.
    assert {name for name in of_stacks if not re.search(rf"\b{name}\b", shown)} == {
        "cos_stack_component_ready",
        "cos_stack_component_changing",
    }


def test_every_page_is_of_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(RULES)


@pytest.mark.parametrize(
    "text",
    [rule["expr"] for rule in RULES.values()] + [page.read_text() for page in sorted(RUNBOOKS.glob("*.md"))],
    ids=[*RULES, *(f"{page.stem} page" for page in sorted(RUNBOOKS.glob("*.md")))],
)
def test_only_what_is_exposed_is_asked_for(text: str) -> None:
    used = set(re.findall(r"\b(?:cos|process)_[a-z_]+\b", text))
    assert used <= exposed()
    for reasons in re.findall(r'reason=~?"([^"]*)"', text):
        assert set(reasons.split("|")) <= set(Reason)
    for kind in re.findall(r'type="([^"]*)"', text):
        assert kind in set(ConditionType)


def test_links_between_pages_lead_somewhere() -> None:
    for page in RUNBOOKS.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
