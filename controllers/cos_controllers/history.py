"""What a stack was asked to be and what became of it: one ControllerRevision for each spec.

The data of a revision never changes: the parts of the spec that make pods, and the revision of each component. Two
annotations hold what was learnt: which components served, and which did not in time. See docs/adr/0010.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from cos_controllers.api.common import Images
from cos_controllers.api.stack import CosStack, CosStackSpec, EngineSpec, RollbackMode
from cos_controllers.components.registry import ENGINES, dumper_of, kept_in, stores
from cos_controllers.components.repository import mounted
from cos_controllers.hashing import digest
from cos_controllers.k8s import Manifest, V1ControllerRevision, V1ObjectMeta, manifest
from cos_controllers.names import ANNOTATION_FAILED, ANNOTATION_GOOD, child_name, revision_name, stack_labels
from cos_controllers.observation import Snapshot
from cos_controllers.ownership import is_ours, owner_reference

#: Fields of a stack's spec that say how it is run, and not what: no part of a revision.
_CONDUCT = {
    "paused",
    "deletion_policy",
    "progress_deadline_seconds",
    "rollback",
    "revision_history_limit",
    "probes",
    "slo",
    "backup",
}

#: In these, empty is not the same as absent.
_KUBERNETES_SHAPES = {"tolerations", "affinity", "topologySpreadConstraints", "nodeSelector"}


class Failure(NamedTuple):
    """A component's revision that did not serve in time, and why.

    `time` is RFC 3339; `spec` the name of the stack's revision in which it was tried.
    """

    revision: str
    reason: str
    message: str
    time: str
    spec: str


@dataclass(frozen=True)
class Revision:
    """One spec. `number` rises; `good`: the image that served, by digest if known, by component; `uid` "" if new."""

    name: str
    number: int
    spec: Manifest
    components: Mapping[str, str]
    good: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, Failure] = field(default_factory=dict)
    uid: str = ""

    def manifest(self, stack: CosStack) -> Manifest:
        """The ControllerRevision. It has no component's label, so that no StatefulSet takes it for its own."""
        annotations = {
            ANNOTATION_GOOD: json.dumps(dict(self.good), sort_keys=True) if self.good else None,
            ANNOTATION_FAILED: json.dumps(
                {name: failure._asdict() for name, failure in self.failed.items()}, sort_keys=True
            )
            if self.failed
            else None,
        }
        return manifest(
            V1ControllerRevision(
                api_version="apps/v1",
                kind="ControllerRevision",
                metadata=V1ObjectMeta(
                    name=self.name,
                    namespace=stack.metadata.namespace,
                    labels=stack_labels(stack.metadata.name),
                    annotations={key: text for key, text in annotations.items() if text} or None,
                    owner_references=[owner_reference(stack)],
                ),
                revision=self.number,
                data={"spec": self.spec, "components": dict(self.components)},
            )
        )


@dataclass(frozen=True)
class History:
    """All revisions of a stack, oldest first; the last is that of the present spec, stored or not."""

    revisions: tuple[Revision, ...]

    @property
    def current(self) -> Revision:
        """The revision of the present spec."""
        return self.revisions[-1]

    def failure(self, component: str) -> Failure | None:
        """Why what the spec asks of a component was taken back, if it was."""
        return self.current.failed.get(component)

    def taken_back(self, component: str) -> frozenset[str]:
        """Revisions of a component that were tried and taken back."""
        marks = (revision.failed.get(component) for revision in self.revisions)
        return frozenset(mark.revision for mark in marks if mark)

    def is_good(self, component: str, revision: str | None = None) -> bool:
        """Whether a revision of a component has served; without one, what the spec asks of it."""
        wanted = revision or self.current.components.get(component)
        return any(component in item.good for item in self._with(component, wanted))

    def running(self, component: str, revision: str) -> Revision | None:
        """The newest spec that asked for this revision of a component."""
        return next(self._with(component, revision), None)

    def _with(self, component: str, revision: str | None) -> Iterator[Revision]:
        return (item for item in reversed(self.revisions) if item.components.get(component) == revision)

    def held_back_by(self, component: str) -> str | None:
        """Another component that did not serve with the spec of which this one's part is still asked for."""
        part = self.current.components.get(component)
        tried = {revision.name: revision.components.get(component) for revision in self.revisions}
        for other, failure in self.current.failed.items():
            if other != component and tried.get(failure.spec) == part:
                return other
        return None

    def last_good(self, component: str) -> Revision | None:
        """The newest revision in which a component served, other than what the spec now asks of it."""
        desired = self.current.components.get(component)
        for revision in reversed(self.revisions):
            if component in revision.good and revision.components.get(component) != desired:
                return revision
        return None

    def last_good_hash(self, component: str) -> str | None:
        """The component's own newest revision that served."""
        if self.is_good(component):
            return self.current.components[component]
        found = self.last_good(component)
        return found.components[component] if found else None

    def learn_good(self, component: str, revision: str, image: str) -> History:
        """The same with a component's revision marked as one that served, by `image`. What serves has not failed."""
        marked = self.running(component, revision)
        if marked is None:
            return self
        failed = {name: mark for name, mark in marked.failed.items() if name != component}
        return self._with_revision(replace(marked, good={**marked.good, component: image}, failed=failed))

    def learn_failed(self, failed: Mapping[str, Failure]) -> History:
        """The same with failures of components added to the present revision."""
        return self._with_revision(replace(self.current, failed={**self.current.failed, **failed}))

    def _with_revision(self, revision: Revision) -> History:
        return History(tuple(revision if item.name == revision.name else item for item in self.revisions))

    def superfluous(self, limit: int) -> tuple[Revision, ...]:
        """Revisions beyond the newest `limit` earlier ones; those that say what to fall back to or what failed stay."""
        needed = {found.name for name in self.current.components if (found := self.last_good(name))}
        needed |= {failure.spec for failure in self.current.failed.values()}
        earlier = self.revisions[:-1]
        return tuple(
            revision for revision in earlier[: max(len(earlier) - limit, 0)] if revision.name not in needed
        )


def component_revision(spec: EngineSpec, images: Images, mounted: str = "") -> str:
    """Hash of what the spec asks of a component's pods. `mounted`: names what else they mount, "" if nothing.

    What is absent or empty is left out: a field that a later version of the API adds, absent by default, changes no
    hash. What was defaulted is in: another default changes none either, for it is stored in the object.
    """
    own = spec.model_dump(by_alias=True, mode="json", exclude_none=True, exclude=set(spec.live_fields))
    shared = images.model_dump(by_alias=True, mode="json", exclude_none=True)
    return digest([_without_blanks(own), _without_blanks(shared), *([mounted] if mounted else [])])


def _mounted(stack: CosStack) -> dict[str, str]:
    """What the pods of components mount of repositories, of those that do: their log goes there."""
    found: dict[str, str] = {}
    for component in stores(stack.spec):
        dumper = dumper_of(component, stack.spec)
        for repository in kept_in(component, stack.spec) if dumper and dumper.keeps_log else ():
            name = child_name(stack.metadata.name, component)
            found[component] = mounted(stack.metadata.name, repository, name)
    return found


def _without_blanks(value: Any) -> Any:
    """Data without absent and empty parts, those in Kubernetes' own shapes left as they are."""
    if not isinstance(value, dict):
        return value
    kept = (
        (key, item if key in _KUBERNETES_SHAPES else _without_blanks(item)) for key, item in value.items()
    )
    return {key: item for key, item in kept if item not in (None, {}, [])}


def read_history(stack: CosStack, snapshot: Snapshot) -> History:
    """The stored revisions and that of the present spec, which follows them if it is not the newest already."""
    stored = sorted(
        (
            found
            for ref, obj in snapshot.objects.items()
            if ref.kind == "ControllerRevision" and is_ours(obj, stack) and (found := _stored(obj))
        ),
        key=lambda revision: (revision.number, revision.name),
    )
    current = _current(stack, stored)
    return History((*(revision for revision in stored if revision.name != current.name), current))


def spec_of(revision: Revision) -> CosStackSpec:
    """The parts of the spec that a revision holds. Raises `pydantic.ValidationError` if rules have changed since."""
    return CosStackSpec.model_validate(revision.spec)


def _current(stack: CosStack, stored: list[Revision]) -> Revision:
    spec = stack.spec
    content = spec.model_dump(by_alias=True, mode="json", exclude_none=True, exclude=_CONDUCT)
    postgres = [_without_blanks(item) for item in content["postgres"]]
    reached = _mounted(stack)
    told = {**content, "postgres": postgres, **({"mounted": reached} if reached else {})}
    name = revision_name(stack.metadata.name, digest(_without_blanks(told)))
    newest = stored[-1] if stored else None
    found = next((revision for revision in stored if revision.name == name), None)
    if found is None:
        found = Revision(
            name=name,
            number=0,
            spec=content,
            components={
                component: component_revision(section, spec.images, reached.get(component, ""))
                for engine in ENGINES
                for component, section in engine.instances(spec).items()
            },
        )
    # A failure counts while the spec goes on to ask for it. A spec that comes back later is tried anew.
    marks = newest.failed if newest and spec.rollback.mode is RollbackMode.AUTOMATIC else {}
    if newest and found.name != newest.name:
        found = replace(found, number=newest.number + 1)
    return replace(
        found,
        number=max(found.number, 1),
        good={
            component: revision.good[component]
            for component, wanted in found.components.items()
            for revision in stored
            if component in revision.good and revision.components.get(component) == wanted
        },
        failed={
            component: mark
            for component, mark in marks.items()
            if found.components.get(component) == mark.revision
        },
    )


def _stored(obj: Manifest) -> Revision | None:
    """A live ControllerRevision; None if it does not have our form."""
    data = obj.get("data") or {}
    annotations = obj["metadata"].get("annotations") or {}
    spec, components = data.get("spec"), data.get("components")
    if not isinstance(spec, dict) or not isinstance(components, dict):
        return None
    failed = _json(annotations.get(ANNOTATION_FAILED))
    return Revision(
        name=obj["metadata"]["name"],
        number=obj.get("revision", 0),
        spec=spec,
        components=components,
        good={
            name: image
            for name, image in _json(annotations.get(ANNOTATION_GOOD)).items()
            if isinstance(image, str)
        },
        failed={
            name: Failure(**mark)
            for name, mark in failed.items()
            if isinstance(mark, dict) and set(mark) == set(Failure._fields)
        },
        uid=obj["metadata"].get("uid", ""),
    )


def _json(text: str | None) -> dict[str, Any]:
    """The map in an annotation; empty if someone has spoilt it."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
