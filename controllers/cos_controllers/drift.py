"""Whether a live object already is what we want: then nothing is written, also after a restart.

Two questions. Does the live object have every field of the intent, with equal values? Does our field manager
own a field that the intent no longer has (which an apply would remove)?
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cos_controllers.api.quantity import parse_quantity
from cos_controllers.k8s import Manifest
from cos_controllers.names import MANAGER

#: Keys by which items of a list are paired, in order of preference. Without one, items are paired by position.
_ITEM_KEYS = ("uid", "mountPath", "name", "type")

#: Below these fields, texts are quantities, of which the API server keeps a canonical form ("1024Mi" → "1Gi").
_QUANTITY_FIELDS = frozenset({"requests", "limits", "sizeLimit"})


def needs_apply(intent: Manifest, live: Manifest) -> bool:
    """Whether applying `intent` would change `live`."""
    return not (_covers(live, intent) and not _owns_more(_owned_fields(live), intent))


def owned_part(live: Manifest, manager: str = MANAGER) -> Manifest:
    """The identity of a live object and the fields of it that `manager` owns: applied as it, it changes nothing.

    With the UID, so that no other is made of it should it be gone meanwhile.
    """
    identity = ("name", "namespace", "uid")
    metadata = {key: live["metadata"][key] for key in identity if key in live["metadata"]}
    fields = _owned_fields(live, manager)
    owned = _project(fields, live) if fields else {}
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        **owned,
        "metadata": {**owned.get("metadata", {}), **metadata},
    }


def _project(owned: Mapping[str, Any], live: Any) -> Any:
    """The parts of `live` that `owned` (fieldsV1: see `_owns_more`) names; all of it where it names no part."""
    parts = {path: below for path, below in owned.items() if path != "."}
    if not parts:
        return live
    if isinstance(live, dict):
        names = {path.removeprefix("f:"): below for path, below in parts.items()}
        return {name: _project(below, live[name]) for name, below in names.items() if name in live}
    return [
        item if form == "v" else json.loads(key) | _project(below, item)
        for path, below in parts.items()
        for form, _, key in (path.partition(":"),)
        for item in live
        if (json.loads(key) == item if form == "v" else json.loads(key).items() <= item.items())
    ]


def _covers(live: Any, intent: Any, *, quantity: bool = False) -> bool:
    if live == intent:
        # Most of a large object is: told by one comparison, not field by field.
        return True
    if isinstance(intent, dict):
        if not isinstance(live, dict):
            return not intent and live is None
        return all(
            _covers(live.get(key), value, quantity=quantity or key in _QUANTITY_FIELDS)
            for key, value in intent.items()
        )
    if isinstance(intent, list):
        return _covers_list(live or [], intent)
    if quantity and isinstance(intent, str) and isinstance(live, str):
        return parse_quantity(live) == parse_quantity(intent)
    return False


def _item_key(items: Sequence[Any]) -> str | None:
    for key in _ITEM_KEYS:
        if items and all(isinstance(item, dict) and key in item for item in items):
            return key
    return None


def _covers_list(live: list[Any], intent: list[Any]) -> bool:
    key = _item_key(intent)
    if key is None:
        return len(live) == len(intent) and all(map(_covers, live, intent))
    by_key = {item.get(key): item for item in live if isinstance(item, dict)}
    return all(_covers(by_key.get(item[key]), item) for item in intent)


def _owned_fields(live: Manifest, manager: str = MANAGER) -> dict[str, Any]:
    """A manager's `fieldsV1` of the main resource; empty if it never applied the object."""
    for entry in live["metadata"].get("managedFields") or ():
        if (
            entry.get("manager") == manager
            and entry.get("operation") == "Apply"
            and not entry.get("subresource")
        ):
            return dict(entry.get("fieldsV1") or {})
    return {}


def _owns_more(owned: dict[str, Any], intent: Any) -> bool:
    """Whether `owned` (fieldsV1: `f:` fields, `k:` list items by key, `v:` set items) goes beyond `intent`."""
    for path, below in owned.items():
        if path == ".":
            continue
        form, _, rest = path.partition(":")
        if form == "f":
            value = intent.get(rest) if isinstance(intent, dict) else None
        elif form == "k":
            # A key that the intent leaves out was defaulted by the API server, such as a port's protocol.
            keys = json.loads(rest)
            value = next(
                (item for item in _as_list(intent) if all(item.get(k, v) == v for k, v in keys.items())), None
            )
        elif form == "v":
            value = rest if json.loads(rest) in _as_list(intent) else None
        else:
            return True
        if value is None or _owns_more(below, value):
            return True
    return False


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
