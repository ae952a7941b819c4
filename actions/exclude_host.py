"""Keep jobs off one execute node that fails them, while others do not."""

from __future__ import annotations

from pydantic import Field

from actions._action import JobParams, count, jobs_of, make
from actions._paths import Refused
from actions._submit import Submit
from doctor.model import Incident
from doctor.repair import Caps, Edit, Plan, Risk, RunView, Skipped

NAME = "exclude-host"
SUMMARY = "Keep the jobs off the execute node that fails them."
RISK = Risk.REVERSIBLE


class Params(JobParams):
    """``host``: the node's name, by default the one that the diagnosis blames."""

    host: str = Field(default="", max_length=253, pattern=r"^[A-Za-z0-9._-]*$")


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Add a requirement to the submit files of the incident's jobs."""
    host = (params.host or incident.diagnosis.culprit.host).lower().strip(".")
    if not host or not all(char.isalnum() or char in "._-" for char in host):
        return Skipped(NAME, "it is not known which node failed the jobs")
    clause = excluding(host)
    edits: list[Edit] = []
    reasons: list[str] = []
    for job in jobs_of(incident, params, view):
        try:
            submit = Submit(job.submit_file)
            if submit.universe != "vanilla":
                raise Refused(f"it runs in universe {submit.universe}, on no execute node of the pool")
            present = submit.get("requirements")
        except Refused as problem:
            reasons.append(f"{job.name}: {problem}")
            continue
        if present and clause in present:
            reasons.append(f"{job.name} keeps off {host} already")
            continue
        submit.set("requirements", f"({present}) && {clause}" if present else clause)
        edits += [edit] if (edit := submit.edit()) else []
    if not edits:
        return Skipped(NAME, "; ".join(reasons) or "the job is not known in this run")
    return make(
        NAME, RISK, incident, params,
        f"Keep {count(len(edits), 'job')} off {host}",
        f"HTCondor matches these jobs to other nodes than {host}.",
        "The submit files get their old bytes back.",
        tuple(edits),
    )  # fmt: skip


def excluding(host: str) -> str:
    """The requirement; a short name excludes the node whatever its domain."""
    if "." in host:
        return f'(toLower(TARGET.Machine) != "{host}")'
    return f'(toLower(split(TARGET.Machine, ".")[0]) != "{host}")'
