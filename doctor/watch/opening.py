"""Open the store for the daemon, also when it is locked for a while or damaged."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from doctor.statedir import Damaged, StoreError, put_aside
from doctor.store import Store
from doctor.watch.system import free_bytes

log = logging.getLogger("doctor.watch")

_FULL_S = 100.0  # less than a service manager gives for the start
_ROOM = 1 << 20  # bytes that opening needs

#: While this file is there the daemon repairs nothing: the memory of earlier repairs is lost.
MARK = "only-watch.lock"
_TEXT = (
    "The state database was damaged and has been moved away; a new one was begun. What was repaired before\n"
    "is not known any more, so the daemon only watches and diagnoses. Remove this file to let it repair again.\n"
)


def open_store(folder: Path, tries: int = 6, pause: float = 1.0) -> tuple[Store, bool]:
    """The store, and whether repairs have to wait for a person because an earlier store was damaged.

    Without a byte of free space it is waited for: a service that ends again and again is not started again for ever.
    """
    attempt, until, told = 0, time.monotonic() + _FULL_S, ""
    while True:
        try:
            return _opened(folder), (folder / MARK).exists()
        except StoreError as problem:
            full = free_bytes(folder) < _ROOM and time.monotonic() < until
            attempt += not full
            if attempt >= tries or not (full or isinstance(problem, Damaged) or "locked" in str(problem)):
                raise
            if isinstance(problem, Damaged) and not full:
                _put_aside(folder, str(problem))
                continue
            if told != str(problem):
                told = str(problem)
                log.warning("%s; tried again", told)
            time.sleep(pause)


def _opened(folder: Path) -> Store:
    store = Store(folder, time.time)
    try:
        found = store.sound()
    except BaseException:
        store.close()
        raise
    if found != "ok":
        store.close()
        raise Damaged(f"the state database is damaged ({found})", file=str(folder))
    return store


def _put_aside(folder: Path, why: str) -> None:
    """Move the damaged database away, once it is written down that nothing is to be repaired."""
    log.error("%s; it is moved away and a new one is begun. Nothing is repaired until %s is removed", why, folder / MARK)
    try:
        (folder / MARK).write_text(_TEXT, "utf-8")
        put_aside(folder, "doctor.db")
    except OSError as problem:
        raise StoreError(f"the damaged state database cannot be moved away: {problem.strerror}", file=str(folder)) from problem
