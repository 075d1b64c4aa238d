"""What a backup's Job is given. The program in it loads this, and no Kubernetes client."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

#: Environment variables with what a Job is to do.
ORDER = "COS_BACKUP_ORDER"
FETCH = "COS_RESTORE_ORDER"

#: Where the Job's volumes are mounted: what is copied on its way, the encryption key (file `key`), the keys of the
#: credentials of S3 as files, and a repository that is a volume.
WORK_DIR = "/work"
KEY_DIR = "/key"
CREDENTIALS_DIR = "/credentials"
REPOSITORY_DIR = "/repository"

#: In the Secret of a bucket, as restic, the AWS tools and most other operators name them; and the certificate of an
#: authority of one's own, if there is one.
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
AUTHORITY = "ca.crt"

#: The volume that a restore fills.
TARGET_DIR = "/target"

#: What the engine's container leaves: a folder of data, and the file that says what there is to know of it.
DATA_DIR = f"{WORK_DIR}/data"
FACTS_FILE = f"{WORK_DIR}/facts.json"


class Fetch(BaseModel):
    """Bring a copy from a repository of restic to `DATA_DIR`. See `Order`; `sha256`: what its manifest must say."""

    model_config = ConfigDict(frozen=True)

    repository: str
    region: str = ""
    snapshot: str
    sha256: str
    limit: int


class Order(BaseModel):
    """Copy `DATA_DIR` into a repository of restic.

    `lineage`: UID of the volume that the data is of. `repository`: as restic is told it; `place`: what tells it from
    any other; `path`: the part of it that belongs to this lineage. `region`: of S3. `limit`: seconds after which it
    gives up.
    """

    model_config = ConfigDict(frozen=True)

    namespace: str
    stack: str
    component: str
    engine: str
    lineage: str
    backup: str
    repository: str
    place: str
    path: str
    region: str = ""
    limit: int
