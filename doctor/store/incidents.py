"""Runs, their sessions, and incidents with their evidence and history."""

from __future__ import annotations

import json
from typing import Any

from doctor.errors import DoctorError
from doctor.loop.records import IncidentRow, incident_from, plain
from doctor.loop.stages import ENDED, MOVES, Stage
from doctor.model import Evidence, Incident, RunSummary
from doctor.statedir import StoreError, incident_key, run_key
from doctor.store.base import Base


class Incidents(Base):
    """What is wrong with which run, and what became of it."""

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

    def began(self, key: str) -> float:
        """When the latest session of a run was opened; 0 when none was."""
        found = self.run(key)
        return float(found["began"]) if found else 0.0

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

    def unfinished(self) -> dict[str, str]:
        """Runs (key -> submit directory) with an open session, or with an incident that has not come to its end."""
        rows = self._rows(
            "select id, submit_dir from runs where open = 1 or id in"
            " (select run from incidents where stage not in ('recovered', 'escalated'))"
        )
        return {row["id"]: row["submit_dir"] for row in rows}

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

    def refresh(self, key: str, incident: Incident) -> None:
        """What is known of an incident by now, in whatever state it is."""
        facts = {"cause": incident.diagnosis.cause, "summary": incident.diagnosis.summary, "body": json.dumps(plain(incident))}
        with self.batch():
            self._update("incidents", key, **facts)
            self._evidence(key, incident.diagnosis.evidence)

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

    def history(self, run: str) -> list[dict[str, Any]]:
        return self._rows("select time, incident, event, text from history where run = ? order by id", run)
