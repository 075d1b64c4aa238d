"""Moments by a cron expression in a time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from cos_controllers.api.schedule import Times


def latest(times: Times, now: datetime) -> datetime | None:
    """The newest of the moments that are not after `now`, in UTC; None if there was none in the last fifty years."""
    # What is exactly now would be left out.
    return _next(times, now + timedelta(seconds=1), reverse=True)


def following(times: Times, now: datetime) -> datetime | None:
    """The first of the moments after `now`, in UTC; None if there is none in the next fifty years."""
    return _next(times, now, reverse=False)


def _next(times: Times, moment: datetime, *, reverse: bool) -> datetime | None:
    local = moment.replace(microsecond=0).astimezone(ZoneInfo(times.time_zone))
    found = next(CronSim(times.schedule, local, reverse=reverse), None)
    return found.astimezone(UTC) if found else None
