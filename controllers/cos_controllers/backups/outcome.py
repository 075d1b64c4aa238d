"""What has become of a Job that was made for a backup or a restore."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from cos_controllers.backups.seen import Seen
from cos_controllers.jobs import POD_SECONDS, end_of, pods_of_job, report_in, why_it_ended, why_it_waits
from cos_controllers.k8s import Manifest

#: A Job that has ended without a report: what its pod says may come a moment later.
_REPORT_SECONDS = 10


class Outcome(NamedTuple):
    """Its report, or why there will be none; while it goes on neither, and perhaps what its pod waits for."""

    report: str = ""
    failure: str = ""
    waits: str = ""


def outcome_of(job: Manifest | None, container: str, began: datetime, seen: Seen, now: datetime) -> Outcome:
    """The outcome of what a container of a Job does."""
    if job is None:
        return Outcome(failure=seen.why or "its Job is gone")
    pods = pods_of_job(job, seen.pods)
    if text := next(filter(None, (report_in(pod, container) for pod in pods)), ""):
        return Outcome(report=text)
    end = end_of(job)
    if end and (not pods or now - end.time >= timedelta(seconds=_REPORT_SECONDS)):
        return Outcome(failure=why_it_ended(pods, end))
    refused = seen.warnings.get(job["metadata"]["uid"], "") if not pods else ""
    waits = next(filter(None, map(why_it_waits, pods)), refused)
    # Of its own it ends before that.
    limit = job["spec"]["activeDeadlineSeconds"] + POD_SECONDS
    if now - began >= timedelta(seconds=limit):
        told = f": {waits}" if waits else ""
        return Outcome(failure=f"its Job has not ended within {limit} s{told}")
    return Outcome(waits=waits)
