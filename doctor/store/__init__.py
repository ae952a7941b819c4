"""The doctor's memory: SQLite through sqlite-utils, and the only package that holds SQL.

Write-ahead logging, file mode 0600 in a directory of mode 0700. Migrations are named functions that
are applied once, in order. Whatever belongs together is written in one transaction (:meth:`Store.batch`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from doctor.statedir import StoreError
from doctor.store.answers import Answers
from doctor.store.base import Clock
from doctor.store.migrations import MIGRATIONS
from doctor.store.repairs import PlanJournal, Repairs
from doctor.store.watching import Watching


class Store(Repairs, Watching, Answers):
    """Everything that must survive the process."""


@contextmanager
def scratch_copy(folder: Path, clock: Clock) -> Iterator[Store]:
    """A throw-away copy of the store, for a dry run that must not change a byte of the real one."""
    with tempfile.TemporaryDirectory(prefix="pegasus-doctor-") as name:
        place = Path(name) / "state"
        place.mkdir(mode=0o700)
        for suffix in ("", "-wal"):
            try:
                shutil.copyfile(folder / f"doctor.db{suffix}", place / f"doctor.db{suffix}")
            except FileNotFoundError:
                continue
            except OSError as problem:
                raise StoreError(problem.strerror or "cannot be read", file=str(folder / f"doctor.db{suffix}")) from problem
        store = Store(place, clock)
        try:
            yield store
        finally:
            store.close()


__all__ = ["MIGRATIONS", "Clock", "PlanJournal", "Store", "scratch_copy"]
