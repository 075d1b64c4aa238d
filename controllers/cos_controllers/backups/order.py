"""What a backup's Job is given. The program in it loads this, and no Kubernetes client."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

#: What is copied, on its way.
WORK_DIR = "/work"

#: The credentials by which a tool that reads a running engine logs in, in the files `username` and `password`.
LOGIN_DIR = "/login"

#: What the engine's container leaves: a folder of data, and the file that says what there is to know of it.
DATA_DIR = f"{WORK_DIR}/data"
FACTS_FILE = f"{WORK_DIR}/facts.json"


class Tool(StrEnum):
    """What keeps copies."""

    RESTIC = "restic"
    """A folder that the engine's own tools have written, as a snapshot."""
    PGBACKREST = "pgbackrest"
    """Postgres' data as it lies on the volume, and its log."""


class _Work(BaseModel):
    """`repository`: as restic is told it. `region`: of S3. `limit`: seconds after which it gives up."""

    model_config = ConfigDict(frozen=True)

    tool: Tool = Tool.RESTIC
    repository: str
    region: str = ""
    limit: int


class Fetch(_Work):
    """Bring a copy from a repository to `DATA_DIR`, or to the `folder` in which the engine finds it.

    `sha256`: what its manifest must say, "" if it has none. `lineage`: see `Order`.
    """

    snapshot: str
    sha256: str
    lineage: str = ""
    folder: str = ""


class Order(_Work):
    """Copy `DATA_DIR` into a repository, or the `folder` of data of the engine that serves at `host`.

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
    host: str = ""
    folder: str = ""


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
