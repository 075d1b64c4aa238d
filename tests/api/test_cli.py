"""`kubectl cos` against a real API server, run as people run it: dry runs, rights, field managers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from conftest import Kubectl
from cos_controllers.k8s import Manifest
from cos_operator import metrics
from cos_operator.cli.documents import spec_diff
from cos_operator.cli.errors import CliError
from cos_operator.cli.session import FIELD_MANAGER, replace_spec
from cos_operator.engines.base import EngineClient
from cos_operator.key import Key
from cos_operator.kube import CHILD_KINDS, Kube
from cos_operator.reconcile import Reconciler

#: Nothing is asked: no pod ever becomes ready here.
NO_CLIENTS: Mapping[str, EngineClient] = {}
NOWHERE = {"nodeSelector": {"no-such-label": "none"}}
NOTHING, REFUSED, CHANGES = 0, 1, 2


class Cos(Protocol):
    """Runs the command in the namespace of the test."""

    def __call__(
        self, *arguments: str, stdin: str = "", kubeconfig: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Its exit code and output."""


@pytest.fixture(autouse=True)
def _own_series() -> Iterator[None]:
    """The registry is the process's: the series of these stacks go with the test."""
    yield
    for key in metrics.stacks():
        metrics.remove_stack(*key)


@pytest.fixture
def cos(apiserver: str, namespace: str) -> Cos:
    def run(*arguments: str, stdin: str = "", kubeconfig: str = "") -> subprocess.CompletedProcess[str]:
        target = ["--kubeconfig", kubeconfig or apiserver, "--namespace", namespace]
        command = [sys.executable, "-m", "cos_operator.cli", *arguments, *target]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in done.stderr
        return done

    return run


def stack_of(namespace: str, spec: dict[str, Any], name: str = "cos") -> Manifest:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "metadata": metadata, "spec": spec}


def redis(**fields: Any) -> dict[str, Any]:
    return {"redis": {"scheduling": NOWHERE, **fields}}


async def live(kube: Kube, namespace: str) -> Manifest:
    found = await kube.get("CosStack", namespace, "cos")
    assert found
    return found


async def objects(kube: Kube, namespace: str) -> set[tuple[str, str]]:
    """What the operator has made. Workloads' controllers make more with the same labels."""
    found = [obj for kind in CHILD_KINDS for obj in await kube.list(kind, namespace, "cos.dev/stack=cos")]
    return {
        (obj["kind"], obj["metadata"]["name"])
        for obj in found
        if {owner["kind"] for owner in obj["metadata"].get("ownerReferences", [])} <= {"CosStack"}
    }


async def test_status_says_what_the_stack_waits_for(kube: Kube, namespace: str, cos: Cos) -> None:
    none = cos("status")
    assert none.returncode == 1
    assert none.stderr == f"kubectl cos: no CosStack in namespace {namespace}: try another --namespace\n"
    await kube.create(stack_of(namespace, redis()))
    assert "no operator has looked at it yet" in cos("status").stdout
    await Reconciler(kube, NO_CLIENTS)(Key(namespace, "cos"))
    human = cos("status", "cos")
    assert human.returncode == 1
    assert "~ redis" in human.stdout
    assert human.stdout.isascii(), "plain text in a pipe"
    data = json.loads(cos("status", "-o", "json").stdout)
    assert data["status"] == (await live(kube, namespace))["status"]
    assert not data["ready"]
    missing = cos("status", "other")
    assert missing.stderr == f"kubectl cos: no CosStack other in namespace {namespace}: there is: cos\n"
    await kube.create(stack_of(namespace, redis(), name="second"))
    several = cos("status")
    assert several.returncode == 1
    assert "has several stacks: name one of cos, second" in several.stderr


async def test_status_follows_until_ready(kube: Kube, namespace: str, cos: Cos) -> None:
    await kube.create(stack_of(namespace, redis()))
    late = cos("status", "--watch", "--timeout", "0.1")
    assert late.returncode == 1
    await Reconciler(kube, NO_CLIENTS)(Key(namespace, "cos"))
    body = await live(kube, namespace)
    for item in body["status"]["conditions"]:
        item["status"] = "True" if item["type"] == "Ready" else item["status"]
    metadata = {"name": "cos", "namespace": namespace}
    status = {key: body[key] for key in ("apiVersion", "kind", "status")} | {"metadata": metadata}
    await kube.apply(status, force=True, subresource="status")
    assert cos("status", "--watch").returncode == 0


async def test_a_plan_changes_nothing_and_says_what_would_come(kube: Kube, namespace: str, cos: Cos) -> None:
    manifest = yaml.safe_dump(stack_of(namespace, redis()))
    found = cos("plan", "-f", "-", "-o", "json", stdin=manifest)
    assert found.returncode == CHANGES, found.stderr
    assert await kube.list("CosStack", namespace) == []
    data = json.loads(found.stdout)
    assert data["exists"] is False
    assert "create redis: 3 Secrets" in cos("plan", "-f", "-", stdin=manifest).stdout
    await kube.create(stack_of(namespace, redis()))
    await Reconciler(kube, NO_CLIENTS)(Key(namespace, "cos"))
    assert {(item["kind"], item["name"]) for item in data["create"]} == await objects(kube, namespace)
    again = cos("plan", "-f", "-", stdin=manifest)
    assert again.returncode == NOTHING, again.stdout


def test_what_the_api_server_refuses_is_told_in_its_words(namespace: str, cos: Cos) -> None:
    manifest = yaml.safe_dump(stack_of(namespace, redis(parameters={"dir": "elsewhere"})))
    human = cos("plan", "-f", "-", stdin=manifest)
    assert human.returncode == REFUSED
    assert "parameters must not set what the operator owns" in human.stderr
    assert human.stderr.count("\n") == 1
    data = json.loads(cos("plan", "-f", "-", "-o", "json", stdin=manifest).stdout)
    assert "parameters must not set what the operator owns" in data["refused"]
    unknown = cos("plan", "-f", "-", stdin=yaml.safe_dump(stack_of(namespace, redis(maxClient=1))))
    assert unknown.returncode == REFUSED
    assert "maxClient" in unknown.stderr
    elsewhere = cos("plan", "-f", "-", stdin=yaml.safe_dump(stack_of("other", redis())))
    assert "the manifest is for namespace other" in elsewhere.stderr


def test_a_missing_namespace_is_named(apiserver: str) -> None:
    command = [sys.executable, "-m", "cos_operator.cli", "plan", "-f", "-", "--kubeconfig", apiserver]
    manifest = yaml.safe_dump(stack_of("cos-no-such-namespace", redis()))
    done = subprocess.run(command, input=manifest, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == REFUSED
    assert "namespace cos-no-such-namespace does not exist: kubectl create namespace" in done.stderr


FIRST = {
    "redis": {"scheduling": NOWHERE, "parameters": {"appendfsync": "always"}},
    "traefik": {"scheduling": NOWHERE},
    "postgres": [{"name": "prod", "scheduling": NOWHERE}, {"name": "dev", "scheduling": NOWHERE}],
    "revisionHistoryLimit": 3,
}
#: A component, a list's item, a map's key and a plain field are left out; one is added.
SECOND = {
    "redis": {"scheduling": NOWHERE, "maxClients": 7, "parameters": {}},
    "postgres": [{"name": "dev", "scheduling": NOWHERE}],
    "neo4j": {"scheduling": NOWHERE},
}


@pytest.mark.parametrize("way", [[], ["--server-side"]], ids=["client-side", "server-side"])
async def test_a_plan_tells_what_the_same_apply_then_does(
    kube: Kube, namespace: str, cos: Cos, kubectl: Kubectl, way: list[str]
) -> None:
    kubectl("apply", *way, "-f", "-", stdin=json.dumps(stack_of(namespace, FIRST)))
    reconcile = Reconciler(kube, NO_CLIENTS)
    for _ in range(2):
        await reconcile(Key(namespace, "cos"))
    before, existing = (await live(kube, namespace))["spec"], await objects(kube, namespace)
    kubectl("-n", namespace, "wait", "--for=create", "pod/cos-redis-0", "--timeout=30s")
    uid = kubectl("-n", namespace, "get", "pod", "cos-redis-0", "-o", "jsonpath={.metadata.uid}")
    manifest = json.dumps(stack_of(namespace, SECOND))
    found = cos("plan", "-f", "-", "-o", "json", stdin=manifest)
    assert found.returncode == CHANGES, found.stderr
    data = json.loads(found.stdout)
    assert (await live(kube, namespace))["spec"] == before
    assert {item["pod"] for item in data["restarts"] if not item["ends"]} == {"cos-redis-0"}
    assert {item["component"] for item in data["restarts"] if item["ends"]} == {"postgres-prod", "traefik"}

    kubectl("apply", *way, "-f", "-", stdin=manifest)
    after = (await live(kube, namespace))["spec"]
    assert spec_diff(before, after, ("present spec", "manifest, with defaults")) == data["specDiff"]
    for _ in range(3):
        await reconcile(Key(namespace, "cos"))
    left = await objects(kube, namespace)
    assert {(item["kind"], item["name"]) for item in data["create"]} == left - existing
    assert {(item["kind"], item["name"]) for item in data["delete"]} == existing - left
    kubectl("-n", namespace, "wait", "--for=create", "pod/cos-redis-0", "--timeout=30s")
    assert uid != kubectl("-n", namespace, "get", "pod", "cos-redis-0", "-o", "jsonpath={.metadata.uid}")
    assert cos("plan", "-f", "-", stdin=manifest).returncode == NOTHING


async def test_a_conflict_of_a_server_side_apply_is_told(
    kube: Kube, namespace: str, cos: Cos, kubectl: Kubectl
) -> None:
    kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(stack_of(namespace, redis(maxClients=5))))
    theirs = await live(kube, namespace)
    theirs["spec"]["redis"]["maxClients"] = 6
    kube.manager = "somebody"
    await kube.replace(theirs)
    data = json.loads(
        cos(
            "plan", "-f", "-", "-o", "json", stdin=json.dumps(stack_of(namespace, redis(maxClients=5)))
        ).stdout
    )
    assert any(
        ".spec.redis.maxClients (of somebody)" in note and "--force-conflicts" in note
        for note in data["notes"]
    )
    assert any("+  maxClients: 5" in line for line in data["specDiff"])


def person(kubectl: Kubectl, namespace: str, kubeconfig_with: Callable[..., str], **rights: str) -> str:
    """Kubeconfig of someone who may do only so much: verbs by resource."""
    kubectl("-n", namespace, "create", "serviceaccount", "person")
    rules = [
        {"apiGroups": ["*"], "resources": [resource], "verbs": verbs.split()}
        for resource, verbs in rights.items()
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "person"}}
    kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(role | {"rules": rules}))
    subject = f"--serviceaccount={namespace}:person"
    kubectl("-n", namespace, "create", "rolebinding", "person", "--role=person", subject)
    return kubeconfig_with(token=kubectl("-n", namespace, "create", "token", "person"))


async def test_a_plan_goes_on_without_secrets_and_says_so(
    kube: Kube, namespace: str, cos: Cos, kubectl: Kubectl, kubeconfig_with: Callable[..., str]
) -> None:
    await kube.create(stack_of(namespace, redis()))
    await Reconciler(kube, NO_CLIENTS)(Key(namespace, "cos"))
    kubectl("-n", namespace, "wait", "--for=create", "pod/cos-redis-0", "--timeout=30s")
    own = person(
        kubectl,
        namespace,
        kubeconfig_with,
        cosstacks="get list create patch update",
        **dict.fromkeys(
            (
                "configmaps",
                "services",
                "persistentvolumeclaims",
                "pods",
                "events",
                "controllerrevisions",
                "statefulsets",
                "deployments",
                "poddisruptionbudgets",
            ),
            "get list",
        ),
    )
    manifest = json.dumps(stack_of(namespace, redis(maxClients=7, authSecretRef={"name": "mine"})))
    found = cos("plan", "-f", "-", "-o", "json", stdin=manifest, kubeconfig=own)
    assert found.returncode == CHANGES, found.stderr
    data = json.loads(found.stdout)
    assert any("you may not read Secrets here" in note for note in data["notes"])
    assert [item["pod"] for item in data["restarts"]] == ["cos-redis-0"]
    assert not [item for item in data["create"] + data["change"] + data["delete"] if item["kind"] == "Secret"]
    assert data["blocked"] == []
    whole = json.loads(cos("plan", "-f", "-", "-o", "json", stdin=manifest).stdout)
    assert [item["reason"] for item in whole["blocked"]] == ["SecretNotFound"]


async def test_a_missing_right_is_named_in_one_line(
    kube: Kube, namespace: str, cos: Cos, kubectl: Kubectl, kubeconfig_with: Callable[..., str]
) -> None:
    await kube.create(stack_of(namespace, redis()))
    own = person(kubectl, namespace, kubeconfig_with, cosstacks="get")
    manifest = json.dumps(stack_of(namespace, redis(maxClients=7)))
    for arguments, right in (
        (["status"], 'cannot list resource "cosstacks"'),
        (["history", "cos"], 'cannot list resource "controllerrevisions"'),
        (["pause", "cos"], 'cannot update resource "cosstacks"'),
        (["plan", "-f", "-"], "you may not apply this"),
    ):
        found = cos(*arguments, stdin=manifest, kubeconfig=own)
        assert found.returncode == 1
        assert right in found.stderr
        assert found.stderr.count("\n") == 1
    assert cos("status", "cos", kubeconfig=own).stderr == ""


async def test_going_back_writes_the_revision_as_the_person(kube: Kube, namespace: str, cos: Cos) -> None:
    key = Key(namespace, "cos")
    reconcile = Reconciler(kube, NO_CLIENTS)
    await kube.create(stack_of(namespace, redis(maxClients=5)))
    await reconcile(key)
    first = (await live(kube, namespace))["spec"]
    edited = await live(kube, namespace)
    edited["spec"] |= {"deletionPolicy": "Delete", "paused": True, "traefik": {"scheduling": NOWHERE}}
    edited["spec"]["redis"]["maxClients"] = 6
    await kube.replace(edited)
    assert cos("resume").returncode == 0
    await reconcile(key)
    assert [row["revision"] for row in json.loads(cos("history", "-o", "json").stdout)] == [1, 2]
    told = cos("diff").stdout.splitlines()
    assert "-  maxClients: 5" in told
    assert "+  maxClients: 6" in told
    unasked = cos("rollback", "--to", "1")
    assert unasked.returncode == 1
    assert "--yes" in unasked.stderr
    assert (await live(kube, namespace))["spec"]["redis"]["maxClients"] == 6
    done = cos("rollback", "--to", "1", "--yes")
    assert done.returncode == 0, done.stderr
    assert "+  maxClients: 5" in done.stdout
    assert "the next apply undoes this" in done.stderr
    assert "not known to have served: redis" in done.stderr
    after = await live(kube, namespace)
    assert after["spec"] == first | {"deletionPolicy": "Delete"}
    managers = {entry["manager"]: entry for entry in after["metadata"]["managedFields"]}
    assert "f:redis" in managers[FIELD_MANAGER]["fieldsV1"]["f:spec"]
    assert set(managers) == {"cos-operator", FIELD_MANAGER}, "the operator's client made it, and its status"
    again = cos("rollback", "--to", "1", "--yes")
    assert "there is no revision 1; there are: 2, 3" in again.stderr
    assert "has the spec of revision 3 already" in cos("rollback", "--to", "3", "--yes").stdout
    await reconcile(key)
    rows = json.loads(cos("history", "-o", "json").stdout)
    assert [(row["revision"], row["current"]) for row in rows] == [(2, False), (3, True)]


async def test_gitops_is_named_where_it_would_undo(
    kube: Kube, namespace: str, cos: Cos, kubectl: Kubectl
) -> None:
    await kube.create(stack_of(namespace, redis()))
    label = "argocd.argoproj.io/tracking-id=shop:cos.dev/CosStack:x/cos"
    kubectl("-n", namespace, "annotate", "cosstack", "cos", label)
    done = cos("pause")
    assert "Argo CD (Application shop) applies this stack from Git: change it there too" in done.stderr
    data = json.loads(cos("resume", "-o", "json").stdout)
    assert data["changed"]
    assert "Argo CD" in data["warnings"][0]


async def test_pause_and_resume(kube: Kube, namespace: str, cos: Cos) -> None:
    await kube.create(stack_of(namespace, redis()))
    assert "is now paused" in cos("pause").stdout
    assert (await live(kube, namespace))["spec"]["paused"] is True
    assert "is already paused" in cos("pause", "cos").stdout
    assert "is now not paused" in cos("resume").stdout
    assert (await live(kube, namespace))["spec"]["paused"] is False


async def test_an_edit_is_refused_after_another_edit_and_not_after_a_status(
    kube: Kube, namespace: str
) -> None:
    await kube.create(stack_of(namespace, redis()))
    seen = await live(kube, namespace)
    await Reconciler(kube, NO_CLIENTS)(Key(namespace, "cos"))
    wanted = {**seen, "spec": {**seen["spec"], "paused": True}}
    written = await replace_spec(kube, seen, wanted)
    assert written["spec"]["paused"] is True
    with pytest.raises(CliError, match="was changed meanwhile: look again"):
        await replace_spec(kube, seen, {**seen, "spec": {**seen["spec"], "revisionHistoryLimit": 3}})


def test_the_namespace_is_that_of_the_context(apiserver: str, namespace: str, tmp_path: Path) -> None:
    config = json.loads(Path(apiserver).read_text())
    config["contexts"][0]["context"]["namespace"] = namespace
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-m", "cos_operator.cli", "status"]
    environment = {**os.environ, "KUBECONFIG": str(path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert f"no CosStack in namespace {namespace}" in done.stderr
    wrong = [*command, "--context", "no-such-context"]
    done = subprocess.run(wrong, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "has no context no-such-context: choose one with --context: " in done.stderr


def test_an_api_server_that_is_not_there_is_named(kubeconfig_with: Callable[..., str], cos: Cos) -> None:
    done = cos("status", kubeconfig=kubeconfig_with(server="https://127.0.0.1:1"))
    assert done.returncode == 1
    assert "https://127.0.0.1:1" in done.stderr
    assert "check that the API server runs, and --context" in done.stderr


def test_kubectl_runs_the_plugin(apiserver: str, namespace: str, kubectl: Kubectl, tmp_path: Path) -> None:
    """As installed: a program of this name in PATH. Options may stand before the command too."""
    plugin = tmp_path / "kubectl-cos"
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m cos_operator.cli "$@"\n')
    plugin.chmod(0o755)
    program = kubectl.args[0]  # type: ignore[attr-defined]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "KUBECONFIG": apiserver}
    command = [program, "cos", "-n", namespace, "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"no CosStack in namespace {namespace}" in done.stderr


async def test_a_probe_that_nobody_looks_after_is_told_with_what_stops_it(
    kube: Kube, namespace: str, cos: Cos
) -> None:
    await kube.create(stack_of(namespace, redis()))
    done = cos("probe", "--component", "redis", "--seconds", "2", "--timeout", "0.1")
    (probe,) = await kube.list("StackProbe", namespace)
    name = probe["metadata"]["name"]
    assert name.startswith("cos-")
    assert probe["spec"] | {"components": ["redis"], "secondsPerCheck": 2, "load": "Paced"} == probe["spec"]
    assert done.returncode == 1
    assert f"`kubectl delete stackprobe {name} -n {namespace}` stops it" in done.stderr
    assert "does one run, and for this namespace?" in done.stderr
    refused = cos("probe", "--component", "no/name")
    assert refused.returncode == 1
    assert "spec.components[0]" in refused.stderr


async def test_a_backup_that_nobody_looks_after_is_told_with_what_stops_it(
    kube: Kube, namespace: str, cos: Cos
) -> None:
    await kube.create(stack_of(namespace, redis()))
    done = cos("backup", "--component", "redis", "--repository", "main", "--timeout", "0.1")
    (backup,) = await kube.list("StackBackup", namespace)
    name = backup["metadata"]["name"]
    assert name.startswith("cos-")
    assert backup["spec"] | {"components": ["redis"], "repository": "main"} == backup["spec"]
    assert done.returncode == 1
    assert f"`kubectl delete stackbackup {name} -n {namespace}` stops it" in done.stderr
