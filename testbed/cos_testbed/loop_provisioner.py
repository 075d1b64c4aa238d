"""The process that provisions, grows and deletes the volumes of the class `loop`.

It runs on the host and not as a pod, for its mounts must be where kubelet and the containers find them. A watch
event only wakes it: everything is decided from what is then read, and each deed can be done again, so a kill at
any point costs nothing but the time until the next `up`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

from cos_testbed import api as api_module
from cos_testbed import loop_claims, loop_volumes, pki
from cos_testbed.api import Api
from cos_testbed.errors import TestbedError
from cos_testbed.instance import Instance, instance_from
from cos_testbed.loop_claims import Action, Discard, Expand, Object, Provision, Reclaim, Refuse
from cos_testbed.loop_volumes import LoopVolume
from cos_testbed.supervise import Daemon, Supervisor, uptime_seconds

NAME = "loop-provisioner"
START_TIMEOUT_SECONDS = 60.0
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0)

_CLAIMS = "/api/v1/persistentvolumeclaims"
_VOLUMES = "/api/v1/persistentvolumes"
_MERGE = "application/merge-patch+json"
_STRATEGIC_MERGE = "application/strategic-merge-patch+json"


def daemon(instance: Instance) -> Daemon:
    """Restarted when its code changes."""
    modules = (__file__, api_module.__file__, loop_claims.__file__, loop_volumes.__file__)
    return Daemon(
        NAME,
        (sys.executable, "-m", "cos_testbed.loop_provisioner"),
        inputs=tuple(map(Path, modules)),
        environment=(
            ("COS_TESTBED_INSTANCE", str(instance.index)),
            ("COS_TESTBED_SUBNET", str(instance.subnet)),
        ),
    )


def start(instance: Instance, supervisor: Supervisor) -> None:
    """Start it and wait until it has looked at every claim; raises TestbedError if it does not in time."""
    _credentials(instance)
    supervisor.ensure(daemon(instance))
    supervisor.wait(NAME, lambda: _has_looked(instance, supervisor), START_TIMEOUT_SECONDS)


class Provisioner:
    """Does what `loop_claims.decide` says."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.api = Api(instance, _credentials(instance))

    def reconcile(self) -> bool:
        """One look at everything; whether all that was to be done is done. Raises TestbedError without an API."""
        nodes = {node.name: node for node in self.instance.recorded_nodes}
        stored = {name: loop_volumes.stored(node) for name, node in nodes.items()}
        actions = loop_claims.decide(self.api.items(_CLAIMS), self.api.items(_VOLUMES), stored)
        failed = 0
        for action in actions:
            try:
                self._do(action)
            except (TestbedError, OSError) as error:
                failed += 1
                say(f"{type(action).__name__}: {error}")
        return not failed

    def _do(self, action: Action) -> None:
        match action:
            case Provision():
                self._provision(action)
            case Refuse():
                self._warn(action.claim, "ProvisioningFailed", action.why)
            case Expand():
                self._expand(action)
            case Reclaim():
                name = action.volume["metadata"]["name"]
                loop_volumes.remove(self._volume(action.node, name))
                body = {"preconditions": {"uid": action.volume["metadata"]["uid"]}}
                self.api.send("DELETE", f"{_VOLUMES}/{name}", body, also=(HTTPStatus.NOT_FOUND,))
                say(f"deleted {name}")
            case Discard():
                loop_volumes.remove(self._volume(action.node, action.name))
                say(f"deleted {action.name}, which nobody asks for")

    def _provision(self, action: Provision) -> None:
        volume = self._volume(action.node, loop_claims.volume_name(action.claim))
        try:
            loop_volumes.create(volume, action.size)
        except (TestbedError, OSError) as error:
            self._warn(action.claim, "ProvisioningFailed", str(error))
            raise
        made = loop_claims.persistent_volume(action.claim, action.node, action.size, str(volume.path))
        self.api.send("POST", _VOLUMES, made, also=(HTTPStatus.CONFLICT,))
        say(f"provisioned {volume.name} on {action.node}: {loop_claims.quantity(action.size)}")

    def _expand(self, action: Expand) -> None:
        status = f"{_object_path(action.claim)}/status"
        volume = self._volume(action.node, action.volume)
        self.api.send("PATCH", status, loop_claims.growth_begun(action.size, _now()), kind=_STRATEGIC_MERGE)
        try:
            loop_volumes.grow(volume, action.size)
        except (TestbedError, OSError) as error:
            self._warn(action.claim, "VolumeResizeFailed", str(error))
            failed = loop_claims.growth_failed(str(error), _now())
            self.api.send("PATCH", status, failed, kind=_STRATEGIC_MERGE)
            raise
        self.api.send("PATCH", f"{_VOLUMES}/{volume.name}", loop_claims.capacity(action.size), kind=_MERGE)
        self.api.send("PATCH", status, loop_claims.growth_done(action.size), kind=_STRATEGIC_MERGE)
        say(f"grew {volume.name} to {loop_claims.quantity(action.size)}")

    def _warn(self, claim: Object, reason: str, message: str) -> None:
        """An Event of the claim; the same words once, for its name is made of them."""
        metadata, now = claim["metadata"], _now()
        digest = hashlib.sha256(f"{metadata['uid']} {reason} {message}".encode()).hexdigest()[:16]
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": NAME},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/events"
        self.api.send("POST", path, event, also=(HTTPStatus.CONFLICT,))

    def _volume(self, node: str, name: str) -> LoopVolume:
        members = {member.name: member for member in self.instance.recorded_nodes}
        return LoopVolume(members[node], name)


def follow(api: Api, path: str, wake: threading.Event) -> NoReturn:
    """Wake the main loop at each change of a kind, and at least once a minute, by the server's bookmarks.

    A watch begins with all that there is, so what changed between two watches wakes it too.
    """
    while True:
        try:
            for _ in api.watch(path):
                wake.set()
        except TestbedError:
            time.sleep(RETRY_SECONDS[0])


def serve(instance: Instance) -> NoReturn:
    """Reconcile at every hint; after a failure again, a little later each time."""
    provisioner = Provisioner(instance)
    wake = threading.Event()
    for path in (_CLAIMS, _VOLUMES):
        threading.Thread(target=follow, args=(provisioner.api, path, wake), daemon=True).start()
    failures = 0
    while True:
        wake.clear()
        try:
            done = provisioner.reconcile()
        except TestbedError as error:
            say(str(error))
            done = False
        else:
            _looked(instance).touch()
        failures = 0 if done else failures + 1
        wake.wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1] if failures else None)


def say(text: str) -> None:
    """A line of the log."""
    print(f"{_now()} {text}", flush=True)


def _credentials(instance: Instance) -> pki.KeyPair:
    """A user of its own, so that the audit log tells its writes from others'."""
    return pki.cluster_authority(instance).leaf(NAME, NAME, organization="system:masters")


def _looked(instance: Instance) -> Path:
    """A file that is touched after each look at all claims."""
    return instance.run / f"{NAME}.looked"


def _has_looked(instance: Instance, supervisor: Supervisor) -> bool:
    """Whether the process that runs now has looked."""
    process, file = supervisor.find(NAME), _looked(instance)
    return bool(process and file.exists() and file.stat().st_mtime > time.time() - uptime_seconds(process))


def _object_path(claim: Object) -> str:
    metadata = claim["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/persistentvolumeclaims/{metadata['name']}"


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    serve(instance_from(os.environ))
