"""The command line: `python -m cos_testbed COMMAND`."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cos_testbed import lifecycle, operations
from cos_testbed.api import Api
from cos_testbed.build import ensure_binary
from cos_testbed.errors import PrerequisiteError, TestbedError
from cos_testbed.images import build_images
from cos_testbed.instance import Instance, instance_from
from cos_testbed.packages import PACKAGED, ensure_packaged
from cos_testbed.progress import Progress

app = typer.Typer(
    help="A real Kubernetes on a Linux machine without a container engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_chosen: list[int | None] = [None]


@app.callback()
def _options(
    instance: Annotated[
        int | None, typer.Option(help="Index of the testbed; default $COS_TESTBED_INSTANCE or 0.")
    ] = None,
) -> None:
    _chosen[0] = instance


@app.command()
def up(
    *,
    nodes: Annotated[int | None, typer.Option(help="Number of nodes; default as before, or 1.")] = None,
    control_plane_only: Annotated[
        bool, typer.Option("--control-plane-only", help="Only the API: etcd, API server, controller manager.")
    ] = False,
    kwok_nodes: Annotated[
        int, typer.Option(min=0, help="Beside only a control plane: nodes that play their pods, by kwok.")
    ] = 0,
) -> None:
    """Bring up the testbed; does nothing if it runs, repairs what does not."""
    instance = _instance()
    progress = Progress()
    lifecycle.up(
        instance, progress, nodes=nodes, control_plane_only=control_plane_only, kwok_nodes=kwok_nodes
    )
    progress.info(f"Ready. export KUBECONFIG={instance.kubeconfig}")


@app.command()
def down() -> None:
    """Stop everything; only the state on disk stays, for the next `up`."""
    lifecycle.down(_instance(), Progress())


@app.command()
def clean(
    *,
    cache: Annotated[bool, typer.Option("--cache", help="Also delete built programs and images.")] = False,
) -> None:
    """`down`, and delete the testbed's state: cluster, volumes, registry, logs."""
    lifecycle.clean(_instance(), Progress(), cache=cache)


@app.command()
def status() -> None:
    """Show every daemon and node; exit code 1 unless all of them run."""
    instance = _instance()
    daemons = operations.daemon_statuses(instance)
    table = Table("component", "pid", "up for", "memory", box=None)
    for daemon in daemons:
        if daemon.pid is None:
            table.add_row(daemon.name, "-", "not running", "-")
        else:
            memory = f"{daemon.memory / 2**20:.0f} MiB"
            table.add_row(daemon.name, str(daemon.pid), f"{daemon.uptime:.0f} s", memory)
    Console().print(table)
    api = Api(instance)
    members = instance.recorded_nodes
    ready = [member.name for member in members if api.node_is_ready(member.name)]
    served = "serves" if api.ready() else "does not answer"
    typer.echo(f"API server {instance.api_url} {served}; {len(ready)} of {len(members)} nodes Ready")
    if any(daemon.pid is None for daemon in daemons) or not members or len(ready) < len(members):
        raise typer.Exit(1)


@app.command()
def load(images: Annotated[list[str], typer.Argument(help="Names of folders in images/.")]) -> None:
    """Build images and push them to the testbed's registry."""
    _build_images(images)


@app.command(name="images")
def all_images() -> None:
    """Build every image of images/ and push them to the testbed's registry."""
    _build_images(None)


@app.command()
def logs(
    component: Annotated[str | None, typer.Argument(help="Without it, list the components.")] = None,
    *,
    lines: Annotated[int, typer.Option("-n", "--lines")] = 100,
    follow: Annotated[bool, typer.Option("-f", "--follow")] = False,
) -> None:
    """Show the log of a daemon of the testbed."""
    instance = _instance()
    if component is None:
        typer.echo("\n".join(operations.components_with_logs(instance)))
    else:
        raise typer.Exit(operations.show_log(instance, component, lines=lines, follow=follow))


@app.command()
def kill(
    pod: str,
    signal_name: Annotated[str, typer.Argument(metavar="SIGNAL", help="Such as KILL, STOP, CONT, TERM.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace")] = "default",
    container: Annotated[str | None, typer.Option("-c", "--container")] = None,
    process: Annotated[
        str | None,
        typer.Option(
            "-p", "--process", help="A regular expression for the command line; default: process 1."
        ),
    ] = None,
) -> None:
    """Signal a process of a container from the host, where it cannot be ignored.

    Where process 1 is a shell or an init that runs the server, name the server: --process '^postgres -D'.
    """
    number = parse_signal(signal_name)
    pid = operations.kill(_instance(), pod, number, namespace=namespace, container=container, process=process)
    typer.echo(f"sent {number.name} to process {pid}")


@app.command()
def kubeconfig() -> None:
    """Print the path of the administrator's kubeconfig."""
    instance = _instance()
    if not instance.kubeconfig.exists():
        raise TestbedError("there is no testbed yet: run 'up' first")
    typer.echo(instance.kubeconfig)


@app.command()
def path(program: Annotated[str, typer.Argument(help="Such as kubectl, helm, etcd.")]) -> None:
    """Print the path of a pinned program, or one that Debian packages; builds or fetches it if needed."""
    typer.echo(ensure_packaged(program, Progress()) if program in PACKAGED else ensure_binary(program))


@app.command()
def build() -> None:
    """Build every pinned program into the cache."""
    lifecycle.build(Progress())


def parse_signal(name: str) -> signal.Signals:
    """A signal by number or by name, with or without SIG."""
    if name.isdecimal():
        try:
            return signal.Signals(int(name))
        except ValueError:
            raise TestbedError(f"no signal has the number {name}") from None
    known = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    try:
        return signal.Signals[known]
    except KeyError:
        raise TestbedError(f"unknown signal {name!r}: try KILL, STOP, CONT, TERM") from None


def main() -> None:
    """Run the command line; failures are told in words, on stderr, with an exit code."""
    try:
        app()
    except TestbedError as error:
        sys.stderr.write(f"cos_testbed: {error}\n")
        sys.exit(error.exit_code)
    except PermissionError as error:
        sys.stderr.write(f"cos_testbed: {error.filename} belongs to root: run this as root (sudo)\n")
        sys.exit(PrerequisiteError.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("cos_testbed: interrupted; run the same command again to go on\n")
        sys.exit(130)


def _build_images(names: list[str] | None) -> None:
    for reference in build_images(names, registry=_instance().registry, progress=Progress()):
        typer.echo(reference)


def _instance() -> Instance:
    return instance_from(index=_chosen[0])
