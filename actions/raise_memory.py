"""Ask for more memory: HTCondor stopped the job because it used more than it had requested."""

from __future__ import annotations

from pydantic import Field

from actions._action import JobParams
from actions._resource import raise_request
from actions._submit import MEMORY
from doctor.model import Incident
from doctor.repair import Caps, Plan, Risk, RunView, Skipped

NAME = "raise-memory"
SUMMARY = "Ask for more memory in the submit file (and for the job in the queue)."
RISK = Risk.COSTLY


class Params(JobParams):
    """``at_least_mb``: use that the log tells of. ``requested_mb``: what the job had, for jobs without a request line."""

    at_least_mb: int = Field(default=0, ge=0, le=1 << 30)
    requested_mb: int = Field(default=0, ge=0, le=1 << 30)


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Grow the request of each of the incident's jobs from what it used, up to the policy's cap."""
    used = {job.name: job.memory_used_mb for job in view.jobs.values()}
    return raise_request(
        NAME, MEMORY, "memory", caps.memory_mb, used, params.at_least_mb, params.requested_mb, incident, params, view, caps
    )
