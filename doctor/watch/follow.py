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
from dataclasses import replace
from pathlib import Path

from doctor.diagnose import causality, hosts
from doctor.diagnose.engine import diagnose_job
from doctor.diagnose.matcher import Matcher
from doctor.model import Diagnosis, Incident, JobState, RunState, RunSummary
from doctor.run.dagmanlog import RESTART
from doctor.run.files import Ledger
from doctor.run.nearby import Nearby
from doctor.run.paths import PathMap
from doctor.run.reader import Run, open_run
from doctor.run.state import total_counts
from doctor.watch.live import Signal
from doctor.watch.parts import Part
from doctor.watch.tail import CHUNK, Mark
from doctor.watch.turn import Seen, Turn

_JOBS_PER_TURN = 20  # diagnoses of one turn; the others wait for the next
_SECONDS_PER_TURN = 0.25
_GROUPED = 100  # jobs of one fingerprint whose diagnoses are kept; of the others only the names
_NAMES = 20_000  # names of jobs that are kept for one incident
_SURE = 0.6
#: Cached facts of a run that may be old by the time of the next look.
_STALE = (
    "dagman", "own_events", "_events_by_id", "database_reasons", "abstract", "executables", "containers", "replicas", "storage", "counts",
)  # fmt: skip


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
        self.blamed: dict[str, str] = {}  # fingerprint -> execute node that is to blame
        self.look_at_nodes = False  # somebody saw that a node fails what others finish
        self._add_part(self.run)

    # -- parts --------------------------------------------------------------------------------------

    def _add_part(self, run: Run) -> Part:
        where = run.files.name(run.directory) if run.parent is not None else ""
        if (known := self.parts.get(where)) is not None:
            return known
        part = Part(where, run, self._stored)
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
        return bool(self.pending) or self.look_at_nodes or any(part.changed(self.clock()) for part in list(self.parts.values()))

    def turn(self, limit: int = CHUNK) -> Turn:
        """Read and diagnose a bounded amount. Raises nothing for what the files hold."""
        turn = Turn()
        until = self.clock() + _SECONDS_PER_TURN
        for part in list(self.parts.values()):
            for signal, old in part.read(limit, turn, self.clock()):
                self._heed(part, signal, turn, old)
            self.moved = max(self.moved, part.history.last_time, part.dagman.moved)
        changed = self._diagnose(turn, until)
        if changed or self.look_at_nodes:
            known = set(self.blamed.values())
            turn.incidents = self._group(changed)
            turn.urgent = not set(self.blamed.values()) <= known
        turn.more = turn.more or bool(self.pending)
        return turn

    def _heed(self, part: Part, signal: Signal, turn: Turn, old: bool) -> None:
        """``old`` lines were acted on by an earlier process: they only rebuild what is in memory."""
        job = part.full(signal.job)
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
        elif signal.what == "finished" and part.where == "" and signal.value != str(RESTART):
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

    # -- diagnosis ----------------------------------------------------------------------------------

    def _diagnose(self, turn: Turn, until: float) -> set[str]:
        """Diagnose what is pending, as far as time allows; the fingerprints that were touched."""
        touched: set[str] = set()
        around: dict[str, Nearby] = {}
        fresh = set[str]()
        while self.pending and turn.diagnosed < _JOBS_PER_TURN and (turn.diagnosed == 0 or self.clock() < until):
            (where, name), _ = self.pending.popitem(last=False)
            if self.parts[where].replaying:
                self.pending[where, name] = None
                break
            part = self.parts[where]
            if where not in fresh:
                fresh.add(where)
                for key in _STALE:
                    part.run.__dict__.pop(key, None)
            if part.history.latest.get(name.encode("utf-8", "surrogateescape")) not in (JobState.FAILED, JobState.HELD):
                continue
            full = part.full(name)
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
        self.look_at_nodes = False
        members = [(job, diagnosis) for kept in self.diagnoses.values() for job, diagnosis in kept.items()]
        incidents = [replace(one, jobs=tuple(dict.fromkeys((*one.jobs, *self.names.get(one.id, {}))))) for one in causality.group(members)]
        blamed = self._blame(incidents)
        found = []
        for incident in incidents:
            new = incident.id in blamed and incident.id not in self.blamed
            if new or incident.id in touched or any(self.by_job.get(job) in touched for job in incident.jobs):
                found.append(blamed.get(incident.id, incident))
        self.blamed = {key: one.diagnosis.culprit.host for key, one in blamed.items()}
        return found

    def _blame(self, incidents: list[Incident]) -> dict[str, Incident]:
        """The incidents that a bad node explains, all DAGs of the run taken together."""
        if not hosts.worth_a_look(incidents):
            return {}
        failed: dict[str, str] = {}
        good: list[tuple[str, str]] = []
        for part in self.parts.values():
            failed |= {part.full(job): host for job, host in list(part.events.failed.items())}
            good += [(part.full(job), host) for job, host in list(part.events.fine)]
        log = self.parts[""].run.identity.condor_log
        return hosts.blame(incidents, hosts.Ran(failed, good, self._programs, log), self.matcher.library)

    def _programs(self, names: list[str]) -> list[str]:
        found = []
        for name in names:
            where, _, job = name.rpartition("/")
            found.append(self.parts[where].run.job(job).submit.transformation if where in self.parts else "")
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
