"""Running a command as a child and seeing what it took: wall time, processor time, peak memory."""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Looks at what a program printed; the answer says what is wrong with it, and is empty when nothing is.
Check = Callable[[bytes], str]
_OWN = Path(__file__).resolve().parent.parent


class ToolError(Exception):
    """A program that was to be measured did not do its work."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a command: seconds of wall and processor time, largest resident set in bytes."""

    wall: float
    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians of several samples, and the largest memory."""

    wall: float
    cpu: float
    memory: int

    @classmethod
    def of(cls, samples: list[Sample]) -> Summary:
        return cls(
            statistics.median(sample.wall for sample in samples),
            statistics.median(sample.cpu for sample in samples),
            max(sample.memory for sample in samples),
        )


def doctor(directory: Path, jobs: int, failed: int) -> Tool:
    """Our own command for one run with that many jobs."""
    return Tool([sys.executable, "-m", "doctor", "analyze", "--json", str(directory)], (1,), report_of(jobs, failed))


def analyzer(directory: Path, jobs: int, failed: int, *options: str) -> Tool:
    """pegasus-analyzer of the pegasus-wms wheel, run as its authors' shell script does."""
    import importlib.util

    found = importlib.util.find_spec("Pegasus")
    for place in found.submodule_search_locations or () if found else ():
        script = Path(place) / "cli" / "pegasus-analyzer.py"
        if script.is_file():
            return Tool([sys.executable, str(script), *options, str(directory)], (2,), summary_of(jobs, failed))
    raise ToolError("pegasus-analyzer.py was not found; install the package pegasus-wms")


def sample(command: list[str], good: tuple[int, ...], check: Check | None = None) -> Sample:
    """Run a command and let ``check`` look at what it printed.

    Raises :class:`ToolError` on an exit code not in ``good`` and on output that does not pass. The exit
    code alone proves nothing: a Python program that crashes at its start ends with 1, as one that found incidents.
    """
    environment = {**os.environ, "PYTHONPATH": str(_OWN)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # both tools start from compiled modules, as once installed
    with tempfile.NamedTemporaryFile() as output, tempfile.NamedTemporaryFile() as errors:
        begin = time.perf_counter()
        child = os.posix_spawn(
            command[0],
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, output.name, os.O_WRONLY, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, errors.name, os.O_WRONLY, 0o600),
            ],
        )
        _, status, usage = os.wait4(child, 0)
        wall = time.perf_counter() - begin
        printed, complaint = output.read(), errors.read().decode("utf-8", "replace").strip()
    code = os.waitstatus_to_exitcode(status)
    wrong = f"exit code {code}" if code not in good else (check(printed) if check else "")
    if wrong:
        raise ToolError(f"{wrong}: {' '.join(command)}\n{complaint[-2000:]}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def report_of(jobs: int, failed: int) -> Check:
    """Our report has to count all jobs and to give every failed one to an incident."""

    def check(printed: bytes) -> str:
        try:
            report = json.loads(printed)
        except ValueError:
            return "no JSON report"
        counts = report["run"]["jobs"]
        blamed = sum(incident["job_count"] for incident in report["incidents"])
        seen = (counts["total"], counts["failed"], blamed)
        return "" if seen == (jobs, failed, failed) else f"reported (jobs, failed, blamed) {seen} instead of {(jobs, failed, failed)}"

    return check


def summary_of(jobs: int, failed: int) -> Check:
    """pegasus-analyzer's summary has to count the same."""

    def check(printed: bytes) -> str:
        seen = tuple(
            int(found[1]) if (found := re.search(pattern, printed)) else -1
            for pattern in (rb"Total jobs +: +(\d+)", rb"# jobs failed +: +(\d+)")
        )
        return "" if seen == (jobs, failed) else f"reported (jobs, failed) {seen} instead of {(jobs, failed)}"

    return check


@dataclass(frozen=True, slots=True)
class Tool:
    """One program to be measured: its command, the exit codes and the output that prove that it did its work."""

    command: list[str]
    good: tuple[int, ...]
    check: Check

    def sample(self) -> Sample:
        return sample(self.command, self.good, self.check)


def alternate(ours: Tool, theirs: Tool, times: int) -> tuple[Summary, Summary]:
    """Both programs in turn, after one run of each that warms the caches."""
    ours.sample()
    theirs.sample()
    pairs = [(ours.sample(), theirs.sample()) for _ in range(times)]
    return Summary.of([mine for mine, _ in pairs]), Summary.of([other for _, other in pairs])
