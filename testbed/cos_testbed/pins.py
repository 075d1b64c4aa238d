"""Every version that the testbed pins, and how each Go program is built.

A `GoModule` is a folder in `testbed/go/` whose go.mod names its programs as tools and whose go.sum fixes every
dependency. To change a version, edit it here and in the go.mod, then run `go mod tidy` in that folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GO_MINIMUM = (1, 26)
GO_MODULES_DIR = Path(__file__).resolve().parents[1] / "go"


@dataclass(frozen=True)
class GoModule:
    """A wrapper module and what `go build` makes of it.

    `programs` maps an executable's name to its Go package; `stamps` are the variables that carry the version.
    """

    name: str
    module: str
    version: str
    programs: dict[str, str]
    tags: str = ""
    stamps: tuple[tuple[str, str], ...] = ()

    @property
    def source(self) -> Path:
        """The folder with its go.mod."""
        return GO_MODULES_DIR / self.name

    @property
    def ldflags(self) -> str:
        """Linker flags: no debugging symbols, the version stamped in."""
        return " ".join(["-s", "-w", *(f"-X {variable}={value}" for variable, value in self.stamps)])


KUBERNETES_VERSION = "v1.36.3"
ETCD_VERSION = "v3.6.14"
CONTAINERD_VERSION = "v2.3.7"
CNI_VERSION = "v1.9.1"
COREDNS_VERSION = "v1.15.0"
LOCAL_PATH_PROVISIONER_VERSION = "v0.0.30"
REGISTRY_VERSION = "v3.1.2"
HELM_VERSION = "v4.3.1"
TRAEFIK_VERSION = "v3.6.12"
KWOK_VERSION = "v0.8.0"
OTELCOL_VERSION = "v0.161.0"
VERSITYGW_VERSION = "v1.8.0"

_K8S = "k8s.io/kubernetes"
_CONTAINERD = "github.com/containerd/containerd/v2"
_CNI = "github.com/containernetworking/plugins"
_COREDNS = "github.com/coredns/coredns"
_LOCAL_PATH = "github.com/rancher/local-path-provisioner"
_REGISTRY = "github.com/distribution/distribution/v3"
_HELM = "helm.sh/helm/v4"
_TRAEFIK = "github.com/traefik/traefik/v3"
_ETCD = "go.etcd.io/etcd/server/v3"
_KWOK = "sigs.k8s.io/kwok"
_VERSITYGW = "github.com/versity/versitygw"
_OTELCOL = "go.opentelemetry.io/collector/otelcol"

GO_MODULES: tuple[GoModule, ...] = (
    GoModule(
        "kubernetes",
        _K8S,
        KUBERNETES_VERSION,
        {
            name: f"{_K8S}/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
                "kubectl",
            )
        },
        stamps=(
            ("k8s.io/component-base/version.gitVersion", KUBERNETES_VERSION),
            ("k8s.io/component-base/version.gitMajor", "1"),
            ("k8s.io/component-base/version.gitMinor", "36"),
            ("k8s.io/client-go/pkg/version.gitVersion", KUBERNETES_VERSION),
        ),
    ),
    GoModule("etcd", _ETCD, ETCD_VERSION, {"etcd": _ETCD}),
    GoModule(
        "containerd",
        _CONTAINERD,
        CONTAINERD_VERSION,
        {name: f"{_CONTAINERD}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
        tags="no_btrfs no_devmapper no_zfs no_aufs",
        stamps=((f"{_CONTAINERD}/version.Version", CONTAINERD_VERSION),),
    ),
    GoModule(
        "cni",
        _CNI,
        CNI_VERSION,
        {
            "bridge": f"{_CNI}/plugins/main/bridge",
            "loopback": f"{_CNI}/plugins/main/loopback",
            "host-local": f"{_CNI}/plugins/ipam/host-local",
            "portmap": f"{_CNI}/plugins/meta/portmap",
        },
    ),
    GoModule("coredns", _COREDNS, COREDNS_VERSION, {"coredns": _COREDNS}),
    GoModule(
        "local-path-provisioner",
        _LOCAL_PATH,
        LOCAL_PATH_PROVISIONER_VERSION,
        {"local-path-provisioner": _LOCAL_PATH},
        stamps=(("main.VERSION", LOCAL_PATH_PROVISIONER_VERSION),),
    ),
    GoModule(
        "registry",
        _REGISTRY,
        REGISTRY_VERSION,
        {"registry": f"{_REGISTRY}/cmd/registry"},
        stamps=((f"{_REGISTRY}/version.version", REGISTRY_VERSION),),
    ),
    GoModule(
        "helm",
        _HELM,
        HELM_VERSION,
        {"helm": f"{_HELM}/cmd/helm"},
        stamps=((f"{_HELM}/internal/version.version", HELM_VERSION),),
    ),
    GoModule(
        "traefik",
        _TRAEFIK,
        TRAEFIK_VERSION,
        {"traefik": f"{_TRAEFIK}/cmd/traefik"},
        stamps=((f"{_TRAEFIK}/pkg/version.Version", TRAEFIK_VERSION.removeprefix("v")),),
    ),
    GoModule("kwok", _KWOK, KWOK_VERSION, {"kwok": f"{_KWOK}/cmd/kwok"}),
    # Its main package is in the folder itself.
    GoModule(
        "otelcol",
        _OTELCOL,
        OTELCOL_VERSION,
        {"otelcol": "cos.dev/testbed/otelcol"},
        stamps=(("main.version", OTELCOL_VERSION),),
    ),
    GoModule(
        "versitygw",
        _VERSITYGW,
        VERSITYGW_VERSION,
        {"versitygw": f"{_VERSITYGW}/cmd/versitygw"},
        stamps=(("main.Version", VERSITYGW_VERSION),),
    ),
)

PROGRAMS: dict[str, GoModule] = {program: module for module in GO_MODULES for program in module.programs}
