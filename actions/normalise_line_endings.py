"""Turn a script's Windows line endings into Unix ones: the carriage return became part of the interpreter's name."""

from __future__ import annotations

import os

from pydantic import Field

from actions._action import JobParams, held_by_person, jobs_of, make
from actions._paths import Refused, read_file
from actions._program import copies, new_checksums, staged_name
from actions._resource import queue_edits
from doctor.model import Incident
from doctor.repair import Caps, Edit, JobView, Plan, QueueEdit, Risk, RunView, Skipped

NAME = "normalise-line-endings"
SUMMARY = "Turn the script's Windows line endings into Unix ones."
RISK = Risk.REVERSIBLE


class Params(JobParams):
    """``file``: the program as the catalog names it."""

    file: str = Field(default="", max_length=4096)


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Rewrite the registered script and its staged copy, and the checksum that was recorded of it."""
    edits: dict[str, Edit] = {}
    queue: list[QueueEdit] = []
    reasons: list[str] = []
    rescue = False
    for job in jobs_of(incident, params, view):
        try:
            for place in copies(job, view, params.file):
                for edit in _edits(job, place, view):
                    edits[edit.path] = edit
        except Refused as problem:
            reasons.append(str(problem))
            continue
        queue += queue_edits(job, ()) if job.held and not held_by_person(job, incident) else []
        rescue = rescue or not (job.queue_ids and job.held)
    if not edits:
        return Skipped(NAME, "; ".join(dict.fromkeys(reasons)) or "the job is not known in this run")
    scripts = [path for path in edits if not path.endswith(".meta")]
    return make(
        NAME, RISK, incident, params,
        f"Give Unix line endings to {', '.join(scripts)}",
        "The system finds the script's interpreter.",
        "The files get their old bytes back.",
        tuple(edits.values()), queue=tuple(queue), rescue=rescue,
    )  # fmt: skip


def _edits(job: JobView, place: str, view: RunView) -> list[Edit]:
    data = read_file(place, 4 << 20)
    if data is None:
        raise Refused(f"{place} cannot be read, or is too large for a script")
    if not data.startswith(b"#!"):
        raise Refused(f"{place} is no script")
    if b"\0" in data:
        raise Refused(f"{place} holds binary data")
    after = data.replace(b"\r\n", b"\n")
    if after == data:
        raise Refused(f"{place} has Unix line endings already")
    sums = [
        edit
        for other in view.jobs.values()
        if other.transformation == job.transformation
        for edit in new_checksums(other, staged_name(job) or os.path.basename(place), data, after)
    ]
    return [Edit(place, data, after), *sums]
