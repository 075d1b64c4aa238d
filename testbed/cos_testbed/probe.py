"""Does something answer? Silence, refusal and errors are all no."""

from __future__ import annotations

import http.client
import socket
import ssl
from http import HTTPStatus
from ipaddress import IPv4Address
from pathlib import Path

TIMEOUT_SECONDS = 2.0


def tcp_accepts(host: IPv4Address, port: int) -> bool:
    """Whether a connection can be made."""
    try:
        socket.create_connection((str(host), port), TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def unix_accepts(path: Path) -> bool:
    """Whether somebody listens on a unix socket; a file left behind does not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(TIMEOUT_SECONDS)
        try:
            s.connect(str(path))
        except OSError:
            return False
    return True


def http_ok(host: IPv4Address, port: int, path: str, *, tls: bool = False) -> bool:
    """Whether a GET is answered by 200. The server's certificate is not verified: nothing is entrusted to it."""
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(str(host), port, timeout=TIMEOUT_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(str(host), port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
