"""The pack over all recorded runs: bounded, deterministic, numbered, with the telling lines in it."""

from __future__ import annotations

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.llm.lines import WIDTH, choose
from doctor.llm.pack import Pack, Piece
from doctor.llm.redact import Redactor
from doctor.llm.sections import incident_pack, run_names
from doctor.model import Incident, Kind, Line
from tests.recorded import Case, every

LIMIT = 6000
CASES = [case for case in every() if not case.healthy and case.category != "silent"]


def packs(case: Case, matcher: Matcher) -> list[tuple[Incident, Pack]]:
    run = case.open()
    report = case.analyze(matcher)
    return [(one, incident_pack(one, run, Redactor(run_names(run)), 5000)) for one in report.incidents]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_recorded_runs(case: Case, matcher: Matcher) -> None:
    first, again = packs(case, matcher), packs(case, matcher)
    assert first
    for (incident, pack), (_, same) in zip(first, again, strict=True):
        assert pack.tokens <= LIMIT
        assert (pack.text, pack.digest) == (same.text, same.digest)
        assert list(pack.lines) == [f"E{number}" for number in range(1, len(pack.lines) + 1)]
        assert pack.text.count("\n") + 1 == len(pack.rows)
        user = case.open().identity.user
        assert f"/{user}/" not in pack.text
        if incident.diagnosis.decided_by.startswith("rule:"):
            texts = [one.text for one in pack.lines.values()]
            assert any(one.text in texts for one in incident.diagnosis.evidence)


def test_ninety_five_of_a_hundred_packs_are_small(matcher: Matcher) -> None:
    sizes = sorted(pack.tokens for case in CASES for _, pack in packs(case, matcher))
    assert sizes[int(len(sizes) * 0.95)] <= LIMIT


def test_a_huge_log_makes_a_small_pack() -> None:
    lines = tuple(Line(f"step {number} went {'x' * 2000}", number) for number in range(1, 4_001))
    pack = Pack(Redactor(), 2000)
    for kind in (Kind.STDERR, Kind.STDOUT, Kind.HOLD):
        pack.add(Piece("log", f"{kind.value}.out", kind, tuple(choose(lines, 20, 100, 10)), 100_000))
    assert pack.tokens <= 2000
    assert all(len(row) <= WIDTH + 60 for row in pack.rows)


def test_lines_are_told_once() -> None:
    pack = Pack(Redactor(), 2000)
    piece = Piece("log", "a.out", Kind.STDERR, (Line("same", 3), Line("other", 4)))
    assert pack.add(piece) == 2
    assert pack.add(piece) == 0


def test_choosing_keeps_head_tail_and_complaints() -> None:
    lines = [Line(f"line {'abcdefghij'[n % 10] * (n // 10 + 1)}", n) for n in range(200)]
    lines[100] = Line("FATAL ERROR: the gronk is gone", 100)
    numbers = [line.number for line in choose(lines, 3, 4, 5)]
    assert numbers == [0, 1, 2, 98, 99, 100, 101, 102, 196, 197, 198, 199]


def test_equal_messages_are_told_once() -> None:
    lines = [Line(f"ERROR: cannot read /data/x/file{n} at step {n}", n) for n in range(500)]
    assert len(choose(lines, 5, 20, 8)) <= 5
