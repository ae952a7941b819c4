"""One DAG of a run, and its logs: jobstate.log, HTCondor's event log, dagman.out."""

from __future__ import annotations

import os
from collections.abc import Mapping

from doctor.run.monitord import monitord_runs
from doctor.run.reader import Run
from doctor.watch.dagman import LONG_S, DagmanTail, LiveDagmanHistory, Told
from doctor.watch.live import LiveEvents, LiveHistory, Signal
from doctor.watch.tail import Mark, Tail
from doctor.watch.turn import Turn

_EVENT_START = 64 << 20  # of an event log that is met late, so much of its end is read


class Part:
    """One DAG: the root, or a sub-workflow at ``where`` (its directory below the root's).

    Job states come from jobstate.log. Where monitord does not write it any more, they come from
    dagman.out, until jobstate.log changes again. ``replaying``: what an earlier process has seen is read
    again, to rebuild what is in memory.
    """

    def __init__(self, where: str, run: Run, marks: Mapping[str, Mark]) -> None:
        self.where = where
        self.run = run
        self.events = LiveEvents()
        self.history: LiveHistory = LiveHistory(run.directory / run.identity.jsd, run.files)
        self.jobstate = Tail(self.history.path)
        self.log = Tail(run.directory / run.identity.condor_log, marks.get(f"{where}|log"))
        self.dagman = DagmanTail(run.dagman_path)
        self.silent: Told | None = None  # what monitord did not tell of; job states come from dagman.out then
        self._wrote = 0.0  # when the last lines of jobstate.log came, by the follower's clock
        self._left = (0, 0)  # inode and size of jobstate.log when it was left for dagman.out
        old = marks.get(f"{where}|jobstate")
        self.replaying = old is not None
        self._old_lines = old.lines if old is not None else 0
        if not self.log.mark.inode and (ahead := self.log.size_ahead()) > _EVENT_START:
            self.log.skip_to(ahead - _EVENT_START, b"\n...\n")
        self._share()

    def _share(self) -> None:
        """The run's own view of these logs is what was read here."""
        self.run.__dict__["history"] = self.history
        self.run.__dict__["events"] = self.events.events

    def full(self, job: str) -> str:
        """A job's name within the whole run: with the sub-workflow's directory in front."""
        return f"{self.where}/{job}" if self.where else job

    def changed(self, now: float) -> bool:
        """Whether there is anything to read, at the price of three ``stat`` calls."""
        if not (self.jobstate.unchanged() and self.log.unchanged() and self.dagman.unchanged()) or self.dagman.due(now):
            return True
        return self.silent is not None and self._monitord_is_back()

    def read(self, limit: int, turn: Turn, now: float) -> list[tuple[Signal, bool]]:
        """Read on, about ``limit`` bytes of each log: what that signals, and whether an earlier process has acted on it."""
        signals = self._read_states(limit, turn, now)
        if not self.replaying:
            signals += [(signal, False) for signal in self._read_events(limit, turn)]
            turn.more = self.dagman.read(now, limit) or turn.more
            if not turn.more:
                self._change_source(turn, now)
        return signals

    # -- job states -----------------------------------------------------------------------------------

    def _read_states(self, limit: int, turn: Turn, now: float) -> list[tuple[Signal, bool]]:
        chunk = self.jobstate.read(limit)
        if chunk.problem:
            turn.problems.append(f"{self.history.file}: {chunk.problem}")
        if chunk.lost:
            turn.problems.append(f"{self.history.file}: replaced or truncated; read anew from its start")
        if chunk.restarted:
            self._begin_anew()
        was_replaying, signals = self.replaying, []
        for number, line in chunk.lines():
            signal = self.history.feed(number, self.history.translate(line))
            if signal is not None:
                signals.append((signal, was_replaying and number <= self._old_lines))
        turn.lines += chunk.data.count(b"\n")
        self._wrote = now if chunk.data else self._wrote
        turn.more = turn.more or chunk.more
        if was_replaying and (not chunk.more or self.jobstate.mark.lines >= self._old_lines):
            self.replaying = False
            turn.more = True
        if chunk.data and not self.replaying:
            turn.marks[f"{self.where}|jobstate"] = self.jobstate.mark
        return signals

    def _begin_anew(self) -> None:
        """The log began anew (monitord rebuilt it): so does what is known from it."""
        self.history = type(self.history)(self.history.path, self.run.files)
        self._old_lines, self.replaying = 0, False
        self._share()

    def _change_source(self, turn: Turn, now: float) -> None:
        """From jobstate.log to dagman.out when monitord is silent, and back when it writes again."""
        if self.silent is not None:
            if self._monitord_is_back():
                self.silent = None
                self._take(LiveHistory(self.run.directory / self.run.identity.jsd, self.run.files), turn)
            return
        if not self.dagman.due(now):
            return
        told = self.dagman.untold(self.history.latest, self.history.internal, self._wrote, now)
        if told is None or (now - told.noticed < LONG_S and monitord_runs(self.run)):
            return
        self.silent = told
        self._left = self._state_of_jobstate()
        self._take(LiveDagmanHistory(self.run.dagman_path, self.run.files), turn)

    def _take(self, history: LiveHistory, turn: Turn) -> None:
        self.history, self.jobstate = history, Tail(history.path)
        self._share()
        turn.more = True

    def _monitord_is_back(self) -> bool:
        return self._state_of_jobstate() != self._left

    def _state_of_jobstate(self) -> tuple[int, int]:
        try:
            facts = os.stat(self.run.directory / self.run.identity.jsd)
        except OSError:
            return (0, 0)
        return (facts.st_ino, facts.st_size)

    # -- events ---------------------------------------------------------------------------------------

    def _read_events(self, limit: int, turn: Turn) -> list[Signal]:
        chunk = self.log.read(limit)
        if chunk.problem:
            turn.problems.append(f"{self.run.identity.condor_log}: {chunk.problem}")
        if not chunk.data:
            return []
        whole = self.events.whole(chunk.data)
        if whole < len(chunk.data):
            self.log.push_back(chunk.data[whole:])
        signals = []
        if whole:
            for node, event in self.events.feed(chunk.data[:whole], chunk.first):
                if event.kind == "held" and node and self.history.hint(node, "JOB_HELD", event):
                    signals.append(Signal("held", node, "JOB_HELD", event.when))
            self.run.__dict__.pop("_events_by_id", None)
            turn.lines += chunk.data[:whole].count(b"\n")
            turn.marks[f"{self.where}|log"] = self.log.mark
        turn.more = turn.more or (chunk.more and whole > 0)
        return signals
