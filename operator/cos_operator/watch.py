"""Watching: Kopf tells which stack has something new, and nothing else is asked of it.

The one module that imports Kopf. It runs in a thread and an event loop of its own, because it cancels every task
of its loop when it ends, under a supervisor, because it ends when a watch fails for good. An event is only a
hint: the stack's key is handed over, the truth is read by whoever reconciles. Handlers return None, else Kopf
would write their result into the object. `docs/adr/0004-watching-and-leading.md` has the reasons.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import aiohttp
import kopf
import structlog

from cos_controllers.names import (
    GROUP,
    LABEL_BACKED_UP_STACK,
    LABEL_PROBED_STACK,
    LABEL_STACK,
    SELECTOR_MANAGED,
)
from cos_operator import metrics
from cos_operator.echoes import state
from cos_operator.kube import KINDS, OPERATION_KINDS, WATCHED_KINDS, Endpoint, Forbidden, Kube, KubeError
from cos_operator.watch_streams import Streams

log = structlog.stdlib.get_logger(__name__)

STACK_KIND = "CosStack"

#: Seconds between restarts: doubled from the first to the last, begun anew after a run of `_STABLE_SECONDS`.
_FIRST_RESTART, _LAST_RESTART, _STABLE_SECONDS = 1.0, 30.0, 60.0
#: Seconds for Kopf to end by itself once it has begun to; for what it leaves behind, which is cancelled again and
#: again at the interval; and for the thread to end after all of this.
_END_LIMIT, _LEFTOVER_LIMIT, _LEFTOVER_INTERVAL, _STOP_LIMIT = 3.0, 3.0, 0.05, 8.0


class Hint(NamedTuple):
    """What an event tells: an object of this kind and resource version has something new about a stack.

    `about`: the kind of those who are to look: of the stack itself, or of its probes or backups. `state` is that of
    `echoes.state` if the object is the stack itself.
    """

    kind: str
    namespace: str
    stack: str
    version: str
    about: str = STACK_KIND
    state: str = ""


class _Backoffs:
    """Endless delays of failed requests. An iterator would be used up by the first request that fails."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0, 4.0), itertools.repeat(8.0))


class _NoDiffs(kopf.DiffBaseStorage):
    """Kopf compares nothing: it would copy every object at every event."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        """Nothing to store."""


class _NoProgress(kopf.ProgressStorage):
    """Kopf remembers no progress in objects: its handlers here have none."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        """Nothing to store."""

    def purge(self, **_: Any) -> None:
        """Nothing to purge."""

    def touch(self, **_: Any) -> None:
        """Nothing to touch."""

    def clear(self, *, essence: Any) -> Any:
        return essence


class Watcher:
    """Watches all stacks, their children, probes and backups: in `namespaces`, or without any in the whole cluster.

    `kubeconfig` and `context` as for `Kube.connect`. It needs the rights to list and watch, no others.
    """

    def __init__(
        self, namespaces: Iterable[str] = (), kubeconfig: str | None = None, context: str | None = None
    ) -> None:
        self._namespaces = tuple(namespaces)
        self._kubeconfig = kubeconfig
        self._context = context
        self._streams = Streams(
            (STACK_KIND, *WATCHED_KINDS, *OPERATION_KINDS), self._namespaces, self._hand_over_gap
        )
        self._thread = threading.Thread(target=self._supervise, name="watch", daemon=True)
        self._stopping = threading.Event()
        self._home: asyncio.AbstractEventLoop | None = None
        self._on_hint: Callable[[Hint], None] | None = None
        self._on_restart: Callable[[], None] | None = None
        self._kopf: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._error = ""

    def start(self, on_hint: Callable[[Hint], None], on_restart: Callable[[], None]) -> None:
        """Begin to watch. Both are called in the event loop that calls this.

        `on_hint` gets each event. `on_restart` is called when watches are established, also again after a gap: nothing
        tells what was there or changed before, so everything is to be looked at. Those that cannot be established
        delay it for a limited time; see `Streams`.
        """
        self._home = asyncio.get_running_loop()
        self._on_hint = on_hint
        self._on_restart = on_restart
        self._thread.start()

    async def stop(self) -> None:
        """Stop watching; nothing is called any more afterwards."""
        self._stopping.set()
        self._on_hint = self._on_restart = None
        if self._kopf is not None:
            loop, flag = self._kopf
            with contextlib.suppress(RuntimeError):  # its loop has just ended by itself
                loop.call_soon_threadsafe(flag.set)
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, _STOP_LIMIT)
        if self._thread.is_alive():
            log.error("the watches did not stop in time", limit=_STOP_LIMIT)

    def last_event_age(self) -> float:
        """Seconds since the most silent watch was last heard, bookmarks included; infinite before the start."""
        return self._streams.silence()

    def fresh(self) -> bool:
        """Whether every watch has been heard lately, or is being connected again; see `watch_streams`."""
        return not self.problem()

    def problem(self) -> str:
        """What is wrong with the watches, for a person; "" if they are fresh."""
        if not self._thread.is_alive():
            return "the watches are not running"
        problem = self._streams.problem()
        return f"{self._error}; {problem}" if problem and self._error else problem

    def _hand_over(self, hint: Hint) -> None:
        metrics.EVENTS_RECEIVED.labels(hint.kind).inc()
        self._call_home(lambda: self._on_hint and self._on_hint(hint))

    def _hand_over_gap(self) -> None:
        self._call_home(lambda: self._on_restart and self._on_restart())

    def _call_home(self, callback: Callable[[], object]) -> None:
        if self._home is not None:
            with contextlib.suppress(RuntimeError):  # the process is ending and its loop is closed
                self._home.call_soon_threadsafe(callback)

    def _supervise(self) -> None:
        """The thread: run Kopf until stopped, again and again."""
        delay = _FIRST_RESTART
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                _run(self._watch())
                self._error = "the watches ended"
            except KubeError as error:
                self._error = str(error)
            except Exception as error:  # noqa: BLE001 whatever ends Kopf, it is started again
                self._error = f"{type(error).__name__}: {error}"
            self._kopf = None
            self._streams.disconnected()
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _STABLE_SECONDS:
                delay = _FIRST_RESTART
            metrics.WATCH_RESTARTS.inc()
            log.error("the watches ended and are started again", error=self._error, delay=delay)
            self._stopping.wait(delay)
            delay = min(2 * delay, _LAST_RESTART)

    async def _watch(self) -> None:
        """One run of Kopf: until stopped, or until it fails."""
        ending = asyncio.Event()
        self._kopf = (asyncio.get_running_loop(), ending)
        async with Kube.connect(self._kubeconfig, self._context) as kube:
            await self._require_definition(kube)
            if self._stopping.is_set():
                return
            # Made before Kopf runs: what is made later belongs to Kopf, and is cancelled by it.
            sampler = asyncio.create_task(self._streams.sample(), name="watch-sampler")
            session = self._session(kube.endpoint)
            run = asyncio.create_task(
                kopf.operator(
                    registry=self._registry(session, kube.endpoint.server, ending),
                    settings=_settings(),
                    namespaces=self._namespaces,
                    clusterwide=not self._namespaces,
                    stop_flag=ending,
                ),
                name="kopf",
            )
            try:
                await asyncio.wait(
                    [run, asyncio.create_task(ending.wait())], return_when=asyncio.FIRST_COMPLETED
                )
                await asyncio.wait([run], timeout=_END_LIMIT)
                if not run.done():
                    raise TimeoutError("a watch failed for good, as logged, and Kopf does not end by itself")
                run.result()
            finally:
                sampler.cancel()
                await session.close()

    async def _require_definition(self, kube: Kube) -> None:
        """Kopf silently serves nothing where a kind does not exist, so this is looked at before it starts.

        One namespace that answers tells it for all: a right that is missing in another must not end their watches.
        """
        refused: Forbidden | None = None
        for namespace in self._namespaces or (None,):
            try:
                served = await kube.served(STACK_KIND, namespace)
            except Forbidden as error:
                refused = error
                continue
            if served:
                return
            kind = KINDS[STACK_KIND]
            raise LookupError(
                f"the API server does not serve {kind.plural}.{kind.group}/{kind.version}:"
                " apply the operator's CustomResourceDefinitions"
            )
        if refused:
            raise refused

    def _session(self, endpoint: Endpoint) -> aiohttp.ClientSession:
        """The HTTP session that Kopf uses: with the credentials of `Kube`, and observed."""

        async def authorize(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            if value := await endpoint.authorization():
                request.headers["Authorization"] = value
            if endpoint.tls_server_name:
                request.server_hostname = endpoint.tls_server_name
            return await handler(request)

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=endpoint.tls),
            proxy=endpoint.proxy,
            trust_env=False,
            middlewares=(authorize, self._streams.middleware),
        )

    def _registry(
        self, session: aiohttp.ClientSession, server: str, ending: asyncio.Event
    ) -> kopf.OperatorRegistry:
        """Handlers of one run: the login, the end, and one for each kind."""
        registry = kopf.OperatorRegistry()
        logins = iter([kopf.AiohttpSession(server=server, aiohttp_session=session)])

        @kopf.on.login(id="login", registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession | None:
            # Asked again after a 401: none ends this run, and the next one reads the credentials anew.
            return next(logins, None)

        @kopf.on.cleanup(id="end", registry=registry)
        async def end(**_: Any) -> None:
            ending.set()

        self._register(registry, STACK_KIND, lambda event: event["name"])
        for kind in WATCHED_KINDS:
            self._register(registry, kind, lambda event: event["labels"].get(LABEL_STACK))
        self._register(registry, "StackRestore", _stack_referred_to, "StackBackup")
        for about, label in (("StackProbe", LABEL_PROBED_STACK), ("StackBackup", LABEL_BACKED_UP_STACK)):
            self._register(registry, about, _stack_referred_to, about)
            self._register(registry, "Job", partial(_labelled, label), about)
        return registry

    def _register(
        self,
        registry: kopf.OperatorRegistry,
        kind: str,
        stack_of: Callable[[Mapping[str, Any]], str | None],
        about: str = STACK_KIND,
    ) -> None:
        resource = KINDS[kind]

        @kopf.on.event(
            group=resource.group,
            version=resource.version,
            plural=resource.plural,
            id=f"{kind} about {about}",
            registry=registry,
        )
        async def hint(**event: Any) -> None:
            stack = stack_of(event)
            if not stack:
                return
            obj = event["event"]["object"]
            metadata, status = obj["metadata"], obj.get("status") or {}
            shown = state(metadata, status) if kind == STACK_KIND and event["type"] != "DELETED" else ""
            version = metadata.get("resourceVersion", "")
            self._hand_over(Hint(kind, metadata["namespace"], stack, version, about, shown))


def _labelled(label: str, event: Mapping[str, Any]) -> str | None:
    """The stack that a label names."""
    found: str | None = event["labels"].get(label)
    return found


def _stack_referred_to(event: Mapping[str, Any]) -> str | None:
    """The stack that a probe or a backup is of."""
    found: str | None = event["spec"].get("stackRef", {}).get("name")
    return found


def _run(main: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`, which however cancels leftovers once, and then waits for them without end.

    Kopf, once a watch has failed, cancels the others together with what they wait for; this undoes the
    cancellation, and they go on (1.45.2).
    """
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_report)
    try:
        loop.run_until_complete(main)
    finally:
        deadline = loop.time() + _LEFTOVER_LIMIT
        while (leftovers := asyncio.all_tasks(loop)) and loop.time() < deadline:
            for task in leftovers:
                task.cancel()
            loop.run_until_complete(asyncio.wait(leftovers, timeout=_LEFTOVER_INTERVAL))
        if leftovers:
            log.error("tasks of the watches resist their end and are dropped", tasks=len(leftovers))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _report(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Errors that nobody awaited: Kopf has logged the one that matters, with its traceback."""
    log.debug(
        "left behind in the event loop of the watches",
        what=context["message"],
        error=repr(context.get("exception")),
    )


def _settings() -> kopf.OperatorSettings:
    """Kopf as a mere watcher: it writes nothing, keeps little, and never gives up by itself."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.process.ultimate_exiting_timeout = None
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = _NoProgress()
    # Kopf takes its own finalizer off whatever it watches; this one is on nothing.
    settings.persistence.finalizer = f"{GROUP}/unused"
    settings.watching.chunk_size = 500
    # The API server sends a bookmark every 60 s, so that 70 s of silence mean a dead connection.
    settings.watching.inactivity_timeout = 70
    settings.watching.connect_timeout = 5
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Backoffs()
    # Idle workers keep their slots of a limit: none is set, and they end at once.
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 0.05
    for kind in (*WATCHED_KINDS, "Job"):
        resource = KINDS[kind]
        key = (resource.group, resource.version, resource.plural)
        settings.watching.label_selectors[key] = SELECTOR_MANAGED
    return settings
