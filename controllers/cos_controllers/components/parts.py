"""Small builders that the engines share: probes, mounts, volumes, resources."""

from __future__ import annotations

from collections.abc import Sequence

from cos_controllers.api.common import Resources
from cos_controllers.api.quantity import MI, parse_quantity
from cos_controllers.k8s import (
    V1EmptyDirVolumeSource,
    V1EnvVar,
    V1ExecAction,
    V1HTTPGetAction,
    V1Lifecycle,
    V1LifecycleHandler,
    V1Probe,
    V1ResourceRequirements,
    V1Volume,
    V1VolumeMount,
)

#: Seconds within which a readiness command ends by itself. Kubelet's own timeout cannot be relied on: containerd
#: waits for ever for a child that hangs.
COMMAND_LIMIT_SECONDS = "1.5"

Action = V1ExecAction | V1HTTPGetAction


def run(*command: str) -> V1ExecAction:
    """A probe by a command, which must end by itself (see `COMMAND_LIMIT_SECONDS`)."""
    return V1ExecAction(command=list(command))


def within(seconds: int, *command: str) -> list[str]:
    """A command that is ended after so many seconds, with the exit code 124."""
    return ["timeout", "-k", "5", str(seconds), *command]


def get(path: str, port: int) -> V1HTTPGetAction:
    """A probe by an HTTP request of kubelet: it costs the container nothing."""
    return V1HTTPGetAction(path=path, port=port)


def _probe(action: Action, *, period: int, timeout: int, failures: int, grace: int | None = None) -> V1Probe:
    probe = V1Probe(
        period_seconds=period,
        timeout_seconds=timeout,
        failure_threshold=failures,
        success_threshold=1,
        termination_grace_period_seconds=grace,
    )
    # `exec` is a special case of the generated models: given to a constructor, it is silently dropped.
    field = "var_exec" if isinstance(action, V1ExecAction) else "http_get"
    return probe.model_copy(update={field: action})


def startup_probe(action: Action, *, limit_seconds: int = 300) -> V1Probe:
    """Readiness and liveness wait until this has passed once; past the limit the container is restarted."""
    return _probe(action, period=1, timeout=3, failures=limit_seconds, grace=10)


def readiness_probe(action: Action) -> V1Probe:
    """Sees a killed, hung or read-only engine in under 6 s: two failures in a row.

    A command ends by itself; a request ends by kubelet's timeout, and costs nothing, so that it is made more often.
    """
    if isinstance(action, V1HTTPGetAction):
        return _probe(action, period=1, timeout=2, failures=2)
    return _probe(action, period=2, timeout=3, failures=2)


def liveness_probe(action: Action) -> V1Probe:
    """The last resort: 60 s of failures. Never judges saturation, authentication or read-only state."""
    return _probe(action, period=10, timeout=5, failures=6, grace=10)


def pre_stop(*command: str) -> V1Lifecycle:
    """A command that kubelet runs before it asks the container to stop, within the pod's grace period."""
    return V1Lifecycle(pre_stop=V1LifecycleHandler().model_copy(update={"var_exec": run(*command)}))


def mount(volume: str, path: str, *, read_only: bool = True, sub_path: str | None = None) -> V1VolumeMount:
    """A volume of the pod in a container."""
    return V1VolumeMount(
        name=volume, mount_path=path, read_only=True if read_only else None, sub_path=sub_path
    )


def scratch(name: str, size: str, *, memory: bool = False) -> V1Volume:
    """An emptyDir that cannot fill the node."""
    return V1Volume(
        name=name, empty_dir=V1EmptyDirVolumeSource(size_limit=size, medium="Memory" if memory else None)
    )


def env(**variables: str) -> list[V1EnvVar]:
    """Environment variables, in the order given. Never secrets."""
    return [V1EnvVar(name=name, value=value) for name, value in variables.items()]


def literal(text: str) -> str:
    """A text as it must be written in a variable's value or in a command, in which Kubernetes replaces `$(NAME)`."""
    return text.replace("$", "$$")


def requirements(resources: Resources) -> V1ResourceRequirements:
    """The API's resources in Kubernetes' form."""
    return V1ResourceRequirements(
        requests=resources.requests.model_dump(exclude_none=True) or None,
        limits=resources.limits.model_dump(exclude_none=True) or None,
    )


def memory_limit_mib(resources: Resources) -> int:
    """The memory limit in MiB, rounded down. Raises `ValueError` if none is set (a rule of the API forbids it)."""
    if resources.limits.memory is None:
        raise ValueError("resources.limits.memory is not set")
    return int(parse_quantity(resources.limits.memory) // MI)


def lines(items: Sequence[str]) -> str:
    """A file of the given lines."""
    return "".join(f"{item}\n" for item in items)
