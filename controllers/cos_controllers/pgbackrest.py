"""What pgBackRest is told, wherever it runs: by variables of its environment. Secrets come from mounted files.

A component's copies and its log lie in one place of a repository; there each data volume has a stanza of its own, named
by its UID: two servers that were restored from one copy would mix their logs (tried: pgBackRest takes both).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from cos_controllers.mounts import S3_KEYS

#: The variables that hold secrets, by the file that each comes from.
KEY_VARIABLE = "PGBACKREST_REPO1_CIPHER_PASS"
S3_VARIABLES = dict(zip(S3_KEYS, ("PGBACKREST_REPO1_S3_KEY", "PGBACKREST_REPO1_S3_KEY_SECRET"), strict=True))
AUTHORITY_VARIABLE = "PGBACKREST_REPO1_STORAGE_CA_FILE"

_HTTPS_PORT = 443
#: For a repository that does not answer: a call gives up after some nine times as long (tried with 2.55.1).
_IO_SECONDS = 10
#: How long a backup waits for the log to arrive, which the server pushes.
_ARCHIVE_SECONDS = 120


def variables(repository: str, region: str, *, lineage: str = "", data: str = "") -> dict[str, str]:
    """Everything but secrets. `repository` and `region`: as restic is told them; `data`: folder of the server's data.

    `lineage`: UID of the data volume, "" to speak of all.
    """
    found = {
        # Debian's file would name another repository.
        "PGBACKREST_CONFIG": "/dev/null",
        "PGBACKREST_REPO1_CIPHER_TYPE": "aes-256-cbc",
        # Small files together, and of large ones only the parts that have changed.
        "PGBACKREST_REPO1_BUNDLE": "y",
        "PGBACKREST_REPO1_BLOCK": "y",
        "PGBACKREST_COMPRESS_TYPE": "zst",
        "PGBACKREST_START_FAST": "y",
        "PGBACKREST_IO_TIMEOUT": str(_IO_SECONDS),
        "PGBACKREST_ARCHIVE_TIMEOUT": str(_ARCHIVE_SECONDS),
        "PGBACKREST_LOG_LEVEL_FILE": "off",
        "PGBACKREST_LOG_LEVEL_CONSOLE": "warn",
        "PGBACKREST_LOCK_PATH": "/tmp/pgbackrest",  # noqa: S108 - a path in the container
        "PGBACKREST_SPOOL_PATH": "/tmp/pgbackrest",  # noqa: S108 - likewise
    }
    found |= {"PGBACKREST_STANZA": lineage} if lineage else {}
    found |= {"PGBACKREST_PG1_PATH": data} if data else {}
    if not repository.startswith("s3:"):
        return found | {"PGBACKREST_REPO1_TYPE": "posix", "PGBACKREST_REPO1_PATH": repository}
    url = urlsplit(repository.removeprefix("s3:"))
    bucket, _, path = url.path.lstrip("/").partition("/")
    return found | {
        "PGBACKREST_REPO1_TYPE": "s3",
        "PGBACKREST_REPO1_PATH": f"/{path}",
        "PGBACKREST_REPO1_S3_BUCKET": bucket,
        "PGBACKREST_REPO1_S3_ENDPOINT": url.hostname or "",
        "PGBACKREST_REPO1_S3_REGION": region,
        "PGBACKREST_REPO1_S3_URI_STYLE": "path",
        "PGBACKREST_REPO1_STORAGE_PORT": str(url.port or _HTTPS_PORT),
    }
