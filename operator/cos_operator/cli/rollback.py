"""`rollback`: an earlier revision's part of the spec is written back, once the person has seen what that changes."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from cos_operator.cli import Manifest, output
from cos_operator.cli.change import read_revisions
from cos_operator.cli.documents import spec_diff
from cos_operator.cli.errors import CliError, Interrupted
from cos_operator.cli.loop import run
from cos_operator.cli.ownership import source_of
from cos_operator.cli.revisions import doubts, previous, restored
from cos_operator.cli.session import Target, connected, find, replace_spec
from cos_operator.kube import Kube


class _Proposal(NamedTuple):
    """What would be written in the place of `stack`, how it differs, and what a person should know of it."""

    stack: Manifest
    changed: Manifest
    revision: int
    diff: list[str]
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
            "warnings": self.warnings,
        }


def rollback(target: Target, to: int | None, *, yes: bool, as_json: bool) -> int:
    """Propose, ask, write. Raises `CliError`, and `KubeError`.

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
    changed = restored(stack, past, revision)
    diff = spec_diff(stack["spec"], changed["spec"], ("present spec", f"revision {revision.number}"))
    warnings = [*doubts(stack, revision), source_of(stack).warning] if diff else []
    return _Proposal(stack, changed, revision.number, diff, warnings)


async def _write(target: Target, proposal: _Proposal) -> None:
    # Another connection: the first would have waited, idle, for the person.
    async with connected(target, Kube) as (kube, _):
        await replace_spec(kube, proposal.stack, proposal.changed)


def _show(proposal: _Proposal) -> None:
    output.show([output.diff_line(text) for text in proposal.diff])
    for warning in proposal.warnings:
        output.note(f"note: {warning}")


def _outcome(proposal: _Proposal) -> output.Line:
    metadata, revision = proposal.stack["metadata"], proposal.revision
    name, namespace = metadata["name"], metadata["namespace"]
    if not proposal.diff:
        return output.line(f"CosStack {name} has the spec of revision {revision} already")
    follow = f"follow it with: kubectl cos status {name} -n {namespace} --watch"
    return output.line(f"CosStack {name} has the spec of revision {revision} again; {follow}")


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
