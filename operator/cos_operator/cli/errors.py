"""What a command ends with instead of its answer: one line that names the fix."""

from __future__ import annotations

from http import HTTPStatus

from cos_operator.kube_errors import (
    CredentialsError,
    Forbidden,
    KubeError,
    Unauthorized,
    Unavailable,
)


class CliError(Exception):
    """The message is for the person at the terminal."""


class Interrupted(CliError):
    """The person has pressed Ctrl-C; the message says what became of the change."""


def one_line(text: str) -> str:
    """Text of several lines as one."""
    return " ".join(text.split())


def explain(error: KubeError, origin: str = "") -> str:
    """What the API answered instead, and what to do about it; `origin` says which cluster and credentials these are."""
    said, here = one_line(error.message), f" ({origin})" if origin else ""
    remedy = one_line(error.remedy)
    match error:
        case CredentialsError():
            text = f"{said}: {remedy or 'correct it, or choose another by --kubeconfig, --context or $KUBECONFIG'}"
        case Unauthorized():
            text = f"the API server does not accept your credentials{here}: log in again, or use another --context"
        case Forbidden():
            text = f"{said}: ask for this right, or use another --context{here}"
        case Unavailable() if error.code == HTTPStatus.TOO_MANY_REQUESTS:
            text = f"the API server is overloaded ({said}): try again"
        case Unavailable():
            text = f"{said}: {remedy or 'check that the API server runs, and --context'}{here}"
        case _:
            text = f"{error.request}: refused by the API server: {said}"
    return text
