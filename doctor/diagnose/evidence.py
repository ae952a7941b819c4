"""Everything that is known of one attempt, sorted into channels that the rules can read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from doctor.model import Channel, Kind, Line
from doctor.run.dagmanlog import message
from doctor.run.dataflow import is_transfer
from doctor.run.events import JobEvent
from doctor.run.files import Text
from doctor.run.jobstate import Attempt
from doctor.run.kickstart import Output, Record, Step, parse_output
from doctor.run.lite import LiteLog, parse_lite
from doctor.run.planner import telling_lines
from doctor.run.reader import Job, JobFiles, Run

_HEAD, _TAIL = 256 << 10, 2 << 20  # bytes of one output file that are looked at
_MAX_LINES = 4_000  # lines of one channel; of more, the first quarter and the last three
_SIGNALS = {4: "Illegal instruction", 6: "Aborted", 7: "Bus error", 8: "Floating point exception", 9: "Killed",
            11: "Segmentation fault", 15: "Terminated", 24: "CPU time limit exceeded", 25: "File size limit exceeded"}  # fmt: skip
#: Pegasus' own periodic_remove: it clears away a job that was held already, and explains nothing.
_OWN_REMOVE = re.compile(r"PeriodicRemove expression '\(JobStatus == 5\) && \(\(CurrentTime - EnteredCurrentStatus\) > \d+\)'")


@dataclass(slots=True)
class Facts:
    """One attempt: records, wrapper log, events and the channels made of them."""

    job: Job
    attempt: Attempt
    files: JobFiles | None = None
    output: Output = field(default_factory=Output)
    out_name: str = ""
    err_name: str = ""
    lite: LiteLog = field(default_factory=LiteLog)
    events: list[JobEvent] = field(default_factory=list)
    hold: JobEvent | None = None
    transfer_job: bool = False
    channels: list[Channel] = field(default_factory=list)
    _of: Output | None = field(default=None, repr=False)  # the output that _record was chosen from
    _record: Record | None = field(default=None, repr=False)

    @property
    def record(self) -> Record | None:
        """The kickstart record that matters: the first that failed, else the last."""
        if self._of is not self.output:
            records = self.output.records
            self._record = next((record for record in records if record.failed), records[-1] if records else None)
            self._of = self.output
        return self._record

    @property
    def step(self) -> Step:
        """Status of the failed step of that record (usually the main job)."""
        record = self.record
        if record is None:
            return Step()
        return next((step for step in record.steps.values() if step.failed), record.main)

    @property
    def task_exit(self) -> int | None:
        """Exit code of the user's program; 128 + n for a signal; None when unknown."""
        step = self.step
        if step.signal:
            return 128 + step.signal
        if step.exit_code is not None:
            return step.exit_code
        if step.raw is not None:
            return 127 if step.raw < 0 else step.raw >> 8
        if self.lite.task_exit_code is not None:
            return self.lite.task_exit_code
        if self.lite.finished and not self.lite.step_failed:
            return self.lite.exit_code
        return None

    @property
    def host(self) -> str:
        record = self.record
        return self.lite.host or (record.fields.get("hostname", "") if record else "")

    def log_name(self) -> str:
        return self.job.run.history.file


def gather(job: Job, attempt: Attempt) -> Facts:
    """Read the attempt's files and events. Nothing here decides anything."""
    facts = Facts(job, attempt)
    facts.transfer_job = is_transfer(job)
    _read_outputs(facts)
    if attempt.condor_id and attempt.last(
        "JOB_HELD", "JOB_EVICTED", "JOB_ABORTED", "SHADOW_EXCEPTION", "JOB_RECONNECT_FAILED", "EXECUTABLE_ERROR"
    ):
        facts.events = list(job.run.events_of(attempt.condor_id))
    facts.hold = _hold(facts)
    facts.channels = [channel for channel in _channels(facts) if channel.lines or channel.hold or channel.exit_code or channel.signal]
    return facts


def _read_outputs(facts: Facts) -> None:
    candidates = facts.job.outputs()
    reader = facts.job.run.files
    for files in reversed(candidates):
        text = reader.text(files.out, _HEAD, _TAIL) if files.out else Text("", ())
        output = parse_output(text.lines)
        theirs, ours = output.condor_id, facts.attempt.condor_id
        if theirs and ours and theirs.split(".")[0] != ours.split(".")[0]:
            continue  # the record of another attempt: this one left none
        if not theirs and len(candidates) > 1 and not _same_attempt(facts, files, candidates):
            continue
        facts.files, facts.output, facts.out_name = files, output, text.file
        if files.err:
            error = reader.text(files.err, _HEAD, _TAIL)
            facts.err_name = error.file
            facts.lite = parse_lite(error.lines)
        return


def _same_attempt(facts: Facts, files: JobFiles, candidates: list[JobFiles]) -> bool:
    """Without an id in the record the newest files belong to the newest attempt."""
    return files is candidates[-1]


def _hold(facts: Facts) -> JobEvent | None:
    held = [event for event in facts.events if event.kind == "held"]
    if held:
        return held[-1]
    line = facts.attempt.last("JOB_HELD", "JOB_HELD_REASON")
    if line is None:
        return None
    reason = facts.job.run.database_reasons.get(facts.job.name, "")
    return JobEvent("held", facts.attempt.condor_id, line.when, reason, 0) if reason else None


def _bounded(lines: Iterable[Line]) -> tuple[Line, ...]:
    kept = tuple(lines)
    if len(kept) <= _MAX_LINES:
        return kept
    return kept[: _MAX_LINES // 4] + kept[-3 * _MAX_LINES // 4 :]


def _channels(facts: Facts) -> Iterator[Channel]:
    yield from _program(facts)
    yield from _wrapper(facts)
    yield from _status(facts)
    yield from _parts(facts)
    yield from _queue(facts)
    if facts.attempt.last("PRE_SCRIPT_FAILURE"):
        yield from _planner(facts)
    if facts.attempt.last("SUBMIT_FAILED", "GRID_SUBMIT_FAILED", "GLOBUS_SUBMIT_FAILED") or not facts.attempt.condor_id:
        yield from _dagman(facts)


def _program(facts: Facts) -> Iterator[Channel]:
    both = frozenset({Kind.LITE, Kind.INTEGRITY}) if facts.transfer_job else frozenset()
    records = facts.output.failed_records() or facts.output.records[-1:]
    for record in records[:50]:
        kind = Kind.TRANSFER if facts.transfer_job else Kind.STDERR
        yield Channel(kind, facts.out_name, _bounded(record.stderr), accept=both)
        kind = Kind.TRANSFER if facts.transfer_job else Kind.STDOUT
        yield Channel(kind, facts.out_name, _bounded(record.stdout), accept=both)
    stray = Kind.TRANSFER if facts.transfer_job else Kind.STDOUT
    yield Channel(stray, facts.out_name, _bounded(facts.output.stray), accept=frozenset({Kind.STDERR}))


def _wrapper(facts: Facts) -> Iterator[Channel]:
    lite, name = facts.lite, facts.err_name
    yield Channel(Kind.TRANSFER if facts.transfer_job else Kind.STDERR, name, _bounded(lite.before), accept=frozenset({Kind.LITE}))
    yield Channel(Kind.STDERR, name, _bounded(lite.task), accept=frozenset({Kind.LITE}))
    yield Channel(Kind.TRANSFER, name, _bounded(lite.transfers), accept=frozenset({Kind.LITE}))
    yield Channel(Kind.INTEGRITY, name, _bounded(lite.integrity), accept=frozenset({Kind.LITE, Kind.TRANSFER}))
    yield Channel(Kind.LITE, name, _bounded(lite.wrapper))


def describe(step: Step) -> str:
    """The status of a step in words, such as ``signal 11 (Segmentation fault)`` or ``exit code 1``."""
    if step.signal:
        return f"signal {step.signal} ({_SIGNALS.get(step.signal, 'signal')})"
    if step.failure_error:
        return f"could not be started: {step.failure_error}"
    code = step.exit_code if step.exit_code is not None else (step.raw or 0) >> 8
    return f"exit code {code}"


def _status(facts: Facts) -> Iterator[Channel]:
    step = facts.step
    if facts.record is not None:
        if not step.failed:
            return
        text = describe(step)
        if step.failure_error:
            text += f" (failure_error: {step.failure_error})"
        code = facts.task_exit if not step.signal else None
        yield Channel(Kind.STATUS, facts.out_name, (Line(text, step.line),), exit_code=code, signal=step.signal)
        return
    failure = facts.attempt.last("JOB_FAILURE")
    code = facts.task_exit
    if code is None and failure is not None and failure.value.lstrip("-").isdigit():
        code = int(failure.value)
    if code and not facts.lite.step_failed:
        where = (facts.err_name, facts.lite.exit_line) if facts.lite.finished else (facts.log_name(), failure.number if failure else None)
        yield Channel(Kind.STATUS, where[0], (Line(f"exit code {code}", where[1]),), exit_code=code)


def _parts(facts: Facts) -> Iterator[Channel]:
    """Failed entries of the multi-part documents, put into one line each."""
    for document, number in facts.output.part("integrity_verification_attempts"):
        rows = [row for row in document if isinstance(row, dict) and row.get("success") is False] if isinstance(document, list) else []
        if rows:
            lines = tuple(Line(_checksum_line(row), number) for row in rows[:100])
            yield Channel(Kind.INTEGRITY, facts.out_name, lines)


def _checksum_line(row: dict[Any, Any]) -> str:
    return (
        f"Integrity check: {row.get('lfn', '')}: Expected checksum ({row.get('sha256_expected', '')}) "
        f"does not match the calculated checksum ({row.get('sha256', '')})"
    )


def _queue(facts: Facts) -> Iterator[Channel]:
    log = facts.job.run.files.name(facts.job.run.directory / facts.job.run.identity.condor_log)
    if facts.hold is not None:
        code = (facts.hold.code, facts.hold.subcode) if facts.hold.code >= 0 else None
        number = facts.hold.line or None
        name = log if number else f"{log.removesuffix('.log')}.stampede.db"
        yield Channel(Kind.HOLD, name, (Line(facts.hold.text, number),), hold=code)
    for event in facts.events:
        if event.kind in ("held", "released", "remote-error", "reconnected"):
            continue
        if event.kind == "evicted" and facts.hold is not None and event.text == facts.hold.text:
            continue
        if event.kind == "aborted" and _OWN_REMOVE.search(event.text):
            continue
        code = (event.code, event.subcode) if event.code >= 0 else None
        text = event.text if event.kind == "aborted" else f"{event.kind}: {event.text}"
        yield Channel(Kind.EVENT, log, (Line(text, event.line),), hold=code)


def _planner(facts: Facts) -> Iterator[Channel]:
    """The newest planner log, and what its wrapper captured, of a sub-workflow that could not be planned."""
    run = facts.job.run
    for suffix in (".pre.log", ".pre.err", ".pre.out"):
        path = latest(run.directory, facts.job.name + suffix, run.files.listing(run.directory))
        if path is None:
            continue
        text = run.files.text(path, _HEAD, _TAIL)
        if suffix == ".pre.log":
            yield Channel(Kind.PLANNER, text.file, _bounded(telling_lines(text.lines)))
            continue
        lite = parse_lite(text.lines)
        output = parse_output(lite.before + lite.task + lite.wrapper)
        captured = [line for record in output.records for line in (*record.stderr, *record.stdout)]
        rest = [line for line in output.stray if not line.text.startswith("  ")]
        yield Channel(Kind.PLANNER, text.file, _bounded(telling_lines(captured) + telling_lines(rest)))


def latest(directory: Path, stem: str, names: list[str]) -> Path | None:
    """The newest of ``stem``, ``stem.000``, ``stem.001`` ...; a file without a number is the newest."""
    if stem in names:
        return directory / stem
    numbered = [name for name in names if name.startswith(f"{stem}.") and name[len(stem) + 1 :].isdigit()]
    return directory / max(numbered) if numbered else None


def _dagman(facts: Facts) -> Iterator[Channel]:
    """What DAGMan said when it could not submit this job."""
    log = facts.job.run.dagman
    kept: list[Line] = []
    near = False
    for line in log.lines:
        text = message(line)
        if text.startswith(("Submitting HTCondor", "Submitting Condor", "Submitting node")):
            near = f" {facts.job.name} " in f"{text} " or f"{facts.job.name}'" in text
        elif near or (f" {facts.job.name}" in text and "fail" in text.lower()):
            kept.append(Line(text, line.number))
            near = near and not text.startswith(("Event:", "Of "))
    yield Channel(Kind.DAGMAN, log.file, _bounded(kept), accept=frozenset({Kind.DAEMON}))


def post_script(facts: Facts) -> Iterator[Channel]:
    """The complaint of pegasus-exitcode about this job (exitcode.log)."""
    run = facts.job.run
    verdict = run.post_verdict(facts.job.name)
    if verdict is not None and verdict.exitcode != 0:
        stem = run.identity.dag.removesuffix(".dag")
        yield Channel(Kind.EXITCODE, run.files.name(run.directory / f"{stem}.exitcode.log"), verdict.lines)


def run_logs(run: Run) -> Iterator[Channel]:
    """What DAGMan and monitord themselves printed: for failures that left nothing of their own."""
    for event in run.own_events[-5:]:
        code = (event.code, event.subcode) if event.kind == "held" and event.code >= 0 else None
        kind = Kind.HOLD if event.kind == "held" else Kind.EVENT
        yield Channel(kind, run.files.name(run.directory / f"{run.identity.dag}.dagman.log"), (Line(event.text, event.line),), hold=code)
    for name in (f"{run.identity.dag}.lib.err", f"{run.identity.dag}.lib.out", "monitord.log"):
        text = run.files.text(run.directory / name, head=64 << 10, tail=256 << 10, quiet=True)
        if text.lines:
            yield Channel(Kind.DAGMAN, text.file, text.lines, accept=frozenset({Kind.DAEMON}))
