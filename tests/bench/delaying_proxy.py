"""A TCP proxy that holds each piece of what a client sends for so many milliseconds: `delaying_proxy.py HOST PORT MS`.

It prints its own port. Pieces are held side by side, as on a longer wire: what is sent in several pieces is late once.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time


def main() -> None:
    host, port, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1000
    sys.setswitchinterval(0.0002)
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)  # noqa: T201 - whoever started it reads this
    while True:
        client, _ = server.accept()
        engine = socket.create_connection((host, port))
        for end in (client, engine):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        held: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        for work in ((take, client, held, delay), (give, engine, held), (copy, engine, client)):
            threading.Thread(target=work[0], args=work[1:], daemon=True).start()


def take(client: socket.socket, held: queue.SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    while data := _received(client):
        held.put((time.perf_counter() + delay, data))
    held.put((0.0, b""))


def give(engine: socket.socket, held: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        due, data = held.get()
        if not data:
            # Not closed: somebody still waits for what it sends.
            with contextlib.suppress(OSError):
                engine.shutdown(socket.SHUT_RDWR)
            return
        # A sleep wakes some 60 µs late: the last stretch is waited out.
        if (wait := due - time.perf_counter() - 0.0002) > 0:
            time.sleep(wait)
        while time.perf_counter() < due:
            pass
        try:
            engine.sendall(data)
        except OSError:
            return


def copy(engine: socket.socket, client: socket.socket) -> None:
    while data := _received(engine):
        try:
            client.sendall(data)
        except OSError:
            break
    for end in (client, engine):
        end.close()


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except OSError:
        return b""


if __name__ == "__main__":
    main()
