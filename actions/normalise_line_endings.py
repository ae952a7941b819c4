"""Turn a script's Windows line endings into Unix ones: the carriage return became part of the interpreter's name."""

from __future__ import annotations

import os

from actions._action import make
from actions._paths import Refused, read_file
from actions._program import ProgramParams, new_checksums, repair, staged_name
from doctor.model import Incident
from doctor.repair import Caps, Edit, JobView, Plan, Risk, RunView, Skipped

NAME = "normalise-line-endings"
SUMMARY = "Turn the script's Windows line endings into Unix ones."
RISK = Risk.REVERSIBLE


Params = ProgramParams


def plan(incident: Incident, params: ProgramParams, view: RunView, caps: Caps) -> Plan | Skipped:
    """Rewrite the registered script and its staged copy, and the checksum that was recorded of it."""
    found = repair(incident, params, view, lambda job, place: _edits(job, place, view))
    if isinstance(found, str):
        return Skipped(NAME, found)
    scripts = [edit.path for edit in found.edits if not edit.path.endswith(".meta")]
    return make(
        NAME, RISK, incident, params,
        f"Give Unix line endings to {', '.join(scripts)}",
        "The system finds the script's interpreter.",
        "The files get their old bytes back.",
        found.edits, queue=found.queue, rescue=found.rescue,
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
