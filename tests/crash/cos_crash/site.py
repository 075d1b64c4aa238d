"""Where a lane works: two namespaces, an operator with the rights that the chart gives it, and the proxy before it."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from cos_crash.api import Api, Manifest
from cos_crash.operator_process import Nursery, OperatorProcess
from cos_crash.proxy import Proxy

LEFTOVERS = "cos.dev/crash-test=true"
_LABELS = {"cos.dev/crash-test": "true"}
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
_ACCOUNT = "cos-operator"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
#: Seconds between two looks at every stack. Short: here events are lost on purpose, and this is the net under them.
RESYNC = 15
_ESTABLISHED_LIMIT = 30.0


class Site:
    """Inside ``async with``: the namespace `namespace` for stacks, and an operator that serves it.

    `source` is the repository as it is tested; `tls` the proxy's certificate, signed by the authority in the PEM file
    `authority`; `directory` takes the operator's log.
    """

    def __init__(
        self,
        api: Api,
        nursery: Nursery,
        source: Path,
        tls: ssl.SSLContext,
        authority: Path,
        directory: Path,
        name: str,
    ) -> None:
        self.api = api
        self.namespace = f"crash-{name}-{secrets.token_hex(3)}"
        self.log = directory / f"{self.namespace}.log"
        self._home = f"{self.namespace}-home"
        self._source = source
        self._authority = authority
        self._kubeconfig = directory / f"{self.namespace}.kubeconfig"
        upstream_tls = ssl.create_default_context(cafile=str(api.authority))
        self.proxy = Proxy(api.server, upstream_tls, tls, self._crash)
        self.operator = OperatorProcess(nursery, self._environment(), self.log)
        self._restart: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._namespaces()
        await self._rights()
        await self.proxy.__aenter__()
        token = await self.api.request(
            "POST",
            f"/api/v1/namespaces/{self._home}/serviceaccounts/{_ACCOUNT}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
            | {"spec": {"expirationSeconds": 12 * 3600}},
        )
        self._write_kubeconfig((token or {})["status"]["token"])
        # The operator appends to it once it runs; whoever looks before then finds it empty.
        self.log.touch()
        await self.operator.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._restart is not None:
            await self._restart
        await self.operator.stop()
        await self.proxy.__aexit__(exc_type, exc, tb)
        for namespace in (self.namespace, self._home):
            await self.api.delete(f"/api/v1/namespaces/{namespace}")

    def require_alive(self) -> None:
        """Raise what ended the operator, kept it from starting again, or broke the proxy."""
        if self.proxy.error is not None:
            raise self.proxy.error
        if self._restart is not None and self._restart.done():
            self._restart.result()
        self.operator.require_alive()

    def _crash(self) -> None:
        self.operator.kill()
        self.proxy.shut()
        self._restart = asyncio.create_task(self._start_again())

    async def _start_again(self) -> None:
        await self.operator.dead()
        self.proxy.open()
        await self.operator.start()

    def _environment(self) -> Mapping[str, str]:
        return {
            "COS_KUBECONFIG": str(self._kubeconfig),
            "COS_NAMESPACES": self.namespace,
            "COS_LEASE_NAMESPACE": self._home,
            # Whoever comes after a killed process goes on with its Lease: the wait for its end is tested elsewhere.
            "COS_IDENTITY": self.namespace,
            "COS_HTTP_HOST": "127.0.0.1",
            "COS_HTTP_PORT": "0",
            "COS_RESYNC_SECONDS": str(RESYNC),
        }

    async def _namespaces(self) -> None:
        for namespace, labels in ((self.namespace, _LABELS | _RESTRICTED), (self._home, _LABELS)):
            metadata = {"name": namespace, "labels": labels}
            await self.api.apply(
                f"/api/v1/namespaces/{namespace}",
                {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
            )

    async def _rights(self) -> None:
        """The operator's roles as the install manifest has them, bound for these two namespaces only."""
        home = f"/api/v1/namespaces/{self._home}"
        metadata = {"name": _ACCOUNT, "namespace": self._home}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        await self.api.apply(f"{home}/serviceaccounts/{_ACCOUNT}", account)
        for kind, name, rules in _roles(self._source):
            namespace = self.namespace if kind == "ClusterRole" else self._home
            where = f"{_RBAC}/namespaces/{namespace}"
            metadata = {"name": name, "namespace": namespace}
            head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata}
            await self.api.apply(f"{where}/roles/{name}", {**head, "kind": "Role", "rules": rules})
            await self.api.apply(
                f"{where}/rolebindings/{name}",
                {
                    **head,
                    "kind": "RoleBinding",
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                    "subjects": [{"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": self._home}],
                },
            )

    def _write_kubeconfig(self, token: str) -> None:
        cluster = {
            "server": self.proxy.url,
            "certificate-authority-data": base64.b64encode(self._authority.read_bytes()).decode(),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": cluster}],
            "users": [{"name": "operator", "user": {"token": token}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
            "current-context": "proxy",
        }
        self._kubeconfig.touch(mode=0o600)
        self._kubeconfig.write_text(json.dumps(config))


def _roles(source: Path) -> Iterator[tuple[str, str, list[Manifest]]]:
    """Kind, name and rules of the roles that are bound to the operator."""
    objects = list(yaml.safe_load_all((source / "manifests/install.yaml").read_text()))
    bound = {
        (obj["roleRef"]["kind"], obj["roleRef"]["name"])
        for obj in objects
        if obj and obj["kind"] in {"ClusterRoleBinding", "RoleBinding"}
    }
    for obj in objects:
        if obj and (obj["kind"], obj["metadata"]["name"]) in bound:
            yield obj["kind"], obj["metadata"]["name"], obj["rules"]


async def serve_definitions(api: Api, source: Path) -> None:
    """Apply the CustomResourceDefinitions and wait until they are served."""
    definitions: list[dict[str, Any]] = []
    for path in sorted((source / "crds").glob("*.yaml")):
        definitions += [obj for obj in yaml.safe_load_all(path.read_text()) if obj]
    for obj in definitions:
        name = obj["metadata"]["name"]
        where = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        await api.apply(where, obj)
        deadline = time.monotonic() + _ESTABLISHED_LIMIT
        while not _established(await api.get(where)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not served within {_ESTABLISHED_LIMIT:g} s")
            await asyncio.sleep(0.2)


def _established(definition: Manifest | None) -> bool:
    # A new definition has null for its conditions.
    conditions = ((definition or {}).get("status") or {}).get("conditions") or []
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)
