"""Recorded real runs: the fixtures of the repository and, where it is there, the shared collection beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from doctor.diagnose.engine import Options, analyze
from doctor.diagnose.matcher import Matcher
from doctor.model import Report
from doctor.run.files import Ledger
from doctor.run.paths import PathMap
from doctor.run.reader import Run, open_run

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "fixtures"
SHARED = (ROOT / ".." / "shared" / "runs").resolve()


@dataclass(frozen=True)
class Case:
    """One recorded run and the truth about it."""

    name: str
    folder: Path  # the workflow's folder
    run: str  # the submit directory below it
    old: str  # where the folder was when the run was recorded
    category: str
    cause: str
    job: str
    evidence: tuple[str, ...]
    state: str = ""

    @property
    def healthy(self) -> bool:
        return self.category == "none"

    @property
    def truth(self) -> str:
        return f"{self.category}/{self.cause}"

    def open(self, folder: Path | None = None, ledger: Ledger | None = None) -> Run:
        place = folder or self.folder
        return open_run(place / self.run, ledger or Ledger(), PathMap.parse((f"{self.old}={place}",)))

    def analyze(self, matcher: Matcher, folder: Path | None = None) -> Report:
        return analyze(self.open(folder), matcher, Options())


@cache
def fixtures() -> tuple[Case, ...]:
    return tuple(_case(path) for path in sorted(FIXTURES.glob("*_runs/*/expected.yaml")))


def _case(path: Path) -> Case:
    entry: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return Case(
        name=path.parent.name,
        folder=path.parent,
        run=entry["run"],
        old=entry["map"],
        category=entry["category"],
        cause=entry["cause"],
        job=entry.get("job") or "",
        evidence=tuple(str(word) for word in entry.get("evidence") or ()),
        state=entry.get("state") or "",
    )


@cache
def shared() -> tuple[Case, ...]:
    labels = SHARED / "labels.json"
    if not labels.is_file():
        return ()
    return tuple(
        Case(
            name=name,
            folder=SHARED / name,
            run=entry["run"],
            old=f"/data/flows/{name}",
            category=entry["category"],
            cause=entry["cause"],
            job=entry["job"] or "",
            evidence=tuple(entry["evidence"]),
        )
        for name, entry in sorted(json.loads(labels.read_text("utf-8")).items())
    )


def every() -> tuple[Case, ...]:
    return fixtures() + shared()


def complaints(case: Case, report: Report) -> list[str]:
    """Every way in which a report contradicts the truth about its run."""
    found: list[str] = []
    if case.state and report.run.state.value != case.state:
        found.append(f"state {report.run.state.value}, not {case.state}: {report.run.state_reason}")
    if case.healthy:
        found += [f"incident {one.diagnosis.cause} on a run without a fault: {one.diagnosis.evidence}" for one in report.incidents]
        return found
    if case.category == "silent":
        found += [f"incident {one.diagnosis.cause} where a warning is due" for one in report.incidents]
        warned = [one for one in report.warnings if one.cause == case.truth]
        if not warned:
            return [*found, f"warnings {[one.cause for one in report.warnings]}, not {case.truth}"]
        jobs = [job for one in warned for job in one.jobs]
        texts = " ".join(entry.text for one in warned for entry in one.evidence)
    else:
        if not report.incidents:
            return [*found, f"no incident, not {case.truth}"]
        first = report.incidents[0].diagnosis
        if first.cause != case.truth:
            found.append(f"cause {first.cause} ({first.decided_by}), not {case.truth}")
        jobs = [first.culprit.job]
        texts = " ".join(entry.text for entry in first.evidence)
    if case.job and not any(case.job in job for job in jobs):
        found.append(f"culprit {jobs}, not {case.job}")
    found += [f"evidence lacks {word!r}: {texts[:400]}" for word in case.evidence if word not in texts]
    return found
