"""Traefik as an engine: names, and the pods that run it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cos_controllers.api.stack import CosStackSpec, TraefikSpec
from cos_controllers.api.status import GateName
from cos_controllers.components.base import CONFIG_VOLUME, Accounts, Blueprint, Context, Port
from cos_controllers.components.parts import (
    env,
    get,
    liveness_probe,
    memory_limit_mib,
    mount,
    readiness_probe,
    requirements,
    startup_probe,
)
from cos_controllers.components.traefik.config import (
    ACCEPT_SECONDS,
    DRAIN_SECONDS,
    MARKER,
    OPS_PORT,
    WEB_PORT,
    is_closed,
    routes_config,
    static_config,
)
from cos_controllers.credentials import Login
from cos_controllers.hashing import digest
from cos_controllers.k8s import (
    V1ConfigMapVolumeSource,
    V1Container,
    V1ContainerPort,
    V1KeyToPath,
    V1Volume,
)
from cos_controllers.names import config_map
from cos_controllers.observation import Expectation, RouteTarget

CONFIG_DIR = "/etc/cos/config"
ROUTES_DIR = "/etc/cos/routes"
ROUTES_FILE = "routes.yaml"
#: Any uid will do: the image has no user of its own. This is "nonroot" of the distroless images.
TRAEFIK_UID = 65532

#: Share of the memory limit from which on Go's collector works harder, rather than be killed at the limit.
_GO_MEMORY_PERCENT = 90


@dataclass(frozen=True)
class Traefik:
    """See `base.Engine`. Pods without data or accounts; the operator asks `GET /ping` of a pod."""

    kind: str = "traefik"
    ports: tuple[Port, ...] = (Port("web", 80, WEB_PORT),)
    ops_port: int | None = OPS_PORT
    accounts: Accounts | None = None
    progress: re.Pattern[str] | None = None
    repository: str = "traefik"

    def tag(self, version: str) -> str:
        """The version is the tag."""
        return version

    def may_open(self, data: str, target: str) -> str:  # noqa: ARG002 - an engine without data
        """Always: there is no volume."""
        return ""

    def instances(self, spec: CosStackSpec) -> Mapping[str, TraefikSpec]:
        """At most one instance."""
        return {self.kind: spec.traefik} if spec.traefik else {}

    def uri(self, host: str, login: Login) -> str:  # noqa: ARG002 - an engine without accounts
        """``http://host:80/``."""
        return f"http://{host}:80/"

    def render(self, context: Context) -> Blueprint:
        """A Deployment. The routes have a volume of their own, so that a change of them is seen by itself."""
        spec = context.spec
        assert isinstance(spec, TraefikSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        ping = get("/ping", OPS_PORT)
        # Without the names of stack and namespace, which never change: the same routes have the same marker.
        marker = digest(routes_config(spec.routes, stack="", namespace="", failing=context.failing))
        limit = memory_limit_mib(spec.resources) if spec.resources.limits.memory else None
        proxy = V1Container(
            name="traefik",
            command=["traefik", f"--configfile={CONFIG_DIR}/traefik.yaml"],
            env=env(GOMEMLIMIT=f"{limit * _GO_MEMORY_PERCENT // 100}MiB") if limit else None,
            ports=[
                V1ContainerPort(name="web", container_port=WEB_PORT),
                V1ContainerPort(name="ops", container_port=OPS_PORT),
            ],
            resources=requirements(spec.resources),
            startup_probe=startup_probe(ping),
            readiness_probe=readiness_probe(ping),
            liveness_probe=liveness_probe(ping),
            volume_mounts=[mount(CONFIG_VOLUME, CONFIG_DIR), mount("routes", ROUTES_DIR)],
        )
        source = V1ConfigMapVolumeSource(
            name=config_map(context.name),
            # In a folder of its own: beside the volume's links Traefik also reads the folders they point into,
            # and would find each file of the top level twice.
            items=[V1KeyToPath(key=ROUTES_FILE, path=f"live/{ROUTES_FILE}")],
        )
        return Blueprint(
            uid=TRAEFIK_UID,
            gid=TRAEFIK_UID,
            containers=(proxy,),
            config={
                "traefik.yaml": static_config(ROUTES_DIR),
                ROUTES_FILE: routes_config(
                    spec.routes,
                    stack=context.stack_name,
                    namespace=context.namespace,
                    failing=context.failing,
                    marker=marker,
                ),
            },
            reloaded=frozenset({ROUTES_FILE}),
            volumes=(V1Volume(name="routes", config_map=source),),
            grace_seconds=ACCEPT_SECONDS + DRAIN_SECONDS + 5,
            replicas=spec.replicas,
            service_type=spec.service.type.value,
            service_annotations=spec.service.annotations,
            expected=Expectation(
                gates=(
                    GateName.SERVING,
                    GateName.CONFIGURATION_IN_FORCE,
                    *((GateName.ROUTES_ANSWER,) if spec.routes else ()),
                ),
                configuration={MARKER: marker},
                reloads=True,
                routes=tuple(
                    RouteTarget(route.name, route.host or "", route.path, route.component or "")
                    for route in spec.routes
                    if not is_closed(route, context.failing)
                ),
            ),
        )
