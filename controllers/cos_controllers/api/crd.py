"""CustomResourceDefinitions from the API models: pydantic's JSON schema in the structural form of Kubernetes.

`make generate` writes them to `crds/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cos_controllers.api.backup import StackBackup, StackBackupSpec, StackBackupStatus
from cos_controllers.api.model import ApiModel
from cos_controllers.api.probe import StackProbe, StackProbeSpec, StackProbeStatus
from cos_controllers.api.restore import StackRestore, StackRestoreSpec, StackRestoreStatus
from cos_controllers.api.stack import CosStack, CosStackSpec
from cos_controllers.api.status import CosStackStatus
from cos_controllers.k8s import Manifest
from cos_controllers.names import GROUP, VERSION

Schema = dict[str, Any]

#: JSON schema keywords that have no place in a structural schema.
_DROPPED = frozenset({"title", "additionalProperties", "discriminator"})


@dataclass(frozen=True)
class _Kind:
    """A kind of ours: its models, and how `kubectl` shows it."""

    model: type[CosStack | StackProbe | StackBackup | StackRestore]
    spec: type[ApiModel]
    status: type[ApiModel]
    short_name: str
    columns: tuple[Schema, ...]


def _column(name: str, path: str, *, kind: str = "string", wide: bool = False) -> Schema:
    return {"name": name, "type": kind, "jsonPath": path} | ({"priority": 1} if wide else {})


def _condition(kind: str, field: str) -> str:
    return f".status.conditions[?(@.type=='{kind}')].{field}"


_AGE = _column("Age", ".metadata.creationTimestamp", kind="date")
_KINDS = (
    _Kind(
        CosStack,
        CosStackSpec,
        CosStackStatus,
        "cos",
        (
            _column("Ready", _condition("Ready", "status")),
            _column("Components", ".status.summary"),
            _column("Reason", _condition("Ready", "reason")),
            _column("Gates", _condition("GatesPassed", "status"), wide=True),
            _column("SLO", _condition("SLOMet", "status"), wide=True),
            _column("Backup", _condition("BackupHealthy", "status"), wide=True),
            _column("Message", _condition("Ready", "message"), wide=True),
            _AGE,
        ),
    ),
    _Kind(
        StackProbe,
        StackProbeSpec,
        StackProbeStatus,
        "cosprobe",
        (
            _column("Stack", ".spec.stackRef.name"),
            _column("Phase", ".status.phase"),
            _column("Revision", ".status.stackRevision", kind="integer", wide=True),
            _column("Message", ".status.message"),
            _AGE,
        ),
    ),
    _Kind(
        StackBackup,
        StackBackupSpec,
        StackBackupStatus,
        "cosbackup",
        (
            _column("Stack", ".spec.stackRef.name"),
            _column("Phase", ".status.phase"),
            _column("Repository", ".status.repository"),
            _column("Skew", ".status.skewSeconds", kind="integer", wide=True),
            _column("Message", ".status.message"),
            _AGE,
        ),
    ),
    _Kind(
        StackRestore,
        StackRestoreSpec,
        StackRestoreStatus,
        "cosrestore",
        (
            _column("Stack", ".spec.stackRef.name"),
            _column("Backup", ".spec.backup"),
            _column("Phase", ".status.phase"),
            _column("Message", ".status.message"),
            _AGE,
        ),
    ),
)


def definitions() -> list[Manifest]:
    """The CustomResourceDefinitions of all kinds of ours."""
    return [_definition(kind) for kind in _KINDS]


def _definition(kind: _Kind) -> Manifest:
    name = kind.model.__name__
    singular = name.lower()
    schema: Schema = {
        "type": "object",
        "description": " ".join((kind.model.__doc__ or "").split()),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": model_schema(kind.spec),
            "status": model_schema(kind.status, defaults=False),
        },
        "x-kubernetes-validations": [rule.schema() for rule in kind.model.rules],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{singular}s.{GROUP}",
            # Uninstalling the operator deletes no stack.
            "annotations": {
                "helm.sh/resource-policy": "keep",
                "argocd.argoproj.io/sync-options": "Prune=false,ServerSideApply=true",
            },
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": f"{singular}s",
                "singular": singular,
                "shortNames": [kind.short_name],
                "categories": ["cos-stack"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(kind.columns),
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def model_schema(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """The structural schema of a model: references inlined, nulls dropped, rules as CEL.

    With `defaults=False` no default is written: a status is made by the operator, not by the API server.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    definitions = raw.pop("$defs", {})
    return _Converter(definitions, _models(model), defaults=defaults).convert(raw)


def _models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """All models below `model` by the name that the JSON schema gives them (their title)."""
    found: dict[str, type[BaseModel]] = {}
    pending: list[Any] = [model]
    while pending:
        item = pending.pop()
        if isinstance(item, type) and issubclass(item, BaseModel):
            if item.__name__ not in found:
                found[item.__name__] = item
                pending += [info.annotation for info in item.model_fields.values()]
        else:
            pending += getattr(item, "__args__", ())
    return found


class _Converter:
    def __init__(
        self, definitions: dict[str, Schema], models: dict[str, type[BaseModel]], *, defaults: bool
    ) -> None:
        self._definitions = definitions
        self._models = models
        self._defaults = defaults

    def convert(self, raw: Schema) -> Schema:
        """One node of the schema, with everything below it."""
        raw = self._without_indirection(raw)
        model = self._models.get(raw.get("title", "")) if "properties" in raw else None
        if model and not issubclass(model, ApiModel):
            # Kubernetes' own shapes, documented there: their words would be nine tenths of the file.
            own_words = raw.get("description") != self._definitions[model.__name__].get("description")
            quiet = _without_descriptions(self._convert(raw, None))
            return quiet | {"description": raw["description"]} if own_words else quiet
        return self._convert(raw, model)

    def _convert(self, raw: Schema, model: type[BaseModel] | None) -> Schema:
        out: Schema = {}
        for key, value in raw.items():
            out |= self._keyword(key, value)
        if out.get("x-kubernetes-int-or-string"):
            out.pop("type", None)
        if "description" in out:
            out["description"] = " ".join(out["description"].split())
        if model and issubclass(model, ApiModel) and model.rules:
            out["x-kubernetes-validations"] = [rule.schema() for rule in model.rules]
        return out

    def _keyword(self, key: str, value: Any) -> Schema:
        if key == "properties":
            return {key: {name: self.convert(child) for name, child in value.items()}}
        if key == "items" or (key == "additionalProperties" and isinstance(value, dict)):
            return {key: self.convert(value)}
        if key == "const":
            return {"enum": [value]}
        if key == "x-list-map-keys":
            return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": value}
        if key == "default":
            return {key: _without_nulls(value)} if self._defaults and value is not None else {}
        return {} if key in _DROPPED else {key: value}

    def _without_indirection(self, raw: Schema) -> Schema:
        """Follow `$ref`, and take the one branch of `X | None`."""
        if "$ref" in raw:
            target = self._definitions[raw["$ref"].rpartition("/")[2]]
            own = {key: value for key, value in raw.items() if key != "$ref"}
            return self._without_indirection({**target, **own})
        branches = [branch for branch in raw.get("anyOf", ()) if branch.get("type") != "null"]
        if len(branches) == 1:
            own = {key: value for key, value in raw.items() if key not in {"anyOf", "title"}}
            return self._without_indirection({**branches[0], **own})
        return raw


def _without_descriptions(schema: Schema) -> Schema:
    out = {key: value for key, value in schema.items() if key != "description"}
    if "properties" in out:
        out["properties"] = {name: _without_descriptions(child) for name, child in out["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _without_descriptions(out[key])
    return out


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
