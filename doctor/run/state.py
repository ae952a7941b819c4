"""State of a run with its reason, from the submit directory alone."""

from __future__ import annotations

import os

from doctor.model import JobCounts, RunState
from doctor.run.dagmanlog import RESTART
from doctor.run.reader import Run


def total_counts(run: Run) -> JobCounts:
    """Jobs of the run and all its sub-workflows together."""
    names = ("total", "succeeded", "failed", "held", "running", "queued", "unsubmitted")
    parts = [part.counts for part in run.tree()]
    return JobCounts(**{name: sum(getattr(part, name) for part in parts) for name in names})


def run_state(run: Run, counts: JobCounts) -> tuple[RunState, str]:
    """Whether the run goes on or how it ended, and the fact that says so."""
    log = run.dagman
    finished = [entry for entry in run.history.internal if entry.what == "DAGMAN_FINISHED"]
    starts = [entry for entry in run.history.internal if entry.what == "DAGMAN_STARTED"]
    if log.started or log.exit_status is not None:
        exit_status: int | None = log.exit_status
        where = f"{log.file}:{log.exit_line.number}" if log.exit_line else log.file
    elif finished and (not starts or finished[-1].number > starts[-1].number):
        value = finished[-1].value
        exit_status = int(value) if value.isdigit() else 1
        where = f"{run.history.file}:{finished[-1].number}"
    else:
        exit_status, where = None, run.history.file
    if exit_status is None and not log.started and not run.history.latest:
        if log.present:
            return RunState.UNKNOWN, f"{log.file} holds no start of DAGMan"
        if run.last_rescue is not None:
            return RunState.FAILED, f"the logs are gone; {run.last_rescue.file} names {len(run.last_rescue.failed)} failed jobs"
        if os.path.isfile(run.directory / (run.identity.dag or "?")):
            return RunState.NEVER_STARTED, "planned, but DAGMan has never written a log"
        return RunState.UNKNOWN, "neither a DAG nor a log of DAGMan"
    if exit_status == 0:
        return RunState.SUCCEEDED, f"DAGMan ended with status 0 ({where})"
    if exit_status is not None and (log.removed is not None or log.dag_status == 4):
        return RunState.REMOVED, f"DAGMan was told to stop and removed its jobs ({where})"
    if exit_status == 2 and log.dag_status in (0, 4) and counts.failed == 0:
        return RunState.REMOVED, f"DAGMan ended with status 2 ({where})"
    if exit_status == RESTART:
        return RunState.HELD, f"the DAGMan job itself was held or restarted ({where})"
    if exit_status is not None:
        return RunState.FAILED, f"DAGMan ended with status {exit_status} ({where})"
    return _unfinished(run, counts)


def _unfinished(run: Run, counts: JobCounts) -> tuple[RunState, str]:
    own = run.own_events[-1] if run.own_events else None
    if own is not None and own.kind == "aborted":
        return RunState.REMOVED, f"the DAGMan job was removed: {own.text}"
    if own is not None and own.kind == "held":
        return RunState.HELD, f"the DAGMan job itself is held: {own.text}"
    if os.path.exists(run.directory / "monitord.done") and not os.path.exists(run.directory / f"{run.identity.dag}.lock"):
        return RunState.STALLED, "monitord finished and no DAGMan lock is left, but DAGMan logged no end: it died"
    if counts.held and not counts.running and not counts.queued:
        return RunState.HELD, f"{counts.held} job{'s' if counts.held > 1 else ''} held and nothing else in the queue"
    if counts.held and not counts.running:
        return RunState.HELD, f"{counts.held} held, {counts.queued} waiting, none running"
    return RunState.RUNNING, "DAGMan has logged no end yet"
