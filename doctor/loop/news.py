"""How an incident goes on: whether there is more to tell than a person was told, and whether it burns jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from doctor.loop.records import IncidentRow
from doctor.loop.stages import Stage
from doctor.model import Incident, JobState
from doctor.run.reader import Run

if TYPE_CHECKING:
    from doctor.loop.seams import Seams
    from doctor.loop.steps import Look


def is_news(row: IncidentRow, seen: Incident) -> bool:
    """Another cause, a later attempt of the job, or many more jobs.

    Without this an incident that nobody has repaired yet would be opened again, and told of again, by everything
    else that happens in the run.
    """
    before, now = row.incident.diagnosis, seen.diagnosis
    if before.cause != now.cause and merged(row.incident, seen) is seen:
        return True
    old, new = len(row.incident.jobs), len(seen.jobs)
    if new.bit_length() > old.bit_length():  # at 2, 4, 8, ... jobs
        return True
    if now.culprit.job and now.culprit.job == before.culprit.job:
        return now.culprit.attempt > before.culprit.attempt
    return now.when > row.updated


def merged(known: Incident, seen: Incident) -> Incident:
    """What is to be kept of an incident that is seen again.

    What a model made of a failure that the rules left uncertain is not lost to the same uncertain words of the
    rules: then only the jobs are those that are seen now.
    """
    before, now = known.diagnosis, seen.diagnosis
    if before.by_model and not now.by_model and now.confidence < before.confidence:
        return replace(known, jobs=seen.jobs)
    return seen


def burst(run: Run, incident: Incident, within_s: float) -> int:
    """The most jobs of an incident that failed within so many seconds of each other."""
    times: list[float] = []
    for part in run.tree():
        latest = part.history.latest
        names = [name for name in incident.jobs if latest.get(name.encode()) in (JobState.FAILED, JobState.HELD)]
        times += [attempts[-1].ended for attempts in part.history.attempts(names).values() if attempts]
    times.sort()
    most = first = 0
    for last, when in enumerate(times):
        while when - times[first] > within_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def burning(seams: Seams, incident: Incident, seen: Look) -> bool:
    """Whether so many jobs of a workflow that goes on failed in so short a time that it has to be halted."""
    limits = seams.policy.systemic
    return bool(seen.active) and len(incident.jobs) >= limits.jobs and burst(seen.run, incident, limits.within_s) >= limits.jobs


def handed_over(seams: Seams, key: str, incident: Incident, seen: Look, session: int, called: bool) -> bool:
    """Whether a person was given this incident, in this very session or (nobody called) before, and there is no more to tell.

    When so many jobs fail by now that the workflow is to be halted, that is decided first.
    """
    rows = [row for row in seams.store.incidents(key) if row.stage is Stage.ESCALATED]
    row = next((row for row in rows if row.incident.id == incident.id), None)
    if row is None:  # the daemon may have seen the same trouble of these jobs in its own way, while it came
        same = [
            row for row in rows if row.incident.diagnosis.cause == incident.diagnosis.cause and (row.session == session > 0 or not called)
        ]
        return bool(incident.jobs) and any(set(incident.jobs) <= set(row.incident.jobs) for row in same)
    if burning(seams, incident, seen) and not any(one.plan.action == "halt-workflow" for one in seams.store.plans(row.id)):
        return False
    if row.session == session > 0:
        return row.incident.diagnosis.cause == incident.diagnosis.cause
    return not called and not is_news(row, incident)
