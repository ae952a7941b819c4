"""The diagnosis engine: one run in, one report out. Used by ``analyze``, ``heal`` and the daemon alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from doctor.diagnose import causality, hosts, runlevel, silent
from doctor.diagnose.attempt import judge
from doctor.diagnose.evidence import gather
from doctor.diagnose.matcher import Matcher
from doctor.diagnose.verdict import freeze
from doctor.model import Diagnosis, JobState, Report, RunState, RunSummary, Symptom
from doctor.run.jobstate import Attempt
from doctor.run.nearby import Nearby
from doctor.run.reader import Job, Run
from doctor.run.state import run_state, total_counts

Progress = Callable[[int, int], None]  # (done, total) failed jobs
SilentMode = Literal["auto", "all", "off"]
_HISTORY = 50  # recovered attempts that are listed


@dataclass(frozen=True, slots=True)
class Options:
    """``silent``: which succeeded jobs are read for silent failures (auto: when they are few)."""

    silent: SilentMode = "auto"


def analyze(run: Run, matcher: Matcher, options: Options | None = None, progress: Progress | None = None) -> Report:
    """Diagnose everything that is wrong in a run and its sub-workflows.

    Never raises for what the directory holds; what could not be read stands in ``unreadable``.
    """
    options = options or Options()
    counts = total_counts(run)
    state, reason = run_state(run, counts)
    failed = [job for part in run.tree() for job in _failed_jobs(part, state)]
    diagnoses: list[tuple[str, Diagnosis]] = []
    nearby: dict[int, Nearby] = {}
    for done, job in enumerate(failed):
        if progress is not None:
            progress(done, len(failed))
        around = nearby.setdefault(id(job.run), Nearby(job.run))
        diagnoses.append((job.name, diagnose_job(job, matcher, around)))
    if progress is not None:
        progress(len(failed), len(failed))
    incidents = hosts.blame_nodes(run, causality.group(diagnoses), matcher.library)
    incidents = runlevel.add(run, state, reason, incidents, matcher)
    summary = RunSummary(
        submit_dir=str(run.directory),
        label=run.identity.dax_label,
        wf_uuid=run.identity.wf_uuid,
        root_wf_uuid=run.identity.root_wf_uuid,
        state=state,
        state_reason=reason,
        jobs=counts,
    )
    warnings = silent.scan(run, matcher, options.silent)
    return Report(summary, tuple(incidents), tuple(warnings), run.files.ledger.unreadable(), tuple(_history(run)))


def diagnose_job(job: Job, matcher: Matcher, nearby: Nearby) -> Diagnosis:
    """The diagnosis of a job's latest failed attempt."""
    attempt = job.attempts[-1]
    verdict = judge(gather(job, attempt), matcher, nearby)
    causality.follow_dataflow(verdict)
    return freeze(verdict, matcher.library)


def _failed_jobs(run: Run, state: RunState) -> Iterator[Job]:
    """Jobs whose latest attempt failed or is held, sub-workflow nodes left out where their inside explains them."""
    names = run.history.names(JobState.FAILED) + run.history.names(JobState.HELD)
    for job in run.jobs(names):
        if not job.attempts or _explained_inside(job) or _merely_removed(job, state):
            continue
        yield job
    if not run.history.latest and run.last_rescue is not None:  # both logs are gone; the rescue DAG names what failed
        for job in run.jobs(list(run.last_rescue.failed)):
            job.attempts = [Attempt(job.name, 0, 1)]
            yield job


def _explained_inside(job: Job) -> bool:
    if job.name not in job.run.dag.sub_workflows:
        return False
    child = job.run.children.get(job.name)
    if child is None or job.attempts[-1].last("PRE_SCRIPT_FAILURE"):
        return False
    inside = total_counts(child)
    return bool(inside.failed or inside.held)


def _merely_removed(job: Job, state: RunState) -> bool:
    """Removed from the queue without having failed or been held: that is no failure of the job's own.

    Where the run itself goes on, a person removed this one job, and that is worth telling.
    """
    attempt = job.attempts[-1]
    if not attempt.last("JOB_ABORTED") or attempt.last(
        "JOB_HELD", "JOB_HELD_REASON", "JOB_FAILURE", "SHADOW_EXCEPTION", "EXECUTABLE_ERROR"
    ):
        return False
    reasons = [event.text for event in job.run.events_of(attempt.condor_id) if event.kind == "aborted"]
    by_dagman = any("DAG Abort" in text or "DAGMan" in text for text in reasons)
    return by_dagman or state is RunState.REMOVED or not reasons


def _history(run: Run) -> Iterator[Symptom]:
    """Attempts that failed and whose retry succeeded."""
    count = 0
    for part in run.tree():
        recovered = [
            name.decode("utf-8", "replace") for name in part.history.troubled if part.history.latest.get(name) is JobState.SUCCEEDED
        ]
        for job in part.jobs(recovered[:_HISTORY]):
            bad = [attempt for attempt in job.attempts if attempt.final is not JobState.SUCCEEDED]
            for attempt in bad:
                line = attempt.states[-1]
                count += 1
                if count > _HISTORY:
                    return
                yield Symptom(
                    job.name, f"attempt {attempt.index} ended {line.state}, a later one succeeded", part.history.file, line.number
                )
