"""The reports: field names of schema 1, plain text, nothing of a log taken for markup."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from doctor.diagnose.matcher import Matcher
from doctor.model import (
    Culprit,
    Diagnosis,
    Evidence,
    Incident,
    JobCounts,
    Kind,
    Remedy,
    Report,
    RunState,
    RunSummary,
    RunWarning,
    Symptom,
    Unreadable,
)
from doctor.report.json import report_json
from doctor.report.terminal import render
from tests.recorded import Case, every

TOP = {"schema", "run", "incidents", "warnings", "unreadable"}
RUN = {"submit_dir", "label", "wf_uuid", "root_wf_uuid", "state", "state_reason", "jobs"}
JOBS = {"total", "succeeded", "failed", "held", "running", "queued", "unsubmitted"}
INCIDENT = {
    "id", "category", "cause", "confidence", "decided_by", "summary", "explanation", "advice", "culprit", "jobs", "job_count", "evidence",
    "symptoms", "remedies",
}  # fmt: skip
CULPRIT = {"job", "transformation", "site", "host", "workflow", "attempt"}
EVIDENCE = {"file", "line", "text", "kind"}
SYMPTOM = {"job", "text", "file", "line"}
REMEDY = {"action", "params", "risk", "summary"}
WARNING = {"category", "cause", "summary", "jobs", "job_count", "evidence"}


def check_schema(plain: dict[str, Any]) -> None:
    """The fields of schema 1: all there, of the right kind (additions are allowed)."""
    assert plain["schema"] == 1
    assert plain.keys() >= TOP
    assert plain["run"].keys() == RUN
    assert plain["run"]["jobs"].keys() == JOBS
    assert all(isinstance(count, int) for count in plain["run"]["jobs"].values())
    assert plain["run"]["state"] in {state.value for state in RunState}
    for incident in plain["incidents"]:
        assert incident.keys() >= INCIDENT
        assert incident["culprit"].keys() == CULPRIT
        assert 0 < incident["confidence"] < 1
        assert incident["decided_by"].split(":")[0] in ("rule", "structure", "llm")
        assert incident["decided_by"].partition(":")[2]
        assert len(incident["jobs"]) <= 20 and incident["job_count"] >= len(incident["jobs"])
        assert "/" not in incident["category"] and "/" not in incident["cause"]
        assert incident["summary"] and incident["explanation"] and incident["advice"]
        assert all(entry.keys() == EVIDENCE for entry in incident["evidence"])
        assert all(entry.keys() == SYMPTOM for entry in incident["symptoms"])
        assert all(entry.keys() == REMEDY for entry in incident["remedies"])
    for warning in plain["warnings"]:
        assert warning.keys() >= WARNING
        assert all(entry.keys() == EVIDENCE for entry in warning["evidence"])
    assert all(entry.keys() == {"file", "reason"} for entry in plain["unreadable"])


EVIL = "[bold]x[/bold] [/] \\[ \x1b[31m {0} %s <b>&amp;"


def evil_report(jobs: int = 45) -> Report:
    evidence = Evidence("00/00/a.out.000", 7, EVIL, Kind.STDERR)
    diagnosis = Diagnosis(
        cause="disk/full", confidence=0.9, decided_by="rule:x", culprit=Culprit("a", "step", "pool", "node1", "", 2), summary=EVIL,
        explanation="because", evidence=(evidence,), symptoms=(Symptom("b", EVIL, "f", 3),),
        remedies=(Remedy("act", {"mb": "1"}, "costly", EVIL),),
        advice="do it",
    )  # fmt: skip
    names = tuple(f"job{number}" for number in range(jobs))
    counts = JobCounts(total=jobs, failed=jobs)
    summary = RunSummary("/run", EVIL, "u", "r", RunState.FAILED, "DAGMan ended", counts)
    warning = RunWarning("silent/nan", EVIL, names, (evidence,), "look")
    return Report(summary, (Incident("i1", diagnosis, names),), (warning,), (Unreadable("x", "why"),))


def plain_text(report: Report, *, verbose: bool = False) -> str:
    stream = io.StringIO()
    render(report, Console(file=stream, highlight=False, width=80), verbose=verbose)
    return stream.getvalue()


def test_schema_of_a_full_report() -> None:
    plain = report_json(evil_report())
    check_schema(plain)
    assert (len(plain["incidents"][0]["jobs"]), plain["incidents"][0]["job_count"]) == (20, 45)
    assert (len(plain["warnings"][0]["jobs"]), plain["warnings"][0]["job_count"]) == (20, 45)
    assert json.loads(json.dumps(plain)) == plain


def test_a_missing_field_would_be_seen() -> None:
    plain = report_json(evil_report())
    del plain["incidents"][0]["culprit"]["host"]
    with pytest.raises(AssertionError):
        check_schema(plain)


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
def test_reports_of_recorded_runs(case: Case, matcher: Matcher) -> None:
    report = case.analyze(matcher)
    check_schema(json.loads(json.dumps(report_json(report))))
    text = plain_text(report)
    assert "\x1b" not in text
    for incident in report.incidents:
        assert incident.diagnosis.cause in text
        assert all(f"{one.file}:{one.line}" in text for one in incident.diagnosis.evidence if one.line)
    if len(report.incidents) == 1 and not report.warnings and not report.unreadable:
        assert text.count("\n") <= 24  # one screen for one cause
    assert len(plain_text(report, verbose=True)) >= len(text)


def test_text_of_logs_is_never_markup() -> None:
    text = plain_text(evil_report())
    assert "[bold]x[/bold] [/] \\[" in text
    assert "\x1b" not in text.replace("\x1b[31m", "")


def test_many_jobs_are_counted_and_not_listed() -> None:
    text = plain_text(evil_report(1000))
    assert "1,000 jobs" in text
    assert "job999" not in text
