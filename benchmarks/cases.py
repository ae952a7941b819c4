"""Labelled runs for the evaluation: the repository's fixtures and, where it is there, the shared collection beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from doctor.run.files import Ledger
from doctor.run.paths import PathMap
from doctor.run.reader import Run, open_run

ROOT = Path(__file__).resolve().parent.parent
SHARED = (ROOT / ".." / "shared" / "runs").resolve()


@dataclass(frozen=True, slots=True)
class Labelled:
    """One recorded run and the truth about it."""

    name: str
    folder: Path
    run: str
    old: str
    truth: str  # category/cause; none/none for a run without a fault
    job: str
    words: tuple[str, ...]  # what the evidence must show

    @property
    def healthy(self) -> bool:
        return self.truth.startswith("none/")

    @property
    def silent(self) -> bool:
        """A run whose jobs all succeeded, on results that nobody should trust: no incident, nothing to ask about."""
        return self.truth.startswith("silent/")

    def open(self) -> Run:
        return open_run(self.folder / self.run, Ledger(), PathMap.parse((f"{self.old}={self.folder}",)))


def labelled() -> Iterator[Labelled]:
    """All labelled runs, fixtures first."""
    for path in sorted((ROOT / "fixtures").glob("*_runs/*/expected.yaml")):
        entry = yaml.safe_load(path.read_text("utf-8"))
        words = tuple(str(word) for word in entry.get("evidence") or ())
        truth = f"{entry['category']}/{entry['cause']}"
        yield Labelled(path.parent.name, path.parent, entry["run"], entry["map"], truth, entry.get("job") or "", words)
    labels = SHARED / "labels.json"
    if labels.is_file():
        for name, entry in sorted(json.loads(labels.read_text("utf-8")).items()):
            truth = f"{entry['category']}/{entry['cause']}"
            yield Labelled(name, SHARED / name, entry["run"], f"/data/flows/{name}", truth, entry["job"] or "", tuple(entry["evidence"]))
