"""Create the directory that the program writes into, where it will run."""

from __future__ import annotations

import os
import re
import shlex

from pydantic import Field

from actions._action import JobParams, held_by_person, jobs_of, make
from actions._paths import Refused
from actions._resource import queue_edits
from actions._submit import Lines
from doctor.model import Incident
from doctor.repair import Caps, Edit, JobView, Plan, QueueEdit, Risk, RunView, Skipped

NAME = "create-output-directory"
SUMMARY = "Create the directory that the program writes into."
RISK = Risk.REVERSIBLE

_TASK = re.compile(r"^(?:pegasus_lite_section_start task_execute|set \+e)\s*$", re.MULTILINE)


class Params(JobParams):
    """``path``: the directory, relative to where the program runs, or absolute on this host."""

    path: str = Field(min_length=1, max_length=1024, pattern=r"^[^\x00\n\r]+$")


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """A directory on this host, or one that PegasusLite makes in the sandbox before the program starts."""
    if ".." in params.path.split("/"):
        return Skipped(NAME, f"{params.path!r} leads out of the directory in which the program runs")
    edits: dict[str, Edit] = {}
    queue: list[QueueEdit] = []
    reasons: list[str] = []
    rescue = False
    for job in jobs_of(incident, params, view):
        try:
            made = _edits(job, os.path.normpath(params.path))
        except Refused as problem:
            reasons.append(f"{job.name}: {problem}")
            continue
        edits.update({edit.path: edit for edit in made})
        queue += queue_edits(job, ()) if job.held and not held_by_person(job, incident) else []
        rescue = rescue or not (job.queue_ids and job.held)
    if not edits:
        return Skipped(NAME, "; ".join(reasons) or "the job is not known in this run")
    return make(
        NAME, RISK, incident, params,
        f"Create {params.path} before the program runs",
        "The program can write its file there.",
        "The directory is removed if it is empty, the script gets its old bytes back.",
        tuple(edits.values()), queue=tuple(queue), rescue=rescue,
    )  # fmt: skip


def _edits(job: JobView, path: str) -> list[Edit]:
    if path.startswith("/"):
        return _directories(path)
    if job.data_configuration == "sharedfs" or not job.script:
        if not job.initialdir.startswith("/"):
            raise Refused("it is not known in which directory the program runs")
        return _directories(os.path.join(job.initialdir, path))
    script = Lines(job.script)
    line = f"/bin/mkdir -p {shlex.quote(path)}\n"
    if line in script.lines:
        raise Refused(f"its script makes {path} already")
    text = script.text
    place = _TASK.search(text)
    if place is None:
        raise Refused(f"{job.script} has another layout than expected")
    script.lines = [text[: place.start()] + line + text[place.start() :]]
    edit = script.edit()
    return [edit] if edit else []


def _directories(path: str) -> list[Edit]:
    """The directory and those above it that are missing, outermost first."""
    missing: list[str] = []
    while not os.path.lexists(path) and len(missing) < 20:
        missing.append(path)
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        raise Refused(f"{path} is no directory")
    if not missing:
        raise Refused(f"{path} exists already")
    return [Edit(one, None, b"", mode=0o755, directory=True) for one in reversed(missing)]
