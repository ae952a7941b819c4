"""``heal``: the whole loop once for one run, with what came of it as one record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from doctor.errors import DoctorError
from doctor.loop import deeds, guards, steps
from doctor.loop.news import handed_over
from doctor.loop.records import IncidentRow
from doctor.loop.seams import Event, Seams
from doctor.loop.settle import runner
from doctor.loop.stages import ENDED, Stage
from doctor.loop.steps import Context, Look
from doctor.model import RunSummary
from doctor.repair import Applied, Decision, Failed, Plan
from doctor.run.reader import Run
from doctor.statedir import BusyRun, run_key, run_lock
from doctor.store import Store

HEALTHY, RECOVERED, ESCALATED, WAITING = "healthy", "recovered", "escalated", "waiting"
_DEPTH = 24
_GLANCE_S = 0.5  # seconds between two looks at the one log that says when DAGMan has left the queue
_ENDING_S = 300.0  # seconds after DAGMan's last word in which its job leaves the queue


@dataclass(frozen=True, slots=True)
class ActionTaken:
    """One repair that was proposed or carried out."""

    plan: Plan
    verdict: Decision
    applied: bool
    state: str
    reason: str
    diff: str


@dataclass(frozen=True, slots=True)
class Treated:
    """One incident with what was done about it."""

    row: IncidentRow
    outcome: str
    reason: str
    actions: tuple[ActionTaken, ...]


@dataclass(frozen=True, slots=True)
class Healed:
    """What came of one call."""

    run: RunSummary
    outcome: str
    reason: str
    treated: tuple[Treated, ...]
    rescues: int
    dry: bool = False
    again: RunSummary | None = None  # the run that was planned in its place

    @property
    def exit_code(self) -> int:
        return {HEALTHY: 0, RECOVERED: 0, ESCALATED: 1, WAITING: 3}[self.outcome]


def root_directory(seams: Seams, directory: Path) -> Path:
    """The root workflow's submit directory of the run that a person named (it may be a sub-workflow)."""
    run = seams.open(directory)
    own, root = run.identity.wf_uuid, run.identity.root_wf_uuid
    if not root or not own or own == root:
        return run.directory
    for place in list(run.directory.parents)[:_DEPTH]:
        if (place / "braindump.yml").is_file():
            above = seams.open(place)
            if above.identity.wf_uuid == root:
                return above.directory
    raise DoctorError(
        "this is a sub-workflow, and its root workflow is not above it; give the root's submit directory", file=str(directory)
    )


def heal(seams: Seams, directory: Path, timeout: float | None = None, follow: bool = True, called: bool = True) -> Healed:
    """Diagnose, repair, rescue and verify; returns when all is settled, a person is asked, or time is up.

    ``called`` by a person, it tries again what it handed to a person before; the daemon leaves that until there is more to tell.
    """
    root, began = _current(seams, directory), seams.clock()
    with run_lock(seams.store.folder, str(root)):
        healed = _heal(seams, root, timeout, follow, called)
    if healed.again is None or healed.outcome != RECOVERED:
        return healed
    left = None if timeout is None else max(0.0, began + timeout - seams.clock())
    return _go_on(seams, healed, Path(healed.again.submit_dir), left, follow, called)


def _current(seams: Seams, directory: Path) -> Path:
    """The root directory of the run that is to be healed: where it was planned again before, the new one."""
    root = root_directory(seams, directory)
    key = run_key(str(root))
    again = "" if seams.store.session(key) else seams.store.planned_again(key)
    return Path(again) if again and Path(again).is_dir() else root


def _go_on(seams: Seams, healed: Healed, place: Path, timeout: float | None, follow: bool, called: bool) -> Healed:
    """What was planned again has cured its incident; whatever else is wrong in the new run is healed there."""
    try:
        with run_lock(seams.store.folder, str(place)):
            later = _heal(seams, place, timeout, follow, called)
    except BusyRun:  # a daemon follows the new run already
        return healed
    if later.outcome == HEALTHY:
        return healed
    return replace(
        healed, outcome=later.outcome, reason=later.reason, treated=healed.treated + later.treated,
        rescues=healed.rescues + later.rescues, again=later.run,
    )  # fmt: skip


def _heal(seams: Seams, root: Path, timeout: float | None, follow: bool, called: bool) -> Healed:
    store = seams.store
    seen = steps.look(seams, root)
    key = run_key(str(root))
    if not store.session(key):
        if steps.idle(seen):
            return Healed(seen.report.run, HEALTHY, _healthy(seen), (), 0)
        if all(handed_over(seams, key, one, seen, 0, called) for one in seen.report.incidents):
            return Healed(seen.report.run, ESCALATED, "nothing new: a person has been told of all that is wrong", (), 0)
        store.see_run(seen.report.run)
    began = seams.clock()
    ctx = Context(seams, root, key, store.begin_session(key), called)
    steps.close_healed(ctx, seen)
    deeds.settle_left(ctx)
    over = False
    with _graph(ctx, follow) as graph:
        while True:
            asked = graph.go()
            if asked is None:
                over = True
                break
            if asked["kind"] == "approval":
                break
            left = None if timeout is None else began + timeout - seams.clock()
            if left is not None and left <= 0:
                break
            if timeout is None and not _worth_waiting(ctx):
                break
            _until_news(ctx, float(asked.get("again_at") or 0.0), left)
        if over:
            steps.give_up_rest(ctx)
            graph.forget()
            store.end_session(key)
    return result(ctx, steps.look(seams, root))


@contextmanager
def _graph(ctx: Context, follow: bool) -> Iterator[Any]:
    from doctor.loop.graph import Graph

    graph = Graph(ctx, follow)
    try:
        yield graph
    finally:
        graph.close()


def _worth_waiting(ctx: Context) -> bool:
    """Without a time limit: wait for the outcome of what the doctor did, never for a workflow it did not touch."""
    if ctx.rows(Stage.RESCUING, Stage.VERIFYING, Stage.ACTING) or ctx.acted():
        return True
    seen = steps.look(ctx.seams, ctx.directory)
    try:
        quiet = ctx.seams.clock() - seen.run.dagman_path.stat().st_mtime
    except OSError:
        return False
    return seen.ending and quiet < _ENDING_S


def _until_news(ctx: Context, again_at: float, left: float | None) -> None:
    """Sleep until a log has grown, the given time has come, or the time is up.

    DAGMan's job leaves the queue some seconds after DAGMan's last word; only its own event log tells
    when, so that one is glanced at more often than the others.
    """
    seams = ctx.seams
    run = seams.open(ctx.place)
    before, own = signature(run), _own_log(run)
    waited, poll = 0.0, seams.policy.verify.poll_s
    longest = poll if run.dagman.exit_status is not None else 12 * poll
    while True:
        pause = poll if not again_at else max(0.05, min(poll, again_at - seams.clock()))
        if left is not None:
            pause = max(0.0, min(pause, left - waited))
        waited += pause
        while pause > 0:
            seams.sleep(min(pause, _GLANCE_S))
            pause -= _GLANCE_S
            if _own_log(run) != own:
                seams.sleep(_GLANCE_S)  # the queue follows its log
                return
        if (again_at and seams.clock() >= again_at) or waited >= longest or (left is not None and waited >= left):
            return
        if signature(seams.open(ctx.place)) != before:
            return


def _own_log(run: Run) -> int:
    """Size of the event log of the DAGMan job itself."""
    try:
        return (run.directory / f"{run.identity.dag}.dagman.log").stat().st_size
    except OSError:
        return -1


def signature(run: Run) -> tuple[tuple[str, int, int], ...]:
    """Sizes and times of the logs that tell how a run goes on; it changes when there is news."""
    found = []
    for part in run.tree():
        for path in (part.directory / part.identity.jsd, part.dagman_path, part.directory / part.identity.condor_log):
            try:
                info = path.stat()
            except OSError:
                continue
            found.append((str(path), info.st_size, info.st_mtime_ns))
    return tuple(found)


def _healthy(seen: Look) -> str:
    return f"nothing is wrong: {seen.report.run.state_reason}"


# -- the result ---------------------------------------------------------------------------------------


def result(ctx: Context, seen: Look) -> Healed:
    """What the store knows of this session, as one record."""
    found = tuple(treated(ctx.seams.store, ctx.seams.diff, row, ctx.began) for row in ctx.rows())
    outcomes = [one.outcome for one in found]
    if WAITING in outcomes:
        outcome = WAITING
    elif ESCALATED in outcomes:
        outcome = ESCALATED
    else:
        outcome = RECOVERED if outcomes else HEALTHY
    rescues = len(ctx.seams.store.rescues(ctx.key, state="started", since=ctx.began))
    again = steps.look(ctx.seams, ctx.place).report.run if ctx.place != ctx.directory else None
    return Healed(seen.report.run, outcome, (again or seen.report.run).state_reason, found, rescues, again=again)


def treated(store: Store, diff: Callable[[Plan], str], row: IncidentRow, since: float = 0.0) -> Treated:
    """One incident with what was planned or done about it since a time."""
    actions = []
    for one in store.plans(row.id):
        if one.created < since:
            continue
        answers = store.verdicts(one.id)
        decided = {entry["decision"] for entry in answers}
        verdict = Decision.DENY if "deny" in decided else Decision.ASK if "ask" in decided else Decision.ALLOW
        applied = one.state == "applied"
        why = one.reason or "; ".join(entry["reason"] for entry in answers if entry["reason"])
        actions.append(ActionTaken(one.plan, verdict, applied, one.state, why, diff(one.plan)))
    outcome = row.stage.value if row.stage in (Stage.RECOVERED, Stage.ESCALATED) else WAITING
    return Treated(row, outcome, row.reason, tuple(actions))


def rehearse(seams: Seams, directory: Path) -> Healed:
    """The dry run: diagnosis, plans and the guards' answers. Nothing is written and no process is started.

    ``seams.store`` must be a throw-away copy (:func:`doctor.store.scratch_copy`).
    """
    root = _current(seams, directory)
    seen = steps.look(seams, root)
    if steps.idle(seen):
        return Healed(seen.report.run, HEALTHY, _healthy(seen), (), 0, dry=True)
    key = seams.store.see_run(seen.report.run)
    ctx = Context(seams, root, key, seams.store.begin_session(key))
    view = seams.view(seen.run, seams.queue)
    found = []
    for incident in seen.report.incidents:
        row = seams.store.open_incident(key, incident, ctx.session)
        drafts = steps.drafts(seams, row, seen, view)
        actions = tuple(
            ActionTaken(one.plan, one.decision, False, "proposed" if one.decision is not Decision.DENY else "denied",
                        one.why_not or guards.reasons(one.answers, Decision.ASK), seams.diff(one.plan))
            for one in drafts if one.plan is not None
        )  # fmt: skip
        possible = any(one.verdict is not Decision.DENY for one in actions)
        why = "; ".join(one.why_not for one in drafts if one.why_not) or ("" if possible else "no repair that a program may make")
        found.append(Treated(row, WAITING if possible else ESCALATED, why, actions))
    outcome = WAITING if any(one.outcome == WAITING for one in found) else ESCALATED
    return Healed(seen.report.run, outcome, "dry run: nothing was changed", tuple(found), 0, dry=True)


# -- undo ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Undone:
    """One plan taken back, or why it could not be."""

    plan: Plan
    done: bool
    reason: str


def undo(seams: Seams, row: IncidentRow) -> list[Undone]:
    """Take back every repair of an incident, newest first; stops at the first that cannot be."""
    found: list[Undone] = []
    with run_lock(seams.store.folder, row.submit_dir):
        run = seams.open(Path(row.submit_dir))
        roots = seams.policy.roots(run)
        for one in reversed(seams.store.plans(row.id, states=("applied", "failed", "acting"))):
            if one.applied is None and not seams.store.entries(one.id, states=("done", "intended")):
                continue
            action = seams.actions.get(one.plan.action)
            if action is None:
                found.append(Undone(one.plan, False, "this doctor has no such action"))
                break
            entries = tuple(entry.id for entry in seams.store.entries(one.id))
            back = action.undo(Applied(one.plan, entries, one.applied or 0.0), runner(seams, one.id, roots))
            if isinstance(back, Failed):
                found.append(Undone(one.plan, False, back.reason))
                break
            with seams.store.batch():
                seams.store.plan_state(one.id, "undone")
                seams.store.note(row.run, row.id, "undone", one.plan.summary)
            seams.tell(Event("undone", row.id, one.plan.summary))
            found.append(Undone(one.plan, True, ""))
        if found and all(one.done for one in found) and row.stage not in ENDED:
            seams.store.move(row.id, Stage.ESCALATED, "undone by a person")
    return found
