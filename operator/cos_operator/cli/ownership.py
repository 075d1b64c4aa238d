"""Who else writes a stack's spec: what a person changes by hand is undone if its source does not follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cos_operator.cli import Manifest

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
#: Field managers of the controllers that apply from Git, for installations that track by other labels.
_CONTROLLERS = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "helm": "Helm",
    "Helm": "Helm",
}


class Source(NamedTuple):
    """Where a stack's spec comes from: `tool`, the `name` by which that knows it, and whether that is Git."""

    tool: str
    name: str
    is_git: bool

    @property
    def warning(self) -> str:
        """What a person has to do besides."""
        who = f"{self.tool} ({self.name})" if self.name else self.tool
        if self.is_git:
            return f"{who} applies this stack from Git: change it there too, or the next sync undoes this"
        if self.tool == "Helm":
            return (
                f"{who} applies this stack: change its values or chart too, or the next upgrade undoes this"
            )
        return (
            "this changes the stack in the cluster only: change the manifest that it is applied from too, or the "
            "next apply undoes this"
        )


def source_of(stack: Manifest) -> Source:
    """The tool that applies a stack, by its labels, annotations and field managers; `kubectl` if none is known."""
    return next(_sources(stack["metadata"]), Source("kubectl", "", is_git=False))


def _sources(metadata: Manifest) -> Iterator[Source]:
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if tracking := annotations.get("argocd.argoproj.io/tracking-id"):
        yield Source("Argo CD", f"Application {tracking.partition(':')[0]}", is_git=True)
    for found in (labels, annotations):
        if instance := found.get("argocd.argoproj.io/instance"):
            yield Source("Argo CD", f"Application {instance}", is_git=True)
    for group, kind in (("kustomize", "Kustomization"), ("helm", "HelmRelease")):
        prefix = f"{group}.toolkit.fluxcd.io"
        if name := labels.get(f"{prefix}/name"):
            yield Source("Flux", f"{kind} {labels.get(f'{prefix}/namespace', '')}/{name}", is_git=True)
    managers = [entry.get("manager") for entry in metadata.get("managedFields") or ()]
    for manager in managers:
        if _CONTROLLERS.get(manager) in {"Argo CD", "Flux"}:
            yield Source(_CONTROLLERS[manager], "", is_git=True)
    if release := annotations.get("meta.helm.sh/release-name"):
        yield Source("Helm", f"release {release}", is_git=False)
    if labels.get("app.kubernetes.io/managed-by") == "Helm" or "Helm" in map(_CONTROLLERS.get, managers):
        yield Source("Helm", "", is_git=False)


def applier_of(stack: Manifest) -> str | None:
    """The field manager whose server-side apply the spec is from, the newest of them.

    None if the spec is from a client-side apply, or was never applied: then a manifest is merged, not applied.
    """
    newest: tuple[str, str | None] = ("", None)
    for entry in stack["metadata"].get("managedFields") or ():
        if entry.get("subresource") or "f:spec" not in (entry.get("fieldsV1") or {}):
            continue
        applied = entry.get("operation") == "Apply"
        if applied or entry.get("manager") == "kubectl-client-side-apply":
            candidate = (str(entry.get("time") or ""), entry["manager"] if applied else None)
            newest = max(newest, candidate, key=lambda found: found[0])
    return newest[1]


def last_applied(stack: Manifest) -> str | None:
    """The manifest of the last client-side apply, as JSON."""
    text = (stack["metadata"].get("annotations") or {}).get(_LAST_APPLIED)
    return str(text) if text else None
