"""`plan`: the API server's own dry run of an apply, and the operator's core on what there is."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

import structlog

from cos_controllers.parsing import InvalidStack, parse_stack
from cos_operator.cli import Manifest, output
from cos_operator.cli.documents import Document, merged, read_stack, spec_diff
from cos_operator.cli.errors import CliError, one_line
from cos_operator.cli.ownership import applier_of, last_applied
from cos_operator.cli.preview import Preview, preview, preview_data, preview_lines
from cos_operator.cli.reading import Reader, read_snapshot
from cos_operator.cli.session import Target, connected, replace_spec, unknown_kind
from cos_operator.kube import Conflict, Forbidden, Invalid, NotFound

UNCHANGED, REFUSED, CHANGED = 0, 1, 2


class _Trial(NamedTuple):
    """What the API server would store, or in which words it refuses; and what a person should know of it."""

    stack: Manifest | None
    refused: str = ""
    notes: tuple[str, ...] = ()


async def plan(target: Target, path: str, *, as_json: bool) -> int:
    """Print what applying a manifest would do; 0: nothing, 2: something, 1: it would be refused."""
    # What the operator logs of a pass is no part of the answer.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    document = read_stack(path, target.name)
    async with connected(target, Reader) as (reader, default):
        manifest = _placed(document, target.namespace, default)
        metadata = manifest["metadata"]
        live = await reader.get("CosStack", metadata["namespace"], metadata["name"])
        trial = await _dry_run(reader, live, manifest)
        found = await _preview(reader, live, trial) if trial.stack else Preview()
    lines = spec_diff((live or {}).get("spec"), trial.stack["spec"], _names(live)) if trial.stack else []
    changes = bool(lines) or found.changes
    if as_json:
        data = {"name": metadata["name"], "namespace": metadata["namespace"], "exists": live is not None}
        verdicts = {"changes": changes, "refused": trial.refused or None, "specDiff": lines}
        output.show_json({**data, **verdicts, **preview_data(found)})
    elif trial.stack:
        _show(metadata, live, lines, found)
    if trial.refused:
        if not as_json:
            raise CliError(trial.refused)
        return REFUSED
    return CHANGED if changes else UNCHANGED


def _placed(document: Document, namespace: str | None, default: str) -> Manifest:
    """The manifest in the namespace that is meant."""
    metadata = document.stack["metadata"]
    own = metadata.get("namespace")
    if own and namespace and own != namespace:
        raise CliError(f"the manifest is for namespace {own}, not {namespace}: leave --namespace out")
    return {**document.stack, "metadata": {**metadata, "namespace": own or namespace or default}}


def _names(live: Manifest | None) -> tuple[str, str]:
    return ("present spec" if live else "no stack", "manifest, with defaults")


async def _dry_run(reader: Reader, live: Manifest | None, manifest: Manifest) -> _Trial:
    """Let the API server default and validate what the person's apply would make. Raises `KubeError`."""
    metadata = manifest["metadata"]
    if live and live["metadata"].get("deletionTimestamp"):
        raise CliError(f"CosStack {metadata['name']} is being deleted: wait until it is gone")
    manifest = {key: value for key, value in manifest.items() if key != "status"}
    manager = applier_of(live) if live else "kubectl"
    notes: list[str] = []
    try:
        if live and manager is None:
            applied = last_applied(live)
            if not applied:
                notes.append(
                    "the stack was not made by an apply: what the manifest leaves out stays as it is"
                )
            stored = await replace_spec(reader, live, merged(live, manifest, applied), dry_run=True)
        else:
            reader.manager = manager or reader.manager
            stored = await _server_side(reader, manifest, notes)
    except NotFound as error:
        if f'namespaces "{metadata["namespace"]}"' in error.message:
            text = f"namespace {metadata['namespace']} does not exist: kubectl create namespace {metadata['namespace']}"
            raise CliError(text) from error
        raise CliError(unknown_kind(reader)) from error
    except Invalid as error:
        return _Trial(None, f"refused by the API server: {one_line(error.message)}", tuple(notes))
    except Forbidden as error:
        return _Trial(None, f"you may not apply this: {one_line(error.message)}", tuple(notes))
    return _Trial(stored, notes=tuple(notes))


async def _server_side(reader: Reader, manifest: Manifest, notes: list[str]) -> Manifest:
    """A server-side apply as the manager of the last one; conflicts are told and then overridden."""
    try:
        return await reader.apply(manifest, force=False, dry_run=True)
    except Conflict as error:
        fields = ", ".join(f"{item.field} (of {item.manager})" for item in error.fields)
        notes.append(
            f"an apply as {reader.manager} conflicts at {fields or one_line(error.message)}: it would be refused "
            "without --force-conflicts"
        )
        return await reader.apply(manifest, force=True, dry_run=True)


async def _preview(reader: Reader, live: Manifest | None, trial: _Trial) -> Preview:
    assert trial.stack is not None  # noqa: S101 - the caller has looked
    try:
        stack = parse_stack(trial.stack)
    except InvalidStack as error:
        raise CliError(f"the operator would refuse this: {error}") from error
    notes = list(trial.notes)
    before = None
    if live:
        try:
            before = parse_stack(live)
        except InvalidStack as error:
            notes.append(f"the operator refuses the present spec: {error}")
    snapshot = await read_snapshot(reader, stack)
    if reader.hides_secrets:
        notes.append(
            "you may not read Secrets here: nothing is said of them, and those that the spec names are taken to be "
            "there and usable"
        )
    found = preview(before, stack, snapshot, hides_secrets=reader.hides_secrets)
    return replace(found, notes=(*notes, *found.notes))


def _show(metadata: Manifest, live: Manifest | None, lines: list[str], found: Preview) -> None:
    what = "as it would be" if live else "a new stack"
    head = output.line(
        output.Span(f"{metadata['namespace']}/{metadata['name']}", output.STRONG),
        f"  {what}",
        below=preview_lines(found),
    )
    if live and lines:
        output.show([output.diff_line(text) for text in lines])
        output.show([output.line("")])
    output.show([head])
