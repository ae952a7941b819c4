"""Plan again with clean-up of intermediate files switched on: scratch filled because all of them were kept."""

from __future__ import annotations

from actions._action import JobParams
from actions._replan import original, replan
from doctor.model import Incident
from doctor.repair import Caps, Plan, Risk, RunView, Skipped

NAME = "enable-cleanup"
SUMMARY = "Plan again with clean-up of intermediate files switched on, keeping finished outputs."
RISK = Risk.COSTLY


class Params(JobParams):
    """Only the job."""


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """The same workflow with ``--cleanup inplace``."""
    words = original(view)
    if "--cleanup=inplace" in words or ("--cleanup" in words and words[words.index("--cleanup") + 1 :][:1] == ["inplace"]):
        return Skipped(NAME, "the workflow was planned with clean-up of intermediate files already")
    return replan(
        NAME, incident, params, view,
        "Plan again with clean-up of intermediate files",
        "Files in scratch are removed as soon as no job needs them any more; finished outputs are reused.",
        {"--cleanup": "inplace"}, {},
    )  # fmt: skip
