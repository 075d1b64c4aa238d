"""Probes against a real API server: its schema, its Job controller, Pod Security. No load is made: there is no node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from operator_process import eventually

from conftest import Kubectl
from cos_controllers.conditions import timestamp
from cos_controllers.k8s import Manifest
from cos_controllers.names import probes_selector
from cos_controllers.observation import CheckTarget
from cos_controllers.probes.results import Figures, Percentiles, Report, encode
from cos_operator import metrics
from cos_operator.engines.base import EngineClient, EngineError
from cos_operator.key import Key
from cos_operator.kube import Kube
from cos_operator.probing import Prober, Untidied, probed

#: For what the Job controller does.
SOON = 20.0
FAST = Percentiles(100, 200, 300, 400)


@dataclass
class Engine:
    """A client of Redis that notes when it was to clear what probes left, and refuses as long as a test says."""

    tidied: int = 0
    refuses: bool = False

    async def tidy(self, target: CheckTarget) -> None:
        assert target.component == "redis"
        if self.refuses:
            raise EngineError("it is away")
        self.tidied += 1


@dataclass
class Scene:
    """A stack of Redis that serves, by its status, and the prober that looks after it."""

    kube: Kube
    key: Key
    engine: Engine = field(default_factory=Engine)

    async def look(self) -> float | None:
        target = CheckTarget("redis", "redis", "127.0.0.1", 6379)
        clients = cast("dict[str, EngineClient]", {"redis": self.engine})
        return await Prober(self.kube, clients, lambda _: [target], "cos-operator:test")(self.key)

    async def create(self, name: str, **spec: Any) -> None:
        metadata = {"name": name, "namespace": self.key.namespace}
        wanted = {"stackRef": {"name": self.key.name}, **spec}
        await self.kube.create(
            {
                "apiVersion": "cos.dev/v1alpha1",
                "kind": "StackProbe",
                "metadata": metadata,
                "spec": wanted,
            }
        )

    async def status(self, name: str) -> Manifest:
        probe = await self.kube.get("StackProbe", self.key.namespace, name)
        assert probe
        return dict(probe.get("status") or {})

    async def jobs(self) -> list[Manifest]:
        return await self.kube.list("Job", self.key.namespace, probes_selector(self.key.name))

    async def pods(self) -> list[Manifest]:
        return await self.kube.list("Pod", self.key.namespace, probes_selector(self.key.name))

    async def limit(self, kubectl: Kubectl, hard: str) -> None:
        """A quota, in force."""
        kubectl("-n", self.key.namespace, "create", "quota", "none", f"--hard={hard}")

        async def enforced() -> str:
            return kubectl("-n", self.key.namespace, "get", "quota", "none", "-o", "jsonpath={.status.hard}")

        await eventually("the quota is in force", enforced, SOON)

    async def finish(self, kubectl: Kubectl, message: str, code: int = 0) -> None:
        """Play kubelet: the pod of the one Job ends."""
        (pod,) = await eventually("its pod exists", self.pods, SOON)
        ended = {"exitCode": code, "message": message, "reason": "Completed" if not code else "Error"}
        # Started and ended, as the Job controller wants to know.
        ended |= {"startedAt": timestamp(datetime.now(UTC)), "finishedAt": timestamp(datetime.now(UTC))}
        state = {"name": "probe", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{**state, "state": {"terminated": ended}}],
        }
        kubectl(
            *("-n", self.key.namespace, "patch", "pod", pod["metadata"]["name"], "--subresource=status"),
            *("--type=merge", "-p", json.dumps({"status": status})),
        )


@pytest.fixture
async def scene(kube: Kube, kubectl: Kubectl, namespace: str) -> AsyncIterator[Scene]:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("-n", namespace, "wait", "--for=create", "serviceaccount/default", "--timeout=20s")
    key = Key(namespace, "cos")
    await kube.create(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "CosStack",
            "metadata": {"name": "cos", "namespace": namespace},
            "spec": {"redis": {}, "probes": {"afterChange": True, "historyLimit": 1}},
        }
    )
    await serve(kube, key, revision=1)
    yield Scene(kube, key)
    for seen in metrics.probed_stacks():
        metrics.set_probes(*seen, ())


async def serve(kube: Kube, key: Key, revision: int) -> None:
    """What the reconciler says of a stack whose Redis serves."""
    now = timestamp(datetime.now(UTC))
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": now}
    row = {"name": "redis", "reason": "Serving", "ready": True, "effectiveRevision": "a", "servingSince": now}
    await kube.apply(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "CosStack",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": {
                "observedGeneration": 1,
                "revision": revision,
                "conditions": [{**ready, "observedGeneration": 1, "message": ""}],
                "components": [row],
            },
        },
        force=True,
        subresource="status",
    )


def report(*names: str) -> str:
    rows = [Figures(name, "", FAST, FAST, operations=500, elapsed=5000) for name in names]
    return encode(Report(tuple(rows)))


async def test_a_probe_from_its_creation_to_its_last_trace(scene: Scene, kubectl: Kubectl) -> None:
    await scene.create("one")
    assert await scene.look() == 15
    assert (await scene.status("one"))["phase"] == "Running"
    await scene.look()
    (job,) = await scene.jobs()
    assert job["metadata"]["ownerReferences"][0]["kind"] == "CosStack"
    # The pod is admitted by Pod Security `restricted`, or there would be none.
    await scene.finish(kubectl, report("redis/Latency", "redis/PubSub"))
    await scene.look()
    status = await scene.status("one")
    assert (status["phase"], status["stackRevision"]) == ("Successful", 1)
    assert status["checks"][1]["latency"]["p95Microseconds"] == 200
    waited = kubectl(
        *("-n", scene.key.namespace, "wait", "stackprobe/one", "--for=condition=Complete", "--timeout=5s")
    )
    assert "condition met" in waited
    shown = kubectl("-n", scene.key.namespace, "get", "cosprobe", "one")
    assert "Successful" in shown
    assert scene.engine.tidied == 1
    await scene.look()
    assert scene.engine.tidied == 2
    assert await scene.jobs() == []
    before = await scene.kube.get("StackProbe", scene.key.namespace, "one")
    assert await scene.look() is None
    assert await scene.kube.get("StackProbe", scene.key.namespace, "one") == before
    labels = {"namespace": scene.key.namespace, "stack": "cos"}
    value = metrics.REGISTRY.get_sample_value
    assert value("cos_probe_runs_total", labels | {"phase": "Successful"}) == 1
    assert value("cos_probe_latency_seconds", labels | {"check": "redis/Latency", "quantile": "0.95"}) == 2e-4


async def test_one_that_is_deleted_is_stopped_by_the_job_controller_and_cleared_before_its_job_goes(
    scene: Scene,
) -> None:
    await scene.create("one")
    await scene.look()
    await scene.look()
    await eventually("its pod exists", scene.pods, SOON)
    await scene.kube.delete("StackProbe", scene.key.namespace, "one")
    assert await probed(scene.kube, scene.key.namespace) == {scene.key: True}
    await scene.look()
    scene.engine.refuses = True

    async def refused() -> str:
        try:
            await scene.look()
        except Untidied as error:
            return str(error)
        return ""

    assert await eventually("it is to be cleared", refused, SOON) == "redis: it is away"
    assert await scene.pods() == []
    assert len(await scene.jobs()) == 1, "it says that something is left"
    scene.engine.refuses = False
    await scene.look()
    assert (await scene.jobs(), scene.engine.tidied) == ([], 2)


async def test_a_prober_that_breaks_down_is_an_error(scene: Scene, kubectl: Kubectl) -> None:
    await scene.create("one")
    await scene.look()
    await scene.look()
    await scene.finish(kubectl, "no room", code=1)

    async def ended() -> Manifest:
        await scene.look()
        found = await scene.status("one")
        return found if "completionTime" in found else {}

    found = await eventually("it has ended", ended, 40)
    assert (found["phase"], found["message"]) == ("Error", "container probe ended with Error (1): no room")


async def test_a_foreign_job_of_its_name_is_left_alone_and_named(scene: Scene) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}
    await scene.kube.create(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "one", "namespace": scene.key.namespace},
            "spec": {"suspend": True, "template": {"spec": pod}},
        }
    )
    await scene.create("one")
    await scene.look()
    await scene.look()
    status = await scene.status("one")
    assert (status["phase"], "a Job one exists" in status["message"]) == ("Error", True)
    assert await scene.kube.get("Job", scene.key.namespace, "one")


async def test_a_job_that_is_refused_is_an_error_in_the_api_servers_words(
    scene: Scene, kubectl: Kubectl
) -> None:
    await scene.limit(kubectl, "count/jobs.batch=0")
    await scene.create("one")
    await scene.look()
    await scene.look()
    status = await scene.status("one")
    assert (status["phase"], "exceeded quota" in status["message"]) == ("Error", True)


async def test_a_pod_that_is_refused_is_told_in_the_words_of_who_refuses(
    scene: Scene, kubectl: Kubectl
) -> None:
    await scene.limit(kubectl, "limits.cpu=1")
    await scene.create("one")
    await scene.look()
    await scene.look()

    async def told() -> bool:
        await scene.look()
        status = await scene.status("one")
        return status["phase"] == "Running" and "must specify limits.cpu" in status["message"]

    await eventually("it is told", told, SOON)


async def test_a_change_is_probed_once_and_the_history_is_kept_short(scene: Scene, kubectl: Kubectl) -> None:
    async def settle() -> list[str]:
        for _ in range(8):
            await scene.look()
            if (jobs := await scene.jobs()) and not (jobs[0].get("status") or {}).get("conditions"):
                await scene.finish(kubectl, report("redis/Latency"))
        return [item["metadata"]["name"] for item in await scene.kube.list("StackProbe", scene.key.namespace)]

    assert await settle() == ["cos-r1"]
    await serve(scene.kube, scene.key, revision=2)
    assert await settle() == ["cos-r2"]
    probe = await scene.kube.get("StackProbe", scene.key.namespace, "cos-r2")
    assert probe
    assert probe["metadata"]["ownerReferences"][0]["kind"] == "CosStack", "it goes with its stack"


def refusal(kubectl: Kubectl, obj: Manifest, capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(subprocess.CalledProcessError):
        kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(obj))
    return capfd.readouterr().err


def manifest(name: str = "one", **spec: Any) -> Manifest:
    return {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "StackProbe",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"stackRef": {"name": "cos"}, **spec},
    }


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (manifest("n" * 53), "metadata.name must be at most 52"),
        (manifest("a.b"), "it names a Job"),
        (manifest(secondsPerCheck=61), "spec.secondsPerCheck"),
        (manifest(connections=0), "spec.connections"),
        (manifest(load="Wild"), 'supported values: "Paced", "Saturating"'),
        (manifest(routes=list("abcde")), "spec.routes"),
        (manifest(components=["redis", "redis"]), "Duplicate value"),
        (
            manifest(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            "requests.cpu must not exceed",
        ),
        (manifest(rate=3), 'unknown field "spec.rate"'),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    kubectl: Kubectl, capfd: pytest.CaptureFixture[str], obj: Manifest, words: str
) -> None:
    assert words in refusal(kubectl, obj, capfd)


async def test_a_probe_does_not_change(
    scene: Scene, kubectl: Kubectl, capfd: pytest.CaptureFixture[str]
) -> None:
    await scene.create("one")
    changed = manifest(secondsPerCheck=7)
    changed["metadata"]["namespace"] = scene.key.namespace
    assert "a probe does not change: delete it, or create another one" in refusal(kubectl, changed, capfd)
