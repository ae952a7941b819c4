"""Targets, and the table that says which were met."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Summary


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: both tools on the same directory; ``theirs`` is None where only ours was measured."""

    name: str
    ours: Summary
    theirs: Summary | None
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """One promise with what was measured."""

    what: str
    measured: float
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        return self.measured <= self.limit


def targets(cases: list[Case]) -> list[Target]:
    """The promises that the measured cases can prove or disprove."""
    found: list[Target] = []
    sizes = {case.jobs: case for case in cases if case.jobs}
    for case in cases:
        if case.theirs is None:
            continue
        if not case.jobs:
            found.append(Target(f"{case.name}: time against pegasus-analyzer", case.ours.wall / case.theirs.wall, 0.5, "x"))
        elif case.jobs == 100_000:
            found.append(Target(f"{case.name}: time against pegasus-analyzer", case.ours.wall / case.theirs.wall, 1.0, "x"))
            found.append(Target(f"{case.name}: memory against pegasus-analyzer", case.ours.memory / case.theirs.memory, 1.0, "x"))
    if 1_000_000 in sizes:
        million = sizes[1_000_000].ours
        if 100_000 in sizes:
            found.append(Target("1,000,000 jobs: time against 100,000", million.wall / sizes[100_000].ours.wall, 12.0, "x"))
        found.append(Target("1,000,000 jobs: memory", million.memory / 1e6, 500.0, "MB"))
    return found


def show(cases: list[Case], met: list[Target], console: Console) -> None:
    """Print what was measured and which targets were met."""
    table = Table(title="pegasus-doctor analyze --json against pegasus-analyzer (median wall time, peak memory)")
    for heading in ("run", "doctor s", "cpu s", "MB", "analyzer s", "cpu s", "MB", "time", "memory"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for case in cases:
        row = [case.name, f"{case.ours.wall:.2f}", f"{case.ours.cpu:.2f}", f"{case.ours.memory / 1e6:.0f}"]
        if case.theirs:
            row += [f"{case.theirs.wall:.2f}", f"{case.theirs.cpu:.2f}", f"{case.theirs.memory / 1e6:.0f}"]
            row += [f"{case.ours.wall / case.theirs.wall:.2f} x", f"{case.ours.memory / case.theirs.memory:.2f} x"]
        table.add_row(*row)
    console.print(table)
    verdicts = Table(title="Targets")
    for heading in ("", "target", "measured", "at most"):
        verdicts.add_column(heading, justify="right" if heading in ("measured", "at most") else "left")
    for target in met:
        word = "[green]PASS[/]" if target.met else "[red]MISS[/]"
        verdicts.add_row(word, target.what, f"{target.measured:.2f} {target.unit}", f"{target.limit:g} {target.unit}")
    console.print(verdicts)
