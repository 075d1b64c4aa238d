"""What every API model shares: camelCase on the wire, immutability, and rules stated once.

A `Rule` has two forms of one statement: CEL for the API server, a predicate for the operator, which meets
objects that were stored before the rule existed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator


def to_camel(name: str) -> str:
    """``auth_secret_ref`` → ``authSecretRef``; a digit starts no word (``neo4j`` stays)."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


@dataclass(frozen=True)
class Rule:
    """A validation rule of one model.

    `cel` is evaluated by the API server with `self` bound to the object; `holds` by the operator with the
    parsed model. `message` names the field and the fix. `field_path` is relative, e.g. ``.storage.size``.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field_path: str = ""

    def schema(self) -> dict[str, str]:
        """The rule as an item of ``x-kubernetes-validations``."""
        item = {"rule": self.cel, "message": self.message}
        return item | {"fieldPath": self.field_path} if self.field_path else item


class ApiModel(BaseModel):
    """Base of all API models.

    Unknown fields are ignored here and refused by the API server (`kubectl apply` validates strictly), so that
    a CRD that is newer than the operator does not make stored objects unreadable during an upgrade.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self
