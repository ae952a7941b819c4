"""The commands about the model: what it cost, and rules made of what it explained. Imported when one is called."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doctor.errors import DoctorError

if TYPE_CHECKING:
    from doctor.diagnose.explain import Explanation
    from doctor.diagnose.matcher import Matcher
    from doctor.llm.config import LlmSettings
    from doctor.llm.consult import Consultant
    from doctor.model import Diagnosis, Opinion, Report
    from doctor.run.reader import Run
    from doctor.store import Store

    Afterwards = Callable[[Report, Run, Matcher], Report]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print as JSON (schema 1).")
_state_option = click.option(
    "--state", "state", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Where the doctor keeps its memory. Default: $XDG_STATE_HOME/pegasus-doctor.",
)  # fmt: skip


class LlmOff(DoctorError):
    """The model may not be asked; the message says why. An analysis goes on without it."""


def llm_options(command: Any) -> Any:
    """``--llm``, ``--show-prompt`` and ``--state`` of the commands that can ask the model."""
    command = click.option(
        "--state", "state", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
        help="With --llm: where answers and costs are kept. Default: $XDG_STATE_HOME/pegasus-doctor.",
    )(command)  # fmt: skip
    command = click.option("--show-prompt", is_flag=True, help="Print exactly what --llm would send, and send nothing.")(command)
    return click.option("--llm", is_flag=True, help="Ask the configured language model where the rules are uncertain.")(command)


@contextmanager
def _store(state: Path | None, keep: bool) -> Iterator[Store]:
    """The store; a scratch copy of it where nothing is to be kept."""
    from doctor.statedir import default_state_dir
    from doctor.store import Store, scratch_copy

    folder = state.absolute() if state else default_state_dir()
    if not keep:
        with scratch_copy(folder, time.time) as copy:
            yield copy
        return
    store = Store(folder, time.time)
    try:
        yield store
    finally:
        store.close()


def _settings() -> LlmSettings:
    from doctor.llm.config import load_settings

    return load_settings(None, os.environ)


@contextmanager
def _consultant(matcher: Matcher, show: bool, state: Path | None) -> Iterator[Consultant]:
    """A consultant that asks, or (``show``) one that only says what it would ask and needs no key.

    Raises :class:`LlmOff` where the model may not be asked.
    """
    from doctor.llm.config import Access, Off, access
    from doctor.llm.wiring import consultant

    settings = _settings()
    found = access(settings, os.environ, requested=True)
    if isinstance(found, Off):
        if not show or settings.mode == "off":
            raise LlmOff(f"the model is not asked: {found.reason}")
        found = Access(settings, "", "")
    with _store(state, keep=not show) as store:
        yield consultant(store, matcher, found)


def consult(report: Report, run: Run, matcher: Matcher, state: Path | None) -> Report:
    """``analyze --llm``: the report with the model's opinion on what the rules left uncertain."""
    with _consultant(matcher, False, state) as ask:
        return ask(report, run)


def show_prompts(report: Report, run: Run, matcher: Matcher, state: Path | None) -> None:
    """``analyze --show-prompt``: exactly the request bodies that would be sent, one JSON document each; nothing is sent."""
    with _consultant(matcher, True, state) as ask:
        shown = 0
        for incident, body in ask.requests(report, run):
            shown += 1
            click.echo(f"# incident {incident.id}: {incident.diagnosis.cause}, confidence {incident.diagnosis.confidence:.2f}", err=True)
            click.echo(json.dumps(body, indent=1, ensure_ascii=False))
        if not shown:
            click.echo("No incident is uncertain enough to be asked about; nothing would be sent.", err=True)


def afterwards(llm: bool, show: bool, state: Path | None) -> Afterwards | None:
    """What ``analyze`` does with its report when ``--llm`` or ``--show-prompt`` is given; None for neither."""
    if not (llm or show):
        return None

    def then(report: Report, run: Run, matcher: Matcher) -> Report:
        if show:
            show_prompts(report, run, matcher, state)
            return report
        try:
            return consult(report, run, matcher, state)
        except LlmOff as off:
            click.echo(f"pegasus-doctor: {off}", err=True)
            return report

    return then


def explain(
    data: bytes, kind: str | None, matches: list[Explanation], matcher: Matcher, show: bool, state: Path | None
) -> list[Explanation]:
    """``explain --llm``: the matches, with the model's view first where the rules know the message not well enough."""
    from doctor.diagnose.explain import KINDS, Explanation
    from doctor.llm.pack import message_pack
    from doctor.llm.redact import Redactor
    from doctor.model import Culprit, Diagnosis, Evidence, Incident, Kind, Line
    from doctor.run.files import to_lines

    lines = list(to_lines(data))
    which = KINDS[kind][0] if kind else Kind.STDERR
    best = matches[0] if matches else None
    try:
        with _consultant(matcher, show, state) as ask:
            rules = ask.classifier
            if not lines or (best is not None and best.confidence >= rules.settings.confidence):
                click.echo("The rules know this message well enough; the model is not asked.", err=True)
                return matches
            pack = message_pack(lines, which, Redactor(ask.local), rules.settings.pack_tokens)
            if show:
                click.echo(json.dumps(rules.first_request(pack), indent=1, ensure_ascii=False))
                return matches
            line = best.line if best else next((one for one in lines if one.text.strip()), Line(""))
            known = Diagnosis(
                best.cause if best else "user-code/application-error", best.confidence if best else 0.0,
                best.decided_by if best else "none", Culprit(""), "", "", (Evidence("message", line.number, line.text.strip(), which),),
            )  # fmt: skip
            result = rules.classify(Incident(pack.digest[:12], known, ()), pack, None, "")
    except LlmOff as off:
        click.echo(f"pegasus-doctor: {off}", err=True)
        return matches
    print_opinion(result.opinion)
    made = result.diagnosis
    if made is None:
        return matches
    first = made.evidence[0]
    info = matcher.library.causes[made.cause]
    mine = Explanation(
        made.cause, made.confidence, made.decided_by, made.advice, f"{info.definition} {made.explanation}", Line(first.text, first.line)
    )
    return [mine, *(one for one in matches if one.cause != made.cause)]


@click.group("llm")
def llm_group() -> None:
    """The language model: whether it may be asked, and what it cost."""


@llm_group.command("usage")
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="How far to look back.")
@_state_option
@_json_option
def usage_command(days: int, state: Path | None, as_json: bool) -> None:
    """What asking the model cost, per day, and what is left of today's budget.

    \b
    Example:
      pegasus-doctor llm usage --days 7
    """
    from doctor.llm.budget import DAY
    from doctor.llm.config import Off, access

    settings = _settings()
    found = access(settings, os.environ, requested=True)
    with _store(state, keep=False) as store:
        now = time.time()
        rows = store.llm_usage(now - days * DAY)
        today = store.llm_spent(since=now - DAY)
    tokens = int(today["sent"]) + int(today["received"])
    limits = settings.budget
    if as_json:
        plain = {
            "schema": 1, "model": settings.model, "mode": settings.mode, "off": found.reason if isinstance(found, Off) else "",
            "days": rows,
            "last_24_h": {
                "tokens": tokens, "dollars": today["dollars"], "token_limit": limits.day_tokens, "dollar_limit": limits.day_dollars,
            },
        }  # fmt: skip
        click.echo(json.dumps(plain, indent=1))
        return
    click.echo(f"model {settings.model}, mode {settings.mode}" + (f"; not asked: {found.reason}" if isinstance(found, Off) else ""))
    for row in rows:
        click.echo(
            f"{row['day']}  {row['model']:<24} {row['calls']:>5} calls {row['sent']:>9,} tokens sent ({row['cache_read']:,} from the cache)"
            f" {row['received']:>8,} received  ${row['dollars']:.4f}"
            f"  {row['answered']} answered, {row['abstained']} abstained, {row['failed']} failed"
        )
    if not rows:
        click.echo("Nothing was asked in this time.")
    click.echo(f"last 24 hours: {tokens:,} of {limits.day_tokens:,} tokens, ${today['dollars']:.4f} of ${limits.day_dollars:.2f}")


@click.command("draft")
@click.argument("incident")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the rule to this file or folder instead of printing it.")
@_state_option
def draft_command(incident: str, output: Path | None, state: Path | None) -> None:
    """Turn a diagnosis of the model that you confirmed into a draft rule, checked by the rule loader.

    INCIDENT is an incident's id, from `analyze --llm --json` or `incidents`.

    \b
    Example:
      pegasus-doctor rules draft 3f2a9c01be -o patterns/user-code/
    """
    from doctor.llm.draft import draft
    from doctor.llm.wiring import local_names

    with _store(state, keep=False) as store:
        diagnosis, origin = _decided(store, incident)
    made = draft(diagnosis, origin, [*local_names(os.environ), ("HOST", diagnosis.culprit.host)])
    if output is None:
        click.echo(made.text, nl=False)
    else:
        target = output / f"{made.id}.yaml" if output.is_dir() else output
        if target.exists():
            raise DoctorError("is there already; give another name", file=str(target))
        try:
            target.write_text(made.text, "utf-8")
        except OSError as problem:
            raise DoctorError(problem.strerror or "cannot be written", file=str(target)) from problem
        click.echo(f"wrote {target}")
    for remark in made.remarks:
        click.echo(f"note: {remark}", err=True)


def _decided(store: Store, incident: str) -> tuple[Diagnosis, str]:
    """The model's diagnosis of an incident: from the loop's own incidents, else from the kept answers."""
    from doctor.loop.records import incident_from

    try:
        row = store.incident(incident)
    except DoctorError:
        row = None
    if row is not None and row.incident.diagnosis.by_model:
        return row.incident.diagnosis, f"incident {row.id}"
    found = store.llm_answers(row.incident.id if row else incident) if len(incident) >= 4 else []
    for kept in found:
        data = json.loads(kept["body"]).get("incident")
        if data:
            return incident_from(data).diagnosis, f"incident {kept['fingerprint']}"
    if row is not None:
        return row.incident.diagnosis, f"incident {row.id}"  # draft() says that the model did not decide it
    raise DoctorError(f"no diagnosis of the model for {incident!r}; `pegasus-doctor analyze --llm --json RUN` names incidents")


def print_opinion(opinion: Opinion | None) -> None:
    """One line on standard error about what the model said and cost."""
    from doctor.report.llm import opinion_text

    if opinion is not None:
        click.echo(opinion_text(opinion), err=True)
