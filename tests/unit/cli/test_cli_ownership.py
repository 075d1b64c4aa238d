"""Who applies a stack, so that a person hears what else must change."""

from __future__ import annotations

from typing import Any

import pytest

from cos_operator.cli.ownership import applier_of, last_applied, source_of


def stack(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "cos", **metadata}}


def entry(manager: str, operation: str, time: str = "2026-01-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    fields = {"manager": manager, "operation": operation, "time": time, "fieldsV1": {"f:spec": {}}}
    return fields | more


@pytest.mark.parametrize(
    ("metadata", "tool", "says"),
    [
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "shop:cos.dev/CosStack:cos/cos"}},
            "Argo CD",
            "Argo CD (Application shop) applies this stack from Git: change it there too",
        ),
        ({"labels": {"argocd.argoproj.io/instance": "shop"}}, "Argo CD", "(Application shop)"),
        ({"managedFields": [entry("argocd-controller", "Apply")]}, "Argo CD", "Argo CD applies"),
        (
            {
                "labels": {
                    "kustomize.toolkit.fluxcd.io/name": "apps",
                    "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
                }
            },
            "Flux",
            "Flux (Kustomization flux-system/apps) applies this stack from Git",
        ),
        (
            {
                "labels": {
                    "helm.toolkit.fluxcd.io/name": "shop",
                    "helm.toolkit.fluxcd.io/namespace": "flux-system",
                    "app.kubernetes.io/managed-by": "Helm",
                }
            },
            "Flux",
            "(HelmRelease flux-system/shop)",
        ),
        (
            {
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": {"meta.helm.sh/release-name": "shop"},
            },
            "Helm",
            "Helm (release shop) applies this stack: change its values or chart too",
        ),
        ({}, "kubectl", "change the manifest that it is applied from too"),
        (
            {"managedFields": [entry("kubectl", "Apply"), entry("kubectl-cos", "Update")]},
            "kubectl",
            "the next apply undoes this",
        ),
    ],
)
def test_the_source_is_named_and_must_follow(metadata: dict[str, Any], tool: str, says: str) -> None:
    found = source_of(stack(**metadata))
    assert found.tool == tool
    assert says in found.warning


@pytest.mark.parametrize(
    ("entries", "manager"),
    [
        ([], None),
        ([entry("kubectl-client-side-apply", "Update")], None),
        ([entry("kubectl-create", "Update")], None),
        ([entry("kubectl", "Apply")], "kubectl"),
        ([entry("cos-operator", "Apply", subresource="status")], None),
        ([entry("argocd-controller", "Apply"), entry("kubectl-cos", "Update")], "argocd-controller"),
        # The newest counts: someone has changed over.
        ([entry("kubectl-client-side-apply", "Update"), entry("a", "Apply", "2026-01-02T00:00:00Z")], "a"),
        ([entry("a", "Apply"), entry("kubectl-client-side-apply", "Update", "2026-01-02T00:00:00Z")], None),
        ([entry("labels-only", "Apply", fieldsV1={"f:metadata": {}})], None),
    ],
)
def test_an_apply_is_tried_as_the_one_who_applied_last(
    entries: list[dict[str, Any]], manager: str | None
) -> None:
    assert applier_of(stack(managedFields=entries)) == manager


def test_the_manifest_of_the_last_apply() -> None:
    key = "kubectl.kubernetes.io/last-applied-configuration"
    assert last_applied(stack(annotations={key: "{}"})) == "{}"
    assert last_applied(stack()) is None
