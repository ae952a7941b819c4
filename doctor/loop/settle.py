"""After a crash between intent and result: find out what was done, then finish it or take it back.

What is found in place is taken as applied. A repair that has changed a job in the queue is finished: the
job may be running with the change already. Any other one that is not whole is taken back. Every decision
is written in one transaction, so that a second crash finds either nothing or all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from doctor.loop import rescue, verify
from doctor.loop.records import Entry, IncidentRow, PlanRow
from doctor.loop.seams import Event, Seams
from doctor.loop.stages import Stage
from doctor.loop.steps import Context, Look, escalate
from doctor.repair import Applied, Failed, Plan, Runner, Verification

_PLANNING_S = 60.0  # seconds that a planner without its doctor gets to finish
_FOUND = "the repair was found in place after an interruption"
_FINISHED = "the repair was finished after an interruption"
_BACK = "interrupted before it was done; taken back"


def runner(seams: Seams, plan_id: int, roots: Sequence[Path]) -> Runner:
    """Through what an action may touch the world, for one plan."""
    return Runner(tuple(roots), seams.store.journal(plan_id), seams.processes, seams.queue, seams.clock())


def settle(ctx: Context, row: IncidentRow, chosen: PlanRow, seen: Look) -> bool:
    """Finish or take back what was cut off. True when that cannot be said yet.

    A planner goes on although the doctor that called it is gone; and only the queue tells what was changed in it.
    """
    seams, plan_ = ctx.seams, chosen.plan
    entries = seams.store.entries(chosen.id)
    commands = [entry.intended for entry in entries if entry.what.startswith("run ")]
    unfinished = bool(plan_.new_run and commands) and not rescue.planned(plan_.new_run)
    if unfinished and seams.clock() < commands[-1] + _PLANNING_S:
        return True
    if plan_.queue and not verify.answers(seams.queue):
        return True
    if _whole(plan_, entries, seams):
        _applied(ctx, row, chosen, plan_, _FOUND)
    elif plan_.argv and (commands or not plan_.edits):
        with seams.store.batch():
            seams.store.plan_state(chosen.id, "failed", "interrupted while a command ran")
            escalate(ctx, row, f"the doctor was interrupted while {plan_.argv[0][0]} ran; see `show {row.id}`, then heal again")
    elif not _finish(ctx, row, chosen, entries, seen):
        _take_back(ctx, row, chosen, seen)
    return False


def _whole(plan: Plan, entries: list[Entry], seams: Seams) -> bool:
    """Whether all of a plan is in force."""
    began = bool(entries) or bool(plan.queue or plan.argv)
    command_done = rescue.planned(plan.new_run) if plan.new_run else not plan.argv
    acted = {entry.what: entry.intended for entry in entries}
    return (
        len(verify.done_edits(plan)) == len(plan.edits)
        and verify.done_in_queue(plan, seams.queue, acted)
        and command_done
        and (began or not (plan.edits or plan.queue))
    )


def _applied(ctx: Context, row: IncidentRow, chosen: PlanRow, plan: Plan, why: str) -> None:
    store = ctx.seams.store
    with store.batch():
        for entry in store.entries(chosen.id, states=("intended",)):
            store.journal(chosen.id).done(entry.id)
        store.add_plan(row, chosen.attempt, originals(plan, store.entries(chosen.id)), chosen.key, chosen.baseline, id_=chosen.id)
        store.plan_state(chosen.id, "applied", why)
        store.note(row.run, row.id, "settled", why)
        if plan.rescue:
            store.move(row.id, Stage.RESCUING, why)
    ctx.seams.tell(Event("settled", row.id, why))


def originals(plan: Plan, entries: list[Entry]) -> Plan:
    """The plan with the queue's values from before the first change, as the journal has them: `undo` goes back to those."""
    first: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(entry.what, entry)
    changes = []
    for change in plan.queue:
        known = dict(change.before)
        for name, value in change.attributes:
            made = first.get(f"queue {change.job_id}: {name} = {value}")
            if made is not None and made.original is not None:
                known[name] = made.original.decode("utf-8", "replace")
        changes.append(replace(change, before=tuple(known.items())))
    return replace(plan, queue=tuple(changes))


def _finish(ctx: Context, row: IncidentRow, chosen: PlanRow, entries: list[Entry], seen: Look) -> bool:
    """Do what is left of a repair that has changed the queue; what is done already is not done again."""
    seams = ctx.seams
    if not any(entry.what.startswith("queue ") for entry in entries):
        return False
    try:
        result = seams.actions[chosen.plan.action].apply(chosen.plan, runner(seams, chosen.id, seams.policy.roots(seen.run)))
    except Exception:  # noqa: BLE001 - one action's fault must not stop the loop; what was done is taken back instead
        return False
    if isinstance(result, Applied):
        _applied(ctx, row, chosen, result.plan, _FINISHED)
    return isinstance(result, Applied)


def _take_back(ctx: Context, row: IncidentRow, chosen: PlanRow, seen: Look) -> None:
    seams, store = ctx.seams, ctx.seams.store
    entries = store.entries(chosen.id)
    plan = originals(chosen.plan, entries)
    done = replace(plan, edits=tuple(verify.done_edits(plan)), queue=tuple(one for one in plan.queue if one.before))
    if done.edits or done.queue:
        ids = tuple(entry.id for entry in entries)
        back = seams.actions[plan.action].undo(Applied(done, ids, seams.clock()), runner(seams, chosen.id, seams.policy.roots(seen.run)))
        if isinstance(back, Failed):
            with store.batch():
                store.plan_state(chosen.id, "failed", f"interrupted half-way; {back.reason}")
                escalate(ctx, row, f"the doctor was interrupted half-way and could not take it back: {back.reason}")
            return
    with store.batch():
        for entry in store.entries(chosen.id, states=("intended",)):
            store.journal(chosen.id).undone(entry.id)
        store.plan_state(chosen.id, "interrupted", _BACK)
        store.forget_attempt(row.id)
        store.add_outcome(row, chosen.attempt, Verification.NOT_YET.value, _BACK)
        ctx.move(row, Stage.DIAGNOSED, f"{plan.action}: {_BACK}")
