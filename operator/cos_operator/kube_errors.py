"""What the Kubernetes API can answer instead of what was asked.

    KubeError
    ├── CredentialsError        no usable kubeconfig or service account
    ├── Unauthorized            401: the credentials are not accepted
    ├── Forbidden               403: a right is missing
    │   └── NamespaceTerminating
    ├── NotFound                404 (reads answer None and deletions succeed instead)
    ├── Conflict                409: somebody else owns the fields, or was faster
    │   ├── AlreadyExists
    │   └── PreconditionFailed  the object's UID is another one
    ├── Invalid                 400, 413, 415, 422 and 500 "typed patch": asking again will not help
    └── Unavailable             no answer in time, 408, 429, 5xx: ask again later

A message names what was asked for and quotes the server, never what was sent; about Secrets no values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

#: The API server quotes whole objects in some messages; beyond this a message helps nobody.
_MAX_MESSAGE = 1000
#: Words of the API server (1.36): the status and its reason alone do not tell these cases apart.
_OTHER_UID = ("Precondition failed: UID", "uid mismatch", "the UID in the precondition")
_MALFORMED_APPLY = ("failed to create typed patch", "failed to convert new object")
_TYPED_PATCH_FIELD = re.compile(r"(?:^|[\s:;])(\.[\w.\[\]\"=/-]+):")


class Request(NamedTuple):
    """What was asked for, as it appears in messages."""

    verb: str
    kind: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return " ".join(
            filter(None, (self.verb, self.kind, "/".join(filter(None, (self.namespace, self.name)))))
        )


class KubeError(Exception):
    """Base of all errors of this package's API client.

    `request` is what was asked for; `code` the HTTP status, None where there was no answer; `reason` and
    `message` are the server's. Where in this program it was asked for tells a person nothing more.
    """

    explains_itself = True

    #: What a person can do about it, where the kind of error does not tell.
    remedy = ""

    def __init__(self, request: Request, message: str, *, code: int | None = None, reason: str = "") -> None:
        self.request = request
        self.code = code
        self.reason = reason
        self.message = message
        status = " ".join(str(part) for part in (code, reason) if part)
        super().__init__(f"{request}: {status}: {message}" if status else f"{request}: {message}")


class CredentialsError(KubeError):
    """There is no usable kubeconfig or service account."""


class Unauthorized(KubeError):
    """The API server does not accept the credentials, not even freshly read ones."""


class Forbidden(KubeError):
    """A right is missing; the message names it."""


class NamespaceTerminating(Forbidden):
    """The namespace is being deleted: nothing can be created in it any more."""


class NotFound(KubeError):
    """The object, or its kind, does not exist."""


@dataclass(frozen=True)
class FieldConflict:
    """A field that another field manager owns with another value."""

    manager: str
    field: str


class Conflict(KubeError):
    """Somebody else owns the fields (see `fields`), or changed the object since it was read."""

    fields: tuple[FieldConflict, ...] = ()


class AlreadyExists(Conflict):
    """An object of this name exists."""


class PreconditionFailed(Conflict):
    """The object is not the one that was meant: its UID is another."""


class Invalid(KubeError):
    """The server refuses the object as it is. Permanent: the same request will fail again."""


class Unavailable(KubeError):
    """No answer in time, or the server asks to come back, in `retry_after` seconds if it gave a figure."""

    retry_after: float | None = None


def error_from(
    request: Request, code: int, status: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> KubeError:
    """The error for an HTTP status and the `Status` object in its body ({} if the body is none)."""
    reason = str(status.get("reason") or "")
    text = str(status.get("message") or "no message")
    details = status.get("details") or {}
    causes = [cause for cause in details.get("causes") or [] if isinstance(cause, Mapping)]
    cls = _class_of(code, reason, text, causes)
    shown = _without_values(text, causes) if request.kind == "Secret" and cls is Invalid else text
    if len(shown) > _MAX_MESSAGE:
        shown = shown[:_MAX_MESSAGE] + " …"
    error = cls(request, shown, code=code, reason=reason)
    if isinstance(error, Conflict):
        error.fields = tuple(
            FieldConflict(
                manager=_manager_of(str(cause.get("message") or "")), field=str(cause.get("field") or "")
            )
            for cause in causes
            if cause.get("reason") == "FieldManagerConflict"
        )
    if isinstance(error, Unavailable):
        error.retry_after = _retry_after(headers or {}, details)
    return error


def _class_of(code: int, reason: str, text: str, causes: list[Mapping[str, Any]]) -> type[KubeError]:
    match code:
        case HTTPStatus.FORBIDDEN if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
            return NamespaceTerminating
        case HTTPStatus.CONFLICT if reason == "AlreadyExists":
            return AlreadyExists
        case HTTPStatus.CONFLICT if any(words in text for words in _OTHER_UID):
            return PreconditionFailed
        # A UID in the body that is not the object's is taken for an attempt to change it.
        case HTTPStatus.UNPROCESSABLE_ENTITY if any(cause.get("field") == "metadata.uid" for cause in causes):
            return PreconditionFailed
        # An apply with an unknown field, a duplicate list key or a value of another type.
        case HTTPStatus.INTERNAL_SERVER_ERROR if any(words in text for words in _MALFORMED_APPLY):
            return Invalid
    return _BY_STATUS.get(code) or (Unavailable if code >= HTTPStatus.INTERNAL_SERVER_ERROR else KubeError)


_BY_STATUS: dict[int, type[KubeError]] = {
    HTTPStatus.BAD_REQUEST: Invalid,
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.REQUEST_TIMEOUT: Unavailable,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Invalid,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: Invalid,
    HTTPStatus.UNPROCESSABLE_ENTITY: Invalid,
    HTTPStatus.TOO_MANY_REQUESTS: Unavailable,
}


def _without_values(text: str, causes: list[Mapping[str, Any]]) -> str:
    """Which fields the server refused, without the values that its message quotes."""
    fields = [str(cause.get("field")) for cause in causes if cause.get("field")]
    fields = fields or _TYPED_PATCH_FIELD.findall(text)
    return f"refused at {', '.join(fields)}" if fields else "refused"


def _manager_of(message: str) -> str:
    """The manager in ``conflict with "kubectl-edit" using apps/v1``."""
    quoted = re.search(r'conflicts? with "([^"]*)"', message)
    return quoted.group(1) if quoted else message


def _retry_after(headers: Mapping[str, str], details: Mapping[str, Any]) -> float | None:
    for value in (headers.get("Retry-After"), details.get("retryAfterSeconds")):
        try:
            seconds = float(value) if value is not None else 0.0
        except ValueError:  # the header may be a date
            continue
        if seconds > 0:
            return seconds
    return None
