"""What a backup's Job finds in its files."""

from __future__ import annotations

from pathlib import Path

from cos_controllers.backups.report import fingerprint
from cos_controllers.mounts import AUTHORITY, BACKUP_KEY, CREDENTIALS_DIR, KEY_DIR, S3_KEYS


class CopyError(Exception):
    """The copy cannot be made; the message is for a person."""


def secret(path: Path) -> str:
    """A value that people paste: a newline at its end is none of it. Raises `CopyError`."""
    try:
        return path.read_bytes().decode().strip()
    except OSError as error:
        raise CopyError(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise CopyError(f"{path.name} is no text: bytes such as openssl rand makes need base64") from None


def key(root: Path) -> str:
    """The key that encrypts the repository. `root`: of the container's paths. Raises `CopyError`."""
    return secret(root / KEY_DIR.lstrip("/") / BACKUP_KEY)


def fingerprint_of(root: Path) -> str:
    """What names that key and does not tell it. Raises `CopyError`."""
    return fingerprint(key(root))


def credentials(root: Path) -> tuple[dict[str, str], str]:
    """What a bucket asks for, by the names of `S3_KEYS`, and the path of its authority ("" without).

    Raises `CopyError`.
    """
    folder = root / CREDENTIALS_DIR.lstrip("/")
    authority = folder / AUTHORITY
    return {name: secret(folder / name) for name in S3_KEYS}, str(authority) if authority.exists() else ""
