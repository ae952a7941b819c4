"""Real recorded runs at a place of their own, and stand-ins for everything through which an action touches the world."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from doctor.errors import DoctorError
from doctor.loop import views
from doctor.model import Culprit, Diagnosis, Evidence, Incident, Kind
from doctor.repair import Caps, Finished, Plan, Runner, RunView
from doctor.run.files import Ledger
from doctor.run.reader import Run, open_run

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "failed_runs"


class NoProcesses:
    """Fails the test when anything is started."""

    def run(self, argv: tuple[str, ...], timeout: float, cwd: str | None = None) -> Finished:
        raise AssertionError(f"a process was started: {argv}")


class Recorder:
    """Notes what was to be started, and says how it ended."""

    def __init__(self, code: int = 0) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.code = code

    def run(self, argv: tuple[str, ...], timeout: float, cwd: str | None = None) -> Finished:
        self.calls.append(argv)
        return Finished(self.code, "", "it did not work" if self.code else "")


@dataclass
class Entry:
    what: str
    original: bytes | None
    mode: int | None
    state: str = "open"


class Book:
    """A journal in memory. ``crash_after`` makes the n-th result raise as a crash would."""

    def __init__(self, crash_after: int = -1) -> None:
        self.entries: list[Entry] = []
        self.crash_after = crash_after

    def intend(self, plan: Plan, what: str, original: bytes | None, mode: int | None) -> int:
        self.entries.append(Entry(what, original, mode))
        return len(self.entries) - 1

    def done(self, entry: int) -> None:
        if self.crash_after == entry:
            raise KeyboardInterrupt("the machine went away")
        self.entries[entry].state = "done"

    def undone(self, entry: int) -> None:
        self.entries[entry].state = "undone"

    def states(self) -> list[str]:
        return [entry.state for entry in self.entries]


@dataclass
class MemoryQueue:
    """A queue of ads in memory; ``fail`` names a method that answers with an error."""

    ads: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: list[tuple[str, ...]] = field(default_factory=list)
    fail: str = ""

    def present(self, constraint: str) -> list[dict[str, Any]]:
        found = re.search(r"ClusterId == (\d+) && ProcId == (\d+)", constraint)
        if found:
            ad = self.ads.get(f"{found[1]}.{found[2]}")
            return [ad] if ad else []
        return list(self.ads.values())

    def get(self, job_id: str, attribute: str) -> str | None:
        value = self.ads[job_id].get(attribute)
        return None if value is None else str(value)

    def edit(self, job_id: str, attribute: str, value: str) -> None:
        if self.fail == "edit":
            raise DoctorError("the schedd went away")
        self.ads[job_id][attribute] = value
        self.log.append(("edit", job_id, attribute, value))

    def release(self, job_id: str, reason: str) -> None:
        if self.fail == "release":
            raise DoctorError("the schedd went away")
        self.ads[job_id]["JobStatus"] = 1
        self.log.append(("release", job_id, reason))

    def hold(self, job_id: str, reason: str) -> None:
        self.ads[job_id]["JobStatus"] = 5
        self.log.append(("hold", job_id, reason))


@dataclass
class World:
    """One run directory and what a test does with it."""

    root: Path
    run: Run
    queue: MemoryQueue | None = None

    @property
    def submit(self) -> Path:
        return self.run.directory

    def view(self, *names: str) -> RunView:
        return views.build(open_run(self.submit, Ledger()), self.queue, names or None)

    def runner(self, book: Book | None = None, roots: tuple[Path, ...] | None = None, processes: Any = None) -> Runner:
        return Runner((self.root,) if roots is None else roots, book or Book(), processes or NoProcesses(), self.queue, 1_795_208_999.0)

    def hold(self, name: str, code: int, subcode: int = 0, job_id: str = "884.0", **more: Any) -> None:
        """Put a held job into the queue."""
        cluster, _, proc = job_id.partition(".")
        self.queue = self.queue or MemoryQueue()
        self.queue.ads[job_id] = {
            "ClusterId": int(cluster), "ProcId": int(proc), "JobStatus": 5, "JobUniverse": 5, "HoldReasonCode": code,
            "HoldReasonSubCode": subcode, "DAGNodeName": name, "pegasus_wf_uuid": self.run.identity.wf_uuid, **more,
        }  # fmt: skip


def recorded(name: str, folder: Path) -> World:
    """A recorded run, copied and rewritten so that all its paths lie below the copy."""
    source = FIXTURES / name
    place = (folder / "flow").resolve()
    shutil.copytree(source, place, symlinks=True)
    old = re.search(r"^map: (\S+)$", (source / "expected.yaml").read_text(), re.MULTILINE)
    run = re.search(r"^run: (\S+)$", (source / "expected.yaml").read_text(), re.MULTILINE)
    assert old and run
    for path in [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]:
        data = path.read_bytes()
        if old[1].encode() in data:
            path.write_bytes(data.replace(old[1].encode(), str(place).encode()))
    return World(place, open_run(place / run[1], Ledger()))


def incident(job: str, cause: str = "user-code/application-error", *jobs: str, text: str = "", host: str = "") -> Incident:
    """An incident of the given jobs."""
    evidence = (Evidence("x.err", 1, text, Kind.STDERR),) if text else ()
    diagnosis = Diagnosis(cause, 0.9, "rule:test", Culprit(job, host=host), cause, "", evidence)
    return Incident("i-1", diagnosis, (job, *jobs) if job else jobs)


CAPS = Caps()


def tree(root: Path) -> dict[str, tuple[str, int, int, int]]:
    """Every entry below a folder: kind and content, mode, owner, group."""
    found = {}
    for path in sorted(root.rglob("*")):
        info = os.lstat(path)
        if path.is_symlink():
            what = f"link {os.readlink(path)}"
        else:
            what = "directory" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(root))] = (what, info.st_mode, info.st_uid, info.st_gid)
    return found


Made = Callable[[Path], tuple[World, Incident, dict[str, Any]]]
