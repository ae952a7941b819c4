"""Try again: the cause is expected to pass. A rescue after a pause, or a release where the job is only held."""

from __future__ import annotations

from pydantic import Field

from actions._action import JobParams, held_by_person, jobs_of, make
from doctor.model import Incident
from doctor.repair import Caps, Plan, QueueEdit, Risk, RunView, Skipped

NAME = "retry"
SUMMARY = "Submit the rescue DAG again after a pause; the cause is expected to pass."
RISK = Risk.REVERSIBLE
FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 1800.0


class Params(JobParams):
    """``attempt`` counts the retries of this incident before this one; each doubles the pause."""

    attempt: int = Field(default=0, ge=0, le=100)


def pause(attempt: int) -> float:
    """Seconds to wait before the retry that follows ``attempt`` earlier ones."""
    return min(FIRST_PAUSE_S * 2.0 ** min(attempt, 10), LONGEST_PAUSE_S)


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Nothing is changed: the failed jobs run again."""
    queue: list[QueueEdit] = []
    jobs = jobs_of(incident, params, view)
    for job in jobs:
        if held_by_person(job, incident):
            return Skipped(NAME, f"a person put {job.name} on hold")
        if job.held:
            queue += [QueueEdit(one, (), "release") for one in job.queue_ids]
    in_queue = bool(jobs) and all(job.queue_ids and job.held for job in jobs)
    delay = pause(params.attempt)
    return make(
        NAME, RISK, incident, params,
        f"Try again after {delay:.0f} s",
        "The held job is started again." if in_queue else "The rescue DAG runs what has not succeeded yet; finished jobs stay finished.",
        "There is nothing to undo.",
        queue=tuple(queue), rescue=not in_queue, delay_s=delay,
    )  # fmt: skip
