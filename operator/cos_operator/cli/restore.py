"""Go back to the data of a backup: `restore` creates a StackRestore, follows it, and shows what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cos_operator.cli import Manifest, output
from cos_operator.cli.errors import CliError, one_line
from cos_operator.cli.following import Operation, carry_out
from cos_operator.cli.output import BAD, GOOD, Line, Span, line
from cos_operator.cli.session import Target

_STYLES = {"Succeeded": GOOD, "Failed": BAD}


@dataclass(frozen=True)
class Source:
    """Where copies are looked for: `origin` is ``namespace/stack``, "" for the stack's own; see `RestoreSource`."""

    repository: str = ""
    origin: str = ""
    before: str = ""

    def spec(self, backup: str) -> Manifest:
        """The source of a restore. Raises `CliError`."""
        namespace, slash, stack = self.origin.partition("/")
        if self.origin and not (namespace and slash and stack):
            raise CliError(f"--from {self.origin} is not NAMESPACE/STACK, for example shop/cos")
        found = {"repository": self.repository, "namespace": namespace, "stack": stack, "backup": backup}
        return {name: value for name, value in {**found, "before": self.before}.items() if value}


@dataclass(frozen=True)
class Wish:
    """What is to be restored; see `StackRestore`."""

    backup: str
    components: Sequence[str] = ()
    set_aside: bool = False
    source: Source | None = None
    throwaway: bool = False
    point_in_time: str = ""

    def spec(self, stack: str) -> Manifest:
        """The spec of the restore. Raises `CliError`."""
        if not self.backup and self.source is None:
            raise CliError(
                "say what is to be restored: --backup NAME, or --latest for the newest in a repository"
            )
        what = {"source": self.source.spec(self.backup)} if self.source else {"backup": self.backup}
        return {
            "stackRef": {"name": stack},
            **what,
            "components": list(self.components),
            "existingData": "SetAside" if self.set_aside else "Refuse",
            **({"into": "Throwaway"} if self.throwaway else {}),
            **({"pointInTime": self.point_in_time} if self.point_in_time else {}),
        }


async def restore(target: Target, wish: Wish, *, timeout: float, as_json: bool) -> int:  # noqa: ASYNC109 - told to people
    """Create a restore and wait for its end, for so many seconds; 0 if it has succeeded, else 1."""
    wanted = Operation("StackRestore", wish.spec, lines, "Succeeded")
    return await carry_out(target, wanted, timeout=timeout, as_json=as_json)


def lines(status: Manifest) -> Iterator[Line]:
    """What is served now: a table of components, and how it ended."""
    phase = status.get("phase", "Pending")
    rows = status.get("components") or []
    if rows:
        header = ("COMPONENT", "PHASE", "POINT IN TIME", "ENTRIES", "VOLUME", "KEPT")
        yield from output.table(header, [_row(row) for row in rows])
        yield line()
    yield line(Span(phase, _STYLES.get(phase, "")), f": {one_line(status.get('message') or '')}")


def _row(row: Manifest) -> list[str | Span]:
    phase = row.get("phase", "Pending")
    return [
        row["name"],
        Span(phase, _STYLES.get(phase, "")),
        row.get("pointInTime") or "-",
        str(row.get("entries", "-")),
        row.get("claim") or "-",
        row.get("previousClaim") or "-",
    ]
