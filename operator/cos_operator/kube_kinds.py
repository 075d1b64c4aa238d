"""Where the Kubernetes API serves the kinds that the operator uses, and the paths of its requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cos_controllers.names import API_VERSION
from cos_operator.kube_errors import Invalid, Request


class Kind(NamedTuple):
    """Where the API serves a kind."""

    api_version: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group, "" for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """API version without its group."""
        return self.api_version.rpartition("/")[2]

    @property
    def prefix(self) -> str:
        """Path prefix of the kind's group and version."""
        return f"/{'apis' if self.group else 'api'}/{self.api_version}"


#: The kinds that the operator uses, and no others.
KINDS: Mapping[str, Kind] = {
    "CosStack": Kind(API_VERSION, "cosstacks"),
    "StackProbe": Kind(API_VERSION, "stackprobes"),
    "StackBackup": Kind(API_VERSION, "stackbackups"),
    "StackRestore": Kind(API_VERSION, "stackrestores"),
    "Secret": Kind("v1", "secrets"),
    "ConfigMap": Kind("v1", "configmaps"),
    "Service": Kind("v1", "services"),
    "PersistentVolumeClaim": Kind("v1", "persistentvolumeclaims"),
    "Pod": Kind("v1", "pods"),
    "Event": Kind("v1", "events"),
    "Namespace": Kind("v1", "namespaces", namespaced=False),
    "ControllerRevision": Kind("apps/v1", "controllerrevisions"),
    "StatefulSet": Kind("apps/v1", "statefulsets"),
    "Deployment": Kind("apps/v1", "deployments"),
    "Job": Kind("batch/v1", "jobs"),
    "PodDisruptionBudget": Kind("policy/v1", "poddisruptionbudgets"),
    "Lease": Kind("coordination.k8s.io/v1", "leases"),
    "CustomResourceDefinition": Kind(
        "apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False
    ),
}


#: Kinds of which a stack has children whose changes are watched.
WATCHED_KINDS = (
    "Secret",
    "ConfigMap",
    "Service",
    "PersistentVolumeClaim",
    "Pod",
    "StatefulSet",
    "Deployment",
    "PodDisruptionBudget",
)
#: Kinds whose changes are for those who look after probes and backups.
OPERATION_KINDS = ("StackProbe", "StackBackup", "StackRestore", "Job")
#: Kinds of which a stack has children. Nobody but the operator has a reason to touch a revision.
CHILD_KINDS = (*WATCHED_KINDS, "ControllerRevision")


def collection_path(request: Request) -> str:
    """Path of the request's kind, in its namespace if it has one. Raises `Invalid` for what is not a name."""
    kind = KINDS[request.kind]
    if not kind.namespaced or not request.namespace:
        return f"{kind.prefix}/{kind.plural}"
    _require_name(request, request.namespace)
    return f"{kind.prefix}/namespaces/{request.namespace}/{kind.plural}"


def object_path(request: Request, subresource: str = "") -> str:
    """Path of the request's object. Raises `Invalid` for what is not a name."""
    if KINDS[request.kind].namespaced and not request.namespace:
        raise ValueError(f"{request}: a {request.kind} has a namespace")
    _require_name(request, request.name)
    return "/".join(filter(None, (collection_path(request), request.name, subresource)))


def _require_name(request: Request, value: str) -> None:
    """Names come from users' specs too: none may turn a request into one for something else."""
    if value in {"", ".", ".."} or not value.isascii() or set(value) & set("/%?# "):
        raise Invalid(request, f"{value!r} is not a name")
