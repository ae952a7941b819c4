"""Lower a request that no slot of the pool can meet. The owner asked for that much, so a person decides."""

from __future__ import annotations

from pydantic import Field

from actions._action import JobParams, jobs_of, make
from actions._paths import Refused
from actions._resource import queue_edits
from actions._submit import CPUS, DISK, GPUS, MEMORY, Resource, Submit, queue_value, request, requested
from doctor.model import Incident
from doctor.repair import Caps, Edit, JobView, Plan, QueueEdit, Risk, RunView, Skipped

NAME = "lower-request"
SUMMARY = "Lower the request to what a slot of the pool can offer."
RISK = Risk.COSTLY
ALWAYS_ASK = True


class Params(JobParams):
    """What the largest slot of the pool offers; 0 where that is not known, -1 for none at all (GPUs)."""

    memory_mb: int = Field(default=0, ge=0)
    disk_mb: int = Field(default=0, ge=0)
    cpus: int = Field(default=0, ge=0)
    gpus: int = Field(default=0, ge=-1)


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Lower what exceeds the offer, and nothing else."""
    offers = [(MEMORY, params.memory_mb), (DISK, params.disk_mb), (CPUS, params.cpus), (GPUS, params.gpus)]
    if not any(offer for _, offer in offers):
        return Skipped(NAME, "it is not known what the slots of the pool offer")
    edits: list[Edit] = []
    queue: list[QueueEdit] = []
    changes: list[str] = []
    reasons: list[str] = []
    rescue = False
    for job in jobs_of(incident, params, view):
        try:
            edit, attributes, texts = _lowered(job, offers)
        except Refused as problem:
            reasons.append(str(problem))
            continue
        edits.append(edit)
        changes += texts
        queue += queue_edits(job, attributes, release=False)
        rescue = rescue or not job.queue_ids
    if not edits:
        return Skipped(NAME, "; ".join(reasons) or "the job is not known in this run")
    return make(
        NAME, RISK, incident, params,
        f"Lower the request: {'; '.join(changes[:5])}",
        "The job can be matched; whether it gets along with less only its owner can say.",
        "The submit file gets its old bytes back, a job in the queue its old request.",
        tuple(edits), queue=tuple(queue), rescue=rescue,
    )  # fmt: skip


def _lowered(job: JobView, offers: list[tuple[Resource, int]]) -> tuple[Edit, tuple[tuple[str, str], ...], list[str]]:
    submit = Submit(job.submit_file)
    attributes: list[tuple[str, str]] = []
    texts: list[str] = []
    for what, offer in offers:
        current = requested(submit, what)
        amount = max(offer, 0)
        if offer and current is not None and current > amount:
            request(submit, what, amount)
            attributes.append((what.attribute, queue_value(what, amount)))
            texts.append(f"{job.name}: {what.request} {current} -> {amount}")
    edit = submit.edit()
    if edit is None:
        raise Refused(f"{job.name} asks for nothing that the largest slot does not offer")
    return edit, tuple(attributes), texts
