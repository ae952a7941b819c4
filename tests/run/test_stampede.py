"""The Stampede database: an extra source, read without leaving a trace."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.run.files import Files, Ledger
from doctor.run.stampede import hold_reasons


def database(path: Path, wal: bool = False) -> None:
    with sqlite3.connect(path) as db:
        if wal:
            db.execute("PRAGMA journal_mode=WAL")
        db.executescript(
            """
            CREATE TABLE job (job_id INTEGER, exec_job_id TEXT);
            CREATE TABLE job_instance (job_instance_id INTEGER, job_id INTEGER);
            CREATE TABLE jobstate (job_instance_id INTEGER, state TEXT, timestamp REAL, jobstate_submit_seq INTEGER, reason TEXT);
            INSERT INTO job VALUES (1, 'a'), (2, 'b');
            INSERT INTO job_instance VALUES (1, 1), (2, 2);
            INSERT INTO jobstate VALUES (1, 'JOB_HELD', 10, 1, ' first'), (1, 'JOB_HELD_REASON', 20, 2, ' the latest'),
              (2, 'JOB_HELD', 10, 1, NULL), (2, 'SUBMIT', 5, 0, 'no hold');
            """
        )
    db.close()


@pytest.mark.parametrize("wal", [False, True])
def test_the_latest_reason_and_nothing_left_beside_the_database(tmp_path: Path, files: Files, ledger: Ledger, wal: bool) -> None:
    path = tmp_path / "run 1?#%.stampede.db"
    database(path, wal)
    before = {entry.name: (entry.stat().st_size, entry.stat().st_mtime_ns) for entry in tmp_path.iterdir()}
    assert hold_reasons(path, files) == {"a": "the latest"}
    assert {entry.name: (entry.stat().st_size, entry.stat().st_mtime_ns) for entry in tmp_path.iterdir()} == before
    assert ledger.entries == {}


def test_a_read_only_folder_is_enough(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "x.stampede.db"
    database(path)
    tmp_path.chmod(0o555)
    try:
        assert hold_reasons(path, files) == {"a": "the latest"}
    finally:
        tmp_path.chmod(0o755)


def test_an_absent_database_is_no_complaint_and_is_not_made(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    assert hold_reasons(tmp_path / "x.stampede.db", files) == {}
    assert ledger.entries == {}
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_the_tables_is_noted(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    sqlite3.connect(tmp_path / "x.stampede.db").close()
    (tmp_path / "x.stampede.db").write_bytes(b"")
    assert hold_reasons(tmp_path / "x.stampede.db", files) == {}
    assert "not a readable database" in ledger.entries["x.stampede.db"]


@given(st.integers(0, 8192), st.binary(max_size=64))
def test_a_damaged_database_never_raises(tmp_path: Path, at: int, rubbish: bytes) -> None:
    path = tmp_path / "y.stampede.db"
    path.unlink(missing_ok=True)
    database(path)
    data = path.read_bytes()
    path.write_bytes(data[:at] + rubbish + data[at + len(rubbish) :])
    assert set(hold_reasons(path, Files(tmp_path, Ledger()))) <= {"a", "b"} or rubbish
    path.write_bytes(data[:at])
    hold_reasons(path, Files(tmp_path, Ledger()))
