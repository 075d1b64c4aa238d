"""Who asked the API server for what, and when, by its own account."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class Call(NamedTuple):
    """A request, read or write. `received` is Unix time in seconds, when it had arrived."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int
    received: float


class AuditTrail:
    """The requests that the API server has answered since this was made, leases left out.

    `apiserver` is the administrator's kubeconfig: the testbed keeps the audit log beside it.
    """

    def __init__(self, apiserver: str) -> None:
        self._path = Path(apiserver).parent / "audit" / "audit.log"
        self._offset = self._path.stat().st_size
        self._inode = self._path.stat().st_ino
        self._calls: list[Call] = []

    def calls(self, wanted: Callable[[Call], object] = bool) -> list[Call]:
        """The requests so far that fit, in the order of their arrival. Watches count when they end."""
        assert self._path.stat().st_ino == self._inode, "the log was rotated: its beginning is not seen"
        with self._path.open("rb") as log:
            log.seek(self._offset)
            text = log.read()
        # The last line may be half written.
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._calls += [call for line in whole.splitlines() if (call := _call(line))]
        self._calls.sort(key=lambda call: call.received)
        return [call for call in self._calls if wanted(call)]

    def writes(self, user: str) -> list[Call]:
        """What a user has written, or tried to."""
        return self.calls(lambda call: call.user == user and call.verb in WRITES)


def _call(line: bytes) -> Call | None:
    event = json.loads(line)
    ref = event.get("objectRef") or {}
    if event["stage"] != "ResponseComplete" or ref.get("resource") in {None, "leases"}:
        return None
    return Call(
        user=event["user"]["username"],
        verb=event["verb"],
        resource="/".join(filter(None, (ref["resource"], ref.get("subresource")))),
        namespace=ref.get("namespace", ""),
        name=ref.get("name", ""),
        code=event["responseStatus"]["code"],
        received=datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(),
    )
