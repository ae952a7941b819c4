"""The report for people: one screen for one cause, plain text when the output is not a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from doctor.model import Evidence, Incident, Report, RunState, RunWarning
from doctor.report.llm import opinion_of, opinion_text

_LABEL = 10  # columns of the label in front of each row
_STATE_STYLE = {
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "bold red",
    RunState.HELD: "bold yellow",
    RunState.STALLED: "bold red",
    RunState.REMOVED: "yellow",
}


def render(report: Report, console: Console, *, verbose: bool = False) -> None:
    """Print the report. Log text goes through :class:`rich.text.Text`, never through markup."""
    for row in rows(report, verbose=verbose):
        console.print(row, soft_wrap=True, highlight=False)


def rows(report: Report, *, verbose: bool = False) -> Iterator[Text]:
    """The report line by line."""
    run, jobs = report.run, report.run.jobs
    head = Text(f"{run.label or 'run'}  ", style="bold")
    head.append(run.state.value, style=_STATE_STYLE.get(run.state, ""))
    head.append(f"  {run.state_reason}", style="dim")
    yield head
    parts = [
        ("succeeded", jobs.succeeded),
        ("failed", jobs.failed),
        ("held", jobs.held),
        ("running", jobs.running),
        ("queued", jobs.queued),
        ("never submitted", jobs.unsubmitted),
    ]
    yield Text(f"{jobs.total:,} jobs: " + ", ".join(f"{count:,} {name}" for name, count in parts if count), style="dim")
    for number, incident in enumerate(report.incidents, 1):
        yield Text()
        yield from _incident(number, incident, verbose)
        opinion = opinion_of(report, incident.id)
        if opinion is not None:
            yield _row("model", opinion_text(opinion), "magenta" if opinion.outcome == "answered" else "dim")
    for warning in report.warnings:
        yield Text()
        yield from _warning(warning)
    if not report.incidents:
        yield Text()
        yield _verdict_of_none(report)
    if report.history:
        yield Text()
        count = len(report.history)
        yield Text(
            f"{count} failed attempt{'s' if count > 1 else ''} recovered by a retry or rescue"
            + (":" if verbose else " (--verbose lists them)."),
            style="dim",
        )
        if verbose:
            for entry in report.history:
                yield _row("", f"{entry.job}: {entry.text}  [{entry.file}:{entry.line}]", "dim")
    if report.unreadable:
        yield Text()
        yield Text("Could not be read:", style="yellow")
        for missing in report.unreadable[: None if verbose else 5]:
            yield _row("", f"{missing.file}: {missing.reason}", "yellow")
        if len(report.unreadable) > 5 and not verbose:
            yield _row("", f"... and {len(report.unreadable) - 5} more (--verbose lists them)", "yellow")


def _verdict_of_none(report: Report) -> Text:
    if report.run.state is RunState.UNKNOWN:
        return Text("The state of this run cannot be told from what is left of it.", style="yellow")
    if report.warnings:
        return Text("No job failed, but do not trust the results before you have read the above.", style="yellow")
    return Text("Nothing is wrong that this directory shows.", style="green")


def _incident(number: int, incident: Incident, verbose: bool) -> Iterator[Text]:
    diagnosis = incident.diagnosis
    title = Text(f"{number}  ", style="bold")
    title.append(f"{incident.category}/{incident.cause}", style="bold red")
    title.append(f"  confidence {diagnosis.confidence:.0%}, decided by {diagnosis.decided_by}", style="dim")
    yield title
    yield _row("cause", diagnosis.summary, "bold")
    yield _row("culprit", _culprit(incident))
    for index, entry in enumerate(diagnosis.evidence):
        yield _evidence("evidence" if index == 0 else "", entry)
    yield _row("why", diagnosis.explanation)
    for index, symptom in enumerate(diagnosis.symptoms[: None if verbose else 3]):
        place = f"  [{symptom.file}{f':{symptom.line}' if symptom.line else ''}]" if symptom.file else ""
        yield _row("symptom" if index == 0 else "", f"{symptom.job}: {symptom.text[:300]}{place}", "dim")
    if diagnosis.advice:
        yield _row("do", diagnosis.advice, "green")
    yield _row("doctor", _can_do(incident))
    if verbose:
        for index, candidate in enumerate(diagnosis.ruled_out):
            yield _row(
                "ruled out" if index == 0 else "",
                f"{candidate.cause} ({candidate.decided_by}): {candidate.why_not} [{candidate.evidence.text[:120]}]",
                "dim",
            )


def _culprit(incident: Incident) -> str:
    culprit = incident.diagnosis.culprit
    facts = [
        ("transformation", culprit.transformation),
        ("site", culprit.site),
        ("host", culprit.host),
        ("attempt", str(culprit.attempt or "")),
        ("workflow", culprit.workflow),
    ]
    named = ", ".join(f"{name} {value}" for name, value in facts if value)
    count = len(incident.jobs)
    text = f"{culprit.job or 'the run as a whole'} ({named})" if named else culprit.job or "the run as a whole"
    others = [job for job in incident.jobs if job != culprit.job]
    if count > 1 or others:
        shown = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
        text += f"; {count:,} job{'s' if count > 1 else ''} failed of it" + (f" ({shown})" if shown else "")
    return text


def _evidence(label: str, entry: Evidence) -> Text:
    place = f"{entry.file}:{entry.line}" if entry.line else entry.file
    row = Text(f"{label:<{_LABEL}}", style="cyan")
    row.append(place, style="dim")
    row.append(f"  {entry.text[:400]}")
    return row


def _can_do(incident: Incident) -> str:
    remedies = incident.diagnosis.remedies
    if not remedies:
        return "knows no repair for this cause; it needs a person"
    best = remedies[0]
    params = ", ".join(f"{name}={value}" for name, value in best.params.items() if name != "job")
    return f"proposes {best.action}" + (f" ({params})" if params else "") + f": {best.summary} Risk: {best.risk}."


def _warning(warning: RunWarning) -> Iterator[Text]:
    title = Text("!  ", style="bold yellow")
    title.append(warning.cause, style="bold yellow")
    title.append("  the jobs succeeded; this is a warning", style="dim")
    yield title
    yield _row("what", warning.summary, "bold")
    for index, entry in enumerate(warning.evidence[:3]):
        yield _evidence("evidence" if index == 0 else "", entry)
    if warning.advice:
        yield _row("do", warning.advice, "green")


def _row(label: str, text: str, style: str = "") -> Text:
    row = Text(f"{label:<{_LABEL}}", style="cyan")
    row.append(text, style=style)
    return row
