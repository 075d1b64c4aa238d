"""One conversation with an API server on behalf of a person."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cos_operator.cli import Manifest
from cos_operator.cli.errors import CliError, explain
from cos_operator.kube import Conflict, Forbidden, Kube, KubeError, NotFound

#: Field manager of what a person changes by this command.
FIELD_MANAGER = "kubectl-cos"
#: Seconds for a login, which may be a program of the person's.
_LOGIN_SECONDS = 60.0
_REQUEST_SECONDS = 10.0
#: How often a change is sent again because the status moved meanwhile.
_ATTEMPTS = 10

K = TypeVar("K", bound=Kube)


@dataclass(frozen=True)
class Target:
    """What the person named: None is what the kubeconfig's context says, "" the only stack there is."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    name: str = ""


@asynccontextmanager
async def connected(target: Target, client: type[K]) -> AsyncIterator[tuple[K, str]]:
    """An open client and the namespace that is meant. What the API answers instead is a `CliError` at the end."""
    source = target.kubeconfig or os.environ.get("KUBECONFIG") or None
    if source is None and (own := Path.home() / ".kube/config").exists():
        source = str(own)
    kube = client.connect(
        source,
        target.context,
        read_timeout=_REQUEST_SECONDS,
        write_timeout=_REQUEST_SECONDS,
        manager=FIELD_MANAGER,
    )
    try:
        await _enter(kube)
        try:
            yield kube, target.namespace or kube.namespace
        finally:
            await kube.__aexit__(None, None, None)
    except KubeError as error:
        raise CliError(explain(error, kube.origin)) from error


async def _enter(kube: Kube) -> None:
    try:
        async with asyncio.timeout(_LOGIN_SECONDS):
            await kube.__aenter__()
    except TimeoutError as error:
        raise CliError(
            f"the login took more than {_LOGIN_SECONDS:g} s: log in first, then try again"
        ) from error


async def find(kube: Kube, namespace: str, name: str) -> Manifest:
    """The stack of this name, or the only one. Raises `CliError` that names those there are, and `KubeError`."""
    if name and (found := await kube.get("CosStack", namespace, name)):
        return found
    try:
        stacks = await kube.list("CosStack", namespace)
    except NotFound as error:
        raise CliError(unknown_kind(kube)) from error
    except Forbidden:
        if not name:
            raise
        stacks = []
    if not name and len(stacks) == 1:
        return stacks[0]
    names = ", ".join(stack["metadata"]["name"] for stack in stacks)
    if name:
        there = f"there is: {names}" if names else "try another --namespace"
        raise CliError(f"no CosStack {name} in namespace {namespace}: {there}")
    if names:
        raise CliError(f"namespace {namespace} has several stacks: name one of {names}")
    raise CliError(f"no CosStack in namespace {namespace}: try another --namespace")


def unknown_kind(kube: Kube) -> str:
    """What a 404 for all stacks means."""
    return f"this cluster does not know CosStack: install the operator first, or use another --context ({kube.origin})"


async def replace_spec(kube: Kube, stack: Manifest, changed: Manifest, *, dry_run: bool = False) -> Manifest:
    """Put `changed` in the place of `stack`, provided that nobody has changed its spec since.

    A status that has moved meanwhile is no conflict. Raises `CliError`, and `KubeError`.
    """
    metadata = stack["metadata"]
    version = metadata["resourceVersion"]
    # Who owns which field is the API server's to say: an earlier answer would take from the operator what it has
    # written to the status since.
    kept = {key: value for key, value in changed["metadata"].items() if key != "managedFields"}
    for _ in range(_ATTEMPTS):
        body = {**changed, "metadata": {**kept, "resourceVersion": version}}
        try:
            return await kube.replace(body, dry_run=dry_run)
        except Conflict:
            live = await kube.get("CosStack", metadata["namespace"], metadata["name"])
            if live is None or _identity(live) != _identity(stack):
                raise CliError(
                    f"CosStack {metadata['name']} was changed meanwhile: look again, then repeat the command"
                ) from None
            version = live["metadata"]["resourceVersion"]
    raise CliError(f"the status of CosStack {metadata['name']} changes all the time: repeat the command")


def _identity(stack: Manifest) -> tuple[Any, ...]:
    """What a person has decided about a stack: all but its status and the version of the object."""
    metadata = stack["metadata"]
    return (
        metadata["uid"],
        metadata["generation"],
        metadata.get("labels"),
        metadata.get("annotations"),
        metadata.get("deletionTimestamp"),
    )
