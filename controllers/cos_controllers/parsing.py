"""From a stored object to a stack, also when the object breaks a rule that is newer than it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from cos_controllers.api.backup import StackBackup
from cos_controllers.api.metadata import Metadata
from cos_controllers.api.probe import StackProbe
from cos_controllers.api.restore import StackRestore
from cos_controllers.api.stack import CosStack, CosStackSpec
from cos_controllers.api.status import CosStackStatus
from cos_controllers.k8s import Manifest
from cos_controllers.names import API_VERSION

M = TypeVar("M", bound=BaseModel)


class InvalidStack(ValueError):
    """The spec cannot be used; the message names each field. `stack` has the metadata and the stored status."""

    def __init__(self, message: str, stack: CosStack) -> None:
        super().__init__(message)
        self.stack = stack


def parse_stack(raw: Manifest) -> CosStack:
    """The stack of a live object. Raises `InvalidStack`."""
    status = _stored_status(raw)
    try:
        return CosStack.model_validate({**raw, "status": status})
    except ValidationError as error:
        # Not validated: only metadata and status of it are read.
        bare = CosStack.model_construct(
            api_version=API_VERSION,
            kind="CosStack",
            metadata=Metadata.model_validate(raw["metadata"]),
            spec=CosStackSpec.model_construct(),
            status=status,
        )
        raise InvalidStack(in_words(error), bare) from error


def parse_probes(stack: str, items: Iterable[Manifest]) -> list[StackProbe]:
    """The probes of a stack among live objects; see `_of_stack`."""
    return _of_stack(StackProbe, stack, items)


def parse_backups(stack: str, items: Iterable[Manifest]) -> list[StackBackup]:
    """The backups of a stack among live objects; see `_of_stack`."""
    return _of_stack(StackBackup, stack, items)


def parse_restores(stack: str, items: Iterable[Manifest]) -> list[StackRestore]:
    """The restores of a stack among live objects; see `_of_stack`."""
    return _of_stack(StackRestore, stack, items)


def _of_stack(model: type[M], stack: str, items: Iterable[Manifest]) -> list[M]:
    """Those that refer to a stack. One that breaks a rule that is newer than it is left out."""
    found = []
    for item in items:
        if item["spec"]["stackRef"]["name"] == stack:
            with contextlib.suppress(ValidationError):
                found.append(model.model_validate(item))
    return found


def in_words(error: ValidationError) -> str:
    """What is wrong, each with the field that it is about."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'metadata'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors(include_url=False, include_input=False)
    )


def _stored_status(raw: Manifest) -> CosStackStatus:
    """The status as we last wrote it; empty if another version wrote what this one cannot read."""
    try:
        return CosStackStatus.model_validate(raw.get("status") or {})
    except ValidationError:
        return CosStackStatus()
