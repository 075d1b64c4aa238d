"""etcd, API server, controller manager and scheduler: processes on the host, listening on the bridge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cos_testbed import pki, probe
from cos_testbed.api import Api
from cos_testbed.instance import ETCD_PEER_PORT, ETCD_PORT, Instance
from cos_testbed.pki import KeyPair
from cos_testbed.supervise import Daemon, Supervisor

CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259
START_TIMEOUT_SECONDS = 60.0

AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
"""


@dataclass(frozen=True)
class ControlPlaneFiles:
    """Certificates, keys and configuration that the control plane's daemons read."""

    ca: Path
    server: KeyPair
    kubelet_client: KeyPair
    service_account: KeyPair
    etcd_ca: Path
    etcd_server: KeyPair
    etcd_client: KeyPair
    audit_policy: Path
    controller_manager: Path
    scheduler: Path


def ensure_files(instance: Instance) -> ControlPlaneFiles:
    """Make what is missing or about to expire; what is good stays, so that daemons need no restart."""
    authority = pki.cluster_authority(instance)
    etcd = pki.etcd_authority(instance)
    host = str(instance.host_address)
    service = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        str(instance.kubernetes_address),
        host,
    ]
    admin = authority.leaf("admin", "cos-testbed-admin", organization="system:masters")
    pki.write_kubeconfig(instance.kubeconfig, instance.api_url, authority, admin, "cos-testbed-admin")
    policy = instance.state / "audit-policy.yaml"
    write_if_changed(policy, AUDIT_POLICY)
    instance.audit_log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ControlPlaneFiles(
        ca=authority.files.certificate,
        server=authority.leaf("apiserver", "kube-apiserver", hosts=service, server=True),
        kubelet_client=authority.leaf(
            "apiserver-kubelet-client", "kube-apiserver-kubelet-client", organization="system:masters"
        ),
        service_account=pki.ensure_service_account_keys(instance),
        etcd_ca=etcd.files.certificate,
        etcd_server=etcd.leaf("server", "etcd", hosts=[host], server=True),
        etcd_client=etcd.leaf("apiserver", "kube-apiserver"),
        audit_policy=policy,
        controller_manager=component_kubeconfig(instance, authority, "kube-controller-manager"),
        scheduler=component_kubeconfig(instance, authority, "kube-scheduler"),
    )


def component_kubeconfig(instance: Instance, authority: pki.Authority, component: str) -> Path:
    """Credentials of the user `system:<component>`, to whom RBAC's built-in rules give rights."""
    user = f"system:{component}"
    path = instance.pki / f"{component}.kubeconfig"
    pki.write_kubeconfig(path, instance.api_url, authority, authority.leaf(component, user), user)
    return path


def etcd_daemon(instance: Instance, program: Path, files: ControlPlaneFiles) -> Daemon:
    """One member; it lets in who has a certificate of etcd's own authority."""
    url = f"https://{instance.host_address}:{ETCD_PORT}"
    peer = f"https://{instance.host_address}:{ETCD_PEER_PORT}"
    server = files.etcd_server
    return Daemon(
        "etcd",
        (
            str(program),
            "--name=testbed",
            f"--data-dir={instance.state / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=testbed={peer}",
            "--client-cert-auth",
            f"--trusted-ca-file={files.etcd_ca}",
            f"--cert-file={server.certificate}",
            f"--key-file={server.key}",
            "--peer-client-cert-auth",
            f"--peer-trusted-ca-file={files.etcd_ca}",
            f"--peer-cert-file={server.certificate}",
            f"--peer-key-file={server.key}",
            # Durable across a kill; across a power cut a testbed is made anew.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ),
        inputs=(files.etcd_ca,),
    )


def apiserver_daemon(instance: Instance, program: Path, files: ControlPlaneFiles) -> Daemon:
    """Default features and admission, Node and RBAC authorization, an audit log of all requests."""
    return Daemon(
        "kube-apiserver",
        (
            str(program),
            f"--advertise-address={instance.host_address}",
            f"--bind-address={instance.host_address}",
            f"--etcd-servers=https://{instance.host_address}:{ETCD_PORT}",
            f"--etcd-cafile={files.etcd_ca}",
            f"--etcd-certfile={files.etcd_client.certificate}",
            f"--etcd-keyfile={files.etcd_client.key}",
            f"--client-ca-file={files.ca}",
            f"--tls-cert-file={files.server.certificate}",
            f"--tls-private-key-file={files.server.key}",
            f"--kubelet-certificate-authority={files.ca}",
            f"--kubelet-client-certificate={files.kubelet_client.certificate}",
            f"--kubelet-client-key={files.kubelet_client.key}",
            # Node names do not resolve on the host.
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={files.service_account.certificate}",
            f"--service-account-signing-key-file={files.service_account.key}",
            f"--service-cluster-ip-range={instance.service_network}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--audit-policy-file={files.audit_policy}",
            f"--audit-log-path={instance.audit_log}",
            "--audit-log-maxsize=200",
            "--audit-log-maxbackup=1",
            "--profiling=false",
        ),
        inputs=(files.ca, files.etcd_ca, files.audit_policy, files.service_account.certificate),
        stop_seconds=15.0,
    )


def controller_manager_daemon(instance: Instance, program: Path, files: ControlPlaneFiles) -> Daemon:
    """All default controllers, each with its own ServiceAccount."""
    return Daemon(
        "kube-controller-manager",
        (
            str(program),
            *_component_flags(instance, files.controller_manager, CONTROLLER_MANAGER_PORT),
            f"--cluster-cidr={instance.pod_network}",
            f"--root-ca-file={files.ca}",
            f"--service-account-private-key-file={files.service_account.key}",
            "--use-service-account-credentials=true",
            # The defaults (20, 30) delay the first start by seconds.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ),
        inputs=(files.ca, files.controller_manager, files.service_account.key),
    )


def scheduler_daemon(instance: Instance, program: Path, files: ControlPlaneFiles) -> Daemon:
    """The default profile."""
    return Daemon(
        "kube-scheduler",
        (str(program), *_component_flags(instance, files.scheduler, SCHEDULER_PORT)),
        inputs=(files.scheduler,),
    )


def start(
    instance: Instance, supervisor: Supervisor, programs: Mapping[str, Path], *, scheduler: bool
) -> None:
    """Start what does not run and wait until it serves; raises TestbedError with the log's tail if it fails."""
    files = ensure_files(instance)
    etcd = etcd_daemon(instance, programs["etcd"], files)
    supervisor.ensure(etcd)
    etcd_accepts = partial(probe.tcp_accepts, instance.host_address, ETCD_PORT)
    supervisor.wait(etcd.name, etcd_accepts, START_TIMEOUT_SECONDS, 0.02)
    apiserver = apiserver_daemon(instance, programs["kube-apiserver"], files)
    supervisor.ensure(apiserver)
    api = Api(instance)
    supervisor.wait(apiserver.name, api.ready, START_TIMEOUT_SECONDS)
    daemons = [
        (
            controller_manager_daemon(instance, programs["kube-controller-manager"], files),
            CONTROLLER_MANAGER_PORT,
        )
    ]
    if scheduler:
        daemons.append((scheduler_daemon(instance, programs["kube-scheduler"], files), SCHEDULER_PORT))
    for daemon, _ in daemons:
        supervisor.ensure(daemon)
    for daemon, port in daemons:
        healthy = partial(probe.http_ok, instance.host_address, port, "/healthz", tls=True)
        supervisor.wait(daemon.name, healthy, START_TIMEOUT_SECONDS)
    # Without it no pod is admitted; the controller manager makes it.
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    supervisor.wait(daemons[0][0].name, lambda: api.get(account) is not None, START_TIMEOUT_SECONDS)


def write_if_changed(path: Path, text: str) -> None:
    """Write a configuration file, with its folder, unless it says this already."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _component_flags(instance: Instance, kubeconfig: Path, port: int) -> tuple[str, ...]:
    return (
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        # The front-proxy configuration that it would look up does not exist here.
        "--authentication-tolerate-lookup-failure=true",
        f"--bind-address={instance.host_address}",
        f"--secure-port={port}",
        "--leader-elect=false",
        "--profiling=false",
    )
