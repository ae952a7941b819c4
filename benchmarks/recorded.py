"""Real jobs cut out of a recorded run, with a blank for every name that differs between jobs.

Nothing here invents a format: what a generated run holds of a job (DAG commands, states, events,
DAGMan's lines, files) is what HTCondor and Pegasus wrote for the recorded one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from doctor.run.files import Files, Ledger
from doctor.run.submitfile import read_submit_file

FAILED_RUNS = Path(__file__).resolve().parent.parent / "fixtures" / "failed_runs"

#: One failed compute job is taken from each: a program that is not there, a wrong option, a crash, a hold.
CASES = ("command-not-found-nonsharedfs", "argument-mismatch-sharedfs", "segmentation-fault-sharedfs", "crlf-script-condorio")

#: Blanks in the templates. No recorded file holds a control character of its own.
NAME, CLUSTER, SUBMIT_DIR, FOLDER, SEQ = b"\x01N\x02", b"\x01C\x02", b"\x01S\x02", b"\x01F\x02", b"\x01Q\x02"

_STARTED = re.compile(rb"^(\d+) INTERNAL \*\*\* DAGMAN_STARTED", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class State:
    """One jobstate.log line: seconds since the job's first line, and everything after the time."""

    after: int
    rest: bytes


@dataclass(slots=True)
class JobTemplate:
    """One recorded job with blanks. ``files`` maps suffixes such as ``.out.000`` to contents."""

    name: str
    transformation: str
    dag: bytes
    states: list[State]
    events: bytes
    dagman: bytes
    dagman_failure: bytes
    exitcode: bytes
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return bool(self.states) and b"_FAILURE" in self.states[-1].rest


class RecordedRun:
    """One recorded run directory that jobs are cut out of."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.braindump = (directory / "braindump.yml").read_bytes()
        self.dag_name = self.value("dag")
        self.submit_dir = self.value("submit_dir")

    def value(self, key: str) -> str:
        """One braindump value."""
        found = re.search(rf'^{key}: "(.*)"$', self.braindump.decode(), re.MULTILINE)
        return found[1] if found else ""

    def content(self, name: str) -> bytes:
        path = self.directory / name
        return path.read_bytes() if path.is_file() else b""

    @cached_property
    def _jobstate(self) -> list[list[bytes]]:
        return [line.split(b" ", 2) for line in self.content("jobstate.log").splitlines() if line.count(b" ") > 3]

    @cached_property
    def _dag_lines(self) -> list[bytes]:
        return self.content(self.dag_name).splitlines()

    @cached_property
    def _events(self) -> list[bytes]:
        return self.content(self.value("condor_log")).split(b"...\n")

    @cached_property
    def dagman_lines(self) -> list[bytes]:
        """dagman.out."""
        return self.content(f"{self.dag_name}.dagman.out").splitlines(keepends=True)

    @cached_property
    def dagman_end(self) -> int:
        """Index of the line with which DAGMan starts to sum up its failed nodes."""
        marks = (b"ERROR: the following job(s) failed", b"Aborting DAG...")
        return next((index for index, line in enumerate(self.dagman_lines) if any(mark in line for mark in marks)), len(self.dagman_lines))

    @cached_property
    def started(self) -> int:
        """When DAGMan started, in UNIX seconds."""
        found = _STARTED.search(self.content("jobstate.log"))
        return int(found[1]) if found else 0

    def job_names(self) -> list[str]:
        """Jobs that were submitted, in the order of their first state."""
        return list(dict.fromkeys(parts[1].decode() for parts in self._jobstate if parts[1] != b"INTERNAL"))

    def job(self, name: str) -> JobTemplate:
        """Cut one job out of the run."""
        raw = name.encode()
        mine = [(int(parts[0]), parts[2]) for parts in self._jobstate if parts[1] == raw]
        cluster = next((rest.split()[1].partition(b".")[0] for _, rest in mine if rest.startswith(b"SUBMIT ")), b"0")
        dag = [line for line in self._dag_lines if not line.startswith((b"PARENT", b"#")) and raw in line.split(None, 3)[1:3]]
        folder = next((line.split()[2].rpartition(b"/")[0] for line in dag if line.startswith(b"JOB ")), b"00/00")

        def blank(text: bytes) -> bytes:
            text = text.replace(self.submit_dir.encode(), SUBMIT_DIR).replace(folder + b"/" + raw, FOLDER + b"/" + NAME)
            text = re.sub(rb"(?<![\w.])" + re.escape(raw) + rb"(?![\w])", NAME, text)
            return re.sub(rb"(?<=[( ])0*" + cluster + rb"(?=\.0)", CLUSTER, text)

        marker = re.compile(rb"\b" + re.escape(raw) + rb"\b")
        stem = self.directory / folder.decode() / name
        submit = read_submit_file(stem.with_name(f"{name}.sub"), Files(self.directory, Ledger()))
        return JobTemplate(
            name=name,
            transformation=submit.transformation,
            dag=blank(b"\n".join(dag)) + b"\n\n",
            states=[State(when - mine[0][0], re.sub(rb"\d+$", SEQ, blank(rest))) for when, rest in mine],
            events=b"".join(blank(event) + b"...\n" for event in self._events if re.match(rb"\d{3} \(0*%s\." % cluster, event)),
            dagman=blank(b"".join(line for line in self.dagman_lines[: self.dagman_end] if marker.search(line))),
            dagman_failure=blank(self._failure(raw)),
            exitcode=blank(b"".join(line for line in self._exitcode_lines() if b"/%s.out" % raw in line)),
            files={
                path.name[len(name) :]: blank(path.read_bytes())
                for path in sorted(stem.parent.glob(f"{name}.*"))
                if path.is_file() and path.stat().st_size < 1 << 20
            },
        )

    def _exitcode_lines(self) -> list[bytes]:
        return self.content(f"{self.dag_name.removesuffix('.dag')}.exitcode.log").splitlines(keepends=True)

    def _failure(self, name: bytes) -> bytes:
        """DAGMan's closing words about one failed node, up to its ``<END>``."""
        text = b"".join(self.dagman_lines)
        begin = text.find(b"Node Name: " + name + b"\n")
        if begin < 0:
            return b""
        end = text.find(b"<END>\n", begin)
        return text[text.rfind(b"\n", 0, begin) + 1 : end + 6] if end > 0 else b""


def failures(runs: list[RecordedRun]) -> list[JobTemplate]:
    """All failed compute jobs of the runs that left a record (``.out.000``), transfer jobs left out."""
    found = []
    for run in runs:
        for name in run.job_names():
            job = run.job(name)
            if job.failed and ".out.000" in job.files and job.transformation and not job.transformation.startswith("pegasus::"):
                found.append(job)
    return found


def recorded_runs(root: Path = FAILED_RUNS) -> list[RecordedRun]:
    """The runs that jobs are taken from; the first gives the workflow's frame."""
    return [RecordedRun(run_directory(root / case)) for case in CASES]


def run_directory(case: Path) -> Path:
    """The submit directory of a recorded case (the outermost one)."""
    return min((path.parent for path in case.glob("**/braindump.yml")), key=lambda path: len(path.parts))
