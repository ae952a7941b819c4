"""Jobs that have not failed and will not end: no slot can start them, or none keeps them."""

from __future__ import annotations

import re

from doctor.diagnose.causality import run_incident
from doctor.diagnose.matcher import Matcher
from doctor.model import Channel, Evidence, Finding, Incident, JobState, Kind, Line, RunState, Strength
from doctor.run.jobstate import Attempt
from doctor.run.reader import Job, Run

_PATIENCE = 600.0  # seconds a job may wait before a request that is merely unusual is named
_GIVEN_UP = 30.0  # the same where a person has removed the run
_MAX_JOBS = 200  # waiting jobs that are looked at
_REQUESTS = {"request_memory": " MB", "request_disk": " MB", "request_cpus": "", "request_gpus": ""}  # with the unit shown


def restless(run: Run, matcher: Matcher) -> list[Incident]:
    """Jobs that start again and again without ending: evicted, or cut off from their execute node."""
    found: list[Incident] = []
    restless = [name for name in run.history.troubled if run.history.latest.get(name) in (JobState.RUNNING, JobState.QUEUED)]
    for job in run.jobs([name.decode("utf-8", "replace") for name in restless[:200]]):
        lines = job.attempts[-1].states if job.attempts else []
        lost = [line for line in lines if line.state in ("SHADOW_EXCEPTION", "JOB_RECONNECT_FAILED")]
        evicted = [line for line in lines if line.state == "JOB_EVICTED"]
        if len(lost) >= 2:
            cause, why = "infrastructure/shadow-exception", f"lost its execute node {len(lost)} times"
        elif len(evicted) >= 3:
            cause, why = "infrastructure/evicted-repeatedly", f"was evicted {len(evicted)} times"
        else:
            continue
        log = run.files.name(run.directory / run.identity.condor_log)
        kinds = ("shadow-exception", "reconnect-failed", "disconnected", "evicted") if len(lost) >= 2 else ("evicted",)
        events = [event for event in run.events_of(job.attempts[-1].condor_id) if event.kind in kinds]
        events.sort(key=lambda event: kinds.index(event.kind))
        chosen = tuple(Evidence(log, event.line, f"{event.kind}: {event.text}", Kind.EVENT) for event in events[:3])
        evidence = (*chosen, Evidence(run.history.file, lines[-1].number, f"{job.name} {lines[-1].state}", Kind.EVENT))
        found.append(
            run_incident(
                run,
                matcher,
                cause,
                "structure:restless",
                0.8,
                evidence,
                f"{job.name} {why} without ending.",
                lines[-1].when,
                job,
                (job.name,),
            )
        )
    return found


def unmatchable(run: Run, state: RunState, matcher: Matcher) -> list[Incident]:
    """Jobs that wait in the queue, never started, and ask for what the rules on submit facts call out of reach.

    A request beyond any slot counts at once; one that is only unusual (weak rules: GPUs, requirements
    of its own) counts after a long wait, because slots that fit may merely be busy.
    """
    names = [name for name, latest in run.history.latest.items() if latest in (JobState.QUEUED, JobState.FAILED)]
    found: list[tuple[Job, Finding]] = []
    for job in run.jobs([name.decode("utf-8", "replace") for name in names[:_MAX_JOBS]]):
        if not job.attempts or not _never_started(job.attempts[-1]):
            continue
        submitted = job.attempts[-1].last("SUBMIT")
        waited = run.history.last_time - submitted.when if submitted else 0.0
        patient = waited < (_GIVEN_UP if state is RunState.REMOVED else _PATIENCE)
        findings = [one for one in matcher.match(submit_facts(job)) if one.strength is not Strength.WEAK or not patient]
        if findings:
            found.append((job, findings[0]))
    if not found:
        return []
    job, finding = found[0]
    since = job.attempts[-1].last("SUBMIT")
    evidence = (
        finding.evidence,
        Evidence(run.history.file, since.number if since else None, f"{job.name} SUBMIT, and never EXECUTE", Kind.EVENT),
    )
    why = f"{job.name} waits in the queue and has never started; it asks for {finding.evidence.text}."
    confidence = 0.5 if finding.strength is Strength.WEAK else 0.8
    jobs = tuple(one.name for one, _ in found)
    return [
        run_incident(
            run, matcher, finding.cause, f"rule:{finding.rule}", confidence, evidence, why, since.when if since else 0.0, job, jobs
        )
    ]


def _never_started(attempt: Attempt) -> bool:
    return attempt.last("SUBMIT") is not None and not attempt.last("EXECUTE", "PRE_SCRIPT_FAILURE", "JOB_HELD", "SUBMIT_FAILED")


def submit_facts(job: Job) -> Channel:
    """The submit file as rules read it: one ``key = value`` a line, requests as plain numbers (MB, cores)."""
    submit = job.submit
    lines = []
    for key, unit in _REQUESTS.items():
        amount = quantity(submit.get(key), key)
        if amount is not None:
            lines.append(Line(f"{key} = {amount:.0f}{unit}", submit.line_of.get(key)))
    lines += [
        Line(f"{key} = {submit.get(key)[:500]}", submit.line_of.get(key))
        for key in ("requirements", "universe", "concurrency_limits")
        if submit.get(key)
    ]
    return Channel(Kind.SUBMIT, submit.file, tuple(lines))


def quantity(value: str, key: str) -> float | None:
    """A request as a plain number: memory and disk in MB; None when it is an expression.

    Without a unit HTCondor reads memory in MB and disk in KB (manual, condor_submit).
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)B?\s*", value, re.IGNORECASE)
    if not found:
        return None
    amount, unit = float(found[1]), found[2].upper()
    if key not in ("request_memory", "request_disk"):
        return amount
    return amount * {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "": 1.0 if key == "request_memory" else 1 / 1024}[unit]
