"""Nodes that only say that they run pods: for measurements with more pods than a machine can hold.

kwok plays kubelet for them. Pods are scheduled, get an address and become Ready at once, and no container runs.
They stand beside a control plane without real nodes, where an ordinary pod cannot land on them by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cos_testbed import addons, pki, probe
from cos_testbed.api import Api
from cos_testbed.controlplane import write_if_changed
from cos_testbed.instance import Instance
from cos_testbed.supervise import Daemon, Supervisor

NAME = "kwok"
PORT = 10247
MAX_NODES = 100
START_TIMEOUT_SECONDS = 60.0

# Of the stages that kwok ships as `fast`, with what a kubelet says besides: the digest of the image that runs, and
# that the container has started.
STAGES = """\
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - {key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: NotIn, values: ["True"]}
  next:
    statusTemplate: |
      conditions:
      {{ range NodeConditions }}
      - lastHeartbeatTime: {{ Now | Quote }}
        lastTransitionTime: {{ Now | Quote }}
        message: {{ .message | Quote }}
        reason: {{ .reason | Quote }}
        status: {{ .status | Quote }}
        type: {{ .type | Quote }}
      {{ end }}
      addresses:
      - {type: InternalIP, address: {{ NodeIP | Quote }}}
      - {type: Hostname, address: {{ NodeName | Quote }}}
      allocatable: {cpu: 1k, memory: 10Ti, pods: 100k}
      capacity: {cpu: 1k, memory: 10Ti, pods: 100k}
      phase: Running
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Pending]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      conditions:
      {{ range list "PodReadyToStartContainers" "Initialized" "ContainersReady" "Ready" }}
      - {type: {{ . }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
      {{ end }}
      initContainerStatuses:
      {{ range .spec.initContainers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: {{ printf "%s@sha256:%s" (regexReplaceAll ":[^:/]+$" .image "") (sha256sum .image) | Quote }}
        ready: true
        started: false
        restartCount: 0
        state:
          terminated:
            exitCode: 0
            reason: Completed
            startedAt: {{ $now | Quote }}
            finishedAt: {{ $now | Quote }}
      {{ end }}
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: {{ printf "%s@sha256:%s" (regexReplaceAll ":[^:/]+$" .image "") (sha256sum .image) | Quote }}
        ready: true
        started: true
        restartCount: 0
        state: {running: {startedAt: {{ $now | Quote }}}}
      {{ end }}
      {{ with NodeIPsWith .spec.nodeName }}
      hostIP: {{ index . 0 | Quote }}
      hostIPs: [{ip: {{ index . 0 | Quote }}}]
      {{ end }}
      {{ with PodIPsWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace }}
      podIP: {{ index . 0 | Quote }}
      podIPs: [{ip: {{ index . 0 | Quote }}}]
      {{ end }}
      phase: Running
      startTime: {{ $now | Quote }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-delete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: Exists}
  next: {delete: true}
"""

_ANNOTATION = "kwok.x-k8s.io/node"


def daemon(instance: Instance, program: Path, stages: Path, kubeconfig: Path) -> Daemon:
    """For the nodes that `manifests` makes; a pod gets an address of the pods' network."""
    return Daemon(
        NAME,
        (
            str(program),
            f"--config={stages}",
            f"--kubeconfig={kubeconfig}",
            f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake",
            f"--cidr={instance.pod_network}",
            f"--node-ip={instance.host_address}",
            # Without its lease a node counts as lost after 50 s.
            "--node-lease-duration-seconds=40",
            f"--server-address={instance.host_address}:{PORT}",
        ),
        inputs=(stages, kubeconfig),
        # It reads a configuration in its home, if there is one.
        environment=(("HOME", str(instance.state)),),
    )


def manifests(count: int) -> list[addons.Manifest]:
    """The nodes. The labels are those that kubelet gives to its own."""
    names = [f"kwok-{index}" for index in range(count)]
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {_ANNOTATION: "fake"},
                "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": NAME},
            },
        }
        for name in names
    ]


def start(instance: Instance, supervisor: Supervisor, programs: Mapping[str, Path], count: int) -> None:
    """Start kwok and wait until its nodes are Ready; raises TestbedError if they are not in time."""
    stages = instance.state / "kwok-stages.yaml"
    write_if_changed(stages, STAGES)
    kubeconfig = instance.pki / f"{NAME}.kubeconfig"
    authority = pki.cluster_authority(instance)
    # A user of its own, so that the audit log tells its writes from others'.
    client = authority.leaf(NAME, NAME, organization="system:masters")
    pki.write_kubeconfig(kubeconfig, instance.api_url, authority, client, NAME)
    supervisor.ensure(daemon(instance, programs[NAME], stages, kubeconfig))
    healthy = partial(probe.http_ok, instance.host_address, PORT, "/healthz")
    supervisor.wait(NAME, healthy, START_TIMEOUT_SECONDS)
    nodes = manifests(count)
    addons.apply(programs["kubectl"], instance, nodes)
    api = Api(instance)
    for node in nodes:
        ready = partial(api.node_is_ready, node["metadata"]["name"])
        supervisor.wait(NAME, ready, START_TIMEOUT_SECONDS)
