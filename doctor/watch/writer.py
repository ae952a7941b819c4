"""The one thread that writes what was found: batched, in order, all or nothing.

What readers hand in is merged by run, so that a burst costs one row per run and file. When the
database is locked, the disk is full or nearly so, nothing is thrown away: the writer waits, readers
that would exceed the bound wait for it, and unread lines wait in the logs where they are safe.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from doctor.model import Incident, RunSummary
from doctor.statedir import Damaged, StoreError
from doctor.store import Store
from doctor.watch.tail import Mark
from doctor.watch.turn import Seen, Turn

log = logging.getLogger(__name__)

_BOUND = 5_000  # incidents and diagnosed jobs that may wait
_LAZY_S = 1.0  # offsets alone may wait so long: lines that led to nothing are simply read again
Change = Callable[[Store], object]


@dataclass(slots=True)
class _Waiting:
    marks: dict[str, Mark] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    incidents: dict[str, Incident] = field(default_factory=dict)
    resolved: dict[str, None] = field(default_factory=dict)
    summary: RunSummary | None = None

    @property
    def urgent(self) -> int:
        return len(self.seen) + len(self.incidents) + len(self.resolved)


class Writer:
    """Collects and writes. ``room`` tells whether there is free space enough to write at all."""

    def __init__(self, store: Store, room: Callable[[], bool], every_s: float = 0.03) -> None:
        self.store = store
        self._room = room
        self._every = every_s
        self._runs: dict[str, _Waiting] = {}
        self._changes: list[Change] = []
        self._urgent = 0
        self._wake = threading.Condition()
        self._stop = False
        self._thread: threading.Thread | None = None
        self.problem = ""
        self.paused = False
        self.written = 0
        self.batches = 0
        self.last_good = 0.0
        self.damaged: Callable[[str], None] = lambda why: None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._guarded, name="writer", daemon=True)
        self._thread.start()

    def _guarded(self) -> None:
        """A fault of the thread's own is recorded, and it goes on."""
        while True:
            try:
                return self._work()
            except Exception as bug:
                log.exception("fault in the writer")
                self.problem = f"internal error: {type(bug).__name__}: {bug}"
                time.sleep(1.0)

    # -- handing in -----------------------------------------------------------------------------------

    def turn(self, run: str, summary: RunSummary | None, turn: Turn) -> None:
        """Take what one turn found. Waits while too much is waiting already."""
        with self._wake:
            while self._urgent > _BOUND and not self._stop:
                self._wake.wait(0.5)
            waiting = self._runs.setdefault(run, _Waiting())
            before = waiting.urgent
            waiting.marks.update(turn.marks)
            for one in turn.seen:
                waiting.seen[one.job] = one
            for incident in turn.incidents:
                waiting.incidents[incident.id] = incident
                waiting.resolved.pop(incident.id, None)
            for fingerprint in turn.resolved:
                waiting.resolved[fingerprint] = None
            waiting.summary = summary or waiting.summary
            self._urgent += waiting.urgent - before
            if waiting.urgent:
                self._wake.notify_all()

    def change(self, change: Change) -> None:
        """Anything else that has to be stored, after what was handed in before it."""
        with self._wake:
            while len(self._changes) > _BOUND and not self._stop:
                self._wake.wait(0.5)
            self._changes.append(change)
            self._wake.notify_all()

    @property
    def backlog(self) -> int:
        return self._urgent + len(self._changes)

    # -- writing --------------------------------------------------------------------------------------

    def _work(self) -> None:
        pause = 0.1
        while True:
            with self._wake:
                until = time.monotonic() + _LAZY_S
                while not (self._urgent or self._changes or self._stop) and time.monotonic() < until:
                    self._wake.wait(_LAZY_S if self._runs else 30.0)
                    if not self._runs:
                        until = time.monotonic() + _LAZY_S
                stop = self._stop
            if not stop:
                time.sleep(self._every)
            if not self._room():
                self.paused, self.problem = True, "too little free space for the state; writing is paused"
                if stop:
                    return
                time.sleep(1.0)
                continue
            self.paused = False
            runs, changes = self._take()
            if not runs and not changes:
                if stop:
                    return
                continue
            if self._write(runs, changes):
                pause, self.problem = 0.1, ""
            else:
                self._give_back(runs, changes)
                if stop:
                    return
                time.sleep(pause)
                pause = min(10.0, pause * 2)

    def _take(self) -> tuple[dict[str, _Waiting], list[Change]]:
        with self._wake:
            runs, self._runs = self._runs, {}
            changes, self._changes = self._changes, []
            self._urgent = 0
            self._wake.notify_all()
            return runs, changes

    def _give_back(self, runs: dict[str, _Waiting], changes: list[Change]) -> None:
        """Nothing was written: put it in front of what came since."""
        with self._wake:
            for run, old in runs.items():
                newer = self._runs.get(run)
                if newer is not None:
                    old.marks.update(newer.marks)
                    old.seen.update(newer.seen)
                    for fingerprint in newer.resolved:
                        old.resolved[fingerprint] = None
                    for key, incident in newer.incidents.items():
                        old.incidents[key] = incident
                        old.resolved.pop(key, None)
                    old.summary = newer.summary or old.summary
                self._runs[run] = old
            self._changes = changes + self._changes
            self._urgent = sum(one.urgent for one in self._runs.values())

    def _write(self, runs: dict[str, _Waiting], changes: list[Change]) -> bool:
        """Write all, or nothing; whether it is done with."""
        try:
            with self.store.batch():
                for run, waiting in runs.items():
                    self._write_run(run, waiting)
                for change in changes:
                    change(self.store)
        except Exception as problem:
            if _passing(problem):
                return self._not_now(problem)
            log.exception("a batch could not be written; its parts are tried one by one")
            if not self._one_by_one(runs, changes):
                return False
        self.batches += 1
        self.written += sum(one.urgent for one in runs.values())
        self.last_good = time.time()
        return True

    def _not_now(self, problem: Exception) -> bool:
        if self.problem != str(problem):
            log.error("the state cannot be written, will be tried again: %s", problem)
        self.problem = str(problem)
        if isinstance(problem, Damaged):
            self.damaged(str(problem))
        return False

    def _one_by_one(self, runs: dict[str, _Waiting], changes: list[Change]) -> bool:
        """One run's fault never stops another: what cannot be written alone is dropped with a message.

        What is done with is taken out of both. False when the store cannot be written just now.
        """
        for run in list(runs):
            if not self._alone(lambda store, run=run: self._write_run(run, runs[run])):  # type: ignore[misc]
                return False
            del runs[run]
        while changes:
            if not self._alone(changes[0]):
                return False
            del changes[0]
        return True

    def _alone(self, part: Change) -> bool:
        try:
            with self.store.batch():
                part(self.store)
        except Exception as problem:
            if _passing(problem):
                return self._not_now(problem)
            log.exception("dropped: it can never be written")
        return True

    def _write_run(self, run: str, waiting: _Waiting) -> None:
        store = self.store
        if waiting.summary is not None and (waiting.incidents or store.run(run) is None):
            store.see_run(waiting.summary)
        for incident in waiting.incidents.values():
            store.observe(run, incident)
        for fingerprint in waiting.resolved:
            store.passed(run, fingerprint, "a later attempt of its jobs succeeded by itself")
        if waiting.seen:
            store.save_seen(run, [(one.job, one.seq, one.incident) for one in waiting.seen.values()])
        if waiting.marks:
            store.save_marks(run, {name: json.dumps(mark.plain()) for name, mark in waiting.marks.items()})

    def stop(self, timeout: float = 3.0) -> None:
        """Write what is waiting and end."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)


def _passing(problem: Exception) -> bool:
    """Locked, full, out of reach, or damaged: no fault of what is to be written."""
    return isinstance(problem, StoreError) and isinstance(problem.__cause__, (sqlite3.Error, OSError))


def load_marks(store: Store, run: str) -> dict[str, Mark]:
    """The offsets of a run as an earlier process left them; unreadable ones are left out."""
    found = {}
    for name, body in store.marks(run).items():
        try:
            found[name] = Mark.of(json.loads(body))
        except (ValueError, TypeError):
            continue
    return found
