"""Installing, upgrading and uninstalling, by Helm and by kubectl, and what outlives each.

On an instance of the testbed of its own: what is tested here takes CustomResourceDefinitions away under every stack of
the cluster.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import REGISTRY, ROOT, Cluster, pod_uids, run_testbed, wait_for

from cos_testbed.instance import instance_from

INSTANCE = instance_from({}, 8)
CHART = ROOT / "charts" / "cos-operator"
CRD = "cosstacks.cos.dev"
CRD_FILE = "cos.dev_cosstacks.yaml"
DEFINITIONS = [
    f"{path.stem.removeprefix('cos.dev_')}.cos.dev" for path in (CHART / "files" / "crds").glob("*.yaml")
]
#: After each change, as briefly as can be.
PROBES = {"afterChange": True, "historyLimit": 1, "template": {"secondsPerCheck": 1}}
#: Where the manifest for kubectl puts the operator.
HOME = "cos-system"
NUMBERS = itertools.count(1)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"{REGISTRY}/cos-operator"


@dataclass(frozen=True)
class Place(Cluster):
    """The cluster, with namespaces for the operator and for stacks.

    Each test has its own, so that none waits until those of the test before have ended.
    """

    home: str
    stacks: str


@pytest.fixture(scope="module")
def bare() -> Iterator[Cluster]:
    """A cluster without anything of ours, that holds the images."""
    which = f"--instance={INSTANCE.index}"
    run_testbed(which, "up", timeout=1800)
    try:
        run_testbed(which, "load", "cos-operator", "redis", "traefik", timeout=1800)
        yield Cluster(str(INSTANCE.kubeconfig), run_testbed("path", "kubectl"), run_testbed("path", "helm"))
    finally:
        run_testbed(which, "clean", timeout=300)


@pytest.fixture
def empty(bare: Cluster, request: pytest.FixtureRequest) -> Iterator[Place]:
    """The same, with restricted namespaces; afterwards all is taken away again."""
    number = next(NUMBERS)
    place = Place(**vars(bare), home=getattr(request, "param", f"home-{number}"), stacks=f"stacks-{number}")
    place.namespace(place.home)
    place.namespace(place.stacks)
    yield place
    for release in yaml.safe_load(bare.helm("list", "--all-namespaces", "--output=yaml").stdout):
        bare.helm("uninstall", release["name"], f"--namespace={release['namespace']}")
    bare.delete_namespace(place.home, place.stacks, "other")
    for kind in ("clusterrole", "clusterrolebinding"):
        bare.run("delete", kind, "--selector=app.kubernetes.io/name=cos-operator")
    bare.run("delete", "crd", *DEFINITIONS, "--ignore-not-found")


def install(place: Place, *args: str, chart: Path = CHART, command: str = "install") -> Any:
    """`helm install`, with the testbed's image and a namespace for stacks. Arguments come last, so that they win."""
    return place.helm(
        command,
        "cos-operator",
        str(chart),
        f"--namespace={place.home}",
        f"--set=image.repository={IMAGE}",
        f"--set=watch.namespaces={{{place.stacks}}}",
        *args,
    )


def uninstall(place: Place) -> None:
    place.helm("uninstall", "cos-operator", f"--namespace={place.home}", "--wait", "--timeout=2m")


def stack(place: Place, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "CosStack",
        "metadata": {"name": "cos", "namespace": place.stacks},
        "spec": {"images": {"registry": REGISTRY}, "redis": {}, **spec},
    }


def operator_pods(place: Place) -> dict[str, int]:
    """Restarts of each Ready pod of the operator, by UID."""
    return {
        pod["metadata"]["uid"]: sum(status["restartCount"] for status in pod["status"]["containerStatuses"])
        for pod in place.list("pods", place.home, "app.kubernetes.io/name=cos-operator")
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        and not pod["metadata"].get("deletionTimestamp")
    }


def crd_field(cluster: Cluster, *path: str) -> Any:
    """What the stored CRD says of a field of the spec."""
    crd = cluster.get("crd", CRD)
    assert crd
    found = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    for name in path:
        found = found.get(name, {})
    return found


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The chart with the CRD of an imagined earlier release, in which stacks could not be paused."""
    chart = tmp_path / "cos-operator"
    shutil.copytree(CHART, chart)
    path = chart / "files" / "crds" / CRD_FILE
    crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["paused"]
    path.write_text(yaml.dump(crd, Dumper=yaml.CSafeDumper, sort_keys=False))
    return chart


def test_uninstalling_deletes_no_stack_and_installing_again_finds_it(empty: Place) -> None:
    install(empty, "--wait", "--timeout=2m")
    assert list(operator_pods(empty).values()) == [0]
    empty.apply(stack(empty))
    empty.wait_ready("cos", empty.stacks)
    before = pod_uids(empty, empty.stacks, "cos")
    uid = empty.stack("cos", empty.stacks)["metadata"]["uid"]

    uninstall(empty)
    assert not empty.list("deployments", empty.home)
    assert empty.get("crd", CRD)
    assert empty.stack("cos", empty.stacks)["metadata"]["uid"] == uid
    assert pod_uids(empty, empty.stacks, "cos") == before, "the engines go on serving"

    install(empty, "--wait", "--timeout=2m")
    maximum = 77
    empty.patch_stack("cos", empty.stacks, {"redis": {"maxClients": maximum}})
    empty.wait_ready("cos", empty.stacks)
    assert empty.stack("cos", empty.stacks)["metadata"]["uid"] == uid


def test_a_kept_crd_of_another_release_is_taken_over_only_when_asked(empty: Place) -> None:
    install(empty, "--set=replicas=0")
    uninstall(empty)
    empty.apply(stack(empty, paused=True))
    elsewhere = ("--namespace=other", "--create-namespace", "--set=replicas=0")
    refused = empty.helm("install", "cos-operator", str(CHART), *elsewhere, check=False)
    assert refused.returncode != 0
    assert CRD in refused.stderr
    assert "invalid ownership metadata" in refused.stderr
    empty.helm("install", "cos-operator", str(CHART), *elsewhere, "--take-ownership")
    crd = empty.get("crd", CRD)
    assert crd
    assert crd["metadata"]["annotations"]["meta.helm.sh/release-namespace"] == "other"
    assert empty.stack("cos", empty.stacks)


def test_an_upgrade_upgrades_the_crd_and_does_not_restart_the_operator(empty: Place, older: Path) -> None:
    install(empty, "--wait", "--timeout=2m", chart=older)
    assert not crd_field(empty, "paused")
    before = operator_pods(empty)
    install(empty, "--wait", "--timeout=2m", command="upgrade")
    assert crd_field(empty, "paused", "type") == "boolean"
    assert operator_pods(empty) == before

    # Handing the CRD over to someone else takes it away from nobody.
    install(empty, "--set=crds.install=false", command="upgrade")
    assert crd_field(empty, "paused", "type") == "boolean"


def test_two_replicas_are_ready_and_one_of_them_leads(empty: Place) -> None:
    install(empty, "--wait", "--timeout=2m", "--set=replicas=2")
    assert list(operator_pods(empty).values()) == [0, 0]

    def holder() -> str:
        lease = empty.get("lease", "cos-operator", empty.home) or {"spec": {}}
        return str(lease["spec"].get("holderIdentity", ""))

    first = wait_for("a leader", holder, 30)
    pods = {
        pod["metadata"]["name"]
        for pod in empty.list("pods", empty.home, "app.kubernetes.io/name=cos-operator")
    }
    assert first in pods
    empty.run("delete", "pod", first, "-n", empty.home, "--wait=false")
    # The one that stood by, or the deleted one's successor: it may start faster than the other asks again.
    wait_for("another leader", lambda: holder() not in {"", first}, 30)
    wait_for("two replicas again", lambda: len(operator_pods(empty)) == 2, 60)


def requests_of_the_operator(place: Place, since: datetime) -> Iterator[tuple[str, str, bool]]:
    """Resource, verb and whether it was allowed, of each request in the API server's audit log."""
    for line in INSTANCE.audit_log.read_text().splitlines():
        event = json.loads(line)
        who = event["user"]["username"]
        # A watch that goes on has not completed.
        if who != f"system:serviceaccount:{place.home}:cos-operator" or event["stage"] == "RequestReceived":
            continue
        target = event.get("objectRef")
        if target and datetime.fromisoformat(event["requestReceivedTimestamp"]) >= since:
            resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
            yield resource, event["verb"], event["annotations"]["authorization.k8s.io/decision"] == "allow"


def rights_of_the_operator(place: Place) -> set[tuple[str, str]]:
    """Resource and verb of all that its roles grant."""
    roles = place.list("roles", selector="app.kubernetes.io/name=cos-operator")
    assert {role["metadata"]["namespace"] for role in roles} == {place.home, place.stacks}
    return {
        (resource, verb)
        for role in roles
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def ended(place: Place) -> set[str]:
    """Names of the probes, if all have ended."""
    probes = place.list("stackprobes", place.stacks)
    done = all(probe.get("status", {}).get("completionTime") for probe in probes)
    return {probe["metadata"]["name"] for probe in probes} if done else set()


def test_rights_granted_are_rights_used(empty: Place) -> None:
    since = datetime.now(UTC)
    install(empty, "--wait", "--timeout=2m")
    proxy: dict[str, Any] = {"replicas": 2, "routes": []}
    for spec in (
        # With one revision kept, the second one forgets the first; likewise with one probe.
        {"traefik": proxy, "revisionHistoryLimit": 1, "probes": PROBES},
        {"traefik": {**proxy, "routes": [{"name": "web", "service": {"name": "web", "port": 80}}]}},
        {"redis": {"maxClients": 60}},
        {"redis": None, "traefik": {"replicas": 1}},
        {"redis": {}, "traefik": None},
    ):
        if empty.get("cosstack", "cos", empty.stacks):
            empty.patch_stack("cos", empty.stacks, spec)
        else:
            empty.apply(stack(empty, **spec))
        empty.wait_ready("cos", empty.stacks)
    wait_for(
        "the last change is probed, and the earlier probes forgotten", lambda: ended(empty) == {"cos-r5"}, 90
    )
    # One that is deleted while it makes load: its Job is stopped, and goes once all is cleared.
    long = {"stackRef": {"name": "cos"}, "secondsPerCheck": 60}
    metadata = {"name": "long", "namespace": empty.stacks}
    empty.apply({"apiVersion": "cos.dev/v1alpha1", "kind": "StackProbe", "metadata": metadata, "spec": long})
    wait_for("load is made", lambda: empty.get("job", "long", empty.stacks), 30)
    empty.run("delete", "stackprobe", "long", "-n", empty.stacks)
    wait_for("its Job is stopped and gone", lambda: not empty.list("jobs", empty.stacks), 60)
    # They wait for a repository, and for each other: that is told.
    for kind, spec in (("StackBackup", {}), ("StackRestore", {"backup": "waits"})):
        metadata = {"name": "waits", "namespace": empty.stacks}
        wanted = {"stackRef": {"name": "cos"}, **spec}
        empty.apply({"apiVersion": "cos.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": wanted})
        looked_at = ("--for=jsonpath={.status.phase}=Pending", "--timeout=30s")
        empty.run("wait", f"{kind.lower()}/waits", "-n", empty.stacks, *looked_at)
        empty.run("delete", kind.lower(), "waits", "-n", empty.stacks)
    come_and_go_by_themselves(empty)
    granted = rights_of_the_operator(empty)
    seen = set(requests_of_the_operator(empty, since))
    assert {(resource, verb) for resource, verb, allowed in seen if not allowed} == set()
    used = {(resource, verb) for resource, verb, _ in seen}
    # Server-side apply of what does not exist yet takes the right to create, and is logged as a patch.
    created = {(resource, "create") for resource, verb in used if verb == "patch" and resource != "pods"}
    # Asked by an admission plugin about owner references, never requested.
    consulted = {("cosstacks/finalizers", "update")}
    # Read of an engine that takes long to start, for signs of progress: these do not.
    patient = {("pods/log", "get")}
    assert granted - used - created - consulted - patient == set()


def come_and_go_by_themselves(empty: Place) -> None:
    """A backup and a verification that a stack makes by itself, and earlier ones that it no longer keeps.

    They fail at once, of a component that there is not: what is kept of them is counted all the same.
    """
    nothing = {"components": ["nothing"]}
    minutely = {"schedule": "* * * * *", **nothing}
    backup = {
        "repositories": [{"name": "main", "volume": {"size": "1Gi"}}],
        "schedules": [{"name": "often", "keep": {"last": 1}, **minutely}],
        "verification": {"historyLimit": 1, **minutely},
    }
    made = [("StackBackup", f"old-{number}", "often", {}) for number in range(4)]
    made += [("StackRestore", "old", "Verification", {"source": {}, "into": "Throwaway"})]
    for kind, name, schedule, spec in made:
        labels = {"cos.dev/backup-schedule": schedule}
        metadata = {"name": name, "namespace": empty.stacks, "labels": labels}
        wanted = {"stackRef": {"name": "cos"}, **nothing, **spec}
        empty.apply({"apiVersion": "cos.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": wanted})
    empty.patch_stack("cos", empty.stacks, {"backup": backup})

    def come_and_gone(kind: str, old: str) -> bool:
        names = [item["metadata"]["name"] for item in empty.list(kind, empty.stacks)]
        return old not in names and any(name.startswith("cos-") for name in names)

    wait_for("backups come and go", lambda: come_and_gone("stackbackups", "old-0"), 100)
    wait_for("verifications come and go", lambda: come_and_gone("stackrestores", "old"), 60)


@pytest.mark.parametrize("empty", [HOME], indirect=True)
def test_kubectl_alone_installs_upgrades_and_uninstalls(empty: Place, older: Path, tmp_path: Path) -> None:
    empty.run("apply", "-f", str(older / "files" / "crds" / CRD_FILE))
    text = (ROOT / "manifests" / "install.yaml").read_text()
    manifest = tmp_path / "install.yaml"
    manifest.write_text(text.replace(f"image: cos-operator:{VERSION}", f"image: {IMAGE}:{VERSION}"))
    assert manifest.read_text() != text
    empty.run("apply", "-f", str(manifest))
    assert crd_field(empty, "paused", "type") == "boolean"
    empty.run("rollout", "status", "deployment/cos-operator", "-n", empty.home, "--timeout=2m", timeout=130)
    empty.apply(stack(empty))
    empty.wait_ready("cos", empty.stacks)
    before = pod_uids(empty, empty.stacks, "cos")

    ours = "--selector=app.kubernetes.io/name=cos-operator"
    empty.run("delete", "-f", str(manifest), ours)
    assert not empty.list("deployments", empty.home)
    assert not empty.list("clusterroles", selector="app.kubernetes.io/name=cos-operator")
    assert empty.get("namespace", empty.home)
    assert empty.stack("cos", empty.stacks)
    assert pod_uids(empty, empty.stacks, "cos") == before

    # From kubectl to Helm, which has to be told to take over what it did not make.
    install(empty, "--wait", "--timeout=2m", "--take-ownership", "--force-conflicts")
    assert empty.stack("cos", empty.stacks)
