"""The bad node: one execute node fails what other nodes finish."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from doctor.diagnose.causality import ENVIRONMENT
from doctor.diagnose.library import Library
from doctor.model import Evidence, Incident, JobState, Kind, Remedy, Symptom
from doctor.run.events import execute_hosts
from doctor.run.reader import Run

ENOUGH = 3  # failures on the node, and successes elsewhere, before a node is blamed
_MAX_JOBS = 20_000  # in larger runs the hosts of all jobs are not looked up
_MAX_READ = 100  # submit files read to find jobs of one program that succeeded
_SURE = 0.5
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


@dataclass(frozen=True, slots=True)
class Ran:
    """Where the jobs of one DAG ran: of those that fail job -> node of the latest attempt, of those that succeeded (job, node)."""

    failed: dict[str, str]
    good: Sequence[tuple[str, str]]
    programs: Callable[[list[str]], list[str]]  # transformations of jobs
    log: str  # the event log that says so


def blame_nodes(run: Run, incidents: list[Incident], library: Library) -> list[Incident]:
    """Incidents whose jobs all failed on one node, where other nodes finished such jobs and this one none, name the node."""
    if not worth_a_look(incidents):
        return incidents
    for part in run.tree():
        mine = [one for one in incidents if one.diagnosis.culprit.workflow in (part.name, part.identity.dax_label)]
        if not any(_suspect(one) for one in mine) or part.counts.total > _MAX_JOBS:
            continue
        blamed = blame(mine, ran(part), library)
        incidents = [blamed.get(one.id, one) for one in incidents]
    return incidents


def worth_a_look(incidents: Iterable[Incident]) -> bool:
    """Whether enough has failed that a node could be the cause of."""
    return sum(len(one.jobs) for one in incidents if _suspect(one) or _vague(one)) >= ENOUGH


def ran(part: Run) -> Ran:
    """Where the jobs of a DAG ran, from its event log."""
    log = part.directory / part.identity.condor_log
    hosts, fine = execute_hosts(log, part.files)
    failed = [*part.history.names(JobState.FAILED), *part.history.names(JobState.HELD)]
    good = _hosts_of(part, part.history.names(JobState.SUCCEEDED), hosts)
    ended = {condor_id: host for condor_id, host in hosts.items() if condor_id in fine}  # monitord may not have written it down yet
    good |= _hosts_of(part, part.history.names(JobState.RUNNING), ended)
    return Ran(_hosts_of(part, failed, hosts), list(good.items()), programs_of(part), part.files.name(log))


def programs_of(part: Run) -> Callable[[list[str]], list[str]]:
    """Reads the transformations of jobs of this DAG from their submit files."""
    return lambda names: [job.submit.transformation for job in part.jobs(names)]


def blame(incidents: Iterable[Incident], ran: Ran, library: Library) -> dict[str, Incident]:
    """The incidents, by id, that a bad node explains; several kinds of failure on one node count together.

    A failure that nothing well founded explains counts where others point at the same node.
    """
    at: dict[str, list[tuple[Incident, int]]] = {}
    for incident in incidents:
        nodes = [node for job in incident.jobs if (node := ran.failed.get(job))]
        if (_suspect(incident) or _vague(incident)) and len(set(nodes)) == 1:
            at.setdefault(nodes[0], []).append((incident, len(nodes)))
    fine = {node for _, node in ran.good}
    found = {}
    for node, members in at.items():
        suspects = sum(count for incident, count in members if _suspect(incident))
        if node in fine or sum(count for _, count in members) < ENOUGH or 2 * suspects < ENOUGH:
            continue
        elsewhere = {incident.id: _finished(incident, ran) for incident, _ in members}
        if all(elsewhere[incident.id] < ENOUGH for incident, _ in members if _suspect(incident)):
            continue
        for incident, _ in members:
            if elsewhere[incident.id] >= ENOUGH or not _suspect(incident):
                found[incident.id] = _blame(incident, node, elsewhere[incident.id], ran.log, library)
    return found


def _suspect(incident: Incident) -> bool:
    return not incident.diagnosis.cause.startswith(_OWN_FAULT)


def _vague(incident: Incident) -> bool:
    """Called the program's own error for want of anything better."""
    return incident.diagnosis.cause.startswith("user-code/") and incident.diagnosis.confidence < _SURE


def _finished(incident: Incident, ran: Ran) -> int:
    """How many jobs other nodes finished that could have failed in the same way.

    A full disk hits every program. A library that is missing hits the programs that need it, and where one program
    fails everywhere, that all its jobs happened to land on one node says nothing about the node.
    """
    if incident.category in ENVIRONMENT or not incident.diagnosis.culprit.transformation:
        return len(ran.good)
    wanted, count = incident.diagnosis.culprit.transformation, 0
    names = [job for job, _ in ran.good]
    for start in range(0, min(len(names), _MAX_READ), 20):
        count += ran.programs(names[start : start + 20]).count(wanted)
        if count >= ENOUGH:
            break
    return count


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


def _blame(incident: Incident, node: str, fine: int, log: str, library: Library) -> Incident:
    old, cause = incident.diagnosis, "infrastructure/bad-node"
    info = library.causes[cause]
    many = f"All {len(incident.jobs)} failures" if len(incident.jobs) > 1 else "The failure"
    least = f"{fine} or more" if fine >= ENOUGH else str(fine)
    why = f"{many} happened on {node}, where nothing succeeded, while other nodes finished {least} such jobs."
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
