"""Recorded real runs: the right cause, the right culprit, the words that prove it; nothing on healthy ones."""

from __future__ import annotations

import re

import pytest

from doctor.diagnose.matcher import Matcher
from tests.recorded import Case, complaints, fixtures, shared


@pytest.mark.parametrize("case", fixtures(), ids=lambda case: case.name)
def test_fixtures(case: Case, matcher: Matcher) -> None:
    assert complaints(case, case.analyze(matcher)) == []


@pytest.mark.skipif(not shared(), reason="no shared collection of runs beside this checkout")
@pytest.mark.parametrize("case", shared(), ids=lambda case: case.name)
def test_shared_runs(case: Case, matcher: Matcher) -> None:
    assert complaints(case, case.analyze(matcher)) == []


def test_there_are_enough_fixtures() -> None:
    failed = [case for case in fixtures() if not case.healthy]
    assert len(failed) >= 12
    assert len({case.truth for case in failed}) >= 8
    assert any(case.healthy for case in fixtures())


def test_nothing_recorded_names_the_place_where_it_was_made() -> None:
    for case in fixtures():
        assert case.old.startswith("/")
        assert not case.run.startswith("/")
        assert (case.folder / case.run / "braindump.yml").is_file()


@pytest.mark.parametrize("case", fixtures(), ids=lambda case: case.name)
def test_evidence_points_at_lines_that_say_so(case: Case, matcher: Matcher) -> None:
    report = case.analyze(matcher)
    root = case.folder / case.run
    for incident in report.incidents:
        for entry in incident.diagnosis.evidence:
            path = root / entry.file
            if entry.line is None or not path.is_file():
                continue
            rows = path.read_bytes().decode("utf-8", "replace").split("\n")
            assert entry.line <= len(rows), entry
            words = re.findall(r"[\w.]{4,}", entry.text)
            around = " ".join(rows[max(0, entry.line - 2) : entry.line + 6])
            assert not words or any(word in around for word in words), (entry, rows[entry.line - 1])
