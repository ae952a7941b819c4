"""The reader threads: take the next run that has news, read and diagnose a bounded amount, hand it to the writer."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.errors import DoctorError
from doctor.model import Incident
from doctor.watch.follow import Follower
from doctor.watch.picture import Pictures
from doctor.watch.watched import Watched
from doctor.watch.writer import load_marks

if TYPE_CHECKING:
    from doctor.watch.daemon import Daemon

log = logging.getLogger("doctor.watch")

_BUSY_TURNS = 30  # turns of one run in a second from which on it is looked at regularly
_PACE_S = 0.05
_QUIET_S = 5.0


class Readers:
    """What the reader threads do. No two of them work on one run at a time (:class:`doctor.watch.ready.Ready`)."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._busy = threading.Event()

    def read(self) -> None:
        daemon = self._daemon
        name = threading.current_thread().name
        while not daemon.stopping.is_set():
            daemon.sign(name)
            taken = daemon.ready.take()
            if taken is None:
                continue
            key, _since = taken
            again = False
            try:
                again = self._turn(key)
            finally:
                daemon.ready.done(key, again)

    def _turn(self, key: str) -> bool:
        daemon = self._daemon
        watched = daemon.runs.get(key)
        if watched is None or watched.not_before > time.monotonic():
            return False
        try:
            if watched.follower is None:
                self._open(watched)
            follower = watched.follower
            assert follower is not None
            if not watched.folders:
                self._watch_folders(watched)
            turn = follower.turn()
            if turn.started and follower.look_for_sub_workflows():
                self._watch_folders(watched)
            if len(follower.parts) != len(watched.folders) and watched.how != "busy":
                self._watch_folders(watched)
        except DoctorError as problem:
            return self._fault(watched, str(problem))
        except Exception as bug:
            log.exception("fault while following %s", watched.directory)
            return self._fault(watched, f"{type(bug).__name__}: {bug}")
        watched.faults, watched.problem = 0, "; ".join(turn.problems[:3])
        watched.last_turn = time.monotonic()
        self._pace(watched)
        if turn.lines:
            watched.lines += turn.lines
            watched.last_news = time.monotonic()
            watched.over = False
            daemon.lines += turn.lines
        daemon.diagnosed += turn.diagnosed
        watched.diagnosed += turn.diagnosed
        if turn.marks or turn.seen or turn.incidents or turn.resolved:
            summary = follower.summary() if turn.incidents else None
            daemon.writer.turn(key, summary, turn)
        if turn.incidents or turn.ended is not None or turn.resolved:
            soon = turn.ended is not None or any(self._urgent(one) for one in turn.incidents)
            daemon.healer.wanted(key, at_once=soon, urgent=turn.urgent)
        elif turn.lines:
            daemon.healer.news(key)
        return turn.more

    def _pace(self, watched: Watched) -> None:
        """A run whose logs are written all the time is looked at twenty times a second instead of being notified of.

        Each notification costs the writer of the log, too, and says nothing new then.
        """
        watched.turns += 1
        now = watched.last_turn
        if now - watched.counted < 1.0:
            return
        fast, watched.turns, watched.counted = watched.turns, 0, now
        if fast > _BUSY_TURNS and watched.how == "inotify":
            for folder in watched.folders:
                self._daemon.observers.remove(Path(folder))
            watched.how = "busy"
            self._busy.set()

    def follow_busy(self) -> None:
        """The pace for busy runs; sleeps while there are none."""
        daemon = self._daemon
        while not daemon.stopping.is_set():
            if not self._busy.wait(5.0):
                continue
            busy = [watched for watched in list(daemon.runs.values()) if watched.how == "busy"]
            if not busy:
                self._busy.clear()
            for watched in busy:
                if watched.follower is None or watched.follower.changed():
                    daemon.ready.wake(watched.key)
                elif time.monotonic() - watched.last_news > _QUIET_S:
                    watched.how = ""
                    watched.folders.clear()  # the next turn watches them again, and reads what came meanwhile
                    daemon.ready.wake(watched.key)
            daemon.stopping.wait(_PACE_S)

    def _urgent(self, incident: Incident) -> bool:
        """A held job may be removed any minute; a systemic failure burns jobs."""
        by = incident.diagnosis
        return by.cause.endswith("-hold") or len(incident.jobs) >= self._daemon.config.detections.systemic_jobs

    def _open(self, watched: Watched) -> None:
        daemon = self._daemon
        follower = Follower(Path(watched.directory), daemon.matcher, load_marks(daemon.store, watched.key), daemon.store.seen(watched.key))
        watched.pictures = Pictures(follower)
        for row in daemon.store.watched(watched.key) if not watched.live else ():
            watched.live = dict.fromkeys(json.loads(row["body"]).get("live", ()), 0)
        watched.follower = follower
        follower.look_for_sub_workflows()
        self._watch_folders(watched)

    def _watch_folders(self, watched: Watched) -> None:
        assert watched.follower is not None
        for folder in watched.follower.folders():
            if str(folder) not in watched.folders:
                how = self._daemon.observers.add(folder, watched.key)
                watched.how = how if how != "inotify" or not watched.how else watched.how
                watched.folders.add(str(folder))

    def _fault(self, watched: Watched, text: str) -> bool:
        """One run's fault: it is tried again, ever less often, and nothing else is touched."""
        watched.faults += 1
        watched.problem = text
        watched.not_before = time.monotonic() + min(300.0, 2.0 ** min(watched.faults, 9))
        if watched.faults in (1, 10):
            log.warning("%s: %s", watched.directory, text, extra={"fields": {"run": watched.directory}})
        return False
