"""The store: migrations, moves, journal, lock, damage, and a copy that leaves the original alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from doctor.errors import DoctorError
from doctor.loop.records import IncidentRow
from doctor.loop.stages import MOVES, Stage
from doctor.model import Culprit, Diagnosis, Evidence, Incident, JobCounts, Kind, Remedy, RunState, RunSummary
from doctor.repair import Decision, Edit, GuardAnswer, Plan, QueueEdit, Risk
from doctor.statedir import BusyRun, StoreError, incident_key, run_key, run_lock
from doctor.store import Store, base, scratch_copy

RUN = RunSummary("/runs/one", "one", "u1", "u1", RunState.FAILED, "", JobCounts())


def incident(name: str = "f" * 12, jobs: tuple[str, ...] = ("a1", "a2")) -> Incident:
    evidence = (Evidence("00/00/a1.out", 12, "MemoryError", Kind.STDERR), Evidence("jobstate.log", None, "a1 failed", Kind.EXITCODE))
    remedy = Remedy("raise-memory", {"job": "a1", "at_least_mb": "12"}, "costly", "More memory.")
    return Incident(
        name, Diagnosis("resources/memory-exhausted", 0.9, "rule:x", Culprit("a1"), "s", "e", evidence, remedies=(remedy,)), jobs
    )


def plan() -> Plan:
    return Plan(
        "raise-memory", "f" * 12, "a1", {"memory_mb": 200}, "More memory", "e", "u", Risk.COSTLY,
        (Edit("/runs/one/a1.sub", b"a\xff\n", b"b\n", 0o644, 0o600),), (QueueEdit("1.0", (("RequestMemory", "200"),), "release"),),
        (("pegasus-run", "/runs/one"),), True, "", 1.5,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state", time.time)


def entered(store: Store) -> IncidentRow:
    key = store.see_run(RUN)
    return store.open_incident(key, incident(), store.begin_session(key))


def test_files_are_private(store: Store) -> None:
    entered(store)
    store.checkpoints().close()
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    for path in store.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_folder_with_other_things_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state" / "notes.txt").write_text("mine")
    Store(tmp_path / "state", time.time)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o755


def test_migrations_are_applied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path, time.time).close()
    calls: list[str] = []

    def _m002_more(db: object) -> None:
        calls.append("second")

    monkeypatch.setattr(base, "MIGRATIONS", (*base.MIGRATIONS, _m002_more))
    Store(tmp_path, time.time).close()
    Store(tmp_path, time.time).close()
    assert calls == ["second"]
    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer"):
        Store(tmp_path, time.time)


def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def _m002_broken(db: object) -> None:
        raise sqlite3.OperationalError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(base, "MIGRATIONS", (*base.MIGRATIONS, _m002_broken))
        with pytest.raises(StoreError, match="broken on purpose"):
            Store(tmp_path, time.time)
    assert Store(tmp_path, time.time).incidents() == []


def test_what_is_stored_comes_back(store: Store) -> None:
    row = entered(store)
    assert row.incident == incident() and row.stage is Stage.OPEN and row.submit_dir == "/runs/one"
    number = store.add_plan(row, 1, plan(), "key", {"": {"a1": [1, 5]}})
    store.add_verdict(number, (GuardAnswer("mode", Decision.ASK, "why"), GuardAnswer("risk", Decision.ALLOW)))
    found = store.plans(row.id)[0]
    assert found.plan == plan() and found.baseline == {"": {"a1": [1, 5]}} and found.state == "proposed"
    assert [entry["decision"] for entry in store.verdicts(number)] == ["ask", "allow"]
    assert store.tried(row.id) == set()
    store.plan_state(number, "applied")
    assert store.tried(row.id) == {"key"} and store.attempts_of_run(row.run)[0] == 1


@pytest.mark.parametrize("start", list(Stage))
@pytest.mark.parametrize("to", list(Stage))
def test_only_allowed_moves_are_made(tmp_path: Path, start: Stage, to: Stage) -> None:
    store = Store(tmp_path, time.time)
    row = entered(store)
    store._update("incidents", row.id, stage=start.value)
    if to in MOVES[start]:
        store.move(row.id, to, "because")
        assert store.incident(row.id).stage is to
    else:
        with pytest.raises(ValueError, match="no move"):
            store.move(row.id, to)
        assert store.incident(row.id).stage is start


def test_no_move_leads_from_acting_to_a_second_attempt() -> None:
    assert not MOVES[Stage.ACTING] & {Stage.PLANNED, Stage.DIAGNOSED, Stage.OPEN, Stage.WAITING}


def test_a_batch_is_all_or_nothing(store: Store) -> None:
    row = entered(store)
    with pytest.raises(RuntimeError), store.batch():
        store.move(row.id, Stage.DIAGNOSED)
        raise RuntimeError("cut off")
    assert store.incident(row.id).stage is Stage.OPEN


def test_an_ended_incident_is_opened_again_with_its_past(store: Store) -> None:
    row = entered(store)
    store.move(row.id, Stage.ESCALATED, "no")
    number = store.add_plan(row, 1, plan(), "key", {})
    store.plan_state(number, "applied")
    again = store.open_incident(row.run, incident(), 2)
    assert again.id == row.id and again.stage is Stage.OPEN and store.tried(row.id) == {"key"}
    assert [entry["text"] for entry in store.history(row.run)][-1] == "escalated -> open: the same failure again"


def test_incidents_by_run_and_by_prefix(store: Store) -> None:
    row = entered(store)
    other = store.see_run(RunSummary("/runs/two", "two", "u2", "u2", RunState.FAILED, "", JobCounts()))
    store.open_incident(other, incident(), store.begin_session(other))
    assert len(store.incidents()) == 2 and [one.id for one in store.incidents(row.run)] == [row.id]
    assert row.id == incident_key(run_key("/runs/one"), "f" * 12)
    assert store.incident(row.id[:6]).id == row.id
    for wrong in ("zzzzzz", "", row.id[:2]):
        with pytest.raises(DoctorError):
            store.incident(wrong)


def test_the_journal_keeps_bytes_and_mode(store: Store) -> None:
    row = entered(store)
    number = store.add_plan(row, 1, plan(), "key", {})
    journal = store.journal(number)
    first, second = journal.intend(plan(), "edit x", b"\x00\xff", 0o755), journal.intend(plan(), "edit y", None, None)
    journal.done(first)
    entries = store.entries(number)
    assert [(one.original, one.mode, one.state) for one in entries] == [(b"\x00\xff", 0o755, "done"), (None, None, "intended")]
    journal.undone(second)
    assert store.entries(number, states=("intended",)) == []


def test_it_survives_the_process(tmp_path: Path) -> None:
    row = entered(Store(tmp_path, time.time))
    assert Store(tmp_path, time.time).incident(row.id).incident == incident()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be one" * 100, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_damaged_database_is_told_plainly(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "doctor.db").write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as caught:
        Store(tmp_path, time.time)
    assert str(tmp_path / "doctor.db") in str(caught.value)


def test_a_locked_database_is_told_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_BUSY_MS", 100)
    store = Store(tmp_path, time.time)
    row = entered(store)
    other = sqlite3.connect(tmp_path / "doctor.db")
    other.execute("begin immediate")
    with pytest.raises(StoreError, match="locked"):
        store.move(row.id, Stage.DIAGNOSED)
    other.rollback()
    store.move(row.id, Stage.DIAGNOSED)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--state"):
        Store(tmp_path / "file" / "state", time.time)


def test_a_copy_leaves_the_original_alone(store: Store) -> None:
    row = entered(store)
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    with scratch_copy(store.folder, time.time) as copy:
        assert copy.incident(row.id).id == row.id
        copy.move(row.id, Stage.DIAGNOSED)
    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == before
    with scratch_copy(store.folder / "nowhere", time.time) as empty:
        assert empty.incidents() == []
    assert not (store.folder / "nowhere").exists()


def test_one_doctor_per_run(tmp_path: Path) -> None:
    with run_lock(tmp_path, "/runs/one"):
        with pytest.raises(BusyRun, match=str(os.getpid())), run_lock(tmp_path, "/runs/one"):
            pass
        with run_lock(tmp_path, "/runs/two"):
            pass
    with run_lock(tmp_path, "/runs/one"):
        pass


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom doctor.statedir import run_lock\n"
        "with run_lock(Path(sys.argv[1]), '/runs/one'):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=Path(__file__).parents[1])
    assert list((tmp_path / "locks").iterdir())
    with run_lock(tmp_path, "/runs/one"):
        pass


def test_sql_stands_in_one_package_only() -> None:
    home = Path(base.__file__).parent
    root = home.parents[1]
    others = [path for folder in ("doctor", "actions") for path in (root / folder).rglob("*.py") if path.parent != home]
    writing = [path for path in others if any(word in path.read_text() for word in ("sqlite_utils", "insert into", "INSERT INTO"))]
    assert writing == []


def test_what_following_a_run_needed_is_let_go_of_in_time(tmp_path: Path) -> None:
    now = 1000.0
    store = Store(tmp_path, lambda: now)
    for run, state in (("old", "finished"), ("young", "finished"), ("going", "running")):
        now = 2000.0 if run == "young" else 1000.0
        store.save_watched([{"run": run, "submit_dir": f"/runs/{run}", "state": state, "body": "{}"}])
        store.save_marks(run, {"|jobstate": "[]"})
        store.save_seen(run, [("step_1", 1, "f")])
    assert store.prune(1500.0) == 1
    assert [row["run"] for row in store.watched()] == ["going", "young"]
    assert (store.marks("old"), store.seen("old")) == ({}, {})
    assert store.marks("young") and store.seen("going")
    assert store.prune(1500.0) == 0
    store.close()
