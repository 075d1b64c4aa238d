"""What can be told of the chart without Helm: its files agree with the operator, and with each other."""

from __future__ import annotations

import functools
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cos_controllers.changes import PRUNED_KINDS
from cos_operator.kube_kinds import KINDS, OPERATION_KINDS
from cos_operator.observe import CHILD_KINDS
from cos_operator.settings import OperatorSettings

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "cos-operator"
INSTALL = ROOT / "manifests" / "install.yaml"

sys.path.insert(0, str(ROOT / "hack"))
import render_manifests  # noqa: E402 - the path is set above

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
#: Values without a default of their own: their content is the user's.
FREE = {"global"}


@functools.cache
def install_objects() -> tuple[dict[str, Any], ...]:
    # The CRD has thousands of lines: seconds with the loader in Python.
    return tuple(yaml.load_all(INSTALL.read_text(), Loader=yaml.CSafeLoader))


def installed(kind: str) -> list[dict[str, Any]]:
    return [obj for obj in install_objects() if obj["kind"] == kind]


def the(kind: str) -> dict[str, Any]:
    (obj,) = installed(kind)
    return obj


def granted() -> dict[str, set[str]]:
    """Verbs by resource, of the one role that speaks of stacks."""
    verbs: dict[str, set[str]] = {}
    for rule in the("ClusterRole")["rules"]:
        for resource in rule["resources"]:
            verbs.setdefault(resource, set()).update(rule["verbs"])
    return verbs


def objects_of(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object with named properties."""
    if "properties" in schema:
        yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from objects_of(below, f"{path}.{name}")
    if "items" in schema:
        yield from objects_of(schema["items"], f"{path}[]")


def test_the_install_manifest_is_up_to_date_and_unedited() -> None:
    assert render_manifests.is_current(INSTALL.read_text()), "run `make generate`"


@pytest.mark.parametrize(
    "edit", [lambda text: text + "---\n", lambda text: text.replace("patch", "patsh", 1)]
)
def test_an_edited_install_manifest_is_noticed(edit: Any) -> None:
    assert not render_manifests.is_current(edit(INSTALL.read_text()))


def test_an_install_manifest_of_another_chart_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_manifests, "CHART", CHART / "templates")
    assert not render_manifests.is_current(INSTALL.read_text())


def test_versions_are_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_the_crds_are_those_of_the_project_and_survive_uninstalling() -> None:
    ours = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    assert {path.name: path.read_text() for path in (CHART / "files" / "crds").glob("*.yaml")} == ours
    rendered = {obj["metadata"]["name"]: obj for obj in installed("CustomResourceDefinition")}
    assert rendered == {
        obj["metadata"]["name"]: obj
        for obj in (yaml.load(text, Loader=yaml.CSafeLoader) for text in ours.values())
    }
    for crd in rendered.values():
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not (CHART / "crds").exists(), "Helm never upgrades what is there"


def test_the_schema_refuses_unknown_values_at_every_level() -> None:
    loose = [path for path, schema in objects_of(SCHEMA) if schema.get("additionalProperties") is not False]
    assert not loose


def test_every_value_has_a_schema_and_every_schema_a_default() -> None:
    def names(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> None:
        assert set(values) == set(schema["properties"]) - FREE, path
        for name, value in values.items():
            below = schema["properties"][name]
            # Empty maps are passed through to objects of Kubernetes.
            if isinstance(value, dict) and value and "properties" in below:
                names(value, below, f"{path}.{name}")

    names(VALUES, SCHEMA)


def test_defaults_are_those_of_the_operator() -> None:
    fields = OperatorSettings.model_fields
    assert VALUES["workers"] == fields["workers"].default
    assert VALUES["resyncSeconds"] == fields["resync_seconds"].default
    assert VALUES["log"] == {
        "level": fields["log_level"].default.value,
        "format": fields["log_format"].default.value,
    }


def test_the_deployment_sets_only_settings_that_there_are() -> None:
    (container,) = the("Deployment")["spec"]["template"]["spec"]["containers"]
    known = {f"COS_{name.upper()}" for name in OperatorSettings.model_fields}
    assert {item["name"] for item in container["env"]} <= known


def test_rights_are_those_that_the_operator_uses() -> None:
    plural = {kind: where.plural for kind, where in KINDS.items()}
    verbs = granted()
    for kind in CHILD_KINDS:
        assert "list" in verbs[plural[kind]], kind
    for kind in PRUNED_KINDS:
        assert {"create", "patch", "delete"} <= verbs[plural[kind]], kind
    assert "delete" not in verbs["persistentvolumeclaims"], "volumes are never deleted"
    assert "create" not in verbs["pods"], "workloads make pods"
    assert not verbs["cosstacks"] & {"create", "update", "patch", "delete"}, "a spec is the user's"
    assert verbs["cosstacks/status"] == {"patch"}
    assert verbs["stackprobes/status"] == {"patch"}
    for kind in ("stackprobes", "stackbackups", "stackrestores"):
        assert verbs[kind] == {"list", "watch", "create", "delete"}, (
            "those of schedules; a spec is the user's"
        )
    for kind in ("stackbackups", "stackrestores"):
        assert verbs[f"{kind}/status"] == {"patch"}
    own = {
        "cosstacks",
        "cosstacks/status",
        "cosstacks/finalizers",
        "stackprobes/status",
        "stackbackups/status",
        "stackrestores/status",
        "events",
        "pods/log",
    }
    assert set(verbs) - own == {plural[kind] for kind in (*CHILD_KINDS, *OPERATION_KINDS)}


def test_no_rule_is_wider_than_named_resources() -> None:
    for role in [*installed("ClusterRole"), *installed("Role")]:
        for rule in role["rules"]:
            said = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in said
            assert not {"pods/exec", "pods/attach", "pods/portforward", "nodes/proxy"} & set(said)
            assert not {"escalate", "bind", "impersonate"} & set(said)
            assert "nonResourceURLs" not in rule


def test_the_lease_is_the_one_that_the_operator_is_told() -> None:
    (container,) = the("Deployment")["spec"]["template"]["spec"]["containers"]
    env = {item["name"]: item.get("value") for item in container["env"]}
    role = the("Role")
    assert role["metadata"]["namespace"] == env["COS_LEASE_NAMESPACE"] == render_manifests.NAMESPACE
    create, use = role["rules"]
    assert create["verbs"] == ["create"]
    assert (use["resourceNames"], use["verbs"]) == ([env["COS_LEASE_NAME"]], ["get", "update"])


def test_the_pod_meets_pod_security_restricted_and_writes_nowhere() -> None:
    assert the("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = the("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "volumes" not in pod
    assert the("ServiceAccount")["automountServiceAccountToken"] is False


def test_a_new_version_of_the_chart_alone_does_not_restart_the_operator() -> None:
    template = the("Deployment")["spec"]["template"]["metadata"]
    assert template == {"labels": the("Deployment")["spec"]["selector"]["matchLabels"]}


def test_nothing_says_that_helm_manages_what_kubectl_installs() -> None:
    for obj in install_objects():
        labels = obj["metadata"].get("labels", {})
        assert "app.kubernetes.io/managed-by" not in labels
        assert "helm.sh/chart" not in labels
