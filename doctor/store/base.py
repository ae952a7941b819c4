"""One SQLite file: write-ahead logging, mode 0600 in a directory of mode 0700, whole transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from doctor.statedir import Damaged, StoreError, private, put_aside
from doctor.store.migrations import MIGRATIONS

_BUSY_MS = 10_000
_BUGS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)  # ours, not the file's
Clock = Callable[[], float]


class Base:
    """The connection, transactions and migrations. Times come from the clock that is passed in."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self.clock = clock
        self.path = folder / "doctor.db"
        self._lock = threading.RLock()
        private(folder)
        self._db = self._open()
        with self._guarded():
            self._migrate()

    def _open(self) -> Database:
        try:
            if not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            conn = sqlite3.connect(self.path, timeout=_BUSY_MS / 1000, check_same_thread=False)
            conn.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            conn.execute("PRAGMA journal_mode=WAL")
            conn.execute("PRAGMA synchronous=FULL")
            os.chmod(self.path, 0o600)
            return Database(conn)
        except (sqlite3.Error, OSError) as problem:
            raise self._error(problem) from problem

    def _error(self, problem: Exception) -> StoreError:
        text = str(problem)
        if "locked" in text or "busy" in text:
            why = f"the state database stayed locked for {_BUSY_MS // 1000} s; does another program hold it open?"
        elif isinstance(problem, sqlite3.OperationalError | OSError):
            why = f"the state database cannot be used ({text}); check the disk and permissions, or give another folder with --state"
        else:
            why = f"the state database is damaged ({text}); move it away to begin a new one, nothing else depends on it"
            return Damaged(why, file=str(self.path))
        return StoreError(why, file=str(self.path))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except _BUGS:
            raise
        except sqlite3.Error as problem:
            raise self._error(problem) from problem

    @contextmanager
    def batch(self) -> Iterator[None]:
        """One transaction; nested use joins the outer one.

        The right to write is taken at its beginning: a transaction that has read and then wants to write
        while another connection has written would fail at once, however long the time limit.
        """
        with self._lock, self._guarded():
            if self._db.conn.in_transaction:
                with self._db.atomic():
                    yield
                return
            self._db.conn.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.conn.execute("COMMIT")
            except BaseException:
                self._db.conn.rollback()
                raise

    def _migrate(self) -> None:
        ready = "migrations" in self._db.table_names()
        if ready and {row["name"] for row in self._db.query("select name from migrations")} == {step.__name__ for step in MIGRATIONS}:
            return
        with self.batch():
            if "migrations" not in self._db.table_names():
                self._db.table("migrations").create({"name": str, "time": float}, pk="name")
            applied = {row["name"] for row in self._db.query("select name from migrations")}
            known = {step.__name__ for step in MIGRATIONS}
            if applied - known:
                raise StoreError("the state database was written by a newer pegasus-doctor; use that one", file=str(self.path))
            for step in MIGRATIONS:
                if step.__name__ not in applied:
                    step(self._db)
                    self._insert("migrations", {"name": step.__name__, "time": self.clock()})

    def close(self) -> None:
        self._db.close()

    def checkpoints(self) -> sqlite3.Connection:
        """A connection for the loop's checkpoints, which keep themselves in a file of their own.

        They hold nothing that is not here: a damaged file is put aside, and the loop finds its way from the incidents.
        """
        try:
            return self._checkpoints()
        except Damaged:
            self.renew_checkpoints()
            return self._checkpoints()

    def renew_checkpoints(self) -> None:
        """Put the checkpoints aside; new ones are begun when they are asked for."""
        put_aside(self.folder, "checkpoints.db")

    def _checkpoints(self) -> sqlite3.Connection:
        path = self.folder / "checkpoints.db"
        try:
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            conn = sqlite3.connect(path, timeout=_BUSY_MS / 1000, check_same_thread=False)
            conn.execute("PRAGMA journal_mode=WAL")
            return conn
        except (sqlite3.OperationalError, OSError) as problem:
            raise StoreError(f"the checkpoints cannot be used ({problem})", file=str(path)) from problem
        except sqlite3.Error as problem:
            raise Damaged(f"the checkpoints are damaged ({problem})", file=str(path)) from problem

    def _insert(self, table: str, row: dict[str, Any]) -> int:
        return int(self._db.table(table).insert(row).last_rowid or 0)

    def _update(self, table: str, key: str | int, /, **values: Any) -> None:
        self._db.table(table).update(key, values)

    def _rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        with self._lock, self._guarded():
            return list(self._db.query(sql, list(values)))

    def sound(self) -> str:
        """What SQLite says of the database: ``ok``, or what is damaged."""
        return str(self._rows("pragma quick_check(1)")[0]["quick_check"])

    def note(self, run: str, incident: str, event: str, text: str) -> None:
        """One line of the run's history."""
        with self.batch():
            self._insert("history", {"run": run, "incident": incident, "event": event, "text": text, "time": self.clock()})
