"""Where what belongs to a repository is mounted. Programs in Jobs load this, and no Kubernetes client."""

from __future__ import annotations

#: Where a repository is mounted, wherever it is used: the encryption key (file `key`), the keys of the credentials of
#: S3 as files, and a repository that is a volume.
KEY_DIR = "/key"
CREDENTIALS_DIR = "/credentials"
REPOSITORY_DIR = "/repository"

#: Of a Secret: the key that encrypts backups.
BACKUP_KEY = "key"
#: In the Secret of a bucket, as restic, the AWS tools and most other operators name them; and the certificate of an
#: authority of one's own, if there is one.
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
AUTHORITY = "ca.crt"

#: The volume that a restore fills.
TARGET_DIR = "/target"
