"""Watching a real API server: which hints come, that nothing is written, and what happens on bad days."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from cos_controllers.names import API_VERSION, object_labels, probe_labels
from cos_operator import metrics, watch
from cos_operator.echoes import state
from cos_operator.kube import KINDS, OPERATION_KINDS, WATCHED_KINDS, Kind, Kube
from cos_operator.watch import Hint, Watcher

Manifest = dict[str, Any]
EVERY_KIND = ("CosStack", *WATCHED_KINDS, *OPERATION_KINDS)
Kubectl = Callable[..., str]


class Hints:
    """What a watcher handed over, and when it reported a gap."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, str]] = []
        self.states: dict[tuple[str, str, str], str] = {}
        self.gaps = 0
        self._thread_safe = asyncio.get_running_loop()

    def hint(self, hint: Hint) -> None:
        assert asyncio.get_running_loop() is self._thread_safe
        assert hint.version.isdecimal(), "what a read must not be older than"
        key = (hint.kind, hint.namespace, hint.stack)
        self.states[key] = hint.state
        self.received.append(key)

    def gap(self) -> None:
        assert asyncio.get_running_loop() is self._thread_safe
        self.gaps += 1

    async def comes(self, *hint: str) -> None:
        await until(lambda: hint in self.received)

    async def settle(self) -> list[tuple[str, str, str]]:
        """Return and forget what came so far, once nothing more comes."""
        count = -1
        while count != len(self.received):
            count = len(self.received)
            await asyncio.sleep(0.3)
        came, self.received = self.received, []
        return came


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 the condition is a property of the code under test
            await asyncio.sleep(0.02)


@asynccontextmanager
async def watching(
    kubeconfig: str, *namespaces: str, fresh: bool = True
) -> AsyncIterator[tuple[Watcher, Hints]]:
    watcher, hints = Watcher(namespaces, kubeconfig), Hints()
    assert watcher.problem() == "the watches are not running"
    watcher.start(hints.hint, hints.gap)
    try:
        if fresh:
            await until(watcher.fresh)
            await until(lambda: hints.gaps == 1)
            await hints.settle()
            hints.gaps = 0
        yield watcher, hints
    finally:
        began = time.monotonic()
        await watcher.stop()
        assert time.monotonic() - began < 5
        assert watcher.problem() == "the watches are not running"


def stack(namespace: str, name: str = "cos") -> Manifest:
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": API_VERSION, "kind": "CosStack", "metadata": metadata, "spec": {"redis": {}}}


def children(namespace: str, *, ours: bool) -> list[Manifest]:
    """One child of each kind, as small as the API server allows."""
    labels = object_labels("cos", "redis", "redis") if ours else {"app": "other"}
    pod = {"containers": [{"name": "c", "image": "registry.invalid/c"}]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    selector = {"matchLabels": labels}
    storage = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    specs: dict[str, Manifest] = {
        "StatefulSet": {
            "spec": {"serviceName": "x", "replicas": 0, "selector": selector, "template": template}
        },
        "Deployment": {"spec": {"replicas": 0, "selector": selector, "template": template}},
        "Pod": {"spec": pod},
        "Service": {"spec": {"ports": [{"port": 80}]}},
        "ConfigMap": {},
        "Secret": {},
        "PersistentVolumeClaim": {"spec": storage},
        "PodDisruptionBudget": {"spec": {"minAvailable": 0, "selector": selector}},
    }
    name = "ours" if ours else "other"
    metadata = {"namespace": namespace, "name": name, "labels": labels}
    return [
        {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": metadata, **specs[kind]}
        for kind in WATCHED_KINDS
    ]


def probe(namespace: str) -> Manifest:
    return {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "StackProbe",
        "metadata": {"namespace": namespace, "name": "probe"},
        "spec": {"stackRef": {"name": "probed"}},
    }


def job(namespace: str) -> Manifest:
    """Of a probe. Suspended: nothing runs."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"namespace": namespace, "name": "probe", "labels": probe_labels("probed", "probe")},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }


async def create_children(kube: Kube, kubectl: Kubectl, namespace: str, *, ours: bool) -> None:
    # Pods are refused until the namespace has its default service account.
    kubectl("-n", namespace, "wait", "--for=create", "serviceaccount/default", "--timeout=20s")
    for child in children(namespace, ours=ours):
        await kube.create(child)


@pytest.mark.parametrize("cluster_wide", [True, False])
async def test_stacks_and_their_children_give_hints(
    apiserver: str,
    kube: Kube,
    kubectl: Kubectl,
    namespace: str,
    cluster_wide: bool,  # noqa: FBT001
) -> None:
    await kube.create(stack(namespace, "before"))
    metadata = {"namespace": namespace, "name": "earlier", "labels": object_labels("cos", "redis", "redis")}
    earlier = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    await kube.create(earlier)
    scope = () if cluster_wide else (namespace,)
    events = metrics.EVENTS_RECEIVED.labels("CosStack")._value.get()
    async with watching(apiserver, *scope, fresh=False) as (watcher, hints):
        await until(watcher.fresh)
        assert watcher.last_event_age() < 10
        await until(lambda: hints.gaps == 1)
        assert not [home for _, home, _ in await hints.settle() if home == namespace], (
            "looked at, not heard of"
        )
        await kube.apply({**earlier, "data": {"changed": "1"}}, force=True)
        await hints.comes("ConfigMap", namespace, "cos")
        await kube.create(stack(namespace))
        await hints.comes("CosStack", namespace, "cos")
        await create_children(kube, kubectl, namespace, ours=True)
        for kind in WATCHED_KINDS:
            await hints.comes(kind, namespace, "cos")
        await hints.settle()
        await create_children(kube, kubectl, namespace, ours=False)
        await kube.delete("ConfigMap", namespace, "ours")
        await hints.comes("ConfigMap", namespace, "cos")
        await kube.create(probe(namespace))
        await hints.comes("StackProbe", namespace, "probed")
        await kube.create(job(namespace))
        await hints.comes("Job", namespace, "probed")
        await hints.settle()
        await kube.delete("CosStack", namespace, "cos")
        await hints.comes("CosStack", namespace, "cos")
        assert hints.gaps == 1
    assert metrics.EVENTS_RECEIVED.labels("CosStack")._value.get() >= events + 2


async def test_the_echo_of_a_status_shows_the_state_that_its_writer_left(
    apiserver: str, kube: Kube, namespace: str
) -> None:
    created = await kube.create(stack(namespace))
    async with watching(apiserver, namespace) as (_, hints):
        status = {"observedGeneration": 1, "conditions": []}
        left = state(created["metadata"], status)
        await kube.apply({**stack(namespace), "status": status}, subresource="status", force=True)
        await until(lambda: hints.states.get(("CosStack", namespace, "cos")) == left)
        noted = {
            **stack(namespace),
            "metadata": {**stack(namespace)["metadata"], "annotations": {"look": "again"}},
        }
        hints.received.clear()
        await kube.apply(noted, force=True)
        await hints.comes("CosStack", namespace, "cos")
        assert hints.states["CosStack", namespace, "cos"] != left
        await kube.delete("CosStack", namespace, "cos")
        await until(lambda: not hints.states["CosStack", namespace, "cos"])


async def test_foreign_objects_and_other_namespaces_give_none(
    apiserver: str, kube: Kube, kubectl: Kubectl, namespace: str
) -> None:
    async with watching(apiserver, namespace) as (_, hints):
        await create_children(kube, kubectl, namespace, ours=False)
        await kube.create(stack("default", f"elsewhere-{namespace[-5:]}"))
        await kube.delete("CosStack", "default", f"elsewhere-{namespace[-5:]}")
        await kube.create(stack(namespace, "last"))
        await hints.comes("CosStack", namespace, "last")
        assert set(hints.received) == {("CosStack", namespace, "last")}


async def test_nothing_is_written_to_what_is_watched(
    apiserver: str, kube: Kube, kubectl: Kubectl, namespace: str
) -> None:
    """No finalizer, annotation, status or Event; a foreign finalizer stays, deletion waits for it alone."""
    held = stack(namespace, "held")
    held["metadata"]["finalizers"] = ["example.com/other"]
    await kube.create(held)
    await create_children(kube, kubectl, namespace, ours=True)
    async with watching(apiserver, namespace) as (_, hints):
        created = await kube.create(stack(namespace))
        await hints.comes("CosStack", namespace, "cos")
        await kube.delete("CosStack", namespace, "held")
        await hints.comes("CosStack", namespace, "held")
        quiet = {name: await kube.get("CosStack", namespace, name) for name in ("cos", "held")}
        secret = await kube.get("Secret", namespace, "ours")
        await asyncio.sleep(3)
        assert quiet["cos"] == created
        for name, seen in quiet.items():
            assert await kube.get("CosStack", namespace, name) == seen
        assert await kube.get("Secret", namespace, "ours") == secret
        assert quiet["held"] is not None
        assert quiet["held"]["metadata"]["finalizers"] == ["example.com/other"]
        events = await kube.list("Event", namespace)
        assert not [event for event in events if event["involvedObject"]["kind"] == "CosStack"]
    await kube.apply(
        {**stack(namespace, "held"), "metadata": {**held["metadata"], "finalizers": []}}, force=True
    )
    patch = json.dumps({"metadata": {"finalizers": None}})
    kubectl("-n", namespace, "patch", "cosstack", "held", "--type=merge", "-p", patch)


async def test_a_cut_connection_is_seen_mended_and_nothing_is_missed(
    kube: Kube,
    namespace: str,
    cable: Any,
    kubeconfig_with: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cos_operator.watch_streams.RECONNECT_LIMIT", 1.0)
    await kube.create(stack(namespace))
    through_cable = kubeconfig_with(server=f"https://localhost:{cable.port}")
    async with watching(through_cable, namespace) as (watcher, hints):
        cable.cut()
        await until(lambda: f"Pod in {namespace}: not connected for" in watcher.problem())
        assert not watcher.fresh()
        await kube.delete("CosStack", namespace, "cos")
        cable.mend()
        await hints.comes("CosStack", namespace, "cos")
        await until(watcher.fresh)


async def test_a_silent_connection_is_noticed_and_replaced(
    kube: Kube,
    namespace: str,
    cable: Any,
    kubeconfig_with: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In 4 s here, in 70 s else: bookmarks, which come every minute, are the sign of life of a quiet watch."""
    real_settings = watch._settings

    def impatient() -> Any:
        settings = real_settings()
        settings.watching.inactivity_timeout = 4
        return settings

    monkeypatch.setattr(watch, "_settings", impatient)
    monkeypatch.setattr("cos_operator.watch_streams.CONNECTED_LIMIT", 3.0)
    monkeypatch.setattr("cos_operator.watch_streams.RECONNECT_LIMIT", 1.0)
    through_cable = kubeconfig_with(server=f"https://localhost:{cable.port}")
    async with watching(through_cable, namespace) as (watcher, hints):
        cable.silence()
        await until(lambda: "silent for" in watcher.problem())
        await kube.create(stack(namespace))
        await until(lambda: "not connected for" in watcher.problem())
        cable.cut()
        cable.mend()
        await hints.comes("CosStack", namespace, "cos")
        await until(watcher.fresh)


def role(namespace: str, *kinds: str) -> list[Manifest]:
    """A service account `watcher` that may list and watch these kinds, and nothing else."""
    groups = sorted({KINDS[kind].group for kind in kinds})
    rules = [
        {
            "apiGroups": [group],
            "resources": [KINDS[kind].plural for kind in kinds if KINDS[kind].group == group],
            "verbs": ["list", "watch"],
        }
        for group in groups
    ]
    metadata = {"namespace": namespace, "name": "watcher"}
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "subjects": [{"kind": "ServiceAccount", "name": "watcher", "namespace": namespace}],
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "watcher"},
        },
    ]


def token_of_watcher(kubectl: Kubectl, namespace: str, *kinds: str) -> str:
    for obj in role(namespace, *kinds):
        kubectl("apply", "-f", "-", stdin=json.dumps(obj))
    return kubectl("-n", namespace, "create", "token", "watcher")


async def test_list_and_watch_are_all_the_rights_that_are_needed(
    kube: Kube, kubectl: Kubectl, namespace: str, kubeconfig_with: Callable[..., str]
) -> None:
    token = token_of_watcher(kubectl, namespace, *EVERY_KIND)
    async with watching(kubeconfig_with(token=token), namespace) as (_, hints):
        await kube.create(stack(namespace))
        await create_children(kube, kubectl, namespace, ours=True)
        await hints.comes("CosStack", namespace, "cos")
        for kind in WATCHED_KINDS:
            await hints.comes(kind, namespace, "cos")


async def test_a_missing_right_is_named_and_the_rest_goes_on(
    kube: Kube, kubectl: Kubectl, namespace: str, kubeconfig_with: Callable[..., str]
) -> None:
    rights = [kind for kind in EVERY_KIND if kind != "Secret"]
    token = token_of_watcher(kubectl, namespace, *rights)
    async with watching(kubeconfig_with(token=token), namespace, fresh=False) as (watcher, hints):
        await until(lambda: watcher.problem() == f"Secret in {namespace}: not connected yet")
        await kube.create(stack(namespace))
        await hints.comes("CosStack", namespace, "cos")
        assert not watcher.fresh()
        token_of_watcher(kubectl, namespace, *EVERY_KIND)
        await until(watcher.fresh)


async def test_refused_credentials_end_a_run_and_the_next_one_reads_them_again(
    kube: Kube,
    kubectl: Kubectl,
    namespace: str,
    cable: Any,
    kubeconfig_with: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The restart is a gap: the caller is told to look at everything, for deletions may have been missed."""
    monkeypatch.setattr("cos_operator.watch._LAST_RESTART", 1.0)
    server = f"https://localhost:{cable.port}"
    token = token_of_watcher(kubectl, namespace, *EVERY_KIND)
    await kube.create(stack(namespace))
    restarts = metrics.WATCH_RESTARTS._value.get()
    async with watching(kubeconfig_with(token=token, server=server), namespace) as (watcher, hints):
        kubectl("-n", namespace, "delete", "serviceaccount", "watcher")
        deadline = time.monotonic() + 60
        while metrics.WATCH_RESTARTS._value.get() < restarts + 2:
            assert time.monotonic() < deadline
            # The API server still believes the token for some seconds; it looks at it when a watch connects.
            cable.cut()
            cable.mend()
            await asyncio.sleep(1)
        assert not hints.gaps
        await kube.delete("CosStack", namespace, "cos")
        kubeconfig_with(token=token_of_watcher(kubectl, namespace, *EVERY_KIND), server=server)
        await until(lambda: hints.gaps == 1)
        assert watcher.fresh()
        await kube.create(stack(namespace, "new"))
        await hints.comes("CosStack", namespace, "new")


async def test_a_definition_that_is_deleted_and_comes_back(
    apiserver: str, kubectl: Kubectl, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a definition of the test's own: deleting the real one would delete every stack of the cluster."""
    monkeypatch.setattr("cos_operator.watch._LAST_RESTART", 1.0)
    monkeypatch.setattr("cos_operator.watch_streams.RECONNECT_LIMIT", 1.0)
    group = f"{namespace}.cos.dev"
    monkeypatch.setitem(cast("dict[str, Kind]", KINDS), "CosStack", Kind(f"{group}/v1", "fakestacks"))
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    spec = {"group": group, "scope": "Namespaced", "names": {"plural": "fakestacks", "kind": "FakeStack"}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"fakestacks.{group}"},
        "spec": {**spec, "versions": [version]},
    }
    fake = {
        "apiVersion": f"{group}/v1",
        "kind": "FakeStack",
        "metadata": {"namespace": namespace, "name": "cos"},
    }

    def define() -> None:
        kubectl("apply", "-f", "-", stdin=json.dumps(definition))
        for awaited in ("jsonpath={.status.conditions}", "condition=Established"):
            kubectl("wait", f"--for={awaited}", "--timeout=20s", f"crd/fakestacks.{group}")

    define()
    try:
        async with watching(apiserver, namespace) as (watcher, hints):
            kubectl("delete", "crd", f"fakestacks.{group}", "--timeout=20s")
            await until(lambda: f"does not serve fakestacks.{group}/v1" in watcher.problem(), seconds=60)
            define()
            await until(lambda: watcher.fresh() and hints.gaps)
            kubectl("apply", "-f", "-", stdin=json.dumps(fake))
            await hints.comes("CosStack", namespace, "cos")
    finally:
        kubectl("delete", "crd", f"fakestacks.{group}", "--ignore-not-found", "--wait=false")


async def test_without_the_definition_it_says_so_and_tries_again(
    apiserver: str, kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `served` says without it is tested with the client."""
    monkeypatch.setattr("cos_operator.watch._LAST_RESTART", 1.0)
    answers = [False, False]
    real_served = Kube.served

    async def served(self: Kube, kind: str, where: str | None) -> bool:
        return answers.pop() if answers else await real_served(self, kind, where)

    monkeypatch.setattr(Kube, "served", served)
    async with watching(apiserver, namespace, fresh=False) as (watcher, hints):
        await until(lambda: "apply the operator's CustomResourceDefinitions" in watcher.problem())
        await until(lambda: watcher.fresh() and hints.gaps)
        await kube.create(stack(namespace))
        await hints.comes("CosStack", namespace, "cos")
