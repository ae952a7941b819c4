"""Follow one run with its sub-workflows: read what is new, diagnose what failed, forget nothing.

One :meth:`Follower.turn` reads a bounded amount and diagnoses a bounded number of jobs; what is left
waits in the files and in ``pending``. The result holds everything that has to be stored, so that it
can be written in one transaction: after a crash either the offsets and what they led to are there, or
neither, and the lines are read again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from doctor.diagnose import causality
from doctor.diagnose.engine import diagnose_job
from doctor.diagnose.matcher import Matcher
from doctor.model import Diagnosis, Incident, JobState, RunState, RunSummary
from doctor.run.files import Ledger
from doctor.run.nearby import Nearby
from doctor.run.paths import PathMap
from doctor.run.reader import Run, open_run
from doctor.run.state import total_counts
from doctor.watch.live import LiveEvents, LiveHistory, Signal
from doctor.watch.tail import CHUNK, Chunk, Mark, Tail

_JOBS_PER_TURN = 20  # diagnoses of one turn; the others wait for the next
_SECONDS_PER_TURN = 0.25
_GROUPED = 100  # jobs of one fingerprint whose diagnoses are kept; of the others only the names
_NAMES = 20_000  # names of jobs that are kept for one incident
_EVENT_START = 64 << 20  # of an event log that is met late, so much of its end is read
_SURE = 0.6
#: Cached facts of a run that may be old by the time of the next look.
_STALE = (
    "dagman", "own_events", "_events_by_id", "database_reasons", "abstract", "executables", "containers", "replicas", "storage", "counts",
)  # fmt: skip


@dataclass(slots=True)
class Part:
    """One DAG of the run: the root, or a sub-workflow at ``where`` (its directory below the root's)."""

    where: str
    run: Run
    history: LiveHistory
    jobstate: Tail
    log: Tail
    events: LiveEvents = field(default_factory=LiveEvents)
    old_lines: int = 0  # lines of jobstate.log that an earlier process has seen
    same_file: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """One diagnosed attempt, as stored: never diagnosed again after a restart."""

    job: str  # with the sub-workflow's directory in front
    seq: int
    incident: str  # fingerprint


@dataclass(slots=True)
class Turn:
    """What one turn found, to be stored as a whole."""

    marks: dict[str, Mark] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)  # fingerprints whose jobs have all succeeded since
    lines: int = 0
    diagnosed: int = 0
    more: bool = False
    started: bool = False
    ended: int | None = None  # DAGMan's exit code
    problems: list[str] = field(default_factory=list)
    oldest: float = 0.0  # when the oldest of the lines was noticed, for the latency


class Follower:
    """One run. Not thread-safe: one thread at a time takes a turn."""

    def __init__(
        self, directory: Path, matcher: Matcher, marks: dict[str, Mark] | None = None, seen: dict[str, tuple[int, str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.matcher = matcher
        self.clock = clock
        self._stored = dict(marks or {})
        self._seen: dict[str, tuple[int, str]] = dict(seen or {})  # job -> (attempt, fingerprint)
        self.run = open_run(directory, Ledger(), PathMap())
        self.parts: OrderedDict[str, Part] = OrderedDict()
        self.pending: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.diagnoses: dict[str, OrderedDict[str, Diagnosis]] = {}  # fingerprint -> job -> diagnosis
        self.names: dict[str, dict[str, None]] = {}  # fingerprint -> all its jobs that still fail
        self.by_job: dict[str, str] = {}
        for job, (_, fingerprint) in self._seen.items():
            self.names.setdefault(fingerprint, {})[job] = None
            self.by_job[job] = fingerprint
        self.ended: int | None = None
        self.rounds = 0
        self.moved = 0.0
        self._replaying: set[str] = set()
        self._add_part(self.run)

    # -- parts --------------------------------------------------------------------------------------

    def _add_part(self, run: Run) -> Part:
        where = run.files.name(run.directory) if run.parent is not None else ""
        if (known := self.parts.get(where)) is not None:
            return known
        history = LiveHistory(run.directory / run.identity.jsd, run.files)
        log = Tail(run.directory / run.identity.condor_log, self._stored.get(f"{where}|log"))
        part = Part(where, run, history, Tail(history.path), log)
        old = self._stored.get(f"{where}|jobstate")
        if old is not None:
            part.old_lines, part.same_file = old.lines, (old.device, old.inode)
            self._replaying.add(where)
        if not log.mark.inode and (ahead := log.size_ahead()) > _EVENT_START:
            log.mark = Mark(0, 0, 0)
            _skip_to_end(log, ahead - _EVENT_START)
        run.__dict__["history"] = history
        run.__dict__["events"] = part.events.events
        self.parts[where] = part
        return part

    def _find_sub_workflows(self, part: Part) -> None:
        part.run.__dict__.pop("children", None)
        for child in part.run.children.values():
            if child is not None:
                self._add_part(child)

    def folders(self) -> list[Path]:
        return [part.run.directory for part in self.parts.values()]

    # -- one turn -----------------------------------------------------------------------------------

    def changed(self) -> bool:
        """Whether there is anything to do, at the price of two ``stat`` calls for each part."""
        return bool(self.pending) or any(not (p.jobstate.unchanged() and p.log.unchanged()) for p in list(self.parts.values()))

    def turn(self, limit: int = CHUNK) -> Turn:
        """Read and diagnose a bounded amount. Raises nothing for what the files hold."""
        turn = Turn()
        until = self.clock() + _SECONDS_PER_TURN
        for part in list(self.parts.values()):
            self._read_jobstate(part, limit, turn)
            if part.where not in self._replaying:
                self._read_events(part, limit, turn)
        changed = self._diagnose(turn, until)
        if changed:
            turn.incidents = self._group(changed)
        turn.more = turn.more or bool(self.pending)
        return turn

    def _read_jobstate(self, part: Part, limit: int, turn: Turn) -> None:
        chunk = part.jobstate.read(limit)
        if chunk.problem:
            turn.problems.append(f"{part.history.file}: {chunk.problem}")
        if chunk.lost:
            turn.problems.append(f"{part.history.file}: replaced or truncated; read anew from its start")
        if chunk.restarted:
            self._restart(part)
        live = part.where not in self._replaying
        for number, line in chunk.lines():
            signal = part.history.feed(number, line)
            if signal is not None:
                self._heed(part, signal, turn, old=not live and number <= part.old_lines)
        if chunk.data:
            turn.lines += chunk.data.count(b"\n")
            self.moved = max(self.moved, part.history.last_time)
        turn.more = turn.more or chunk.more
        if not live and (not chunk.more or part.jobstate.mark.lines >= part.old_lines):
            self._replaying.discard(part.where)
            turn.more = True
        if chunk.data and part.where not in self._replaying:
            turn.marks[f"{part.where}|jobstate"] = part.jobstate.mark

    def _restart(self, part: Part) -> None:
        """The log began anew (monitord rebuilt it): so does what is known from it."""
        part.history = LiveHistory(part.history.path, part.run.files)
        part.run.__dict__["history"] = part.history
        part.old_lines = 0
        self._replaying.discard(part.where)

    def _heed(self, part: Part, signal: Signal, turn: Turn, old: bool) -> None:
        """``old`` lines were acted on by an earlier process: they only rebuild what is in memory."""
        job = self._full(part, signal.job)
        if signal.what in ("failed", "held"):
            self.pending[part.where, signal.job] = None
        elif signal.what in ("succeeded", "released"):
            self.pending.pop((part.where, signal.job), None)
            if signal.what == "succeeded":
                self._recovered(job, turn)
        elif signal.what == "started":
            if part.where == "":
                self.rounds += 1
                self.ended, turn.ended = None, None
                turn.started = turn.started or not old
        elif signal.what == "finished" and part.where == "":
            self.ended = int(signal.value) if signal.value.lstrip("-").isdigit() else 1
            if not old:
                turn.ended = self.ended
        if signal.what in ("failed", "started", "finished"):
            self._find_new_parts(part)

    def _find_new_parts(self, part: Part) -> None:
        if part.run.dag.sub_workflows:
            self._find_sub_workflows(part)

    def look_for_sub_workflows(self) -> bool:
        """Sub-workflows that were planned since the last look; whether there are new ones."""
        before = len(self.parts)
        for part in list(self.parts.values()):
            self._find_new_parts(part)
        return len(self.parts) > before

    def _read_events(self, part: Part, limit: int, turn: Turn) -> None:
        chunk = part.log.read(limit)
        if chunk.problem:
            turn.problems.append(f"{part.run.identity.condor_log}: {chunk.problem}")
        if not chunk.data:
            return
        whole = part.events.whole(chunk.data)
        if whole < len(chunk.data):
            part.log.push_back(chunk.data[whole:])
        if whole:
            for node, event in part.events.feed(chunk.data[:whole], chunk.first):
                if event.kind == "held" and node and part.history.hint(node, "JOB_HELD", event):
                    self.pending[part.where, node] = None
            part.run.__dict__.pop("_events_by_id", None)
            turn.lines += chunk.data[:whole].count(b"\n")
            turn.marks[f"{part.where}|log"] = part.log.mark
        turn.more = turn.more or (chunk.more and whole > 0)

    # -- diagnosis ----------------------------------------------------------------------------------

    def _full(self, part: Part, job: str) -> str:
        return f"{part.where}/{job}" if part.where else job

    def _diagnose(self, turn: Turn, until: float) -> set[str]:
        """Diagnose what is pending, as far as time allows; the fingerprints that were touched."""
        touched: set[str] = set()
        around: dict[str, Nearby] = {}
        fresh = set[str]()
        while self.pending and turn.diagnosed < _JOBS_PER_TURN and (turn.diagnosed == 0 or self.clock() < until):
            (where, name), _ = self.pending.popitem(last=False)
            if where in self._replaying:
                self.pending[where, name] = None
                break
            part = self.parts[where]
            if where not in fresh:
                fresh.add(where)
                for key in _STALE:
                    part.run.__dict__.pop(key, None)
            if part.history.latest.get(name.encode("utf-8", "surrogateescape")) not in (JobState.FAILED, JobState.HELD):
                continue
            full = self._full(part, name)
            job = part.run.job(name)
            seq = job.attempts[-1].seq if job.attempts else 0
            state = job.attempts[-1].final.value if job.attempts else ""
            known = self._seen.get(full)
            mark = _mark(seq, state)
            if not job.attempts or (known is not None and known[0] == mark):
                continue
            if name in part.run.dag.sub_workflows and self._inside(part, name):
                continue
            turn.diagnosed += 1
            diagnosis = diagnose_job(job, self.matcher, around.setdefault(where, Nearby(part.run)))
            if known is not None and known[0] // 10 == seq and diagnosis.confidence < _SURE and known[1] in self.names:
                continue
            fingerprint = causality.fingerprint(diagnosis)
            self._keep(full, fingerprint, diagnosis)
            self._seen[full] = (mark, fingerprint)
            turn.seen.append(Seen(full, mark, fingerprint))
            touched.add(fingerprint)
        return touched

    def _inside(self, part: Part, name: str) -> bool:
        """Whether a failed sub-workflow job is explained by what failed inside it."""
        child = part.run.children.get(name)
        if child is None or part.run.job(name).attempts[-1].last("PRE_SCRIPT_FAILURE"):
            return False
        inner = self.parts.get(child.files.name(child.directory))
        return inner is not None and any(state in (JobState.FAILED, JobState.HELD) for state in inner.history.latest.values())

    def _keep(self, job: str, fingerprint: str, diagnosis: Diagnosis) -> None:
        before = self.by_job.get(job)
        if before is not None and before != fingerprint:
            self._drop(job, before)
        self.by_job[job] = fingerprint
        names = self.names.setdefault(fingerprint, {})
        if len(names) < _NAMES:
            names[job] = None
        kept = self.diagnoses.setdefault(fingerprint, OrderedDict())
        if len(kept) < _GROUPED:
            kept[job] = diagnosis

    def _drop(self, job: str, fingerprint: str) -> None:
        self.names.get(fingerprint, {}).pop(job, None)
        self.diagnoses.get(fingerprint, OrderedDict()).pop(job, None)
        if not self.names.get(fingerprint):
            self.names.pop(fingerprint, None)
            self.diagnoses.pop(fingerprint, None)

    def _recovered(self, job: str, turn: Turn) -> None:
        """A job that had failed succeeded: history. The incident is over when none of its jobs is left."""
        self._seen.pop(job, None)
        fingerprint = self.by_job.pop(job, None)
        if fingerprint is None:
            return
        self._drop(job, fingerprint)
        turn.seen.append(Seen(job, -1, fingerprint))
        if fingerprint not in self.names:
            turn.resolved.append(fingerprint)

    def _group(self, touched: set[str]) -> list[Incident]:
        """The incidents that changed, each with all its jobs."""
        members = [(job, diagnosis) for kept in self.diagnoses.values() for job, diagnosis in kept.items()]
        found = []
        for incident in causality.group(members):
            if incident.id not in touched and not any(self.by_job.get(job) in touched for job in incident.jobs):
                continue
            jobs = dict.fromkeys((*incident.jobs, *self.names.get(incident.id, {})))
            found.append(replace(incident, jobs=tuple(jobs)))
        return found

    # -- facts --------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Let go of what can be read again, while nothing happens."""
        for part in self.parts.values():
            for key in (*_STALE, "children"):
                part.run.__dict__.pop(key, None)
            part.run.files._inside.clear()

    def summary(self) -> RunSummary:
        """Identity and state, from what was read so far."""
        for part in self.parts.values():
            part.run.__dict__.pop("counts", None)
        counts = total_counts(self.run)
        identity = self.run.identity
        if self.ended is None:
            state, why = (RunState.RUNNING, "DAGMan has logged no end yet") if self.rounds else (RunState.NEVER_STARTED, "not started yet")
        elif self.ended == 0:
            state, why = RunState.SUCCEEDED, "DAGMan ended with status 0"
        else:
            state, why = RunState.REMOVED if self.ended == 2 else RunState.FAILED, f"DAGMan ended with status {self.ended}"
        return RunSummary(str(self.run.directory), identity.dax_label, identity.wf_uuid, identity.root_wf_uuid, state, why, counts)

    def jobs_in(self, *states: JobState) -> Iterator[tuple[Part, str]]:
        for part in list(self.parts.values()):
            for name, state in list(part.history.latest.items()):
                if state in states:
                    yield part, name.decode("utf-8", "replace")


def _mark(seq: int, state: str) -> int:
    """Identifies what was diagnosed: the attempt, and whether it was held or had failed."""
    return seq * 10 + (1 if state == "held" else 2)


def _skip_to_end(tail: Tail, offset: int) -> None:
    """Begin a huge log near its end: lines before are not read, their number stays unknown (counted as 0)."""
    import os

    from doctor.watch.tail import _open, _sum

    handle = _open(tail.path)
    try:
        facts = os.fstat(handle)
        data = os.pread(handle, 1 << 16, offset)
        tail.mark = Mark(
            facts.st_dev, facts.st_ino, offset + data.find(b"\n...\n") + 5 if b"\n...\n" in data else offset, 0, _sum(handle, 256), 256
        )
    finally:
        os.close(handle)


__all__ = ["Chunk", "Follower", "Part", "Seen", "Turn"]
