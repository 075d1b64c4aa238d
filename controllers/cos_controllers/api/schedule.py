"""`spec.backup.schedules` and `spec.backup.maintenance`: what is done by itself and when, and how much is kept."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import Field

from cos_controllers.api.common import ComponentName, Sql
from cos_controllers.api.model import ApiModel, Rule

#: What the names of backups that a schedule makes end in: a moment in UTC, to the minute.
SLOT_FORMAT = "%Y%m%d%H%M"

#: Zones by name. CEL takes offsets too, and the API server's own zone.
_ZONE = "^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"


def _field(values: str) -> str:
    """A field of a cron expression: values, ranges, steps, and lists of them."""
    item = f"([*]|({values})(-({values}))?)(/[1-9][0-9]?)?"
    return f"{item}(,{item})*"


#: Five fields of numbers that may stand there, and names of months and days.
_CRON = (
    "^(?i)"
    + " ".join(
        map(
            _field,
            (
                "[0-5]?[0-9]",
                "[01]?[0-9]|2[0-3]",
                "0?[1-9]|[12][0-9]|3[01]",
                "0?[1-9]|1[0-2]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC",
                "[0-7]|SUN|MON|TUE|WED|THU|FRI|SAT",
            ),
        )
    )
    + "$"
)
_CRON_HERE = re.compile(_CRON.replace("(?i)", ""), re.IGNORECASE)


def is_cron(text: str) -> bool:
    """Whether it is a cron expression of five fields, and its time ever comes."""
    if _CRON_HERE.fullmatch(text) is None:
        return False
    try:
        next(CronSim(text, datetime(2000, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        return False
    return True


def is_time_zone(name: str) -> bool:
    """Whether it is a name of the time zone database."""
    if re.fullmatch(_ZONE, name) is None or name == "Local":
        return False
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


class Times(ApiModel):
    """Moments by the clock of a time zone."""

    schedule: Annotated[str, Field(min_length=9, max_length=100)]
    """Cron expression of five fields: minute, hour, day of the month, month, day of the week; for example 0 3 * * *.
    Where the clock is put forward or back, as cron of Debian does it: what is at one time of the day is done once."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    """Time zone of the expression, for example Europe/Berlin."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.schedule.matches('{_CRON}')",
            message="schedule must be a cron expression of five fields whose time comes, for example 0 3 * * *",
            holds=lambda self: is_cron(self.schedule),
            field_path=".schedule",
        ),
        Rule(
            # CEL knows the time zones too, and fails on what is none.
            cel=f"!has(self.timeZone) || (self.timeZone.matches('{_ZONE}') && self.timeZone != 'Local' && "
            "timestamp('2000-01-01T00:00:00Z').getHours(self.timeZone) >= 0)",
            message="timeZone must be a name of the time zone database, for example Europe/Berlin",
            holds=lambda self: is_time_zone(self.time_zone),
            field_path=".timeZone",
        ),
    )


class Keep(ApiModel):
    """Which backups of a schedule are kept: the union of what each number asks for.

    The newest good copy of a component always is.
    """

    last: Annotated[int, Field(ge=0, le=1000)] = 0
    """The newest so many."""
    daily: Annotated[int, Field(ge=0, le=1000)] = 0
    """The last one of each of the newest so many days that have one."""
    weekly: Annotated[int, Field(ge=0, le=1000)] = 0
    """The last one of each of the newest so many weeks (from Monday) that have one."""
    monthly: Annotated[int, Field(ge=0, le=1000)] = 0
    """The last one of each of the newest so many months that have one."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.last + self.daily + self.weekly + self.monthly > 0",
            message="keep needs a number: write for example last: 7",
            holds=lambda self: self.last + self.daily + self.weekly + self.monthly > 0,
        ),
    )


class Planned(Times):
    """What is made at such moments: of which components, where, and within what time."""

    repository: Annotated[str, Field(max_length=20)] = ""
    """Repository of `repositories`; the first when empty."""
    components: Annotated[
        list[ComponentName], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """Components, for example redis; all that can be when empty."""
    jitter_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    """Each stack begins later than the schedule says by up to so many seconds, always the same for one stack."""
    starting_deadline_seconds: Annotated[int, Field(ge=60, le=86400)] = 3600
    """Seconds within which it must have begun, from its time on. One whose time passed while no operator ran, or while
    the one before it was not done, is made up for within them; earlier ones are not."""
    active_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 3600
    """Seconds that each half may take: of a copy, reading the data from the engine, and storing it; of a verification,
    fetching the copy, and loading it."""
    suspend: bool = False
    """Make none for now. Nothing is removed either."""


class Schedule(Planned):
    """Backups that are made by themselves."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,12}[a-z0-9])?$", max_length=14)]
    """Name of the schedule; its backups are called after it and after their time."""
    keep: Keep
    """Which of its backups are kept. What is kept no longer is removed with the next backup."""
    allow_downtime: bool = False
    """Whether components may be stopped for as long as they are read: Neo4j Community cannot be copied otherwise. That
    begins within `startingDeadlineSeconds` of each time, and not later."""


class Verification(Planned):
    """When the newest copies are restored for proof: onto volumes that are thrown away, beside the stack."""

    history_limit: Annotated[int, Field(ge=1, le=100)] = 3
    """Ended verifications that are kept."""
    sql: Sql | None = None
    """What a restored Postgres runs and is asked, for proof."""


class Maintenance(Times):
    """When repositories are looked after: with the first copy of each component after each of these times.

    Space of copies that are kept no longer is given back, and the repository is checked.
    """

    schedule: Annotated[str, Field(min_length=9, max_length=100)] = "0 4 * * 0"
    """Cron expression as in `schedules`."""
    read_percent: Annotated[int, Field(ge=0, le=100)] = 5
    """How much of what is stored is read and compared with its checksum each time, in percent: at least so much, and
    each time the next part, until all has been read. Structure and index are checked in any case."""
    active_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 3600
    """Seconds that it may take for each component."""
