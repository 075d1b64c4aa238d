"""`kubectl cos rollback` as a whole: the question and its answers, and how it is interrupted."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import Server
from stacks import live, lived, past_of, stored
from world import World

from cos_controllers.observation import Ref
from cos_operator.cli import app

STACKS = "/apis/cos.dev/v1alpha1/namespaces/cos/cosstacks"
REVISIONS = "/apis/apps/v1/namespaces/cos/controllerrevisions"
CLAIMS = "/api/v1/namespaces/cos/persistentvolumeclaims"
#: The program on a terminal that is its controlling one, as a shell would start it.
ON_TERMINAL = (
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "from cos_operator.cli.app import main; main()"
)
QUESTION = "Roll CosStack cos back to revision 1? [y/N] "


@pytest.fixture
def world(server: Server) -> World:
    """A stack with two revisions, on the server: the second has grown."""
    small, large = ({"size": size, "storageClassName": "fast"} for size in ("1Gi", "2Gi"))
    world = lived(
        {"redis": {"maxClients": 60, "storage": small}}, {"redis": {"maxClients": 61, "storage": large}}
    )
    show(world, server)
    return world


def show(world: World, server: Server) -> None:
    """What there is, on the server, which writes defaults into a spec."""
    stack = live(world, past_of(world).history.current.spec)
    stack["metadata"]["resourceVersion"] = "1"
    server.serve(stack, STACKS)
    server.serve_list(stored(world), REVISIONS)
    server.serve_list(
        [obj for ref, obj in world.objects.items() if ref.kind == "PersistentVolumeClaim"], CLAIMS
    )


class Terminal:
    """A person's terminal in which the command runs."""

    def __init__(self, *arguments: str) -> None:
        self._screen, there = pty.openpty()
        self.shown = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *arguments],
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(there)

    def wait_for(self, text: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            self._read()

    def _read(self) -> bool:
        """Whether more may come."""
        if not select.select([self._screen], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._screen, 4096)
        except OSError:  # the other side is closed
            return False
        self.shown += data.decode().replace("\r\n", "\n")
        return bool(data)

    def press(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def end(self, seconds: float = 5) -> int:
        """The exit code, which must come at once; `shown` is complete then."""
        code = self._process.wait(seconds)
        while self._read():
            pass
        return code

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._screen)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    there = Terminal(*arguments)
    try:
        yield there
    finally:
        there.close()


@pytest.mark.parametrize(
    ("key", "code", "says"),
    [
        ("\x03", 130, "kubectl cos: interrupted: nothing was changed"),
        ("\x04", 1, "kubectl cos: no answer, so nothing was changed: --yes answers for you"),
    ],
    ids=["ctrl-c", "ctrl-d"],
)
@pytest.mark.usefixtures("world")
def test_one_key_ends_it_at_the_question(
    key: str, code: int, says: str, server: Server, kubeconfig: Callable[..., str]
) -> None:
    with terminal("rollback", "--to", "1", "--kubeconfig", kubeconfig()) as there:
        there.wait_for(QUESTION)
        there.press(key)
        assert there.end() == code
        assert there.shown.partition(QUESTION)[2].splitlines()[1:] == [says]
    assert not server.written


class Person(io.StringIO):
    """What someone types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("person", "code", "says"),
    [
        (Person("y\n"), 0, QUESTION),
        (Person("n\n"), 1, f"{QUESTION}kubectl cos: nothing was changed\n"),
        (Person("\n"), 1, f"{QUESTION}kubectl cos: nothing was changed\n"),
        (
            io.StringIO(),
            1,
            "kubectl cos: standard input is no terminal, so nobody can be asked: repeat the command with --yes\n",
        ),
    ],
    ids=["yes", "no", "return", "nobody"],
)
@pytest.mark.usefixtures("world")
def test_only_a_yes_is_a_yes(
    person: io.StringIO,
    code: int,
    says: str,
    server: Server,
    kubeconfig: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", person)
    assert app.run(["rollback", "--to", "1", "--kubeconfig", kubeconfig()]) == code
    said = capsys.readouterr()
    assert said.err.endswith(says)
    assert [body["spec"]["redis"]["maxClients"] for body in server.written] == [60] * (code == 0)
    assert "+++ revision 1, as far as volumes allow" in said.out
    assert (
        "\nredis: storage.size stays 2Gi and is not 1Gi again: volume cos-redis-data-0 cannot shrink\n"
        in said.out
    )
    assert ("CosStack cos has the spec of revision 1 again" in said.out) is (code == 0)


def roll_back(
    kubeconfig: Callable[..., str], capsys: pytest.CaptureFixture[str], to: int = 1
) -> dict[str, Any]:
    arguments = ["rollback", "--to", str(to), "--yes", "-o", "json", "--kubeconfig", kubeconfig()]
    assert app.run(arguments) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.usefixtures("world")
def test_a_volume_stays_as_large_as_it_is(
    server: Server, kubeconfig: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = roll_back(kubeconfig, capsys)
    assert [body["spec"]["redis"]["storage"]["size"] for body in server.written] == ["2Gi"]
    assert answer["kept"] == [
        {
            "component": "redis",
            "field": "storage.size",
            "asked": "1Gi",
            "kept": "2Gi",
            "message": "redis: storage.size stays 2Gi and is not 1Gi again: volume cos-redis-data-0 cannot shrink",
        }
    ]
    assert not any("size" in line for line in answer["diff"])


def test_nothing_is_written_if_only_the_volume_differs(
    world: World, server: Server, kubeconfig: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    world.spec = {"redis": {**world.spec["redis"], "maxClients": 60}}
    world.generation += 1
    world.converge()
    show(world, server)
    answer = roll_back(kubeconfig, capsys)
    assert (answer["changed"], answer["diff"], len(answer["kept"])) == (False, [], 1)
    assert not server.written
    assert app.run(["rollback", "--to", "1", "--kubeconfig", kubeconfig()]) == 0
    assert "has the spec of revision 1 already, as far as volumes allow" in capsys.readouterr().out


@pytest.mark.usefixtures("world")
def test_without_the_right_to_see_volumes_the_present_spec_decides(
    server: Server, kubeconfig: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers["GET", CLAIMS] = (403, {"message": "no", "reason": "Forbidden"})
    answer = roll_back(kubeconfig, capsys)
    assert [body["spec"]["redis"]["storage"]["size"] for body in server.written] == ["2Gi"]
    assert any("you may not list PersistentVolumeClaims" in text for text in answer["warnings"])
    assert "its volume cannot shrink" in answer["kept"][0]["message"]


def test_a_volume_that_grows_before_the_answer_is_no_surprise(
    world: World,
    server: Server,
    kubeconfig: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(Person):
        def readline(self, *_: Any) -> str:
            claim = world.objects[Ref("PersistentVolumeClaim", "cos-redis-data-0")]
            claim["spec"]["resources"]["requests"]["storage"] = "3Gi"
            return "y\n"

    monkeypatch.setattr("sys.stdin", Slow())
    assert app.run(["rollback", "--to", "1", "--kubeconfig", kubeconfig()]) == 1
    assert "volumes of CosStack cos have grown meanwhile: look again" in capsys.readouterr().err
    assert not server.written


def asked_within(server: Server, method: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not any(verb == method for verb, _ in server.asked):
        assert time.monotonic() < deadline, "nothing was asked"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("hangs", "arguments", "says"),
    [
        ("GET", ["rollback", "--yes"], "interrupted: nothing was changed"),
        (
            "PUT",
            ["rollback", "--yes"],
            "interrupted: it may have been changed already: see kubectl cos history",
        ),
    ],
)
@pytest.mark.usefixtures("world")
def test_a_server_that_does_not_answer_holds_nobody(
    hangs: str, arguments: list[str], says: str, server: Server, kubeconfig: Callable[..., str]
) -> None:
    server.hangs.add(hangs)
    with terminal(*arguments, "--kubeconfig", kubeconfig()) as there:
        asked_within(server, hangs)
        there.press("\x03")
        assert there.end() == 130
        assert there.shown.splitlines()[-1] == f"kubectl cos: {says}"
        assert "Traceback" not in there.shown


def test_a_name_that_is_looked_up_for_long_holds_nobody(
    tmp_path: Path, kubeconfig: Callable[..., str]
) -> None:
    """The system's resolver cannot be interrupted: the command ends without it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, socket, sys, time\n"
        "def getaddrinfo(*_, **__):\n"
        "    sys.stderr.write('asking\\n')\n"
        "    time.sleep(60)\n"
        "socket.getaddrinfo = getaddrinfo\n"
    )
    far = kubeconfig(cluster={"server": "https://far.invalid"})
    slow = subprocess.Popen(
        [sys.executable, "-m", "cos_operator.cli", "status", "--kubeconfig", far],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert slow.stderr
    assert slow.stderr.readline() == "asking\n"
    slow.send_signal(signal.SIGINT)
    try:
        assert slow.wait(5) == 130
        assert slow.stderr.read() == "kubectl cos: interrupted\n"
    finally:
        slow.kill()
        slow.communicate()
