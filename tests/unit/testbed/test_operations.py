"""Finding the container that a signal is for, and the words of the command line."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cos_testbed import cli, dns, lifecycle, operations
from cos_testbed.api import Api
from cos_testbed.errors import TestbedError
from cos_testbed.instance import Instance


def pod(*containers: str, running: str = "") -> dict[str, Any]:
    statuses = [
        {
            "name": name,
            "containerID": f"containerd://id-of-{name}",
            "state": {"running": {}} if name == running else {"waiting": {}},
        }
        for name in containers
    ]
    return {
        "metadata": {"namespace": "cos", "name": "p"},
        "spec": {"containers": [{"name": name} for name in containers]},
        "status": {"containerStatuses": statuses},
    }


def test_the_only_container_needs_no_name() -> None:
    assert operations.running_container_id(pod("a", running="a"), None) == "id-of-a"


def test_one_of_several_is_named() -> None:
    assert operations.running_container_id(pod("a", "b", running="b"), "b") == "id-of-b"


@pytest.mark.parametrize(
    ("found", "container", "complaint"),
    [
        (pod("a", "b"), None, "has containers a, b: name one with -c"),
        (pod("a"), None, "container a of pod cos/p is not running"),
        (pod("a", running="a"), "c", "pod cos/p has no started container c"),
    ],
)
def test_without_a_target_nothing_is_signalled(
    found: dict[str, Any], container: str | None, complaint: str
) -> None:
    with pytest.raises(TestbedError, match=complaint):
        operations.running_container_id(found, container)


POSTGRES = [
    operations.Process(10, 1, "bash /etc/cos/config/run.sh /pgdata/17/data"),
    operations.Process(11, 10, "postgres -D /pgdata/17/data"),
    operations.Process(12, 11, "postgres: checkpointer"),
    operations.Process(20, 1, "bash /etc/cos/config/probe.sh ready"),
    operations.Process(21, 20, "psql -U postgres"),
]
ELASTICSEARCH = [
    operations.Process(10, 1, "tini -- bin/elasticsearch"),
    operations.Process(11, 10, "java -cp cli-launcher/* org.elasticsearch.launcher.CliToolLauncher"),
    operations.Process(12, 11, "java -m org.elasticsearch.server/org.elasticsearch.bootstrap.Elasticsearch"),
    operations.Process(13, 12, "controller"),
]


@pytest.mark.parametrize(
    ("processes", "pattern", "pid"),
    [
        (POSTGRES, "^postgres", 11),
        (POSTGRES, "checkpointer", 12),
        (POSTGRES, "run.sh", 10),
        (ELASTICSEARCH, "bootstrap.Elasticsearch", 12),
        (ELASTICSEARCH, "^java", 11),
        (list(reversed(POSTGRES)), "^postgres", 11),
        ([*POSTGRES, operations.Process(13, 12, "sh -c postgres")], "^postgres|^sh", 11),
    ],
)
def test_a_process_is_named_by_its_command_line(
    processes: list[operations.Process], pattern: str, pid: int
) -> None:
    assert operations.outermost(processes, pattern).pid == pid


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("java", "no process of the container with 'java' in the command line:\n  bash /etc"),
        ("postgres|psql", "2 processes .*\n  postgres -D /pgdata/17/data\n  psql -U postgres$"),
        ("(", r"'\(' is no regular expression: .*"),
    ],
)
def test_a_process_that_is_not_the_only_one_is_not_signalled(pattern: str, complaint: str) -> None:
    with pytest.raises(TestbedError, match=complaint):
        operations.outermost(POSTGRES, pattern)


def test_processes_are_known_by_the_cgroup_of_their_container() -> None:
    own = Path("/proc/self/cgroup").read_text()
    mine = next(item for item in operations.container_processes(own) if item.pid == os.getpid())
    assert mine.parent == os.getppid()
    assert mine.command == " ".join(sys.orig_argv)
    assert operations.container_processes("no such container") == []


@pytest.mark.parametrize("name", ["KILL", "kill", "SIGKILL", "9"])
def test_signals_have_many_names(name: str) -> None:
    assert cli.parse_signal(name) is signal.SIGKILL


@pytest.mark.parametrize("name", ["FOO", "0", "999"])
def test_an_unknown_signal_is_refused(name: str) -> None:
    with pytest.raises(TestbedError, match=name):
        cli.parse_signal(name)


def test_every_command_explains_itself() -> None:
    commands = [command.name or command.callback.__name__ for command in cli.app.registered_commands]  # type: ignore[union-attr]
    for command in commands:
        shown = CliRunner().invoke(cli.app, [command, "--help"])
        assert shown.exit_code == 0
        assert "Usage:" in shown.output


def test_kubeconfig_of_no_testbed_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cos_testbed.instance.STATE_ROOT", tmp_path)
    result = CliRunner().invoke(cli.app, ["kubeconfig"])
    assert isinstance(result.exception, TestbedError)
    assert "run 'up' first" in str(result.exception)


def test_kubeconfig_prints_the_path_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cos_testbed.instance.STATE_ROOT", tmp_path)
    path = Instance().kubeconfig
    path.parent.mkdir()
    path.touch()
    assert CliRunner().invoke(cli.app, ["--instance", "0", "kubeconfig"]).stdout == f"{path}\n"


def test_mounts_are_undone_innermost_first() -> None:
    mountinfo = "".join(
        f"{n} 1 0:{n} / {path} rw - tmpfs tmpfs rw\n"
        for n, path in enumerate(["/", "/state/0", "/state/0/pods/a", "/state/0/pods/a/b", "/state/01"])
    )
    assert lifecycle.mounts_below(Path("/state/0"), mountinfo) == [
        Path("/state/0/pods/a/b"),
        Path("/state/0/pods/a"),
        Path("/state/0"),
    ]


def test_a_testbed_grows_but_shrinks_only_by_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cos_testbed.instance.STATE_ROOT", tmp_path)
    instance = Instance()
    instance.state.mkdir()
    assert lifecycle.node_count(instance, None) == 1
    instance.record_nodes(2)
    assert lifecycle.node_count(instance, None) == 2
    assert lifecycle.node_count(instance, 3) == 3
    with pytest.raises(TestbedError, match="has 2 nodes; to make it smaller, run 'clean' first"):
        lifecycle.node_count(instance, 1)
    with pytest.raises(TestbedError, match="from 1 to 16, not 0"):
        lifecycle.node_count(instance, 0)


def test_a_cluster_keeps_its_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cos_testbed.instance.STATE_ROOT", tmp_path)
    instance = Instance()
    lifecycle.check_same_subnet(instance)
    instance.state.mkdir()
    (instance.state / "subnet").write_text("10.100.0.0/16")
    lifecycle.check_same_subnet(instance)
    (instance.state / "subnet").write_text("172.20.0.0/16")
    with pytest.raises(
        TestbedError, match=r"COS_TESTBED_SUBNET=172\.20\.0\.0/16: set that, or run 'clean' first"
    ):
        lifecycle.check_same_subnet(instance)


@pytest.mark.parametrize(
    ("status", "said", "ready"),
    [
        ("True", "2026-11-23T08:00:10Z", True),
        ("True", "2026-11-23T08:00:09Z", False),
        ("False", "2026-11-23T09:00:00Z", False),
    ],
    ids=["said so now", "said so before its kubelet started", "not ready"],
)
def test_a_node_is_ready_only_if_its_present_kubelet_says_so(
    status: str, said: str, *, ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(Instance())
    condition = {"type": "Ready", "status": status, "lastHeartbeatTime": said}
    monkeypatch.setattr(api, "get_json", lambda _: {"status": {"conditions": [condition]}})
    started = dt.datetime(2026, 11, 23, 8, 0, 10, 700_000, tzinfo=dt.UTC).timestamp()
    assert api.node_is_ready("node-0", since=started) is ready


def test_a_silent_api_server_has_no_ready_node(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(Instance())
    monkeypatch.setattr(api, "get_json", lambda _: None)
    assert not api.node_is_ready("node-0")
    assert not api.deployment_is_available("kube-system", "coredns")


@pytest.mark.parametrize(
    ("status", "available"),
    [
        ({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, True),
        ({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, False),
        ({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1}, False),
        ({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1}, False),
        ({}, False),
    ],
    ids=["new and available", "not seen yet", "old pod still there", "not available", "fresh"],
)
def test_a_deployment_is_available_when_its_newest_pods_are(
    status: dict[str, int], *, available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(Instance())
    found = {"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": status}
    monkeypatch.setattr(api, "get_json", lambda _: found)
    assert api.deployment_is_available("kube-system", "coredns") is available


def test_a_dns_question_in_wire_format() -> None:
    asked = dns.query(0x1234, "a.bc")
    assert asked == b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + b"\x01a\x02bc\x00\x00\x01\x00\x01"


@pytest.mark.parametrize(
    ("response", "good"),
    [
        (b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00", True),
        (b"\x12\x35\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00", False),
        (b"\x12\x34\x81\x83\x00\x01\x00\x01\x00\x00\x00\x00", False),
        (b"\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00", False),
        (b"\x12", False),
    ],
    ids=["answer", "other question", "NXDOMAIN", "no answer", "short"],
)
def test_a_dns_response_is_judged(response: bytes, *, good: bool) -> None:
    assert dns.has_answer(0x1234, response) is good


def test_what_a_pod_said_last_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cos_testbed.instance.STATE_ROOT", tmp_path)
    instance = Instance(index=9)
    assert lifecycle.newest_pod_log(instance, "storage_provisioner-") is None
    paths = [
        instance.state / "node-0" / "pod-logs" / pod / "main" / "0.log"
        for pod in ("storage_provisioner-1_uid", "storage_provisioner-2_uid", "storage_other-1_uid")
    ]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        path.write_text("said")
        os.utime(path, (number, number))
    assert lifecycle.newest_pod_log(instance, "storage_provisioner-") == paths[1]
