"""The command line of the kubectl plugin: `kubectl cos COMMAND`. Each command imports what it needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine
from enum import StrEnum
from importlib.metadata import version as installed
from typing import Annotated, Any

import typer

from cos_operator.cli.errors import CliError, Interrupted, one_line
from cos_operator.cli.lean import skip_unused

#: Exit codes besides 0: an error, or a stack that is not Ready; a plan that changes something; an interruption.
FAILED, INTERRUPTED = 1, 130

app = typer.Typer(
    help="Look at CosStacks and change them. Exit code 1 is an error, for every command.",
    add_completion=False,
    # A traceback with local variables could show a Secret.
    pretty_exceptions_enable=False,
    # Plain help: no boxes, and half the time to start.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


class Format(StrEnum):
    """How an answer is printed."""

    HUMAN = "human"
    JSON = "json"


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The stack; may be left out if the namespace has only one.")
]
Timeout = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait at most.")]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", metavar="NAME", help="Namespace; default: that of the kubeconfig's context."
    ),
]
Kubeconfig = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Path of a kubeconfig; default: $KUBECONFIG or ~/.kube/config."),
]
Context = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="Context of the kubeconfig; default: its current one."),
]
Output = Annotated[Format, typer.Option("--output", "-o", metavar="human|json", help="Format of the answer.")]


@app.callback()
def _options(
    context: typer.Context,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context_name: Context = None,
) -> None:
    # As with kubectl, these may stand before the command too.
    given = {"namespace": namespace, "kubeconfig": kubeconfig, "context": context_name}
    defaults = {key: value for key, value in given.items() if value}
    context.default_map = dict.fromkeys(COMMANDS, defaults)


@app.command(short_help="Show what runs, what waits, and for what.")
def status(
    name: Name = "",
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow until it is Ready.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long --watch waits at most.")
    ] = 600,
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show what runs, what waits, and for what. Exit code 0 if the stack is Ready, else 1."""
    from cos_operator.cli import conduct  # noqa: PLC0415 - the API client takes long to import
    from cos_operator.cli.session import Target  # noqa: PLC0415 - likewise

    target = Target(kubeconfig, context, namespace, name)
    _run(conduct.status(target, as_json=output is Format.JSON, watch=timeout if watch else None))


@app.command(short_help="List the revisions of a stack.")
def history(
    name: Name = "",
    *,
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """List the revisions of a stack, which components served with each, and which were taken back."""
    from cos_operator.cli import change  # noqa: PLC0415 - the core takes long to import
    from cos_operator.cli.session import Target  # noqa: PLC0415 - likewise

    target = Target(kubeconfig, context, namespace, name)
    _run(change.history(target, as_json=output is Format.JSON))


@app.command(short_help="Compare the specs of two revisions.")
def diff(
    name: Name = "",
    start: Annotated[
        str, typer.Argument(metavar="FROM", help="Number of a revision; default: the last but one.")
    ] = "",
    end: Annotated[
        str, typer.Argument(metavar="TO", help="Number of a revision; default: the present one.")
    ] = "",
    *,
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Compare the specs of two revisions: by default the last two, with FROM alone that and the present one."""
    from cos_operator.cli import change  # noqa: PLC0415 - the core takes long to import
    from cos_operator.cli.session import Target  # noqa: PLC0415 - likewise

    # The name may be left out: what stands in its place is a number then.
    stack, first, second = change.revisions_in([word for word in (name, start, end) if word])
    target = Target(kubeconfig, context, namespace, stack)
    _run(change.diff(target, first, second, as_json=output is Format.JSON))


@app.command(short_help="Write the spec of an earlier revision back.")
def rollback(
    name: Name = "",
    *,
    to: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Revision to go back to; default: the one before.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it is written.")] = False,
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Write the spec of an earlier revision back, after showing what that changes."""
    from cos_operator.cli.rollback import rollback as roll_back  # noqa: PLC0415 - the core takes long to import
    from cos_operator.cli.session import Target  # noqa: PLC0415 - likewise

    if output is Format.JSON and not yes:
        raise CliError("with --output json nobody is asked: add --yes")
    target = Target(kubeconfig, context, namespace, name)
    raise typer.Exit(roll_back(target, to, yes=yes, as_json=output is Format.JSON))


@app.command(short_help="Show what applying a manifest would do.")
def plan(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The stack, if the manifest has several.")] = "",
    *,
    filename: Annotated[
        str, typer.Option("--filename", "-f", metavar="FILE", help="Manifest; - is standard input.")
    ],
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show what applying a manifest would do, without doing it: objects, restarts, refusals.

    Exit code 0 if nothing would change, 2 if something would, 1 if it would be refused, and for errors.
    """
    from cos_operator.cli import planning  # noqa: PLC0415 - the core takes long to import
    from cos_operator.cli.session import Target  # noqa: PLC0415 - likewise

    target = Target(kubeconfig, context, namespace, name)
    _run(planning.plan(target, filename, as_json=output is Format.JSON))


@app.command(short_help="Measure latency and throughput by a little load.")
def probe(
    name: Name = "",
    *,
    component: Annotated[
        list[str] | None,
        typer.Option("--component", "-c", metavar="NAME", help="Component to try, repeatable; default: all."),
    ] = None,
    route: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Route of Traefik to try, repeatable; default: those to components."
        ),
    ] = None,
    seconds: Annotated[int, typer.Option(metavar="SECONDS", help="Of load for each check, 1 to 60.")] = 5,
    saturating: Annotated[
        bool, typer.Option("--saturating", help="As many requests as are answered; applications notice it.")
    ] = False,
    timeout: Timeout = 900,
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Create a StackProbe, follow it, and show what was measured. Exit code 0 if everything was, else 1."""
    from cos_operator.cli import probe as probing  # noqa: PLC0415 - the API client takes long to import
    from cos_operator.cli.session import Target  # noqa: PLC0415 - likewise

    target = Target(kubeconfig, context, namespace, name)
    wish = probing.Wish(component or (), route or (), seconds, saturating)
    _run(probing.probe(target, wish, timeout=timeout, as_json=output is Format.JSON))


@app.command(short_help="Keep a copy of the data in a repository.")
def backup(
    name: Name = "",
    *,
    component: Annotated[
        list[str] | None,
        typer.Option(
            "--component",
            "-c",
            metavar="NAME",
            help="Component to copy, repeatable; default: all that can be.",
        ),
    ] = None,
    repository: Annotated[
        str, typer.Option(metavar="NAME", help="Repository of spec.backup; default: the first.")
    ] = "",
    allow_downtime: Annotated[
        bool, typer.Option("--allow-downtime", help="Stop what cannot be copied otherwise, such as Neo4j.")
    ] = False,
    timeout: Timeout = 3600,
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Create a StackBackup, follow it, and show what was copied. Exit code 0 if everything was, else 1."""
    from cos_operator.cli import backup as backing_up  # noqa: PLC0415 - the API client takes long to import
    from cos_operator.cli.session import Target  # noqa: PLC0415 - likewise

    target = Target(kubeconfig, context, namespace, name)
    wish = backing_up.Wish(component or (), repository, allow_downtime)
    _run(backing_up.backup(target, wish, timeout=timeout, as_json=output is Format.JSON))


@app.command(short_help="Put the data of a backup on new volumes.")
def restore(
    name: Name = "",
    *,
    backup: Annotated[str, typer.Option(metavar="NAME", help="StackBackup to restore.")] = "",
    latest: Annotated[
        bool,
        typer.Option("--latest", help="Restore the newest copies of a repository, whoever knows of them."),
    ] = False,
    before: Annotated[
        str, typer.Option(metavar="TIME", help="Likewise, of no later moment: 2026-11-27T14:00:00Z.")
    ] = "",
    point_in_time: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Of Postgres, the moment to bring it to by its log: 2026-11-27T14:00:00Z, or Latest.",
        ),
    ] = "",
    repository: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where to look for copies; default: the stack's first repository."),
    ] = "",
    origin: Annotated[
        str,
        typer.Option(
            "--from", metavar="NAMESPACE/STACK", help="Whose copies to look for; default: the stack's own."
        ),
    ] = "",
    component: Annotated[
        list[str] | None,
        typer.Option(
            "--component",
            "-c",
            metavar="NAME",
            help="Component to restore, repeatable; default: all of the backup.",
        ),
    ] = None,
    set_aside: Annotated[
        bool,
        typer.Option("--set-aside", help="Exchange volumes that have data; they are kept."),
    ] = False,
    timeout: Timeout = 3600,
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Create a StackRestore, follow it, and show what is served now. Exit code 0 if everything was restored, else 1."""
    from cos_operator.cli import restore as restoring  # noqa: PLC0415 - the API client takes long to import
    from cos_operator.cli.session import Target  # noqa: PLC0415 - likewise

    target = Target(kubeconfig, context, namespace, name)
    sought = latest or before or repository or origin or (point_in_time and not backup)
    wish = restoring.Wish(
        backup,
        component or (),
        set_aside=set_aside,
        source=restoring.Source(repository, origin, before) if sought else None,
        point_in_time=point_in_time,
    )
    _run(restoring.restore(target, wish, timeout=timeout, as_json=output is Format.JSON))


@app.command(short_help="Prove that the newest copies can be restored.")
def verify(
    name: Name = "",
    *,
    backup: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="StackBackup to verify; default: the newest copies of the repository."
        ),
    ] = "",
    repository: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where to look for copies; default: the stack's first repository."),
    ] = "",
    component: Annotated[
        list[str] | None,
        typer.Option(
            "--component", "-c", metavar="NAME", help="Component to verify, repeatable; default: all."
        ),
    ] = None,
    timeout: Timeout = 3600,
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Restore onto volumes that are thrown away, and show what was found and how long it took.

    Exit code 0 if everything was proved, else 1.
    """
    from cos_operator.cli import restore as restoring  # noqa: PLC0415 - the API client takes long to import
    from cos_operator.cli.session import Target  # noqa: PLC0415 - likewise

    target = Target(kubeconfig, context, namespace, name)
    source = restoring.Source(repository) if repository or not backup else None
    wish = restoring.Wish(backup, component or (), source=source, throwaway=True)
    _run(restoring.restore(target, wish, timeout=timeout, as_json=output is Format.JSON))


@app.command(short_help="Keep the operator from changing anything.")
def pause(
    name: Name = "",
    *,
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Set spec.paused: the operator changes nothing until `resume`; engines run on, status stays live."""
    _set_paused(Format.JSON is output, name, namespace, kubeconfig, context, paused=True)


@app.command(short_help="Let the operator change things again.")
def resume(
    name: Name = "",
    *,
    output: Output = Format.HUMAN,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Take spec.paused back: what has waited meanwhile happens."""
    _set_paused(Format.JSON is output, name, namespace, kubeconfig, context, paused=False)


@app.command(short_help="Print the version of this plugin.")
def version() -> None:
    """Print the version of this plugin, which should be that of the operator."""
    typer.echo(installed("cos-operator"))


COMMANDS = tuple(command.callback.__name__ for command in app.registered_commands if command.callback)


def main() -> None:
    """Run the command line. Whatever goes wrong is told in one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows another one.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    skip_unused()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of a command line; without words it is the help."""
    try:
        code = int(app(arguments or ["--help"], prog_name="kubectl cos", standalone_mode=False) or 0)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Interrupted as error:
        return _interrupted(f"interrupted: {error}")
    except BrokenPipeError:
        # The reader has seen enough. Python must not complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if os.environ.get("COS_TRACEBACK"):
            raise
        return _failed(_words(error))
    # Typer makes this code of a Ctrl-C.
    return _interrupted("interrupted") if code == INTERRUPTED else code


def _words(error: Exception) -> str:
    """What went wrong, and the fix."""
    match error:
        case CliError():
            return str(error)
        case typer.TyperException():
            # An unknown option, say. Its own exit code is 2, which is that of a plan that changes something.
            context = getattr(error, "ctx", None)
            return (
                f"{error.format_message()} (see: {context.command_path if context else 'kubectl cos'} --help)"
            )
    return f"unexpected {type(error).__name__}: {error}: please report it, with what COS_TRACEBACK=1 adds"


def _failed(text: str) -> int:
    sys.stderr.write(f"kubectl cos: {one_line(text)}\n")
    return FAILED


def _interrupted(text: str) -> int:
    if sys.stderr.isatty():
        # It shows a ^C where the cursor was.
        sys.stderr.write("\n")
    _failed(text)
    return INTERRUPTED


def _set_paused(
    as_json: bool,  # noqa: FBT001 - private
    name: str,
    namespace: str | None,
    kubeconfig: str | None,
    context: str | None,
    *,
    paused: bool,
) -> None:
    from cos_operator.cli import conduct  # noqa: PLC0415 - the API client takes long to import
    from cos_operator.cli.session import Target  # noqa: PLC0415 - likewise

    target = Target(kubeconfig, context, namespace, name)
    _run(conduct.set_paused(target, paused=paused, as_json=as_json))


def _run(command: Coroutine[Any, Any, int]) -> None:
    from cos_operator.cli.loop import run as run_loop  # noqa: PLC0415 - the help needs none

    raise typer.Exit(run_loop(command))
