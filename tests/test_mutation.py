"""Recorded runs, damaged in 200 ways: no crash, and no certainty that the damage made up.

Each number gives one kind of damage to one file of one fixture, always the same. An incident that
the doctor is sure of (confidence 0.8 or more) must be the true cause of that run, or one that the
undamaged run names too; on a healthy run there must be none at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.model import Report
from tests.recorded import Case, fixtures

WAYS = 200
SURE = 0.8
#: Causes whose definition (patterns/causes.yaml) is another one and a further fact; without the fact the other is still true.
GENERAL = {"staging/input-moved": "staging/input-missing"}
Change = dict[Path, bytes | None]  # new content by file; None for a file that is gone


def cut(chosen: list[Path], random: Random) -> Change:
    data = chosen[0].read_bytes()
    return {chosen[0]: data[: random.randrange(len(data) + 1)]}


def cut_front(chosen: list[Path], random: Random) -> Change:
    data = chosen[0].read_bytes()
    return {chosen[0]: data[random.randrange(len(data) + 1) :]}


def garble(chosen: list[Path], random: Random) -> Change:
    data = bytearray(chosen[0].read_bytes())
    for _ in range(min(len(data), 1 + len(data) // 50)):
        data[random.randrange(len(data))] = random.randrange(256)
    return {chosen[0]: bytes(data)}


def zero_block(chosen: list[Path], random: Random) -> Change:
    """What a file system leaves after a crash: a run of zero bytes."""
    data = bytearray(chosen[0].read_bytes())
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + 4096)
    data[start:end] = bytes(end - start)
    return {chosen[0]: bytes(data)}


def delete(chosen: list[Path], random: Random) -> Change:
    return {chosen[0]: None}


def delete_two(chosen: list[Path], random: Random) -> Change:
    return {chosen[0]: None, chosen[1]: None}


def swap(chosen: list[Path], random: Random) -> Change:
    return {chosen[0]: chosen[1].read_bytes(), chosen[1]: chosen[0].read_bytes()}


def duplicate(chosen: list[Path], random: Random) -> Change:
    return {chosen[0]: chosen[0].read_bytes() * 2}


def empty(chosen: list[Path], random: Random) -> Change:
    return {chosen[0]: b""}


def binary(chosen: list[Path], random: Random) -> Change:
    return {chosen[0]: random.randbytes(20_000)}


DAMAGES: tuple[Callable[[list[Path], Random], Change], ...] = (
    cut, cut_front, garble, zero_block, delete, delete_two, swap, duplicate, empty, binary,
)  # fmt: skip


@cache
def names_of(case: Case) -> frozenset[str]:
    return frozenset(path.relative_to(case.folder).as_posix() for path in (case.folder / case.run).rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    root = tmp_path_factory.mktemp("copies")

    @cache
    def copy_of(case: Case) -> Path:
        shutil.copytree(case.folder, root / case.name, symlinks=True)
        return root / case.name

    return copy_of


@pytest.fixture(scope="module")
def undamaged(matcher: Matcher) -> Callable[[Case], frozenset[str]]:
    @cache
    def causes(case: Case) -> frozenset[str]:
        return frozenset(incident.diagnosis.cause for incident in case.analyze(matcher).incidents)

    return causes


@contextmanager
def damaged(change: Change) -> Iterator[None]:
    before = {path: path.read_bytes() for path in change}
    try:
        for path, data in change.items():
            path.unlink()
            if data is not None:
                path.write_bytes(data)
        yield
    finally:
        for path, data in before.items():
            path.write_bytes(data)


def pick(number: int, folder: Path, case: Case) -> tuple[str, Change]:
    """One damage: half of them to the logs of the run as a whole, half to files of single jobs."""
    random = Random(number)
    logs, jobs = [], []
    for name in sorted(names_of(case)):
        path = folder / name
        (jobs if path.parent.name.isdigit() else logs).append(path)
    pool = logs if number % 2 or len(jobs) < 2 else jobs
    chosen = random.sample(pool, 2)
    damage = DAMAGES[number % len(DAMAGES)] if number % 3 else random.choice(DAMAGES)
    return f"{damage.__name__} {' '.join(path.name for path in chosen)}", damage(chosen, random)


def doubts(report: Report, case: Case, known: frozenset[str]) -> list[str]:
    sure = [one.diagnosis for one in report.incidents if one.diagnosis.confidence >= SURE]
    if case.healthy:
        return [f"{one.cause} {one.confidence} {one.decided_by} on a healthy run" for one in sure]
    true = {case.truth, GENERAL.get(case.truth), *known}
    return [f"{one.cause} {one.confidence} {one.decided_by}" for one in sure if one.cause not in true]


@pytest.mark.parametrize("number", range(WAYS))
def test_damage_makes_no_crash_and_no_false_certainty(
    number: int, matcher: Matcher, copies: Callable[[Case], Path], undamaged: Callable[[Case], frozenset[str]]
) -> None:
    cases = fixtures()
    case = cases[number % len(cases)]
    folder = copies(case)
    what, change = pick(number, folder, case)
    with damaged(change):
        report = case.analyze(matcher, folder)
    assert doubts(report, case, undamaged(case)) == [], f"{case.name}: {what}"


def test_the_damages_are_many_and_always_the_same(copies: Callable[[Case], Path]) -> None:
    cases = fixtures()
    seen = set()
    for number in range(WAYS):
        case = cases[number % len(cases)]
        what, change = pick(number, copies(case), case)
        assert pick(number, copies(case), case) == (what, change)
        seen.add((case.name, what))
    assert len(seen) >= WAYS * 0.95
    assert len({what.split()[0] for _, what in seen}) == len(DAMAGES)


def test_a_made_up_certainty_would_be_seen(matcher: Matcher) -> None:
    """The check itself must be able to fail."""
    failed = next(
        case for case in fixtures() if not case.healthy and any(i.diagnosis.confidence >= SURE for i in case.analyze(matcher).incidents)
    )
    report = failed.analyze(matcher)
    healthy = next(case for case in fixtures() if case.healthy)
    assert doubts(report, healthy, frozenset())
    assert doubts(report, failed, frozenset()) == []


@pytest.mark.parametrize(
    ("truth", "lost"), [("dependency/undeclared-helper-file", "transformations.yml"), ("disk/scratch-full", "sites.yml")]
)
def test_certainty_falls_with_the_file_that_tells_two_causes_apart(
    truth: str, lost: str, matcher: Matcher, copies: Callable[[Case], Path]
) -> None:
    for case in fixtures():
        folder = copies(case)
        gone: Change = dict.fromkeys((folder / case.run).rglob(lost))
        if case.truth == truth and gone:
            with damaged(gone):
                assert doubts(case.analyze(matcher, folder), case, frozenset()) == [], case.name
