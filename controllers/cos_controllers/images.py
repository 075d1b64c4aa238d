"""Which image an instance runs."""

from __future__ import annotations

import re

from cos_controllers.api.common import Images
from cos_controllers.api.stack import EngineSpec
from cos_controllers.components.base import Engine
from cos_controllers.components.versions import parts

#: A tag that begins with a version: not a commit, nor a date, nor a build number of more digits.
_VERSION_TAG = re.compile(r"v?(\d{1,3}(?:\.\d{1,3}){0,3})(?:[-_+].*)?")


def _without_host(repository: str) -> str:
    """``docker.elastic.co/elasticsearch/elasticsearch`` → ``elasticsearch/elasticsearch``; ``redis`` stays."""
    host, _, path = repository.partition("/")
    return path if path and ("." in host or ":" in host) else repository


def version_of(spec: EngineSpec) -> str:
    """The version that runs: what the tag of `spec.image` says if it can be one, else `spec.version`.

    A tag of the declared major or the next is the engine's version; others, such as build numbers and dates, are not.
    What may open a volume is decided by it, so an image must not hide what is in it.
    """
    name = (spec.image or "").partition("@")[0].rpartition("/")[2]
    found = _VERSION_TAG.fullmatch(name.partition(":")[2])
    if found is None:
        return spec.version
    tagged, declared = parts(found[1]), parts(spec.version)
    if tagged[0] - declared[0] not in {0, 1} or tagged == declared[: len(tagged)]:
        return spec.version
    return found[1]


def image_of(engine: Engine, spec: EngineSpec, images: Images) -> str:
    """The image that `spec.image` names, else the engine's default for its version at the stack's registry."""
    if spec.image:
        return spec.image
    repository = engine.repository
    if images.registry:
        repository = f"{images.registry.rstrip('/')}/{_without_host(repository)}"
    return f"{repository}:{engine.tag(spec.version)}"
