"""Users of the engines, and how their passwords come to be."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Login:
    """A user of an engine. The password never appears in a `repr`, log or message."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Credentials:
    """The users of one instance: the operator's, the applications', the kubelet probes', and that of backups if any."""

    admin: Login
    app: Login
    probe: Login
    backup: Login | None = None


def derive_password(secret: bytes, purpose: str) -> str:
    """A password of 40 hexadecimal digits (160 bits), the same for the same secret and purpose.

    HMAC-SHA-256 (RFC 2104) keeps the passwords of different purposes independent of each other.
    """
    return hmac.new(secret, purpose.encode(), hashlib.sha256).hexdigest()[:40]
