"""Who wakes the readers up: inotify through watchdog, polling on network file systems.

A notification is only a hint that a file may have grown. It marks the run as dirty in a set that can
hold each run once, so a burst of a million writes costs one entry; and a slow regular sweep (one
``stat`` per file) finds what a lost notification or an overflowing kernel queue left out.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

#: File systems on which inotify does not see what other hosts write.
NETWORK = frozenset(
    {"nfs", "nfs4", "lustre", "afs", "auristorfs", "cifs", "smb3", "smbfs", "gpfs", "beegfs", "ceph", "glusterfs", "9p", "panfs",
     "orangefs",      "pvfs2", "fuse.glusterfs", "fuse.sshfs", "fuse.ceph", "fuse.cvmfs", "fuse.juicefs", "virtiofs"}
)  # fmt: skip
#: Folders watched through inotify; each costs watchdog a thread, and threads count against the user's limit of processes.
MOST = 256
_WAKE_S = 30.0  # how long an idle inotify thread sleeps; it is woken by events, this only bounds its end


def file_system(path: str, mounts: str) -> str:
    """The type of the file system that a (resolved) path lies on, from the text of ``/proc/mounts``."""
    best, found = -1, ""
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        place = _unescape(words[1])
        if (path == place or path.startswith(place.rstrip("/") + "/")) and len(place) >= best:
            best, found = len(place), words[2]
    return found


def _unescape(text: str) -> str:
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, sign)
    return text


def read_mounts() -> str:
    try:
        with open("/proc/mounts", encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read(4 << 20)
    except OSError:
        return ""


class Observers:
    """Watches run directories and calls ``wake(key)``. Where watching is impossible the sweep has to do."""

    def __init__(self, wake: Callable[[str], None], mounts: Callable[[], str] = read_mounts, poll_s: float = 2.0) -> None:
        self._wake = wake
        self._mounts = mounts
        self._poll_s = poll_s
        self._watches: dict[str, tuple[Any, Any, str]] = {}
        self._notified = 0
        self._lock = threading.Lock()
        self._inotify: Any = None
        self._polling: Any = None
        self.failures: dict[str, str] = {}  # folder -> why it is only swept

    def start(self) -> None:
        from watchdog.observers import Observer

        try:
            self._inotify = Observer(timeout=_WAKE_S)  # opens inotify
            self._inotify.start()
        except OSError as problem:
            self._inotify = None
            log.warning("inotify cannot be used (%s); files are looked at regularly instead", problem)

    def add(self, folder: Path, key: str) -> str:
        """Watch one folder (not what lies below it). Returns how: inotify, polling or sweep."""
        place = os.path.realpath(folder)
        with self._lock:
            if place in self._watches:
                return self._watches[place][2]
            how = "polling" if file_system(place, self._mounts()) in NETWORK else "inotify"
            try:
                observer = self._poller() if how == "polling" else self._inotify
                if observer is None:
                    raise OSError("no inotify")
                if how == "inotify" and self._notified >= MOST:
                    raise OSError(f"{MOST} folders are watched through inotify already")
                from watchdog.events import DirModifiedEvent, FileCreatedEvent, FileModifiedEvent, FileMovedEvent

                kinds = [FileModifiedEvent, FileCreatedEvent, FileMovedEvent, DirModifiedEvent]
                watch = observer.schedule(_Handler(self._wake, key), place, recursive=False, event_filter=kinds)
            except Exception as problem:  # noqa: BLE001 - the limit of watches, a folder that vanished, a fault of watchdog's
                self.failures[place] = str(problem)
                return "sweep"
            self._watches[place] = (observer, watch, how)
            self._notified += how == "inotify"
            self.failures.pop(place, None)
            return how

    def remove(self, folder: Path) -> None:
        with self._lock:
            found = self._watches.pop(os.path.realpath(folder), None)
            self.failures.pop(os.path.realpath(folder), None)
            if found is not None:
                self._notified -= found[2] == "inotify"
                try:
                    found[0].unschedule(found[1])
                except Exception as problem:  # noqa: BLE001 - the folder may be gone already
                    log.debug("unwatching %s: %s", folder, problem)

    def _poller(self) -> Any:
        if self._polling is None:
            from watchdog.observers.polling import PollingObserver

            self._polling = PollingObserver(timeout=self._poll_s)
            self._polling.start()
        return self._polling

    def stop(self) -> None:
        for observer in (self._inotify, self._polling):
            if observer is not None:
                observer.stop()

    @property
    def counts(self) -> dict[str, int]:
        found = {"inotify": 0, "polling": 0, "sweep": len(self.failures)}
        for _, _, how in self._watches.values():
            found[how] += 1
        return found


class _Handler:
    """What watchdog calls for each event of one folder."""

    def __init__(self, wake: Callable[[str], None], key: str) -> None:
        self._wake = wake
        self._key = key

    def dispatch(self, _event: object) -> None:
        self._wake(self._key)
