"""Raising a resource request, in the submit file and for the job in the queue (memory and disk)."""

from __future__ import annotations

from actions._action import JobParams, count, held_by_person, jobs_of, make
from actions._paths import Refused
from actions._submit import Resource, Submit, grown, queue_value, request, requested
from doctor.model import Incident
from doctor.repair import Caps, Edit, JobView, Plan, QueueEdit, Risk, RunView, Skipped


def raise_request(
    action: str, what: Resource, noun: str, cap: int, used: dict[str, int], at_least: int, assumed: int,
    incident: Incident, params: JobParams, view: RunView, caps: Caps,
) -> Plan | Skipped:  # fmt: skip
    """A plan that raises one request of all jobs of the incident.

    ``used`` is the measured use by job name, ``at_least`` a use that the log tells of, ``assumed`` what
    a job without a request was given (all in MB).
    """
    jobs = jobs_of(incident, params, view)
    if not jobs:
        return Skipped(action, "the job is not known in this run")
    edits: list[Edit] = []
    queue: list[QueueEdit] = []
    changes: list[str] = []
    reasons: list[str] = []
    rescue = False
    for job in jobs:
        need = max(used.get(job.name, 0), at_least)
        try:
            if held_by_person(job, incident):
                raise Refused(f"{job.name} was put on hold by a person")
            submit = Submit(job.submit_file)
            if submit.universe in ("local", "scheduler"):
                raise Refused(f"{job.name} runs on the submit host; its request limits nothing")
            current = requested(submit, what)
        except Refused as problem:
            reasons.append(str(problem))
            continue
        base = assumed or what.default if current is None else current
        if base >= cap:
            reasons.append(f"{job.name} already asks for {base} MB of {noun}; the policy allows at most {cap}")
            continue
        if need >= cap:
            reasons.append(f"{job.name} used {need} MB of {noun}; the policy allows at most {cap}")
            continue
        amount = grown(base, need, cap, caps.growth)
        request(submit, what, amount)
        edit = submit.edit()
        if edit is None:
            continue
        edits.append(edit)
        changes.append(f"{job.name}: {base} -> {amount} MB")
        queue += queue_edits(job, ((what.attribute, queue_value(what, amount)),))
        rescue = rescue or not job.queue_ids
    if not edits:
        return Skipped(action, "; ".join(reasons) or "nothing to change")
    left = f" Left alone: {'; '.join(reasons)}." if reasons else ""
    return make(
        action, Risk.COSTLY, incident, params,
        f"Ask for more {noun}: {'; '.join(changes[:5])}{' ...' if len(changes) > 5 else ''}",
        f"{count(len(edits), 'job')} will be matched to slots with more {noun}, now and in later retries.{left}",
        "The submit file gets its old bytes back, a job in the queue its old request.",
        tuple(edits), queue=tuple(queue), rescue=rescue,
    )  # fmt: skip


def queue_edits(job: JobView, attributes: tuple[tuple[str, str], ...], release: bool = True) -> list[QueueEdit]:
    """Edits of the job's ads in the queue, with release where it is held."""
    return [QueueEdit(one, attributes, "release" if job.held and release else "") for one in job.queue_ids]
