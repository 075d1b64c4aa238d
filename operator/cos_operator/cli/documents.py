"""Manifests as text: reading a file, the difference of two specs, and what an apply makes of one.

The one module of the command that imports YAML.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cos_controllers.names import API_VERSION, GROUP
from cos_operator.cli import Manifest
from cos_operator.cli.errors import CliError, one_line


@dataclass(frozen=True)
class Document:
    """The stack in a file, and how many other objects there are beside it."""

    stack: Manifest
    others: int


def read_stack(path: str, name: str = "") -> Document:
    """The only stack in a YAML or JSON file (`-`: standard input), or that of the given name. Raises `CliError`."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CliError(f"cannot read {path}: {reason}") from error
    try:
        objects = list(_objects(yaml.safe_load_all(text)))
    except yaml.YAMLError as error:
        raise CliError(f"{path} is not YAML: {one_line(str(error))}") from error
    stacks = [obj for obj in objects if _is_stack(obj)]
    for stack in stacks:
        _check_shape(path, stack)
    named = [stack for stack in stacks if not name or stack["metadata"]["name"] == name]
    if len(named) == 1:
        return Document(named[0], len(objects) - len(stacks))
    if not stacks:
        raise CliError(f"{path} holds no object of kind CosStack ({API_VERSION}): name the file of a stack")
    names = ", ".join(stack["metadata"]["name"] for stack in stacks)
    if not named:
        raise CliError(f"{path} holds no stack {name}; it holds {names}")
    raise CliError(f"{path} holds several stacks: name one of {names}")


def _objects(documents: Iterator[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "List":
            yield from document.get("items") or ()
        elif document is not None:
            yield document


def _is_stack(obj: Any) -> bool:
    return (
        isinstance(obj, dict)
        and obj.get("kind") == "CosStack"
        and str(obj.get("apiVersion", "")).startswith(f"{GROUP}/")
    )


def _check_shape(path: str, stack: Manifest) -> None:
    metadata = stack.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise CliError(f"{path}: a CosStack has no metadata.name: give it one")
    if stack["apiVersion"] != API_VERSION:
        raise CliError(
            f"{path}: CosStack {metadata['name']} has apiVersion {stack['apiVersion']}, this command knows "
            f"{API_VERSION}: use the plugin of the operator's version"
        )


def to_yaml(value: Any) -> list[str]:
    """YAML with sorted keys, so that the same data are the same lines."""
    return str(
        yaml.safe_dump(value, sort_keys=True, default_flow_style=False, allow_unicode=True)
    ).splitlines()


def spec_diff(before: Any, after: Any, names: tuple[str, str]) -> list[str]:
    """Unified diff of two specs as YAML; empty if they are the same."""
    old, new = (to_yaml(value) if value else [] for value in (before, after))
    return [_with_section(text, old) for text in difflib.unified_diff(old, new, *names, lineterm="")]


def _with_section(text: str, old: list[str]) -> str:
    """A line of a diff; the head of a hunk names the part of the spec that it begins in, as `diff -p` would."""
    if not (hunk := re.match(r"@@ -(\d+)", text)):
        return text.rstrip()
    above = reversed(old[: int(hunk.group(1))])
    section = next((found.partition(":")[0] for found in above if re.match(r"[a-z]", found)), "")
    return f"{text.rstrip()} {section}".rstrip()


def merged(live: Manifest, manifest: Manifest, last_applied: str | None) -> Manifest:
    """What a client-side `kubectl apply` makes of a live object.

    The manifest's fields come in, and those go that the manifest applied last had and this one has not. Lists are
    replaced as a whole, as in every custom resource.
    """
    try:
        original = json.loads(last_applied or "{}")
    except ValueError:
        original = {}
    result = copy.deepcopy(live)
    _merge(result, original if isinstance(original, dict) else {}, _without_status(manifest))
    return result


def _without_status(manifest: Manifest) -> Manifest:
    return {key: value for key, value in manifest.items() if key != "status"}


def _merge(into: Manifest, original: Manifest, wanted: Manifest) -> None:
    for key in set(original) - set(wanted) - {"status"}:
        into.pop(key, None)
    for key, value in wanted.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            before = original.get(key)
            _merge(into[key], before if isinstance(before, dict) else {}, value)
        else:
            into[key] = copy.deepcopy(value)
