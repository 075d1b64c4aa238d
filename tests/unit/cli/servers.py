"""A little HTTPS server that answers as an API server would."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

#: What a request is answered with: the status and a body.
Answer = tuple[int, Any]


class Certificate(NamedTuple):
    """Paths of a certificate that is its own authority, and of its key."""

    certificate: str
    key: str


class Server:
    """Answers by method and path, all else with 404. `asked` is what was asked for, `written` what was sent.

    With `hangs` nothing is answered until the test is over.
    """

    def __init__(self, certificate: Certificate) -> None:
        self.answers: dict[tuple[str, str], Answer] = {}
        self.default: Answer = (404, {"kind": "Status", "reason": "NotFound", "message": "no such path"})
        self.hangs: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.written: list[Any] = []
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                server.answer(self)

            do_GET = do_PUT = answer  # noqa: N815 - as the library looks for them

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that hangs up is what these tests are about."""

        self._http = Quiet(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path
        self.asked.append((request.command, path))
        if length := int(request.headers.get("Content-Length") or 0):
            self.written.append(json.loads(request.rfile.read(length)))
        if request.command in self.hangs:
            self.over.wait(60)
        code, body = self.answers.get((request.command, path), self.default)
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request.send_response(code)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def serve(self, obj: dict[str, Any], collection: str) -> None:
        """An object, by its path below a collection's, which can be written; and alone in the collection."""
        path = f"{collection}/{obj['metadata']['name']}"
        self.answers[("GET", path)] = self.answers[("PUT", path)] = (200, obj)
        self.serve_list([obj], collection)

    def serve_list(self, items: list[dict[str, Any]], collection: str) -> None:
        """A collection."""
        self.answers[("GET", collection)] = (200, {"items": items, "metadata": {}})

    def close(self) -> None:
        self.over.set()
        self._http.shutdown()
        self._http.server_close()
