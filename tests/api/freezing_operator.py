"""The operator, frozen by itself in the worst moment: it has checked that it leads, and is about to send a write."""

from __future__ import annotations

import os
import signal

import aiohttp

from cos_operator.main import app

_send = aiohttp.ClientRequest.send


async def _freeze_and_send(
    request: aiohttp.ClientRequest, connection: aiohttp.connector.Connection
) -> aiohttp.ClientResponse:
    if request.method == "PATCH" and "/statefulsets/" in request.url.path:
        os.kill(os.getpid(), signal.SIGSTOP)
    return await _send(request, connection)


if __name__ == "__main__":
    aiohttp.ClientRequest.send = _freeze_and_send
    app()
