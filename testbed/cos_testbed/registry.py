"""The local image registry: a process on the host, plain HTTP on the bridge.

Nodes know it as `testbed.local:5000` (containerd's hosts.toml), so that nobody takes its images for official.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from cos_testbed import probe
from cos_testbed.controlplane import write_if_changed
from cos_testbed.instance import REGISTRY_PORT, Instance
from cos_testbed.supervise import Daemon, Supervisor

START_TIMEOUT_SECONDS = 30.0


def daemon(instance: Instance, program: Path) -> Daemon:
    """The registry, storing below the instance's state."""
    config = instance.state / "registry.yaml"
    write_if_changed(config, render_config(instance))
    return Daemon(
        "registry",
        (str(program), "serve", str(config)),
        inputs=(config,),
        environment=(("OTEL_TRACES_EXPORTER", "none"),),
    )


def render_config(instance: Instance) -> str:
    """YAML (as JSON) for the distribution registry; deletion is on so that tests can make an image vanish."""
    return json.dumps(
        {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(instance.state / "registry")},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {"addr": instance.registry},
        },
        indent=2,
    )


def start(instance: Instance, supervisor: Supervisor, program: Path) -> None:
    """Start the registry unless it runs, and wait until it answers."""
    ours = daemon(instance, program)
    supervisor.ensure(ours)
    answers = partial(probe.http_ok, instance.host_address, REGISTRY_PORT, "/v2/")
    supervisor.wait(ours.name, answers, START_TIMEOUT_SECONDS)
