"""Causes that belong to the run and to no single job: removed, DAGMan or monitord dead, never matched."""

from __future__ import annotations

import re

from doctor.diagnose.causality import importance
from doctor.diagnose.choose import is_mild
from doctor.diagnose.evidence import run_logs
from doctor.diagnose.matcher import Matcher
from doctor.model import Channel, Culprit, Diagnosis, Evidence, Incident, JobState, Kind, Line, RunState
from doctor.run.dagmanlog import message
from doctor.run.events import JobEvent
from doctor.run.jobstate import Attempt
from doctor.run.reader import Job, Run

_PATIENCE = 600.0  # seconds
_IMPATIENCE = 20.0  # how much sooner a wait counts when a person gave up on the run
_MANY_MB, _MANY_CORES, _MANY_DISK_MB = 512 * 1024, 256, 10 * 1024 * 1024


def add(run: Run, state: RunState, reason: str, incidents: list[Incident], matcher: Matcher) -> list[Incident]:
    """The incidents with those of the run as a whole added, most important first."""
    added: list[Incident] = []
    if state in (RunState.REMOVED, RunState.RUNNING, RunState.STALLED, RunState.HELD, RunState.FAILED):
        added += [one for part in run.tree() for one in _unmatchable(part, state, matcher)]
    if state is not RunState.SUCCEEDED:
        added += [one for part in run.tree() for one in _restless(part, matcher)]
    if state is RunState.REMOVED:
        added.append(_removed(run, reason, matcher))
    elif (not incidents and not added and state in (RunState.FAILED, RunState.STALLED, RunState.HELD)) or state is RunState.STALLED:
        added.append(_dagman(run, state, reason, matcher))
    added += [one for part in run.tree() for one in _monitord(part, matcher)]
    return sorted([*incidents, *added], key=importance)


def _monitord(run: Run, matcher: Matcher) -> list[Incident]:
    """DAGMan ended and monitord never did: it was killed, so database and jobstate.log are incomplete."""
    entries = run.recorded.internal
    started = any(entry.what == "MONITORD_STARTED" for entry in entries)
    finished = entries and entries[-1].what in ("MONITORD_FINISHED", "DAGMAN_FINISHED")
    marks = [name for name in ("monitord.recover", "monitord.pid") if (run.directory / name).exists()]
    if run.parent is not None or run.dagman.exit_status is None or not started or finished or len(marks) < 2:
        return []
    shown = [Evidence(run.files.name(run.directory / name), None, f"{name} was left behind", Kind.RUN) for name in marks]
    if run.dagman.exit_line is not None:
        shown.append(Evidence(run.dagman.file, run.dagman.exit_line.number, message(run.dagman.exit_line), Kind.DAGMAN))
    why = "DAGMan has ended, but monitord has not recorded that end and left its recovery files: it died on the way."
    return [
        _incident(run, matcher, "infrastructure/monitord-failed", "structure:monitord-gone", 0.8, tuple(shown), why, run.history.last_time)
    ]


def _incident(
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
    from doctor.diagnose.causality import fingerprint
    from doctor.diagnose.verdict import culprit_of
    from doctor.model import Remedy

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


def _removed(run: Run, reason: str, matcher: Matcher) -> Incident:
    log = run.dagman
    line = log.removed or log.exit_line
    evidence = [Evidence(log.file, line.number, message(line), Kind.DAGMAN)] if line else []
    own = run.directory / f"{run.identity.dag}.dagman.log"
    text = run.files.text(own, head=0, tail=64 << 10, quiet=True)
    evidence += [Evidence(text.file, row.number, row.text.strip(), Kind.EVENT) for row in text.lines if "condor_rm" in row.text][-1:]
    return _incident(
        run,
        matcher,
        "policy/workflow-removed",
        "structure:removed",
        0.9,
        tuple(evidence),
        f"{reason[0].upper()}{reason[1:]}.",
        run.history.last_time,
    )


def _own(run: Run, event: JobEvent) -> Evidence:
    return Evidence(f"{run.identity.dag}.dagman.log", event.line, event.text, Kind.EVENT)


def _dagman(run: Run, state: RunState, reason: str, matcher: Matcher) -> Incident:
    """DAGMan ended (or vanished) and no job explains it: what does its log say?"""
    log = run.dagman
    crashed = [event for event in run.own_events if event.kind == "evicted" and "bnormal termination" in event.text]
    if crashed:
        shown = tuple(_own(run, event) for event in (crashed[-1], run.own_events[-1]))
        why = f"The DAGMan job died. {reason}."
        return _incident(run, matcher, "infrastructure/dagman-failed", "structure:dagman-crashed", 0.85, shown, why, run.history.last_time)
    lines = tuple(Line(message(line), line.number) for line in log.lines)
    findings = [
        finding
        for channel in (Channel(Kind.DAGMAN, log.file, lines, accept=frozenset({Kind.DAEMON})), *run_logs(run))
        for finding in matcher.match(channel)
        if not finding.cause.startswith("silent/") and not is_mild(finding.evidence.text)
    ]
    if findings:
        best = max(findings, key=lambda one: ({"specific": 2, "general": 1, "weak": 0}[one.strength.value], one.rank))
        return _incident(
            run,
            matcher,
            best.cause,
            f"rule:{best.rule}",
            0.8,
            (best.evidence,),
            f"No job explains the failure; DAGMan's log does. {reason}.",
            run.history.last_time,
        )
    tail = [line for line in log.lines if re.search(r"(?i)error|abort|fail|exit", line.text)][-3:]
    evidence = tuple(Evidence(log.file, line.number, message(line), Kind.DAGMAN) for line in tail)
    return _incident(
        run,
        matcher,
        "infrastructure/dagman-failed",
        "structure:dagman-end",
        0.6,
        evidence,
        f"{reason[0].upper()}{reason[1:]}.",
        run.history.last_time,
    )


def _restless(run: Run, matcher: Matcher) -> list[Incident]:
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
            _incident(
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


def _unmatchable(run: Run, state: RunState, matcher: Matcher) -> list[Incident]:
    """Jobs that waited in the queue, never started, and ask for what no ordinary slot offers."""
    waiting = [name for name, latest in run.history.latest.items() if latest in (JobState.QUEUED, JobState.FAILED)]
    found: list[tuple[Job, str]] = []
    for job in run.jobs([name.decode("utf-8", "replace") for name in waiting[:200]]):
        if job.attempts and _never_started(job.attempts[-1]):
            submitted = job.attempts[-1].last("SUBMIT")
            waited = run.history.last_time - submitted.when if submitted else 0.0
            if excess := excessive_request(job, waited * _IMPATIENCE if state is RunState.REMOVED else waited):
                found.append((job, excess))
    if not found:
        return []
    job, excess = found[0]
    key = excess.split(" ")[0]
    number = job.submit.line_of.get(key)
    since = job.attempts[-1].last("SUBMIT")
    evidence = (
        Evidence(job.submit.file, number, excess, Kind.SUBMIT),
        Evidence(run.history.file, since.number if since else None, f"{job.name} SUBMIT, and never EXECUTE", Kind.EVENT),
    )
    return [
        _incident(
            run,
            matcher,
            "resources/unmatchable-request",
            "structure:unmatchable",
            0.75,
            evidence,
            f"{job.name} waited in the queue and never started; it asks for {excess}.",
            since.when if since else 0.0,
            job,
            tuple(one.name for one, _ in found),
        )
    ]


def _never_started(attempt: Attempt) -> bool:
    return attempt.last("SUBMIT") is not None and not attempt.last("EXECUTE", "PRE_SCRIPT_FAILURE", "JOB_HELD", "SUBMIT_FAILED")


def excessive_request(job: Job, waited: float) -> str:
    """The request that keeps a job from starting, as ``request_memory = 999999 MB``; empty when there is none.

    What no ordinary slot offers counts at once; GPUs or requirements of the job's own only after it
    waited for :data:`_PATIENCE` seconds, because slots that fit may merely be busy.
    """
    limits = (("request_memory", _MANY_MB), ("request_cpus", _MANY_CORES), ("request_disk", _MANY_DISK_MB * 1024), ("request_gpus", 16))
    for key, limit in limits:
        value = job.submit.get(key).strip()
        amount = quantity(value, key)
        if amount is not None and amount > limit:
            return f"{key} = {value}"
    for key in ("request_gpus", "requirements"):
        value = job.submit.get(key).strip()
        if value and value != "0" and waited >= _PATIENCE:
            return f"{key} = {value[:200]}"
    return ""


def quantity(value: str, key: str) -> float | None:
    """A request in HTCondor's own unit for that key (memory MB, disk KB), or None when it is an expression."""
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)B?\s*", value, re.IGNORECASE)
    if not found:
        return None
    amount, unit = float(found[1]), found[2].upper()
    scale = (
        {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024}
        if key == "request_memory"
        else {"": 1.0, "K": 1.0, "M": 1024.0, "G": 1024.0**2, "T": 1024.0**3}
    )
    return amount * scale[unit]
