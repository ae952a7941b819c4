"""Causes that belong to the run and to no single job: removed, DAGMan or monitord dead."""

from __future__ import annotations

import re

from doctor.diagnose import waiting
from doctor.diagnose.causality import importance, run_incident
from doctor.diagnose.choose import is_mild
from doctor.diagnose.evidence import run_logs
from doctor.diagnose.matcher import Matcher
from doctor.model import Channel, Evidence, Incident, Kind, Line, RunState
from doctor.run.dagmanlog import message
from doctor.run.events import JobEvent
from doctor.run.monitord import monitord_runs
from doctor.run.reader import Run

_RESTART = 3  # DAGMan's exit status when its job is held, or HTCondor is to start it again


def add(run: Run, state: RunState, reason: str, incidents: list[Incident], matcher: Matcher) -> list[Incident]:
    """The incidents with those of the run as a whole added, most important first."""
    added: list[Incident] = []
    if state in (RunState.REMOVED, RunState.RUNNING, RunState.STALLED, RunState.HELD, RunState.FAILED):
        added += [one for part in run.tree() for one in waiting.unmatchable(part, state, matcher)]
    if state is not RunState.SUCCEEDED:
        added += [one for part in run.tree() for one in waiting.restless(part, matcher)]
    if state is RunState.HELD and run.dagman.exit_status == _RESTART and not _own_hold(run):
        return sorted([*incidents, *added], key=importance)  # DAGMan is being stopped; why will be in its job's log
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
    if run.parent is not None or run.dagman.exit_status in (None, _RESTART) or not started or finished or len(marks) < 2:
        return []  # monitord ends with a DAGMan that is held, and goes on with it
    if monitord_runs(run):
        return []  # it lags some seconds behind DAGMan
    shown = [Evidence(run.files.name(run.directory / name), None, f"{name} was left behind", Kind.RUN) for name in marks]
    if run.dagman.exit_line is not None:
        shown.append(Evidence(run.dagman.file, run.dagman.exit_line.number, message(run.dagman.exit_line), Kind.DAGMAN))
    why = "DAGMan has ended, but monitord has not recorded that end and left its recovery files: it died on the way."
    return [
        run_incident(
            run, matcher, "infrastructure/monitord-failed", "structure:monitord-gone", 0.8, tuple(shown), why, run.history.last_time
        )
    ]


def _removed(run: Run, reason: str, matcher: Matcher) -> Incident:
    log = run.dagman
    line = log.removed or log.exit_line
    evidence = [Evidence(log.file, line.number, message(line), Kind.DAGMAN)] if line else []
    own = run.directory / f"{run.identity.dag}.dagman.log"
    text = run.files.text(own, head=0, tail=64 << 10, quiet=True)
    evidence += [Evidence(text.file, row.number, row.text.strip(), Kind.EVENT) for row in text.lines if "condor_rm" in row.text][-1:]
    return run_incident(
        run,
        matcher,
        "policy/workflow-removed",
        "structure:removed",
        0.9,
        tuple(evidence),
        f"{reason[0].upper()}{reason[1:]}.",
        run.history.last_time,
    )


def _own_hold(run: Run) -> bool:
    """Whether the log of the DAGMan job ends with its being held."""
    return bool(run.own_events) and run.own_events[-1].kind == "held"


def _own(run: Run, event: JobEvent) -> Evidence:
    return Evidence(f"{run.identity.dag}.dagman.log", event.line, event.text, Kind.EVENT)


def _dagman(run: Run, state: RunState, reason: str, matcher: Matcher) -> Incident:
    """DAGMan ended (or vanished) and no job explains it: what does its log say?"""
    log = run.dagman
    crashed = [event for event in run.own_events if event.kind == "evicted" and "bnormal termination" in event.text]
    if crashed:
        shown = tuple(_own(run, event) for event in (crashed[-1], run.own_events[-1]))
        why = f"The DAGMan job died. {reason}."
        return run_incident(
            run, matcher, "infrastructure/dagman-failed", "structure:dagman-crashed", 0.85, shown, why, run.history.last_time
        )
    lines = tuple(Line(message(line), line.number) for line in log.lines)
    findings = [
        finding
        for channel in (Channel(Kind.DAGMAN, log.file, lines, accept=frozenset({Kind.DAEMON})), *run_logs(run), run_facts(run, state))
        for finding in matcher.match(channel)
        if not finding.cause.startswith("silent/") and not is_mild(finding.evidence.text)
    ]
    if findings:
        best = max(findings, key=lambda one: (one.strength.order, one.rank))
        return run_incident(
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
    return run_incident(
        run,
        matcher,
        "infrastructure/dagman-failed",
        "structure:dagman-end",
        0.6,
        evidence,
        f"{reason[0].upper()}{reason[1:]}.",
        run.history.last_time,
    )


def run_facts(run: Run, state: RunState) -> Channel:
    """Facts of the run as a whole, one a line, for rules of the evidence kind ``run``."""
    dag = run.identity.dag
    marks = [name for name in ("monitord.pid", "monitord.recover", f"{dag}.lock", f"{dag}.halt") if (run.directory / name).exists()]
    lines = [f"state: {state.value}", f"planner arguments: {run.identity.planner_arguments}"]
    lines += [f"file left behind: {name}" for name in marks]
    lines += [f"rescue DAG: {run.files.name(path)}" for path in run.rescues[-1:]]
    return Channel(Kind.RUN, run.files.name(run.directory / "braindump.yml"), tuple(Line(text) for text in lines))
