"""Open the store for the daemon, also when it is locked for a while or damaged."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from doctor.statedir import StoreError
from doctor.store import Store

log = logging.getLogger("doctor.watch")

#: While this file is there the daemon repairs nothing: the memory of earlier repairs is lost.
MARK = "only-watch.lock"
_TEXT = (
    "The state database was damaged and has been moved away; a new one was begun. What was repaired before\n"
    "is not known any more, so the daemon only watches and diagnoses. Remove this file to let it repair again.\n"
)


def open_store(folder: Path, tries: int = 6, pause: float = 1.0) -> tuple[Store, bool]:
    """The store, and whether repairs have to wait for a person because an earlier store was damaged."""
    for attempt in range(tries):
        try:
            store = Store(folder, time.time)
            if (found := store.sound()) != "ok":
                store.close()
                raise StoreError(f"the state database is damaged ({found})", file=str(folder))
            return store, (folder / MARK).exists()
        except StoreError as problem:
            if "damaged" in str(problem):
                _put_aside(folder, str(problem))
            elif "locked" not in str(problem) or attempt == tries - 1:
                raise
            else:
                time.sleep(pause)
    raise StoreError("the state database cannot be used", file=str(folder))


def _put_aside(folder: Path, why: str) -> None:
    """Move the damaged database away, never over an earlier one."""
    log.error("%s; it is moved away and a new one is begun. Nothing is repaired until %s is removed", why, folder / MARK)
    stamp = time.strftime("%Y%m%dT%H%M%S")
    (folder / MARK).write_text(_TEXT, "utf-8")
    for suffix in ("", "-wal", "-shm"):
        old = folder / f"doctor.db{suffix}"
        if old.exists():
            os.replace(old, folder / f"doctor.db-damaged-{stamp}{suffix}")
