"""The little that the testbed itself asks of its API server, over HTTPS."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import ssl
from collections.abc import Collection, Iterator
from http import HTTPStatus
from typing import Any

from cos_testbed.errors import TestbedError
from cos_testbed.instance import API_PORT, Instance
from cos_testbed.pki import KeyPair

REQUEST_TIMEOUT_SECONDS = 5.0
WATCH_SECONDS = 300
# The server sends a bookmark every minute.
WATCH_SILENCE_SECONDS = 90.0


class Api:
    """The API server, asked as administrator unless `client` is someone else.

    To the methods that look for something, a server that does not answer is an answer too: None.
    """

    def __init__(self, instance: Instance, client: KeyPair | None = None) -> None:
        self._host = str(instance.host_address)
        self._ca = instance.pki / "ca.crt"
        self._client = client or KeyPair(instance.pki / "admin.crt", instance.pki / "admin.key")

    def get(self, path: str) -> bytes | None:
        """The body of a 200 answer, else None."""
        try:
            connection = self._connect(REQUEST_TIMEOUT_SECONDS)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return None
        return body if answer.status == HTTPStatus.OK else None

    def send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        kind: str = "application/json",
        also: Collection[int] = (),
    ) -> dict[str, Any]:
        """A request that must be met; the answer's body. `kind` is the body's media type.

        Raises TestbedError for no answer, and for any but those of success and the statuses `also`.
        """
        try:
            connection = self._connect(REQUEST_TIMEOUT_SECONDS)
            try:
                data = None if body is None else json.dumps(body)
                connection.request(method, path, data, {"Content-Type": kind} if data else {})
                answer = connection.getresponse()
                text = answer.read()
            finally:
                connection.close()
            parsed: dict[str, Any] = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TestbedError(f"the API server does not answer {method} {path}: {error}") from error
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES and answer.status not in also:
            raise TestbedError(f"{method} {path}: {answer.status} {parsed.get('message', '')}")
        return parsed

    def items(self, path: str) -> list[dict[str, Any]]:
        """Every object of a kind, read consistently; raises TestbedError if they cannot be read."""
        return list(self.send("GET", path)["items"])

    def watch(self, path: str) -> Iterator[bytes]:
        """A line for each object of a kind, then for each event, until the watch ends.

        Raises TestbedError when it cannot begin, or breaks.
        """
        try:
            connection = self._connect(WATCH_SILENCE_SECONDS)
            try:
                options = f"watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}"
                connection.request("GET", f"{path}?{options}")
                answer = connection.getresponse()
                if answer.status != HTTPStatus.OK:
                    raise TestbedError(f"watch {path}: {answer.status}")
                yield from answer
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise TestbedError(f"watch {path}: {error}") from error

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

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self._ca))
        context.load_cert_chain(self._client.certificate, self._client.key)
        return http.client.HTTPSConnection(self._host, API_PORT, timeout=timeout, context=context)
