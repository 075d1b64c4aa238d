"""The command line of the operator's image: `cos-operator run`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")

app = typer.Typer(
    help="Kubernetes operator for the COS stack.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables could show a Secret.
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    kubeconfig: Annotated[
        str | None, typer.Option(help="Path of a kubeconfig; default: the pod's service account.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
) -> None:
    """Run the operator until it is told to stop. Everything else is set by COS_… variables."""
    # Process 1 ignores a signal that it has no handler for, and the imports below take seconds on a busy node.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from cos_operator import logs, tracing  # noqa: PLC0415 - after the handler
    from cos_operator.kube import CredentialsError  # noqa: PLC0415 - likewise
    from cos_operator.operator import run as run_operator  # noqa: PLC0415 - likewise
    from cos_operator.settings import OperatorSettings, SettingsError  # noqa: PLC0415 - likewise

    given = {"kubeconfig": kubeconfig, "context": context}
    try:
        settings = OperatorSettings.load(**{name: value for name, value in given.items() if value})
        logs.configure(settings.log_level, settings.log_format)
        end_traces = tracing.configure(settings.identity)
        try:
            asyncio.run(run_operator(settings))
        finally:
            # The Lease is handed back by now: nobody waits for this.
            end_traces()
    except (SettingsError, CredentialsError) as error:
        typer.echo(f"cos-operator: {error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def probe() -> None:
    """Make the load that COS_PROBE_ORDER asks for, and report what was measured. Run by the Job of a StackProbe."""
    from cos_controllers.probes.order import ORDER, Order  # noqa: PLC0415 - only here: it takes seconds
    from cos_operator.probe.runner import run as run_probe  # noqa: PLC0415 - likewise

    run_probe(_given(Order, ORDER))


@app.command()
def backup() -> None:
    """Carry out the copy that COS_BACKUP_ORDER asks for, and report it. Run by the Job of a StackBackup."""
    from cos_controllers.backups.order import VARIABLES, Order  # noqa: PLC0415 - only here: it takes a second
    from cos_operator.backup.runner import run as run_backup  # noqa: PLC0415 - likewise

    raise typer.Exit(run_backup(_given(Order, VARIABLES[Order])))


@app.command()
def restore() -> None:
    """Fetch the copy that COS_RESTORE_ORDER names. Run by the Job of a StackRestore."""
    from cos_controllers.backups.order import VARIABLES, Fetch  # noqa: PLC0415 - only here: it takes a second
    from cos_operator.backup.runner import fetch  # noqa: PLC0415 - likewise

    raise typer.Exit(fetch(_given(Fetch, VARIABLES[Fetch])))


@app.command()
def find() -> None:
    """List the copies that COS_FIND_ORDER asks for. Run by the Job of a StackRestore."""
    from cos_controllers.backups.order import VARIABLES, Find  # noqa: PLC0415 - only here: it takes a second
    from cos_operator.backup.runner import find as find_copies  # noqa: PLC0415 - likewise

    raise typer.Exit(find_copies(_given(Find, VARIABLES[Find])))


@app.command()
def tidy() -> None:
    """Remove copies and check the repository, as COS_TIDY_ORDER asks. Run by the Job of a StackBackup."""
    from cos_controllers.backups.order import VARIABLES, Tidy  # noqa: PLC0415 - only here: it takes a second
    from cos_operator.backup.runner import tidy as tidy_up  # noqa: PLC0415 - likewise

    raise typer.Exit(tidy_up(_given(Tidy, VARIABLES[Tidy])))


def _given(model: type[M], variable: str) -> M:
    """What a Job is told to do by an environment variable. Exits with 2 if that is not it."""
    try:
        return model.model_validate_json(os.environ.get(variable, ""))
    except ValueError as error:
        typer.echo(f"cos-operator: {variable} is not an order: {error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed("cos-operator"))
