"""``jobstate.log``: every state of every attempt, as pegasus-monitord writes it.

Line: ``<epoch> <job> <STATE> <exit|condor id|-> <site|-> <walltime|-> <job_submit_seq>``; source:
``Pegasus/monitoring/workflow.py``. The first pass keeps one small value per job, so that a run of a
million jobs fits in memory; the attempts of chosen jobs are read in a second pass.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from doctor.model import JobState
from doctor.run.files import Files
from doctor.run.grep import automaton, lines_naming

#: Latest state line -> state of the job. States that say nothing about it are absent.
LATEST: dict[bytes, JobState] = {
    b"PRE_SCRIPT_STARTED": JobState.RUNNING,
    b"PRE_SCRIPT_TERMINATED": JobState.RUNNING,
    b"PRE_SCRIPT_SUCCESS": JobState.QUEUED,
    b"PRE_SCRIPT_FAILURE": JobState.FAILED,
    b"SUBMIT": JobState.QUEUED,
    b"GRID_SUBMIT": JobState.QUEUED,
    b"GLOBUS_SUBMIT": JobState.QUEUED,
    b"EXECUTE": JobState.RUNNING,
    b"JOB_EVICTED": JobState.QUEUED,
    b"SHADOW_EXCEPTION": JobState.QUEUED,
    b"JOB_RECONNECT_FAILED": JobState.QUEUED,
    b"JOB_SUSPENDED": JobState.RUNNING,
    b"JOB_UNSUSPENDED": JobState.RUNNING,
    b"JOB_HELD": JobState.HELD,
    b"JOB_HELD_REASON": JobState.HELD,
    b"JOB_RELEASED": JobState.QUEUED,
    b"JOB_TERMINATED": JobState.RUNNING,
    b"JOB_SUCCESS": JobState.SUCCEEDED,
    b"JOB_FAILURE": JobState.FAILED,
    b"JOB_ABORTED": JobState.FAILED,
    b"EXECUTABLE_ERROR": JobState.FAILED,
    b"SUBMIT_FAILED": JobState.FAILED,
    b"GLOBUS_SUBMIT_FAILED": JobState.FAILED,
    b"GRID_SUBMIT_FAILED": JobState.FAILED,
    b"REMOTE_ERROR": JobState.FAILED,
    b"POST_SCRIPT_STARTED": JobState.RUNNING,
    b"POST_SCRIPT_TERMINATED": JobState.RUNNING,
    b"POST_SCRIPT_SUCCESS": JobState.SUCCEEDED,
    b"POST_SCRIPT_FAILURE": JobState.FAILED,
}
_TROUBLE = {state for state, latest in LATEST.items() if latest in (JobState.FAILED, JobState.HELD)} | {
    b"JOB_EVICTED",
    b"SHADOW_EXCEPTION",
    b"JOB_RECONNECT_FAILED",
}
_BEGINS = {"SUBMIT", "PRE_SCRIPT_STARTED"}
#: The seven lines of a job that ran once and succeeded; in a large log nearly all are of this kind.
_SMOOTH = (
    b"SUBMIT",
    b"EXECUTE",
    b"JOB_TERMINATED",
    b"JOB_SUCCESS",
    b"POST_SCRIPT_STARTED",
    b"POST_SCRIPT_TERMINATED",
    b"POST_SCRIPT_SUCCESS",
)
_OTHER = {*LATEST, b"GENERIC", b"IMAGE_SIZE", b"CLUSTER_SUBMIT", b"CLUSTER_REMOVE"}.difference(_SMOOTH)
_LARGE = 4 << 20  # bytes from which a log is first read in blocks
_MAX_ODD = 50_000  # jobs with another course that are then read line by line


@dataclass(frozen=True, slots=True)
class StateLine:
    """One state of one attempt: ``when`` in UNIX seconds, ``value`` the exit code or condor id."""

    when: float
    state: str
    value: str
    number: int


@dataclass(slots=True)
class Attempt:
    """One submission of a job. ``seq`` is monitord's submit counter, ``index`` counts from 1."""

    job: str
    seq: int
    index: int
    site: str = ""
    states: list[StateLine] = field(default_factory=list)

    @property
    def condor_id(self) -> str:
        """The HTCondor job id such as ``884.0``; empty when it never reached the queue."""
        for line in self.states:
            if line.state in ("SUBMIT", "EXECUTE", "JOB_TERMINATED", "JOB_HELD") and line.value not in ("-", ""):
                return line.value
        return ""

    def last(self, *states: str) -> StateLine | None:
        """The latest line with one of these states."""
        return next((line for line in reversed(self.states) if line.state in states), None)

    @property
    def final(self) -> JobState:
        """The state this attempt ended in, or is in."""
        for line in reversed(self.states):
            state = LATEST.get(line.state.encode())
            if state is not None:
                return state
        return JobState.UNSUBMITTED

    @property
    def ended(self) -> float:
        return self.states[-1].when if self.states else 0.0


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """One INTERNAL line: DAGMAN_STARTED, DAGMAN_FINISHED, MONITORD_STARTED or MONITORD_FINISHED."""

    when: float
    what: str
    value: str
    number: int


class History:
    """The job states of one submit directory, in the jobstate.log format.

    ``source`` yields the raw lines; it is called again when attempts are asked for.
    """

    def __init__(self, path: Path, files: Files, quiet: bool = False) -> None:
        self.path = path
        self._files = files
        self._quiet = quiet  # an absent log is not worth a note
        self.file = files.name(path)
        self.latest: dict[bytes, JobState] = {}
        self.troubled: set[bytes] = set()
        self.internal: list[Lifecycle] = []
        self.last_time = 0.0
        self.damaged = 0
        self._attempts: dict[str, list[Attempt]] = {}
        self._scan()

    def raw_lines(self, quiet: bool = False) -> Iterator[bytes]:
        handle = self._files.open(self.path, quiet)
        if handle is None:
            return
        with os.fdopen(handle, "rb", buffering=1 << 20) as stream:
            try:
                while line := stream.readline(1 << 16):
                    yield line
            except OSError as problem:
                self._files.ledger.note(self.file, os.strerror(problem.errno or 0))

    def _scan(self) -> None:
        if not (self._is_large() and self._scan_blocks()):
            self._scan_lines()

    def _is_large(self) -> bool:
        """Whether this is a jobstate.log as monitord writes it, and worth the faster way."""
        try:
            return type(self) is History and os.stat(self.path).st_size >= _LARGE
        except OSError:
            return False

    def _scan_lines(self) -> None:
        latest, troubled, states = self.latest, self.troubled, LATEST
        number = 0
        line = b""
        for line in self.raw_lines(self._quiet):
            number += 1
            parts = line.split(b" ", 3)
            if len(parts) < 4:
                self.damaged += bool(line.strip())
                continue
            state = states.get(parts[2])
            if state is not None:
                latest[parts[1]] = state
                if parts[2] in _TROUBLE:
                    troubled.add(parts[1])
            elif parts[1] == b"INTERNAL":
                self._internal(parts, number)
        self._set_last_time(line)
        if self.damaged:
            self._files.ledger.note(self.file, f"{self.damaged} damaged or incomplete lines were left out")

    def _scan_blocks(self) -> bool:
        """Read a large log in blocks: smooth jobs are found by two of their lines, only the others' lines are read.

        Every line has to be accounted for at the end; where that fails (a damaged log, jobs without POST
        scripts) nothing is kept and the answer is False.
        """
        latest: dict[bytes, JobState] = {}
        odd: set[bytes] = set()
        internal: list[tuple[list[bytes], int]] = []
        lines, block = 0, b""
        other = automaton(rb" (?:" + b"|".join(sorted(_OTHER)) + rb") ")
        for block in self._files.blocks(self.path):
            names = _names_before(block, b" SUBMIT ")
            submitted = dict.fromkeys(names, JobState.QUEUED)
            if len(submitted) < len(names):
                odd.update(name for name, count in Counter(names).items() if count > 1)
            if not latest.keys().isdisjoint(submitted):
                odd |= latest.keys() & submitted.keys()
            latest.update(submitted)
            ended = dict.fromkeys(_names_before(block, b" POST_SCRIPT_SUCCESS "), JobState.SUCCEEDED)
            odd.update(name for name in ended if name not in latest)
            latest.update(ended)
            odd.update(_word_before(block, found.start()) for found in other.finditer(block))
            internal += _internal_lines(block, lines)
            lines += block.count(b"\n")
            if len(odd) > _MAX_ODD:
                return False
        lines += not block.endswith(b"\n")
        odd.update(name for name, state in latest.items() if state is not JobState.SUCCEEDED)
        if len(odd) > _MAX_ODD:
            return False
        smooth = len(latest) - sum(name in latest for name in odd)
        if lines != len(internal) + len(_SMOOTH) * smooth + self._read_odd(odd, latest):
            self.troubled.clear()
            self._attempts.clear()
            return False
        self.latest = latest
        for parts, number in internal:
            self._internal(parts, number)
        self._set_last_time(block[block.rstrip().rfind(b"\n") + 1 :])
        return True

    def _read_odd(self, names: set[bytes], latest: dict[bytes, JobState]) -> int:
        """Latest state and attempts of these jobs, and how many lines they have."""
        found: dict[str, list[Attempt]] = {}
        count = 0
        for number, line in lines_naming(self._files, self.path, names):
            parts = line.split(b" ", 3)
            if len(parts) < 4 or parts[1] not in names:
                continue
            count += 1
            state = LATEST.get(parts[2])
            if state is not None:
                latest[parts[1]] = state
                if parts[2] in _TROUBLE:
                    self.troubled.add(parts[1])
            self._add(line, number, found)
        self._attempts.update(found)
        return count

    def _set_last_time(self, line: bytes) -> None:
        head = line.split(b" ", 1)[0]
        if head.isdigit() and len(head) < 13:
            self.last_time = float(head)

    def _internal(self, parts: list[bytes], number: int) -> None:
        words = parts[3].decode("utf-8", "replace").split()
        if words and parts[0].isdigit() and len(parts[0]) < 13:
            value = words[1] if len(words) > 2 else ""
            self.internal.append(Lifecycle(float(parts[0]), words[0], value, number))

    def names(self, state: JobState) -> list[str]:
        """Jobs whose latest state this is, in the order first seen."""
        return [name.decode("utf-8", "replace") for name, latest in self.latest.items() if latest is state]

    def attempts(self, names: Iterable[str]) -> dict[str, list[Attempt]]:
        """All attempts of the named jobs, oldest first. Reads the log again for names not yet known."""
        wanted = set(names)
        missing = {name.encode("utf-8", "surrogateescape") for name in wanted - self._attempts.keys()}
        if missing:
            fresh: dict[str, list[Attempt]] = {}
            lines = (
                lines_naming(self._files, self.path, missing, quiet=True) if self._is_large() else enumerate(self.raw_lines(quiet=True), 1)
            )
            for number, line in lines:
                parts = line.split(b" ", 2)
                if len(parts) == 3 and parts[1] in missing:
                    self._add(line, number, fresh)
            for key in missing:
                name = key.decode("utf-8", "replace")
                self._attempts[name] = fresh.get(name, [])
        return {name: self._attempts.get(name, []) for name in wanted}

    @staticmethod
    def _add(line: bytes, number: int, into: dict[str, list[Attempt]]) -> None:
        words = line.decode("utf-8", "replace").split()
        if len(words) < 4 or not words[0].isdigit() or len(words[0]) > 12:
            return
        name, state, value = words[1], sys.intern(words[2]), words[3]
        seq = int(words[6]) if len(words) > 6 and words[6].isdigit() and len(words[6]) < 10 else 0
        attempts = into.setdefault(name, [])
        new = not attempts or (seq and seq != attempts[-1].seq)
        if not new and not seq and state in _BEGINS:
            new = attempts[-1].final in (JobState.FAILED, JobState.SUCCEEDED)
        if new:
            site = words[4] if len(words) > 4 and words[4] != "-" else ""
            attempts.append(Attempt(name, seq, len(attempts) + 1, site))
        attempts[-1].states.append(StateLine(float(words[0]), state, value, number))


def _names_before(block: bytes, state: bytes) -> list[bytes]:
    """The words before each occurrence of a state."""
    pieces = block.split(state)
    pieces.pop()
    return [piece[piece.rfind(b" ") + 1 :] for piece in pieces]


def _word_before(block: bytes, at: int) -> bytes:
    return block[block.rfind(b" ", 0, at) + 1 : at]


def _internal_lines(block: bytes, before: int) -> list[tuple[list[bytes], int]]:
    """The INTERNAL lines of a block, split, with their numbers; ``before`` lines come ahead of the block."""
    found: list[tuple[list[bytes], int]] = []
    at = block.find(b" INTERNAL ")
    while at >= 0:
        begin, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
        parts = block[begin : end if end >= 0 else len(block)].split(b" ", 3)
        if len(parts) == 4 and parts[1] == b"INTERNAL":
            found.append((parts, before + block.count(b"\n", 0, begin) + 1))
        at = block.find(b" INTERNAL ", at + 1)
    return found
