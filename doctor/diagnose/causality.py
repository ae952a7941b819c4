"""From verdicts on single attempts to incidents: along the dataflow, across jobs, across the tree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace

from doctor.diagnose.evidence import gather
from doctor.diagnose.matcher import Matcher
from doctor.diagnose.verdict import Verdict, culprit_of
from doctor.model import Culprit, Diagnosis, Evidence, Incident, JobState, Kind, Remedy, Symptom
from doctor.run.dataflow import is_cleanup, origin, outputs, transfers
from doctor.run.reader import Job, Run

#: A file system that is full leaves files cut short, which then look damaged to whoever reads them.
_FULL = {"disk/scratch-full", "disk/cleanup-disabled", "disk/image-copies", "disk/execute-disk-full", "disk/submit-disk-full"}
_CUT_SHORT = {"container/image-invalid", "user-code/malformed-input", "integrity/checksum-mismatch", "staging/transfer-failed"}
#: Categories whose causes lie outside the program: one incident whatever transformation they hit.
ENVIRONMENT = {"disk", "network", "credentials", "container", "infrastructure"}
_LOST = {"staging/input-missing", "staging/input-moved", "staging/transfer-failed"}


def follow_dataflow(verdict: Verdict) -> None:
    """A job that fails because its input is missing points at the job that was to make it.

    That job may have "succeeded"; or a clean-up job may have removed the file too early.
    """
    if verdict.cause not in _LOST or not verdict.subject:
        return
    job, lfn = verdict.facts.job, os.path.basename(verdict.subject.rstrip("/"))
    if lfn in outputs(job) and not verdict.facts.transfer_job:
        return
    found = origin(job.run, lfn, job)
    producer = found.producer
    if found.removed_by is not None and found.removed_by is not job and not is_cleanup(job):
        _blame(
            verdict,
            found.removed_by,
            "staging/premature-cleanup",
            "structure:premature-cleanup",
            0.88,
            f"{found.removed_by.name} removed {lfn} although {job.name} still needed it.",
        )
        _add_removal(verdict, found.removed_by, lfn)
        return
    if producer is None or producer is job or producer.submit.job_class == 2:
        return
    if producer.state is JobState.SUCCEEDED:
        _producer_succeeded(verdict, producer, lfn)
    elif producer.state is not JobState.UNSUBMITTED:
        verdict.culprit = producer
        verdict.reasons.append(f"{lfn} was to be made by {producer.name}, which failed itself.")


def _producer_succeeded(verdict: Verdict, producer: Job, lfn: str) -> None:
    facts = gather(producer, producer.attempts[-1]) if producer.attempts else None
    record = facts.record if facts else None
    fact = record.files.get(lfn) if record else None
    if fact is not None and fact.error == 0 and fact.size >= 0:
        verdict.reasons.append(f"{producer.name} did write {lfn} ({fact.size} bytes); it was lost afterwards.")
        verdict.confidence = min(verdict.confidence, 0.6)
        return
    _blame(
        verdict,
        producer,
        "user-code/declared-output-not-produced",
        "structure:output-missing",
        0.9,
        f"{producer.name} ended with exit code 0 without writing {lfn}, which the workflow declares as its output; "
        f"{verdict.facts.job.name} failed only because of that.",
    )
    if fact is not None and facts is not None:
        verdict.evidence.insert(
            0, Evidence(facts.out_name, fact.line, f"{lfn}: error {fact.error} (no such file) after exit code 0", Kind.STATUS)
        )


def _blame(verdict: Verdict, culprit: Job, cause: str, by: str, confidence: float, reason: str) -> None:
    if verdict.evidence:
        first = verdict.evidence[0]
        verdict.symptoms.append(Symptom(verdict.facts.job.name, first.text, first.file, first.line))
    verdict.change(cause, by, confidence, reason)
    verdict.culprit = culprit
    verdict.remedies = None
    verdict.finding = None


def _add_removal(verdict: Verdict, cleaner: Job, lfn: str) -> None:
    path = cleaner.beside(".in")
    for entry in transfers(cleaner):
        for url in entry.destinations:
            if path is not None and os.path.basename(url) == lfn:
                verdict.evidence.insert(0, Evidence(cleaner.run.files.name(path), None, f"remove {url}", Kind.SUBMIT))
                return


def fingerprint(diagnosis: Diagnosis) -> str:
    """Identifies "the same failure": cause, transformation, site and normalised message."""
    category = diagnosis.cause.split("/", 1)[0]
    program = "" if category in ENVIRONMENT else diagnosis.culprit.transformation
    parts = (diagnosis.cause, program, diagnosis.culprit.site, diagnosis.message)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12]


def group(diagnoses: Iterable[tuple[str, Diagnosis]]) -> list[Incident]:
    """One incident per fingerprint. Input: (name of the failed job, diagnosis), any order."""
    groups: dict[str, list[tuple[str, Diagnosis]]] = {}
    for job, diagnosis in diagnoses:
        groups.setdefault(fingerprint(diagnosis), []).append((job, diagnosis))
    incidents = []
    for key, members in groups.items():
        members.sort(key=lambda member: (member[1].when, member[0]))
        best = max(members, key=lambda member: member[1].confidence)[1]
        first = members[0][1]
        chosen = best if best.confidence - first.confidence > 0.15 else first
        incidents.append(Incident(key, chosen, tuple(dict.fromkeys(job for job, _ in members))))
    return _absorb(incidents)


def _absorb(incidents: list[Incident]) -> list[Incident]:
    """Fold incidents into the one that explains them: same subject and cause, or same culprit job."""
    kept: list[Incident] = []
    for incident in sorted(incidents, key=lambda one: (one.diagnosis.cause not in _FULL, importance(one))):
        host = next((one for one in kept if _explained(incident, one)), None)
        if host is None:
            kept.append(incident)
            continue
        first = incident.diagnosis.evidence[:1]
        added = tuple(
            Symptom(job, first[0].text if first else "", first[0].file if first else "", first[0].line if first else None)
            for job in incident.jobs[:3]
        )
        merged = replace(host.diagnosis, symptoms=(*host.diagnosis.symptoms, *added)[:12])
        kept[kept.index(host)] = Incident(host.id, merged, tuple(dict.fromkeys((*host.jobs, *incident.jobs))))
    return sorted(kept, key=importance)


def _explained(incident: Incident, other: Incident) -> bool:
    mine, theirs = incident.diagnosis, other.diagnosis
    if theirs.cause in _FULL and mine.cause in _CUT_SHORT and theirs.confidence >= 0.7:
        return True
    if mine.cause == theirs.cause and mine.subject and os.path.basename(mine.subject) == os.path.basename(theirs.subject):
        return True
    return mine.culprit.job in other.jobs and mine.culprit.workflow == theirs.culprit.workflow and mine.culprit.job not in incident.jobs


def importance(incident: Incident) -> tuple[int, float, str]:
    """Sort key: what is well founded first, and of that what happened first."""
    return (0 if incident.diagnosis.confidence >= 0.5 else 1, incident.diagnosis.when, incident.id)


def run_incident(
    run: Run,
    matcher: Matcher,
    cause: str,
    by: str,
    confidence: float,
    evidence: tuple[Evidence, ...],
    why: str,
    when: float,
    job: Job | None = None,
    jobs: tuple[str, ...] = (),
) -> Incident:
    """An incident that no verdict on an attempt leads to; ``job`` is None when it is the run's as a whole."""
    info = matcher.library.causes[cause]
    culprit = culprit_of(job, len(job.attempts), "") if job else Culprit("", workflow=run.name or run.identity.dax_label)
    params = {"job": job.name} if job else {}
    remedies = tuple(
        Remedy(name, dict(params), matcher.library.actions[name].risk, matcher.library.actions[name].summary) for name in info.remedies
    )
    diagnosis = Diagnosis(
        cause,
        confidence,
        by,
        culprit,
        info.definition.rstrip("."),
        why,
        evidence,
        remedies=remedies,
        advice=info.advice,
        message=evidence[0].text if evidence else "",
        when=when,
    )
    return Incident(fingerprint(diagnosis), diagnosis, jobs)
