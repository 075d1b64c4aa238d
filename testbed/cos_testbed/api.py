"""The little that the testbed itself asks of its API server, over HTTPS as administrator."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import ssl
from http import HTTPStatus
from typing import Any

from cos_testbed.instance import API_PORT, Instance
from cos_testbed.pki import KeyPair

REQUEST_TIMEOUT_SECONDS = 5.0


class Api:
    """Reads from the API server. A server that does not answer is an answer too: None."""

    def __init__(self, instance: Instance) -> None:
        self._host = str(instance.host_address)
        self._ca = instance.pki / "ca.crt"
        self._client = KeyPair(instance.pki / "admin.crt", instance.pki / "admin.key")

    def get(self, path: str) -> bytes | None:
        """The body of a 200 answer, else None."""
        try:
            context = ssl.create_default_context(cafile=str(self._ca))
            context.load_cert_chain(self._client.certificate, self._client.key)
            connection = http.client.HTTPSConnection(
                self._host, API_PORT, timeout=REQUEST_TIMEOUT_SECONDS, context=context
            )
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return None
        return body if answer.status == HTTPStatus.OK else None

    def get_json(self, path: str) -> dict[str, Any] | None:
        """The parsed body of a 200 answer, else None."""
        body = self.get(path)
        if body is None:
            return None
        parsed: dict[str, Any] = json.loads(body)
        return parsed

    def ready(self) -> bool:
        """Whether the server and its etcd serve."""
        return self.get("/readyz") is not None

    def node_is_ready(self, name: str, *, since: float = 0.0) -> bool:
        """Whether a node was Ready when its kubelet last said so, at `since` (Unix time) or later.

        What the API remembers of a node from before `down` or a reboot does not tell how it is now.
        """
        node = self.get_json(f"/api/v1/nodes/{name}")
        for condition in (node or {}).get("status", {}).get("conditions", []):
            if condition["type"] == "Ready":
                said = dt.datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp()
                return bool(condition["status"] == "True" and said >= int(since))
        return False

    def deployment_is_available(self, namespace: str, name: str) -> bool:
        """Whether the newest template is available, not merely an older one."""
        deployment = self.get_json(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        if deployment is None:
            return False
        status = deployment.get("status", {})
        wanted = deployment["spec"]["replicas"]
        return bool(
            status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
            and status.get("updatedReplicas", 0) == wanted
            and status.get("availableReplicas", 0) == wanted
            and status.get("replicas", 0) == wanted
        )
