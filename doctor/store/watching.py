"""What the daemon needs to go on exactly, and what ``status`` shows."""

from __future__ import annotations

from typing import Any

from doctor.loop.news import is_news, merged
from doctor.loop.stages import ENDED, Stage
from doctor.model import BY_MODEL, Incident
from doctor.statedir import incident_key
from doctor.store.incidents import Incidents


class Watching(Incidents):
    """Offsets, diagnosed attempts, the state of runs and sources."""

    def observe(self, run: str, incident: Incident, session: int = 0) -> bool:
        """Enter what was seen while the run runs, without disturbing a repair. Whether it is news.

        Session 0: the loop adopts the incident when its own analysis confirms it. What was handed to a
        person stays there in the session that is still open, and later unless there is more to tell; what a live
        detection sees (with a session) is told anew, because it was over in between.
        """
        key = incident_key(run, incident.id)
        with self.batch():
            sql = "select stage, session, json_extract(body, '$.diagnosis.decided_by') as decided_by from incidents where id = ?"
            row = next(iter(self._rows(sql, key)), None)
            if row is None:
                self.open_incident(run, incident, session)
                return True
            stage, ended = Stage(row["stage"]), Stage(row["stage"]) in ENDED
            if ended and not (stage is Stage.ESCALATED and self._told(row, run, incident, session)):
                self.open_incident(run, incident, session)
                return True
            if ended or stage in (Stage.OPEN, Stage.DIAGNOSED):
                known = self.incident(key).incident if str(row["decided_by"]).startswith(BY_MODEL) else incident
                self.refresh(key, merged(known, incident))
            return False

    def _told(self, row: dict[str, Any], run: str, incident: Incident, session: int) -> bool:
        """Whether a person knows all that an escalated incident tells."""
        known = self.incident(incident_key(run, incident.id))
        if row["session"] and row["session"] == self.session(run):
            return known.incident.diagnosis.cause == incident.diagnosis.cause
        return not session and not is_news(known, incident)

    def see_again(self, run: str, incident: Incident) -> None:
        """A live detection has changed: how long, how full. What is being repaired is left alone."""
        key = incident_key(run, incident.id)
        with self.batch():
            row = next(iter(self._rows("select stage from incidents where id = ?", key)), None)
            if row is not None and Stage(row["stage"]) in (Stage.OPEN, Stage.DIAGNOSED, Stage.WAITING, Stage.ESCALATED):
                self.refresh(key, incident)

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

    def prune(self, before: float) -> int:
        """Let go of what following a run needed, of runs that were let go of before that time; how many there were.

        Their incidents, repairs and history stay.
        """
        with self.batch():
            rows = self._rows("select run from watched where state in ('finished', 'vanished') and updated < ?", before)
            for row in rows:
                for name in ("marks", "seen", "watched"):
                    self._db.table(name).delete_where("run = ?", [row["run"]])
            return len(rows)

    def save_watched(self, rows: list[dict[str, Any]]) -> None:
        with self.batch():
            now = self.clock()
            self._db.table("watched").upsert_all(({**row, "updated": now} for row in rows), pk="run")

    def watched(self, run: str | None = None) -> list[dict[str, Any]]:
        """What ``status`` shows of all runs, or of one."""
        return self._rows("select * from watched where ? is null or run = ? order by submit_dir", run, run)

    def save_sources(self, rows: list[dict[str, Any]]) -> None:
        """All sources there are; one that is not among them is no more."""
        with self.batch():
            now = self.clock()
            table = self._db.table("sources")
            table.delete_where(f"name not in ({', '.join('?' * len(rows))})", [row["name"] for row in rows])
            table.upsert_all(({**row, "updated": now} for row in rows), pk="name")

    def sources(self) -> list[dict[str, Any]]:
        return self._rows("select * from sources order by name")

    def overview(self) -> list[dict[str, Any]]:
        """All incidents in few words, oldest first, without reading their whole records."""
        rows = self._rows(
            "select id, run, cause as category, cause, stage as state, summary, json_array_length(body, '$.jobs') as jobs, updated"
            " from incidents order by created, id"
        )
        for row in rows:
            row["category"], _, row["cause"] = row["cause"].partition("/")
        return rows

    def tally(self) -> dict[tuple[str, str], int]:
        """How many incidents there are by (state, cause)."""
        rows = self._rows("select stage, cause, count(*) as n from incidents group by stage, cause")
        return {(row["stage"], row["cause"]): int(row["n"]) for row in rows}

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
