"""The files that Traefik is configured by: JSON, which is YAML, so that no value can be read as markup."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from cos_controllers.api.stack import Route, WhenGatesFail
from cos_controllers.names import child_name

WEB_PORT = 8080
OPS_PORT = 9000

#: Ports of the HTTP components of a stack.
COMPONENT_PORTS = {"elasticsearch": 9200, "neo4j": 7474}

#: On SIGTERM: seconds of accepting new requests (until every node has taken the pod out of the Service), then
#: seconds for requests under way. Their sum stays below the pod's grace.
ACCEPT_SECONDS = 5
DRAIN_SECONDS = 20

#: Limits of one request: to receive all of it, to connect to the backend, to the first byte of its answer.
_READ_SECONDS = 300
_DIAL_SECONDS = 3
_HEADER_SECONDS = 300

#: A route for a host goes before every route without one; the path decides among each. Longer than any path.
_HOST_PRIORITY = 1000

_TRANSPORT = "stack"

#: What a proxy reports of its routes: their hash. It answers below this path, at the operations port, for those that
#: it has read, and for no others. No route can have the router's name: a dot is no part of those.
MARKER = "routes"
MARKER_PATH = "/cos/routes/"
_MARKER_ROUTER = "cos.routes"


def _text(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def static_config(routes_dir: str) -> str:
    """traefik.yaml: entry points `web` for requests and `ops` for ping and metrics; no API, no dashboard."""
    life_cycle = {"requestAcceptGraceTimeout": f"{ACCEPT_SECONDS}s", "graceTimeOut": f"{DRAIN_SECONDS}s"}
    return _text(
        {
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "log": {"format": "json", "level": "INFO"},
            "entryPoints": {
                "web": {
                    "address": f":{WEB_PORT}",
                    "transport": {
                        "lifeCycle": life_cycle,
                        "respondingTimeouts": {"readTimeout": f"{_READ_SECONDS}s"},
                    },
                },
                "ops": {"address": f":{OPS_PORT}", "transport": {"lifeCycle": life_cycle}},
            },
            # The folder, not the file: a watched file is lost when kubelet swaps the volume's content.
            "providers": {
                "file": {"directory": routes_dir, "watch": True},
                "providersThrottleDuration": "500ms",
            },
            "ping": {"entryPoint": "ops", "terminatingStatusCode": 503},
            "metrics": {"prometheus": {"entryPoint": "ops"}},
        }
    )


def is_closed(route: Route, failing: Collection[str]) -> bool:
    """Whether a route gets no requests, for a gate of its component fails."""
    return route.when_gates_fail is WhenGatesFail.REFUSE and route.component in failing


def routes_config(
    routes: Sequence[Route],
    *,
    stack: str,
    namespace: str,
    failing: Collection[str] = (),
    marker: str = "",
) -> str:
    """The routes, as the file provider reads them. A backend is a Service by its name in `namespace`.

    A route that `is_closed` has no server, for which Traefik answers 503. With a `marker` Traefik answers
    ``MARKER_PATH + marker`` at the operations port once it has read them.
    """
    ordered = sorted(routes, key=lambda route: route.name)
    http: dict[str, Any] = {}
    if ordered:
        http = {
            "routers": {
                route.name: {
                    "entryPoints": ["web"],
                    "rule": rule(route),
                    "priority": priority(route),
                    "service": route.name,
                }
                for route in ordered
            },
            "services": {
                route.name: {
                    "loadBalancer": {
                        # Which pods get requests is for the Service to say, by their readiness.
                        "servers": []
                        if is_closed(route, failing)
                        else [{"url": _backend(route, stack, namespace)}],
                        "passHostHeader": True,
                        "serversTransport": _TRANSPORT,
                    }
                }
                for route in ordered
            },
            "serversTransports": {
                _TRANSPORT: {
                    "forwardingTimeouts": {
                        "dialTimeout": f"{_DIAL_SECONDS}s",
                        "responseHeaderTimeout": f"{_HEADER_SECONDS}s",
                    }
                }
            },
        }
    if marker:
        told = {
            "entryPoints": ["ops"],
            "rule": f"Path({json.dumps(MARKER_PATH + marker)})",
            "service": "ping@internal",
        }
        http["routers"] = {**http.get("routers", {}), _MARKER_ROUTER: told}
    return _text({"http": http} if http else {})


def rule(route: Route) -> str:
    """The matcher of a route, values as Go strings. ``/api`` matches whole segments: not ``/apis``."""
    path = json.dumps(route.path)
    if route.path == "/":
        matcher = f"PathPrefix({path})"
    else:
        matcher = f"(Path({path}) || PathPrefix({json.dumps(route.path + '/')}))"
    return f"Host({json.dumps(route.host)}) && {matcher}" if route.host else matcher


def priority(route: Route) -> int:
    """The higher is asked first: a host before none, then the longer path.

    Traefik's own order is by the length of the rule's text, which lets a long path without host win over a host.
    """
    return len(route.path) + (_HOST_PRIORITY if route.host else 0)


def _backend(route: Route, stack: str, namespace: str) -> str:
    if route.component:
        name, port = child_name(stack, route.component), COMPONENT_PORTS[route.component]
    elif route.service:
        name, port = route.service.name, route.service.port
    else:
        raise ValueError(f"route {route.name} has neither component nor service")
    return f"http://{name}.{namespace}.svc:{port}"
