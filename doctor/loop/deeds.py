"""The steps that change something or judge what was changed: act, rescue, verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from doctor.errors import DoctorError
from doctor.loop import guards, rescue, verify
from doctor.loop.records import IncidentRow, PlanRow
from doctor.loop.seams import Action, Event
from doctor.loop.settle import runner, settle
from doctor.loop.stages import ENDED, Stage
from doctor.loop.steps import Context, Look, escalate, history, known_failure, look, make
from doctor.repair import Applied, Check, Decision, Failed, RunView, Skipped, Verification

# -- act ----------------------------------------------------------------------------------------------


def settle_left(ctx: Context) -> None:
    """Before anything else: what a crash left in ``acting`` goes to the verification, not to a second attempt, and is settled."""
    for row in ctx.rows(Stage.ACTING):
        ctx.move(row, Stage.VERIFYING, "the doctor was interrupted between intent and result")
    left = [(row, chosen) for row in ctx.rows(Stage.VERIFYING) if (chosen := _cut_off(ctx, row)) is not None]
    if left:
        seen = look(ctx.seams, ctx.place)
        for row, chosen in left:
            settle(ctx, row, chosen, seen)


def _cut_off(ctx: Context, row: IncidentRow) -> PlanRow | None:
    """The plan that was being carried out when the doctor ended."""
    return next((one for one in ctx.seams.store.plans(row.id)[-1:] if one.state in ("acting", "approved")), None)


def act(ctx: Context) -> None:
    """Carry out what is approved."""
    rows = ctx.rows(Stage.PLANNED)
    if not rows:
        return
    seen = look(ctx.seams, ctx.directory)
    view = ctx.seams.view(seen.run, ctx.seams.queue)
    for row in rows:
        _act_one(ctx, row, seen, view)


def _act_one(ctx: Context, row: IncidentRow, seen: Look, view: RunView) -> None:
    store = ctx.seams.store
    latest = store.plans(row.id)[-1:]
    if not latest or latest[0].state != "approved":
        ctx.move(row, Stage.DIAGNOSED, "its plan is not approved any more")
        return
    chosen = latest[0]
    action = ctx.seams.actions.get(chosen.plan.action)
    if action is None:
        escalate(ctx, row, f"this doctor has no action {chosen.plan.action}")
        return
    chosen = _fresh(ctx, row, chosen, action, view, seen)
    past = history(ctx.seams, row, seen, view, action)
    answers = guards.ask_all(chosen.plan, row.incident, past, ctx.seams.policy)
    if guards.strictest(answers) is Decision.DENY:
        why = guards.reasons(answers, Decision.DENY)
        with store.batch():
            store.plan_state(chosen.id, "denied", why)
            store.add_verdict(chosen.id, answers)
            ctx.move(row, Stage.DIAGNOSED, f"no longer possible: {why}")
        return
    with store.batch():
        store.begin_attempt(row)
        store.plan_state(chosen.id, "acting")
    ctx.seams.tell(Event("acting", row.id, chosen.plan.summary))
    result = _apply(ctx, action, chosen, past.roots)
    _record(ctx, row, chosen, result)


def _record(ctx: Context, row: IncidentRow, chosen: PlanRow, result: Applied | Failed) -> None:
    """Write what came of an act, and where the incident goes from there, in one transaction."""
    store, name = ctx.seams.store, chosen.plan.action
    if isinstance(result, Applied):
        to, why = (Stage.RESCUING if result.plan.rescue else Stage.VERIFYING), result.plan.summary
        why += f": {result.plan.new_run}" if result.plan.new_run else ""
        with store.batch():
            store.add_plan(row, chosen.attempt, result.plan, chosen.key, chosen.baseline, id_=chosen.id)
            store.plan_state(chosen.id, "applied")
            store.move(row.id, to, why)
        ctx.seams.tell(Event("applied", row.id, why))
    else:
        left = "nothing was changed" if result.undone else "what was changed could not be taken back wholly; see `show`"
        to, why = (Stage.VERIFYING if result.undone else Stage.ESCALATED), f"{name} failed: {result.reason}; {left}"
        with store.batch():
            store.plan_state(chosen.id, "failed", result.reason)
            store.move(row.id, to, why)
    ctx.seams.tell(Event(to.value, row.id, why))


def _fresh(ctx: Context, row: IncidentRow, chosen: PlanRow, action: Action, view: RunView, seen: Look) -> PlanRow:
    """The plan as it must be now: another repair of this session may have edited the same file meanwhile."""
    if not any(_stale(edit.path, edit.before) for edit in chosen.plan.edits if not edit.directory):
        return chosen
    made = make(action, row.incident, chosen.plan.params, view, ctx.seams.policy.action_caps())
    if isinstance(made, Skipped) or made.params != chosen.plan.params:
        return chosen
    ctx.seams.store.add_plan(row, chosen.attempt, made, chosen.key, chosen.baseline, id_=chosen.id)
    return replace(chosen, plan=made)


def _stale(path: str, before: bytes | None) -> bool:
    if before is None:
        return False
    try:
        return Path(path).read_bytes() != before
    except OSError:
        return False


def _apply(ctx: Context, action: Action, chosen: PlanRow, roots: Sequence[Path]) -> Applied | Failed:
    try:
        return action.apply(chosen.plan, runner(ctx.seams, chosen.id, roots))
    except Exception as bug:  # noqa: BLE001 - one action's fault must not stop the loop
        return Failed(chosen.plan, f"{type(bug).__name__}: {bug}", False)


# -- rescue -------------------------------------------------------------------------------------------


def submit_rescue(ctx: Context) -> float:
    """One rescue for all repairs that are ready. The time to look again, 0 when it is settled."""
    rows = ctx.rows(Stage.RESCUING)
    if not rows:
        return 0.0
    seams = ctx.seams
    again = seams.store.planned_again(ctx.key)
    if again:
        rows = _of_new_run(ctx, rows, again)
    try:
        run = rescue.root_of(seams.open(Path(again or ctx.directory)))
    except DoctorError as problem:
        if not again:
            raise
        for row in rows:
            escalate(ctx, row, f"the workflow was planned again, and there is no run to submit: {problem}")
        return 0.0
    plans = [latest for row in rows for latest in seams.store.plans(row.id, states=("applied",))[-1:]]
    since = ctx.began
    pauses = [(one.applied or 0.0) + one.plan.delay_s for one in plans]
    latest = max((float(row["ended"] or 0.0) for row in seams.store.rescues(ctx.key, since=since)), default=0.0)
    not_before = max([*pauses, latest + rescue.back_off(seams, ctx.key, since) if latest else 0.0])
    answer = rescue.step(run, seams, ctx.key, not_before, first=bool(again))
    if answer.progress is rescue.Progress.PENDING:
        seams.tell(Event("rescue-pending", "", answer.reason))
        return max(answer.again_at, seams.clock())
    with seams.store.batch():
        if answer.rescue:
            seams.store.end_rescue(answer.rescue, ctx.key, answer.progress.value, answer.reason)
        for row in rows:
            _after_rescue(ctx, row, answer, again)
    return 0.0


def _after_rescue(ctx: Context, row: IncidentRow, answer: rescue.Answer, again: str) -> None:
    if answer.progress is rescue.Progress.STARTED:
        ctx.move(row, Stage.VERIFYING, f"{again}: {answer.reason}" if again else answer.reason)
    elif again:
        escalate(ctx, row, f"{again} was planned but not started: {answer.reason}")
    else:
        escalate(ctx, row, f"the rescue failed: {answer.reason}")


def _of_new_run(ctx: Context, rows: list[IncidentRow], again: str) -> list[IncidentRow]:
    """Of the repairs that are ready those that are in the new run; the others went into the old one, which is not run any more."""
    new = []
    for row in rows:
        if any(one.plan.new_run == again for one in ctx.seams.store.plans(row.id, states=("applied",))[-1:]):
            new.append(row)
        else:
            escalate(ctx, row, f"the run was planned again, without this repair; go on with `pegasus-doctor heal {again}`")
    return new


# -- verify -------------------------------------------------------------------------------------------


def verify_all(ctx: Context) -> tuple[bool, bool]:
    """Judge every repair by what the logs say since. (something is still open, something new is wrong)"""
    rows = ctx.rows(Stage.VERIFYING)
    seen = look(ctx.seams, ctx.place)
    ctx.seams.store.see_run(seen.report.run)
    pending = [_verify_one(ctx, row, seen) for row in rows]
    if ctx.seams.store.planned_again(ctx.key):  # what else is wrong in the new run is that run's own matter
        return bool(ctx.rows(Stage.VERIFYING)) and not seen.ended, False
    mine = {row.incident.id for row in ctx.rows()}
    new = [one for one in seen.report.incidents if one.id not in mine and not known_failure(ctx, one, seen)]
    again = [row for row in ctx.rows(Stage.RECOVERED) if any(one.id == row.incident.id for one in seen.report.incidents)]
    return any(pending) or (bool(ctx.rows(Stage.VERIFYING)) and not seen.ended), bool(new or again)


def _verify_one(ctx: Context, row: IncidentRow, seen: Look) -> bool:
    """Judge one repair. True when what was interrupted may still come to its end by itself."""
    if (chosen := _cut_off(ctx, row)) is not None:
        if settle(ctx, row, chosen, seen):
            return True
        if row.id not in {one.id for one in ctx.rows(Stage.VERIFYING)}:
            return False
    _judge(ctx, row, next(iter(ctx.seams.store.plans(row.id)[-1:]), None), seen)
    return False


def _judge(ctx: Context, row: IncidentRow, chosen: PlanRow | None, seen: Look) -> None:
    store = ctx.seams.store
    if chosen is None:
        escalate(ctx, row, "its plan is gone")
        return
    if chosen.state in ("failed", "interrupted"):
        _close(ctx, row, chosen, Check(Verification.NOT_YET, chosen.reason))
        return
    action = ctx.seams.actions.get(chosen.plan.action)
    assert action is not None, "an applied plan names a known action"
    answer = verify.check(seen.run, row.incident, chosen.plan, chosen.baseline, seen.report, seen.report.run.state, action.verify)
    if answer.result is Verification.NOT_YET and chosen.plan.action == "halt-workflow":
        if seen.ended:
            _close(ctx, row, chosen, answer)
        return
    if answer.result is Verification.NOT_YET:
        limit = (chosen.applied or chosen.created) + ctx.seams.policy.verify.timeout_s
        if seen.ended:
            _close(ctx, row, chosen, verify.no_more(answer.reason))
        elif ctx.seams.clock() > limit and not (chosen.plan.new_run and seen.active):  # a new run begins from the beginning
            with store.batch():
                store.add_outcome(row, chosen.attempt, answer.result.value, answer.reason)
                escalate(ctx, row, f"no evidence for {ctx.seams.policy.verify.timeout_s:.0f} s: {answer.reason}")
        return
    if answer.result is Verification.WORSE and not chosen.plan.new_run and _another(ctx, row, seen):
        return  # another failure of the same job is being dealt with; this repair is judged after it
    _close(ctx, row, chosen, answer)


def _another(ctx: Context, row: IncidentRow, seen: Look) -> bool:
    """Whether the job fails for another reason now, which is (or is about to be) an incident of its own."""
    jobs = set(row.incident.jobs)
    others = [
        one for one in seen.report.incidents
        if one.diagnosis.cause != row.incident.diagnosis.cause and jobs & {*one.jobs, one.diagnosis.culprit.job}
    ]  # fmt: skip
    if not others or any(one.diagnosis.cause == row.incident.diagnosis.cause for one in seen.report.incidents):
        return False
    known = {one.incident.id: one for one in ctx.rows()}
    return any(one.id not in known or known[one.id].stage not in ENDED for one in others)


def _close(ctx: Context, row: IncidentRow, chosen: PlanRow, answer: Check) -> None:
    """Write the outcome; a repair that did not help leads to the next remedy (or to a person)."""
    with ctx.seams.store.batch():
        ctx.seams.store.add_outcome(row, chosen.attempt, answer.result.value, answer.reason)
        _move_on(ctx, row, chosen, answer)


def _move_on(ctx: Context, row: IncidentRow, chosen: PlanRow, answer: Check) -> None:
    if answer.result is Verification.RECOVERED:
        ctx.move(row, Stage.RECOVERED, f"{answer.reason} in {chosen.plan.new_run}" if chosen.plan.new_run else answer.reason)
    elif chosen.plan.new_run and chosen.state == "applied":
        where = f"go on with `pegasus-doctor heal {chosen.plan.new_run}`"
        escalate(ctx, row, f"the run was planned again ({chosen.plan.action}), which did not help: {answer.reason}; {where}")
    else:
        ctx.move(row, Stage.DIAGNOSED, f"{chosen.plan.action} did not help: {answer.reason}")
