"""Two runs of one life cycle compare as equal, and every difference that matters is seen."""

from __future__ import annotations

import base64
import copy
import hashlib
import secrets
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from cos_crash.differ import diff, identities, lost, normalise

Manifest = dict[str, Any]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def run(namespace: str, suffix: str = "x2x4z", time: str = "2026-11-23T21:00:00Z") -> list[Manifest]:
    """A small namespace as one run leaves it: all that is new each time is new."""
    uids = {name: str(uuid.uuid4()) for name in ("stack", "set", "claim", "deployment", "replicas", "pod")}
    password = secrets.token_hex(20)
    pod_name = f"cos-traefik-7c5ddbdf54-{suffix}"

    def owner(kind: str, name: str, uid: str) -> Manifest:
        return {"kind": kind, "name": name, "uid": uids[uid], "controller": True}

    def obj(kind: str, name: str, uid: str | None = None, **rest: Any) -> Manifest:
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": uids[uid] if uid else str(uuid.uuid4()),
            "resourceVersion": str(secrets.randbelow(10**6)),
            "creationTimestamp": time,
            "annotations": {"kubectl/note": secrets.token_hex(3)},
        }
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata | rest.pop("metadata", {}), **rest}

    def secret(name: str, **data: str) -> Manifest:
        return obj("Secret", name, data={key: encoded(value) for key, value in data.items()})

    stack_owner = {"ownerReferences": [owner("CosStack", "cos", "stack")]}
    return [
        obj(
            "CosStack",
            "cos",
            "stack",
            spec={"redis": {}},
            status={"message": f"pod {pod_name} has served since {time}", "summary": "1/1"},
        ),
        secret("admin", password=password, uri=f"redis://cos:{password}@cos-redis.{namespace}.svc:6379"),
        secret("files", acl=f"user cos on #{hashlib.sha256(password.encode()).hexdigest()}"),
        obj(
            "StatefulSet",
            "cos-redis",
            "set",
            metadata=stack_owner,
            spec={"replicas": 1, "template": {"metadata": {"annotations": {"cos.dev/revision": "abc"}}}},
        ),
        obj(
            "PersistentVolumeClaim",
            "cos-redis-data-0",
            "claim",
            spec={"volumeName": f"pvc-{uids['claim']}", "resources": {"requests": {"storage": "1Gi"}}},
        ),
        obj("Service", "cos-redis", spec={"clusterIP": f"10.103.64.{secrets.randbelow(250)}", "ports": []}),
        obj("Deployment", "cos-traefik", "deployment", metadata=stack_owner, spec={}),
        obj(
            "ReplicaSet",
            "cos-traefik-7c5ddbdf54",
            "replicas",
            metadata={"ownerReferences": [owner("Deployment", "cos-traefik", "deployment")]},
        ),
        obj(
            "Pod",
            pod_name,
            "pod",
            metadata={
                "labels": {"app": "traefik", "pod-template-hash": "7c5ddbdf54"},
                "ownerReferences": [owner("ReplicaSet", "cos-traefik-7c5ddbdf54", "replicas")],
            },
            spec={"containers": [{"name": "traefik", "image": "traefik:3"}], "nodeName": "node-0"},
            status={"conditions": [{"type": "Ready", "status": "True"}]},
        ),
    ]


def test_two_runs_are_equal() -> None:
    one = normalise(run("first"), "first")
    other = normalise(run("second", "b9kpl", "2026-11-24T03:04:05Z"), "second")
    assert diff(one, other) == []
    assert "CosStack/cos" in one
    assert not [key for key in one if key.startswith("ReplicaSet")], "history of Kubernetes' own"


def changed(change: Callable[[dict[str, Manifest]], object]) -> list[str]:
    """The differences that a change of the second run makes."""
    objects = copy.deepcopy(run("second"))
    change({f"{obj['kind']}/{obj['metadata']['name'].partition('-7c5')[0]}": obj for obj in objects})
    return diff(normalise(run("first"), "first"), normalise(objects, "second"))


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        pytest.param(
            lambda by: by["StatefulSet/cos-redis"]["spec"].update(replicas=2),
            "StatefulSet/cos-redis.spec.replicas: expected 1, found 2",
            id="a field",
        ),
        pytest.param(
            lambda by: by["StatefulSet/cos-redis"]["metadata"]["ownerReferences"][0].update(
                uid=str(uuid.uuid4())
            ),
            "expected '<uid of CosStack/cos>', found '<uid of nothing>'",
            id="an owner that does not exist",
        ),
        pytest.param(
            lambda by: by["StatefulSet/cos-redis"]["metadata"].pop("ownerReferences"),
            "StatefulSet/cos-redis.metadata.owners",
            id="an owner that is missing",
        ),
        pytest.param(
            lambda by: by["StatefulSet/cos-redis"]["metadata"].update(deletionTimestamp="now"),
            "StatefulSet/cos-redis.metadata.deleting: expected False, found True",
            id="an object that is being deleted",
        ),
        pytest.param(
            lambda by: by["Secret/admin"]["data"].update(password=encoded(secrets.token_hex(20))),
            "Secret/admin.data.uri",
            id="two passwords that should be one",
        ),
        pytest.param(
            lambda by: by["Secret/admin"]["data"].update(password=encoded("changeme")),
            "found 'changeme'",
            id="a password that is not random",
        ),
        pytest.param(
            lambda by: by["PersistentVolumeClaim/cos-redis-data-0"]["spec"].update(
                volumeName=f"pvc-{uuid.uuid4()}"
            ),
            "volumeName: expected 'pvc-<uid of PersistentVolumeClaim/cos-redis-data-0>'",
            id="the volume of another claim",
        ),
        pytest.param(
            lambda by: by["CosStack/cos"]["status"].update(summary="0/1"),
            "CosStack/cos.status.summary: expected '1/1', found '0/1'",
            id="status",
        ),
        pytest.param(
            lambda by: by["Pod/cos-traefik"]["spec"]["containers"][0].update(image="traefik:4"),
            "images.traefik: expected 'traefik:3', found 'traefik:4'",
            id="the image of a pod",
        ),
        pytest.param(
            lambda by: by["Pod/cos-traefik"]["status"]["conditions"][0].update(status="False"),
            "ready: expected True, found False",
            id="a pod that is not ready",
        ),
        pytest.param(
            lambda by: by["CosStack/cos"]["metadata"]["annotations"].update({"cos.dev/mark": "1"}),
            "CosStack/cos.metadata.annotations.cos.dev/mark: expected '<missing>', found '1'",
            id="an annotation of ours",
        ),
    ],
)
def test_a_difference_is_seen(change: Callable[[dict[str, Manifest]], object], seen: str) -> None:
    assert any(seen in line for line in changed(change)), changed(change)


@pytest.mark.parametrize("quote", ['"', '\\"'])
def test_kubelet_words_a_failed_pull_in_two_ways(quote: str) -> None:
    image = f"{quote}registry:5000/redis:no-such-tag{quote}"
    cause = f"rpc error: code = NotFound desc = failed to pull and unpack image {image}: not found"

    def state(words: str) -> Any:
        obj = run("first")[0]
        obj["status"] = {
            "message": f"did not serve (pod cos-redis-0: {words}); it runs again",
            "json": f'{{"message": "pod cos-redis-0: {words}", "reason": "ImagePullFailed"}}',
        }
        return normalise([obj], "first")

    assert diff(state(cause), state(f"Back-off pulling image {image}: ErrImagePull: {cause}")) == []
    assert "it runs again" in state(cause)["CosStack/cos"]["status"]["message"]
    assert diff(state(cause), state("it crashed")) != []


def test_orphans_and_missing_objects_are_seen() -> None:
    expected = normalise(run("first"), "first")
    objects = run("second")
    orphan = {"kind": "ConfigMap", "metadata": {"name": "left", "uid": str(uuid.uuid4())}}
    lines = diff(expected, normalise([*objects, orphan], "second"))
    assert [line.partition(", found")[0] for line in lines] == ["ConfigMap/left: expected '<missing>'"]
    without = [obj for obj in objects if obj["kind"] != "Service"]
    assert [line.partition(":")[0] for line in diff(expected, normalise(without, "second"))] == [
        "Service/cos-redis"
    ]


def test_a_second_pod_of_a_replica_set_is_seen() -> None:
    objects = run("second")
    pod = next(obj for obj in objects if obj["kind"] == "Pod")
    twin = copy.deepcopy(pod)
    twin["metadata"] |= {"name": "cos-traefik-7c5ddbdf54-qqqqq", "uid": str(uuid.uuid4())}
    lines = diff(normalise(run("first"), "first"), normalise([*objects, twin], "second"))
    assert [line.partition(":")[0] for line in lines] == ["Pod/cos-traefik-<hash>-<random>+"]


def test_a_replaced_volume_and_another_password_are_told_without_showing_it() -> None:
    objects = run("first")
    before = identities(objects)
    assert set(before) == {"PersistentVolumeClaim/cos-redis-data-0", "Secret/admin", "Secret/files"}
    assert lost(before, before | {"Secret/new": "more is fine"}) == []
    after = copy.deepcopy(objects)
    for obj in after:
        if obj["kind"] == "PersistentVolumeClaim":
            obj["metadata"]["uid"] = str(uuid.uuid4())
        if obj["metadata"]["name"] == "admin":
            obj["data"]["password"] = encoded("other")
    kept = [obj for obj in after if obj["metadata"]["name"] != "files"]
    assert sorted(lost(before, identities(kept))) == [
        "PersistentVolumeClaim/cos-redis-data-0: is another one, or has another content",
        "Secret/admin: is another one, or has another content",
        "Secret/files: is gone",
    ]
