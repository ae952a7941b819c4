"""What later log evidence says: the attempts of an incident's jobs since the repair, and what is on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from doctor.errors import DoctorError
from doctor.model import Incident, JobState, Report, RunState
from doctor.repair import Check, Edit, Evidence, Plan, Queue, Verification
from doctor.run.reader import Run

Baseline = dict[str, dict[str, list[int]]]  # node path of the workflow -> job -> [attempts, states of the last]
ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.REMOVED, RunState.STALLED})
_NO_MORE = "the workflow has ended and the job was not tried again"


def where(part: Run) -> str:
    """Names a (sub-)workflow within its tree; a new plan of a sub-workflow keeps the name."""
    return "/".join(run.node for run in reversed(list(part.lineage())) if run.node)


def places(run: Run, incident: Incident) -> Iterator[tuple[Run, str]]:
    """The workflows in which an incident's jobs are, with the jobs' names."""
    wanted = list(dict.fromkeys((*incident.jobs, incident.diagnosis.culprit.job)))
    for name in (one for one in wanted if one):
        parts = [part for part in run.tree() if name.encode() in part.history.latest]
        bad = [part for part in parts if part.history.latest[name.encode()] in (JobState.FAILED, JobState.HELD)]
        for part in bad or parts[:1]:
            yield part, name


def baseline(run: Run, incident: Incident, new_run: bool = False) -> Baseline:
    """How far each job was when the repair was planned; in a new run all begin anew."""
    found: Baseline = {}
    for part, name in places(run, incident):
        attempts = part.job(name).attempts
        far = [len(attempts), len(attempts[-1].states)] if attempts and not new_run else [0, 0]
        found.setdefault(where(part), {})[name] = far
    return found


def not_tried_again(run: Run, known: dict[str, Any]) -> set[str]:
    """Jobs that have done nothing since the baseline."""
    parts = {where(part): part for part in run.tree()}
    found = set()
    for place, jobs in known.items():
        for name, (count, states) in jobs.items():
            attempts = parts[place].job(name).attempts if place in parts else []
            if len(attempts) <= count and (not attempts or len(attempts[-1].states) <= states):
                found.add(name)
    return found


def check(
    run: Run,
    incident: Incident,
    plan: Plan,
    known: dict[str, Any],
    report: Report,
    state: RunState,
    judge: Callable[[Plan, Evidence], Check],
) -> Check:
    """The verdict on one repair: recovered when every job of the incident succeeded after it."""
    if state is RunState.SUCCEEDED and not any(one.id == incident.id for one in report.incidents):
        return Check(Verification.RECOVERED, "the workflow ended with status 0")
    parts = {where(part): part for part in run.tree()}
    answers: list[Check] = []
    for place, jobs in known.items():
        for name, (count, states) in jobs.items():
            part = parts.get(place)
            evidence = Evidence(tuple(_since(part, name, count, states, incident, report)) if part else (), incident, state.value)
            answers.append(_one(plan, name, evidence, judge))
    if not answers:
        return _whole_run(incident, report, state)
    worse = [one for one in answers if one.result is Verification.WORSE]
    if worse:
        return worse[0]
    open_ones = [one for one in answers if one.result is Verification.NOT_YET]
    if open_ones:
        return open_ones[0]
    count = len(answers)
    return Check(Verification.RECOVERED, answers[0].reason if count == 1 else f"all {count} jobs succeeded after the repair")


def _one(plan: Plan, name: str, evidence: Evidence, judge: Callable[[Plan, Evidence], Check]) -> Check:
    from dataclasses import replace

    try:
        return judge(replace(plan, job=name), evidence)
    except Exception as bug:  # noqa: BLE001 - one action's fault is no fault of the loop
        return Check(Verification.NOT_YET, f"{plan.action} could not verify: {type(bug).__name__}: {bug}")


def _since(part: Run, name: str, count: int, states: int, incident: Incident, report: Report) -> Iterator[tuple[int, str, str]]:
    """Attempts after the repair; a held job that was released goes on in the same attempt."""
    for attempt in part.job(name).attempts:
        if attempt.index > count or (attempt.index == count and len(attempt.states) > states):
            final = attempt.final
            yield attempt.index, final.value, fingerprint(name, incident, report) if final in (JobState.FAILED, JobState.HELD) else ""


def fingerprint(name: str, incident: Incident, report: Report) -> str:
    """The incident that a failed job belongs to now; the same cause of the same job is the same incident."""
    for one in report.incidents:
        if name in one.jobs or name == one.diagnosis.culprit.job:
            same = one.diagnosis.cause == incident.diagnosis.cause
            return incident.id if same else one.id
    return ""


def _whole_run(incident: Incident, report: Report, state: RunState) -> Check:
    """For an incident of the run as a whole, which has no jobs."""
    again = any(one.id == incident.id or one.diagnosis.cause == incident.diagnosis.cause for one in report.incidents)
    if state in (RunState.RUNNING, RunState.HELD):
        return Check(Verification.NOT_YET, "the workflow runs again")
    if again:
        return Check(Verification.WORSE, "the same failure of the whole workflow again")
    if state is RunState.SUCCEEDED:
        return Check(Verification.RECOVERED, "the workflow ended with status 0")
    return Check(Verification.RECOVERED, f"it did not happen again; that the workflow is {state.value} now has another cause")


def no_more(reason: str) -> Check:
    """The final word when DAGMan is over and nothing new was seen."""
    return Check(Verification.WORSE, f"{_NO_MORE}: {reason}")


# -- after a crash: what of a plan was done? ----------------------------------------------------------


def done_edits(plan: Plan) -> list[Edit]:
    """Edits of a plan that are in place now (as far as the files show)."""
    return [edit for edit in plan.edits if _in_place(edit)]


def _in_place(edit: Edit) -> bool:
    try:
        info = os.lstat(edit.path)
    except OSError:
        return edit.after is None and edit.before is not None and not edit.directory
    if edit.directory:
        return os.path.isdir(edit.path)
    if edit.mode is not None and (info.st_mode & 0o7777) != edit.mode:
        return False
    if edit.before is None and edit.after is None:
        return True
    try:
        return edit.after is not None and Path(edit.path).read_bytes() == edit.after
    except OSError:
        return False


def answers(queue: Queue | None) -> bool:
    """Whether the queue can be asked; where there is none at all nothing is to be waited for."""
    if queue is None:
        return True
    try:
        queue.present("false")
    except DoctorError:
        return False
    return True


def done_in_queue(plan: Plan, queue: Queue | None, acted: Mapping[str, float]) -> bool:
    """Whether all queue edits of a plan are in force: attributes set, jobs released (or gone on).

    ``acted`` are the journal's entries with their times: a job that was put on hold after it was to be released
    has been released, and is held for a new reason.
    """
    if not plan.queue:
        return True
    if queue is None:
        return False
    try:
        for edit in plan.queue:
            if any(queue.get(edit.job_id, name) not in (value, None) for name, value in edit.attributes):
                return False
            held = str(queue.get(edit.job_id, "JobStatus")) == "5"
            intended = acted.get(f"queue {edit.job_id}: {edit.act}")
            anew = held and intended is not None and _number(queue.get(edit.job_id, "EnteredCurrentStatus")) > intended
            if (edit.act == "release" and held and not anew) or (edit.act == "hold" and not held):
                return False
    except DoctorError:
        return False
    return True


def _number(text: str | None) -> float:
    try:
        return float(text or 0.0)
    except ValueError:
        return 0.0
