"""What ``heal`` and the incident commands show: JSON (schema 1), live lines, and one page at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from doctor.loop.heal import ActionTaken, Healed, Treated, Undone
    from doctor.loop.records import IncidentRow
    from doctor.loop.seams import Event
    from doctor.store import Store

SCHEMA = 1
_STYLE = {"recovered": "bold green", "healthy": "green", "escalated": "bold red", "waiting": "bold yellow"}
_LABEL = 10
_FIRST_JOBS = 20


# -- JSON ---------------------------------------------------------------------------------------------


def healed_json(healed: Healed) -> dict[str, Any]:
    """The result of ``heal``."""
    return {
        "schema": SCHEMA,
        "run": healed.run.submit_dir,
        "new_run": healed.again.submit_dir if healed.again else "",
        "outcome": healed.outcome,
        "reason": healed.reason,
        "dry_run": healed.dry,
        "incidents": [
            {
                "id": one.row.id,
                "category": one.row.incident.category,
                "cause": one.row.incident.cause,
                "decided_by": one.row.incident.diagnosis.decided_by,
                "outcome": one.outcome,
                "reason": one.reason,
                "actions": [_action_json(action) for action in one.actions],
            }
            for one in healed.treated
        ],
        "rescues": healed.rescues,
    }


def _action_json(action: ActionTaken) -> dict[str, Any]:
    return {
        "action": action.plan.action,
        "params": action.plan.params,
        "verdict": action.verdict.value,
        "applied": action.applied,
        "diff": action.diff,
        "state": action.state,
        "reason": action.reason,
        "new_run": action.plan.new_run if action.applied else "",
        "manual": action.plan.manual,
    }


def row_json(row: IncidentRow) -> dict[str, Any]:
    """One incident of a list."""
    return {
        "id": row.id,
        "run": row.submit_dir,
        "category": row.incident.category,
        "cause": row.incident.cause,
        "state": row.stage.value,
        "summary": row.incident.diagnosis.summary,
        "jobs": list(row.incident.jobs[:_FIRST_JOBS]),
        "job_count": len(row.incident.jobs),
        "updated": row.updated,
    }


def shown_json(row: IncidentRow, treated: Treated, store: Store) -> dict[str, Any]:
    """Everything the store knows of one incident."""
    from doctor.report.json import incident_json

    plans = store.plans(row.id)
    return {
        "schema": SCHEMA,
        "incident": {
            **row_json(row),
            "reason": row.reason,
            "attempts": row.attempts,
            "diagnosis": incident_json(row.incident),
            "actions": [
                {**_action_json(action), "attempt": plan.attempt, "guards": store.verdicts(plan.id)}
                for action, plan in zip(treated.actions, plans, strict=True)
            ],
            "outcomes": store.outcomes(row.id),
            "journal": [
                {"what": entry.what, "state": entry.state, "time": entry.intended} for plan in plans for entry in store.entries(plan.id)
            ],
        },
    }


def undone_json(row: IncidentRow, undone: list[Undone]) -> dict[str, Any]:
    """What ``undo`` did."""
    return {
        "schema": SCHEMA,
        "id": row.id,
        "undone": [{"action": one.plan.action, "summary": one.plan.summary, "done": one.done, "reason": one.reason} for one in undone],
    }


# -- for people ---------------------------------------------------------------------------------------


class Live:
    """Prints what happens while it happens, one line each, on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def __call__(self, event: Event) -> None:
        line = f"{event.incident or 'run':<11}{event.what:<18}{event.text}"
        if line == self._last:
            return
        self._last = line
        row = Text(time.strftime("%H:%M:%S  "), style="dim")
        row.append(f"{event.incident or 'run':<11}", style="cyan")
        row.append(f"{event.what:<18}", style=_STYLE.get(event.what, "bold"))
        row.append(event.text[:300])
        self._console.print(row, soft_wrap=True, highlight=False)


def render(healed: Healed, console: Console) -> None:
    """The page at the end: what was wrong, what was changed, what happened."""
    for row in rows(healed):
        console.print(row, soft_wrap=True, highlight=False)


def rows(healed: Healed) -> Iterator[Text]:
    """The page line by line. Log text goes through :class:`rich.text.Text`, never through markup."""
    head = Text(f"{healed.run.label or 'run'}  ", style="bold")
    word = "would need a person's yes, or act by policy" if healed.dry and healed.outcome == "waiting" else healed.outcome
    head.append(word, style=_STYLE.get(healed.outcome, ""))
    head.append(f"  {healed.reason}", style="dim")
    yield head
    for number, one in enumerate(healed.treated, 1):
        yield Text()
        yield from _treated(number, one, healed.dry)
    if healed.again:
        yield Text()
        yield Text(f"Planned again: the new run is {healed.again.submit_dir}, it is {healed.again.state.value} now.")
    elif healed.rescues:
        yield Text()
        yield Text(f"{healed.rescues} rescue{'s' if healed.rescues > 1 else ''} submitted; the run is {healed.run.state.value} now.")


def _treated(number: int, one: Treated, dry: bool) -> Iterator[Text]:
    incident, diagnosis = one.row.incident, one.row.incident.diagnosis
    title = Text(f"{number}  ", style="bold")
    title.append(f"{incident.category}/{incident.cause}", style="bold red")
    title.append(f"  {one.outcome}", style=_STYLE.get(one.outcome, ""))
    title.append(f"  incident {one.row.id}, decided by {diagnosis.decided_by}", style="dim")
    yield title
    yield _row("wrong", diagnosis.summary, "bold")
    jobs = ", ".join(incident.jobs[:5]) + (f" and {len(incident.jobs) - 5} more" if len(incident.jobs) > 5 else "")
    yield _row("jobs", jobs or "the run as a whole")
    for index, evidence in enumerate(diagnosis.evidence[:4]):
        place = f"{evidence.file}:{evidence.line}" if evidence.line else evidence.file
        yield _row("evidence" if index == 0 else "", f"{place}  {evidence.text[:300]}")
    for action in one.actions:
        yield from _action(action, dry)
    yield _row("outcome", one.reason or one.outcome, _STYLE.get(one.outcome, ""))
    if one.outcome == "escalated" and diagnosis.advice:
        yield _row("do", diagnosis.advice, "green")
    if one.outcome == "waiting" and one.row.stage.value == "waiting":
        yield _row("answer", f"pegasus-doctor approve {one.row.id}   (or deny), then heal again", "yellow")


def _action(action: ActionTaken, dry: bool) -> Iterator[Text]:
    did = "would do" if dry else {"applied": "did", "undone": "undone", "failed": "failed"}.get(action.state, "plan")
    yield _row(did, f"{action.plan.action}: {action.plan.summary} (guards: {action.verdict.value})")
    if action.reason and action.state not in ("applied",):
        yield _row("", action.reason, "dim")
    for line in action.diff.splitlines()[:80]:
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else "dim"
        yield _row("", line, style)
    if action.plan.new_run:
        yield _row("new run", action.plan.new_run)
    if action.plan.manual:
        yield _row("by hand", action.plan.manual, "yellow")


def incident_rows(found: list[IncidentRow]) -> Iterator[Text]:
    """The list of incidents."""
    for row in found:
        line = Text(f"{row.id}  ", style="cyan")
        line.append(f"{row.stage.value:<10} ", style=_STYLE.get(row.stage.value, "bold"))
        line.append(f"{row.incident.category}/{row.incident.cause:<28} ")
        line.append(f"{len(row.incident.jobs):>3} jobs  {row.submit_dir}", style="dim")
        yield line
    if not found:
        yield Text("No incidents.", style="green")


def shown_rows(treated: Treated, store: Store) -> Iterator[Text]:
    """One incident in full."""
    yield from _treated(1, treated, False)
    plans = store.plans(treated.row.id)
    for plan in plans:
        for answer in store.verdicts(plan.id):
            if answer["decision"] != "allow":
                yield _row("guard", f"{plan.plan.action}: {answer['guard']} says {answer['decision']}: {answer['reason']}", "dim")
        for entry in store.entries(plan.id):
            style = "red" if entry.state == "intended" else "dim"
            word = "intended, and no result was written: the doctor was interrupted here" if entry.state == "intended" else entry.state
            yield _row("journal", f"{entry.what}: {word}", style)
    for outcome in store.outcomes(treated.row.id):
        yield _row("verified", f"attempt {outcome['attempt']}: {outcome['result']}: {outcome['reason']}")


def _row(label: str, text: str, style: str = "") -> Text:
    row = Text(f"{label:<{_LABEL}}", style="cyan")
    row.append(text, style=style)
    return row
