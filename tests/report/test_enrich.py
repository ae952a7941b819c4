"""Adding to pegasus-analyzer's text without changing a byte of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.diagnose.matcher import Matcher
from doctor.model import Report
from doctor.report.enrich import enrich, run_argument, submit_directory
from tests.recorded import fixtures


@pytest.fixture(scope="module")
def report(matcher: Matcher) -> Report:
    return next(report for case in fixtures() if (report := case.analyze(matcher)).incidents and report.incidents[0].jobs)


def test_the_directory_that_the_text_names(tmp_path: Path) -> None:
    assert submit_directory("\n Submit Directory   : /data/run 1\n Total jobs : 3\n") == "/data/run 1"
    assert submit_directory("ERROR: Workflow Failed  wf_uuid: x submit dir: /data/run0001\n") == "/data/run0001"
    assert submit_directory(" Submit Directory   : None\n") is None
    (tmp_path / "braindump.yml").write_text("")
    assert submit_directory(f" Submit Directory   : None\nsubmit file: {tmp_path}/00/00/a.sub\n") == str(tmp_path)
    assert submit_directory("submit file: /" + "x" * 5000 + "/a.sub\n") is None


def test_one_line_of_cause_under_each_job_that_is_detailed(report: Report) -> None:
    job = report.incidents[0].jobs[0]
    text = f"***Failed jobs' details***\n\n{f'{job}':=^80}\n\n last state: POST_SCRIPT_FAILURE\n\n{'other_job':=^80}\n"
    out = "".join(enrich(text, report))
    added = [row for row in out.splitlines() if row.startswith(" pegasus-doctor: ")]
    assert added and f"{report.incidents[0].category}/{report.incidents[0].cause}" in added[0]
    assert out.index(added[0]) > out.index(job)
    assert len(added) == 1


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=200))
def test_every_byte_of_the_text_is_still_there(report: Report, text: str) -> None:
    text = text if text.endswith("\n") else text + "\n"
    assert "".join(enrich(text, report)) == text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-q", "-i", "run"], "run"),
        (["--dir=run"], "run"),
        (["-d", "run", "-q"], "run"),
        ([], "."),
        (["-q"], "."),
        (["/"], "/"),
        (["-q", "/"], "/"),
    ],
)
def test_the_run_among_pegasus_analyzers_own_arguments(arguments: list[str], expected: str) -> None:
    assert run_argument(arguments) == expected
