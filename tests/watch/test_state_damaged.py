"""The doctor's memory is damaged under a running daemon, or cannot be had when it starts."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from doctor.errors import DoctorError
from doctor.statedir import Damaged, run_key
from doctor.store import Store
from doctor.watch.opening import MARK, open_store
from doctor.watch.turn import Seen, Turn
from doctor.watch.writer import Writer
from tests.watch.flows import Flow, start_daemon, until


def scribble(path: Path) -> None:
    """As a failing disk does: the same file, the same length, other bytes."""
    with path.open("r+b") as stream:
        stream.write(os.urandom(path.stat().st_size))


def test_damaged_under_a_running_daemon(tmp_path: Path) -> None:
    """It begins again by itself with a new database, reads the logs anew, and repairs nothing until a person says so."""
    flow = Flow(tmp_path / "run", 60)
    state = tmp_path / "state"
    daemon = start_daemon(state, tmp_path, [flow.folder], healers=1)
    key = run_key(str(flow.folder))

    def seen() -> set[str]:
        try:
            store = Store(state, time.time)
        except DoctorError:
            return set()
        try:
            return set(store.seen(key))
        except DoctorError:
            return set()
        finally:
            store.close()

    try:
        flow.job(0, True)
        assert until(lambda: seen() == {"step_0"}, 30)
        for suffix in ("", "-wal"):
            scribble(state / f"doctor.db{suffix}")
        number = 1

        def again() -> bool:
            nonlocal number
            if number < 60:  # the database is noticed to be damaged where it is used
                flow.job(number, True)
                number += 1
            time.sleep(0.2)
            return (state / MARK).exists()

        assert until(again, 40), (tmp_path / "daemon.log").read_text()[-3000:]
        assert until(lambda: seen() == flow.failed, 30), (tmp_path / "daemon.log").read_text()[-3000:]
        assert daemon.poll() is None and list(state.glob("doctor.db-damaged-*"))
        log = (tmp_path / "daemon.log").read_text()
        assert log.count("watching 1 runs") == 2 and "Nothing is repaired until" in log
        store = Store(state, time.time)
        assert store.sound() == "ok" and {row.stage.value for row in store.incidents(key)} == {"open"}
        store.close()
    finally:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0


def test_damaged_twice_within_a_second(tmp_path: Path) -> None:
    """What is put aside is never overwritten."""
    for _ in range(3):
        open_store(tmp_path)[0].close()
        (tmp_path / "doctor.db").write_bytes(b"no database at all" * 100)
    open_store(tmp_path)[0].close()
    assert len([path for path in tmp_path.glob("doctor.db-damaged-*") if not path.name.endswith(("-wal", "-shm"))]) == 3


def test_one_change_that_cannot_be_written_stops_no_other(tmp_path: Path) -> None:
    """Whether it is a bug or something that is no longer there: it is dropped with a message, the rest is written."""
    writer = Writer(Store(tmp_path, time.time), lambda: True)
    writer.start()

    def bug(store: Store) -> None:
        raise ZeroDivisionError("a bug")

    def gone(store: Store) -> None:
        store.begin_session("nobody")

    def wrong(store: Store) -> None:
        store._insert("cursors", {"name": "twice", "value": 1})
        store._insert("cursors", {"name": "twice", "value": 2})

    for number, change in enumerate((bug, gone, wrong)):
        writer.change(change)
        writer.turn("run", None, Turn(seen=[Seen(f"step_{number}", 12, "f")]))
    assert until(lambda: writer.backlog == 0, 10), writer.problem
    writer.stop()
    assert set(writer.store.seen("run")) == {"step_0", "step_1", "step_2"} and writer.problem == ""


def test_what_is_dropped_is_never_what_only_has_to_wait(tmp_path: Path) -> None:
    """The database is locked while the parts of a batch are tried one by one: they are kept."""
    store = Store(tmp_path, time.time)
    store._db.conn.execute("PRAGMA busy_timeout=50")
    writer = Writer(store, lambda: True)
    blocker = sqlite3.connect(tmp_path / "doctor.db", check_same_thread=False)
    tried = 0

    def bug(store: Store) -> None:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise ZeroDivisionError("a bug, so that the parts are tried one by one")
        store.save_cursor("after all", 1)

    writer.change(bug)
    real = writer._alone

    def alone(part: object) -> bool:
        if not blocker.in_transaction and tried == 1:
            blocker.execute("BEGIN IMMEDIATE")
        return real(part)  # type: ignore[arg-type]

    writer._alone = alone  # type: ignore[method-assign,assignment]
    writer.start()
    assert until(lambda: "locked" in writer.problem, 20)
    blocker.rollback()
    assert until(lambda: writer.backlog == 0 and store.cursor("after all") == 1, 20)
    writer.stop()
    blocker.close()


def test_a_damaged_file_is_told_from_a_bug(tmp_path: Path) -> None:
    store = Store(tmp_path, time.time)
    with pytest.raises(sqlite3.IntegrityError), store.batch():
        store._db.execute("insert into cursors values ('a', 1), ('a', 2)")
    store.close()
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"doctor.db{suffix}").write_bytes(b"no database at all" * 100)
    with pytest.raises(Damaged):
        Store(tmp_path, time.time)
