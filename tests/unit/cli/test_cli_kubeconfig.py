"""Mistakes with a kubeconfig: each is one line that names what is wrong and the way out. And several files in one."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import Certificate, Server

from cos_operator import kube_login
from cos_operator.cli import app
from cos_operator.kube_errors import CredentialsError
from cos_operator.kubeconfig import choose

STACKS = "/apis/cos.dev/v1alpha1/namespaces/cos/cosstacks"
STACK = {"metadata": {"name": "cos", "namespace": "cos"}, "spec": {}}
NEEDLE = "hunter2hunter2"


def plugin(*command: str, **more: Any) -> dict[str, Any]:
    """A user who logs in by a program."""
    spec = {"apiVersion": "client.authentication.k8s.io/v1", "command": command[0], "args": list(command[1:])}
    return {"exec": spec | more}


def answering(**status: Any) -> dict[str, Any]:
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    return plugin("sh", "-c", 'printf %s "$1"', "-", json.dumps(credential))


def refused_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


#: Fields of the cluster and of the user, and what is said.
OF_FIELDS: dict[str, tuple[dict[str, Any], Any, list[str]]] = {
    "no program": (
        {},
        plugin("no-such-program"),
        ["login program no-such-program of context work of kubeconfig FILE", "No such file", "install it"],
    ),
    "no program, and a hint": (
        {},
        plugin("no-such-program", installHint="brew install\n it-now"),
        ["No such file or directory: brew install it-now"],
    ),
    "no program beside the file": (
        {},
        plugin("./bin/login"),
        ["login program FOLDER/bin/login", "No such file"],
    ),
    "a program that fails": (
        {},
        plugin("sh", "-c", "echo token has expired >&2; exit 3"),
        ["login program sh", "failed with exit code 3: token has expired: log in again"],
    ),
    "a program that babbles": (
        {},
        plugin("echo", "hello"),
        ["did not answer with an ExecCredential: log in again"],
    ),
    "a program that knows nothing": ({}, answering(), ["answered with no credentials: log in again"]),
    "a malformed program": ({}, plugin("sh", env=[{"x": "y"}]), ["its args or env are malformed"]),
    "no authority": (
        {"certificate-authority": "ca.pem"},
        None,
        [
            "certificate-authority FOLDER/ca.pem (cluster far of context work of kubeconfig FILE) does not exist"
        ],
    ),
    "no certificate": (
        {},
        {"client-certificate": "me.pem", "client-key": "me.key"},
        ["client-certificate FOLDER/me.pem (user me of context work of kubeconfig FILE) does not exist"],
    ),
    "no token": ({}, {"tokenFile": "/no/token"}, ["tokenFile /no/token (user me of"]),
    "an authority that is none": (
        {"certificate-authority-data": "Zm9v"},
        None,
        ["context work of kubeconfig FILE: its certificates", "TLS: no certificate or crl found: correct it"],
    ),
    "an authority that is not even base64": (
        {"certificate-authority-data": "x"},
        None,
        ["context work of kubeconfig FILE: "],
    ),
    "no server": ({"server": ""}, None, ["cluster far of context work of kubeconfig FILE has no address"]),
    "a server without a scheme": (
        {"server": "far:6443"},
        None,
        ["has no address such as https://host:6443 but far:6443"],
    ),
    "nobody listens": (
        {"server": f"https://127.0.0.1:{refused_port()}"},
        None,
        [
            "https://127.0.0.1:",
            "Connection refused: check that the API server runs",
            "(context work of kubeconfig FILE)",
        ],
    ),
    "an unknown name": (
        {"server": "https://far.invalid:6443"},
        None,
        [
            "https://far.invalid:6443: the name far.invalid is not known: ",
            "network (context work of kubeconfig FILE)",
        ],
    ),
    "a proxy that is not there": (
        {"proxy-url": f"http://127.0.0.1:{refused_port()}"},
        None,
        ["its proxy 127.0.0.1:", "Connection refused: correct proxy-url of the cluster"],
    ),
    "another authority": (
        {"certificate-authority": None},
        None,
        [
            "SERVER: its certificate is not trusted: self-signed certificate: correct certificate-authority",
            "FILE",
        ],
    ),
    "another name": (
        {"tls-server-name": "elsewhere"},
        None,
        ["SERVER: its certificate is not trusted: ", "'elsewhere'", "tls-server-name of the cluster"],
    ),
    "HTTPS is spoken to as HTTP": (
        {"server": "http://127.0.0.1:PORT"},
        None,
        ["check that the API server runs"],
    ),
}


def one_line(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, *arguments: str) -> str:
    """What a command says that fails: one line, and nothing besides."""
    caplog.set_level(logging.WARNING)
    assert app.run(list(arguments)) == app.FAILED
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "unexpected" not in said.err
    assert NEEDLE not in said.err
    # Without a handler the library's own complaints would be further lines.
    assert caplog.records == []
    return said.err


@pytest.mark.parametrize(("cluster", "user", "says"), OF_FIELDS.values(), ids=OF_FIELDS)
def test_a_wrong_field_is_named(
    cluster: dict[str, Any],
    user: dict[str, Any] | None,
    says: list[str],
    server: Server,
    kubeconfig: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = server.url.rpartition(":")[2]
    cluster = {key: value.replace("PORT", port) if value else value for key, value in cluster.items()}
    path = kubeconfig(cluster=cluster, user=user)
    said = one_line(capsys, caplog, "status", "--kubeconfig", path)
    for words in says:
        known = {"FILE": path, "FOLDER": str(Path(path).parent), "SERVER": server.url}
        for name, value in known.items():
            words = words.replace(name, value)  # noqa: PLW2901 - the names stand for the values
        assert words in said


def test_a_login_program_that_never_answers_is_ended(
    kubeconfig: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(kube_login, "_UNATTENDED_LIMIT", 0.2)
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def remembered(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(await start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remembered)
    path = kubeconfig(user=plugin("sleep", "600"))
    said = one_line(capsys, caplog, "status", "--kubeconfig", path)
    assert [process.returncode for process in started] == [-signal.SIGKILL], "and its end was waited for"
    assert "did not answer within 0.2 s: log in again" in said


#: The content of a file, more arguments, and what is said.
OF_FILES: dict[str, tuple[Any, list[str], str]] = {
    "missing": (None, [], "kubeconfig FILE does not exist: name another by --kubeconfig or $KUBECONFIG"),
    "empty": ("", [], "kubeconfig FILE holds no context: correct it"),
    "a text": (NEEDLE, [], "kubeconfig FILE is none: it holds no clusters"),
    "no YAML": (f"users:\n- [{NEEDLE}", [], "kubeconfig FILE is not YAML: see line 2: correct it"),
    "control characters": (f"{NEEDLE}\x00", [], "kubeconfig FILE is not YAML: correct it"),
    "no text": (b"\xff\xfe\x00", [], "kubeconfig FILE is not YAML: it is not UTF-8 text: correct it"),
    "lists that are none": (
        {"contexts": {"a": NEEDLE}},
        [],
        "kubeconfig FILE is malformed: see its contexts",
    ),
    "entries that are none": ({"users": [NEEDLE]}, [], "kubeconfig FILE is malformed: see its users"),
    "no current context": (
        {"contexts": [{"name": "a", "context": {}}, {"name": "b", "context": None}]},
        [],
        "kubeconfig FILE has no current-context: choose one with --context: a, b",
    ),
    "a current context that is not there": (
        {"contexts": [{"name": "a", "context": {}}], "current-context": "b"},
        [],
        "kubeconfig FILE has no context b: choose one with --context: a",
    ),
    "another context": (
        {"contexts": [{"name": "a", "context": {}}], "current-context": "a"},
        ["--context", "b"],
        "kubeconfig FILE has no context b: choose one with --context: a",
    ),
    "no cluster": (
        {"contexts": [{"name": "a", "context": {"cluster": "c"}}], "current-context": "a"},
        [],
        "context a of kubeconfig FILE names cluster c, which is not there: correct it",
    ),
    "no user": (
        {
            "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://far"}}],
            "current-context": "a",
        },
        [],
        "context a of kubeconfig FILE names user u, which is not there: correct it",
    ),
}


@pytest.mark.parametrize(("content", "arguments", "says"), OF_FILES.values(), ids=OF_FILES)
def test_a_wrong_file_is_named(
    content: Any,
    arguments: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "config"
    if content is not None:
        data = json.dumps(content) if isinstance(content, dict) else content
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    said = one_line(capsys, caplog, "status", "--kubeconfig", str(path), *arguments)
    assert says.replace("FILE", str(path)) in said


def test_what_is_no_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    said = one_line(capsys, caplog, "status", "--kubeconfig", str(tmp_path))
    assert f"kubeconfig {tmp_path} cannot be read: Is a directory" in said


def test_no_kubeconfig_at_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert f"kubeconfig {tmp_path}/.kube/config does not exist: name another" in one_line(
        capsys, caplog, "status"
    )


FORBIDDEN = 'cosstacks.cos.dev is forbidden: User "me" cannot list resource "cosstacks"'


@pytest.mark.parametrize(
    ("code", "body", "says"),
    [
        (
            401,
            {"kind": "Status", "reason": "Unauthorized", "message": "Unauthorized"},
            "the API server does not accept your credentials (context work of kubeconfig FILE): log in again",
        ),
        (
            403,
            {"kind": "Status", "reason": "Forbidden", "message": FORBIDDEN},
            f"{FORBIDDEN}: ask for this right, or use another --context (context work of kubeconfig FILE)",
        ),
        (
            404,
            "404 page not found\n",
            "CosStack: install the operator first, or use another --context (context work of kubeconfig FILE)",
        ),
        (200, "<html>Welcome</html>", "did not answer with a JSON object: is it an API server?"),
        (503, "no backend", "check that the API server runs"),
    ],
)
def test_what_the_server_answers_is_explained(
    code: int,
    body: Any,
    says: str,
    server: Server,
    kubeconfig: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.default = (code, body)
    path = kubeconfig()
    assert says.replace("FILE", path) in one_line(capsys, caplog, "status", "--kubeconfig", path)


@pytest.mark.parametrize(
    "user", [{}, {"token": "t"}, answering(token="t")], ids=["nobody", "token", "program"]
)
def test_what_is_right_works(
    user: dict[str, Any], server: Server, kubeconfig: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.serve(STACK, STACKS)
    assert app.run(["status", "--kubeconfig", kubeconfig(user=user)]) == 1
    said = capsys.readouterr()
    assert "no operator has looked at it yet" in said.out
    assert said.err == ""


def test_a_program_may_answer_with_a_certificate(
    server: Server,
    certificate: Certificate,
    kubeconfig: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.serve(STACK, STACKS)
    pems = (Path(path).read_text() for path in certificate)
    user = answering(**dict(zip(("clientCertificateData", "clientKeyData"), pems, strict=True)))
    assert app.run(["status", "--kubeconfig", kubeconfig(user=user)]) == 1
    assert capsys.readouterr().err == ""


def write(path: Path, **content: Any) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def test_several_files_are_one_as_for_kubectl(tmp_path: Path) -> None:
    """The first file to name something counts; paths are those of the file that they stand in."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ca.pem").touch()
    empty = tmp_path / "empty"
    empty.touch()
    contexts = [{"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "first"}}]
    first = write(tmp_path / "a" / "config", contexts=contexts, users=[{"name": "u", "user": {"token": "1"}}])
    second = (
        write(
            tmp_path / "b" / "config",
            clusters=[{"name": "c", "cluster": {"server": "https://far", "certificate-authority": "ca.pem"}}],
            users=[{"name": "u", "user": {"token": "2"}}],
            contexts=[
                {"name": "a", "context": {"namespace": "second"}},
                {"name": "b", "context": {"cluster": "c"}},
            ],
        )
        + ":"
    )
    third = write(tmp_path / "third", **{"current-context": "b"})
    fourth = write(tmp_path / "fourth", **{"current-context": "a"})
    files = ":".join(["", str(empty), first, second, str(tmp_path / "missing"), third, fourth])
    found = choose(files, "a")
    assert (found.namespace, found.user) == ("first", {"token": "1"})
    assert found.cluster == {"server": "https://far", "certificate-authority": str(tmp_path / "b" / "ca.pem")}
    assert choose(files, None).context == "b"
    with pytest.raises(CredentialsError, match="has no context x"):
        choose(files, "x")


def test_the_variable_may_name_several(
    server: Server,
    kubeconfig: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.serve(STACK, STACKS)
    other = write(tmp_path / "other", contexts=[{"name": "x", "context": {}}])
    monkeypatch.setenv("KUBECONFIG", f"{other}:{kubeconfig()}:{tmp_path}/missing")
    assert app.run(["status"]) == 1
    assert "cos/cos" in capsys.readouterr().out
