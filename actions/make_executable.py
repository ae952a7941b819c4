"""Set the execute bit on the workflow's own program, for whom may read it."""

from __future__ import annotations

from actions._action import make
from actions._paths import Refused, mode_of
from actions._program import ProgramParams, repair
from doctor.model import Incident
from doctor.repair import Caps, Edit, JobView, Plan, Risk, RunView, Skipped

NAME = "make-executable"
SUMMARY = "Set the execute bit on the program."
RISK = Risk.REVERSIBLE


Params = ProgramParams


def plan(incident: Incident, params: ProgramParams, view: RunView, caps: Caps) -> Plan | Skipped:
    """Add the execute bit on the registered program and on its staged copy."""
    found = repair(incident, params, view, _edits)
    if isinstance(found, str):
        return Skipped(NAME, found)
    return make(
        NAME, RISK, incident, params,
        f"Make executable: {', '.join(edit.path for edit in found.edits)}",
        "The program can be started by the jobs that use it.",
        "The files get their old permissions back.",
        found.edits, queue=found.queue, rescue=found.rescue,
    )  # fmt: skip


def _edits(_job: JobView, place: str) -> list[Edit]:
    mode = mode_of(place) or 0
    wanted = mode | (mode & 0o444) >> 2 | 0o100
    if mode == wanted:
        raise Refused(f"{place} is executable already (a file system mounted noexec forbids it all the same)")
    return [Edit(place, None, None, wanted, mode)]
