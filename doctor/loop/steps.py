"""The steps of the loop: each takes the run and the store from one state of its incidents to the next.

The store is the truth; the graph (:mod:`doctor.loop.graph`) only decides which step comes next. Every
step may be cut off at any point and called again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from doctor.diagnose.engine import Options, analyze
from doctor.diagnose.library import Library
from doctor.errors import DoctorError
from doctor.loop import guards, rescue, verify
from doctor.loop.news import burning, burst, handed_over, merged
from doctor.loop.records import IncidentRow
from doctor.loop.seams import Action, Event, Seams
from doctor.loop.stages import ENDED, Stage
from doctor.model import Incident, Remedy, Report, RunState
from doctor.repair import Decision, GuardAnswer, Plan, RunView, Skipped
from doctor.run.reader import Run
from doctor.statedir import incident_key

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
    called: bool = True  # by a person: what was handed over before is tried again

    def rows(self, *stages: Stage) -> list[IncidentRow]:
        """This session's incidents, those in the given states when there are any given."""
        found = self.seams.store.incidents(self.key, session=self.session)
        return [row for row in found if not stages or row.stage in stages]

    @property
    def began(self) -> float:
        """When this session was opened."""
        return self.seams.store.began(self.key)

    @property
    def place(self) -> Path:
        """Where the workflow is now: the run's directory, or that of the run that was planned in its place."""
        again = self.seams.store.planned_again(self.key)
        return Path(again) if again and (Path(again) / "braindump.yml").is_file() else self.directory

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
        report = replace(report, incidents=tuple(one for one in report.incidents if one.jobs or one.category != "infrastructure"))
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


def _tell_opinions(ctx: Context, report: Report) -> None:
    """What a model was asked just now, and what that cost, goes to the run's history."""
    for said in report.opinions:
        if said.kept:
            continue
        text = f"{said.model} {said.outcome}: {said.reason} ({said.calls} calls, {said.sent + said.received} tokens, ${said.dollars:.4f})"
        incident = incident_key(ctx.key, said.incident)
        ctx.seams.store.note(ctx.key, incident, "opinion", text)
        ctx.seams.tell(Event("opinion", incident, text))


def diagnose(ctx: Context) -> None:
    """Enter what is wrong now. Incidents in the middle of a repair are left to the verification."""
    seen = look(ctx.seams, ctx.directory)
    if ctx.seams.opinion is not None:
        seen = replace(seen, report=ctx.seams.opinion(seen.report, seen.run))
    store = ctx.seams.store
    store.see_run(seen.report.run)
    _tell_opinions(ctx, seen.report)
    busy = {row.incident.id: row for row in ctx.rows() if row.stage not in ENDED}
    for incident in seen.report.incidents:
        if incident.id in busy:
            see_anew(ctx, busy[incident.id], incident)
            continue
        if known_failure(ctx, incident, seen) or handed_over(ctx.seams, ctx.key, incident, seen, ctx.session, ctx.called):
            continue
        row = store.open_incident(ctx.key, incident, ctx.session)
        ctx.seams.tell(Event("open", row.id, incident.diagnosis.summary))
    for row in ctx.rows(Stage.OPEN):
        by = row.incident.diagnosis
        ctx.move(row, Stage.DIAGNOSED, f"{by.cause}, confidence {by.confidence:.2f}, decided by {by.decided_by}")


def see_anew(ctx: Context, row: IncidentRow, incident: Incident) -> None:
    """Something else turned out to be the cause before anything was done: a plan that waits for an answer is withdrawn."""
    if row.stage not in (Stage.OPEN, Stage.DIAGNOSED, Stage.WAITING) or row.incident.diagnosis.cause == incident.diagnosis.cause:
        return
    if merged(row.incident, incident) is not incident:
        return
    store = ctx.seams.store
    with store.batch():
        store.refresh(row.id, incident)
        if row.stage is Stage.WAITING:
            why = f"the cause turned out to be {incident.diagnosis.cause}"
            for plan in store.plans(row.id, states=("proposed",)):
                store.plan_state(plan.id, "denied", why)
            ctx.move(row, Stage.DIAGNOSED, why)


def known_failure(ctx: Context, incident: Incident, seen: Look) -> bool:
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
    """Find the next repair for each diagnosed incident. True when one has to wait for DAGMan's end, or for the queue."""
    rows = ctx.rows(Stage.DIAGNOSED)
    if not rows:
        return False
    seen = look(ctx.seams, ctx.directory)
    if seen.active is None and ctx.seams.patient():
        return True
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
        with store.batch():
            number = store.add_plan(
                row, row.attempts + 1, draft.plan, guards.repair_key(draft.plan, row.incident.diagnosis.cause),
                verify.baseline(seen.run, row.incident, bool(draft.plan.new_run)),
            )  # fmt: skip
            store.add_verdict(number, draft.answers)
            if draft.decision is not Decision.DENY:
                _propose(ctx, row, number, draft, draft.plan)
                return False
            store.plan_state(number, "denied", draft.why_not)
        refused.append(f"{draft.plan.action}: {draft.why_not}")
    failed = [one for one in store.plans(row.id) if one.state == "failed" and one.created >= ctx.began]
    if failed:
        refused.insert(0, f"{failed[-1].plan.action} could not be carried out: {failed[-1].reason}")
    escalate(ctx, row, "; ".join(dict.fromkeys(refused)) or _NO_REPAIR)
    return False


def _propose(ctx: Context, row: IncidentRow, number: int, draft: Draft, chosen: Plan) -> None:
    ctx.move(row, Stage.PLANNED, chosen.summary)
    if draft.decision is Decision.ASK and not ctx.seams.yes:
        ctx.move(row, Stage.WAITING, guards.reasons(draft.answers, Decision.ASK))
    else:
        ctx.seams.store.plan_state(number, "approved", "--yes" if draft.decision is Decision.ASK else "the policy allows it")


def drafts(seams: Seams, row: IncidentRow, seen: Look, view: RunView) -> list[Draft]:
    """What could be done for one incident, best first, up to the first plan that no guard denies. Changes nothing."""
    if again := seams.store.planned_again(row.run):
        return [Draft(None, (), f"the run was planned again; go on with `pegasus-doctor heal {again}`")]
    found: list[Draft] = []
    caps = seams.policy.action_caps()
    for remedy in remedies(seams, row, seen):
        action = seams.actions.get(remedy.action)
        if action is None:
            found.append(Draft(None, (), f"{remedy.action}: this doctor has no such action"))
            continue
        made = make(action, row.incident, _params(seams, row, remedy), view, caps)
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


def make(action: Action, incident: Incident, params: dict[str, object], view: RunView, caps: object) -> Plan | Skipped:
    """The action's plan; whatever goes wrong in it is a reason to skip it."""
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
    if burning(seams, row.incident, seen) and "halt-workflow" not in seams.store.tried_actions(row.id) and "halt-workflow" in seams.actions:
        known.insert(0, Remedy("halt-workflow", {}, "reversible", "Stop submitting further jobs."))
    return known


def history(seams: Seams, row: IncidentRow, seen: Look, view: RunView, action: Action) -> guards.History:
    """What the guards may know."""
    store = seams.store
    run_attempts, _ = store.attempts_of_run(row.run)
    many = len(row.incident.jobs)
    return guards.History(
        now=seams.clock(),
        attempts=row.attempts,
        run_attempts=run_attempts,
        last_attempt=store.last_attempt(row.id),
        tried=frozenset(store.tried(row.id, store.began(row.run))),
        tried_actions=tuple(store.tried_actions(row.id)),
        maturity=maturity(row.incident, seams.matcher.library),
        roots=seams.policy.roots(seen.run),
        queue_ids=frozenset(one for job in view.jobs.values() for one in job.queue_ids),
        active=seen.active,
        rescue_blocked=rescue.preflight(rescue.root_of(seen.run), seen.active, seams.host),
        burst=burst(seen.run, row.incident, seams.policy.systemic.within_s) if many >= seams.policy.systemic.jobs else many,
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
            with store.batch():
                store.plan_state(latest[0].id, "approved", "--yes")
                ctx.move(row, Stage.PLANNED, "--yes")
        elif not latest or latest[0].state != "proposed":
            escalate(ctx, row, f"denied: {latest[0].reason}" if latest else "its plan is gone")


# -- the end of a session ------------------------------------------------------------------------------


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
