"""Cause and not symptom: the five points of causality, on runs made for one fact each."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from doctor.diagnose.engine import Options, analyze
from doctor.diagnose.matcher import Matcher
from doctor.model import Incident, Report
from doctor.run.files import Ledger
from doctor.run.reader import Run, open_run
from tests.builder import Builder, event, record
from tests.run.test_reader import parent_with_child

MODULE = "Traceback (most recent call last):\n  File \"step.py\", line 3\nModuleNotFoundError: No module named 'rasterio'"
OUTPUT_HOLD = (
    "Transfer output files failure at execution point slot1@vm while sending files to access point vm. "
    "Details: reading from file /x/f.c: (errno 2) No such file or directory"
)


def report(run: Run, matcher: Matcher) -> Report:
    return analyze(run, matcher, Options())


def only(found: Report) -> Incident:
    (incident,) = found.incidents
    return incident


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def held(build: Builder, name: str, condor: str) -> None:
    build.attempt(
        name, "SUBMIT", "EXECUTE", "JOB_EVICTED", "JOB_HELD", "JOB_HELD_REASON", "JOB_ABORTED", "POST_SCRIPT_FAILURE=1", condor=condor
    )
    build.events += event(12, condor, "Job was held.", OUTPUT_HOLD, "Code 12 Subcode 2")


def test_the_programs_own_error_outranks_the_hold(build: Builder, matcher: Matcher) -> None:
    build.job("a", outputs={".out.000": record(raw=256, stderr=MODULE, condor="7.0"), ".out.lof": "f.c=f.c\n"})
    held(build, "a", "7.0")
    build.finish(1)
    incident = only(report(build.open(), matcher))
    assert incident.diagnosis.cause == "dependency/python-package-missing"
    assert "rasterio" in incident.diagnosis.summary


def test_a_missing_output_after_exit_code_zero_is_the_cause(build: Builder, matcher: Matcher) -> None:
    missing = '    f.c:\n      lfn: "f.c"\n      error: 2\n      output: True\n'
    build.job("a", outputs={".out.000": record(condor="7.0", extra_files=missing), ".out.lof": "f.c=f.c\n"})
    held(build, "a", "7.0")
    build.finish(1)
    diagnosis = only(report(build.open(), matcher)).diagnosis
    assert (diagnosis.cause, diagnosis.subject) == ("user-code/declared-output-not-produced", "f.c")


def test_equal_failures_are_one_incident(build: Builder, matcher: Matcher) -> None:
    for number in range(5):
        name = f"job{number}"
        build.job(name, outputs={".out.000": record(raw=256, stderr=MODULE, condor=f"{number}.0")})
        build.fail(name, condor=f"{number}.0")
    build.job("other", outputs={".out.000": record(raw=256, stderr="MemoryError", condor="9.0")})
    build.fail("other", condor="9.0")
    build.finish(1)
    found = report(build.open(), matcher)
    assert sorted(len(incident.jobs) for incident in found.incidents) == [1, 5]
    assert len({incident.id for incident in found.incidents}) == 2


def test_a_failure_whose_retry_succeeded_is_history(build: Builder, matcher: Matcher) -> None:
    build.job("a", outputs={".out.000": record(raw=256, stderr=MODULE, condor="7.0"), ".out.001": record(condor="8.0")})
    build.fail("a", condor="7.0")
    build.succeed("a", condor="8.0")
    build.finish(0)
    found = report(build.open(), matcher)
    assert found.incidents == ()
    assert [entry.job for entry in found.history] == ["a"]


def test_the_record_of_an_earlier_attempt_is_not_taken_for_the_latest(build: Builder, matcher: Matcher) -> None:
    build.job("a", outputs={".out.000": record(raw=256, stderr=MODULE, condor="7.0")})
    build.fail("a", condor="7.0")
    build.attempt("a", "SUBMIT", "EXECUTE", "JOB_HELD", condor="8.0")
    build.events = event(12, "8.0", "Job was held.", "via condor_hold (by user sci)", "Code 1 Subcode 0")
    diagnosis = only(report(build.open(), matcher)).diagnosis
    assert (diagnosis.cause, diagnosis.culprit.attempt) == ("policy/held-by-user", 2)


def test_nothing_known_is_an_application_error_with_low_confidence(build: Builder, matcher: Matcher) -> None:
    build.job("a", outputs={".out.000": record(raw=256, stderr="qwertz: zorbl frobnicated the gnarf", condor="7.0")})
    build.fail("a", condor="7.0")
    build.finish(1)
    diagnosis = only(report(build.open(), matcher)).diagnosis
    assert diagnosis.cause == "user-code/application-error"
    assert diagnosis.confidence <= 0.5
    assert "zorbl frobnicated" in diagnosis.evidence[0].text


def test_a_job_without_any_file_is_never_silence(build: Builder, matcher: Matcher) -> None:
    build.job("a")
    build.fail("a", condor="7.0")
    build.finish(1)
    incident = only(report(build.open(), matcher))
    assert incident.jobs == ("a",)
    assert incident.diagnosis.confidence < 0.8
    assert incident.diagnosis.evidence


def test_a_failed_sub_workflow_is_explained_by_what_failed_inside(tmp_path: Path, matcher: Matcher) -> None:
    parent_with_child(tmp_path)
    (tmp_path / "00/00/child.000/00/00/x.out.000").write_text(record(raw=256, stderr=MODULE, condor="201.0"))
    found = report(open_run(tmp_path, Ledger()), matcher)
    incident = only(found)
    assert (incident.diagnosis.culprit.job, incident.diagnosis.cause) == ("x", "dependency/python-package-missing")
    assert incident.diagnosis.culprit.workflow == "00/00/child.000"
    assert incident.diagnosis.evidence[0].file == "00/00/child.000/00/00/x.out.000"


def test_the_job_that_was_to_make_a_missing_input_is_the_culprit(build: Builder, matcher: Matcher) -> None:
    missing = '    x:\n      lfn: "x"\n      error: 2\n      output: True\n'
    build.job("make", outputs={".out.lof": "x=x\n", ".out.000": record(condor="1.0", extra_files=missing)})
    build.job("use", parents=("make",), outputs={
        ".in.lof": "x=x\n", ".out.000": record(raw=256, condor="2.0", stderr="FileNotFoundError: [Errno 2] No such file or directory: 'x'"),
    })  # fmt: skip
    build.succeed("make", condor="1.0")
    build.fail("use", condor="2.0")
    build.finish(1)
    incident = only(report(build.open(), matcher))
    assert incident.diagnosis.culprit.job == "make"
    assert any(symptom.job == "use" for symptom in incident.diagnosis.symptoms)


def test_a_clean_up_that_removed_an_input_too_early(build: Builder, matcher: Matcher) -> None:
    build.job("make", outputs={".out.lof": "x=x\n", ".out.000": record(condor="1.0")})
    removal = json.dumps([{"type": "remove", "target": {"url": "file:///s/x"}}])
    build.job("clean_up_0", transformation="pegasus::cleanup", job_class=6, parents=("make",), outputs={".in": removal})
    build.job("use", parents=("make", "clean_up_0"), outputs={
        ".in.lof": "x=x\n", ".out.000": record(raw=256, condor="3.0", stderr="FileNotFoundError: [Errno 2] No such file or directory: 'x'"),
    })  # fmt: skip
    build.succeed("make", condor="1.0")
    build.succeed("clean_up_0", condor="2.0")
    build.fail("use", condor="3.0")
    build.finish(1)
    diagnosis = only(report(build.open(), matcher)).diagnosis
    assert diagnosis.cause == "staging/premature-cleanup"


def test_successful_records_are_not_opened_without_need(build: Builder, matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    build.job("good", outputs={".out.000": record(condor="1.0")})
    build.job("bad", outputs={".out.000": record(raw=256, stderr=MODULE, condor="2.0")})
    build.succeed("good", condor="1.0")
    build.fail("bad", condor="2.0")
    build.finish(1)
    run = build.open()
    opened: list[str] = []
    real = type(run.files).open

    def spy(self: object, path: Path | str, *rest: bool, **more: bool) -> int | None:
        opened.append(str(path))
        return real(run.files, path, *rest, **more)

    monkeypatch.setattr(type(run.files), "open", spy)
    analyze(run, matcher, Options(silent="off"))
    assert any(path.endswith("bad.out.000") for path in opened)
    assert not any(path.endswith("good.out.000") for path in opened)


def test_progress_ends_at_the_total(build: Builder, matcher: Matcher) -> None:
    for number in range(3):
        build.job(f"j{number}")
        build.fail(f"j{number}")
    steps: list[tuple[int, int]] = []
    analyze(build.open(), matcher, Options(), lambda done, total: steps.append((done, total)))
    assert steps[0] == (0, 3) and steps[-1] == (3, 3)


def test_well_founded_incidents_come_first_then_the_earlier_and_reports_repeat(build: Builder, matcher: Matcher) -> None:
    for number, text in enumerate(("zorbl frobnicated", "MemoryError", MODULE, "MemoryError"), 1):
        build.job(f"j{number}", outputs={".out.000": record(raw=256, stderr=text, condor=f"{number}.0")})
        build.fail(f"j{number}", condor=f"{number}.0")
    build.finish(1)
    first, again = report(build.open(), matcher), report(build.open(), matcher)
    assert first == again
    assert [incident.jobs for incident in first.incidents] == [("j2", "j4"), ("j3",), ("j1",)]


HUGE = [
    "jobstate.log", "demo-0.dag", "demo-0.log", "demo-0.dag.dagman.out", "demo-0.dag.dagman.log", "demo-0.dag.rescue001", "braindump.yml",
    "demo-0.exitcode.log", "demo-0.stampede.db", "monitord.log", "workflow.yml", "catalogs/sites.yml", "catalogs/transformations.yml",
    "00/00/a.out.000", "00/00/a.err.000", "00/00/a.sub", "00/00/a.in", "00/00/a.in.lof", "00/00/a.out.lof",
]  # fmt: skip


@pytest.mark.parametrize("name", HUGE)
def test_a_file_blown_up_to_a_gigabyte_hides_nothing_and_needs_no_memory(build: Builder, matcher: Matcher, name: str) -> None:
    build.job("a", outputs={".out.000": record(raw=256, stderr="MemoryError", condor="101.0"), ".err.000": "x\n"})
    build.fail("a")
    build.finish(1)
    path = build.write() / name
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as stream:
        stream.truncate(1 << 26 if name in ("jobstate.log", "demo-0.dag") else 1 << 30)  # those two are read to their end
    tracemalloc.start()
    found = report(open_run(build.folder, Ledger()), matcher)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert only(found).diagnosis.cause == "resources/memory-exhausted"
    assert peak < 100 << 20


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("damage", ["fifo", "directory", "loop", "out"])
def test_anything_in_place_of_a_file(tmp_path: Path, matcher: Matcher, name: str, damage: str) -> None:
    build = Builder(tmp_path / "run")
    build.job("a", outputs={".out.000": record(raw=256, stderr="MemoryError", condor="101.0"), ".err.000": "x\n"})
    build.fail("a")
    build.finish(1)
    path = build.write() / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    (tmp_path / "secret").write_text("ModuleNotFoundError: No module named 'secret'\n")
    {
        "fifo": lambda: os.mkfifo(path), "directory": path.mkdir, "loop": lambda: path.symlink_to(path.name),
        "out": lambda: path.symlink_to(tmp_path / "secret"),
    }[damage]()  # fmt: skip
    found = report(open_run(build.folder, Ledger()), matcher)
    assert "secret" not in str(found.incidents)
    assert len(found.incidents) <= 1
    if name != "jobstate.log":
        assert found.incidents or name == "demo-0.dag"
