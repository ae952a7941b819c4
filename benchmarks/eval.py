"""``python -m benchmarks.eval``: how well the configured model does on labelled runs, alone, and what it costs.

The rules are switched off: the model sees the evidence and not what the rules think of it, and no rule
checks its citations. With ``--scripted`` a loopback server plays the provider; it reads the truth from the
labels, so its accuracy says nothing about any model; what that shows are the targets of cost and size.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.cases import Labelled, labelled
from doctor.diagnose.engine import Options, analyze
from doctor.diagnose.library import Library, load
from doctor.diagnose.matcher import Matcher
from doctor.llm.classify import Classifier
from doctor.llm.config import Access, LlmSettings, Off, access, load_settings
from doctor.llm.consult import Consultant
from doctor.llm.pack import Pack
from doctor.llm.redact import Redactor
from doctor.llm.sections import incident_pack, job_pack, run_names
from doctor.model import Culprit, Diagnosis, Incident
from doctor.run.dataflow import is_auxiliary
from doctor.run.reader import Job, Run
from doctor.statedir import run_key
from doctor.store import Store

PACK_LIMIT = 6000
EQUAL_FAILURES = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one run."""

    name: str
    truth: str
    said: str  # the cause, "abstain", or "none" where there was no opinion
    right: bool
    grounded: bool
    pack_tokens: int
    tokens: int
    dollars: float
    seconds: float
    calls: int
    reason: str


def questions(case: Labelled, bare: Matcher) -> Iterator[tuple[Incident, Pack, Run]]:
    """What is asked of a run: its first incident, or for a healthy run what its last compute job printed."""
    run = case.open()
    report = analyze(run, bare, Options("off"))
    if report.incidents:
        one = report.incidents[0]
        yield one, incident_pack(one, run, Redactor(run_names(run)), 5000, rules=False), run
        return
    job = _last_job(run)
    if job is not None:
        pack = Pack(Redactor(run_names(run)), 5000)
        job_pack(pack, job)
        yield _unknown(pack, job), pack, run


def _last_job(run: Run) -> Job | None:
    names = [name.decode("utf-8", "replace") for part in [run] for name in part.history.latest]
    jobs = [job for job in run.jobs(names[-50:]) if job.attempts and not is_auxiliary(job)]
    return jobs[-1] if jobs else None


def _unknown(pack: Pack, job: Job) -> Incident:
    return Incident(pack.digest[:12], Diagnosis("none/none", 0.0, "none", Culprit(job.name), "", "", ()), (job.name,))


def judge(case: Labelled, classifier: Classifier, bare: Matcher) -> Row | None:
    """Ask about one run and hold the answer against its label."""
    asked = next(questions(case, bare), None)
    if asked is None:
        return None
    incident, pack, run = asked
    size = pack.tokens
    began = time.monotonic()
    result = classifier.classify(incident, pack, run, run_key(str(run.directory)))
    seconds = time.monotonic() - began
    opinion, made = result.opinion, result.diagnosis
    said = made.cause if made else "healthy" if result.healthy else {"abstained": "abstain"}.get(opinion.outcome, "none")
    if case.healthy:
        right = said in ("abstain", "healthy")
        grounded = right
    else:
        right = made is not None and made.cause == case.truth
        cited = " ".join(one.text for one in made.evidence) if made else ""
        grounded = right and all(word in cited for word in case.words)
    return Row(
        case.name, case.truth, said, right, grounded, size, opinion.sent + opinion.received, opinion.dollars, seconds, opinion.calls,
        opinion.reason,
    )  # fmt: skip


# -- the scripted provider ----------------------------------------------------------------------------


@contextmanager
def scripted(cases: list[Labelled]) -> Iterator[tuple[str, list[Any]]]:
    """A loopback provider that answers from the labels, citing the lines that hold their words."""
    from tests.llm.peer import Body, Scripted, answer, says, serve

    current: list[Labelled] = []

    def script(body: Body, number: int) -> Scripted:
        text = str(body["messages"][0]["content"][0]["text"])
        usage = {"input_tokens": 400, "output_tokens": 150, "cache_read_input_tokens": 6000 if number else 0}
        rows = re.findall(r"^(E\d+)(?: line \d+)?\| (.*)$", text, re.MULTILINE)
        case = current[0] if current else None
        if case is None or case.healthy or not rows:
            return says(answer("abstain", explanation="Scripted."), **usage)
        wanted = [next((name for name, row in rows if word in row), "") for word in case.words]
        cited = [name for name in dict.fromkeys(wanted) if name] or [rows[0][0]]
        return says(answer(case.truth, *cited[:8], explanation="Scripted.", confidence=0.9), **usage)

    with serve(script) as peer:
        yield peer.url, [current, peer]


# -- targets ------------------------------------------------------------------------------------------


def targets(found: Access, matcher: Matcher, peer: Any, folder: Path) -> list[tuple[str, str, bool]]:
    """The targets of cost, measured on generated equal and unequal failures with the scripted provider."""
    from tests.llm.conftest import odd_run

    rows: list[tuple[str, str, bool]] = []
    run = odd_run(folder / "equal", jobs=EQUAL_FAILURES)
    report = analyze(run, matcher, Options("off"))
    with _store(folder / "state") as store:
        ask = Consultant(_classifier(found, store, matcher))
        before = len(peer.requests)
        ask(report, run)
        calls = len(peer.requests) - before
        rows.append((f"{EQUAL_FAILURES:,} equal failures", f"{calls} call", calls == 1))
        Consultant(_classifier(found, store, matcher))(report, run)
        again = len(peer.requests) - before - calls
        rows.append(("the same analysis again, cache warm", f"{again} calls", again == 0))
        mixed = [odd_run(folder / f"mixed{n}", stderr=f"gronk of sort {word}", jobs=20) for n, word in enumerate(("red", "green", "blue"))]
        before = len(peer.requests)
        for one in mixed:
            ask(analyze(one, matcher, Options("off")), one)
        calls = len(peer.requests) - before
        rows.append(("3 fingerprints of 20 jobs each", f"{calls} calls", calls == 3))
    return rows


@contextmanager
def _store(folder: Path) -> Iterator[Store]:
    store = Store(folder, time.time)
    try:
        yield store
    finally:
        store.close()


def _classifier(found: Access, store: Store, matcher: Matcher) -> Classifier:
    from doctor.llm.wiring import classifier

    return classifier(store, matcher, found)


def percentile(values: list[int], share: float) -> int:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--scripted", "play", is_flag=True, help="A scripted loopback provider instead of the configured one: shows the targets.")
@click.option("--only", help="Only runs whose name holds this word.")
@click.option("--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file too.")
def main(play: bool, only: str | None, target: Path | None) -> None:
    """Evaluate the configured model on labelled runs with the rules switched off.

    Without a configured key (ANTHROPIC_API_KEY) the scripted provider is used. Exit code 1 when a target is missed.
    """
    cases = [case for case in labelled() if (not only or only in case.name) and not case.silent]
    library = load()
    bare = Matcher(Library((), (), library.causes, library.actions))
    settings = load_settings(None, os.environ)
    found = access(settings, os.environ, requested=True)
    console = Console(highlight=False)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pegasus-doctor-eval-")))
        script: list[Any] | None = None
        if play or isinstance(found, Off):
            url, script = stack.enter_context(scripted(cases))
            found = Access(settings, "scripted", url)
        roomy = _roomy(found)
        store = stack.enter_context(_store(folder / "eval"))
        rows = _all(cases, roomy, store, bare, script)
        costs: list[tuple[str, str, bool]] = []
        if script is not None:
            script[0].clear()
            costs = targets(roomy, Matcher(library), script[1], folder)
    size = percentile([row.pack_tokens for row in rows], 0.95)
    costs.append(
        (f"evidence pack at the 95th percentile of {len(rows)} runs (estimated on the safe side)", f"{size:,} tokens", size < PACK_LIMIT)
    )
    figures = _figures(rows, costs, settings.model if script is None else "scripted")
    _show(console, rows, figures, costs)
    if target is not None:
        target.write_text(json.dumps({**figures, "rows": [asdict(row) for row in rows]}, indent=1), "utf-8")
    sys.exit(0 if all(met for _, _, met in costs) else 1)


def _roomy(found: Access) -> Access:
    """The budgets are for operation; an evaluation asks about everything."""
    most = found.settings.budget.model_copy(
        update={"run_tokens": 10**9, "day_tokens": 10**9, "run_dollars": 1e6, "day_dollars": 1e6, "incident_dollars": 1e6}
    )
    settings: LlmSettings = found.settings.model_copy(update={"budget": most})
    return replace(found, settings=settings)


def _all(cases: list[Labelled], found: Access, store: Store, bare: Matcher, script: list[Any] | None) -> list[Row]:
    rows: list[Row] = []
    asking = _classifier(found, store, bare)
    for case in cases:
        if script is not None:
            script[0][:] = [case]
        row = judge(case, asking, bare)
        if row is not None:
            rows.append(row)
    return rows


def _figures(rows: list[Row], costs: list[tuple[str, str, bool]], model: str) -> dict[str, Any]:
    broken = [row for row in rows if not row.truth.startswith("none/")]
    sound = [row for row in rows if row.truth.startswith("none/")]
    share = lambda some, of: round(sum(some) / len(of), 3) if of else None  # noqa: E731
    return {
        "model": model,
        "failed_runs": len(broken),
        "healthy_runs": len(sound),
        "accuracy": share([row.right for row in broken], broken),
        "grounded_accuracy": share([row.grounded for row in broken], broken),
        "abstained_on_failed": share([row.said == "abstain" for row in broken], broken),
        "abstained_on_healthy": share([row.right for row in sound], sound),
        "no_opinion": share([row.said == "none" for row in rows], rows),
        "tokens_per_incident": round(statistics.mean(row.tokens for row in rows)) if rows else 0,
        "dollars_per_incident": round(statistics.mean(row.dollars for row in rows), 6) if rows else 0.0,
        "dollars": round(sum(row.dollars for row in rows), 6),
        "seconds_per_incident": round(statistics.median(row.seconds for row in rows), 3) if rows else 0.0,
        "calls_per_incident": round(statistics.mean(row.calls for row in rows), 2) if rows else 0.0,
        "targets": [{"what": what, "measured": measured, "met": met} for what, measured, met in costs],
    }


def _show(console: Console, rows: list[Row], figures: dict[str, Any], costs: list[tuple[str, str, bool]]) -> None:
    wrong = [row for row in rows if not row.grounded]
    if wrong:
        table = Table("run", "truth", "said", "reason", title="not right, or right without the telling line")
        for row in wrong:
            table.add_row(row.name, row.truth, row.said, row.reason[:80])
        console.print(table)
    if figures["model"] == "scripted":
        console.print("The scripted provider answers from the labels: its accuracy says nothing about any model.")
    for key, value in figures.items():
        if key != "targets":
            console.print(f"{key.replace('_', ' '):<24}{value}")
    for what, measured, met in costs:
        console.print(f"{'met   ' if met else 'MISSED'}  {what}: {measured}")


if __name__ == "__main__":
    main()
