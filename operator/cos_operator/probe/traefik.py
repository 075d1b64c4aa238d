"""Traefik: GET through a route, over connections that stay open. Nothing is followed, nothing is sent."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPConnection

from cos_controllers.probes.order import Check
from cos_operator.probe.base import REQUEST_SECONDS, Amounts, Target
from cos_operator.probe.load import Connection

#: Of an answer's body.
_MOST_BYTES = 65536


class TraefikDriver:
    """See `base.Driver`."""

    def prepare(self, target: Target) -> None:
        """A proxy keeps nothing."""

    def amounts(self, target: Target) -> Amounts:  # noqa: ARG002 - its figures are on a port that is the pod's alone
        """Nothing is known through the Service."""
        return Amounts()

    def connector(self, target: Target, check: Check) -> Callable[[], Connection]:
        """GET of the route's host and path."""
        return lambda: _Get(target, check)


class _Get:
    def __init__(self, target: Target, check: Check) -> None:
        self._connection = HTTPConnection(target.host, target.port, timeout=REQUEST_SECONDS)
        self._connection.connect()
        self._path = check.path
        self._headers = {"User-Agent": "cos-probe"} | ({"Host": check.host} if check.host else {})

    def request(self, number: int) -> None:
        del number
        self._connection.request("GET", self._path, headers=self._headers)
        response = self._connection.getresponse()
        response.read(_MOST_BYTES)
        if not response.isclosed():
            # More than anybody wants to know; the next request opens another connection.
            self._connection.close()
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ConnectionError(f"answered {response.status} {response.reason}")

    def close(self) -> None:
        self._connection.close()
