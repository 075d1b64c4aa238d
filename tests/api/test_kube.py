"""The API client against a real API server: what is applied, what is refused, and in which words."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

import pytest

from cos_controllers.names import API_VERSION
from cos_operator.kube import (
    KINDS,
    AlreadyExists,
    Conflict,
    CredentialsError,
    FieldConflict,
    Forbidden,
    Invalid,
    Kube,
    NamespaceTerminating,
    NotFound,
    PreconditionFailed,
    Unauthorized,
)
from cos_operator.resource_versions import ResourceVersions

Manifest = dict[str, Any]
Kubectl = Callable[..., str]


def config_map(namespace: str, name: str = "settings", **data: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name},
        "data": data,
    }


def stack(namespace: str, name: str = "cos") -> Manifest:
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": API_VERSION, "kind": "CosStack", "metadata": metadata, "spec": {"redis": {}}}


def service_account_token(kubectl: Kubectl, namespace: str) -> str:
    """Token of a new service account that has no rights."""
    kubectl("-n", namespace, "create", "serviceaccount", "nobody")
    return kubectl("-n", namespace, "create", "token", "nobody")


async def test_what_does_not_exist_is_none(kube: Kube, namespace: str) -> None:
    assert await kube.get("ConfigMap", namespace, "absent") is None
    await kube.delete("ConfigMap", namespace, "absent")


async def test_apply_creates_then_changes_nothing_then_updates(kube: Kube, namespace: str) -> None:
    created = await kube.apply(config_map(namespace, a="1", b="2"), force=False)
    again = await kube.apply(config_map(namespace, a="1", b="2"), force=False)
    assert created["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]
    updated = await kube.apply(config_map(namespace, a="3"), force=False)
    assert updated["data"] == {"a": "3"}, "a key that is no longer applied is removed"
    assert updated == await kube.get("ConfigMap", namespace, "settings")
    assert {entry["manager"] for entry in updated["metadata"]["managedFields"]} == {"cos-operator"}


async def test_custom_resource_and_its_status(kube: Kube, namespace: str) -> None:
    await kube.create(stack(namespace))
    status = {**stack(namespace), "status": {"observedGeneration": 1}}
    del status["spec"]
    applied = await kube.apply(status, force=True, subresource="status")
    assert applied["status"]["observedGeneration"] == 1
    assert "redis" in applied["spec"]


async def test_a_foreign_owner_of_a_field_is_named_and_force_takes_it_back(
    kube: Kube, kubectl: Kubectl, namespace: str
) -> None:
    await kube.apply(config_map(namespace, a="ours"), force=False)
    patch = json.dumps({"data": {"a": "theirs"}})
    kubectl("-n", namespace, "patch", "configmap", "settings", "-p", patch, "--field-manager=kubectl-edit")
    with pytest.raises(Conflict) as refused:
        await kube.apply(config_map(namespace, a="ours"), force=False)
    assert refused.value.fields == (FieldConflict(manager="kubectl-edit", field=".data.a"),)
    assert "kubectl-edit" in str(refused.value)
    assert (await kube.apply(config_map(namespace, a="ours"), force=True))["data"] == {"a": "ours"}


async def test_uid_preconditions(kube: Kube, namespace: str) -> None:
    uid = (await kube.apply(config_map(namespace, a="1"), force=False))["metadata"]["uid"]
    await kube.apply(config_map(namespace, a="2"), force=False, precondition_uid=uid)
    with pytest.raises(PreconditionFailed):
        await kube.apply(config_map(namespace, a="3"), force=True, precondition_uid="0" * 36)
    with pytest.raises(PreconditionFailed):
        await kube.apply(config_map(namespace, "new", a="3"), force=True, precondition_uid=uid)
    with pytest.raises(PreconditionFailed):
        await kube.delete("ConfigMap", namespace, "settings", uid="0" * 36)
    await kube.delete("ConfigMap", namespace, "settings", uid=uid)
    assert await kube.get("ConfigMap", namespace, "settings") is None


async def test_uid_is_no_precondition_for_a_status(kube: Kube, namespace: str) -> None:
    """The reason why `apply` refuses the combination: the API server accepts any UID there."""
    await kube.create(stack(namespace))
    status = {**stack(namespace), "status": {"observedGeneration": 1}}
    del status["spec"]
    status["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    await kube.apply(status, force=True, subresource="status")
    with pytest.raises(ValueError, match="subresources"):
        await kube.apply(status, force=True, subresource="status", precondition_uid="x")


async def test_create_and_replace_notice_whoever_was_faster(kube: Kube, namespace: str) -> None:
    created = await kube.create(config_map(namespace, a="1"))
    with pytest.raises(AlreadyExists):
        await kube.create(config_map(namespace, a="1"))
    await kube.replace({**created, "data": {"a": "2"}})
    with pytest.raises(Conflict, match="modified"):
        await kube.replace({**created, "data": {"a": "3"}})


async def test_orphaned_children_stay(kube: Kube, namespace: str) -> None:
    owner = await kube.create(config_map(namespace, "owner"))
    child = config_map(namespace, "child")
    child["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    ]
    await kube.create(child)
    await kube.delete("ConfigMap", namespace, "owner", propagation="Orphan")
    deadline = time.monotonic() + 20
    while (left := await kube.get("ConfigMap", namespace, "child")) and "ownerReferences" in left["metadata"]:
        assert time.monotonic() < deadline, "the garbage collector did not orphan the child"
        await asyncio.sleep(0.2)
    assert left is not None


async def test_lists_are_paged_filtered_and_carry_their_kind(kube: Kube, namespace: str) -> None:
    """520 objects are two pages of 500."""
    for start in range(0, 520, 20):
        await asyncio.gather(
            *(kube.create(labelled(namespace, number)) for number in range(start, start + 20))
        )
    listed = await kube.list("ConfigMap", namespace, label_selector="test=paging")
    assert {obj["metadata"]["name"] for obj in listed} == {f"page-{number}" for number in range(520)}
    assert {(obj["apiVersion"], obj["kind"]) for obj in listed} == {("v1", "ConfigMap")}
    assert len(await kube.list("ConfigMap", namespace, "test=paging,parity=odd")) == 260
    one = await kube.list("ConfigMap", namespace, field_selector="metadata.name=page-7")
    assert [obj["data"] for obj in one] == [{"number": "7"}]
    everywhere = await kube.list("ConfigMap", None, "test=paging")
    assert len(everywhere) >= 520


async def test_a_list_of_what_is_known_shows_at_once_what_was_written(kube: Kube, namespace: str) -> None:
    kube.versions.forget()
    for number in range(20):
        created = await kube.create(labelled(namespace, number))
        listed = await kube.list_known("ConfigMap", namespace, "test=paging")
        assert len(listed) == number + 1
        assert int(kube.versions.newest("ConfigMap") or 0) >= int(created["metadata"]["resourceVersion"])
    assert {(obj["apiVersion"], obj["kind"]) for obj in listed} == {("v1", "ConfigMap")}


async def test_a_get_of_what_is_known_shows_at_once_what_was_written(kube: Kube, namespace: str) -> None:
    await kube.list("ConfigMap", namespace)
    assert await kube.get_known("ConfigMap", namespace, "page-1") is None
    created = await kube.create(labelled(namespace, 1))
    for value in ("2", "3"):
        assert await kube.get_known("ConfigMap", namespace, "page-1") == created
        created = await kube.replace({**created, "data": {"number": value}})


async def test_an_api_server_that_has_gone_back_in_time_is_believed(kube: Kube, namespace: str) -> None:
    """As after etcd was put back from a backup."""
    await kube.create(labelled(namespace, 1))
    for read in (
        lambda: kube.list_known("ConfigMap", namespace, "test=paging"),
        lambda: kube.get_known("ConfigMap", namespace, "page-1"),
    ):
        kube.versions = ResourceVersions()
        kube.versions.listed("ConfigMap", str(10**15))
        assert await read()
        assert kube.versions.newest("ConfigMap") is None, (
            "for a while it is not asked again what it does not know"
        )
        began = time.monotonic()
        assert await read()
        assert time.monotonic() - began < 2
    kube.versions = ResourceVersions()


def labelled(namespace: str, number: int) -> Manifest:
    obj = config_map(namespace, f"page-{number}", number=str(number))
    obj["metadata"]["labels"] = {"test": "paging", "parity": "odd" if number % 2 else "even"}
    return obj


async def test_immutable_and_malformed_fields_are_invalid_and_named(kube: Kube, namespace: str) -> None:
    claim: Manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": namespace, "name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await kube.apply(claim, force=False)
    claim["spec"]["accessModes"] = ["ReadWriteMany"]
    with pytest.raises(Invalid, match="immutable") as refused:
        await kube.apply(claim, force=False)
    assert refused.value.code == 422
    with pytest.raises(Invalid) as refused:
        await kube.apply({**config_map(namespace), "date": {}}, force=False)
    assert refused.value.code == 500, "a field that does not exist is a server error only by its number"
    assert "date" in str(refused.value)


async def test_a_refused_secret_is_reported_without_its_values(kube: Kube, namespace: str) -> None:
    metadata = {"namespace": namespace, "name": "login"}
    base: Manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    for body in (
        {"data": {"password": "not-base64-hunter2!"}},
        {"data": {"password": {"nested": "hunter2"}}},
        {"stringdata": {"password": "hunter2"}},
        {"data": {"bad key!": "aHVudGVyMg=="}},
    ):
        with pytest.raises(Invalid) as refused:
            await kube.apply(base | body, force=False)
        assert "hunter2" not in str(refused.value)
        assert "login" in str(refused.value)


async def test_a_terminating_namespace_is_told_from_a_missing_right(kube: Kube, namespace: str) -> None:
    held = config_map(namespace)
    held["metadata"]["finalizers"] = ["cos.dev/test"]
    await kube.create(held)
    await kube.delete("Namespace", "", namespace)
    with pytest.raises(NamespaceTerminating):
        await kube.create(config_map(namespace, "late"))
    held["metadata"]["finalizers"] = []
    await kube.apply(held, force=True)
    live = await kube.get("ConfigMap", namespace, "settings")
    if live is not None:
        live["metadata"]["finalizers"] = []
        await kube.replace(live)


async def test_missing_rights_and_refused_credentials(
    kubectl: Kubectl, namespace: str, kubeconfig_with: Callable[..., str]
) -> None:
    token = service_account_token(kubectl, namespace)
    async with Kube.connect(kubeconfig_with(token=token)) as nobody:
        with pytest.raises(Forbidden, match='cannot list resource "secrets"') as refused:
            await nobody.list("Secret", namespace)
        assert not isinstance(refused.value, NamespaceTerminating)
        await nobody.ping()
    async with Kube.connect(kubeconfig_with(token="made-up")) as stranger:
        with pytest.raises(Unauthorized):
            await stranger.list("Secret", namespace)


async def test_the_pods_service_account_is_used_and_its_token_read_again(
    kubectl: Kubectl, namespace: str, address: SplitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl("-n", namespace, "wait", "--for=create", "configmap/kube-root-ca.crt", "--timeout=20s")
    authority = kubectl(
        "-n", namespace, "get", "configmap", "kube-root-ca.crt", "-o", r"jsonpath={.data.ca\.crt}"
    )
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("expired")
    ca.write_text(authority)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
    monkeypatch.setattr("kubernetes.aio.config.incluster_config.SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr("kubernetes.aio.config.incluster_config.SERVICE_CERT_FILENAME", str(ca))
    monkeypatch.setattr("cos_operator.kube_login.SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr("cos_operator.kube._RELOGIN_INTERVAL", 0.0)
    async with Kube.connect() as client:
        with pytest.raises(Unauthorized):
            await client.list("Secret", namespace)
        token.write_text(service_account_token(kubectl, namespace))
        with pytest.raises(Forbidden, match="system:serviceaccount"):
            await client.list("Secret", namespace)


async def test_a_kind_without_its_definition_is_not_served(
    kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await kube.served("CosStack", None)
    assert await kube.served("CosStack", "no-such-namespace")
    absent = KINDS["CosStack"]._replace(plural="cosstackz")
    monkeypatch.setattr("cos_operator.kube_kinds.KINDS", {**KINDS, "CosStack": absent})
    assert not await kube.served("CosStack", None)
    with pytest.raises(NotFound):
        await kube.list("CosStack", None)


async def test_the_write_guard_stops_every_write_but_the_leases(kube: Kube, namespace: str) -> None:
    class Stopped(Exception): ...

    def guard() -> None:
        raise Stopped

    created = await kube.create(config_map(namespace, a="1"))
    kube.write_guard = guard
    writes = (
        lambda: kube.apply(config_map(namespace, a="2"), force=True),
        lambda: kube.create(config_map(namespace, "second")),
        lambda: kube.replace({**created, "data": {}}),
        lambda: kube.delete("ConfigMap", namespace, "settings"),
    )
    for write in writes:
        with pytest.raises(Stopped):
            await write()
    assert await kube.get("ConfigMap", namespace, "settings") == created
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": namespace, "name": "x"},
    }
    await kube.create(lease)
    kube.write_guard = None


async def test_a_name_cannot_become_another_path(kube: Kube, namespace: str) -> None:
    for name in ("", ".", "..", "a/b", "a%2fb", "a?b", "a b"):
        with pytest.raises(Invalid, match="is not a name"):
            await kube.delete("Secret", namespace, name)


async def test_a_kubeconfig_that_does_not_exist_is_named() -> None:
    with pytest.raises(CredentialsError, match="/no/such/file"):
        async with Kube.connect("/no/such/file"):
            raise AssertionError("unreachable")
