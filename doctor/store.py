"""The doctor's memory: SQLite through sqlite-utils, and the only place that holds SQL.

Write-ahead logging, file mode 0600 in a directory of mode 0700. Migrations are named functions that
are applied once, in order. Whatever belongs together is written in one transaction (:meth:`Store.batch`).
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from doctor.errors import DoctorError
from doctor.loop.records import Entry, IncidentRow, PlanRow, incident_from, plain, plan_from
from doctor.loop.stages import ENDED, MOVES, Stage
from doctor.model import Evidence, Incident, RunSummary
from doctor.repair import GuardAnswer, Plan
from doctor.statedir import StoreError, incident_key, private, run_key

_BUSY_MS = 10_000
Clock = Callable[[], float]


# -- migrations -------------------------------------------------------------------------------------


def _m001_first(db: Database) -> None:
    def table(name: str, columns: dict[str, type], pk: str = "id") -> None:
        db.table(name).create(columns, pk=pk)

    table(
        "runs",
        {
            "id": str,
            "submit_dir": str,
            "wf_uuid": str,
            "label": str,
            "state": str,
            "session": int,
            "open": int,
            "began": float,
            "seen": float,
        },
    )
    table(
        "incidents",
        {"id": str, "run": str, "fingerprint": str, "cause": str, "stage": str, "summary": str, "body": str, "reason": str,
         "attempts": int, "session": int, "created": float, "updated": float},
    )  # fmt: skip
    table("evidence", {"id": int, "incident": str, "position": int, "file": str, "line": int, "text": str, "kind": str})
    table(
        "plans",
        {"id": int, "incident": str, "run": str, "attempt": int, "action": str, "job": str, "key": str, "state": str, "reason": str,
         "body": str, "baseline": str, "created": float, "applied": float},
    )  # fmt: skip
    table("verdicts", {"id": int, "plan": int, "guard": str, "decision": str, "reason": str, "time": float})
    table(
        "journal",
        {"id": int, "plan": int, "what": str, "original": bytes, "mode": int, "state": str, "intended": float, "ended": float},
    )
    table("outcomes", {"id": int, "run": str, "incident": str, "attempt": int, "result": str, "reason": str, "time": float})
    table("history", {"id": int, "run": str, "incident": str, "event": str, "text": str, "time": float})
    table(
        "rescues",
        {"id": int, "run": str, "starts": int, "state": str, "reason": str, "intended": float, "ended": float},
    )
    for name, columns in (
        ("incidents", ["run"]), ("evidence", ["incident"]), ("plans", ["incident"]), ("plans", ["run"]), ("verdicts", ["plan"]),
        ("journal", ["plan"]), ("outcomes", ["incident"]), ("history", ["run"]), ("rescues", ["run"]),
    ):  # fmt: skip
        db.table(name).create_index(columns)


def _watch_001_daemon(db: Database) -> None:
    """What the daemon needs to go on exactly: offsets, diagnosed attempts, and what ``status`` shows."""

    def table(name: str, columns: dict[str, type], pk: Any) -> None:
        db.table(name).create(columns, pk=pk)

    table("marks", {"run": str, "file": str, "body": str}, ("run", "file"))
    table("seen", {"run": str, "job": str, "seq": int, "incident": str}, ("run", "job"))
    table("watched", {"run": str, "submit_dir": str, "state": str, "body": str, "updated": float}, "run")
    table("sources", {"name": str, "ok": int, "text": str, "last_good": float, "updated": float}, "name")
    table("cursors", {"name": str, "value": int}, "name")


def _llm_001_answers(db: Database) -> None:
    """Answers of the model that were paid for, and what every call cost."""
    db.table("llm_answers").create(
        {"key": str, "model": str, "version": str, "run": str, "fingerprint": str, "body": str, "created": float}, pk="key"
    )
    db.table("llm_answers").create_index(["run", "fingerprint"])
    db.table("llm_usage").create(
        {"id": int, "run": str, "incident": str, "model": str, "calls": int, "sent": int, "received": int, "cache_written": int,
         "cache_read": int, "dollars": float, "seconds": float, "outcome": str, "time": float},
        pk="id",
    )  # fmt: skip
    db.table("llm_usage").create_index(["time"])


MIGRATIONS: tuple[Callable[[Database], None], ...] = (_m001_first, _watch_001_daemon, _llm_001_answers)


# -- the store --------------------------------------------------------------------------------------


class Store:
    """Everything that must survive the process. Times come from the clock that is passed in."""

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
        return StoreError(why, file=str(self.path))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
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
        """A connection for the loop's checkpoints, which keep themselves in a file of their own."""
        path = self.folder / "checkpoints.db"
        try:
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            conn = sqlite3.connect(path, timeout=_BUSY_MS / 1000, check_same_thread=False)
            conn.execute("PRAGMA journal_mode=WAL")
            return conn
        except (sqlite3.Error, OSError) as problem:
            raise StoreError(f"the checkpoints cannot be used ({problem}); move the file away", file=str(path)) from problem

    def _insert(self, table: str, row: dict[str, Any]) -> int:
        return int(self._db.table(table).insert(row).last_rowid or 0)

    def _update(self, table: str, key: str | int, /, **values: Any) -> None:
        self._db.table(table).update(key, values)

    def _rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        with self._lock, self._guarded():
            return list(self._db.query(sql, list(values)))

    # -- runs ---------------------------------------------------------------------------------------

    def see_run(self, summary: RunSummary) -> str:
        """Note a run and its state; the run's key."""
        key = run_key(summary.submit_dir)
        row = {
            "submit_dir": summary.submit_dir, "wf_uuid": summary.wf_uuid, "label": summary.label,
            "state": summary.state.value, "seen": self.clock(),
        }  # fmt: skip
        with self.batch():
            if self._rows("select id from runs where id = ?", key):
                self._update("runs", key, **row)
            else:
                self._insert("runs", {"id": key, **row, "session": 0, "open": 0, "began": 0.0})
        return key

    def run(self, key: str) -> dict[str, Any] | None:
        return next(iter(self._rows("select * from runs where id = ?", key)), None)

    def session(self, key: str) -> int:
        """The number of the session that is open for this run; 0 when none is."""
        found = self.run(key)
        return int(found["session"]) if found and found["open"] else 0

    def begin_session(self, key: str) -> int:
        """Open a session, or go on with the one that is open."""
        with self.batch():
            found = self.run(key)
            if found is None:
                raise StoreError(f"run {key} is not in the store", file=str(self.path))
            if found["open"]:
                return int(found["session"])
            number = int(found["session"]) + 1
            self._update("runs", key, session=number, open=1, began=self.clock())
            return number

    def end_session(self, key: str) -> None:
        with self.batch():
            self._update("runs", key, open=0)

    # -- incidents ----------------------------------------------------------------------------------

    def open_incident(self, run: str, incident: Incident, session: int) -> IncidentRow:
        """Enter an incident, refresh its diagnosis, or reopen it when it had ended. The row as it is now."""
        key, now = incident_key(run, incident.id), self.clock()
        facts = {
            "cause": incident.diagnosis.cause, "summary": incident.diagnosis.summary, "session": session,
            "body": json.dumps(plain(incident)), "updated": now,
        }  # fmt: skip
        with self.batch():
            row = next(iter(self._rows("select stage from incidents where id = ?", key)), None)
            if row is None:
                self._insert(
                    "incidents",
                    {"id": key, "run": run, "fingerprint": incident.id, "stage": Stage.OPEN.value, "reason": "",
                     "attempts": 0, "created": now, **facts},
                )  # fmt: skip
                self.note(run, key, "opened", incident.diagnosis.summary)
            else:
                self._update("incidents", key, **facts)
                if Stage(row["stage"]) in ENDED:
                    self.move(key, Stage.OPEN, "the same failure again")
            self._evidence(key, incident.diagnosis.evidence)
        return self.incident(key)

    def _evidence(self, incident: str, evidence: tuple[Evidence, ...]) -> None:
        table = self._db.table("evidence")
        table.delete_where("incident = ?", [incident])
        table.insert_all(
            {"incident": incident, "position": place, "file": one.file, "line": one.line, "text": one.text, "kind": one.kind.value}
            for place, one in enumerate(evidence)
        )

    def move(self, incident: str, to: Stage, reason: str = "") -> None:
        """Change an incident's state. Nothing else does; a move that is not allowed is a bug and raises."""
        with self.batch():
            row = next(iter(self._rows("select run, stage from incidents where id = ?", incident)), None)
            if row is None:
                raise DoctorError(f"no incident {incident!r}")
            current = Stage(row["stage"])
            if to not in MOVES[current]:
                raise ValueError(f"incident {incident}: no move from {current.value} to {to.value}")
            self._update("incidents", incident, stage=to.value, reason=reason, updated=self.clock())
            self.note(row["run"], incident, "state", f"{current.value} -> {to.value}" + (f": {reason}" if reason else ""))

    def _incidents(self, where: str, *values: Any) -> list[IncidentRow]:
        rows = self._rows(
            "select incidents.*, runs.submit_dir as place from incidents join runs on runs.id = incidents.run "  # noqa: S608 - own text
            f"where {where} order by incidents.created, incidents.id",
            *values,
        )
        return [
            IncidentRow(
                row["id"], row["run"], row["place"], Stage(row["stage"]), incident_from(json.loads(row["body"])), row["reason"],
                row["attempts"], row["session"], row["created"], row["updated"],
            )
            for row in rows
        ]  # fmt: skip

    def incidents(self, run: str | None = None, *, session: int | None = None) -> list[IncidentRow]:
        """Incidents, oldest first: of all runs, of one, or of one session of it."""
        if run is None:
            return self._incidents("1")
        if session is None:
            return self._incidents("incidents.run = ?", run)
        return self._incidents("incidents.run = ? and incidents.session = ?", run, session)

    def incident(self, key: str) -> IncidentRow:
        """One incident by its id or a beginning of it that no other has."""
        found = self._incidents("substr(incidents.id, 1, ?) = ?", len(key), key) if len(key) >= 4 else []
        exact = [row for row in found if row.id == key]
        if len(exact or found) != 1:
            raise DoctorError(
                f"{len(found)} incidents begin with {key!r}" if found else f"no incident {key!r}; `pegasus-doctor incidents` lists them"
            )
        return (exact or found)[0]

    # -- plans and verdicts --------------------------------------------------------------------------

    def add_plan(self, row: IncidentRow, attempt: int, plan: Plan, key: str, baseline: dict[str, Any], *, id_: int | None = None) -> int:
        """Keep a plan; with ``id_`` it replaces the one of that number."""
        values = {
            "incident": row.id, "run": row.run, "attempt": attempt, "action": plan.action, "job": plan.job, "key": key,
            "body": json.dumps(plain(plan)), "baseline": json.dumps(baseline),
        }  # fmt: skip
        with self.batch():
            if id_ is not None:
                self._update("plans", id_, **values)
                return id_
            return self._insert("plans", {**values, "state": "proposed", "reason": "", "created": self.clock(), "applied": None})

    def plan_state(self, plan: int, state: str, reason: str = "") -> None:
        with self.batch():
            values: dict[str, Any] = {"state": state, "reason": reason}
            if state == "applied":
                values["applied"] = self.clock()
            self._update("plans", plan, **values)

    def plans(self, incident: str, *, attempt: int | None = None, states: tuple[str, ...] = ()) -> list[PlanRow]:
        rows = self._rows("select * from plans where incident = ? order by id", incident)
        return [
            PlanRow(
                row["id"], row["incident"], row["attempt"], plan_from(json.loads(row["body"])), row["key"], row["state"], row["reason"],
                json.loads(row["baseline"]), row["created"], row["applied"],
            )
            for row in rows
            if (attempt is None or row["attempt"] == attempt) and (not states or row["state"] in states)
        ]  # fmt: skip

    def planned_again(self, run: str) -> str:
        """The submit directory of the run that took this one's place because it was planned again; '' when none did."""
        rows = self._rows(
            "select json_extract(body, '$.new_run') as place from plans where run = ? and state = 'applied' order by id desc", run
        )
        return next((row["place"] for row in rows if row["place"]), "")

    def add_verdict(self, plan: int, answers: tuple[GuardAnswer, ...]) -> None:
        """The guards' answers on a plan; they replace earlier ones."""
        now = self.clock()
        with self.batch():
            table = self._db.table("verdicts")
            table.delete_where("plan = ?", [plan])
            table.insert_all(
                {"plan": plan, "guard": one.guard, "decision": one.decision.value, "reason": one.reason, "time": now} for one in answers
            )

    def verdicts(self, plan: int) -> list[dict[str, Any]]:
        return self._rows("select guard, decision, reason from verdicts where plan = ? order by id", plan)

    # -- acts: intent first ---------------------------------------------------------------------------

    def begin_attempt(self, row: IncidentRow) -> None:
        """The intent to act: one more attempt is counted, and the incident is in ``acting``, before anything is done."""
        with self.batch():
            current = self.incident(row.id)
            self.move(row.id, Stage.ACTING)
            self._update("incidents", row.id, attempts=current.attempts + 1)

    def forget_attempt(self, incident: str) -> None:
        """An attempt of which nothing was done does not count."""
        with self.batch():
            self._update("incidents", incident, attempts=max(0, self.incident(incident).attempts - 1))

    def journal(self, plan: int) -> PlanJournal:
        """The journal for one plan (implements :class:`doctor.repair.Journal`)."""
        return PlanJournal(self, plan)

    def entries(self, plan: int | None = None, *, states: tuple[str, ...] = ()) -> list[Entry]:
        rows = self._rows("select * from journal order by id") if plan is None else self._rows(
            "select * from journal where plan = ? order by id", plan
        )  # fmt: skip
        return [
            Entry(row["id"], row["plan"], row["what"], row["original"], row["mode"], row["state"], row["intended"])
            for row in rows
            if not states or row["state"] in states
        ]

    def begin_rescue(self, run: str, starts: int) -> int:
        """The intent to submit the rescue DAG; ``starts`` are the DAGMan starts logged so far."""
        with self.batch():
            self.note(run, "", "rescue", "rescue intended")
            return self._insert(
                "rescues", {"run": run, "starts": starts, "state": "intended", "reason": "", "intended": self.clock(), "ended": None}
            )

    def rescue_submitted(self, rescue: int, reason: str) -> None:
        with self.batch():
            self._update("rescues", rescue, state="submitted", reason=reason)

    def end_rescue(self, rescue: int, run: str, state: str, reason: str) -> None:
        with self.batch():
            self._update("rescues", rescue, state=state, reason=reason, ended=self.clock())
            self.note(run, "", "rescue", f"rescue {state}: {reason}")

    def rescues(self, run: str, *, state: str | None = None, since: float = 0.0) -> list[dict[str, Any]]:
        rows = self._rows("select * from rescues where run = ? and intended >= ? order by id", run, since)
        return [row for row in rows if state is None or row["state"] == state]

    # -- outcomes and history --------------------------------------------------------------------------

    def add_outcome(self, row: IncidentRow, attempt: int, result: str, reason: str) -> None:
        with self.batch():
            self._insert(
                "outcomes",
                {"run": row.run, "incident": row.id, "attempt": attempt, "result": result, "reason": reason, "time": self.clock()},
            )
            self.note(row.run, row.id, "outcome", f"{result}: {reason}")

    def outcomes(self, incident: str) -> list[dict[str, Any]]:
        return self._rows("select attempt, result, reason, time from outcomes where incident = ? order by id", incident)

    def tried(self, incident: str) -> set[str]:
        """Keys of the repairs that were carried out (or could not be) for an incident, whatever came of them."""
        rows = self._rows("select key from plans where incident = ? and (applied is not null or state = 'failed')", incident)
        return {row["key"] for row in rows}

    def tried_actions(self, incident: str) -> list[str]:
        rows = self._rows("select action from plans where incident = ? and applied is not null", incident)
        return [row["action"] for row in rows]

    def attempts_of_run(self, run: str) -> tuple[int, float]:
        """How many repairs were carried out for a run, and when the latest was."""
        row = self._rows(
            "select count(distinct incident || '/' || attempt) as n, max(applied) as latest from plans "
            "where run = ? and applied is not null",
            run,
        )[0]
        return int(row["n"] or 0), float(row["latest"] or 0.0)

    def last_attempt(self, incident: str) -> float:
        return float(self._rows("select max(applied) as latest from plans where incident = ?", incident)[0]["latest"] or 0.0)

    def note(self, run: str, incident: str, event: str, text: str) -> None:
        """One line of the run's history."""
        with self.batch():
            self._insert("history", {"run": run, "incident": incident, "event": event, "text": text, "time": self.clock()})

    def history(self, run: str) -> list[dict[str, Any]]:
        return self._rows("select time, incident, event, text from history where run = ? order by id", run)

    # -- the daemon ------------------------------------------------------------------------------------

    def observe(self, run: str, incident: Incident, session: int = 0) -> bool:
        """Enter what was seen while the run runs, without disturbing a repair. Whether it is news.

        Session 0: the loop adopts the incident when its own analysis confirms it. What was handed to a
        person in the session that is still open stays there.
        """
        key = incident_key(run, incident.id)
        with self.batch():
            row = next(iter(self._rows("select stage, session from incidents where id = ?", key)), None)
            if row is None:
                self.open_incident(run, incident, session)
                return True
            stage, ended = Stage(row["stage"]), Stage(row["stage"]) in ENDED
            if ended and not (stage is Stage.ESCALATED and row["session"] and row["session"] == self.session(run)):
                self.open_incident(run, incident, session)
                return True
            if ended or stage in (Stage.OPEN, Stage.DIAGNOSED):
                self._update("incidents", key, body=json.dumps(plain(incident)), summary=incident.diagnosis.summary)
            return False

    def passed(self, run: str, fingerprint: str, reason: str) -> bool:
        """What was seen is over by itself. A repair under way is left to the loop. Whether anything was moved."""
        key = incident_key(run, fingerprint)
        with self.batch():
            row = next(iter(self._rows("select stage from incidents where id = ?", key)), None)
            if row is None or Stage(row["stage"]) not in (Stage.OPEN, Stage.DIAGNOSED):
                return False
            self.move(key, Stage.RECOVERED, reason)
            return True

    def save_marks(self, run: str, marks: dict[str, str]) -> None:
        """Where reading goes on, by file."""
        with self.batch():
            self._db.table("marks").upsert_all(
                [{"run": run, "file": file, "body": body} for file, body in marks.items()], pk=("run", "file")
            )

    def marks(self, run: str) -> dict[str, str]:
        return {row["file"]: row["body"] for row in self._rows("select file, body from marks where run = ?", run)}

    def save_seen(self, run: str, rows: list[tuple[str, int, str]]) -> None:
        """Diagnosed attempts as (job, attempt, fingerprint); a negative attempt takes the job out."""
        with self.batch():
            table = self._db.table("seen")
            table.upsert_all([{"run": run, "job": job, "seq": seq, "incident": mark} for job, seq, mark in rows], pk=("run", "job"))
            table.delete_where("run = ? and seq < 0", [run])

    def seen(self, run: str) -> dict[str, tuple[int, str]]:
        return {row["job"]: (row["seq"], row["incident"]) for row in self._rows("select job, seq, incident from seen where run = ?", run)}

    def forget_run(self, run: str) -> None:
        """Let go of what following a run needs; its incidents and history stay."""
        with self.batch():
            for name in ("marks", "seen", "watched"):
                self._db.table(name).delete_where("run = ?", [run])

    def save_watched(self, rows: list[dict[str, Any]]) -> None:
        with self.batch():
            now = self.clock()
            self._db.table("watched").upsert_all(({**row, "updated": now} for row in rows), pk="run")

    def watched(self) -> list[dict[str, Any]]:
        return self._rows("select * from watched order by submit_dir")

    def save_sources(self, rows: list[dict[str, Any]]) -> None:
        with self.batch():
            now = self.clock()
            self._db.table("sources").upsert_all(({**row, "updated": now} for row in rows), pk="name")

    def sources(self) -> list[dict[str, Any]]:
        return self._rows("select * from sources order by name")

    def forget_source(self, name: str) -> None:
        with self.batch():
            self._db.table("sources").delete_where("name = ?", [name])

    def cursor(self, name: str) -> int | None:
        return next((int(row["value"]) for row in self._rows("select value from cursors where name = ?", name)), None)

    def save_cursor(self, name: str, value: int) -> None:
        with self.batch():
            self._db.table("cursors").upsert({"name": name, "value": value}, pk="name")

    def history_after(self, after: int, limit: int = 200) -> list[dict[str, Any]]:
        """What happened since, over all runs, with the run's place: for notifications."""
        return self._rows(
            "select history.*, runs.submit_dir, runs.label, incidents.cause, incidents.summary from history"
            " left join runs on runs.id = history.run left join incidents on incidents.id = history.incident"
            " where history.id > ? order by history.id limit ?",
            after,
            limit,
        )

    def last_history(self) -> int:
        return int(self._rows("select max(id) as n from history")[0]["n"] or 0)

    # -- the model ---------------------------------------------------------------------------------------

    def llm_answer(self, key: str, model: str, version: str, run: str, fingerprint: str) -> str | None:
        """The answer kept under a key, else the latest one to the same failure of the same run."""
        rows = self._rows("select body from llm_answers where key = ?", key)
        if not rows and run:
            rows = self._rows(
                "select body from llm_answers where run = ? and fingerprint = ? and model = ? and version = ? "
                "order by created desc limit 1",
                run,
                fingerprint,
                model,
                version,
            )
        return str(rows[0]["body"]) if rows else None

    def save_llm_answer(self, key: str, model: str, version: str, run: str, fingerprint: str, body: str) -> None:
        row = {"model": model, "version": version, "run": run, "fingerprint": fingerprint, "body": body, "created": self.clock()}
        with self.batch():
            self._db.table("llm_answers").upsert({"key": key, **row}, pk="key")

    def llm_answers(self, fingerprint: str) -> list[dict[str, Any]]:
        """Kept answers to a failure whose fingerprint begins so, the latest first."""
        return self._rows(
            "select model, run, fingerprint, body, created from llm_answers where substr(fingerprint, 1, ?) = ? order by created desc",
            len(fingerprint),
            fingerprint,
        )

    def add_llm_usage(self, row: dict[str, Any]) -> None:
        """What one call cost, whatever came of it."""
        with self.batch():
            self._insert("llm_usage", {**row, "time": self.clock()})

    def llm_spent(self, *, run: str | None = None, since: float = 0.0) -> dict[str, Any]:
        """Calls, tokens and dollars of one run or of all since a time."""
        return self._rows(
            "select coalesce(sum(calls), 0) as calls, coalesce(sum(sent), 0) as sent, coalesce(sum(received), 0) as received,"
            " coalesce(sum(cache_written), 0) as cache_written, coalesce(sum(cache_read), 0) as cache_read,"
            " coalesce(sum(dollars), 0.0) as dollars from llm_usage where time >= ? and (? is null or run = ?)",
            since,
            run,
            run,
        )[0]

    def llm_usage(self, since: float = 0.0) -> list[dict[str, Any]]:
        """What was spent per day (UTC) and model, the latest day first."""
        return self._rows(
            "select date(time, 'unixepoch') as day, model, sum(calls) as calls, sum(sent) as sent, sum(received) as received,"
            " sum(cache_written) as cache_written, sum(cache_read) as cache_read, sum(dollars) as dollars,"
            " sum(outcome = 'answered') as answered, sum(outcome = 'abstained') as abstained,"
            " sum(outcome not in ('answered', 'abstained')) as failed"
            " from llm_usage where time >= ? group by 1, 2 order by 1 desc, 2",
            since,
        )

    def past_incidents(self, fingerprint: str, cause: str, run: str, limit: int = 3) -> list[IncidentRow]:
        """Ended incidents of other runs with the same fingerprint, then with the same cause, the latest first."""
        found = self._incidents(
            "incidents.run != ? and incidents.stage in ('recovered', 'escalated') and (incidents.fingerprint = ? or incidents.cause = ?)",
            run,
            fingerprint,
            cause,
        )
        found.sort(key=lambda row: (row.incident.id != fingerprint, -row.updated))
        return found[:limit]

    def sound(self) -> str:
        """What SQLite says of the database: ``ok``, or what is damaged."""
        return str(self._rows("pragma quick_check(1)")[0]["quick_check"])


class PlanJournal:
    """Intent before the act, result after it."""

    def __init__(self, store: Store, plan: int) -> None:
        self._store = store
        self._plan = plan

    def intend(self, plan: Plan, what: str, original: bytes | None, mode: int | None) -> int:
        store = self._store
        with store.batch():
            return store._insert(
                "journal",
                {"plan": self._plan, "what": what, "original": original, "mode": mode, "state": "intended",
                 "intended": store.clock(), "ended": None},
            )  # fmt: skip

    def done(self, entry: int) -> None:
        self._end(entry, "done")

    def undone(self, entry: int) -> None:
        self._end(entry, "undone")

    def _end(self, entry: int, state: str) -> None:
        store = self._store
        with store.batch():
            store._update("journal", entry, state=state, ended=store.clock())


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
