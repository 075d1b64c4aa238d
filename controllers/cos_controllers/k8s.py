"""The Kubernetes model constructors that the core renders with, and nothing else of the client.

The constructors refuse unknown fields; `from_dict` silently drops them and is never used for rendering.
This is the one module of the core that may import the `kubernetes` package.
"""

from __future__ import annotations

from typing import Any

from kubernetes.aio.client.models import (
    V1Affinity,
    V1Capabilities,
    V1ConfigMap,
    V1ConfigMapVolumeSource,
    V1Container,
    V1ContainerPort,
    V1ControllerRevision,
    V1Deployment,
    V1DeploymentSpec,
    V1DeploymentStrategy,
    V1EmptyDirVolumeSource,
    V1EnvVar,
    V1ExecAction,
    V1HTTPGetAction,
    V1KeyToPath,
    V1LabelSelector,
    V1Lifecycle,
    V1LifecycleHandler,
    V1LocalObjectReference,
    V1ObjectMeta,
    V1OwnerReference,
    V1PersistentVolumeClaim,
    V1PersistentVolumeClaimSpec,
    V1PersistentVolumeClaimVolumeSource,
    V1PodDisruptionBudget,
    V1PodDisruptionBudgetSpec,
    V1PodSecurityContext,
    V1PodSpec,
    V1PodTemplateSpec,
    V1Probe,
    V1ResourceRequirements,
    V1RollingUpdateDeployment,
    V1SeccompProfile,
    V1Secret,
    V1SecretVolumeSource,
    V1SecurityContext,
    V1Service,
    V1ServicePort,
    V1ServiceSpec,
    V1StatefulSet,
    V1StatefulSetSpec,
    V1StatefulSetUpdateStrategy,
    V1Toleration,
    V1TopologySpreadConstraint,
    V1Volume,
    V1VolumeMount,
    V1VolumeResourceRequirements,
)
from pydantic import BaseModel

__all__ = [
    "Manifest",
    "V1Affinity",
    "V1Capabilities",
    "V1ConfigMap",
    "V1ConfigMapVolumeSource",
    "V1Container",
    "V1ContainerPort",
    "V1ControllerRevision",
    "V1Deployment",
    "V1DeploymentSpec",
    "V1DeploymentStrategy",
    "V1EmptyDirVolumeSource",
    "V1EnvVar",
    "V1ExecAction",
    "V1HTTPGetAction",
    "V1KeyToPath",
    "V1LabelSelector",
    "V1Lifecycle",
    "V1LifecycleHandler",
    "V1LocalObjectReference",
    "V1ObjectMeta",
    "V1OwnerReference",
    "V1PersistentVolumeClaim",
    "V1PersistentVolumeClaimSpec",
    "V1PersistentVolumeClaimVolumeSource",
    "V1PodDisruptionBudget",
    "V1PodDisruptionBudgetSpec",
    "V1PodSecurityContext",
    "V1PodSpec",
    "V1PodTemplateSpec",
    "V1Probe",
    "V1ResourceRequirements",
    "V1RollingUpdateDeployment",
    "V1SeccompProfile",
    "V1Secret",
    "V1SecretVolumeSource",
    "V1SecurityContext",
    "V1Service",
    "V1ServicePort",
    "V1ServiceSpec",
    "V1StatefulSet",
    "V1StatefulSetSpec",
    "V1StatefulSetUpdateStrategy",
    "V1Toleration",
    "V1TopologySpreadConstraint",
    "V1Volume",
    "V1VolumeMount",
    "V1VolumeResourceRequirements",
    "manifest",
]

#: A Kubernetes object as JSON data, keys as on the wire (camelCase).
Manifest = dict[str, Any]


def manifest(model: BaseModel) -> Manifest:
    """The wire form of a rendered model: no nulls (server-side apply would own them)."""
    data: Manifest = model.model_dump(by_alias=True, exclude_none=True, mode="json")
    return data
