"""The chart, rendered by Helm with many values, and what a real API server says to the outcome."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "cos-operator"
SAMPLES = {path.stem: path.read_text() for path in sorted((ROOT / "manifests" / "samples").glob("*.yaml"))}

sys.path.insert(0, str(ROOT / "hack"))
import render_manifests  # noqa: E402 - the path is set above

RELEASE_NAMESPACE = "release-ns"
Kubectl = Callable[..., str]


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """What a person types."""
    command = [sys.executable, "-m", "cos_testbed", "path", "helm"]
    path = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=1800).stdout.strip()

    def run(*args: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [path, *args, "--values=-"],
            input=yaml.safe_dump(values or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture(scope="session")
def render(helm: Any) -> Callable[..., list[dict[str, Any]]]:
    """``render("a=1", b={"c": 2})``: the objects of the chart with these values."""

    def run(
        *sets: str,
        chart: Path = CHART,
        namespace: str = RELEASE_NAMESPACE,
        api_versions: tuple[str, ...] = (),
        **values: Any,
    ) -> list[dict[str, Any]]:
        args = ["template", "cos-operator", str(chart), f"--namespace={namespace}"]
        args += [f"--api-versions={version}" for version in api_versions]
        done = helm(*args, *(f"--set={item}" for item in sets), values=values)
        assert done.returncode == 0, done.stderr
        return [obj for obj in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if obj]

    return run


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [obj for obj in objects if obj["kind"] == kind]


def pod_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (deployment,) = of_kind(objects, "Deployment")
    return dict(deployment["spec"]["template"])


def env_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in pod_of(objects)["spec"]["containers"][0]["env"]}


def test_the_chart_passes_helms_linter(helm: Any) -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


def test_the_install_manifest_is_the_rendered_chart() -> None:
    assert (ROOT / render_manifests.INSTALL_FILE).read_text() == render_manifests.render()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("replicas=two",), ("/replicas", "integer")),
        (("replicas=-1",), ("/replicas", "minimum")),
        (("replicaCount=2",), ("replicaCount", "not allowed")),
        (("watch.namespace=a",), ("/watch", "'namespace' not allowed")),
        (("watch.namespaces=a",), ("/watch/namespaces", "array")),
        (("watch.namespaces={A_b}",), ("/watch/namespaces/0", "A_b")),
        (("watch.clusterWide=yes please",), ("/watch/clusterWide", "boolean")),
        (("watch.clusterWide=true", "watch.namespaces={a}"), ("watch.clusterWide", "exclude each other")),
        (("image.repositry=x",), ("/image", "'repositry' not allowed")),
        (("image.repository=",), ("/image/repository",)),
        (("image.digest=sha256:12",), ("/image/digest", "sha256:12")),
        (("image.pullPolicy=Sometimes",), ("/image/pullPolicy", "'IfNotPresent'")),
        (("resources.limits.memory=64Mb",), ("/resources/limits/memory", "64Mb")),
        (("log.level=loud",), ("/log/level", "'debug'")),
        (("runAsUser=0",), ("/runAsUser", "minimum")),
        (("extraEnv[0].name=COS_WORKERS", "extraEnv[0].value=a"), ("extraEnv", "COS_WORKERS", "remove it")),
        (
            ("metrics.serviceMonitor.enabled=Always", "metrics.service.enabled=false"),
            ("set metrics.service.enabled to true",),
        ),
    ],
    ids=lambda case: case[-1] if isinstance(case[-1], str) else None,
)
def test_a_wrong_value_is_refused_by_name(helm: Any, values: tuple[str, ...], words: tuple[str, ...]) -> None:
    sets = [f"--set={value}" for value in values]
    done = helm("template", "cos-operator", str(CHART), *sets)
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr


def test_the_default_scope_is_the_releases_namespace(render: Any) -> None:
    objects = render()
    assert not of_kind(objects, "ClusterRole")
    assert not of_kind(objects, "ClusterRoleBinding")
    assert {role["metadata"]["namespace"] for role in of_kind(objects, "Role")} == {RELEASE_NAMESPACE}
    assert env_of(objects)["COS_NAMESPACES"] == RELEASE_NAMESPACE


def test_a_list_of_namespaces_gets_a_role_in_each_and_the_lease_stays_home(render: Any) -> None:
    objects = render("watch.namespaces={b,a,b}")
    assert not of_kind(objects, "ClusterRole")
    assert env_of(objects)["COS_NAMESPACES"] == "a,b"
    where = {
        (role["metadata"]["namespace"], role["metadata"]["name"]): {
            resource for rule in role["rules"] for resource in rule["resources"]
        }
        for role in of_kind(objects, "Role")
    }
    assert set(where) == {
        ("a", "cos-operator"),
        ("b", "cos-operator"),
        (RELEASE_NAMESPACE, "cos-operator-leader-election"),
    }
    assert where[RELEASE_NAMESPACE, "cos-operator-leader-election"] == {"leases"}
    assert "leases" not in where["a", "cos-operator"]
    for binding in of_kind(objects, "RoleBinding"):
        assert binding["roleRef"]["name"] == binding["metadata"]["name"]
        assert [subject["namespace"] for subject in binding["subjects"]] == [RELEASE_NAMESPACE]


def test_both_scopes_grant_the_same_rules(render: Any) -> None:
    (wide,) = of_kind(render("watch.clusterWide=true"), "ClusterRole")
    narrow = next(role for role in of_kind(render(), "Role") if role["metadata"]["name"] == "cos-operator")
    assert wide["rules"] == narrow["rules"]
    assert env_of(render("watch.clusterWide=true"))["COS_NAMESPACES"] == ""


def test_one_replica_may_be_drained_and_several_are_spread(render: Any) -> None:
    one, two = render(), render("replicas=2")
    assert not of_kind(one, "PodDisruptionBudget")
    assert "topologySpreadConstraints" not in pod_of(one)["spec"]
    (budget,) = of_kind(two, "PodDisruptionBudget")
    (deployment,) = of_kind(two, "Deployment")
    assert budget["spec"] == {"maxUnavailable": 1, "selector": deployment["spec"]["selector"]}
    (spread,) = pod_of(two)["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == deployment["spec"]["selector"]


def test_the_image_is_named_by_tag_or_digest(render: Any) -> None:
    def image(*values: str) -> str:
        return str(pod_of(render(*values))["spec"]["containers"][0]["image"])

    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    digest = "sha256:" + "0" * 64
    assert image() == f"cos-operator:{version}"
    assert image("image.repository=r.example/x", "image.tag=v9") == "r.example/x:v9"
    assert image("image.tag=v9", f"image.digest={digest}") == f"cos-operator@{digest}"


def test_only_what_matters_to_the_process_restarts_it(render: Any, tmp_path: Path) -> None:
    newer = tmp_path / "cos-operator"
    shutil.copytree(CHART, newer)
    chart = newer / "Chart.yaml"
    chart.write_text(chart.read_text().replace("version: 0.1.0", "version: 0.1.1", 1))
    crd = newer / "files" / "crds" / "cos.dev_cosstacks.yaml"
    other = crd.read_text().replace("Stop all changes", "Change nothing")
    assert other != crd.read_text()
    crd.write_text(other)
    before = pod_of(render())
    assert before == pod_of(render(chart=newer))
    assert before == pod_of(render("metrics.service.enabled=false", "rbac.aggregateRoles=true"))
    assert before != pod_of(render("workers=9"))


def test_options_are_off_until_asked_for(render: Any) -> None:
    kinds = {obj["kind"] for obj in render()}
    assert kinds == {
        "CustomResourceDefinition",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "Service",
        "Deployment",
    }
    without = render("crds.install=false", "rbac.create=false", "serviceAccount.create=false")
    assert {obj["kind"] for obj in without} == {"Service", "Deployment"}
    assert pod_of(without)["spec"]["serviceAccountName"] == "default"


@pytest.mark.parametrize(
    ("kind", "value"), [("ServiceMonitor", "serviceMonitor"), ("PrometheusRule", "prometheusRule")]
)
@pytest.mark.parametrize(("word", "without", "with_"), [("Auto", 0, 1), ("Always", 1, 1), ("Never", 0, 0)])
def test_objects_of_the_prometheus_operator_are_made_where_it_is_there(
    render: Any, kind: str, value: str, word: str, without: int, with_: int
) -> None:
    sets = (f"metrics.{value}.enabled={word}", f"metrics.{value}.labels.team=a")
    assert len(of_kind(render(*sets), kind)) == without
    found = of_kind(render(*sets, api_versions=(f"monitoring.coreos.com/v1/{kind}",)), kind)
    assert len(found) == with_
    assert all(obj["metadata"]["labels"]["team"] == "a" for obj in found)


def test_without_its_service_there_is_nothing_to_monitor_unless_asked_for(render: Any) -> None:
    kinds = ("ServiceMonitor", "PrometheusRule")
    versions = tuple(f"monitoring.coreos.com/v1/{kind}" for kind in kinds)
    objects = render("metrics.service.enabled=false", api_versions=versions)
    assert not [obj for kind in kinds for obj in of_kind(objects, kind)]
    # Prometheus may find the pods by itself.
    alone = render("metrics.service.enabled=false", "metrics.prometheusRule.enabled=Always")
    assert of_kind(alone, "PrometheusRule")


def test_dashboards_are_those_of_the_files_where_they_are_asked_for(render: Any) -> None:
    assert not of_kind(render(), "ConfigMap")
    files = {path.name: path.read_text() for path in (CHART / "files/dashboards").glob("*.json")}
    maps = of_kind(render("metrics.dashboards.enabled=true"), "ConfigMap")
    assert {obj["metadata"]["labels"]["grafana_dashboard"] for obj in maps} == {"1"}
    assert {name: text for obj in maps for name, text in obj["data"].items()} == files


def test_the_rules_are_those_of_the_file_and_name_where_runbooks_are(render: Any) -> None:
    plain = yaml.safe_load((CHART / "files/monitoring/rules.yaml").read_text())
    (as_it_is,) = of_kind(render("metrics.prometheusRule.enabled=Always"), "PrometheusRule")
    assert as_it_is["spec"] == plain
    base = "https://example.com/runbooks"
    (moved,) = of_kind(
        render("metrics.prometheusRule.enabled=Always", f"metrics.prometheusRule.runbookUrl={base}"),
        "PrometheusRule",
    )
    urls = [
        rule["annotations"]["runbook_url"] for group in moved["spec"]["groups"] for rule in group["rules"]
    ]
    assert all(url.startswith(f"{base}/Cos") for url in urls)


def test_roles_for_people_are_aggregated_and_speak_of_stacks_alone(render: Any) -> None:
    roles = of_kind(render("rbac.aggregateRoles=true"), "ClusterRole")
    assert len(roles) == 2
    for role in roles:
        named = {resource for rule in role["rules"] for resource in rule["resources"]}
        assert named == {"cosstacks", "stackprobes", "stackbackups", "stackrestores"}
    (view,) = [
        role for role in roles if "rbac.authorization.k8s.io/aggregate-to-view" in role["metadata"]["labels"]
    ]
    assert view["rules"][0]["verbs"] == ["get", "list", "watch"]


#: Values under which every object goes to a real API server.
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "cluster-wide": {"watch": {"clusterWide": True}, "rbac": {"aggregateRoles": True}},
    "everything": {
        "fullnameOverride": "my-operator",
        "replicas": 2,
        "imagePullSecrets": [{"name": "regcred"}],
        "runAsUser": None,
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
                }
            }
        },
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
        "podAnnotations": {"a": "b"},
        "podLabels": {"a": "b", "app.kubernetes.io/name": "hijacked"},
        "extraEnv": [
            {"name": "COS_RECONCILE_TIMEOUT_SECONDS", "value": "20"},
            {"name": "LOGFIRE_TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
        ],
        "serviceAccount": {"name": "other", "annotations": {"a": "b"}},
        "metrics": {"service": {"annotations": {"a": "b"}}},
        "resources": {"requests": {"cpu": 1, "memory": "0.1Gi"}, "limits": {"cpu": "2"}},
    },
}


@pytest.mark.parametrize("name", VARIANTS)
async def test_the_api_server_accepts_every_object(
    render: Any, kubectl: Kubectl, namespace: str, name: str
) -> None:
    objects = render(namespace=namespace, **VARIANTS[name])
    kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
        stdin=yaml.dump_all(objects, Dumper=yaml.CSafeDumper),
    )


@pytest.mark.parametrize("sample", SAMPLES)
async def test_the_api_server_accepts_every_sample(kubectl: Kubectl, namespace: str, sample: str) -> None:
    objects = [obj for obj in yaml.safe_load_all(SAMPLES[sample]) if obj["kind"] == "CosStack"]
    for obj in objects:
        obj["metadata"]["namespace"] = namespace
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=yaml.safe_dump_all(objects))


async def test_rights_end_at_the_watched_namespaces(render: Any, kubectl: Kubectl, namespace: str) -> None:
    objects = [
        obj for obj in render(namespace=namespace) if obj["kind"] in {"ServiceAccount", "Role", "RoleBinding"}
    ]
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    account = f"--as=system:serviceaccount:{namespace}:cos-operator"

    def may(verb: str, resource: str, where: str) -> bool:
        try:
            answer = kubectl("auth", "can-i", verb, resource, account, f"--namespace={where}")
        except subprocess.CalledProcessError as error:
            answer = error.output.strip()
        # Reasons may follow the word.
        return {"yes": True, "no": False}[answer.split()[0]]

    assert may("patch", "statefulsets.apps", namespace)
    assert may("update", "leases.coordination.k8s.io/cos-operator", namespace)
    assert not may("update", "leases.coordination.k8s.io/another", namespace)
    assert not may("delete", "persistentvolumeclaims", namespace)
    assert not may("create", "pods/exec", namespace)
    assert not may("create", "pods", namespace)
    assert not may("update", "cosstacks.cos.dev", namespace)
    assert not may("create", "rolebindings.rbac.authorization.k8s.io", namespace)
    for verb in ("get", "list", "create"):
        assert not may(verb, "secrets", "kube-system")
    assert not may("list", "cosstacks.cos.dev", "default")
