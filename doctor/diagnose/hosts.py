"""The bad node: one execute node fails what other nodes finish."""

from __future__ import annotations

from dataclasses import replace

from doctor.diagnose.library import Library
from doctor.model import Evidence, Incident, JobState, Kind, Remedy, Symptom
from doctor.run.events import execute_hosts
from doctor.run.reader import Run

_ENOUGH = 3  # failures on the node, and successes elsewhere, before a node is blamed
_MAX_JOBS = 20_000  # in larger runs the hosts of all jobs are not looked up
#: Failures that follow the job wherever it goes: no node is to blame for them.
_OWN_FAULT = (
    "planner/",
    "policy/",
    "staging/",
    "integrity/",
    "user-code/",
    "collision/",
    "credentials/",
    "resources/memory",
    "resources/walltime",
)


def blame_nodes(run: Run, incidents: list[Incident], library: Library) -> list[Incident]:
    """Incidents whose jobs all failed on one node, where other nodes finished jobs and this one none, name the node."""
    if not any(_suspect(incident) for incident in incidents):
        return incidents
    blamed: dict[str, Incident] = {}
    for part in run.tree():
        mine = [one for one in incidents if _suspect(one) and one.diagnosis.culprit.workflow in (part.name, part.identity.dax_label)]
        if not mine or part.counts.total > _MAX_JOBS:
            continue
        hosts = execute_hosts(part.directory / part.identity.condor_log, part.files)
        good = _hosts_of(part, part.history.names(JobState.SUCCEEDED), hosts)
        for incident in mine:
            bad = _hosts_of(part, list(incident.jobs), hosts)
            node = next(iter(set(bad.values())), "")
            fine = [host for host in good.values() if host != node]
            if len(bad) >= _ENOUGH and set(bad.values()) == {node} and node not in good.values() and len(fine) >= _ENOUGH:
                blamed[incident.id] = _blame(part, incident, node, len(fine), library)
    return [blamed.get(incident.id, incident) for incident in incidents]


def _suspect(incident: Incident) -> bool:
    return len(incident.jobs) >= _ENOUGH and not incident.diagnosis.cause.startswith(_OWN_FAULT)


def _hosts_of(run: Run, names: list[str], hosts: dict[str, str]) -> dict[str, str]:
    """Job -> node of its latest attempt, for jobs that ran on an execute node."""
    found = {}
    for name, attempts in run.history.attempts(names).items():
        if attempts and (host := hosts.get(_without_zeros(attempts[-1].condor_id))):
            found[name] = host
    return found


def _without_zeros(condor_id: str) -> str:
    cluster, _, proc = condor_id.partition(".")
    return f"{cluster}.{int(proc)}" if proc.isdigit() else condor_id


def _blame(run: Run, incident: Incident, node: str, fine: int, library: Library) -> Incident:
    old, cause = incident.diagnosis, "infrastructure/bad-node"
    info = library.causes[cause]
    log = run.files.name(run.directory / run.identity.condor_log)
    why = f"All {len(incident.jobs)} failures happened on {node}, where nothing succeeded, while {fine} jobs succeeded on other nodes."
    first = old.evidence[0] if old.evidence else None
    symptom = (Symptom(old.culprit.job, f"{old.cause}: {first.text}", first.file, first.line),) if first else ()
    remedies = tuple(
        Remedy(name, {"host": node, "job": old.culprit.job}, library.actions[name].risk, library.actions[name].summary)
        for name in info.remedies
    )
    diagnosis = replace(
        old,
        cause=cause,
        confidence=0.8,
        decided_by="structure:bad-node",
        culprit=replace(old.culprit, host=node),
        summary=f"{info.definition.rstrip('.')}: {node}",
        explanation=f"{why} {old.explanation}",
        evidence=(*old.evidence, Evidence(log, None, f"all failed attempts ran on {node}", Kind.EVENT)),
        symptoms=(*symptom, *old.symptoms),
        remedies=remedies,
        advice=info.advice,
        subject=node,
    )
    return Incident(incident.id, diagnosis, incident.jobs)
