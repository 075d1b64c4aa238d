"""The Job that makes a probe's load: one pod of the operator's own image, with the application's credentials."""

from __future__ import annotations

from cos_controllers.api.probe import StackProbe
from cos_controllers.api.stack import CosStack
from cos_controllers.components.parts import requirements
from cos_controllers.components.registry import ENGINES
from cos_controllers.k8s import (
    Manifest,
    V1Capabilities,
    V1Container,
    V1EmptyDirVolumeSource,
    V1EnvVar,
    V1Job,
    V1JobSpec,
    V1KeyToPath,
    V1LocalObjectReference,
    V1ObjectMeta,
    V1PodSecurityContext,
    V1PodSpec,
    V1PodTemplateSpec,
    V1ProjectedVolumeSource,
    V1SeccompProfile,
    V1SecretProjection,
    V1SecurityContext,
    V1Volume,
    V1VolumeMount,
    V1VolumeProjection,
    manifest,
)
from cos_controllers.names import app_secret, child_name, probe_labels
from cos_controllers.ownership import owner_reference
from cos_controllers.probes.order import BINDINGS, ORDER, Order

CONTAINER = "probe"
#: uid and gid of the operator's image.
_UID = 65532
#: Seconds for what the pod needs besides its own limit: an image to pull, a node to be found.
POD_SECONDS = 180
#: What a pod is mounted of the application's Secret.
_KEYS = ("username", "password")


def probe_job(stack: CosStack, probe: StackProbe, order: Order, image: str) -> Manifest:
    """The Job.

    Its owner is the stack, not the probe: a probe that is deleted while it runs leaves the Job, which says that there
    is something to clean up.
    """
    metadata = stack.metadata
    labels = probe_labels(metadata.name, probe.metadata.name)
    pod = V1PodSpec(
        restart_policy="Never",
        automount_service_account_token=False,
        enable_service_links=False,
        # It ends at once when it is told to: what it left is cleaned up from outside.
        termination_grace_period_seconds=5,
        security_context=V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=_UID,
            run_as_group=_UID,
            fs_group=_UID,
            seccomp_profile=V1SeccompProfile(type="RuntimeDefault"),
        ),
        image_pull_secrets=[
            V1LocalObjectReference(name=secret.name) for secret in stack.spec.images.pull_secrets
        ]
        or None,
        containers=[
            V1Container(
                name=CONTAINER,
                image=image,
                image_pull_policy="IfNotPresent",
                args=["probe"],
                env=[V1EnvVar(name=ORDER, value=order.model_dump_json())],
                resources=requirements(probe.spec.resources),
                volume_mounts=[
                    V1VolumeMount(name="bindings", mount_path=BINDINGS, read_only=True),
                    V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108 - of the container
                ],
                security_context=V1SecurityContext(
                    allow_privilege_escalation=False,
                    read_only_root_filesystem=True,
                    capabilities=V1Capabilities(drop=["ALL"]),
                ),
            )
        ],
        volumes=[
            _bindings(stack, order),
            V1Volume(name="tmp", empty_dir=V1EmptyDirVolumeSource(size_limit="16Mi")),
        ],
    )
    job = V1Job(
        api_version="batch/v1",
        kind="Job",
        metadata=V1ObjectMeta(
            name=probe.metadata.name,
            namespace=metadata.namespace,
            labels=labels,
            owner_references=[owner_reference(stack)],
        ),
        spec=V1JobSpec(
            # A second attempt would measure what the first one left.
            backoff_limit=0,
            # Later than the prober's own limit: this one takes the pod away, and its message with it.
            active_deadline_seconds=order.limit + POD_SECONDS,
            template=V1PodTemplateSpec(metadata=V1ObjectMeta(labels=labels), spec=pod),
        ),
    )
    return manifest(job)


def _bindings(stack: CosStack, order: Order) -> V1Volume:
    """The application's login of each component that has accounts, in a folder of its name."""
    accounts = {engine.kind: engine.accounts for engine in ENGINES}
    sources = []
    for subject in order.subjects:
        if accounts[subject.engine] is None:
            continue
        items = [V1KeyToPath(key=key, path=f"{subject.component}/{key}") for key in _KEYS]
        secret = app_secret(child_name(stack.metadata.name, subject.component))
        sources.append(V1VolumeProjection(secret=V1SecretProjection(name=secret, items=items)))
    return V1Volume(name="bindings", projected=V1ProjectedVolumeSource(default_mode=0o440, sources=sources))
