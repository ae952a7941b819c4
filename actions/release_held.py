"""Release a job from hold whose reason has gone away. A person's hold is never released."""

from __future__ import annotations

from actions._action import JobParams, count, held_by_person, jobs_of, make
from doctor.model import Incident
from doctor.repair import Caps, JobView, Plan, QueueEdit, Risk, RunView, Skipped

NAME = "release-held"
SUMMARY = "Release the held job, now that the reason for the hold is gone."
RISK = Risk.REVERSIBLE

#: Hold codes after which the same job would be held again at once: another repair has to come first.
_COMES_BACK = {
    3: "its own policy", 5: "its own policy", 26: "a policy of the pool", 27: "a policy of the pool",
    32: "the size of its inputs", 33: "the size of its outputs", 34: "the resources it used",
    35: "its container image", 46: "its allowed duration", 47: "its allowed execution time",
}  # fmt: skip


class Params(JobParams):
    """Only the job."""


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Release the incident's held jobs, where that can help."""
    queue: list[QueueEdit] = []
    reasons: list[str] = []
    names: list[str] = []
    for job in jobs_of(incident, params, view):
        if why := _not(job, incident):
            reasons.append(f"{job.name}: {why}")
            continue
        names.append(job.name)
        queue += [QueueEdit(one, (), "release") for one in job.queue_ids]
    if not queue:
        return Skipped(NAME, "; ".join(reasons) or "the job is not known in this run")
    return make(
        NAME, RISK, incident, params,
        f"Release {count(len(names), 'held job')}: {', '.join(names[:5])}",
        "HTCondor matches and starts the job again; DAGMan is not restarted.",
        "A release cannot be taken back; the job can be put on hold again.",
        queue=tuple(queue), rescue=False,
    )  # fmt: skip


def _not(job: JobView, incident: Incident) -> str:
    """Why the job is not released; '' when it is."""
    if held_by_person(job, incident):
        return "a person put it on hold, and only a person releases it"
    if not job.queue_ids:
        return "it is not in the queue"
    if not job.held:
        return "it is not held"
    if job.hold_code in _COMES_BACK:
        return f"it is held because of {_COMES_BACK[job.hold_code]} (code {job.hold_code}), and would be held again"
    if job.hold_code == 21 and job.hold_subcode == 102:
        return "it is held because of the memory it used (code 21/102), and would be held again"
    return ""
