"""The command line itself: exit codes, one line for every error, output for terminals and for pipes."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cos_operator.cli import app, output
from cos_operator.cli.errors import explain
from cos_operator.cli.output import BAD, GOOD, Span, diff_line, line, plain, show, table
from cos_operator.kube_errors import Request, error_from

ROOT = Path(__file__).parents[3]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, *lines: output.Line, **environment: str) -> str:
    """What a terminal of 80 columns that knows colours is sent."""
    screen = Terminal()
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **environment}.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", screen)
        show(lines)
    return screen.getvalue()


def test_kubectl_finds_the_plugin_by_its_name() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["kubectl-cos"].partition(":")
    assert getattr(import_module(module), function) is app.main


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert app.run([*arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "\x1b" not in said.out
    return said.out.splitlines()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", ["", *app.COMMANDS])
def test_help_fits_the_terminal_and_cuts_no_sentence(
    command: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = helped(capsys, *filter(None, [command]), "--help")
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "..." in line.removesuffix("COMMAND [ARGS]...")]
    # Values have names, not types.
    assert not [line for line in lines if line.lstrip().startswith("-") and "<" in line]
    if width == 120 and command != "version":
        assert any(line.endswith("default: $KUBECONFIG or ~/.kube/config.") for line in lines)


def test_no_words_at_all_are_a_question_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert helped(capsys) == helped(capsys, "--help")


def test_the_help_of_diff_says_what_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert helped(capsys, "diff", "--help")[0] == "Usage: kubectl cos diff [OPTIONS] [NAME] [FROM] [TO]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status", "--bogus"], "No such option: --bogus (see: kubectl cos status --help)"),
        (["stauts"], "No such command"),
        (["plan"], "Missing option"),
        (["rollback", "--to", "x"], "Invalid value for '--to'"),
        (["status", "-o", "xml"], "Invalid value for '--output'"),
        (["status", "--kubeconfig", "/nowhere"], "kubeconfig /nowhere does not exist"),
        (["rollback", "-o", "json"], "add --yes"),
        (["plan", "-f", "/nowhere"], "cannot read /nowhere"),
        (["diff", "a", "b"], "FROM and TO being numbers"),
    ],
)
def test_every_error_is_one_line_and_exit_code_1(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert said.err.startswith("kubectl cos: ")
    assert said.err.count("\n") == 1


def test_a_defect_is_one_line_too_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: str) -> str:
        local = "of the defect"
        raise KeyError(len(local))

    monkeypatch.setattr(app, "installed", broken)
    monkeypatch.delenv("COS_TRACEBACK", raising=False)
    assert app.run(["version"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "unexpected KeyError" in said
    assert "of the defect" not in said
    monkeypatch.setenv("COS_TRACEBACK", "1")
    with pytest.raises(KeyError):
        app.run(["version"])


def test_interrupted_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "installed", interrupt)
    assert app.run(["version"]) == app.INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_help_needs_nothing_but_the_command_line() -> None:
    """What takes long to import is imported by the commands that need it."""
    heavy = {"aiohttp", "kubernetes", "pydantic", "rich", "yaml", "cos_controllers.k8s"}
    code = f"import sys; import cos_operator.cli.app as a; a.run(['--help']); print({heavy!r} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_status_loads_neither_models_nor_clients_that_it_does_not_use() -> None:
    code = (
        "import sys; from cos_operator.cli.lean import skip_unused; skip_unused(); "
        "import cos_operator.cli.conduct; "
        "print([name for name in sys.modules if name.startswith('kubernetes.aio.client.models.')], "
        "{'kubernetes.client', 'kubernetes.aio.watch', 'cos_controllers.plan'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[] set()"


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        (401, {"message": "Unauthorized"}, "log in again"),
        (
            403,
            {"message": 'pods is forbidden: User "u" cannot list resource "pods"'},
            'User "u" cannot list resource "pods": ask for this right',
        ),
        (429, {"message": "too many"}, "try again"),
        (503, {"message": "starting"}, "check that the API server runs"),
        (422, {"message": "CosStack is\n  invalid: x"}, "refused by the API server: CosStack is invalid: x"),
    ],
)
def test_what_the_api_answers_names_the_fix(code: int, status: dict[str, Any], says: str) -> None:
    assert says in explain(error_from(Request("get", "CosStack", "ns", "cos"), code, status))


TREE = line(Span("cos", GOOD), below=[line("a", below=[line(Span("b", BAD))]), line("c")])


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    show([TREE])
    assert capsys.readouterr().out == "cos\n  a\n    b\n  c\n"
    assert list(plain(TREE)) == ["cos", "  a", "    b", "  c"]


def test_a_terminal_gets_a_tree_in_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = on_terminal(monkeypatch, TREE)
    assert "├── " in sent
    assert "\x1b[32mcos" in sent


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = on_terminal(monkeypatch, TREE, NO_COLOR="1")
    assert "├── " in sent
    assert "\x1b[3" not in sent


def test_a_dumb_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_terminal(monkeypatch, TREE, TERM="dumb") == "cos\n  a\n    b\n  c\n"


def test_what_looks_like_markup_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[red]x[/red] :smile: /a/path 42"
    assert on_terminal(monkeypatch, line(text), NO_COLOR="1") == f"{text}\n"


def test_a_table_is_not_wrapped_and_a_tree_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = on_terminal(monkeypatch, *table(("A", "B"), [("x" * 60, "y" * 60)]))
    assert len(sent.splitlines()) == 2
    sent = on_terminal(monkeypatch, line("a", below=[line("word " * 30)]), NO_COLOR="1")
    assert len(sent.splitlines()) == 3
    assert max(len(re.sub(r"\x1b\[\d*m", "", text)) for text in sent.splitlines()) <= 80


def test_columns_are_aligned_without_trailing_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    show(table(("NAME", "B"), [("a", "bb"), (Span("ccccc", GOOD), "")]))
    assert capsys.readouterr().out == "NAME    B\na       bb\nccccc\n"


def test_a_diff_has_the_usual_colours() -> None:
    styles = {
        text: diff_line(text).spans[0].style for text in ("+a", "-b", " c", "@@ -1 +1 @@", "--- x", "+++ y")
    }
    assert styles == {
        "+a": output.GOOD,
        "-b": output.BAD,
        " c": "",
        "@@ -1 +1 @@": "cyan",
        "--- x": output.STRONG,
        "+++ y": output.STRONG,
    }
