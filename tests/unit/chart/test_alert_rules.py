"""The alert rules: each metric exists, each alert says what a person on call needs, and has a page of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cos_controllers.api.status import ConditionType, Reason
from cos_operator import metrics

ROOT = Path(__file__).parents[3]
RULES_FILE = ROOT / "charts/cos-operator/files/monitoring/rules.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES: dict[str, Any] = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES_FILE.read_text())["groups"]
    for rule in group["rules"]
}
#: Of Prometheus' own client, for every process.
OF_PROCESSES = {"process_cpu_seconds_total"}


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
