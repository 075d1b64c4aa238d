"""`rollback`: an earlier revision's part of the spec is written back, once the person has seen what that changes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from cos_controllers.names import stack_selector
from cos_controllers.parsing import parse_stack
from cos_operator.cli import Manifest, output
from cos_operator.cli.change import read_revisions
from cos_operator.cli.documents import spec_diff
from cos_operator.cli.errors import CliError, Interrupted
from cos_operator.cli.loop import run
from cos_operator.cli.ownership import source_of
from cos_operator.cli.revisions import doubts, previous, restored
from cos_operator.cli.session import Target, connected, find, replace_spec
from cos_operator.cli.volumes import Kept, assumed_claims, attainable, claims_of
from cos_operator.kube import Forbidden, Kube


class _Claims(NamedTuple):
    """The claims of components, and what a person should know if these are a guess."""

    found: Mapping[str, Manifest]
    doubts: tuple[str, ...] = ()


class _Proposal(NamedTuple):
    """What would be written in the place of `stack`, how it differs, and what a person should know of it."""

    stack: Manifest
    changed: Manifest
    revision: int
    diff: list[str]
    kept: tuple[Kept, ...]
    warnings: list[str]

    def data(self) -> dict[str, Any]:
        """The answer of `-o json`."""
        metadata = self.stack["metadata"]
        return {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "revision": self.revision,
            "changed": bool(self.diff),
            "diff": self.diff,
            "kept": [field._asdict() for field in self.kept],
            "warnings": self.warnings,
        }


def rollback(target: Target, to: int | None, *, yes: bool, as_json: bool) -> int:
    """Propose, ask, write. Raises `CliError`.

    The question is asked outside of any event loop, which would keep the first Ctrl-C for itself.
    """
    try:
        proposal = run(_propose(target, to))
        if not as_json:
            _show(proposal)
        if proposal.diff and not yes:
            _confirm(f"Roll CosStack {proposal.data()['name']} back to revision {proposal.revision}?")
    except KeyboardInterrupt:
        raise Interrupted("nothing was changed") from None
    if proposal.diff:
        try:
            run(_write(target, proposal))
        except KeyboardInterrupt:
            raise Interrupted("it may have been changed already: see kubectl cos history") from None
    if as_json:
        output.show_json(proposal.data())
    else:
        output.show([_outcome(proposal)])
    return 0


async def _propose(target: Target, to: int | None) -> _Proposal:
    async with connected(target, Kube) as (kube, namespace):
        stack = await find(kube, namespace, target.name)
        past = await read_revisions(kube, stack)
        revision = previous(past) if to is None else past.numbered(to)
        earlier = restored(stack, past, revision)["spec"]
        claims = await _claims(kube, stack, earlier)
    # Where nothing goes back, nothing is mended either.
    spec, kept = (
        (earlier, ()) if earlier == stack["spec"] else attainable(earlier, stack["spec"], claims.found)
    )
    there = f"revision {revision.number}{', as far as volumes allow' if kept else ''}"
    diff = spec_diff(stack["spec"], spec, ("present spec", there))
    warnings = [*doubts(stack, revision), *claims.doubts, source_of(stack).warning] if diff else []
    return _Proposal(stack, {**stack, "spec": spec}, revision.number, diff, kept, warnings)


async def _write(target: Target, proposal: _Proposal) -> None:
    stack, changed = proposal.stack, proposal.changed
    # Another connection: the first would have waited, idle, for the person.
    async with connected(target, Kube) as (kube, _):
        claims = await _claims(kube, stack, changed["spec"])
        if attainable(changed["spec"], stack["spec"], claims.found)[1]:
            name = stack["metadata"]["name"]
            raise CliError(
                f"volumes of CosStack {name} have grown meanwhile: look again, then repeat the command"
            )
        await replace_spec(kube, stack, changed)


async def _claims(kube: Kube, stack: Manifest, spec: Manifest) -> _Claims:
    metadata = stack["metadata"]
    try:
        found = await kube.list(
            "PersistentVolumeClaim", metadata["namespace"], stack_selector(metadata["name"])
        )
    except Forbidden:
        text = "you may not list PersistentVolumeClaims: volumes are taken to be as the present spec asks for them"
        return _Claims(assumed_claims(stack["spec"]), (text,))
    return _Claims(claims_of(parse_stack(stack), spec, found))


def _show(proposal: _Proposal) -> None:
    output.show([output.diff_line(text) for text in proposal.diff])
    output.show([output.line(output.Span(field.message, output.WAITS)) for field in proposal.kept])
    for warning in proposal.warnings:
        output.note(f"note: {warning}")


def _outcome(proposal: _Proposal) -> output.Line:
    metadata, revision = proposal.stack["metadata"], proposal.revision
    name, namespace = metadata["name"], metadata["namespace"]
    but = ", as far as volumes allow" if proposal.kept else ""
    if not proposal.diff:
        return output.line(f"CosStack {name} has the spec of revision {revision} already{but}")
    follow = f"follow it with: kubectl cos status {name} -n {namespace} --watch"
    return output.line(f"CosStack {name} has the spec of revision {revision} again{but}; {follow}")


def _confirm(question: str) -> None:
    """Ask the person. Raises `CliError` if the answer is no, or nobody is there to ask."""
    if not sys.stdin.isatty():
        raise CliError("standard input is no terminal, so nobody can be asked: repeat the command with --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        # The cursor stands behind the question.
        output.note("")
        raise CliError("no answer, so nothing was changed: --yes answers for you")
    if answer.strip().lower() not in {"y", "yes"}:
        raise CliError("nothing was changed")
