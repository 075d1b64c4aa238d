"""One stack against a real API server: real defaulting, real server-side apply, no engines (nothing is scheduled)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Kubectl
from cos_controllers.k8s import Manifest
from cos_operator import metrics
from cos_operator.engines.base import EngineClient
from cos_operator.key import Key
from cos_operator.kube import CHILD_KINDS, Kube
from cos_operator.reconcile import Reconciler

#: Nothing is due to be asked: no pod ever becomes ready here.
NO_CLIENTS: Mapping[str, EngineClient] = {}
NOWHERE = {"nodeSelector": {"no-such-label": "none"}}


@pytest.fixture(autouse=True)
def _own_series() -> Iterator[None]:
    """The registry is the process's: the series of these stacks go with the test."""
    yield
    for key in metrics.stacks():
        metrics.remove_stack(*key)


def full_spec() -> dict[str, Any]:
    """The six-service sample, with pods that no node takes."""
    path = Path(__file__).parents[2] / "manifests/samples/full.yaml"
    found = yaml.safe_load_all(path.read_text())
    spec: dict[str, Any] = next(obj["spec"] for obj in found if obj and obj["kind"] == "CosStack")
    for instance in (
        *spec["postgres"],
        *(spec[name] for name in ("redis", "elasticsearch", "neo4j", "traefik")),
    ):
        instance["scheduling"] = NOWHERE
    return spec


async def create(kube: Kube, namespace: str, spec: dict[str, Any], name: str = "cos") -> Key:
    metadata = {"name": name, "namespace": namespace}
    await kube.create(
        {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "metadata": metadata, "spec": spec}
    )
    return Key(namespace, name)


async def edit(kube: Kube, key: Key, spec: dict[str, Any]) -> None:
    stack = await kube.get("CosStack", key.namespace, key.name)
    assert stack
    await kube.replace({**stack, "spec": spec})


async def children(kube: Kube, namespace: str) -> dict[tuple[str, str], Manifest]:
    found = {}
    for kind in CHILD_KINDS:
        if kind != "Pod":
            # The StatefulSet controller's own revisions carry the labels of the pods.
            others = ",!cos.dev/component" if kind == "ControllerRevision" else ""
            for obj in await kube.list(kind, namespace, f"cos.dev/stack=cos{others}"):
                found[kind, obj["metadata"]["name"]] = obj
    return found


def versions(objects: Mapping[tuple[str, str], Manifest]) -> dict[tuple[str, str], str]:
    """Fields and labels of each object as JSON: what a write would change (status is Kubernetes' own)."""
    return {
        key: json.dumps({k: v for k, v in obj.items() if k != "status"} | {"metadata": _stable(obj)})
        for key, obj in objects.items()
    }


def _stable(obj: Manifest) -> Manifest:
    ours = [e for e in obj["metadata"].get("managedFields", []) if e["manager"] == "cos-operator"]
    kept = ("name", "uid", "labels", "annotations", "ownerReferences", "generation")
    return {**{key: obj["metadata"].get(key) for key in kept}, "managedFields": ours}


async def status_of(kube: Kube, key: Key) -> dict[str, Any]:
    stack = await kube.get("CosStack", *key)
    assert stack
    return dict(stack["status"])


async def test_a_second_pass_writes_nothing(kube: Kube, namespace: str) -> None:
    key = await create(kube, namespace, full_spec())
    reconcile = Reconciler(kube, NO_CLIENTS)
    await reconcile(key)
    first = versions(await children(kube, namespace))
    assert {kind for kind, _ in first} >= {"Secret", "ConfigMap", "Service", "StatefulSet", "Deployment"}
    writes: list[None] = []
    await reconcile(key)
    kube.write_guard = lambda: writes.append(None)
    await reconcile(key)
    kube.write_guard = None
    assert len(writes) == 0, "the API server's defaults look like drift"
    assert versions(await children(kube, namespace)) == first
    status = await status_of(kube, key)
    assert status["summary"] == "0/6"
    assert {row["name"] for row in status["components"]} == {
        "postgres-prod",
        "postgres-dev",
        "redis",
        "elasticsearch",
        "neo4j",
        "traefik",
    }


async def test_stripped_owners_labels_and_fields_are_put_back(
    kube: Kube, namespace: str, kubectl: Kubectl
) -> None:
    key = await create(kube, namespace, {"redis": {"scheduling": NOWHERE}})
    reconcile = Reconciler(kube, NO_CLIENTS)
    await reconcile(key)
    before = versions(await children(kube, namespace))
    for kind, name in before:
        stripped: dict[str, Any] = {
            "metadata": {"ownerReferences": [], "labels": {"app.kubernetes.io/name": None}}
        }
        if kind == "ConfigMap":
            stripped["data"] = {"redis.conf": "port 1"}
        kubectl("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(stripped))
    await reconcile(key)
    after = await children(kube, namespace)
    for key_, obj in after.items():
        assert _stable(obj)["labels"] == json.loads(before[key_])["metadata"]["labels"], key_
        assert _stable(obj)["ownerReferences"] == json.loads(before[key_])["metadata"]["ownerReferences"], (
            key_
        )
    assert "port 6379" in after["ConfigMap", "cos-redis-config"]["data"]["redis.conf"]


async def test_fields_that_others_add_stay(kube: Kube, namespace: str) -> None:
    key = await create(kube, namespace, {"redis": {"scheduling": NOWHERE}})
    reconcile = Reconciler(kube, NO_CLIENTS)
    await reconcile(key)
    service = await kube.get("Service", namespace, "cos-redis")
    assert service
    service["metadata"]["annotations"] = {"mesh.example.com/inject": "true"}
    await kube.replace(service)
    await reconcile(key)
    again = await kube.get("Service", namespace, "cos-redis")
    assert again
    assert again["metadata"]["annotations"] == {"mesh.example.com/inject": "true"}


async def test_a_foreign_object_is_never_taken_over(kube: Kube, namespace: str) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cos-redis-config", "namespace": namespace},
        "data": {"theirs": "yes"},
    }
    created = await kube.create(theirs)
    key = await create(kube, namespace, {"redis": {"scheduling": NOWHERE}})
    await Reconciler(kube, NO_CLIENTS)(key)
    live = await kube.get("ConfigMap", namespace, "cos-redis-config")
    assert live
    assert live["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
    row = (await status_of(kube, key))["components"][0]
    assert row["reason"] == "NameConflict"
    assert "ConfigMap cos-redis-config" in row["message"]
    await kube.delete("ConfigMap", namespace, "cos-redis-config")
    await Reconciler(kube, NO_CLIENTS)(key)
    assert (await status_of(kube, key))["components"][0]["reason"] == "Creating"


async def test_a_removed_component_is_pruned_all_but_its_data(kube: Kube, namespace: str) -> None:
    spec = {"redis": {"scheduling": NOWHERE}, "traefik": {"scheduling": NOWHERE}}
    key = await create(kube, namespace, spec)
    reconcile = Reconciler(kube, NO_CLIENTS)
    await reconcile(key)
    await edit(kube, key, {"traefik": {"scheduling": NOWHERE}})
    await reconcile(key)
    await reconcile(key)
    left = {name for name in await children(kube, namespace) if "redis" in name[1]}
    assert left == {
        ("Secret", "cos-redis-admin"),
        ("Secret", "cos-redis-app"),
        ("PersistentVolumeClaim", "cos-redis-data-0"),
    }
    status = await status_of(kube, key)
    assert status["retained"] == [{"component": "redis", "claim": "cos-redis-data-0"}]


async def test_what_the_api_server_refuses_is_said(kube: Kube, namespace: str) -> None:
    key = await create(kube, namespace, {"redis": {"scheduling": NOWHERE}})
    reconcile = Reconciler(kube, NO_CLIENTS)
    await reconcile(key)
    # Nothing that a rule of ours could know better.
    terms = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    await edit(kube, key, {"redis": {"scheduling": {**NOWHERE, "affinity": {"nodeAffinity": terms}}}})
    await reconcile(key)
    status = await status_of(kube, key)
    stalled = next(item for item in status["conditions"] if item["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "ApplyRefused")
    assert "StatefulSet cos-redis" in stalled["message"]
    assert "nodeSelectorTerms" in stalled["message"]
    events = await kube.list("Event", namespace, field_selector="type=Warning")
    assert [event["reason"] for event in events if event["involvedObject"]["kind"] == "CosStack"] == [
        "ApplyRefused"
    ]
    await reconcile(key)
    again = await kube.list("Event", namespace, field_selector="type=Warning")
    assert len(again) == len(events), "an Event is for what turns"


async def test_deletion_policy_moves_the_ownership_of_data(kube: Kube, namespace: str) -> None:
    key = await create(kube, namespace, {"redis": {"scheduling": NOWHERE}})
    reconcile = Reconciler(kube, NO_CLIENTS)
    for policy, owners in (("Retain", 0), ("Delete", 1), ("Retain", 0)):
        await edit(kube, key, {"deletionPolicy": policy, "redis": {"scheduling": NOWHERE}})
        await reconcile(key)
        objects = await children(kube, namespace)
        for name in ("cos-redis-admin", "cos-redis-app", "cos-seed"):
            assert len(objects["Secret", name]["metadata"].get("ownerReferences", [])) == owners, (
                policy,
                name,
            )


@pytest.mark.parametrize("gone", [True, False])
async def test_a_stack_that_is_gone_or_going_needs_nothing(kube: Kube, namespace: str, gone: bool) -> None:  # noqa: FBT001
    key = Key(namespace, "cos")
    if not gone:
        metadata = {"name": "cos", "namespace": namespace, "finalizers": ["example.com/hold"]}
        await kube.create(
            {
                "apiVersion": "cos.dev/v1alpha1",
                "kind": "CosStack",
                "metadata": metadata,
                "spec": {"redis": {}},
            }
        )
        await kube.delete("CosStack", namespace, "cos")
    assert await Reconciler(kube, NO_CLIENTS)(key) is None
    assert await children(kube, namespace) == {}
    if not gone:
        stack = await kube.get("CosStack", namespace, "cos")
        assert stack
        stack["metadata"]["finalizers"] = []
        await kube.replace(stack)
