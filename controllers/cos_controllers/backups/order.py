"""What a backup's Job is given. The program in it loads this, and no Kubernetes client."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

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


class _Work(BaseModel):
    """`repository`: as restic is told it. `region`: of S3. `limit`: seconds after which it gives up."""

    model_config = ConfigDict(frozen=True)

    repository: str
    region: str = ""
    limit: int


class Fetch(_Work):
    """Bring a copy from a repository to `DATA_DIR`. `sha256`: what its manifest must say."""

    snapshot: str
    sha256: str


class Order(_Work):
    """Copy `DATA_DIR` into a repository.

    `lineage`: UID of the volume that the data is of. `place`: what tells the repository from any other; `path`: the
    part of it that belongs to this component.
    """

    namespace: str
    stack: str
    component: str
    engine: str
    lineage: str
    backup: str
    place: str
    path: str


class Tidy(_Work):
    """Take snapshots out of a repository.

    `maintain`: check it first, and give space back last; `part` of `parts` of what is stored is read, none if 0.
    """

    remove: tuple[str, ...] = ()
    maintain: bool = False
    part: int = 0
    parts: int = 1


class Find(_Work):
    """Say which copies a repository has: the newest, no newer than `before` (in seconds since 1970).

    `backup`: of this one only, unless it is "".
    """

    before: int | None = None
    backup: str = ""


#: The environment variable with an order of each kind.
VARIABLES: Mapping[type[BaseModel], str] = {
    Order: "COS_BACKUP_ORDER",
    Fetch: "COS_RESTORE_ORDER",
    Find: "COS_FIND_ORDER",
    Tidy: "COS_TIDY_ORDER",
}
