"""The scout: which runs there are, which are over; it also keeps the rhythm of disk measurements and live detections."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.run.stampede import known_workflows
from doctor.statedir import run_key
from doctor.watch import discover
from doctor.watch.discover import Found
from doctor.watch.watched import SourceState, Watched, row_of

if TYPE_CHECKING:
    from doctor.watch.daemon import Daemon

log = logging.getLogger("doctor.watch")
_PRUNE_S = 86_400.0


class Scout:
    """One thread."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._now = threading.Event()
        self.forgotten: set[str] = set()  # finished runs, which a list or a folder still names
        self._remembered = False

    def hurry(self) -> None:
        """Look for runs now, not when it is time."""
        self._now.set()

    def work(self) -> None:
        daemon = self._daemon
        disks_at = detect_at = discover_at = prune_at = 0.0
        while not daemon.stopping.is_set():
            daemon.sign("scout")
            now = time.monotonic()
            if now >= discover_at or self._now.is_set():
                self._now.clear()
                self._isolated("discovery", self.discover)
                discover_at = time.monotonic() + daemon.config.discovery.every_s
            if now >= disks_at:
                self._isolated("disks", lambda: daemon.disks.sample(daemon.clock()))
                disks_at = time.monotonic() + daemon.config.polling.disk_s
            if now >= detect_at:
                self._isolated("detections", daemon.lookout.look)
                detect_at = time.monotonic() + min(daemon.config.polling.queue_s, 15.0)
            if now >= prune_at:
                self._isolated("store", self._prune)
                prune_at = time.monotonic() + _PRUNE_S
            pause = min(discover_at, disks_at, detect_at) - time.monotonic()
            self._now.wait(max(0.05, min(pause, 15.0)))

    def _isolated(self, name: str, work: Callable[[], object]) -> None:
        """One plug-in's fault is recorded, and the others go on."""
        daemon = self._daemon
        try:
            work()
            daemon.source(name, True)
        except Exception as bug:
            if daemon.sources.get(name, SourceState(name)).ok:
                log.exception("fault in %s", name)
            daemon.source(name, False, f"{type(bug).__name__}: {bug}")

    def discover(self) -> None:
        """Find new runs and let go of finished ones."""
        daemon = self._daemon
        found: dict[str, tuple[str, bool]] = {}
        for place in daemon.named:
            found.setdefault(place, ("named", True))
        if not daemon.alone:
            settings = daemon.config.discovery
            for place in settings.runs:
                found.setdefault(os.path.realpath(os.path.expanduser(place)), ("config", True))
            if settings.queue:
                for one in discover.from_queue(daemon.jobs):
                    found.setdefault(one.directory, (one.source, False))
            listed: list[Found] = []
            if settings.workflow_db:
                listed += [Found(os.path.realpath(place), "workflow.db") for place, _ in known_workflows(daemon.master_db)]
            listed += discover.from_folders(settings.folders)
            listed += self._left_open()
            wall = daemon.clock()
            for one in listed:
                if one.directory in found or len(found) >= settings.max_runs or one.directory in self.forgotten:
                    continue
                if discover.is_run(one.directory) and not discover.ended_long_ago(one.directory, wall, settings.forget_days):
                    found[one.directory] = (one.source, False)
        new = {key: place for place in found if (key := run_key(place)) not in daemon.runs}
        for key, directory in new.items():
            daemon.runs[key] = Watched(key, directory, *found[directory])
            daemon.ready.wake(key)
        daemon.healer.resume(new)
        self._let_go(found)

    def _left_open(self) -> list[Found]:
        """What an earlier process was at, which nothing else may name any more; asked once."""
        if self._remembered:
            return []
        places = self._daemon.store.unfinished().values()
        self._remembered = True
        return [Found(os.path.realpath(place), "store") for place in places]

    def _let_go(self, found: dict[str, tuple[str, bool]]) -> None:
        daemon = self._daemon
        wall = daemon.clock()
        for watched in list(daemon.runs.values()):
            follower = watched.follower
            gone = not os.path.isdir(watched.directory)
            settled = follower is not None and follower.ended == 0 and not follower.pending and not daemon.healer.busy(watched.key)
            quiet = time.monotonic() - watched.last_news > 30
            old = follower is not None and follower.moved and wall - follower.moved > daemon.config.discovery.forget_days * 86_400
            if (gone and not watched.named) or (settled and quiet and not watched.live) or (old and not watched.named):
                self._forget(watched, gone)

    def _prune(self) -> None:
        """The store keeps offsets of runs that are over only as long as a rescue of them is likely."""
        daemon = self._daemon
        before = daemon.clock() - daemon.config.discovery.forget_days * 86_400
        daemon.writer.change(lambda store: store.prune(before))

    def _forget(self, watched: Watched, gone: bool) -> None:
        """A finished run is let go: it costs nothing any more. A rescue brings it back through the queue."""
        daemon = self._daemon
        daemon.runs.pop(watched.key, None)
        daemon.disks.forget(watched.key)
        daemon.healer.forget(watched.key)
        for folder in watched.folders:
            daemon.observers.remove(Path(folder))
        if not gone:  # one that vanished may come back
            self.forgotten.add(watched.directory)
        if len(self.forgotten) > 50_000:
            self.forgotten.clear()
        state = "vanished" if gone else "finished"
        if watched.directory in daemon.named:
            daemon.named.remove(watched.directory)
        row = row_of(watched, state)
        daemon.writer.change(lambda store: store.save_watched([row]))
        log.info("%s: %s, let go", watched.directory, state, extra={"fields": {"run": watched.directory}})
