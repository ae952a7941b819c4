"""Plan again so that the container image is used where it lies, and not copied for every (sub-)workflow."""

from __future__ import annotations

from actions._action import JobParams
from actions._replan import original, replan
from doctor.model import Incident
from doctor.repair import Caps, Plan, Risk, RunView, Skipped

NAME = "bypass-image-staging"
SUMMARY = "Plan again so that the container image is used in place and not copied per workflow."
RISK = Risk.COSTLY
_PROPERTY = "pegasus.transfer.bypass.input.staging"


class Params(JobParams):
    """Only the job."""


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """The same workflow with staging of inputs (images among them) bypassed."""
    if f"-D{_PROPERTY}=true" in original(view):
        return Skipped(NAME, "the workflow was planned with staging bypassed already")
    return replan(
        NAME, incident, params, view,
        "Plan again with the container image used in place",
        "Jobs fetch the image from its registered place; no copy of it is kept in scratch.",
        {}, {_PROPERTY: "true"},
    )  # fmt: skip
