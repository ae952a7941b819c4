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
from doctor.watch.watched import SourceState, Watched, row_of

if TYPE_CHECKING:
    from doctor.watch.daemon import Daemon

log = logging.getLogger("doctor.watch")


class Scout:
    """One thread."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._now = threading.Event()
        self.forgotten: set[str] = set()

    def hurry(self) -> None:
        """Look for runs now, not when it is time."""
        self._now.set()

    def work(self) -> None:
        daemon = self._daemon
        disks_at = detect_at = discover_at = 0.0
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
            listed: list[discover.Found] = []
            if settings.workflow_db:
                listed += [discover.Found(os.path.realpath(place), "workflow.db") for place, _ in known_workflows(daemon.master_db)]
            listed += discover.from_folders(settings.folders)
            wall = daemon.clock()
            for one in listed:
                if one.directory in found or len(found) >= settings.max_runs or one.directory in self.forgotten:
                    continue
                if discover.is_run(one.directory) and not discover.ended_long_ago(one.directory, wall, settings.forget_days):
                    found[one.directory] = (one.source, False)
        for directory, (source, named) in found.items():
            key = run_key(directory)
            if key not in daemon.runs:
                daemon.runs[key] = Watched(key, directory, source, named)
                daemon.ready.wake(key)
        self._let_go(found)

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

    def _forget(self, watched: Watched, gone: bool) -> None:
        """A finished run is let go: it costs nothing any more. A rescue brings it back through the queue."""
        daemon = self._daemon
        daemon.runs.pop(watched.key, None)
        daemon.disks.forget(watched.key)
        for folder in watched.folders:
            daemon.observers.remove(Path(folder))
        self.forgotten.add(watched.directory)
        if len(self.forgotten) > 50_000:
            self.forgotten.clear()
        state = "vanished" if gone else "finished"
        if watched.directory in daemon.named:
            daemon.named.remove(watched.directory)
        row = row_of(watched, state)
        daemon.writer.change(lambda store: store.save_watched([row]))
        log.info("%s: %s, let go", watched.directory, state, extra={"fields": {"run": watched.directory}})
