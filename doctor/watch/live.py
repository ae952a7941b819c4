"""What the logs of one DAG have told so far, kept up to date line by line with little memory."""

from __future__ import annotations

import os
import re
from collections import OrderedDict, deque
from dataclasses import dataclass
from pathlib import Path

from doctor.model import JobState
from doctor.run.events import JobEvent, parse_events, slot_host
from doctor.run.files import Files
from doctor.run.jobstate import LATEST, Attempt, History, StateLine

_KEEP_EVENTS = 5_000
_KEEP_JOBS = 200_000
_KEEP_HOSTS = 10_000
_KEEP_FAILED = 20_000  # failing jobs of which it is known where they ran
_KEEP_GOOD = 2_000  # the latest jobs that succeeded, with their hosts
_KEEP_LOST = 100  # jobs of one host that failed there and ended well elsewhere
_LARGE = 4 << 20
_MAX_REST = 16 << 10

#: States that make a job worth looking at, at once.
_FAILURES = frozenset(state for state, latest in LATEST.items() if latest is JobState.FAILED)
_HOLDS = frozenset({b"JOB_HELD", b"JOB_HELD_REASON"})
_DONE = frozenset({b"POST_SCRIPT_SUCCESS", b"JOB_SUCCESS"})


@dataclass(frozen=True, slots=True)
class Signal:
    """Something that happened: ``what`` is failed, held, succeeded, released, started or finished."""

    what: str
    job: str = ""
    value: str = ""
    when: float = 0.0


class LiveHistory(History):
    """The job states of one directory, fed with the lines of ``jobstate.log`` as they come.

    The states of jobs that run smoothly are forgotten when they have succeeded; asked for them, the
    base class reads the log again.
    """

    def __init__(self, path: Path, files: Files) -> None:
        super().__init__(path, files)
        self.lines = 0

    def _scan(self) -> None:
        """Nothing is read here: the lines are fed."""

    def _is_large(self) -> bool:
        try:
            return os.stat(self.path).st_size >= _LARGE
        except OSError:
            return False

    def translate(self, line: bytes) -> bytes:
        """A line of the followed log in the format of jobstate.log."""
        return line

    def feed(self, number: int, line: bytes) -> Signal | None:
        """Take in one line; what it signals, if anything."""
        parts = line.split(b" ", 3)
        if len(parts) < 4:
            self.damaged += bool(line.strip())
            return None
        self.lines += 1
        name, word = parts[1], parts[2]
        state = LATEST.get(word)
        if state is None:
            if name == b"INTERNAL":
                return self._lifecycle(parts, number)
            return None
        before = self.latest.get(name)
        self.latest[name] = state
        self._set_last_time(line)
        known = name.decode("utf-8", "replace")
        mine = self._attempts.get(known)
        if mine is None or not mine or not mine[-1].states or number > mine[-1].states[-1].number:
            self._add(line, number, self._attempts)
        if word in _FAILURES:
            self.troubled.add(name)
            return Signal("failed", known, word.decode(), self.last_time)
        if word in _HOLDS:
            self.troubled.add(name)
            return Signal("held", known, word.decode(), self.last_time)
        if word in _DONE:
            if name in self.troubled:
                return Signal("succeeded", known, word.decode(), self.last_time)
            if word == b"POST_SCRIPT_SUCCESS":
                self._attempts.pop(known, None)
        elif before is JobState.HELD:
            return Signal("released", known, word.decode(), self.last_time)
        return None

    def _lifecycle(self, parts: list[bytes], number: int) -> Signal | None:
        count = len(self.internal)
        self._internal(parts, number)
        if len(self.internal) == count:
            return None
        entry = self.internal[-1]
        if entry.what == "DAGMAN_STARTED":
            return Signal("started", "", entry.value, entry.when)
        if entry.what == "DAGMAN_FINISHED":
            return Signal("finished", "", entry.value, entry.when)
        return None

    def hint(self, job: str, state: str, event: JobEvent) -> bool:
        """A state that HTCondor's event log tells before monitord does. Whether it is news."""
        attempts = self._attempts.get(job)
        raw = job.encode()
        if self.latest.get(raw) not in (JobState.QUEUED, JobState.RUNNING, None):
            return False
        if attempts is None:
            attempts = self._attempts[job] = [Attempt(job, 0, 1)]
        if not attempts or any(line.state == state for line in attempts[-1].states):
            return False
        number = attempts[-1].states[-1].number if attempts[-1].states else 0
        attempts[-1].states.append(StateLine(event.when, state, event.condor_id, number))
        self.latest[raw] = LATEST[state.encode()]
        self.troubled.add(raw)
        return True


_SUBMIT = re.compile(rb"\n000 \((\d{1,12})\.(\d{1,6})\.\d{1,6}\) [^\n]*\n(?:(?!\.\.\.)[^\n]*\n){0,6}?[ \t]*DAG Node: ([^\s]{1,512})")
_RUNS = re.compile(rb"\n0(01|05|09|04) \((\d{1,12})\.(\d{1,6})\.\d{1,6}\) ([^\n]*)")
#: Holds that may be the node's fault: the program could not be started there, or files not be moved there.
_NODE_HOLDS = frozenset({6, 12, 13, 14})


class LiveEvents:
    """HTCondor's common event log, fed in whole events: which job is which node, and what befell it."""

    def __init__(self) -> None:
        self.nodes: OrderedDict[str, str] = OrderedDict()  # cluster.proc -> DAG node, of jobs in the queue
        self.running: dict[str, str] = {}  # cluster.proc -> host
        self.events: list[JobEvent] = []  # holds, evictions and the like; for doctor.run.reader.Run.events
        self.counts: dict[tuple[str, str], int] = {}  # (DAG node, kind) -> how often in this DAGMan's time
        self.hosts: dict[str, str] = {}  # cluster.proc -> host that it ran on last
        self.failed: dict[str, str] = {}  # DAG node -> host of its latest attempt, of nodes that failed or were held
        self.good: dict[str, int] = {}  # host -> jobs that succeeded there
        self.fine: deque[tuple[str, str]] = deque(maxlen=_KEEP_GOOD)  # (DAG node, host) of those that succeeded last
        self._own: set[str] = set()  # those of `failed` that were held for what they asked for, or by a person
        self.lost: dict[str, dict[str, None]] = {}  # host -> DAG nodes that failed there and succeeded on another

    @staticmethod
    def whole(data: bytes) -> int:
        """How many bytes of these lines are whole events; what follows has to be read again with the rest."""
        end = data.rfind(b"\n...\n") + 5
        if data.startswith(b"...\n") and end < 5:
            end = 4
        if end < 5 and not data.startswith(b"...\n"):
            end = 0
        return end if len(data) - end <= _MAX_REST else len(data)

    def feed(self, data: bytes, first_line: int) -> list[tuple[str, JobEvent]]:
        """Take in whole events; the troubles among them with the DAG node they befell ('' where unknown)."""
        text = b"\n" + data
        for found in _SUBMIT.finditer(text):
            self.nodes[f"{int(found[1])}.{int(found[2])}"] = found[3].decode("utf-8", "replace")
            if len(self.nodes) > _KEEP_JOBS:
                self.nodes.popitem(last=False)
        ended = []
        for found in _RUNS.finditer(text):
            job = f"{int(found[2])}.{int(found[3])}"
            if found[1] == b"01":
                if len(self.running) < _KEEP_JOBS:
                    end = text.find(b"\n...", found.end(), found.end() + 1000)
                    self.running[job] = self.hosts[job] = slot_host(text[found.end() : end if end >= 0 else found.end() + 1000])
            else:
                host = self.running.pop(job, "")
                if found[1] in (b"05", b"09"):
                    ended.append(job)
                if host and found[1] == b"05":
                    fine = text.find(b"(return value 0)", found.end(), found.end() + 200) >= 0
                    self._ended(self.nodes.get(job, ""), host, fine)
        troubles = []
        for event in parse_events(data, first_line):
            node = self.nodes.get(event.condor_id, "")
            self.events.append(event)
            if node:
                self.counts[node, event.kind] = self.counts.get((node, event.kind), 0) + 1
            if event.kind == "held":
                self._held(node, event)
            troubles.append((node, event))
        if len(self.events) > _KEEP_EVENTS:
            del self.events[: -_KEEP_EVENTS // 2]
        for job in ended:
            self.nodes.pop(job, None)
            self.hosts.pop(job, None)
        return troubles

    def _ended(self, node: str, host: str, fine: bool) -> None:
        """A job ended by itself on a host."""
        if not fine:
            self._failed(node, host)
            return
        _count(self.good, host)
        self.fine.append((node, host))
        before = self.failed.pop(node, host)
        own = node in self._own
        self._own.discard(node)
        if before != host and not own and (before in self.lost or len(self.lost) < _KEEP_HOSTS):
            there = self.lost.setdefault(before, {})
            if len(there) < _KEEP_LOST:
                there[node] = None

    def _held(self, node: str, event: JobEvent) -> None:
        """A job was held; the reason names the slot even where the job never started on it."""
        host = slot_host(event.text.encode()) or self.hosts.get(event.condor_id, "")
        self._failed(node, host)
        if node in self.failed and event.code not in _NODE_HOLDS:
            self._own.add(node)

    def _failed(self, node: str, host: str) -> None:
        if node and host and (node in self.failed or len(self.failed) < _KEEP_FAILED):
            self.failed[node] = host


def _count(tally: dict[str, int], host: str) -> None:
    if host in tally or len(tally) < _KEEP_HOSTS:
        tally[host] = tally.get(host, 0) + 1
