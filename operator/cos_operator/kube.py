"""The Kubernetes API as the operator uses it: JSON objects, server-side apply, finite timeouts, typed errors.

The only modules of the shell that import the Kubernetes client are this one and what it is made of: `kube_login` and
`kube_transport`. Errors, see `kube_errors`:

    KubeError
    ├── CredentialsError, Unauthorized, NotFound
    ├── Forbidden → NamespaceTerminating
    ├── Conflict → AlreadyExists, PreconditionFailed
    ├── Invalid                 permanent
    └── Unavailable             transport error, timeout, 429, 5xx; carries `retry_after`
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from importlib.metadata import version
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from cos_controllers.names import MANAGER
from cos_operator import metrics, tracing
from cos_operator.kube_errors import (
    AlreadyExists,
    Conflict,
    CredentialsError,
    FieldConflict,
    Forbidden,
    Invalid,
    KubeError,
    NamespaceTerminating,
    NotFound,
    PreconditionFailed,
    Request,
    Unauthorized,
    Unavailable,
    error_from,
)
from cos_operator.kube_kinds import (
    CHILD_KINDS,
    KINDS,
    OPERATION_KINDS,
    WATCHED_KINDS,
    Kind,
    collection_path,
    object_path,
)
from cos_operator.kube_login import log_in
from cos_operator.kube_transport import RestClient, said, unreachable
from cos_operator.resource_versions import ResourceVersions
from cos_operator.writes import Writes

__all__ = [
    "CHILD_KINDS",
    "KINDS",
    "OPERATION_KINDS",
    "READ_TIMEOUT",
    "WATCHED_KINDS",
    "WRITE_TIMEOUT",
    "AlreadyExists",
    "Conflict",
    "CredentialsError",
    "Endpoint",
    "FieldConflict",
    "Forbidden",
    "Invalid",
    "Kind",
    "Kube",
    "KubeError",
    "NamespaceTerminating",
    "NotFound",
    "PreconditionFailed",
    "Request",
    "Unauthorized",
    "Unavailable",
]

#: Seconds for a read. Large lists are paged, so that this is the time of one page.
READ_TIMEOUT = 10.0
#: Seconds for a write. Shorter than the lease's duration less its renew deadline, so that no write of a
#: former leader is still on its way when the next one starts: the limit of each stretch of the way, of this process
#: from the check that it leads, of the kernel for what it has not delivered, of the API server from its arrival.
WRITE_TIMEOUT = 4.0
#: Connections to the API server; more requests than this wait for one (within their timeout).
_MAX_CONNECTIONS = 32
#: Objects of one page. Stacks with their status are large (10 KB): a page takes 10 ms, in which nothing else is done.
_PAGE_SIZES = {"CosStack": 100, "StackProbe": 100, "StackBackup": 100, "StackRestore": 100}
_PAGE_SIZE = 500
#: Bytes of a log that are read at most.
_LOG_BYTES = 16384
#: Seconds between two re-readings of refused credentials.
_RELOGIN_INTERVAL = 10.0
_SUCCESS = range(200, 300)
#: How an API server says, after three seconds, that its state is older than a read may be.
_AHEAD = "Too large resource version"

#: As in `cos_controllers.k8s`, whose models take longer to import than a short command runs.
Manifest = dict[str, Any]
_Query = tuple[tuple[str, str], ...]
Manifests = list[Manifest]
T = TypeVar("T")
Propagation = Literal["Background", "Orphan", "Foreground"]


@dataclass(frozen=True)
class Endpoint:
    """What another HTTP client needs to speak to the same API server with the same credentials.

    `authorization` returns the value of the header for one request, re-read as needed; None where a client
    certificate is the credential.
    """

    server: str
    tls: ssl.SSLContext
    proxy: str | None
    tls_server_name: str | None
    authorization: Callable[[], Awaitable[str | None]]


@dataclass(frozen=True)
class _Http:
    """The HTTP form of a request."""

    method: str
    path: str
    query: _Query = ()
    body: Manifest | None = field(default=None, repr=False)
    content_type: str = "application/json"
    accept: str = "application/json"


class Kube:
    """Client of one API server: ``async with Kube.connect() as kube``.

    Objects are JSON data with `apiVersion` and `kind`; nothing is cached. `write_guard` is called before each
    write of anything but a Lease and raises to prevent it; `writes` tells which may still have an effect; `versions`
    how new a read of `list_known` is at least. `manager` is the field manager of each write.
    """

    def __init__(
        self,
        kubeconfig: str | None,
        context: str | None,
        read_timeout: float,
        write_timeout: float,
        manager: str,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._namespace = ""
        #: Where the credentials are from, in words.
        self.origin = ""
        self._read_timeout = read_timeout
        self.write_timeout = write_timeout
        self.manager = manager
        self.write_guard: Callable[[], None] | None = None
        self.writes = Writes(write_timeout)
        self.versions = ResourceVersions()
        self._api: ApiClient | None = None
        self._logged_in_at = 0.0

    @classmethod
    def connect(
        cls,
        kubeconfig: str | None = None,
        context: str | None = None,
        *,
        read_timeout: float = READ_TIMEOUT,
        write_timeout: float = WRITE_TIMEOUT,
        manager: str = MANAGER,
    ) -> Self:
        """A client that opens on ``async with``, without a request. Timeouts are seconds.

        Credentials: `kubeconfig`, a path or several as in $KUBECONFIG (`context` or its current one); without it
        the pod's service account, if there is one; else $KUBECONFIG or ~/.kube/config. Tokens are re-read. Entering
        raises `CredentialsError`.
        """
        return cls(kubeconfig, context, read_timeout, write_timeout, manager)

    async def __aenter__(self) -> Self:
        configuration = await self._log_in()
        configuration.connection_pool_maxsize = _MAX_CONNECTIONS
        # Proxies come from the kubeconfig alone: a proxy variable for something else must not capture this.
        configuration.client_session_kwargs = {"trust_env": False}
        try:
            self._api = ApiClient(configuration)
            self._api.rest_client = RestClient(configuration, self.write_timeout)
        except (OSError, ValueError) as error:
            text = f"{self.origin}: its certificates or addresses cannot be used: {said(error)}"
            raise CredentialsError(Request("use", "credentials"), text) from error
        self._api.user_agent = f"{self.manager}/{version('cos-operator')}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]
        self._api = None

    @property
    def namespace(self) -> str:
        """Namespace of the kubeconfig's context or of the pod; ``default`` if none is named."""
        return self._namespace or "default"

    @property
    def endpoint(self) -> Endpoint:
        """Address and credentials, for another client in the same event loop."""
        configuration = self._client.configuration

        async def authorization() -> str | None:
            value = await configuration.get_api_key_with_prefix("BearerToken")
            return str(value) if value else None

        return Endpoint(
            server=configuration.host.rstrip("/"),
            tls=self._client.rest_client.ssl_context,
            proxy=configuration.proxy,
            tls_server_name=configuration.tls_server_name,
            authorization=authorization,
        )

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """The object, or None if it does not exist. `namespace` is "" for kinds without one."""
        request = Request("get", kind, namespace, name)
        try:
            return await self._call(request, _Http("GET", object_path(request)))
        except NotFound:
            return None

    async def get_known(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """As `get`, but as of all that `versions` knows of, or later: see `list_known`.

        Right after a write, a read from etcd takes many times as long as one from what the API server has at hand.
        """
        request = Request("get", kind, namespace, name)

        async def not_older_than(version: str) -> Manifest | None:
            http = _Http("GET", object_path(request), (("resourceVersion", version),))
            try:
                return await self._call(request, http)
            except NotFound:
                return None

        return await self._known(kind, not_older_than, lambda: self.get(kind, namespace, name))

    async def log(self, namespace: str, pod: str, container: str, *, lines: int) -> str:
        """The last lines of a container's log; "" if the pod or its log is gone."""
        request = Request("get", "Pod", namespace, pod)
        query = (("container", container), ("tailLines", str(lines)), ("limitBytes", str(_LOG_BYTES)))
        try:
            data = await self._exchange(
                request, _Http("GET", object_path(request, "log"), query, accept="*/*")
            )
        except (NotFound, Invalid):
            # A container that has ended meanwhile is a bad request.
            return ""
        return data.decode(errors="replace")

    async def list(
        self,
        kind: str,
        namespace: str | None,
        label_selector: str = "",
        field_selector: str = "",
        *,
        keep: Callable[[Manifest], Manifest] = lambda item: item,
    ) -> Manifests:
        """All objects as of now (a consistent read), of one namespace or, with None, of all.

        `keep` makes of each, as its page is read, what is wanted of it. Raises `NotFound` if the API server does not
        serve the kind.
        """
        request = Request("list", kind, namespace or "")
        selectors = (("labelSelector", label_selector), ("fieldSelector", field_selector))
        limit = _PAGE_SIZES.get(kind, _PAGE_SIZE)
        query = (("limit", str(limit)), *((key, value) for key, value in selectors if value))
        try:
            items, version = await self._pages(request, query, keep)
        except KubeError as error:
            if error.code != HTTPStatus.GONE:
                raise
            # The snapshot behind the continue token has expired: begin again, once.
            items, version = await self._pages(request, query, keep)
        self.versions.listed(kind, version)
        return items

    async def list_known(self, kind: str, namespace: str, label_selector: str) -> Manifests:
        """Some objects of a namespace, as of all that `versions` knows of, or later: what the API server has at hand.

        A consistent read waits, up to 0.1 s, until the server's cache has caught up with what was written last to any
        kind; this one does not. Nothing is paged: meant for the few children of one owner.
        """
        request = Request("list", kind, namespace)

        async def not_older_than(version: str) -> Manifests:
            floor = (("resourceVersion", version), ("resourceVersionMatch", "NotOlderThan"))
            items, met = await self._pages(request, (("labelSelector", label_selector), *floor))
            self.versions.met(kind, met)
            return items

        return await self._known(kind, not_older_than, lambda: self.list(kind, namespace, label_selector))

    async def served(self, kind: str, namespace: str | None) -> bool:
        """Whether the API server serves the kind: if not, its CustomResourceDefinition is missing."""
        request = Request("list", kind, namespace or "")
        try:
            await self._call(request, _Http("GET", collection_path(request), (("limit", "1"),)))
        except NotFound:
            return False
        return True

    async def ping(self) -> None:
        """Ask the API server whether it is ready, and raise why it is not."""
        await self._call(Request("get", "readyz"), _Http("GET", "/readyz", accept="*/*"))

    async def apply(
        self,
        obj: Manifest,
        *,
        force: bool,
        subresource: str = "",
        precondition_uid: str | None = None,
        dry_run: bool = False,
        manager: str = "",
    ) -> Manifest:
        """Server-side apply as field manager `manager`, else as the client's.

        Returns the live object, or what it would be (`dry_run`).

        `obj` holds the fields that we own, all of them and no nulls. Without `force`, fields that others own
        with another value raise `Conflict` with manager and field. With `precondition_uid` the object must
        exist with that UID, else `PreconditionFailed`; the API server does not check it for subresources.
        """
        if precondition_uid is not None:
            if subresource:
                raise ValueError("the API server checks no UID for subresources")
            obj = {**obj, "metadata": {**obj["metadata"], "uid": precondition_uid}}
        request = _request_of("apply", obj)
        query = (*self._writing(manager, dry_run=dry_run), ("force", str(force).lower()))
        path = object_path(request, subresource)
        return await self._write(request, _Http("PATCH", path, query, obj, "application/apply-patch+yaml"))

    async def create(self, obj: Manifest) -> Manifest:
        """Create the object (`AlreadyExists` if there is one); `metadata.generateName` works."""
        request = _request_of("create", obj)
        http = _Http("POST", collection_path(request), self._writing(), obj)
        return await self._write(request, http)

    async def replace(self, obj: Manifest, *, dry_run: bool = False) -> Manifest:
        """Replace the whole object. With `metadata.resourceVersion`, `Conflict` if it has changed since."""
        request = _request_of("replace", obj)
        http = _Http("PUT", object_path(request), self._writing(dry_run=dry_run), obj)
        return await self._write(request, http)

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        propagation: Propagation = "Background",
    ) -> None:
        """Delete the object; one that is gone is fine. `PreconditionFailed` if its UID is not `uid`."""
        request = Request("delete", kind, namespace, name)
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._write(request, _Http("DELETE", object_path(request), body=options))
        except NotFound:
            return

    @property
    def _client(self) -> ApiClient:
        if self._api is None:
            raise RuntimeError("the client is not open: use `async with Kube.connect() as kube`")
        return self._api

    def _writing(self, manager: str = "", *, dry_run: bool = False) -> _Query:
        """Parameters of every write. A dry run refuses unknown fields, as `kubectl` does, and stores nothing."""
        trial = (("dryRun", "All"), ("fieldValidation", "Strict")) if dry_run else ()
        return (("fieldManager", manager or self.manager), *trial)

    async def _known(
        self, kind: str, not_older_than: Callable[[str], Awaitable[T]], of_now: Callable[[], Awaitable[T]]
    ) -> T:
        """Read `kind` as of what is known of it; as of now if too little is, or if the API server is behind that."""
        newest = self.versions.newest(kind)
        if newest is not None:
            try:
                return await not_older_than(newest)
            except Unavailable as error:
                if _AHEAD not in str(error):
                    raise
                self.versions.lags(kind)
        return await of_now()

    async def _log_in(self) -> Configuration:
        configuration, self._namespace, self.origin = await log_in(self._kubeconfig, self._context)
        self._logged_in_at = time.monotonic()
        return configuration

    async def _pages(
        self,
        request: Request,
        query: _Query,
        keep: Callable[[Manifest], Manifest] = lambda item: item,
    ) -> tuple[Manifests, object]:
        """All items, and as of which resource version they are."""
        path = collection_path(request)
        # Items of a list carry neither; everything that handles objects expects both.
        type_meta = {"apiVersion": KINDS[request.kind].api_version, "kind": request.kind}
        items: list[Manifest] = []
        page = await self._call(request, _Http("GET", path, query))
        while True:
            items += [keep(type_meta | item) for item in page["items"]]
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"].get("resourceVersion")
            page = await self._call(request, _Http("GET", path, (*query, ("continue", token))))

    async def _write(self, request: Request, http: _Http) -> Manifest:
        limit = ("timeout", f"{self.write_timeout:g}s")
        answer = await self._call(request, replace(http, query=(*http.query, limit)))
        self.versions.met(request.kind, (answer.get("metadata") or {}).get("resourceVersion"))
        return answer

    async def _call(self, request: Request, http: _Http) -> Manifest:
        """One request, and another with freshly read credentials if they were refused."""
        login = self._logged_in_at
        try:
            return await self._guarded(request, http)
        except Unauthorized:
            if login == self._logged_in_at:
                if time.monotonic() - login < _RELOGIN_INTERVAL:
                    raise
                fresh = await self._log_in()
                self._client.configuration.api_key = fresh.api_key
                self._client.configuration.refresh_api_key_hook = fresh.refresh_api_key_hook
        return await self._guarded(request, http)

    async def _guarded(self, request: Request, http: _Http) -> Manifest:
        if http.method == "GET":
            return await self._send(request, http)
        if self.write_guard is not None and request.kind != "Lease":
            self.write_guard()
        with self.writes.one():
            return await self._send(request, http)

    async def _send(self, request: Request, http: _Http) -> Manifest:
        answer = _json_object(await self._exchange(request, http))
        if not answer and http.accept == "application/json":
            raise Unavailable(
                request, f"{self._host} did not answer with a JSON object: is it an API server?"
            )
        return answer

    async def _exchange(self, request: Request, http: _Http) -> bytes:
        """The body of a successful answer."""
        with tracing.step(f"{request.verb} {request.kind}", kind=request.kind) as span:
            code, data, headers = await self._answer(request, http)
            span.set_attribute("http.response.status_code", code)
            if code not in _SUCCESS:
                raise error_from(request, code, _json_object(data) or _failed_checks(data), headers)
        return data

    async def _answer(self, request: Request, http: _Http) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers of an answer. Raises `Unavailable` without one."""
        code: int | None = None
        started = time.monotonic()
        try:
            prepared = await self._client.param_serialize(
                http.method,
                http.path,
                query_params=list(http.query),
                header_params={"Accept": http.accept, "Content-Type": http.content_type},
                body=http.body,
                auth_settings=["BearerToken"],
            )
            timeout = self._read_timeout if http.method == "GET" else self.write_timeout
            response = await self._client.call_api(*prepared, _request_timeout=timeout)
            code = response.status
            data: bytes = await response.read()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise Unavailable(request, f"no answer from {self._host} within its time limit") from error
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(request, self._host, error) from error
        finally:
            metrics.API_SECONDS.labels(request.verb, request.kind).observe(time.monotonic() - started)
            metrics.API_REQUESTS.labels(request.verb, request.kind, str(code or "unreachable")).inc()
        return response.status, data, response.headers

    @property
    def _host(self) -> str:
        return str(self._client.configuration.host)


def _request_of(verb: str, obj: Manifest) -> Request:
    metadata = obj["metadata"]
    return Request(verb, obj["kind"], metadata.get("namespace", ""), metadata.get("name", ""))


def _failed_checks(data: bytes) -> dict[str, Any]:
    """The message in an answer of `/readyz`: the checks that failed, lines such as ``[-]etcd failed``."""
    failed = [line[3:] for line in data.decode(errors="replace").splitlines() if line.startswith("[-]")]
    return {"message": "; ".join(failed)} if failed else {}


def _json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in a response, {} if it holds none (``ok``, a proxy's error page)."""
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
