"""The Job that makes a probe's load: one pod of the operator's own image, with the application's credentials."""

from __future__ import annotations

from cos_controllers.api.probe import StackProbe
from cos_controllers.api.stack import CosStack
from cos_controllers.components.parts import mount, requirements, scratch
from cos_controllers.components.registry import ENGINES
from cos_controllers.jobs import OPERATOR_UID, Work, job_of_work
from cos_controllers.k8s import (
    Manifest,
    V1Container,
    V1EnvVar,
    V1KeyToPath,
    V1ProjectedVolumeSource,
    V1SecretProjection,
    V1Volume,
    V1VolumeProjection,
)
from cos_controllers.names import app_secret, child_name, probe_labels
from cos_controllers.probes.order import BINDINGS, ORDER, Order

CONTAINER = "probe"
#: What a pod is mounted of the application's Secret.
_KEYS = ("username", "password")


def probe_job(stack: CosStack, probe: StackProbe, order: Order, image: str) -> Manifest:
    """The Job. What it may have written is not yet cleaned up as long as there is one."""
    container = V1Container(
        name=CONTAINER,
        image=image,
        image_pull_policy="IfNotPresent",
        args=["probe"],
        env=[V1EnvVar(name=ORDER, value=order.model_dump_json())],
        resources=requirements(probe.spec.resources),
        volume_mounts=[mount("bindings", BINDINGS), mount("tmp", "/tmp", read_only=False)],  # noqa: S108 - of the container
    )
    work = Work(
        name=probe.metadata.name,
        labels=probe_labels(stack.metadata.name, probe.metadata.name),
        uid=OPERATOR_UID,
        limit=order.limit,
        containers=(container,),
        volumes=(_bindings(stack, order), scratch("tmp", "16Mi")),
    )
    return job_of_work(stack, work)


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
