"""What two runs of the same life cycle must have in common: the objects of a namespace without what is new each time.

Left out or replaced: times, UIDs, resource versions, addresses, random parts of names, generated secrets, kubelet's
words, and what the controllers of Kubernetes write for themselves. What stays comparable is *which* object an owner
reference or a volume name means (a UID becomes the name of the object that has it), and which generated secrets are
equal to each other (each becomes the name of the place where it is found first).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

Manifest = dict[str, Any]
#: Comparable objects by ``Kind/name``.
State = dict[str, Any]

OURS = "cos.dev/"
NOTHING = "<uid of nothing>"
MISSING = "<missing>"

#: Controllers of Kubernetes whose own records of history say nothing about the operator.
_NATIVE_CONTROLLERS = frozenset({"StatefulSet", "Deployment", "ReplicaSet", "Service"})
#: Labels that carry hashes of what is compared anyway.
_HASH_LABELS = frozenset({"pod-template-hash", "controller-revision-hash"})
#: An annotation of ours that is a hash over generated secrets.
_SECRET_HASH = f"{OURS}files-hash"
_TOP_LEVEL = frozenset({"apiVersion", "kind", "metadata", "status"})
_ADDRESSES = frozenset({"clusterIP", "clusterIPs"})

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_IPV4 = re.compile(r"\b10\.\d{1,3}\.\d{1,3}\.\d{1,3}\b")
# Kubernetes writes random parts of names, and hashes in them, without vowels and look-alikes.
_POD = re.compile(r"\b([a-z0-9-]+?)-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b")
_REPLICA_SET = re.compile(r"^(.+)-[bcdfghjklmnpqrstvwxz2456789]{6,10}$")
# Kubelet words a failed pull in two ways, in turn.
_PULL = re.compile(r'(?:Back-off pulling image|rpc error:)[^()]*?(?=\)|", "|$)')
_SECRET = re.compile(r"(?<!sha256:)\b[0-9a-f]{40,64}\b|SCRAM-SHA-256\$[^\s']+")


def normalise(objects: Iterable[Manifest], namespace: str) -> State:
    """The comparable state of one namespace, from all its objects (with `apiVersion` and `kind`)."""
    kept = sorted((obj for obj in objects if not _is_native(obj)), key=_key)
    return _Normaliser(kept, namespace).state()


def diff(expected: object, actual: object, path: str = "") -> list[str]:
    """One line for each difference: path, what is expected, what is there instead."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return [
            line
            for key in sorted(expected.keys() | actual.keys())
            for line in diff(
                expected.get(key, MISSING), actual.get(key, MISSING), f"{path}.{key}" if path else key
            )
        ]
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return [
            line
            for index, (one, other) in enumerate(zip(expected, actual, strict=True))
            for line in diff(one, other, f"{path}[{index}]")
        ]
    return [] if expected == actual else [f"{path}: expected {_short(expected)}, found {_short(actual)}"]


def identities(objects: Iterable[Manifest]) -> dict[str, str]:
    """What must outlive any crash, by ``Kind/name``: volumes by UID, the content of Secrets."""
    found = {}
    for obj in objects:
        if obj["kind"] == "PersistentVolumeClaim":
            found[_key(obj)] = str(obj["metadata"]["uid"])
        elif obj["kind"] == "Secret":
            found[_key(obj)] = repr(sorted((obj.get("data") or {}).items()))
    return found


def lost(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """A line for each identity that has changed. Values are not shown, they may be secret."""
    return [
        f"{key}: {'is gone' if key not in after else 'is another one, or has another content'}"
        for key, value in before.items()
        if after.get(key) != value
    ]


def _key(obj: Manifest) -> str:
    return f"{obj['kind']}/{obj['metadata']['name']}"


def _is_native(obj: Manifest) -> bool:
    """Whether a controller of Kubernetes made it for itself. Pods count: they are what the operator is about."""
    owners = obj["metadata"].get("ownerReferences") or []
    return obj["kind"] != "Pod" and any(
        owner.get("controller") and owner["kind"] in _NATIVE_CONTROLLERS for owner in owners
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]} …"


class _Normaliser:
    """One pass over the objects of a namespace, in a fixed order."""

    def __init__(self, objects: list[Manifest], namespace: str) -> None:
        self._objects = objects
        self._namespace = re.compile(rf"(?<![\w-]){re.escape(namespace)}(?!\w)")
        self._owners = {obj["metadata"]["uid"]: _stable_name(_key(obj)) for obj in objects}
        self._first_places: dict[str, str] = {}

    def state(self) -> State:
        found: State = {}
        for obj in self._objects:
            key = _stable_name(_key(obj))
            while key in found:  # pods of one ReplicaSet
                key += "+"
            found[key] = self._walk(self._view(obj), key)
        return found

    def _view(self, obj: Manifest) -> Manifest:
        """The parts of an object that count."""
        view: Manifest = {"metadata": self._metadata(obj["metadata"])}
        if obj["kind"] == "Pod":
            return view | _pod(obj)
        view |= {key: value for key, value in obj.items() if key not in _TOP_LEVEL}
        if obj["kind"] == "CosStack":
            view["status"] = obj.get("status", MISSING)
        if obj["kind"] == "Secret":
            data = obj.get("data") or {}
            view["data"] = {
                key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()
            }
        if obj["kind"] == "Service":
            view["spec"] = {key: value for key, value in obj["spec"].items() if key not in _ADDRESSES}
        return view

    def _metadata(self, metadata: Manifest) -> Manifest:
        labels = metadata.get("labels") or {}
        annotations = metadata.get("annotations") or {}
        return {
            "labels": {key: value for key, value in labels.items() if key not in _HASH_LABELS},
            "annotations": {key: value for key, value in annotations.items() if key.startswith(OURS)},
            "owners": [self._owner(owner) for owner in metadata.get("ownerReferences") or []],
            "finalizers": sorted(metadata.get("finalizers") or []),
            "deleting": "deletionTimestamp" in metadata,
        }

    def _owner(self, owner: Manifest) -> Manifest:
        # Of a ReplicaSet the name changes with the template, which is compared; it is no object of ours.
        if owner["kind"] == "ReplicaSet":
            named = _REPLICA_SET.match(owner["name"])
            return {"kind": "ReplicaSet", "of": named.group(1) if named else owner["name"]}
        return owner

    def _walk(self, value: Any, place: str) -> Any:
        if isinstance(value, dict):
            return {
                key: self._numbered(item, f"{place}.{key}")
                if key == _SECRET_HASH
                else self._walk(item, f"{place}.{key}")
                for key, item in sorted(value.items())
            }
        if isinstance(value, list):
            return [self._walk(item, f"{place}[{index}]") for index, item in enumerate(value)]
        return self._text(value, place) if isinstance(value, str) else value

    def _text(self, text: str, place: str) -> str:
        text = self._namespace.sub("<namespace>", text)
        text = _TIME.sub("<time>", text)
        text = _UID.sub(lambda match: self._uid(match.group()), text)
        text = _SECRET.sub(lambda match: self._numbered(match.group(), place), text)
        text = _IPV4.sub("<address>", text)
        text = _PULL.sub("<words of kubelet>", text)
        return _stable_name(text)

    def _uid(self, uid: str) -> str:
        owner = self._owners.get(uid)
        return f"<uid of {owner}>" if owner else NOTHING

    def _numbered(self, value: str, place: str) -> str:
        """The place where the value appears first: equal values stay equal, and different ones different."""
        return f"<as in {self._first_places.setdefault(value, place)}>"


def _stable_name(text: str) -> str:
    return _POD.sub(r"\1-<hash>-<random>", text)


def _pod(pod: Manifest) -> Manifest:
    conditions = (pod.get("status") or {}).get("conditions") or []
    containers = pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
    return {
        "images": {container["name"]: container["image"] for container in containers},
        "ready": any(item["type"] == "Ready" and item["status"] == "True" for item in conditions),
    }
