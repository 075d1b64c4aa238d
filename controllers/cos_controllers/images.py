"""Which image an instance runs."""

from __future__ import annotations

from cos_controllers.api.common import Images
from cos_controllers.api.stack import EngineSpec
from cos_controllers.components.base import Engine


def _without_host(repository: str) -> str:
    """``docker.elastic.co/elasticsearch/elasticsearch`` → ``elasticsearch/elasticsearch``; ``redis`` stays."""
    host, _, path = repository.partition("/")
    return path if path and ("." in host or ":" in host) else repository


def image_of(engine: Engine, spec: EngineSpec, images: Images) -> str:
    """The image that `spec.image` names, else the engine's default for its version at the stack's registry."""
    if spec.image:
        return spec.image
    repository = engine.repository
    if images.registry:
        repository = f"{images.registry.rstrip('/')}/{_without_host(repository)}"
    return f"{repository}:{engine.tag(spec.version)}"
