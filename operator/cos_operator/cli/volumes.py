"""What an earlier spec asks of volumes, and what they still allow: none shrinks or changes its class. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cos_controllers.api.common import Storage
from cos_controllers.api.quantity import parse_quantity
from cos_controllers.api.stack import CosStack
from cos_controllers.names import child_name
from cos_controllers.observation import Ref, ref_of
from cos_controllers.volumes import asked_of_volume, current_claim
from cos_operator.cli import Manifest


class Kept(NamedTuple):
    """A field that does not go back: `asked` is the earlier value, `kept` the one that remains, None if left out."""

    component: str
    field: str
    asked: str
    kept: str | None
    message: str


def components_of(spec: Manifest) -> Manifest:
    """The sections of a spec by component, and its other parts by name; what is empty is not there."""
    parts = {key: value for key, value in spec.items() if key != "postgres" and value}
    return parts | {f"postgres-{item['name']}": item for item in spec.get("postgres") or ()}


def _stores(spec: Manifest) -> dict[str, Manifest]:
    """What a spec asks of volumes, by component."""
    return {
        component: section["storage"]
        for component, section in components_of(spec).items()
        if isinstance(section, dict) and "storage" in section
    }


def claims_of(stack: CosStack, spec: Manifest, found: Iterable[Manifest]) -> dict[str, Manifest]:
    """The claim that each component of a spec has or, if the stack has it no more, would find again."""
    objects = {ref_of(claim): claim for claim in found}
    claims = {}
    for component in _stores(spec):
        name = current_claim(stack, objects, child_name(stack.metadata.name, component))
        if claim := objects.get(Ref("PersistentVolumeClaim", name)):
            claims[component] = claim
    return claims


def assumed_claims(present: Manifest) -> dict[str, Manifest]:
    """Claims as the present spec asks for them, for a person who may not read the real ones."""
    return {
        component: {
            "metadata": {},
            "spec": {
                "resources": {"requests": {"storage": str(storage["size"])}},
                "storageClassName": storage.get("storageClassName"),
            },
        }
        for component, storage in _stores(present).items()
    }


def attainable(
    spec: Manifest, present: Manifest, claims: Mapping[str, Manifest]
) -> tuple[Manifest, tuple[Kept, ...]]:
    """An earlier spec, asking for no less and no other than the volumes are; and the fields that this keeps.

    What is kept is written as the `present` spec has it, where that is the same.
    """
    kept: list[Kept] = []
    written, asking = _stores(present), _stores(spec)

    def fitted(component: str, section: Any) -> Any:
        if component not in claims or component not in asking:
            return section
        storage, fields = _fitted(component, asking[component], written.get(component, {}), claims[component])
        kept.extend(fields)
        return {**section, "storage": storage}

    result = {
        key: [fitted(f"postgres-{item['name']}", item) for item in section]
        if key == "postgres"
        else fitted(key, section)
        for key, section in spec.items()
    }
    return result, tuple(kept)


def _fitted(
    component: str, storage: Manifest, present: Manifest, claim: Manifest
) -> tuple[Manifest, list[Kept]]:
    size, storage_class = str(storage["size"]), storage.get("storageClassName")
    name = claim["metadata"].get("name", "")
    # Not validated: what rules have come to forbid since is the API server's to refuse.
    asked = Storage.model_construct(size=size, storage_class_name=storage_class)
    allowed, _ = asked_of_volume(asked, name, claim)
    volume = f"volume {name}" if name else "its volume"
    result, kept = dict(storage), []
    if parse_quantity(allowed.size) > parse_quantity(size):
        has = str(present.get("size", allowed.size))
        remains = has if parse_quantity(has) == parse_quantity(allowed.size) else allowed.size
        result["size"] = remains
        kept.append(_kept(component, "storage.size", size, remains, f"{volume} cannot shrink"))
    if storage_class not in {None, allowed.storage_class_name}:
        left_out = bool(present) and not present.get("storageClassName")
        named = None if left_out else allowed.storage_class_name
        result["storageClassName"] = named
        why = f"{volume} keeps its StorageClass"
        kept.append(_kept(component, "storage.storageClassName", storage_class, named, why))
    return {key: value for key, value in result.items() if value is not None}, kept


def _kept(component: str, field: str, asked: str, kept: str | None, why: str) -> Kept:
    text = f"{component}: {field} stays {kept or 'left out'} and is not {asked} again: {why}"
    return Kept(component, field, asked, kept, text)
