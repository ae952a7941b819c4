"""Set the execute bit on the workflow's own program, for whom may read it."""

from __future__ import annotations

from pydantic import Field

from actions._action import JobParams, held_by_person, jobs_of, make
from actions._paths import Refused, mode_of
from actions._program import copies
from actions._resource import queue_edits
from doctor.model import Incident
from doctor.repair import Caps, Edit, Plan, QueueEdit, Risk, RunView, Skipped

NAME = "make-executable"
SUMMARY = "Set the execute bit on the program."
RISK = Risk.REVERSIBLE


class Params(JobParams):
    """``file``: the program as the catalog names it."""

    file: str = Field(default="", max_length=4096)


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Add the execute bit on the registered program and on its staged copy."""
    edits: dict[str, Edit] = {}
    queue: list[QueueEdit] = []
    reasons: list[str] = []
    rescue = False
    for job in jobs_of(incident, params, view):
        try:
            places = copies(job, view, params.file)
        except Refused as problem:
            reasons.append(str(problem))
            continue
        for place in places:
            mode = mode_of(place) or 0
            wanted = mode | (mode & 0o444) >> 2 | 0o100
            if mode != wanted:
                edits[place] = Edit(place, None, None, wanted, mode)
            else:
                reasons.append(f"{place} is executable already (a file system mounted noexec forbids it all the same)")
        queue += queue_edits(job, ()) if job.held and not held_by_person(job, incident) else []
        rescue = rescue or not (job.queue_ids and job.held)
    if not edits:
        return Skipped(NAME, "; ".join(dict.fromkeys(reasons)) or "the job is not known in this run")
    return make(
        NAME, RISK, incident, params,
        f"Make executable: {', '.join(edits)}",
        "The program can be started by the jobs that use it.",
        "The files get their old permissions back.",
        tuple(edits.values()), queue=tuple(queue), rescue=rescue,
    )  # fmt: skip
