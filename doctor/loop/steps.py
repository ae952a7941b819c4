"""The steps of the loop: each takes the run and the store from one state of its incidents to the next.

The store is the truth; the graph (:mod:`doctor.loop.graph`) only decides which step comes next. Every
step may be cut off at any point and called again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from doctor.diagnose.engine import Options, analyze
from doctor.diagnose.library import Library
from doctor.errors import DoctorError
from doctor.loop import guards, rescue, verify
from doctor.loop.records import IncidentRow, PlanRow
from doctor.loop.seams import Action, Event, Seams
from doctor.loop.stages import ENDED, Stage
from doctor.model import Incident, Remedy, Report, RunState
from doctor.repair import Applied, Check, Decision, Failed, GuardAnswer, Plan, Runner, RunView, Skipped, Verification
from doctor.run.reader import Run

_BUSY = (Stage.DIAGNOSED, Stage.PLANNED, Stage.WAITING, Stage.ACTING, Stage.RESCUING, Stage.VERIFYING)
_NO_REPAIR = "there is no repair for this cause that a program may make"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a run: the run, what is wrong, and whether DAGMan is in the queue."""

    run: Run
    report: Report
    active: bool | None

    @property
    def ending(self) -> bool:
        """DAGMan has logged its end, and its job (which waits for monitord) has not left the queue yet."""
        return self.report.run.state in verify.ENDED and self.active is True

    @property
    def ended(self) -> bool:
        """DAGMan is over. A log without an end counts as over only when the queue proves it."""
        if self.report.run.state in verify.ENDED and self.active is not True:
            return True
        return self.active is False


@dataclass(frozen=True, slots=True)
class Context:
    """What every step needs: the seams, the run's directory and key, and the session."""

    seams: Seams
    directory: Path
    key: str
    session: int

    def rows(self, *stages: Stage) -> list[IncidentRow]:
        """This session's incidents, those in the given states when there are any given."""
        found = self.seams.store.incidents(self.key, session=self.session)
        return [row for row in found if not stages or row.stage in stages]

    @property
    def began(self) -> float:
        """When this session was opened."""
        found = self.seams.store.run(self.key)
        return float(found["began"]) if found else 0.0

    def acted(self) -> bool:
        """Whether a repair was carried out in this session."""
        began = self.began
        return any(one.created >= began for row in self.rows() for one in self.seams.store.plans(row.id, states=("applied", "undone")))

    def move(self, row: IncidentRow, to: Stage, reason: str = "") -> None:
        self.seams.store.move(row.id, to, reason)
        self.seams.tell(Event(to.value, row.id, reason or row.incident.diagnosis.summary))


def look(seams: Seams, directory: Path) -> Look:
    """Read and diagnose the run as it is now."""
    run = seams.open(directory)
    active = rescue.dagman_active(run, seams.queue)
    report = analyze(run, seams.matcher, Options("off"))
    if active and report.run.state in verify.ENDED:  # monitord still writes; what it left half done is no failure yet
        report = replace(report, incidents=tuple(one for one in report.incidents if one.jobs))
    return Look(run, report, active)


def idle(seen: Look) -> bool:
    """Whether there is nothing to do: no incident at all."""
    return not seen.report.incidents


def maturity(incident: Incident, library: Library) -> str:
    """The maturity of what decided: a rule's own status; the doctor's code counts as stable."""
    by = incident.diagnosis.decided_by
    if not by.startswith("rule:"):
        return "stable"
    return next((rule.status for rule in library.rules if f"rule:{rule.id}" == by), "draft")


# -- diagnose -----------------------------------------------------------------------------------------


def diagnose(ctx: Context) -> None:
    """Enter what is wrong now. Incidents in the middle of a repair are left to the verification."""
    seen = look(ctx.seams, ctx.directory)
    store = ctx.seams.store
    store.see_run(seen.report.run)
    busy = {row.incident.id: row for row in ctx.rows() if row.stage not in ENDED}
    for incident in seen.report.incidents:
        if incident.id in busy or _known_failure(ctx, incident, seen):
            continue
        known = next((row for row in ctx.rows() if row.incident.id == incident.id), None)
        if known is not None and known.stage is Stage.ESCALATED:
            continue  # handed to a person in this very session
        row = store.open_incident(ctx.key, incident, ctx.session)
        ctx.seams.tell(Event("open", row.id, incident.diagnosis.summary))
    for row in ctx.rows(Stage.OPEN):
        by = row.incident.diagnosis
        ctx.move(row, Stage.DIAGNOSED, f"{by.cause}, confidence {by.confidence:.2f}, decided by {by.decided_by}")


def _known_failure(ctx: Context, incident: Incident, seen: Look) -> bool:
    """Whether these failures are being dealt with already: the same cause of the same jobs, or attempts from before the repair.

    An old attempt may look different after the repair, which changed the files that explained it.
    """
    if not incident.jobs:
        return False
    left = set(incident.jobs)
    for row in ctx.rows(*_BUSY):
        if row.incident.diagnosis.cause == incident.diagnosis.cause:
            left -= set(row.incident.jobs)
        latest = ctx.seams.store.plans(row.id)[-1:]
        if latest and row.stage in (Stage.ACTING, Stage.RESCUING, Stage.VERIFYING):
            left -= verify.not_tried_again(seen.run, latest[0].baseline)
    return not left


# -- plan ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan with the guards' answers, or why there is none."""

    plan: Plan | None
    answers: tuple[GuardAnswer, ...]
    why_not: str
    later: bool = False  # DAGMan still runs; the plan needs a rescue

    @property
    def decision(self) -> Decision:
        return guards.strictest(self.answers)


def plan(ctx: Context) -> bool:
    """Find the next repair for each diagnosed incident. True when one has to wait for DAGMan's end."""
    rows = ctx.rows(Stage.DIAGNOSED)
    if not rows:
        return False
    seen = look(ctx.seams, ctx.directory)
    view = ctx.seams.view(seen.run, ctx.seams.queue)
    later = False
    for row in rows:
        later |= _plan_one(ctx, row, seen, view)
    return later


def _plan_one(ctx: Context, row: IncidentRow, seen: Look, view: RunView) -> bool:
    store = ctx.seams.store
    refused: list[str] = []
    for draft in drafts(ctx.seams, row, seen, view):
        if draft.later:
            return True
        if draft.plan is None:
            refused.append(draft.why_not)
            continue
        number = store.add_plan(
            row, row.attempts + 1, draft.plan, guards.repair_key(draft.plan, row.incident.diagnosis.cause),
            verify.baseline(seen.run, row.incident),
        )  # fmt: skip
        store.add_verdict(number, draft.answers)
        if draft.decision is Decision.DENY:
            refused.append(f"{draft.plan.action}: {draft.why_not}")
            store.plan_state(number, "denied", draft.why_not)
            continue
        ctx.move(row, Stage.PLANNED, draft.plan.summary)
        if draft.decision is Decision.ASK and not ctx.seams.yes:
            ctx.move(row, Stage.WAITING, guards.reasons(draft.answers, Decision.ASK))
        else:
            store.plan_state(number, "approved", "--yes" if draft.decision is Decision.ASK else "the policy allows it")
        return False
    failed = [one for one in store.plans(row.id) if one.state == "failed" and one.created >= ctx.began]
    if failed:
        refused.insert(0, f"{failed[-1].plan.action} could not be carried out: {failed[-1].reason}")
    escalate(ctx, row, "; ".join(dict.fromkeys(refused)) or _NO_REPAIR)
    return False


def drafts(seams: Seams, row: IncidentRow, seen: Look, view: RunView) -> list[Draft]:
    """What could be done for one incident, best first, up to the first plan that no guard denies. Changes nothing."""
    found: list[Draft] = []
    caps = seams.policy.action_caps()
    for remedy in remedies(seams, row, seen):
        action = seams.actions.get(remedy.action)
        if action is None:
            found.append(Draft(None, (), f"{remedy.action}: this doctor has no such action"))
            continue
        made = _make(action, row.incident, _params(seams, row, remedy), view, caps)
        if isinstance(made, Skipped):
            found.append(Draft(None, (), f"{remedy.action}: {made.reason}"))
            continue
        answers = guards.ask_all(made, row.incident, history(seams, row, seen, view, action), seams.policy)
        denied = guards.reasons(answers, Decision.DENY)
        if guards.strictest(answers) is not Decision.DENY and made.rescue and seen.active:
            return [*found, Draft(made, answers, "DAGMan still runs; the repair is made when it has ended", later=True)]
        found.append(Draft(made, answers, denied))
        if guards.strictest(answers) is not Decision.DENY:
            break
    return found


def _make(action: Action, incident: Incident, params: dict[str, object], view: RunView, caps: object) -> Plan | Skipped:
    try:
        return action.plan(incident, params, view, caps)  # type: ignore[arg-type]
    except Exception as bug:  # noqa: BLE001 - one action's fault must not stop the loop
        return Skipped(action.name, f"its planning failed: {type(bug).__name__}: {bug}")


def _params(seams: Seams, row: IncidentRow, remedy: Remedy) -> dict[str, object]:
    """The remedy's parameters, and for some actions what only the loop knows: earlier retries, the pool's slots."""
    if remedy.action == "retry":
        return {**remedy.params, "attempt": seams.store.tried_actions(row.id).count("retry")}
    if remedy.action == "lower-request":
        try:
            return {**seams.slots(), **remedy.params}
        except DoctorError:
            return dict(remedy.params)
    return dict(remedy.params)


def remedies(seams: Seams, row: IncidentRow, seen: Look) -> list[Remedy]:
    """The diagnosis' remedies; where many jobs fail while the workflow goes on, halting it comes first."""
    known = list(row.incident.diagnosis.remedies)
    systemic = len(row.incident.jobs) >= seams.policy.systemic.jobs and seen.active
    if systemic and "halt-workflow" not in seams.store.tried_actions(row.id) and "halt-workflow" in seams.actions:
        known.insert(0, Remedy("halt-workflow", {}, "reversible", "Stop submitting further jobs."))
    return known


def history(seams: Seams, row: IncidentRow, seen: Look, view: RunView, action: Action) -> guards.History:
    """What the guards may know."""
    store = seams.store
    run_attempts, _ = store.attempts_of_run(row.run)
    return guards.History(
        now=seams.clock(),
        attempts=row.attempts,
        run_attempts=run_attempts,
        last_attempt=store.last_attempt(row.id),
        tried=frozenset(store.tried(row.id)),
        tried_actions=tuple(store.tried_actions(row.id)),
        maturity=maturity(row.incident, seams.matcher.library),
        roots=seams.policy.roots(seen.run),
        queue_ids=frozenset(one for job in view.jobs.values() for one in job.queue_ids),
        active=seen.active,
        rescue_blocked=rescue.preflight(rescue.root_of(seen.run), seen.active, seams.host),
        always_ask=action.always_ask,
    )


def escalate(ctx: Context, row: IncidentRow, reason: str) -> None:
    """Hand an incident to a person."""
    ctx.move(row, Stage.ESCALATED, reason)


# -- approvals ----------------------------------------------------------------------------------------


def unanswered(ctx: Context) -> list[IncidentRow]:
    """Incidents that wait and whose plan nobody has answered yet."""
    return [row for row in ctx.rows(Stage.WAITING) if not answered(ctx.seams, row)]


def answered(seams: Seams, row: IncidentRow) -> bool:
    latest = seams.store.plans(row.id)[-1:]
    return seams.yes or not latest or latest[0].state != "proposed"


def take_answers(ctx: Context) -> None:
    """Carry answers over into the incidents' states."""
    store = ctx.seams.store
    for row in ctx.rows(Stage.WAITING):
        latest = store.plans(row.id)[-1:]
        if latest and latest[0].state == "approved":
            ctx.move(row, Stage.PLANNED, latest[0].reason)
        elif latest and latest[0].state == "proposed" and ctx.seams.yes:
            store.plan_state(latest[0].id, "approved", "--yes")
            ctx.move(row, Stage.PLANNED, "--yes")
        elif not latest or latest[0].state != "proposed":
            escalate(ctx, row, f"denied: {latest[0].reason}" if latest else "its plan is gone")


# -- act ----------------------------------------------------------------------------------------------


def act(ctx: Context) -> None:
    """Carry out what is approved. What a crash left in ``acting`` goes to the verification, not to a second attempt."""
    for row in ctx.rows(Stage.ACTING):
        ctx.move(row, Stage.VERIFYING, "the doctor was interrupted between intent and result")
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
        store.plan_state(chosen.id, "denied", why)
        store.add_verdict(chosen.id, answers)
        ctx.move(row, Stage.DIAGNOSED, f"no longer possible: {why}")
        return
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
    made = _make(action, row.incident, chosen.plan.params, view, ctx.seams.policy.action_caps())
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


def runner(seams: Seams, plan_id: int, roots: Sequence[Path]) -> Runner:
    """Through what an action may touch the world, for one plan."""
    return Runner(tuple(roots), seams.store.journal(plan_id), seams.processes, seams.queue, seams.clock())


# -- rescue -------------------------------------------------------------------------------------------


def submit_rescue(ctx: Context) -> float:
    """One rescue for all repairs that are ready. The time to look again, 0 when it is settled."""
    rows = ctx.rows(Stage.RESCUING)
    if not rows:
        return 0.0
    seams = ctx.seams
    run = rescue.root_of(seams.open(ctx.directory))
    plans = [latest for row in rows for latest in seams.store.plans(row.id, states=("applied",))[-1:]]
    since = ctx.began
    pauses = [(one.applied or 0.0) + one.plan.delay_s for one in plans]
    latest = max((float(row["ended"] or 0.0) for row in seams.store.rescues(ctx.key, since=since)), default=0.0)
    not_before = max([*pauses, latest + rescue.back_off(seams, ctx.key, since) if latest else 0.0])
    answer = rescue.step(run, seams, ctx.key, not_before)
    if answer.progress is rescue.Progress.PENDING:
        seams.tell(Event("rescue-pending", "", answer.reason))
        return max(answer.again_at, seams.clock())
    for row in rows:
        if answer.progress is rescue.Progress.STARTED:
            ctx.move(row, Stage.VERIFYING, answer.reason)
        else:
            escalate(ctx, row, f"the rescue failed: {answer.reason}")
    return 0.0


# -- verify -------------------------------------------------------------------------------------------


def verify_all(ctx: Context) -> tuple[bool, bool]:
    """Judge every repair by what the logs say since. (something is still open, something new is wrong)"""
    rows = ctx.rows(Stage.VERIFYING)
    seen = look(ctx.seams, ctx.directory)
    ctx.seams.store.see_run(seen.report.run)
    for row in rows:
        _verify_one(ctx, row, seen)
    mine = {row.incident.id for row in ctx.rows()}
    new = [one for one in seen.report.incidents if one.id not in mine and not _known_failure(ctx, one, seen)]
    again = [row for row in ctx.rows(Stage.RECOVERED) if any(one.id == row.incident.id for one in seen.report.incidents)]
    return bool(ctx.rows(Stage.VERIFYING)) and not seen.ended, bool(new or again)


def _verify_one(ctx: Context, row: IncidentRow, seen: Look) -> None:
    store = ctx.seams.store
    latest = store.plans(row.id)[-1:]
    if not latest:
        escalate(ctx, row, "its plan is gone")
        return
    chosen = latest[0]
    if chosen.state in ("acting", "approved"):
        _settle(ctx, row, chosen, seen)
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
        elif ctx.seams.clock() > limit:
            store.add_outcome(row, chosen.attempt, answer.result.value, answer.reason)
            escalate(ctx, row, f"no evidence for {ctx.seams.policy.verify.timeout_s:.0f} s: {answer.reason}")
        return
    if answer.result is Verification.WORSE and _another(ctx, row, seen):
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
    ctx.seams.store.add_outcome(row, chosen.attempt, answer.result.value, answer.reason)
    if answer.result is Verification.RECOVERED:
        ctx.move(row, Stage.RECOVERED, answer.reason)
    else:
        ctx.move(row, Stage.DIAGNOSED, f"{chosen.plan.action} did not help: {answer.reason}")


def _settle(ctx: Context, row: IncidentRow, chosen: PlanRow, seen: Look) -> None:
    """After a crash between intent and result: find out what was done, and finish or take it back."""
    seams, store, plan_ = ctx.seams, ctx.seams.store, chosen.plan
    done = verify.done_edits(plan_)
    queue_done = verify.done_in_queue(plan_, seams.queue)
    began = bool(store.entries(chosen.id)) or bool(plan_.queue or plan_.argv)
    if len(done) == len(plan_.edits) and queue_done and not plan_.argv and (began or not (plan_.edits or plan_.queue)):
        with store.batch():
            for entry in store.entries(chosen.id, states=("intended",)):
                store.journal(chosen.id).done(entry.id)
            store.plan_state(chosen.id, "applied", "found in place after an interruption")
        store.note(row.run, row.id, "settled", "the repair was found in place after an interruption")
        if plan_.rescue:
            ctx.move(row, Stage.RESCUING, "the repair was found in place after an interruption")
        return
    if plan_.argv:
        store.plan_state(chosen.id, "failed", "interrupted while a command ran")
        escalate(ctx, row, f"the doctor was interrupted while {plan_.argv[0][0]} ran; see `show {row.id}`, then heal again")
        return
    if done:
        action = seams.actions[plan_.action]
        entries = tuple(entry.id for entry in store.entries(chosen.id))
        back = action.undo(
            Applied(replace(plan_, edits=tuple(done), queue=()), entries, seams.clock()),
            runner(seams, chosen.id, seams.policy.roots(seen.run)),
        )
        if isinstance(back, Failed):
            store.plan_state(chosen.id, "failed", f"interrupted half-way; {back.reason}")
            escalate(ctx, row, f"the doctor was interrupted half-way and could not take it back: {back.reason}")
            return
    for entry in store.entries(chosen.id, states=("intended",)):
        store.journal(chosen.id).undone(entry.id)
    store.plan_state(chosen.id, "interrupted", "interrupted before it was done; taken back")
    store.forget_attempt(row.id)
    _close(ctx, row, replace(chosen, state="interrupted"), Check(Verification.NOT_YET, "interrupted before it was done; taken back"))


def give_up_rest(ctx: Context) -> None:
    """The last word at the end of a session: nothing stays open that nobody works on."""
    for row in ctx.rows():
        if row.stage is Stage.VERIFYING:
            escalate(ctx, row, "the workflow ended without the job's success")
        elif row.stage not in ENDED and row.stage not in (Stage.ACTING, Stage.RESCUING):
            escalate(ctx, row, _NO_REPAIR)


def close_healed(ctx: Context, seen: Look) -> None:
    """Incidents that nobody has repaired yet and that are gone: the workflow succeeded without the doctor."""
    if seen.report.run.state is not RunState.SUCCEEDED:
        return
    present = {one.id for one in seen.report.incidents}
    for row in ctx.rows(Stage.OPEN, Stage.DIAGNOSED, Stage.PLANNED, Stage.WAITING):
        if row.incident.id not in present:
            ctx.move(row, Stage.RECOVERED, "the workflow ended with status 0 without the doctor")


def still_running(seen: Look) -> bool:
    """Whether the workflow goes on, so that more may come."""
    return seen.active is True or (seen.active is None and seen.report.run.state is RunState.RUNNING)
