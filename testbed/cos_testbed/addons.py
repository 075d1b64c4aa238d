"""Cluster DNS and the default volume provisioner: ordinary pods, so kubelet restarts them when they fail.

A provisioner on the host would need a watchdog of its own, and would not show that pods reach the API server.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cos_testbed import loop_claims
from cos_testbed.errors import TestbedError
from cos_testbed.images_infra import COREDNS, HELPER, PROVISIONER
from cos_testbed.instance import Instance, Node

APPLY_TIMEOUT_SECONDS = 60.0
STORAGE_CLASS = "local-path"
STORAGE_NAMESPACE = "local-path-storage"

# (namespace, name) of each Deployment, in the order in which they become useful.
DEPLOYMENTS = (("kube-system", "coredns"), (STORAGE_NAMESPACE, "local-path-provisioner"))

# Two blocks, since `template` comes before `kubernetes` in CoreDNS's order. Names outside the cluster do not
# exist, at once: without an answer, clients would wait for a time-out.
COREFILE = """\
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    loadbalance
}
.:53 {
    errors
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
"""

Manifest = dict[str, Any]


def apply(kubectl: Path, instance: Instance, manifests: Sequence[Manifest]) -> None:
    """Server-side apply; what a user changed in the add-ons comes back."""
    command = [
        str(kubectl),
        f"--kubeconfig={instance.kubeconfig}",
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=cos-testbed",
        "--filename=-",
    ]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
    try:
        done = subprocess.run(
            command,
            input=document,
            capture_output=True,
            text=True,
            timeout=APPLY_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TestbedError(f"kubectl apply did not end within {APPLY_TIMEOUT_SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise TestbedError(f"cannot apply the cluster's add-ons: {done.stderr.strip()}")


def manifests(instance: Instance, nodes: Sequence[Node]) -> list[Manifest]:
    """Every object of the add-ons."""
    return [*dns_manifests(instance), *storage_manifests(nodes)]


def dns_manifests(instance: Instance) -> list[Manifest]:
    """CoreDNS behind the fixed address that kubelet gives to pods."""
    labels = {"k8s-app": "kube-dns"}
    container = {
        "name": "coredns",
        "image": COREDNS.reference,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 10},
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "170Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    template = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    service_ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    return [
        _account("kube-system", "coredns"),
        _cluster_role("system:coredns", rules),
        _cluster_role_binding("system:coredns", "kube-system", "coredns"),
        _config_map("kube-system", "coredns", {"Corefile": COREFILE}),
        _deployment("kube-system", "coredns", labels, template, config=COREFILE),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {
                "clusterIP": str(instance.dns_address),
                "selector": labels,
                "ports": service_ports,
            },
        },
    ]


def storage_manifests(nodes: Sequence[Node]) -> list[Manifest]:
    """The provisioner of the default StorageClass, and the classes; the other's provisioner is a daemon.

    Both bind a volume where its first pod is scheduled.
    """
    name = "local-path-provisioner"
    labels = {"app": name}
    paths = [{"node": node.name, "paths": [str(node.volumes)]} for node in nodes]
    helper = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "priorityClassName": "system-node-critical",
            "containers": [
                {"name": "helper-pod", "image": HELPER.reference, "imagePullPolicy": "Never"},
            ],
        },
    }
    config = {
        "config.json": json.dumps({"nodePathMap": paths}),
        "setup": '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n',
        "teardown": '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n',
        "helperPod.yaml": json.dumps(helper),
    }
    container = {
        "name": name,
        "image": PROVISIONER.reference,
        "imagePullPolicy": "Never",
        "args": [
            "start",
            "--config=/etc/config/config.json",
            f"--helper-image={HELPER.reference}",
            f"--service-account-name={name}",
        ],
        "env": [
            {"name": "POD_NAMESPACE", "value": STORAGE_NAMESPACE},
            {"name": "CONFIG_MOUNT_PATH", "value": "/etc/config/"},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/config", "readOnly": True}],
    }
    template = {
        "serviceAccountName": name,
        "priorityClassName": "system-cluster-critical",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "local-path-config"}}],
    }
    read = ["get", "list", "watch"]
    write = [*read, "create", "patch", "update", "delete"]
    rules = [
        {
            "apiGroups": [""],
            "resources": ["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"],
            "verbs": read,
        },
        {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": write},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": read},
    ]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STORAGE_NAMESPACE}},
        _account(STORAGE_NAMESPACE, name),
        _cluster_role(name, rules),
        _cluster_role_binding(name, STORAGE_NAMESPACE, name),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": name, "namespace": STORAGE_NAMESPACE},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": write}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": STORAGE_NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": STORAGE_NAMESPACE}],
        },
        _config_map(STORAGE_NAMESPACE, "local-path-config", config),
        _deployment(STORAGE_NAMESPACE, name, labels, template, config=json.dumps(config)),
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {
                    "storageclass.kubernetes.io/is-default-class": "true",
                    # Unlike hostPath, a local volume honours fsGroup, as the volumes of real clusters do.
                    "defaultVolumeType": "local",
                },
            },
            "provisioner": "rancher.io/local-path",
            "volumeBindingMode": "WaitForFirstConsumer",
            "reclaimPolicy": "Delete",
        },
        loop_claims.storage_class(),
    ]


def _account(namespace: str, name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace},
    }


def _cluster_role(name: str, rules: list[dict[str, list[str]]]) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }


def _cluster_role_binding(name: str, namespace: str, account: str) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


def _config_map(namespace: str, name: str, data: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def _deployment(
    namespace: str, name: str, labels: dict[str, str], pod: dict[str, Any], *, config: str
) -> Manifest:
    """One replica; a change of `config` replaces the pod."""
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    containers = [{**container, "securityContext": security} for container in pod["containers"]]
    annotations = {"cos.dev/config-hash": hashlib.sha256(config.encode()).hexdigest()[:16]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {**pod, "containers": containers},
            },
        },
    }
