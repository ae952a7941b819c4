"""What a person was told once is told again only when there is more to tell; a burst is N jobs within M minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from doctor.loop.news import burst, is_news
from doctor.loop.records import IncidentRow
from doctor.loop.stages import Stage
from doctor.model import Culprit, Diagnosis, Incident
from doctor.run.files import Ledger
from doctor.run.reader import open_run
from tests.builder import Builder

BY = Diagnosis("network/dns", 0.9, "rule:x", Culprit("a", attempt=1), "s", "e", (), when=100.0)
KNOWN = IncidentRow("i", "r", "/run", Stage.ESCALATED, Incident("f", BY, ("a",)), "", 0, 1, 100.0, 110.0)


@pytest.mark.parametrize(
    ("seen", "news"),
    [
        (KNOWN.incident, False),
        (Incident("f", replace(BY, when=200.0), ("a",)), False),  # the same attempt was held first and removed later
        (Incident("f", replace(BY, culprit=Culprit("a", attempt=2)), ("a",)), True),
        (Incident("f", replace(BY, cause="network/refused"), ("a",)), True),
        (Incident("f", BY, ("a", "b")), True),
        (Incident("f", replace(BY, culprit=Culprit("b", attempt=1), when=105.0), ("b",)), False),
        (Incident("f", replace(BY, culprit=Culprit("b", attempt=1), when=120.0), ("b",)), True),
    ],
)
def test_is_news(seen: Incident, news: bool) -> None:
    assert is_news(KNOWN, seen) is news


def test_more_jobs_are_news_at_2_4_8_and_so_on() -> None:
    told, row = [], KNOWN
    for count in range(2, 40):
        seen = Incident("f", BY, tuple(f"j{n}" for n in range(count)))
        told += [count] if is_news(row, seen) else []
        row = replace(row, incident=seen)
    assert told == [2, 4, 8, 16, 32]


def test_burst(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run")
    times = (0, 10, 20, 2000, 2005)
    for number in range(len(times)):
        run.job(f"j{number}")
    folder = run.write()
    lines = [f"{1_795_000_000 + when} j{number} JOB_FAILURE 1 local - {number + 1}" for number, when in enumerate(times)]
    (tmp_path / "run" / "jobstate.log").write_text("".join(f"{line}\n" for line in lines))
    opened = open_run(folder if isinstance(folder, Path) else tmp_path / "run", Ledger())
    failed = Incident("f", BY, tuple(f"j{number}" for number in range(len(times))))
    assert [burst(opened, failed, within) for within in (1, 10, 100, 5000)] == [1, 2, 3, 5]
